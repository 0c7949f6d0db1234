"""HTTP/1.1 through the running proxy: what one end says is what the other end gets, and nothing ambiguous passes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.support import (
    Arrival,
    Client,
    ScriptedOrigin,
    answer,
    connect,
    eventually,
    reverse_config,
    scripted_origin,
)
from tests.support.proxy import Proxy, running_proxy


@dataclass
class Pair:
    proxy: Proxy
    origin: ScriptedOrigin
    log: Path

    def connect(self) -> Client:
        return connect(self.proxy.port)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("http")
    log = folder / "access.json"
    with scripted_origin() as origin:
        config = reverse_config(
            origin,
            access_log={"path": str(log), "format": "json"},
            limits={"request_line": 2000, "header_bytes": 4000, "header_count": 20, "body": 100_000},
            timeouts={"header": 0.6, "idle": 2, "keep_alive": 30},
        )
        config["upstreams"]["origin"]["health"] = {"max_failures": 10**6}
        with running_proxy(config, folder) as proxy:
            yield Pair(proxy, origin, log)
            assert "Traceback" not in proxy.log, proxy.log


@pytest.fixture
def pair(shared: Pair) -> Pair:
    shared.origin.reset()
    return shared


# Connections and framing


def test_keep_alive_serves_many_requests_on_one_connection_each_way(pair: Pair) -> None:
    with pair.connect() as client:
        bodies = [client.get(f"/{number}")[2] for number in range(20)]
    assert bodies == [b"GET /%d " % number for number in range(20)]
    assert len({seen["connection"] for seen in pair.origin.seen}) == 1


def test_pipelined_requests_are_answered_in_order(pair: Pair) -> None:
    with pair.connect() as client:
        client.send(
            b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n"
            b"POST /2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n"
            b"FOO-bar!# /3 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nxyz"
            b"HEAD /4 HTTP/1.1\r\nHost: a\r\n\r\n"
            b"\r\nPATCH /5 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            b"GET /never HTTP/1.1\r\nHost: a\r\n\r\n"
        )
        assert client.response()[2] == b"GET /1 "
        assert client.response()[2] == b"POST /2 abcd"
        assert client.response()[2] == b"FOO-bar!# /3 xyz"
        assert client.response(head=True)[0] == 200
        status, fields, body = client.response()
        assert (status, body) == (200, b"PATCH /5 ")
        assert fields[b"connection"] == b"close"
        assert client.closed()
    assert [seen["target"] for seen in pair.origin.seen] == [b"/1", b"/2", b"/3", b"/4", b"/5"]


def test_hundreds_of_pipelined_requests_are_answered_in_order(pair: Pair) -> None:
    with pair.connect() as client:
        client.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number for number in range(300)))
        for number in range(300):
            assert client.response()[2] == b"GET /%d " % number


def test_chunked_content_and_trailers_pass_both_ways(pair: Pair) -> None:
    def script(arrival: Arrival) -> None:
        content = arrival.content()
        arrival.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n")
        arrival.send(b"%x;ext=1\r\n%b\r\n0\r\nX-Sum: %d\r\n\r\n" % (len(content), content, len(content)))
        origin_trailers[:] = arrival.trailers or origin_trailers

    origin_trailers: list[bytes] = []
    pair.origin.reset(script)
    with pair.connect() as client:
        client.request("/", "PUT", "Transfer-Encoding: chunked", "Trailer: X-Check", "TE: trailers")
        client.send(b"5;a=b\r\nhello\r\n1\r\n \r\n5\r\nworld\r\n0\r\nX-Check: yes\r\n\r\n")
        head = client.read_until(b"\r\n\r\n")
        assert b"transfer-encoding: chunked" in head.lower()
        rest = client.read_until(b"\r\n\r\n")
        assert rest == b"b\r\nhello world\r\n0\r\nX-Sum: 11\r\n\r\n"
        assert client.get("/again")[0] == 200
    assert [line.lower() for line in origin_trailers] == [b"x-check: yes"]


def test_content_arrives_as_it_is_sent_without_waiting_for_its_end(pair: Pair) -> None:
    def script(arrival: Arrival) -> None:
        first = arrival.read_until(b"one\r\n")
        arrival.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nONE\r\n")
        arrival.read_until(b"0\r\n\r\n")
        arrival.send(b"3\r\nTWO\r\n0\r\n\r\n")
        assert b"two" not in first

    pair.origin.reset(script)
    with pair.connect() as client:
        client.request("/", "POST", "Transfer-Encoding: chunked")
        client.send(b"3\r\none\r\n")
        assert client.read_until(b"ONE\r\n")
        client.send(b"3\r\ntwo\r\n0\r\n\r\n")
        assert client.read_until(b"0\r\n\r\n") == b"3\r\nTWO\r\n0\r\n\r\n"
    assert pair.origin.error is None


# Expect and 1xx


def test_expect_100_continue_goes_to_the_origin_and_its_100_comes_back(pair: Pair) -> None:
    def script(arrival: Arrival) -> None:
        assert arrival.field(b"expect") == b"100-continue"
        assert not arrival.buffer
        arrival.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        arrival.send(answer(arrival.content()))

    pair.origin.reset(script)
    with pair.connect() as client:
        client.request("/", "POST", "Expect: 100-continue", "Content-Length: 5")
        assert client.read_until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(b"hello")
        assert client.response()[2] == b"hello"
    assert pair.origin.error is None


@pytest.mark.parametrize("status", ["417 Expectation Failed", "401 Unauthorized", "200 OK"])
def test_an_origin_that_answers_at_once_is_believed_and_the_content_is_not_waited_for(pair: Pair, status: str) -> None:
    def script(arrival: Arrival) -> bool:
        arrival.send(answer(b"no", status=status))
        return False

    pair.origin.reset(script)
    with pair.connect() as client:
        client.request("/", "POST", "Expect: 100-continue", "Content-Length: 5")
        code, fields, body = client.response()
        assert (code, body) == (int(status[:3]), b"no")
        assert fields[b"connection"] == b"close"
        assert client.closed()


def test_an_unknown_expectation_is_refused(pair: Pair) -> None:
    with pair.connect() as client:
        client.request("/", "POST", "Expect: miracles", body=b"x")
        assert client.response()[0] == 417
    assert not pair.origin.seen


def test_informational_answers_are_relayed_each(pair: Pair) -> None:
    def script(arrival: Arrival) -> None:
        arrival.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n")
        arrival.send(b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 199 Odd\r\nX: 1\r\n\r\n" + answer(b"done"))

    pair.origin.reset(script)
    with pair.connect() as client:
        client.request()
        assert client.response()[:2] == (103, {b"link": b"</a.css>; rel=preload"})
        assert client.response()[0] == 102
        assert client.response()[:2] == (199, {b"x": b"1"})
        status, _, body = client.response()
        assert (status, body) == (200, b"done")


def test_a_client_of_http_1_0_gets_no_informational_answer(pair: Pair) -> None:
    def script(arrival: Arrival) -> None:
        arrival.send(b"HTTP/1.1 103 Early Hints\r\n\r\n" + answer(b"done"))

    pair.origin.reset(script)
    with pair.connect() as client:
        client.send(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n")
        assert client.read_all().startswith(b"HTTP/1.1 200 OK\r\n")


# Messages without content


@pytest.mark.parametrize(
    ("method", "head"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\nETag: x\r\n\r\n"),
        ("HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\nETag: x\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 77\r\nETag: x\r\n\r\n"),
    ],
)
def test_answers_without_content_leave_both_connections_usable(pair: Pair, method: str, head: bytes) -> None:
    pair.origin.reset(lambda arrival: arrival.send(head))
    with pair.connect() as client:
        for _ in range(3):
            client.request("/", method)
            status, fields, _ = client.response(head=True)
            assert status == int(head[9:12])
            assert fields.get(b"content-length") == (head.partition(b"Length: ")[2].partition(b"\r")[0] or None)
    assert len({seen["connection"] for seen in pair.origin.seen}) == 1


# HTTP/1.0


def test_a_client_of_http_1_0_gets_the_length_or_the_close(pair: Pair) -> None:
    pair.origin.reset(
        lambda arrival: arrival.send(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"
        )
    )
    with pair.connect() as client:
        client.send(b"GET / HTTP/1.0\r\n\r\n")
        head, _, body = client.read_all().partition(b"\r\n\r\n")
        assert body == b"abc"
        assert b"transfer-encoding" not in head.lower()


def test_a_client_of_http_1_0_may_ask_for_keep_alive(pair: Pair) -> None:
    with pair.connect() as client:
        for number in range(3):
            client.send(b"GET /%d HTTP/1.0\r\nHost: a\r\nConnection: Keep-Alive\r\n\r\n" % number)
            status, fields, body = client.response()
            assert (status, body) == (200, b"GET /%d " % number)
            assert fields[b"connection"].lower() == b"keep-alive"
        client.send(b"GET /last HTTP/1.0\r\nHost: a\r\n\r\n")
        assert client.read_all().endswith(b"GET /last ")


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_an_answer_that_ends_with_the_connection_is_chunked_for_the_client(pair: Pair, version: bytes) -> None:
    def script(arrival: Arrival) -> bool:
        arrival.send(b"HTTP/%b 200 OK\r\n\r\n" % version + b"x" * 100_000)
        return False

    pair.origin.reset(script)
    with pair.connect() as client:
        for _ in range(2):
            status, fields, body = client.get()
            assert fields[b"transfer-encoding"] == b"chunked"
            assert (status, body) == (200, b"x" * 100_000)


def test_connection_close_is_honoured_each_way(pair: Pair) -> None:
    def script(arrival: Arrival) -> None:
        arrival.content()
        arrival.send(answer(b"bye", "Connection: close"))

    pair.origin.reset(script)
    with pair.connect() as client:
        assert client.get()[1].get(b"connection") is None
        assert client.get()[2] == b"bye"
        client.request("/", "GET", "Connection: close")
        assert client.response()[1][b"connection"] == b"close"
        assert client.closed()
    assert len({seen["connection"] for seen in pair.origin.seen}) == 3


# Upgrade


def test_an_upgrade_becomes_a_tunnel_of_bytes(pair: Pair) -> None:
    def script(arrival: Arrival) -> bool:
        assert arrival.field(b"upgrade") == b"websocket"
        assert arrival.field(b"connection").lower() == b"upgrade"  # type: ignore[union-attr]  # asserted by that
        arrival.send(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-Key: 1\r\n\r\nhello"
        )
        arrival.send(b"got " + arrival.read(9))
        while data := arrival.sock.recv(65536):
            arrival.send(data)
        arrival.send(b"end")
        return False

    pair.origin.reset(script)
    with pair.connect() as client:
        client.request("/ws", "GET", "Connection: Upgrade", "Upgrade: websocket")
        client.send(b"too early")  # sent right behind the head
        status, fields, _ = client.response()
        assert status == 101
        assert fields[b"upgrade"] == b"websocket"
        assert fields[b"x-key"] == b"1"
        assert client.read(18) == b"hellogot too early"
        blob = bytes(range(256)) * 4000
        client.send(blob)
        assert client.read(len(blob)) == blob
        client.shutdown()
        assert client.read_all() == b"end"
    assert pair.origin.error is None


def test_a_refused_upgrade_is_an_ordinary_exchange(pair: Pair) -> None:
    with pair.connect() as client:
        client.request("/ws", "GET", "Connection: Upgrade, X-Hop", "Upgrade: websocket", "X-Hop: 1")
        assert client.response()[2] == b"GET /ws "
        assert client.get("/next")[2] == b"GET /next "
    names = {name for name, _ in pair.origin.seen[0]["lines"]}
    assert b"x-hop" not in names


@pytest.mark.parametrize("protocol", ["h2c", "HTTP/2.0"])
def test_no_upgrade_to_another_version_of_http_passes(pair: Pair, protocol: str) -> None:
    with pair.connect() as client:
        client.request(
            "/", "GET", "Connection: Upgrade, HTTP2-Settings", f"Upgrade: {protocol}", "HTTP2-Settings: AAMA"
        )
        assert client.response()[0] == 200
    assert not {b"upgrade", b"http2-settings"} & {name for name, _ in pair.origin.seen[0]["lines"]}


def test_a_101_that_nobody_asked_for_is_a_502(pair: Pair) -> None:
    pair.origin.reset(
        lambda arrival: arrival.send(b"HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nraw")
    )
    with pair.connect() as client:
        assert client.get()[0] == 502


# Targets, methods, statuses


def test_every_form_of_target(pair: Pair) -> None:
    with pair.connect() as client:
        client.send(b"GET http://Named.test:81/p?q=%20#x HTTP/1.1\r\nHost: other\r\n\r\n")
        refused = client.response()[0]
    with pair.connect() as client:
        client.send(b"GET http://Named.test:81/p?q=%20 HTTP/1.1\r\nHost: other\r\n\r\n")
        assert client.response()[2] == b"GET /p?q=%20 "
        client.send(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.response()[2] == b"OPTIONS * "
        client.send(b"GET http://named.test?q HTTP/1.1\r\nHost: other\r\n\r\n")
        assert client.response()[2] == b"GET /?q "
        client.send(b"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n")
        assert client.response()[0] == 405
    assert refused == 400
    # RFC 9112 section 3.2.2: the authority of the target replaces Host.
    assert dict(pair.origin.seen[0]["lines"])[b"host"] == b"Named.test:81"


@pytest.mark.parametrize("method", ["G", "QUERY", "PROPFIND", "M-SEARCH", "x!#$%&'*+-.^_`|~9", "A" * 300])
def test_any_method_token_passes(pair: Pair, method: str) -> None:
    with pair.connect() as client:
        client.request("/", method, body=b"content")
        assert client.response()[2] == method.encode() + b" / content"


@pytest.mark.parametrize("status", [200, 201, 206, 226, 299, 300, 399, 400, 404, 451, 499, 500, 599, 600, 777, 999])
def test_any_status_passes(pair: Pair, status: int) -> None:
    pair.origin.reset(lambda arrival: arrival.send(answer(b"body", status=f"{status} Some reason")))
    with pair.connect() as client:
        client.request()
        assert client.read_until(b"\r\n") == b"HTTP/1.1 %d Some reason\r\n" % status
        assert client.read_until(b"body")


# What is refused

_HOST = b"Host: a\r\n"
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
    import time

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


# What the proxy adds and takes away


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
    cut = eventually(lambda: logged(url="http://proxy.test/cut"))
    assert cut[0]["result"] == "ERR_CLIENT_ABORT"
    assert cut[0]["status"] == 200
