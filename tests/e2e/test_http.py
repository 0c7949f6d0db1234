"""HTTP/1.1 through the running proxy: what one end says is what the other end gets."""

from __future__ import annotations

import pytest

from tests.e2e.support import Arrival, Pair, answer

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
    assert dict(pair.origin.seen[0]["lines"])[b"host"] == b"named.test:81"


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
