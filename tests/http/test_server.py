"""The server's end of HTTP/1.1 on real sockets: order, persistence, framing, upgrades, refusals, limits and time."""

import itertools
import socket
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.http.test_head import REFUSED_REQUESTS
from tests.support.http1 import TICK, answer_at_end, response, serving
from tests.support.reactor import call
from twisted_wasmproxy.http.headers import Headers
from twisted_wasmproxy.http.stream import StreamFault

GET = b"GET /%b HTTP/1.1\r\nHost: h\r\n\r\n"


@pytest.fixture(scope="module")
def echo():
    with serving() as server:
        yield server


def at(event_wanted):
    """Make a script of a function of the exchange, run at one event."""

    def decorate(function):
        def script(exchange, event):
            if event == event_wanted:
                function(exchange)

        return script

    return decorate


# -- exchanges in order


def test_one_connection_serves_one_request_after_the_other(echo):
    with echo.connect() as peer:
        for n in range(3):
            peer.send(GET % b"%d" % n)
            assert peer.response()[::2] == (200, b"GET /%d " % n)


def test_a_small_answer_is_exact_bytes_in_one_piece():
    with serving() as server, server.connect() as peer:
        peer.send(GET % b"")
        expected = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nGET / "
        assert peer.sock.recv(1000) == expected
        exchange = server.exchange("finished")
        assert exchange.stream.bytes_sent == len(expected)
        assert exchange.stream.bytes_received == len(GET % b"")


def hundred():
    wire = []
    expected = []
    for n in range(100):
        kind = n % 5
        if kind == 0:
            wire.append(b"GET /%d HTTP/1.1\r\nHost: h\r\n\r\n" % n)
            expected.append(b"GET /%d " % n)
        elif kind == 1:
            wire.append(b"POST /%d HTTP/1.1\r\nHost: h\r\nContent-Length: 7\r\n\r\na\r\n\r\nbc" % n)
            expected.append(b"POST /%d a\r\n\r\nbc" % n)
        elif kind == 2:
            wire.append(b"PUT /%d HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" % n)
            wire.append(b"4\r\n\r\n\r\n\r\n3;x=y\r\nabc\r\n0\r\nX-T: 1\r\n\r\n")
            expected.append(b"PUT /%d \r\n\r\nabc" % n)
        elif kind == 3:
            wire.append(b"brew! /%d HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx" % n)
            expected.append(b"brew! /%d x" % n)
        else:
            wire.append(b"\r\nDELETE http://o/%d HTTP/1.1\r\nHost: h\r\n\r\n" % n)
            expected.append(b"DELETE /%d " % n)
    return b"".join(wire), expected


def test_a_hundred_pipelined_requests_are_answered_in_order(echo):
    wire, expected = hundred()
    with echo.connect() as peer:
        peer.send(wire)
        assert [peer.response()[2] for _ in expected] == expected


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(offsets=st.lists(st.integers(0, 6000), max_size=60))
def test_pipelined_requests_are_the_same_in_any_pieces(echo, offsets):
    wire, expected = hundred()
    edges = sorted({0, len(wire), *(offset % len(wire) for offset in offsets)})
    with echo.connect() as peer:
        peer.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for a, b in itertools.pairwise(edges):
            peer.send(wire[a:b])
        assert [peer.response()[2] for _ in expected] == expected


def test_pipelined_requests_are_the_same_byte_by_byte(echo):
    wire, expected = hundred()
    with echo.connect() as peer:
        peer.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for octet in wire:
            peer.send(bytes([octet]))
        assert [peer.response()[2] for _ in expected] == expected


def test_answers_that_come_late_keep_their_order():
    with serving(lambda exchange, event: None) as server, server.connect() as peer:
        peer.send(GET % b"a" + GET % b"b" + GET % b"c")
        for n, path in enumerate([b"/a", b"/b", b"/c"]):
            exchange = server.exchange("end", n)
            assert exchange.request.path == path
            assert len(server.exchanges) == n + 1  # the next one has to wait
            call(exchange.answer, path)
        assert [peer.response()[2] for _ in range(3)] == [b"/a", b"/b", b"/c"]


def test_a_client_that_pipelines_without_end_is_not_read_without_end():
    with serving(lambda exchange, event: None) as server, server.connect() as peer:
        request = GET % b"x" * 1000
        peer.fill(request)
        server.exchange("end")
        (connection,) = server.factory.connections
        assert len(connection._held) <= 192 * 1024


# -- persistence


@pytest.mark.parametrize(
    ("head", "keeps"),
    [
        (b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", True),
    ],
)
def test_the_client_chooses_whether_the_connection_persists(echo, head, keeps):
    with echo.connect() as peer:
        peer.send(head)
        status, fields, body = peer.response()
        assert (status, body) == (200, b"GET / ")
        if keeps:
            assert fields.get(b"connection") == (b"keep-alive" if b"1.0" in head else None)
            peer.send(GET % b"2")
            assert peer.response()[2] == b"GET /2 "
        else:
            assert fields[b"connection"] == b"close"
            assert peer.read_all() == b""


def test_a_client_that_has_shut_down_its_side_gets_its_answers(echo):
    with echo.connect() as peer:
        peer.send(GET % b"1" + GET % b"2" + GET % b"3")
        peer.shutdown()
        assert [peer.response()[2] for _ in range(3)] == [b"GET /1 ", b"GET /2 ", b"GET /3 "]
        assert peer.read_all() == b""


def test_a_client_that_has_shut_down_its_side_gets_an_answer_that_comes_late():
    with serving(lambda exchange, event: None) as server, server.connect() as peer:
        peer.send(GET % b"")
        peer.shutdown()
        exchange = server.exchange("end")
        call(exchange.answer, b"late")
        status, _fields, body = peer.response()
        assert (status, body) == (200, b"late")
        assert peer.read_all() == b""
        assert "failed" not in exchange.events


@pytest.mark.parametrize("cut", [b"G", GET % b"", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nab"])
@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_client_that_goes_away_is_noticed_wherever_it_was(cut, how):
    with serving(lambda exchange, event: None) as server:
        peer = server.connect()
        peer.send(cut)
        if len(cut) > 1:
            server.exchange("head")
        if how == "close":
            peer.sock.close()
        else:
            peer.reset()
        if how == "reset" or b"POST" in cut:
            if len(cut) > 1:
                exchange = server.exchange("failed")
                assert exchange.error.fault is StreamFault.DISCONNECTED
        else:
            for exchange in server.exchanges:
                call(exchange.answer)
        deadline = time.monotonic() + 5
        while server.factory.connections:
            assert time.monotonic() < deadline
            call(lambda: None)


def test_a_connection_that_is_drained_ends_with_its_exchange():
    with serving(lambda exchange, event: None) as server, server.connect() as busy, server.connect() as idle:
        busy.send(GET % b"")
        exchange = server.exchange("end")
        call(server.factory.drain)
        assert idle.read_all() == b""
        call(exchange.answer)
        assert busy.response()[1][b"connection"] == b"close"
        assert busy.read_all() == b""


# -- framing


def test_an_answer_without_a_length_is_chunked_and_may_have_trailers():
    @at("end")
    def script(exchange):
        exchange.stream.send_response(response(200), False)
        exchange.stream.send_data(b"hello")
        exchange.stream.send_data(b"")
        exchange.stream.send_data(b" you")
        exchange.stream.send_end(Headers([(b"X-T", b"1")]))

    with serving(script) as server, server.connect() as peer:
        peer.send(GET % b"" * 2)
        one = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n4\r\n you\r\n0\r\nX-T: 1\r\n\r\n"
        assert peer.read(2 * len(one)) == one * 2


def test_an_answer_without_a_length_ends_with_the_connection_in_http_1_0():
    @at("end")
    def script(exchange):
        exchange.stream.send_response(response(200), False)
        exchange.stream.send_data(b"hello")
        exchange.stream.send_end()

    with serving(script) as server, server.connect() as peer:
        peer.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert peer.read_all() == b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello"
        assert server.exchange("finished").error is None


@pytest.mark.parametrize(("method", "status"), [(b"HEAD", 200), (b"GET", 204), (b"GET", 304)])
def test_answers_that_have_no_content_get_none(method, status):
    @at("end")
    def script(exchange):
        exchange.answer(b"not to be sent", status)

    with serving(script) as server, server.connect() as peer:
        peer.send((method + b" / HTTP/1.1\r\nHost: h\r\n\r\n") * 2)
        for _ in range(2):
            head = peer.read_until(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 %d " % status)
            assert (b"Content-Length: 14" in head) is (status != 204)


def test_request_content_and_trailers_come_in():
    with serving() as server, server.connect() as peer:
        peer.send(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
        peer.send(b"3\r\nabc\r\n0\r\nX-T: 1\r\nHost: x\r\n\r\n")
        assert peer.response()[2] == b"POST / abc"
        exchange = server.exchange("finished")
        assert exchange.events == ["head", "data", "end", "finished"]
        assert list(exchange.trailers) == [(b"X-T", b"1")]
        assert not exchange.end_stream


@pytest.mark.parametrize("framing", [[(b"Content-Length", b"10")], []])
def test_a_broken_off_answer_cannot_be_taken_for_a_whole_one(framing):
    @at("end")
    def script(exchange):
        exchange.stream.send_response(response(200, *framing), False)
        exchange.stream.send_data(b"hello")
        exchange.stream.abort()

    with serving(script) as server, server.connect() as peer:
        peer.send(GET % b"")
        received = peer.read_all()
        assert received.endswith(b"hello" if framing else b"5\r\nhello\r\n")
        exchange = server.exchange("head")
        call(lambda: None)
        assert exchange.events == ["head", "end"]


def test_a_broken_off_answer_that_ends_with_the_connection_is_reset():
    @at("end")
    def script(exchange):
        exchange.stream.send_response(response(200), False)
        exchange.stream.send_data(b"hello")
        exchange.stream.abort()

    with serving(script) as server, server.connect() as peer:
        peer.send(b"GET / HTTP/1.0\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            peer.read_all()


@pytest.mark.parametrize(("body", "fault"), [(b"1234", StreamFault.INCOMPLETE), (b"123456", StreamFault.PROTOCOL)])
def test_an_answer_that_lies_about_its_length_is_broken_off(body, fault):
    @at("end")
    def script(exchange):
        exchange.stream.send_response(response(200, (b"Content-Length", b"5")), False)
        exchange.stream.send_data(body)
        exchange.stream.send_end()

    with serving(script) as server, server.connect() as peer:
        peer.send(GET % b"" * 2)
        received = peer.read_all()
        assert received.count(b"HTTP/1.1") == 1
        assert len(received.partition(b"\r\n\r\n")[2]) < 5
        exchange = server.exchange("failed")
        assert exchange.error.fault is fault
        assert exchange.events == ["head", "end", "failed"]


def test_a_head_that_must_not_be_sent_is_an_error_and_something_else_can_be_sent():
    errors = []

    @at("end")
    def script(exchange):
        try:
            exchange.stream.send_response(response(200, (b"A", b"b\r\nC: d")), True)
        except ValueError as error:
            errors.append(error)
        exchange.answer(b"sorry", 500)

    with serving(script) as server, server.connect() as peer:
        peer.send(GET % b"")
        assert peer.response()[::2] == (500, b"sorry")
        assert len(errors) == 1


def test_informational_responses_go_before_the_answer_but_not_to_http_1_0():
    @at("end")
    def script(exchange):
        exchange.stream.send_informational(response(103, (b"Link", b"</a>")))
        exchange.answer()

    with serving(script) as server, server.connect() as peer, server.connect() as old:
        peer.send(GET % b"")
        assert peer.read_until(b"\r\n\r\n") == b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
        assert peer.response()[0] == 200
        old.send(b"GET / HTTP/1.0\r\n\r\n")
        assert old.read_all().startswith(b"HTTP/1.1 200 OK\r\n")


# -- Expect


EXPECT = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"


def test_a_client_that_expects_100_sends_its_content_after_it():
    def script(exchange, event):
        if event == "head":
            assert exchange.request.headers.get(b"expect") == b"100-continue"
            exchange.stream.send_informational(response(100))
        else:
            answer_at_end(exchange, event)

    with serving(script) as server, server.connect() as peer:
        for _ in range(2):
            peer.send(EXPECT)
            assert peer.read_until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            peer.send(b"hello")
            assert peer.response()[2] == b"POST / hello"


def test_a_client_that_still_expects_100_gets_the_final_answer_and_a_close():
    @at("head")
    def script(exchange):
        exchange.answer(b"no", 417)

    with serving(script) as server, server.connect() as peer:
        peer.send(EXPECT)
        status, fields, body = peer.response()
        assert (status, body, fields[b"connection"]) == (417, b"no", b"close")
        assert peer.read_all() == b""
        peer.sock.close()
        assert server.exchange("finished").content == b""


# -- early answers


def test_after_an_early_answer_a_small_rest_is_skipped_and_the_connection_goes_on():
    @at("head")
    def script(exchange):
        exchange.answer(exchange.request.path, 403)

    with serving(script) as server, server.connect() as peer:
        for _ in range(3):
            peer.send(b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000)
            peer.send(b"POST /b HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
        assert [peer.response()[2] for _ in range(6)] == [b"/a", b"/b"] * 3
        assert server.exchange("finished", 5).content == b""


def test_after_an_early_answer_a_large_rest_does_not_cost_the_client_the_answer():
    @at("head")
    def script(exchange):
        exchange.answer(b"too much" * 1000, 413)

    with serving(script) as server, server.connect() as peer:
        peer.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 8000000\r\n\r\n" + b"x" * 8_000_000)
        assert peer.response()[2] == b"too much" * 1000
        assert peer.read_all() == b""


def test_content_goes_both_ways_at_once():
    def script(exchange, event):
        if event == "head":
            exchange.stream.send_response(response(200), False)
        elif event == "data":
            exchange.stream.send_data(exchange.content)
            exchange.content = b""
        elif event == "end":
            exchange.stream.send_end()

    with serving(script) as server, server.connect() as peer:
        peer.send(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
        peer.read_until(b"\r\n\r\n")
        for _ in range(3):
            peer.send(b"2\r\nab\r\n")
            assert peer.read_until(b"ab\r\n") == b"2\r\nab\r\n"
        peer.send(b"0\r\n\r\n" + GET % b"")
        assert peer.read_until(b"0\r\n\r\n") == b"0\r\n\r\n"
        assert peer.response()[0] == 200


# -- tunnels


def tunnelling(exchange, event):
    """Switch, and echo what comes; half-close when the client has."""
    if event == "end" and not exchange.stream.sending:
        if exchange.request.method == b"CONNECT":
            exchange.stream.send_response(response(200), False)
        else:
            exchange.stream.send_response(response(101), False)
    elif event == "data":
        exchange.stream.send_data(exchange.content)
        exchange.content = b""
    elif event == "end":
        exchange.stream.send_data(b"bye")
        exchange.stream.send_end()


UPGRADE = b"GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"


@pytest.mark.parametrize(
    ("request_head", "answer"),
    [
        (b"CONNECT o:443 HTTP/1.1\r\nHost: o:443\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"),
        (UPGRADE, b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"),
    ],
)
def test_a_tunnel_carries_bytes_and_half_closes(request_head, answer):
    with serving(tunnelling) as server, server.connect() as peer:
        peer.send(request_head + b"early\r\n\r\n")
        assert peer.read(len(answer)) == answer
        assert peer.read(9) == b"early\r\n\r\n"
        peer.send(b"GET / HTTP/1.1\n\x00")
        assert peer.read(16) == b"GET / HTTP/1.1\n\x00"
        peer.shutdown()
        assert peer.read_all() == b"bye"
        exchange = server.exchange("finished")
        assert exchange.error is None


def test_a_tunnel_goes_on_after_our_half_close():
    def script(exchange, event):
        if event == "end" and not exchange.stream.sending and exchange.end_stream and not exchange.content:
            exchange.stream.send_response(response(200), False)
            exchange.stream.send_data(b"hello")
            exchange.stream.send_end()

    with serving(script) as server, server.connect() as peer:
        peer.send(b"CONNECT o:443 HTTP/1.1\r\nHost: o:443\r\n\r\n")
        assert peer.read_all().endswith(b"\r\n\r\nhello")
        peer.send(b"more")
        server.wait(lambda: server.exchanges[0].content == b"more")
        peer.shutdown()
        assert server.exchange("finished").error is None


def test_bytes_after_a_connect_that_is_refused_are_not_a_request():
    @at("end")
    def script(exchange):
        exchange.answer(b"no", 403)

    with serving(script) as server, server.connect() as peer:
        peer.send(b"CONNECT o:443 HTTP/1.1\r\nHost: o:443\r\n\r\n" + GET % b"smuggled")
        status, fields, _ = peer.response()
        assert (status, fields[b"connection"]) == (403, b"close")
        assert peer.read_all() == b""
        assert len(server.exchanges) == 1


def test_an_upgrade_that_is_not_granted_changes_nothing():
    def script(exchange, event):
        if event == "end":
            exchange.answer(exchange.request.path + b" " + exchange.content)

    with serving(script) as server, server.connect() as peer:
        peer.send(UPGRADE + GET % b"2")
        assert [peer.response()[2] for _ in range(2)] == [b"/ws ", b"/2 "]
        upgrade_with_content = UPGRADE.replace(b"GET", b"POST")
        peer.send(upgrade_with_content.replace(b"\r\n\r\n", b"\r\nContent-Length: 3\r\n\r\nabc") + GET % b"2")
        assert [peer.response()[2] for _ in range(2)] == [b"/ws abc", b"/2 "]
        chunked = b"\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        peer.send(upgrade_with_content.replace(b"\r\n\r\n", chunked) + GET % b"2")
        assert [peer.response()[2] for _ in range(2)] == [b"/ws abc", b"/2 "]


# -- refusals


@pytest.mark.parametrize("data", REFUSED_REQUESTS, ids=lambda value: repr(value)[:60])
def test_what_is_refused_is_answered_and_closed_and_reaches_nobody(echo, data):
    status = REFUSED_REQUESTS[data]
    before = len(echo.exchanges)
    with echo.connect() as peer:
        peer.send(data + GET % b"smuggled")
        answer, fields, body = peer.response()
        assert (answer, fields[b"connection"]) == (status, b"close")
        assert body.strip()
        assert peer.read_all() == b""
    assert len(echo.exchanges) == before
    assert echo.refusals[-1][0] == status


BAD_CONTENT = [
    b"3\nabc\r\n0\r\n\r\n",
    b"x\r\n",
    b"3\r\nabcd\r\n",
    b"0\r\nA : b\r\n\r\n",
    b"0\r\nContent-Length: 3\r\n\r\n",
]


@pytest.mark.parametrize("data", BAD_CONTENT)
def test_bad_chunks_are_answered_400_and_break_the_stream(data):
    with serving(lambda exchange, event: None) as server, server.connect() as peer:
        peer.send(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + data + GET % b"smuggled")
        assert peer.response()[0] == 400
        assert peer.read_all() == b""
        exchange = server.exchange("failed")
        assert (exchange.error.fault, exchange.error.status) == (StreamFault.PROTOCOL, 400)
        assert "end" not in exchange.events
        assert len(server.exchanges) == 1


def test_bad_chunks_after_the_answer_has_begun_break_it_off():
    @at("head")
    def script(exchange):
        exchange.stream.send_response(response(200), False)
        exchange.stream.send_data(b"hello")

    with serving(script) as server, server.connect() as peer:
        peer.send(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n")
        assert peer.read_all().endswith(b"5\r\nhello\r\n")
        exchange = server.exchange("failed")
        assert (exchange.error.fault, exchange.error.status) == (StreamFault.PROTOCOL, 0)


# -- limits


def test_content_over_the_limit_is_refused_by_its_length_before_it_is_read():
    with serving(body=1000) as server, server.connect() as peer:
        peer.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n" + b"x" * 1000)
        assert peer.response()[0] == 200
        peer.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1001\r\nExpect: 100-continue\r\n\r\n")
        assert peer.response()[0] == 413
        assert peer.read_all() == b""
        assert server.refusals[0][0] == 413
        assert len(server.exchanges) == 1


def test_content_over_the_limit_is_refused_while_it_streams():
    with serving(lambda exchange, event: None, body=1000) as server, server.connect() as peer:
        peer.send(
            b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + b"64\r\n%b\r\n" % (b"x" * 100) * 20
        )
        assert peer.response()[0] == 413
        assert peer.read_all() == b""
        exchange = server.exchange("failed")
        assert (exchange.error.fault, exchange.error.status) == (StreamFault.OVERLOAD, 413)
        assert len(exchange.content) <= 1000


@pytest.mark.parametrize("limit", ["connections", "connections_per_client"])
def test_one_connection_too_many_gets_503(limit):
    with serving(**{limit: 2}) as server:
        with server.connect() as first, server.connect() as second:
            for peer in (first, second):
                peer.send(GET % b"")
                assert peer.response()[0] == 200
            with server.connect() as third:
                assert third.response()[0] == 503
                assert third.read_all() == b""
            first.send(GET % b"")
            assert first.response()[0] == 200
        deadline = time.monotonic() + 5
        while server.factory.connections:
            assert time.monotonic() < deadline
            call(lambda: None)
        with server.connect() as fourth:
            fourth.send(GET % b"")
            assert fourth.response()[0] == 200
        assert [status for status, _ in server.refusals] == [503]


# -- time


def elapsed(function):
    start = time.monotonic()
    function()
    return time.monotonic() - start


def test_a_head_that_does_not_come_is_answered_408_however_slowly_it_drips():
    with serving(header=0.4) as server, server.connect() as peer:

        def drip():
            peer.send(b"GET / HTTP/1.1\r\n")
            peer.sock.settimeout(0.02)
            while True:
                try:
                    if peer._more():
                        break
                except TimeoutError:
                    peer.send(b"A: b\r\n")

        assert 0.4 <= elapsed(drip) < 0.4 + 20 * TICK
        peer.sock.settimeout(10)
        assert peer.response()[0] == 408
        peer.closed()
        assert server.refusals[0][0] == 408
        assert server.exchanges == []


def test_a_client_that_says_nothing_is_closed_without_an_answer():
    with serving(header=0.2) as server, server.connect() as peer:
        assert elapsed(peer.read_all) > 0.19
        assert server.refusals == []


def test_an_idle_connection_is_closed_after_its_time():
    with serving(keep_alive=0.3) as server, server.connect() as peer:
        for _ in range(3):
            peer.send(GET % b"")
            peer.response()
        assert 0.29 <= elapsed(peer.read_all) < 0.3 + 20 * TICK


def test_content_that_stops_coming_is_answered_408():
    with serving(lambda exchange, event: None, idle=0.3) as server, server.connect() as peer:
        peer.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nab")
        assert peer.response()[0] == 408
        assert peer.read_all() == b""
        exchange = server.exchange("failed")
        assert (exchange.error.fault, exchange.error.status) == (StreamFault.TIMEOUT, 408)


def test_a_client_that_is_not_read_is_not_silent():
    @at("head")
    def script(exchange):
        exchange.stream.pause_reading()

    with serving(script, idle=0.2) as server, server.connect() as peer:
        peer.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n")
        exchange = server.exchange("head")
        peer.sock.settimeout(0.2 + 6 * TICK)
        with pytest.raises(TimeoutError):
            peer.sock.recv(1)
        call(exchange.stream.resume_reading)
        peer.send(b"hello")
        call(lambda: None)
        server.exchange("end")
        call(exchange.answer)
        assert peer.response()[0] == 200


@pytest.mark.parametrize(
    ("data", "status"), [(GET % b"", 504), (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n", 408)]
)
def test_an_exchange_that_takes_too_long_in_all_is_ended(data, status):
    with serving(lambda exchange, event: None, total=0.3) as server, server.connect() as peer:
        peer.send(data)
        assert peer.response()[0] == status
        assert peer.read_all() == b""
        exchange = server.exchange("failed")
        assert (exchange.error.fault, exchange.error.status) == (StreamFault.TIMEOUT, status)


def test_a_client_that_does_not_read_is_aborted():
    def script(exchange, event):
        if event == "end":
            exchange.stream.send_response(response(200), False)
            exchange.stream.send_data(b"x" * 64 * 1024 * 1024)

    with serving(script, idle=0.3) as server, server.connect(receive_buffer=4096) as peer:
        peer.send(GET % b"")
        exchange = server.exchange("failed")
        assert exchange.error.fault is StreamFault.TIMEOUT
        assert "pause" in exchange.events


def test_a_client_that_reads_slowly_is_not_aborted():
    body = b"x" * 4 * 1024 * 1024

    def script(exchange, event):
        if event == "end":
            exchange.answer(body)

    with serving(script, idle=1.0, keep_alive=1.0) as server, server.connect(receive_buffer=4096) as peer:
        peer.send(GET % b"")
        received = 0
        start = time.monotonic()
        while received < len(body):
            data = peer.sock.recv(64 * 1024)
            assert data
            received += len(data)
            time.sleep(max(0.0, start + received / len(body) * 3.0 - time.monotonic()))  # 3 s for all
        assert server.exchange("finished").error is None


def test_a_silent_tunnel_is_ended():
    with serving(tunnelling, tunnel=0.4) as server, server.connect() as peer:
        peer.send(b"CONNECT o:443 HTTP/1.1\r\nHost: o:443\r\n\r\n")
        peer.read_until(b"\r\n\r\n")
        start = time.monotonic()
        while time.monotonic() < start + 0.8:
            peer.send(b"x")
            assert peer.read(1) == b"x"
            time.sleep(0.05)  # the pace of the traffic that keeps it open
        peer.closed()
        assert server.exchange("failed").error.fault is StreamFault.TIMEOUT
        assert time.monotonic() - start >= 1.2 - 2 * TICK


# -- flow control


def test_a_paused_client_is_held_back_and_its_content_is_bounded():
    @at("head")
    def script(exchange):
        exchange.stream.pause_reading()

    with serving(script) as server, server.connect() as peer:
        peer.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000000\r\n\r\n")
        exchange = server.exchange("head")
        peer.fill(b"x" * 65536)
        assert len(exchange.content) <= 65536
        call(exchange.stream.resume_reading)
        server.exchange("data")


def test_a_sender_is_paused_and_resumed_with_the_reader():
    def script(exchange, event):
        if event == "end":
            exchange.stream.send_response(response(200), False)
        elif event == "resume":
            send(exchange)

    def send(exchange):
        while exchange.events[-1] != "pause":
            exchange.stream.send_data(b"x" * 65536)
            exchange.sent += 65536

    with serving(script) as server, server.connect(receive_buffer=65536) as peer:
        peer.send(GET % b"")
        peer.read_until(b"\r\n\r\n")
        exchange = server.exchange("end")
        exchange.sent = 0
        call(send, exchange)
        assert exchange.sent < 16 * 1024 * 1024
        while exchange.events.count("resume") < 10:
            assert peer.sock.recv(1024 * 1024)


def test_handlers_that_fail_answer_500_and_close_the_connection():
    def script(exchange, event):
        raise RuntimeError("a handler that is broken on purpose")

    with serving(script) as server, server.connect() as peer:
        peer.send(GET % b"")
        assert peer.response()[0] == 500
        assert peer.closed()
    with serving() as server, server.connect() as peer:
        peer.send(GET % b"")
        assert peer.response()[0] == 200  # a turn that broke has not spoilt the next ones
