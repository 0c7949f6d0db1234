"""Fields that could be taken for others do not pass: names with underscores, and what may be no trailer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.support import (
    Arrival,
    Client,
    Pair,
    connect,
    plugin_environment,
    reverse_config,
    scripted_origin,
)
from tests.support.proxy import running_proxy

NO_TRAILERS = [
    *("Authorization", "Proxy-Authorization", "Cookie", "Set-Cookie", "WWW-Authenticate", "X-Forwarded-For"),
    *("Forwarded", "X-Forwarded-Host", "X-Real-IP", "Via", "Host", "Keep-Alive", "Trailer"),
    *("Connection", "Cache-Control", "Expires", "Age", "Date", "Location", "Vary", "Range", "If-None-Match"),
    *("If-Range", "Max-Forwards", "Content-Type", "Content-Encoding", "Content-Range", "Expect", "Pragma", "TE"),
    *("Origin", "X-HTTP-Method-Override", "X-Original-URL", "Access-Control-Allow-Origin", "Sec-WebSocket-Key"),
    *("X_Forwarded_For", "x_custom"),
]
MAY_BE = ["Grpc-Status", "Content-Digest", "Server-Timing", "ETag"]
BATCH = 12
"""How many are sent at a time: a trailer section may be no longer than a head."""


def trailers(names: list[str]) -> bytes:
    return b"".join(f"{name}: 1\r\n".encode() for name in names)


def exchange(client: Client, section: bytes) -> bytes:
    """Send a chunked request with this trailer section; return that of the answer."""
    client.request("/", "PUT", "Transfer-Encoding: chunked")
    client.send(b"2\r\nhi\r\n0\r\n" + section + b"\r\n")
    client.read_until(b"\r\n\r\n")
    content, end, rest = client.read_until(b"\r\n\r\n").partition(b"0\r\n")
    assert (content, end) == (b"2\r\nok\r\n", b"0\r\n")
    return rest[:-2]


@pytest.mark.parametrize("start", range(0, len(NO_TRAILERS), BATCH))
def test_fields_that_may_be_no_trailers_are_dropped_both_ways(pair: Pair, start: int) -> None:
    """RFC 9110 section 6.5.1."""
    section = trailers(NO_TRAILERS[start : start + BATCH] + MAY_BE)
    seen: list[bytes] = []

    def script(arrival: Arrival) -> None:
        arrival.content()
        seen.extend(line + b"\r\n" for line in arrival.trailers)
        arrival.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n" + section + b"\r\n")

    pair.origin.reset(script)
    with pair.connect() as client:
        assert exchange(client, section) == trailers(MAY_BE)
    assert b"".join(seen) == trailers(MAY_BE)


def test_what_a_filter_adds_to_trailers_is_held_to_the_same(tmp_path: Path) -> None:
    seen: list[bytes] = []

    def script(arrival: Arrival) -> None:
        arrival.content()
        seen.extend(arrival.trailers)
        arrival.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-A: 1\r\n\r\n")

    with scripted_origin() as origin:
        origin.script = script
        config = reverse_config(origin, filters=[{"native": "trailers"}])
        with (
            running_proxy(config, tmp_path, environment=plugin_environment(tmp_path)) as proxy,
            connect(proxy.port) as client,
        ):
            assert exchange(client, b"X-A: 1\r\n") == b"X-A: 1\r\nX-Filter: 1\r\n"
    assert seen == [b"X-A: 1", b"X-Filter: 1"]


def test_names_with_underscores_do_not_reach_an_origin(pair: Pair) -> None:
    with pair.connect() as client:
        lines = ("X-Kept: a_b", "Content_Length: 5", "Transfer_Encoding: chunked", "X_Forwarded_For: 6.6.6.6")
        assert client.get("/", *lines)[2] == b"GET / "
        assert client.get("/", *lines, "X-Forwarded_Host: x", "_: 1", "Connection: close_")[2] == b"GET / "
    for seen in pair.origin.seen:
        assert not [name for name, _ in seen["lines"] if b"_" in name]
        assert (b"x-kept", b"a_b") in seen["lines"]
        assert dict(seen["lines"])[b"x-forwarded-for"] == b"127.0.0.1"


@pytest.mark.parametrize(("underscores", "status", "seen"), [("pass", 200, [[b"5"]]), ("refuse", 400, [])])
def test_what_becomes_of_underscores_can_be_said(
    tmp_path: Path, underscores: str, status: int, seen: list[list[bytes]]
) -> None:
    with scripted_origin() as origin:
        config = reverse_config(origin, limits={"underscores": underscores})
        with running_proxy(config, tmp_path) as proxy, connect(proxy.port) as client:
            assert client.get("/", "My_Field: 5", "X: a_b")[0] == status
        assert [[value for name, value in head["lines"] if name == b"my_field"] for head in origin.seen] == seen
