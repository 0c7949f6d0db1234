"""What the proxy itself does to the heads that it forwards, and what it writes down about them."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.e2e.support import Arrival, Pair, answer, eventually


def test_hop_by_hop_fields_go_no_further(pair: Pair) -> None:
    def script(arrival: Arrival) -> None:
        arrival.send(
            answer(
                b"x",
                "Connection: X-Private, keep-alive",
                "X-Private: 1",
                "Keep-Alive: timeout=5",
                "Proxy-Connection: keep-alive",
                "Upgrade: h2c",
                "X-Kept: 1",
            )
        )

    pair.origin.reset(script)
    with pair.connect() as client:
        status, fields, _ = client.get(
            "/",
            "Connection: close-not, X-Secret ,, TE",
            "X-Secret: 1",
            "Keep-Alive: 5",
            "Proxy-Connection: x",
            "TE: gzip",
            "X-Kept: 1",
            "Content-Length: 0",
        )
        assert client.get()[0] == 200
    assert status == 200
    assert fields[b"x-kept"] == b"1"
    hops = {b"connection", b"keep-alive", b"proxy-connection", b"upgrade", b"te"}
    assert not {b"x-private", *hops} & set(fields)
    names = {name for name, _ in pair.origin.seen[0]["lines"]}
    assert b"x-kept" in names
    assert not {b"x-secret", *hops} & names


def test_connection_cannot_take_away_what_a_message_needs(pair: Pair) -> None:
    with pair.connect() as client:
        client.request("/", "POST", "Connection: Content-Length, Host", body=b"hello")
        assert client.response()[2] == b"POST / hello"
    assert dict(pair.origin.seen[0]["lines"])[b"host"] == b"proxy.test"


def test_via_date_and_x_forwarded(pair: Pair) -> None:
    pair.origin.reset(lambda arrival: arrival.send(answer(b"x", "Via: 1.0 inner")))
    with pair.connect() as client:
        client.request(
            "/", "GET", "Via: 1.0 outer, 1.1 more", "X-Forwarded-For: 192.0.2.1", "X-Forwarded-Proto: gopher"
        )
        _, fields, _ = client.response()
    lines = dict(pair.origin.seen[0]["lines"])
    assert re.fullmatch(rb"1\.0 outer, 1\.1 more, 1\.1 wasmproxy \(\w+\)", lines[b"via"])
    assert lines[b"x-forwarded-for"] == b"192.0.2.1, 127.0.0.1"
    assert lines[b"x-forwarded-proto"] == b"http"
    assert lines[b"x-forwarded-host"] == b"proxy.test"
    assert b"forwarded" not in lines
    assert re.fullmatch(rb"1\.0 inner, 1\.1 wasmproxy \(\w+\)", fields[b"via"])
    assert re.fullmatch(rb"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", fields[b"date"])


def test_a_date_of_the_origin_stays(pair: Pair) -> None:
    date = "Tue, 15 Nov 1994 08:12:31 GMT"
    pair.origin.reset(lambda arrival: arrival.send(answer(b"x", f"Date: {date}")))
    with pair.connect() as client:
        assert client.get()[1][b"date"] == date.encode()


def test_max_forwards_counts_down_and_ends_here_at_zero(pair: Pair) -> None:
    with pair.connect() as client:
        client.request("/", "OPTIONS", "Max-Forwards: 3")
        assert client.response()[0] == 200
        client.request("/t", "TRACE", "Max-Forwards: 0", "Cookie: secret", "X-Seen: 1")
        status, fields, body = client.response()
        assert (status, fields[b"content-type"]) == (200, b"message/http")
        assert b"TRACE /t HTTP/1.1\r\n" in body
        assert b"X-Seen: 1" in body
        assert b"secret" not in body
        client.request("/", "OPTIONS", "Max-Forwards: 0")
        assert client.response()[1][b"allow"]
        client.request("/", "GET", "Max-Forwards: 0")
        assert client.response()[0] == 200
    assert [dict(seen["lines"])[b"max-forwards"] for seen in pair.origin.seen] == [b"2", b"0"]


def test_repeated_fields_keep_their_order_and_case_and_bytes(pair: Pair) -> None:
    pair.origin.reset(
        lambda arrival: arrival.send(answer(b"x", "Set-Cookie: a=1", "X-Mixed-CASE: \xe4", "Set-Cookie: b=2, c"))
    )
    with pair.connect() as client:
        client.send(
            "GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\r\nx-a: 2\r\nX-A: \xe4\xf6\r\nX-Empty:\r\n\r\n".encode("latin-1")
        )
        head = client.read_until(b"\r\n\r\n")
    assert head.index(b"Set-Cookie: a=1\r\n") < head.index(b"Set-Cookie: b=2, c\r\n")
    assert b"X-Mixed-CASE: \xc3\xa4\r\n" in head
    values = [value for name, value in pair.origin.seen[0]["lines"] if name == b"x-a"]
    assert values == [b"1", b"2", b"\xe4\xf6"]


# The access log


def test_what_was_refused_is_logged_and_so_is_what_was_cut_off(pair: Pair) -> None:
    def script(arrival: Arrival) -> None:
        arrival.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nabc")
        arrival.read_all()

    def logged(**fields: object) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in pair.log.read_text().splitlines()]
        return [line for line in lines if fields.items() <= line.items()]

    with pair.connect() as client:
        address = client.sock.getsockname()[1]
        client.send(b"BAD REQUEST LINE\r\n\r\n")
        assert client.response()[0] == 400
    refused = eventually(lambda: logged(status=400, client_port=address))
    assert len(refused) == 1
    pair.origin.reset(script)
    with pair.connect() as client:
        client.request("/cut")
        client.read_until(b"abc")
        client.reset()
    aborted = eventually(lambda: logged(url="http://proxy.test/cut"))
    assert (aborted[0]["result"], aborted[0]["status"]) == ("ERR_CLIENT_ABORT", 200)


@pytest.mark.parametrize(
    ("silent", "result", "finish"), [(False, "ERR_READ_ERROR", "INTR"), (True, "ERR_READ_TIMEOUT", "TIMEOUT")]
)
def test_an_answer_that_the_origin_breaks_off_is_not_blamed_on_the_client(
    pair: Pair, silent: bool, result: str, finish: str
) -> None:
    def script(arrival: Arrival) -> bool:
        arrival.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nabc")
        return silent and bool(arrival.read_all())

    pair.origin.reset(script)
    with pair.connect() as client:
        client.request(f"/broken-{result}")
        client.read_until(b"abc")
        assert client.closed()

    def logged() -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in pair.log.read_text().splitlines()]
        return [line for line in lines if line["url"] and line["url"].endswith(result)]

    line = eventually(logged)[0]
    assert (line["result"], line["origin_finish"]) == (result, finish)
    assert line["request_finished"]
    assert "origin: " in line["details"]
