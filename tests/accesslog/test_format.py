"""What the lines of the access log say, and that no client can forge one."""

from __future__ import annotations

import dataclasses
import json
import re
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_wasmproxy.accesslog.format import (
    FIELDS,
    FORMATS,
    HEADER_FIELDS,
    TEXT_LIMIT,
    FormatError,
    compile_format,
)
from twisted_wasmproxy.accesslog.record import TransactionRecord
from twisted_wasmproxy.http.headers import Headers

START = 1_700_000_000.25


@pytest.fixture(autouse=True)
def _zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC-05:30")  # half past five east of Greenwich, as POSIX has it
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def record(**changes: object) -> TransactionRecord:
    values = TransactionRecord(
        start=START,
        duration=2.3456,
        client_address="192.0.2.7",
        client_port=40000,
        user=b"ann",
        method=b"GET",
        scheme=b"http",
        authority=b"example.com",
        path=b"/a/b?c=d",
        mapped_url=b"http://10.0.0.1:8000/b?c=d",
        version=b"1.1",
        request_headers=Headers(
            [(b"Host", b"example.com"), (b"User-Agent", b"curl/8 (x)"), (b"X-A", b"1"), (b"x-a", b"2")]
        ),
        request_header_bytes=101,
        request_body_bytes=11,
        status=200,
        reason=b"OK",
        response_headers=Headers([(b"Content-Type", b"text/html; charset=utf-8")]),
        response_header_bytes=203,
        response_body_bytes=1024,
        result="TCP_MISS",
        hierarchy="DIRECT",
        origin_name="10.0.0.1",
        origin_address="10.0.0.1",
        origin_port=8000,
        origin_duration=1.5,
        origin_request_header_bytes=150,
        origin_request_body_bytes=12,
        origin_status=206,
        origin_version=b"1.0",
        origin_response_headers=Headers([(b"Retry-After", b"5")]),
        origin_response_header_bytes=190,
        origin_response_body_bytes=1000,
    )
    return dataclasses.replace(values, **changes)


def line(format_text: str, **changes: object) -> str:
    return compile_format(format_text)(record(**changes))


COMMON = '192.0.2.7 - ann [15/Nov/2023:03:43:20 +0530] "GET http://10.0.0.1:8000/b?c=d HTTP/1.1" 200 1024'
EXTENDED = f"{COMMON} 206 1000 11 12 101 203 150 190 2"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "squid",
            "1700000000.250 2345 192.0.2.7 TCP_MISS/200 1227 GET http://10.0.0.1:8000/b?c=d ann DIRECT/10.0.0.1 "
            "text/html;%20charset=utf-8",
        ),
        ("common", COMMON),
        ("extended", EXTENDED),
        ("extended2", f"{EXTENDED} DIRECT FIN FIN TCP_MISS"),
    ],
)
def test_the_named_formats_are_those_of_traffic_server(name: str, expected: str) -> None:
    assert line(name) == expected


def test_what_is_not_known_is_a_dash_and_zero() -> None:
    assert compile_format("extended2")(TransactionRecord(start=START)) == (
        '- - - [15/Nov/2023:03:43:20 +0530] "- - -" 000 0 000 0 0 0 0 0 0 0 0 NONE FIN FIN TCP_MISS'
    )


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("chi", "192.0.2.7"),
        ("chih", "C0000207"),
        ("cqcl", "11"),
        ("cqql", "112"),
        ("pqql", "162"),
        ("ssql", "1190"),
        ("cquuc", "http://example.com/a/b?c=d"),
        ("cquuh", "example.com"),
        ("cquup", "a/b"),
        ("cqup", "b"),
        ("cqus", "http"),
        ("cqtx", "GET%20http://10.0.0.1:8000/b?c=d%20HTTP/1.1"),
        ("cqtd", "2023-11-15"),
        ("cqtt", "03:43:20"),
        ("cqts", "1700000000"),
        ("cqth", "6553F100"),
        ("ttms", "2345"),
        ("ttmsf", "2.346"),
        ("stms", "1500"),
        ("sshv", "HTTP/1.0"),
        ("crat", "5"),
        ("prrp", "OK"),
        ("shn", "10.0.0.1"),
        ("nhp", "8000"),
        ("{User-Agent}cqh", "curl/8%20(x)"),
        ("{user-agent}ecqh", "curl/8%20(x)"),
        ("{X-A}cqh", "1,%202"),
        ("{Missing}cqh", "-"),
        ("{Retry-After}ssh", "5"),
        ("{Anything}pqh", "-"),
        ("cqah", "{{{Host}:{example.com}}{{User-Agent}:{curl/8%20(x)}}{{X-A}:{1}}{{x-a}:{2}}}"),
        ("cquuh[0:4]", "exam"),
        ("cquuh[-4:]", ".com"),
        ("cquuh[:-4]", "example"),
        ("cquuh[:]", "example.com"),
        ("{User-Agent}cqh[0:4]", "curl"),
        ("{Missing}cqh??{X-A}cqh[0:1]", "1"),
        ("{Missing}cqh??caun", "ann"),
    ],
)
def test_fields(field: str, expected: str) -> None:
    assert line(f"<%<{field}>>") == f"<{expected}>"


def test_literal_percent_signs_and_braces_stay() -> None:
    assert line("100% {x} %s %<chi>%") == "100% {x} %s 192.0.2.7%"


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_can_be_logged_of_an_empty_and_a_full_record(field: str) -> None:
    for one in (TransactionRecord(), record()):
        assert compile_format(f"%<{field}>")(one)


@pytest.mark.parametrize("field", HEADER_FIELDS)
def test_every_header_field_can_be_logged_of_an_empty_and_a_full_record(field: str) -> None:
    for one in (TransactionRecord(), record()):
        assert compile_format(f"%<{{Host}}{field}>")(one)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("%<cquhh>", "unknown log field 'cquhh'; did you mean 'cquuh'? known: "),
        ("%<{X}nope>", "unknown log field 'nope' after a header name; known: cqh pqh psh ssh"),
        ("%<cqh>", "%<cqh> needs the name of a header, as in %<{User-Agent}cqh>"),
        ("%<{a b}cqh>", "'a b' is not the name of a header"),
        ("%<>", "%<> is not a field"),
        ("%<chi[0:2]>", "%<chi[0:2]>: only a field that holds text can be sliced"),
        ("%<cquuh[a:b]>", "%<cquuh[a:b]> is not a field"),
        ("%<chi", "a field begins with %< and ends with >"),
        ("%<chi>\n", "a format must be one line of printable text"),
        ("combined", "unknown format 'combined'; known: squid, common, extended, extended2, json"),
        ("", "unknown format ''"),
    ],
)
def test_a_wrong_format_says_why(text: str, reason: str) -> None:
    with pytest.raises(FormatError) as raised:
        compile_format(text)
    assert str(raised.value).startswith(reason)


def test_a_name_in_quotes_keeps_its_spaces_and_cannot_end_the_quotes() -> None:
    headers = Headers([(b"User-Agent", b'a b" 200 "x\\')])
    assert line('"%<{User-Agent}cqh>" %<{User-Agent}cqh>', request_headers=headers) == (
        '"a b%22 200 %22x%5C" a%20b%22%20200%20%22x%5C'
    )


_BYTES = st.binary(max_size=30)


@given(method=_BYTES, path=_BYTES, authority=_BYTES, user=_BYTES, agent=_BYTES, kind=_BYTES, details=_BYTES)
def test_no_input_changes_the_shape_of_a_line(
    method: bytes, path: bytes, authority: bytes, user: bytes, agent: bytes, kind: bytes, details: bytes
) -> None:
    hostile = record(
        method=method,
        path=path,
        authority=authority,
        mapped_url=path,
        user=user,
        details=details,
        request_headers=Headers([(b"User-Agent", agent), (b"Referer", agent)]),
        response_headers=Headers([(b"Content-Type", kind)]),
    )
    for name in FORMATS:
        made = compile_format(name)(hostile)
        assert made.isascii()
        assert made.isprintable()
        assert made.count('"') == compile_format(name)(record()).count('"')
        assert len(re.sub('"[^"]*"', '""', made).split(" ")) == len(
            re.sub('"[^"]*"', '""', compile_format(name)(record())).split(" ")
        )
    parsed = json.loads(compile_format("json")(hostile))
    assert "\n" not in compile_format("json")(hostile)
    assert parsed["status"] == 200


def test_json_lines_have_every_fact() -> None:
    made = json.loads(line("json", details=b"connect", filter="auth", tls_version="TLSv1.3"))
    assert made == {
        "time": START,
        "duration": 2.3456,
        "client": "192.0.2.7",
        "client_port": 40000,
        "user": "ann",
        "method": "GET",
        "url": "http://example.com/a/b?c=d",
        "mapped_url": "http://10.0.0.1:8000/b?c=d",
        "version": "1.1",
        "tls": "TLSv1.3",
        "user_agent": "curl/8 (x)",
        "referer": None,
        "request_header_bytes": 101,
        "request_body_bytes": 11,
        "request_finished": True,
        "status": 200,
        "content_type": "text/html; charset=utf-8",
        "response_header_bytes": 203,
        "response_body_bytes": 1024,
        "result": "TCP_MISS",
        "hierarchy": "DIRECT",
        "origin": "10.0.0.1",
        "origin_address": "10.0.0.1",
        "origin_port": 8000,
        "origin_status": 206,
        "origin_duration": 1.5,
        "origin_attempts": 0,
        "origin_request_header_bytes": 150,
        "origin_request_body_bytes": 12,
        "origin_response_header_bytes": 190,
        "origin_response_body_bytes": 1000,
        "origin_finish": "FIN",
        "details": "connect",
        "filter": "auth",
    }


def test_json_keeps_text_in_utf_8_and_marks_other_bytes() -> None:
    made = json.loads(line("json", request_headers=Headers([(b"User-Agent", "ä".encode() + b"\xff\n")])))
    assert made["user_agent"] == "ä\\xff\n"


def test_a_connect_is_logged_by_its_authority() -> None:
    assert line("%<cqhm> %<pqu>", method=b"CONNECT", scheme=b"", path=b"", authority=b"h:443", mapped_url=b"") == (
        "CONNECT h:443"
    )


@pytest.mark.parametrize("octet", [b"a", b" ", b"\xff", b'"', b"%"])
def test_long_texts_are_cut(octet: bytes) -> None:
    long = record(request_headers=Headers([(b"User-Agent", octet * 60_000)]))
    quoted = compile_format('"%<{User-Agent}cqh>" %<{User-Agent}ecqh>')(long)
    told = json.loads(compile_format("json")(long))["user_agent"]
    assert len(quoted) <= 6 * TEXT_LIMIT + 100
    assert told.endswith("...")
    assert len(told) <= 4 * TEXT_LIMIT + 3
