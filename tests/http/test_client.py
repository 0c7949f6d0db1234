"""The client's end of HTTP/1.1 on real sockets: the test plays the origin and says exact bytes."""

import contextlib
import itertools
import threading
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.http.test_head import REFUSED_RESPONSES
from tests.support.http1 import TICK, connected_pair
from tests.support.reactor import call, started_reactor
from twisted_wasmproxy.config.model import LimitsConfig
from twisted_wasmproxy.http.deadlines import Deadlines
from twisted_wasmproxy.http.headers import Headers
from twisted_wasmproxy.http.http1.client import ClientProtocol
from twisted_wasmproxy.http.messages import Request
from twisted_wasmproxy.http.stream import StreamFault


def request(method=b"GET", *fields, upgrade=None):
    return Request(method, b"http", b"h", b"/", Headers(fields), upgrade=upgrade)


class Receiver:
    """A `ResponseReceiver` that writes everything down."""

    def __init__(self, changed):
        self.changed = changed
        self.events = []
        self.informational = []
        self.response = None
        self.content = b""
        self.trailers = None
        self.error = None

    def note(self, event):
        with self.changed:
            self.events.append(event)
            self.changed.notify_all()

    def informational_received(self, response):
        self.informational.append(response)
        self.note("informational")

    def response_received(self, response, end_stream):
        self.response = response
        self.note("response")
        if end_stream:
            self.note("end")

    def data_received(self, data):
        self.content += data
        self.note("data")

    def end_received(self, trailers):
        self.trailers = trailers
        self.note("end")

    def stream_failed(self, error):
        self.error = error
        self.note("failed")

    def pause_writing(self):
        self.note("pause")

    def resume_writing(self):
        self.note("resume")

    def wait(self, event, timeout=10):
        with self.changed:
            assert self.changed.wait_for(lambda: event in self.events, timeout), self.events
        return self


class Origin:
    """A connection with a `ClientProtocol` at one end and the test at the other."""

    def __init__(self):
        self.changed = threading.Condition()
        self.hooks = []
        self.protocol = ClientProtocol(
            lambda protocol: self.note("idle"),
            lambda protocol: self.note("closed"),
            LimitsConfig(),
            Deadlines(started_reactor(), TICK),
        )
        self.peer = connected_pair(self.protocol)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.peer.sock.close()
        self.wait_hook("closed")

    def note(self, hook):
        with self.changed:
            self.hooks.append(hook)
            self.changed.notify_all()

    def wait_hook(self, hook, count=1):
        with self.changed:
            assert self.changed.wait_for(lambda: self.hooks.count(hook) >= count, 10), self.hooks

    def ask(self, message=None, end_stream=True, idle_timeout=60.0):
        """Send a request from the protocol; return what receives the response, with its stream."""
        receiver = Receiver(self.changed)

        def send():
            receiver.stream = self.protocol.open_stream(receiver)
            receiver.stream.idle_timeout = idle_timeout
            receiver.stream.send_request(message or request(), end_stream)

        call(send)
        self.peer.read_until(b"\r\n\r\n")
        return receiver

    def open(self):
        """Return whether the connection is still usable after everything sent so far has been read."""
        return call(self.protocol.usable)


@pytest.fixture
def origin():
    with Origin() as origin:
        yield origin


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


# -- exchanges


def test_a_connection_serves_one_exchange_after_the_other(origin):
    for n in range(3):
        receiver = origin.ask()
        assert receiver.stream.reused is (n > 0)
        assert not origin.protocol.idle
        origin.peer.send(OK)
        receiver.wait("end")
        assert (receiver.response.status, receiver.content) == (200, b"ok")
        assert receiver.stream.bytes_received == len(OK)
        origin.wait_hook("idle", n + 1)
        assert origin.protocol.idle
        assert origin.open()


def test_the_connection_is_free_before_the_receiver_knows_of_the_end(origin):
    order = []
    origin.protocol._on_idle = lambda protocol: order.append("idle")
    receiver = origin.ask()
    receiver.end_received = lambda trailers: (order.append("end"), receiver.note("end"))
    origin.peer.send(OK)
    receiver.wait("end")
    assert order == ["idle", "end"]


def test_a_request_is_exact_bytes(origin):
    receiver = Receiver(origin.changed)

    def send():
        stream = receiver.stream = origin.protocol.open_stream(receiver)
        stream.send_request(request(b"brew", (b"A", b"b")), False)
        stream.send_data(b"hello")
        stream.send_data(b"")
        stream.send_end(Headers([(b"X-T", b"1")]))

    call(send)
    expected = (
        b"brew / HTTP/1.1\r\nHost: h\r\nA: b\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n"
    )
    assert origin.peer.read(len(expected)) == expected
    assert receiver.stream.bytes_sent == len(expected)
    origin.peer.send(OK)
    receiver.wait("end")


@pytest.mark.parametrize(
    ("message", "end_stream", "head"),
    [
        (request(b"POST"), True, b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"),
        (request(b"GET"), True, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"),
        (
            request(b"POST", (b"Content-Length", b"5")),
            False,
            b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n",
        ),
        (Request(b"CONNECT", b"", b"o:443", b"", Headers()), True, b"CONNECT o:443 HTTP/1.1\r\nHost: o:443\r\n\r\n"),
        (Request(b"OPTIONS", b"http", b"h", b"*", Headers()), True, b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n"),
    ],
)
def test_heads_of_requests(origin, message, end_stream, head):
    call(lambda: origin.protocol.open_stream(Receiver(origin.changed)).send_request(message, end_stream))
    assert origin.peer.read(len(head)) == head


RESPONSES = [
    (OK, b"GET", b"ok", True),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"GET", b"", True),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", b"GET", b"ok", True),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\nX-T: 1\r\n\r\n", b"GET", b"", True),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", b"HEAD", b"", True),
    (b"HTTP/1.1 200 OK\r\n\r\n", b"HEAD", b"", True),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"HEAD", b"", True),
    (b"HTTP/1.1 204 No Content\r\n\r\n", b"GET", b"", True),
    (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", b"GET", b"", True),
    (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", b"GET", b"ok", False),
    (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", b"GET", b"ok", False),
    (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", b"GET", b"ok", True),
    (b"HTTP/1.1 299 Odd\r\nContent-Length: 2\r\n\r\nok", b"GET", b"ok", True),
    (b"HTTP/1.1 999\r\nContent-Length: 2\r\n\r\nok", b"GET", b"ok", True),
]


@pytest.mark.parametrize(("wire", "method", "content", "reusable"), RESPONSES)
def test_every_framing_of_a_response(origin, wire, method, content, reusable):
    receiver = origin.ask(request(method))
    origin.peer.send(wire)
    receiver.wait("end")
    assert receiver.content == content
    assert receiver.error is None
    assert receiver.stream.bytes_received == len(wire)
    origin.wait_hook("idle" if reusable else "closed")
    assert ("idle" in origin.hooks) is reusable


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(offsets=st.lists(st.integers(0, 1000), max_size=40))
def test_responses_are_the_same_in_any_pieces(offsets):
    with Origin() as origin:
        for wire, method, content, reusable in RESPONSES:
            if not reusable:
                continue
            data = b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n" + wire
            receiver = origin.ask(request(method))
            edges = sorted({0, len(data), *(offset % len(data) for offset in offsets)})
            for a, b in itertools.pairwise(edges):
                origin.peer.send(data[a:b])
            receiver.wait("end")
            assert receiver.content == content
            assert [response.status for response in receiver.informational] == [103]
            assert receiver.events[:2] == ["informational", "response"]


def test_content_that_ends_with_the_connection(origin):
    receiver = origin.ask()
    origin.peer.send(b"HTTP/1.1 200 OK\r\n\r\nhello")
    origin.peer.shutdown()
    receiver.wait("end")
    assert receiver.content == b"hello"
    assert receiver.error is None
    origin.wait_hook("closed")


def test_content_that_ends_with_a_reset_is_incomplete(origin):
    receiver = origin.ask()
    origin.peer.send(b"HTTP/1.1 200 OK\r\n\r\nhello")
    receiver.wait("data")
    origin.peer.reset()
    receiver.wait("failed")
    assert receiver.error.fault is StreamFault.INCOMPLETE


def test_informational_responses_and_trailers_come_in(origin):
    receiver = origin.ask()
    origin.peer.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n")
    origin.peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-T: 1\r\nHost: x\r\n\r\n")
    receiver.wait("end")
    assert [response.status for response in receiver.informational] == [100, 103]
    assert receiver.informational[1].headers.get(b"link") == b"a"
    assert list(receiver.trailers) == [(b"X-T", b"1")]


def test_a_response_that_comes_before_the_request_has_ended_ends_the_connection(origin):
    receiver = origin.ask(request(b"POST"), end_stream=False)
    origin.peer.send(OK)
    receiver.wait("end")
    assert receiver.content == b"ok"
    origin.wait_hook("closed")
    assert "idle" not in origin.hooks
    call(receiver.stream.send_data, b"too late")
    call(receiver.stream.send_end)
    assert origin.peer.closed()


# -- faults


@pytest.mark.parametrize("data", REFUSED_RESPONSES, ids=lambda value: repr(value)[:60])
def test_what_is_no_response_breaks_the_stream_and_the_connection(origin, data):
    receiver = origin.ask()
    origin.peer.send(data)
    receiver.wait("failed")
    assert receiver.error.fault is StreamFault.PROTOCOL
    assert receiver.events == ["failed"]
    origin.wait_hook("closed")


@pytest.mark.parametrize("data", [b"3\nabc\r\n0\r\n\r\n", b"x\r\n", b"3\r\nabcd\r\n", b"0\r\nA : b\r\n\r\n"])
def test_bad_chunks_break_the_stream(origin, data):
    receiver = origin.ask()
    origin.peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + data)
    receiver.wait("failed")
    assert receiver.error.fault is StreamFault.PROTOCOL
    assert "end" not in receiver.events


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", StreamFault.DISCONNECTED),
        (b"HTTP/1.1 200 OK\r\nContent-Le", StreamFault.INCOMPLETE),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n", StreamFault.DISCONNECTED),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", StreamFault.INCOMPLETE),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcd", StreamFault.INCOMPLETE),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n", StreamFault.INCOMPLETE),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: b\r\n", StreamFault.INCOMPLETE),
    ],
)
def test_an_origin_that_goes_away_is_noticed_wherever_it_was(origin, data, fault, how):
    receiver = origin.ask()
    origin.peer.send(data)
    if data.endswith(b"\r\n\r\n"):
        receiver.wait("informational" if b"103" in data else "response")
    elif b"\r\n\r\n" in data:
        receiver.wait("response")
    if how == "close":
        origin.peer.shutdown()
    else:
        origin.peer.reset()
    receiver.wait("failed")
    assert receiver.error.fault is (fault if how == "close" or data.count(b"\r\n\r\n") else receiver.error.fault)
    assert receiver.events.count("failed") == 1
    assert "end" not in receiver.events
    if not data:
        assert receiver.stream.bytes_received == 0
    origin.wait_hook("closed")


@pytest.mark.parametrize(
    "wire",
    [
        OK + b"x",
        OK + OK,
        b"HTTP/1.1 204 No Content\r\n\r\nx",
        b"HTTP/1.1 304 Not Modified\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nx",
    ],
)
def test_more_than_a_response_is_not_taken_for_the_next_one(origin, wire):
    receiver = origin.ask()
    origin.peer.send(wire)
    receiver.wait("end")
    assert receiver.content in (b"ok", b"")
    origin.wait_hook("closed")
    assert "idle" not in origin.hooks


def test_bytes_on_an_idle_connection_close_it(origin):
    receiver = origin.ask()
    origin.peer.send(OK)
    receiver.wait("end")
    origin.wait_hook("idle")
    origin.peer.send(OK)
    origin.wait_hook("closed")
    assert not origin.open()


@pytest.mark.parametrize("what", ["close", "junk"])
def test_what_the_reactor_has_not_read_yet_makes_an_idle_connection_unusable(origin, what):
    receiver = origin.ask()
    origin.peer.send(OK)
    receiver.wait("end")
    origin.wait_hook("idle")

    def meanwhile():
        origin.protocol._idle_since -= 1  # it has been idle for some ticks
        assert origin.protocol.usable()
        if what == "close":
            origin.peer.sock.close()
        else:
            origin.peer.send(b"junk")
        return origin.protocol.usable()

    assert call(meanwhile) is False
    origin.wait_hook("closed")


def test_a_response_before_the_request_is_refused(origin):
    receiver = Receiver(origin.changed)
    call(origin.protocol.open_stream, receiver)
    origin.peer.send(OK)
    assert receiver.wait("failed").error.fault is StreamFault.PROTOCOL


def test_an_aborted_exchange_calls_nothing_more(origin):
    receiver = origin.ask()
    origin.peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")
    receiver.wait("data")
    call(receiver.stream.abort)
    origin.wait_hook("closed")
    assert receiver.events == ["response", "data"]


@pytest.mark.parametrize(("body", "fault"), [(b"1234", StreamFault.INCOMPLETE), (b"123456", StreamFault.PROTOCOL)])
def test_a_request_that_lies_about_its_length_is_broken_off(origin, body, fault):
    receiver = origin.ask(request(b"POST", (b"Content-Length", b"5")), end_stream=False)
    call(lambda: (receiver.stream.send_data(body), receiver.stream.send_end()))
    assert receiver.wait("failed").error.fault is fault
    with contextlib.suppress(ConnectionResetError):
        assert len(origin.peer.read_all()) < 5


# -- upgrades


def test_an_upgrade_becomes_a_tunnel(origin):
    receiver = origin.ask(request(upgrade=b"x"))
    origin.peer.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nearly")
    receiver.wait("data")
    assert (receiver.response.status, receiver.response.upgrade, receiver.content) == (101, b"x", b"early")
    assert receiver.events == ["response", "data"]
    call(receiver.stream.send_data, b"\x00raw")
    assert origin.peer.read(4) == b"\x00raw"
    call(receiver.stream.send_end)
    assert origin.peer.read_all() == b""
    origin.peer.send(b"bye")
    origin.peer.shutdown()
    receiver.wait("end")
    assert receiver.content == b"earlybye"
    origin.wait_hook("closed")
    assert receiver.error is None


def test_the_origin_may_half_close_a_tunnel_first(origin):
    receiver = origin.ask(Request(b"CONNECT", b"", b"o:443", b"", Headers()))
    origin.peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello you")
    origin.peer.shutdown()
    receiver.wait("end")
    assert receiver.content == b"hello you"
    call(receiver.stream.send_data, b"still here")
    assert origin.peer.read(10) == b"still here"
    call(receiver.stream.send_end)
    origin.wait_hook("closed")


@pytest.mark.parametrize("upgrade", [None, b"y"])
def test_a_101_that_was_not_asked_for_is_refused(origin, upgrade):
    receiver = origin.ask(request(upgrade=upgrade))
    fields = b"" if upgrade else b"Connection: Upgrade\r\nUpgrade: x\r\n"
    origin.peer.send(b"HTTP/1.1 101 Switching Protocols\r\n" + fields + b"\r\n")
    assert receiver.wait("failed").error.fault is StreamFault.PROTOCOL


# -- time and flow


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab"])
def test_an_origin_that_falls_silent_times_out(origin, data):
    start = time.monotonic()
    receiver = origin.ask(idle_timeout=0.3)
    origin.peer.send(data)
    assert receiver.wait("failed").error.fault is StreamFault.TIMEOUT
    assert 0.29 <= time.monotonic() - start < 0.3 + 20 * TICK
    origin.wait_hook("closed")


def test_an_origin_is_not_silent_while_it_is_sent_a_request_or_is_not_read(origin):
    receiver = origin.ask(request(b"POST"), end_stream=False, idle_timeout=0.1)
    with pytest.raises(AssertionError):
        receiver.wait("failed", 0.1 + 6 * TICK)
    call(receiver.stream.pause_reading)
    call(receiver.stream.send_end)
    with pytest.raises(AssertionError):
        receiver.wait("failed", 0.1 + 6 * TICK)
    call(receiver.stream.resume_reading)
    assert receiver.wait("failed").error.fault is StreamFault.TIMEOUT


def test_an_origin_that_does_not_read_times_out(origin):
    receiver = origin.ask(request(b"POST"), end_stream=False, idle_timeout=0.3)
    call(receiver.stream.send_data, b"x" * 64 * 1024 * 1024)
    receiver.wait("pause")
    assert receiver.wait("failed").error.fault is StreamFault.TIMEOUT


def test_a_paused_origin_is_held_back(origin):
    receiver = origin.ask()
    call(receiver.stream.pause_reading)
    origin.peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
    origin.peer.fill(b"x" * 65536)
    assert receiver.events == []
    call(receiver.stream.resume_reading)
    receiver.wait("data")
    call(receiver.stream.abort)
