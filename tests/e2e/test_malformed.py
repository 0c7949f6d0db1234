"""What is malformed, cut off, silent or a lie, from either end, never passes and never looks complete."""

from __future__ import annotations

import re
import time

import pytest

from tests.e2e.support import Arrival, Pair, answer, eventually

# From clients

REFUSED = {
    "bare LF": (b"GET / HTTP/1.1\nHost: a\n\n", 400),
    "bare LF in the fields": (b"GET / HTTP/1.1\r\nHost: a\nX: 1\r\n\r\n", 400),
    "bare CR": (b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\rY: 2\r\n\r\n", 400),
    "obs-fold": (b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n", 400),
    "space before the colon": (b"GET / HTTP/1.1\r\nHost: a\r\nX : 1\r\n\r\n", 400),
    "space before the first field": (b"GET / HTTP/1.1\r\n X: 1\r\nHost: a\r\n\r\n", 400),
    "NUL": (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", 400),
    "control byte": (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x08b\r\n\r\n", 400),
    "no colon": (b"GET / HTTP/1.1\r\nHost: a\r\nXY\r\n\r\n", 400),
    "empty name": (b"GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n", 400),
    "no Host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two Hosts": (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
    "bad Host": (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    "Host with userinfo": (b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400),
    "both lengths": (
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "two lengths": (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
    "two equal lengths": (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na", 400),
    "a list of lengths": (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\na", 400),
    "signed length": (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\na", 400),
    "negative length": (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
    "hexadecimal length": (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\na", 400),
    "enormous length": (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999\r\n\r\n", 400),
    "empty length": (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", 400),
    "coding in HTTP/1.0": (b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "other coding": (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    "hidden coding": (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", (400, 501)),
    "coding with a vertical tab": (
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        (400, 501),
    ),
    "chunked twice": (
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        (400, 501),
    ),
    "two spaces": (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "HTTP/0.9": (b"GET /\r\n\r\n", 400),
    "a space in the target": (b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "raw bytes in the target": (b"GET /\xff\x00 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "a method that is no token": (b"G(T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "HTTP/2.0": (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    "HTTP/1.2": (b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "lower-case version": (b"GET / http/1.1\r\nHost: a\r\n\r\n", 400),
    "TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    "long request line": (b"GET /" + b"a" * 2100 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
    "long request line without end": (b"GET /" + b"a" * 3000, 414),
    "long field": (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 5000 + b"\r\n\r\n", 431),
    "fields without end": (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: a\r\n" * 1000, 431),
    "many fields": (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: a\r\n" * 30 + b"\r\n", 431),
    "long content": (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100001\r\n\r\n", 413),
    "silent in the request line": (b"GET / HT", 408),
    "silent in the fields": (b"GET / HTTP/1.1\r\nHost: a\r\nX-", 408),
    "content for CONNECT": (b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\nContent-Length: 3\r\n\r\nabc", 400),
    "asterisk for GET": (b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "a target without a slash": (b"GET index HTTP/1.1\r\nHost: a\r\n\r\n", 400),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_malformed_is_answered_and_closed_and_never_forwarded(pair: Pair, name: str) -> None:
    message, expected = REFUSED[name]
    with pair.connect() as client:
        client.send(message)
        status, fields, body = client.response()
        assert status in (expected if isinstance(expected, tuple) else (expected,)), body
        assert fields[b"connection"] == b"close"
        assert len(body) > 5
        assert client.closed()
    with pair.connect() as client:
        assert client.get("/after")[2] == b"GET /after "
    assert [seen["target"] for seen in pair.origin.seen] == [b"/after"]


BROKEN_CONTENT = {
    "no hexadecimal size": b"g\r\nabc\r\n0\r\n\r\n",
    "signed size": b"+3\r\nabc\r\n0\r\n\r\n",
    "prefixed size": b"0x3\r\nabc\r\n0\r\n\r\n",
    "space in the size": b"3 \r\nabc\r\n0\r\n\r\n",
    "bare LF behind the size": b"3\nabc\r\n0\r\n\r\n",
    "bare LF in an extension": b"3;a\nb\r\nabc\r\n0\r\n\r\n",
    "no line end behind the chunk": b"3\r\nabcX\r\n0\r\n\r\n",
    "size of 17 digits": b"10000000000000003\r\nabc\r\n0\r\n\r\n",
    "bad trailer": b"3\r\nabc\r\n0\r\nX : 1\r\n\r\n",
    "bare LF behind the last chunk": b"3\r\nabc\r\n0\r\n\n",
}


@pytest.mark.parametrize("name", BROKEN_CONTENT)
def test_broken_chunks_are_a_400_and_the_origin_never_sees_the_end(pair: Pair, name: str) -> None:
    raw: list[bytes] = []

    def script(arrival: Arrival) -> bool:
        try:
            raw.append(arrival.read_all())
        except OSError:
            raw.append(arrival.buffer)
        return False

    pair.origin.reset(script)
    with pair.connect() as client:
        client.request("/", "POST", "Transfer-Encoding: chunked")
        client.send(BROKEN_CONTENT[name])
        status, fields, _ = client.response()
        assert status == 400
        assert fields[b"connection"] == b"close"
        assert client.closed()
    pair.origin.wait(lambda: True)
    with pair.connect() as client:
        pair.origin.reset()
        assert client.get()[0] == 200
    assert all(b"0\r\n\r\n" not in data for data in raw)


@pytest.mark.parametrize("lines", [("Content-Length: 10",), ("Transfer-Encoding: chunked",)], ids=["length", "chunked"])
@pytest.mark.parametrize("how", ["shutdown", "reset"])
def test_a_request_that_is_cut_off_never_looks_complete_to_the_origin(
    pair: Pair, lines: tuple[str, ...], how: str
) -> None:
    outcome: list[str] = []

    def script(arrival: Arrival) -> bool:
        try:
            arrival.content()
            outcome.append("complete")
        except (AssertionError, OSError) as error:
            outcome.append(type(error).__name__)
        return False

    pair.origin.reset(script)
    with pair.connect() as client:
        client.request("/", "POST", *lines)
        client.send(b"5\r\nabcde\r\n" if "chunked" in lines[0] else b"abcde")
        pair.origin.wait(lambda: pair.origin.seen)
        client.shutdown() if how == "shutdown" else client.reset()
        if how == "shutdown":
            client.closed()
    eventually(lambda: outcome)
    assert outcome[0] != "complete"


def test_content_beyond_the_limit_is_a_413_when_chunked_too(pair: Pair) -> None:
    complete: list[bool] = []

    def script(arrival: Arrival) -> bool:
        try:
            arrival.content()
            complete.append(True)
        except (AssertionError, OSError):
            complete.append(False)
        return False

    pair.origin.reset(script)
    with pair.connect() as client:
        client.request("/", "POST", "Transfer-Encoding: chunked")
        client.send(b"c350\r\n" + b"x" * 50_000 + b"\r\n")
        pair.origin.wait(lambda: pair.origin.seen)
        client.send(b"c351\r\n" + b"x" * 50_001 + b"\r\n0\r\n\r\n")
        assert client.response()[0] == 413
        assert client.closed()
    eventually(lambda: complete)
    assert complete == [False]


# Origins that misbehave

GARBAGE = {
    "nonsense": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "HTTP/2": b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "status of two digits": b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
    "both lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "signed length": b"HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\nabc",
    "other coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc",
    "bare LF": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "obs-fold": b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n",
    "space before the colon": b"HTTP/1.1 200 OK\r\nX : a\r\nContent-Length: 0\r\n\r\n",
    "control byte": b"HTTP/1.1 200 OK\r\nX: a\x00\r\nContent-Length: 0\r\n\r\n",
    "head cut off": b"HTTP/1.1 200 OK\r\nContent-Len",
    "nothing": b"",
    "long head": b"HTTP/1.1 200 OK\r\nX: " + b"a" * 300_000 + b"\r\n\r\n",
}


@pytest.mark.parametrize("name", GARBAGE)
def test_an_answer_that_cannot_be_understood_is_a_502_that_names_the_cause(pair: Pair, name: str) -> None:
    def script(arrival: Arrival) -> bool:
        arrival.send(GARBAGE[name])
        return False

    pair.origin.reset(script)
    with pair.connect() as client:
        client.request("/", "POST", body=b"x")
        status, fields, body = client.response()
        assert status == 502
        assert re.match(rb"502 Bad Gateway: \S.{5,200}\n$", body), body
        assert b"Traceback" not in body
        assert b"connection" not in fields  # the client did nothing wrong
        pair.origin.reset()
        assert client.get("/next")[2] == b"GET /next "


LIES = {
    "short": b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b"x" * 999,
    "nothing of it": b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n",
    "chunks without end": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    "a chunk cut off": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n30\r\nabc",
    "trailers cut off": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: 1\r\n",
    "broken chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n",
}


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("name", LIES)
def test_a_lie_about_the_length_reaches_the_client_as_a_broken_message(pair: Pair, name: str, version: str) -> None:
    def script(arrival: Arrival) -> bool:
        arrival.send(LIES[name])
        return False

    pair.origin.reset(script)
    with pair.connect() as client:
        client.send(f"GET / HTTP/{version}\r\nHost: a\r\n\r\n".encode())
        try:
            data = client.read_all()
            reset = False
        except ConnectionResetError:
            data, reset = client.buffer, True
    head, _, body = data.partition(b"\r\n\r\n")
    if b"\r\ncontent-length: " in head.lower():
        assert b"Content-Length: 1000" in head
        assert len(body) < 1000
    elif b"\r\ntransfer-encoding: chunked" in head.lower():
        assert version == "1.1"
        assert b"0\r\n\r\n" not in body
    else:
        assert reset, "the end of the connection would have looked like the end of the content"


def test_an_origin_that_sends_more_than_it_said_is_not_used_again(pair: Pair) -> None:
    pair.origin.reset(lambda arrival: arrival.send(answer(b"ok") + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"))
    with pair.connect() as client:
        for _ in range(3):
            assert client.get()[2] == b"ok"
    assert len({seen["connection"] for seen in pair.origin.seen}) == 3


def test_an_origin_that_is_silent_is_a_504(pair: Pair) -> None:
    pair.origin.reset(lambda arrival: bool(arrival.read_all()))
    with pair.connect() as client:
        status, _, body = client.get()
        assert (status, body[:20]) == (504, b"504 Gateway Timeout:")


def test_an_origin_that_falls_silent_within_an_answer_breaks_the_message(pair: Pair) -> None:
    def script(arrival: Arrival) -> None:
        arrival.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nabc")
        arrival.read_all()

    pair.origin.reset(script)
    with pair.connect() as client:
        client.request()
        assert client.read_until(b"abc")
        assert client.closed()


def test_a_client_that_is_silent_within_its_content_is_a_408(pair: Pair) -> None:
    pair.origin.reset(lambda arrival: bool(arrival.read_all()))
    with pair.connect() as client:
        client.request("/", "POST", "Content-Length: 10")
        client.send(b"abc")
        assert client.response()[0] == 408
        assert client.closed()


def test_a_slow_trickle_of_fields_ends_in_time(pair: Pair) -> None:
    began = time.monotonic()
    with pair.connect() as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n")
        client.sock.settimeout(0.1)
        while time.monotonic() - began < 8:
            try:
                client.send(b"X: 1\r\n")
                if client.sock.recv(100):
                    break
            except TimeoutError:
                continue
            except OSError:
                break
    assert time.monotonic() - began < 5
    assert not pair.origin.seen
