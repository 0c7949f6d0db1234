"""What is longer than the cache reads takes the safe reading; what is not is read as ever."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cache.support import NOW, head, request
from twisted_wasmproxy.cache.conditional import outcome
from twisted_wasmproxy.cache.directives import UNREAD, cache_control, response_directives, targeted
from twisted_wasmproxy.cache.fields import entity_tag
from twisted_wasmproxy.cache.keys import KeyMaker
from twisted_wasmproxy.cache.policy import (
    NOTHING_ASKED,
    asked,
    freshened,
    freshness,
    invalidated,
    reuse,
    selects,
    stored_headers,
    surrogate_keys,
    vary_names,
    why_not_store,
)
from twisted_wasmproxy.cache.policy import Reuse as Verdict
from twisted_wasmproxy.cache.vary import SelectingFields, selecting
from twisted_wasmproxy.config.model import CacheConfig, CacheKeyConfig, CacheRules
from twisted_wasmproxy.http.headers import Headers
from twisted_wasmproxy.http.messages import Response

RULES, CONFIG = CacheRules(), CacheConfig()
FRESH = (b"Cache-Control", b"max-age=60")


def why(*fields: tuple[bytes, bytes]) -> str:
    return why_not_store(request(), Response(200, Headers(fields)), NOTHING_ASKED, RULES, CONFIG)


def parsed(*lines: bytes) -> dict[bytes, bytes | None]:
    return cache_control(lines).arguments


# Cache-Control


@pytest.mark.parametrize(
    ("lines", "read"),
    [
        ([b"x," * 99 + b"max-age=5"], True),
        ([b"x," * 100 + b"max-age=5"], False),
        ([b"max-age=5"] * 100, True),
        ([b"max-age=5"] * 101, False),
        ([b""] * 99 + [b"max-age=5"], True),
        ([b""] * 100 + [b"max-age=5"], False),
        ([b"x=" + b"y" * 16_000, b"max-age=5"], True),
        ([b"x=" + b"y" * 17_000, b"max-age=5"], False),
        ([b'x="' + b"y" * 4000 + b'"', b"max-age=5"], True),
        ([b'x="' + b"y" * 4200 + b'"', b"max-age=5"], False),
    ],
)
def test_cache_control(lines: list[bytes], read: bool) -> None:
    assert parsed(*lines) == (parsed(*lines) | {b"max-age": b"5"} if read else UNREAD.arguments)
    assert why(*[(b"Cache-Control", line) for line in lines]) == ("" if read else "no-store")
    wants = asked(Headers([(b"Cache-Control", line) for line in lines]), RULES)
    assert (wants.no_store, wants.no_cache) == (not read, not read)
    assert wants.max_age == (5 if read else None)


def test_pragma() -> None:
    assert asked(Headers([(b"Pragma", b"x," * 200)]), RULES).no_cache


def test_must_understand_does_not_set_aside_what_nobody_has_read() -> None:
    assert why((b"Cache-Control", b"must-understand, max-age=60" + b",x" * 100)) == "no-store"


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (b"max-age=5" + b",x" * 99, True),
        (b"max-age=5" + b",x" * 100, False),
        (b"max-age=5;" + b"x" * 1014, True),
        (b"max-age=5;" + b"x" * 1015, False),
    ],
)
def test_targeted(value: bytes, read: bool) -> None:
    found = targeted([value])
    assert (found is UNREAD) == (not read)
    fields = [(b"CDN-Cache-Control", value), FRESH]
    assert response_directives(Headers(fields), [b"cdn-cache-control"])[1]
    assert why(*fields) == ("" if read else "no-store")


plain = st.sampled_from(
    [b"max-age=5", b"no-store", b"public", b"private", b" x ", b"", b"s-maxage=x", b"a=b", b"max-age=7"]
)


@given(st.lists(st.lists(plain, max_size=8), max_size=6), st.integers(0, 60))
def test_a_length_makes_no_difference_below_the_limit(lines: list[list[bytes]], more: int) -> None:
    values = [b",".join(line) for line in lines]
    longer = [*values, b"filler=" + b"x" * 300, *[b"filler"] * (more // 4)]
    arguments = parsed(*longer)
    arguments.pop(b"filler")
    assert arguments == parsed(*values)


# Vary


@pytest.mark.parametrize(
    ("lines", "read"),
    [
        ([b",".join(b"a%d" % i for i in range(32))], True),
        ([b",".join(b"a%d" % i for i in range(33))], False),
        ([b"a"] * 32, True),
        ([b"a"] * 33, False),
        ([b"a" * 2048], True),
        ([b"a" * 2049], False),
        ([b"," * 31], True),
        ([b"," * 32], False),
    ],
)
def test_vary(lines: list[bytes], read: bool) -> None:
    fields = [(b"Vary", line) for line in lines]
    assert (vary_names(Headers(fields)) is not None) == read
    assert why(FRESH, *fields) == ("" if read else "Vary: *")
    assert freshness(head(headers=[FRESH, *fields]), RULES, CONFIG).must_validate == (not read)


@pytest.mark.parametrize("name", [b"accept-language", b"foo"])
@pytest.mark.parametrize(("length", "alike"), [(64, True), (65, False)])
def test_a_selecting_field(name: bytes, length: int, alike: bool) -> None:
    one = Headers([(name, b",".join([b"a"] * length))])
    other = Headers([(name, b" , ".join([b"a"] * length))])
    stored = head(vary=selecting([name], one))
    assert selects(stored, one)
    assert selects(stored, other) == alike
    assert not selects(stored, Headers())


values = st.none() | st.sampled_from([b"en", b"de, en", b"en,de", b"en;q=0.5", b"", b"a," * 70, b"a" * 1100])
asking = st.fixed_dictionaries({b"accept-language": values, b"accept": values, b"foo": values})


def fields_of(request: dict[bytes, bytes | None]) -> Headers:
    return Headers([(name, value) for name, value in request.items() if value is not None])


@given(
    st.lists(st.tuples(st.sets(st.sampled_from([b"accept", b"accept-language", b"foo"])), asking), max_size=12), asking
)
def test_fields_made_alike_once_select_as_those_made_alike_each_time(stored, wanted) -> None:
    """Two requests are alike for a Vary if what is made of their fields is."""
    fields = fields_of(wanted)
    once = SelectingFields(fields)
    for names, before in stored:
        one = head(vary=selecting(sorted(names), fields_of(before)))
        assert once.selects(one) == selects(one, fields) == (one.vary == selecting(sorted(names), fields))


def test_names_that_a_304_brings_do_not_add_up() -> None:
    stored = head(headers=[FRESH, (b"Vary", b"a")], vary=((b"a", b"1"),))
    for i in range(20):
        update = Response(304, Headers([(b"Vary", b"a, b%d" % i)]))
        stored = freshened(stored, update, NOW, NOW, RULES, CONFIG)
        assert not selects(stored, Headers([(b"a", b"1")]))
    assert len(stored.vary) == 2


# Validators


@pytest.mark.parametrize(("length", "valid"), [(1022, True), (1023, False)])
def test_an_entity_tag(length: int, valid: bool) -> None:
    tag = b'"' + b"x" * length + b'"'
    assert entity_tag(Headers([(b"ETag", tag)])) == (tag if valid else None)


@given(st.binary(max_size=6))
def test_what_an_entity_tag_may_have(inner: bytes) -> None:
    """RFC 9110 section 8.8.3: etagc = %x21 / %x23-7E / obs-text"""
    valid = all(octet == 0x21 or 0x23 <= octet <= 0x7E or octet >= 0x80 for octet in inner)
    tag = b'"' + inner + b'"'
    assert entity_tag(Headers([(b"ETag", tag)])) == (tag if valid else None)


@pytest.mark.parametrize(
    ("value", "status"),
    [
        (b'"b",' * 99 + b'"a"', 304),
        (b'"b",' * 100 + b'"a"', 200),
        (b'"' + b"b" * 8180 + b'", "a"', 304),
        (b'"' + b"b" * 8190 + b'", "a"', 200),
        (b"," * 99 + b'"a"', 304),
        (b"," * 100 + b'"a"', 200),
    ],
)
def test_if_none_match(value: bytes, status: int) -> None:
    stored = head(headers=[(b"ETag", b'"a"')])
    assert outcome(b"GET", Headers([(b"If-None-Match", value)]), stored) == status


# Age


@pytest.mark.parametrize(
    ("values", "ignored", "stale"),
    [
        ([b"5" + b",6" * 600], b"5", b"2147483648"),
        ([b"0" * 2000 + b"5"], b"5", b"2147483648"),
        ([b"5"] * 600, b"5", b"2147483648"),
        ([b"0" * 900 + b"5"], b"5", b"5"),
    ],
)
def test_age(values: list[bytes], ignored: bytes, stale: bytes) -> None:
    response = Response(200, Headers([(b"Age", value) for value in values]))
    assert stored_headers(response, RULES, CONFIG, NOW).get(b"age") == ignored
    assert stored_headers(response, CacheRules(invalid_age="stale"), CONFIG, NOW).get(b"age") == stale


# Surrogate keys, URIs, keys


@pytest.mark.parametrize(
    ("lines", "kept"),
    [
        ([b" ".join(b"%d" % i for i in range(1000))], 1000),
        ([b" ".join(b"%d" % i for i in range(1001))], None),
        ([b"x" * 8000, b"y" * 8000], 2),
        ([b"x" * 8000, b"y" * 9000], None),
    ],
)
def test_surrogate_keys(lines: list[bytes], kept: int | None) -> None:
    fields = [(b"Surrogate-Key", line) for line in lines]
    assert why(FRESH, *fields) == ("too many surrogate keys" if kept is None else "")
    if kept is not None:
        assert len(surrogate_keys(Response(200, Headers(fields)), RULES, CONFIG)) == kept
    updated = freshened(
        head(headers=[FRESH], surrogate_keys=(b"old",)), Response(304, Headers(fields)), NOW, NOW, RULES, CONFIG
    )
    assert selects(updated, Headers()) == (kept is not None)
    assert reuse(freshness(updated, RULES, CONFIG), NOTHING_ASKED, NOW) is Verdict.FRESH


def test_locations() -> None:
    put = request(b"http://h/a", method=b"PUT")
    many = Response(200, Headers([(b"Location", b"/%d" % i) for i in range(500)]))
    assert invalidated(put, b"http://h/a", many) == [b"http://h/a", *(b"http://h/%d" % i for i in range(4))]
    long = Response(200, Headers([(b"Location", b"/" + b"x" * 9000), (b"Content-Location", b"/b")]))
    assert invalidated(put, b"http://h/a", long) == [b"http://h/a", b"http://h/b"]


@settings(max_examples=50)
@given(st.integers(200, 300), st.sampled_from([{"query": "sort"}, {"query_without": ("b",)}, {"query_only": ("a",)}]))
def test_a_query_of_very_many_parameters_counts_as_it_is(count: int, config) -> None:
    query = b"&".join([b"b=%d" % i for i in range(count - 1, 0, -1)] + [b"a=0"])
    _, url = KeyMaker(CacheKeyConfig(**config), b"o").make(request(b"http://h/?" + query))
    assert (url == b"http://h/?" + query) == (count > 256)


def test_very_many_cookies_count_all_together() -> None:
    keys = KeyMaker(CacheKeyConfig(cookies=("sid",)), b"o")

    def key(*lines: bytes) -> bytes:
        return keys.make(request(headers=[(b"Cookie", line) for line in lines]))[0]

    few, many = b"; ".join([b"a=b"] * 200), b"; ".join([b"a=b"] * 300)
    assert key(b"sid=1; " + few) == key(b"sid=1") == key(few + b"; sid=1")
    assert len({key(b"sid=1"), key(b"sid=1; " + many), key(b"sid=2; " + many), key(many), key(few)}) == 5
