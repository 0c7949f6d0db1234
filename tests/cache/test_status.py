"""Cache-Status (RFC 9211): every member is one that a parser of structured fields reads."""

from __future__ import annotations

import dataclasses

import http_sf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_wasmproxy.cache.status import CacheStatus, add_status
from twisted_wasmproxy.config.model import CacheConfig
from twisted_wasmproxy.http.headers import Headers

KEY = b"http://a.test/x\0origin"


def members(headers: Headers) -> list[tuple[object, dict[str, object]]]:
    value = b", ".join(headers.get_all(b"cache-status"))
    return http_sf.parse(value, tltype="list")  # type: ignore[return-value]  # members here are items


def member(status: CacheStatus, key: bytes = KEY, config: CacheConfig | None = None) -> dict[str, object]:
    headers = Headers()
    add_status(headers, status, key, CacheConfig() if config is None else config)
    ((name, parameters),) = members(headers)
    assert isinstance(name, http_sf.Token)
    assert name == "wasmproxy"
    return {key: str(value) if isinstance(value, http_sf.Token) else value for key, value in parameters.items()}


def test_the_bytes_of_a_hit_and_of_a_miss() -> None:
    headers = Headers()
    add_status(headers, CacheStatus(hit=True, ttl=30), KEY, CacheConfig())
    miss = CacheStatus(fwd="uri-miss", fwd_status=304, ttl=-1, stored=True, collapsed=True, detail="a token")
    add_status(headers, miss, KEY, CacheConfig())
    assert list(headers) == [
        (b"Cache-Status", b'wasmproxy;hit;ttl=30;key="http://a.test/x | origin"'),
        (
            b"Cache-Status",
            b"wasmproxy;fwd=uri-miss;fwd-status=304;ttl=-1;stored;collapsed"
            b';key="http://a.test/x | origin";detail="a token"',
        ),
    ]
    assert headers.lines[0][0] == b"cache-status"


@pytest.mark.parametrize("fwd", ["bypass", "method", "uri-miss", "vary-miss", "miss", "request", "stale", "partial"])
def test_a_reason_to_forward_is_a_token(fwd: str) -> None:
    status = CacheStatus(fwd=fwd)  # type: ignore[arg-type]  # one of the literals
    headers = Headers()
    add_status(headers, status, b"", CacheConfig())
    ((_, parameters),) = members(headers)
    assert isinstance(parameters["fwd"], http_sf.Token)
    assert parameters["fwd"] == fwd


def test_hit_and_fwd_exclude_each_other() -> None:
    assert member(CacheStatus(hit=True, fwd="stale"), b"") == {"fwd": "stale", "key": ""}


def test_what_goes_with_forwarding_is_not_said_of_a_hit() -> None:
    status = CacheStatus(hit=True, fwd_status=200, stored=True, collapsed=True)
    assert member(status) == {"hit": True, "key": "http://a.test/x | origin"}


def test_a_status_of_nothing_names_the_cache() -> None:
    assert member(CacheStatus(), config=CacheConfig(status_key=False)) == {}


def test_ttl_is_as_large_as_an_integer_may_be() -> None:
    assert member(CacheStatus(hit=True, ttl=10**30))["ttl"] == 10**15 - 1
    assert member(CacheStatus(hit=True, ttl=-(10**30)))["ttl"] == -(10**15 - 1)
    assert member(CacheStatus(hit=True, ttl=0))["ttl"] == 0


@pytest.mark.parametrize(
    ("detail", "is_token"),
    [("collapsed", True), ("no-store", True), ("a b", False), ("1st", False), ("", False), ('a"b\\', False)],
)
def test_detail_is_a_token_or_a_string(detail: str, is_token: bool) -> None:
    headers = Headers()
    add_status(headers, CacheStatus(detail=detail), KEY, CacheConfig())
    ((_, parameters),) = members(headers)
    assert isinstance(parameters["detail"], http_sf.Token) is is_token
    assert str(parameters["detail"]) == detail


def test_a_detail_out_of_ascii_is_still_a_string() -> None:
    assert member(CacheStatus(detail="naïve\r\nx"))["detail"] == "na?ve??x"


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        (b"http://a.test/\0", "http://a.test/"),
        (b'http://a.test/"\\\0', 'http://a.test/"\\'),
        (b"http://a.test/\xc3\xbc\r\n\0", "http://a.test/%C3%BC%0D%0A"),
        (b"http://a.test/\0\0accept: a", "http://a.test/ |  | accept: a"),
    ],
)
def test_a_key_is_a_string(key: bytes, shown: str) -> None:
    assert member(CacheStatus(hit=True), key)["key"] == shown


def test_a_key_that_is_very_long_is_left_out() -> None:
    assert member(CacheStatus(hit=True), b"http://a.test/" + b"x" * 2034)["key"]
    assert member(CacheStatus(hit=True), b"http://a.test/" + b"x" * 2035) == {"hit": True}


def test_what_the_configuration_turns_off() -> None:
    headers = Headers()
    add_status(headers, CacheStatus(hit=True), KEY, CacheConfig(status=False))
    assert len(headers) == 0
    assert member(CacheStatus(hit=True), config=CacheConfig(status_key=False)) == {"hit": True}


@pytest.mark.parametrize(
    ("name", "written"), [("edge-1.example.com", b"edge-1.example.com"), ("my edge", b'"my edge"')]
)
def test_the_name_of_the_cache(name: str, written: bytes) -> None:
    headers = Headers()
    add_status(headers, CacheStatus(hit=True), KEY, CacheConfig(status_name=name, status_key=False))
    assert headers.get(b"cache-status") == written + b";hit"


def test_caches_nearer_to_the_origin_come_first() -> None:
    headers = Headers([(b"cache-status", b"up; fwd=miss, mid; hit"), (b"Date", b"d"), (b"Cache-Status", b"near; hit")])
    add_status(headers, CacheStatus(hit=True), KEY, CacheConfig())
    assert [str(name) for name, _ in members(headers)] == ["up", "mid", "near", "wasmproxy"]


def test_what_others_wrote_badly_does_not_touch_ours() -> None:
    headers = Headers([(b"Cache-Status", b'HIT from "cache')])
    add_status(headers, CacheStatus(hit=True), KEY, CacheConfig())
    assert headers.get_all(b"cache-status")[0] == b'HIT from "cache'
    ((name, parameters),) = members(Headers(list(headers)[1:]))
    assert name == "wasmproxy"
    assert parameters["hit"] is True


statuses = st.builds(
    CacheStatus,
    hit=st.booleans(),
    fwd=st.sampled_from([None, "miss", "stale"]),
    fwd_status=st.none() | st.integers(100, 999),
    ttl=st.none() | st.integers(),
    stored=st.booleans(),
    collapsed=st.booleans(),
    detail=st.none() | st.text(max_size=20),
)


@given(statuses, st.binary(max_size=40), st.sampled_from([CacheConfig(), CacheConfig(status_key=False)]))
def test_whatever_is_said_can_be_read(status: CacheStatus, key: bytes, config: CacheConfig) -> None:
    said = member(dataclasses.replace(status), key, config)
    assert not {"hit", "fwd"} <= set(said)
    if status.fwd is None:
        assert not {"fwd-status", "stored", "collapsed"} & set(said)
    else:
        assert said["fwd"] == status.fwd
        assert said.get("fwd-status") == status.fwd_status
        assert ("stored" in said, "collapsed" in said) == (status.stored, status.collapsed)
    assert ("key" in said) is config.status_key
    assert ("ttl" in said) is (status.ttl is not None)
    assert ("detail" in said) is (status.detail is not None)
    headers = Headers()
    add_status(headers, status, key, config)
    value = headers.get(b"cache-status")
    assert value is not None
    assert http_sf.ser(members(headers)).encode() == value
