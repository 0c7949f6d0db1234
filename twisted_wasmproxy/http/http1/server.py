"""The server's end of an HTTP/1.1 connection: requests in, one at a time and in order, and their responses out."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, Protocol

from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from twisted_wasmproxy.http.deadlines import NEVER, Deadlines, shared_deadlines
from twisted_wasmproxy.http.headers import Headers
from twisted_wasmproxy.http.http1.chunked import ChunkedDecoder
from twisted_wasmproxy.http.http1.exchange import Exchange
from twisted_wasmproxy.http.http1.head import RequestHead, RequestLimits
from twisted_wasmproxy.http.http1.pace import Pace
from twisted_wasmproxy.http.http1.syntax import MessageError
from twisted_wasmproxy.http.http1.wire import LINGER, Timeouts, Wire
from twisted_wasmproxy.http.messages import REASONS, Response
from twisted_wasmproxy.http.stream import ConnectionInfo, RequestReceiver, ServerStream, StreamError, StreamFault

__all__ = ["Handler", "Limits", "Refused", "ServerFactory", "ServerProtocol"]

HELD_LIMIT = 64 * 1024
"""Bytes of later, pipelined requests that are kept before the connection is not read any more."""

PIPELINE_BATCH = 32
"""Pipelined requests of one connection that are begun in one turn of the reactor; then others have theirs."""

DISCARD_LIMIT = 256 * 1024
"""Bytes of a request that are read only to be forgotten, after it was answered early, to keep the connection."""

LINGER_LIMIT = 16 * 1024 * 1024
"""The same, where the connection is being closed, so that the client gets to read the answer (RFC 9112 section 9.6)."""


class Limits(RequestLimits, Protocol):
    """What one client may ask; `LimitsConfig` is one."""

    @property
    def body(self) -> int: ...

    @property
    def min_rate(self) -> int: ...

    @property
    def connections(self) -> int: ...

    @property
    def connections_per_client(self) -> int: ...


_PROBES = (1.0, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds between one look and the next at whether a client that has shut down its direction is still there.

The first write after its close brings a reset, the second finds that.
"""

Handler = Callable[[ServerStream, bool], RequestReceiver]
"""Takes a request when its head is in, and whether that was all of it; returns who takes the rest."""

Refused = Callable[[ConnectionInfo, int, str], None]
"""Told of what was answered with an error before there was a stream: the connection, the status, and why."""


class _Input(Enum):
    """What the next byte from the client is."""

    HEAD = "part of a request head, or nothing has come since the last exchange"
    CONTENT = "content of the present request"
    NEXT = "of a later request, which has to wait for the present response to end"
    TUNNEL = "no HTTP"
    DISCARD = "content of a request that was answered before its end; the connection goes on after it"
    LINGER = "of no interest; the response has announced the end of the connection"
    CLOSED = "not read"


# An attribute of an Enum costs ten times a global.
_HEAD = _Input.HEAD
_CONTENT = _Input.CONTENT
_NEXT = _Input.NEXT
_TUNNEL = _Input.TUNNEL
_DISCARD = _Input.DISCARD
_LINGER = _Input.LINGER
_CLOSED = _Input.CLOSED

# What each state goes over to:
#
#   HEAD     a head without content -> NEXT; with content -> CONTENT; refused -> LINGER; no head is read while responses
#            wait for the client to read them
#   CONTENT  its end -> NEXT; the response ends first -> DISCARD or LINGER; framing broken, silence -> LINGER
#   NEXT     the response ends -> HEAD, or LINGER or CLOSED where the connection does not persist; a tunnel -> TUNNEL
#   DISCARD  the end of the content -> HEAD; too much of it -> LINGER
#   LINGER   the client closes, silence -> CLOSED
#   any      the connection is lost, or aborted -> CLOSED


class ServerProtocol(Wire):
    """One client connection."""

    __slots__ = (
        "_discarded",
        "_expires",
        "_factory",
        "_head",
        "_held",
        "_input",
        "_keep_alive",
        "_pace",
        "_served",
        "_yielded",
        "stream",
    )

    def __init__(self, factory: ServerFactory) -> None:
        super().__init__(factory.deadlines)
        self._factory = factory
        self._input = _HEAD
        self._head: RequestHead | None = None
        self._held = b""
        self._keep_alive = True
        self._served = False
        self._yielded = False
        """Whether the requests that are held wait for the next turn of the reactor."""
        self.stream: Exchange | None = None
        self._expires = NEVER
        self._pace: Pace | None = None
        """Of the content of the present request."""
        self._discarded = 0

    # -- the connection

    def connectionMade(self) -> None:
        factory = self._factory
        # Who connects owes a request within the same time as who has begun one.
        self.deadline = self._deadlines.now + factory.timeouts.header
        text = factory.admit(self)
        if text:
            self._refuse(503, text)

    def connection_lost(self, reason: Failure) -> None:
        self._factory.left(self)
        self._input = _CLOSED
        self._head = None
        self._held = b""
        self._break_stream(StreamError(StreamFault.DISCONNECTED, f"client: {reason.getErrorMessage()}"))

    def read_ended(self) -> None:
        input_ = self._input
        if input_ is _TUNNEL:
            stream = self.stream
            assert stream is not None
            stream.tunnel_read_ended()
        elif input_ is _NEXT:
            # The request is complete: a client that has only shut down its direction gets its answer, the last one.
            if not self._held:
                self._keep_alive = False
                self._probe(_PROBES)
        elif input_ is _CONTENT:
            self._break_stream(StreamError(StreamFault.DISCONNECTED, "client: closed before the end of the request"))
            self._shut()
        elif input_ is not _HEAD or not self._held:
            self._shut()

    def _probe(self, delays: tuple[float, ...]) -> None:
        """Find out whether a client that sends no more still reads: a 100 that nobody takes is answered by a reset.

        Any client must take a 1xx, expected or not (RFC 9110 section 15.2); without this one that has gone would be
        served to the end, and what is held or fetched for it kept as long.
        """
        stream = self.stream
        if stream is None or stream.request.version == b"1.0":
            return

        def send() -> None:
            if self.stream is stream and not stream.response_started:
                stream.send_informational(Response(100, Headers()))
                self._probe(delays[1:] or delays)

        self._deadlines.clock.callLater(delays[0], send)

    @property
    def idle(self) -> bool:
        """Whether no exchange is under way and none has begun to arrive."""
        return self._input is _HEAD and self._head is None and not self._held

    def drain(self) -> None:
        """Close when the present exchange has ended, at once if there is none."""
        if self.idle:
            self._shut()
        else:
            self._keep_alive = False

    # -- input

    def _consume(self, data: bytes) -> None:
        if self._held:
            data, self._held = self._held + data, b""
        self._consuming = True
        batch = PIPELINE_BATCH
        try:
            while data:
                input_ = self._input
                if input_ is _HEAD:
                    if self.write_blocked or self._yielded or not batch:
                        self._hold(data)
                        if not batch:
                            self._yield_turn()
                        return
                    batch -= 1
                    data = self._read_head(data)
                elif input_ is _CONTENT or input_ is _DISCARD:
                    data = self._read_content(data)
                elif input_ is _NEXT:
                    self._hold(data)
                    return
                elif input_ is _TUNNEL:
                    stream = self.stream
                    assert stream is not None
                    stream.tunnel_read(data)
                    return
                else:
                    self._linger_read(len(data))
                    return
        finally:
            self._consuming = False
        if self.read_closed:
            self.read_ended()

    def _hold(self, data: bytes) -> None:
        """Keep what cannot be looked at yet."""
        self._held = data
        if len(data) > HELD_LIMIT:
            self.pause_reading()

    def _yield_turn(self) -> None:
        """Go on in the next turn of the reactor."""

        def go_on() -> None:
            self._yielded = False
            self._go_on()

        self._yielded = True
        self._deadlines.clock.callLater(0, go_on)

    def _go_on(self) -> None:
        """Read the next request, unless something keeps it waiting."""
        if self._input is _HEAD and not (self._consuming or self.write_blocked or self._yielded):
            self.resume_reading()
            if self._held:
                held, self._held = self._held, b""
                self.dataReceived(held)

    def _read_head(self, data: bytes) -> bytes:
        factory = self._factory
        head = self._head
        if head is None:
            head = self._head = RequestHead(factory.limits, self.connection.secure)
            now = self._deadlines.now
            self.deadline = now + factory.timeouts.header
            self._expires = now + factory.timeouts.total if factory.timeouts.total else NEVER
        try:
            taken = head.feed(data)
            if taken < 0:
                return b""
            self._head = None
            length = head.content_length
            if length and factory.limits.body and length > factory.limits.body:
                raise MessageError(413, "the request content is too long")
        except MessageError as error:
            self._refuse(error.status, str(error))
            return b""
        if not head.keep_alive or factory.draining:
            self._keep_alive = False
        stream = self.stream = Exchange(self, head, self._served)
        self._served = True
        if head.chunked:
            self._decoder = ChunkedDecoder(factory.limits)
            self._input = _CONTENT
            self._pace = Pace(self._deadlines.now)
        elif length:
            self._remaining = length
            self._input = _CONTENT
            self._pace = Pace(self._deadlines.now)
        else:
            self._input = _NEXT
        end_stream = self._input is _NEXT
        self.arm()
        receiver = factory.handler(stream, end_stream)
        if stream.finished:
            receiver.stream_finished()
        elif stream.failure is not None:
            receiver.stream_failed(stream.failure)
        else:
            stream.receiver = receiver
            if self.write_blocked and self.stream is stream:
                receiver.pause_writing()
        return data[taken:] if taken < len(data) else b""

    def _read_content(self, data: bytes) -> bytes:
        """Read content of the present request; return what is behind it."""
        decoder = self._decoder
        trailers = None
        if decoder is not None:
            try:
                content, taken = decoder.feed(data)
            except MessageError as error:
                self._fail(StreamFault.PROTOCOL, error.status, str(error))
                return b""
            ended = decoder.done
            if ended:
                self._decoder = None
                trailers = decoder.trailers
        else:
            taken = min(len(data), self._remaining)
            content = data if taken == len(data) else data[:taken]
            self._remaining -= taken
            ended = not self._remaining
        rest = data[taken:] if taken < len(data) else b""
        stream = self.stream
        if stream is None:
            self._discarded += taken
            if ended:
                self._next_request()
            elif self._discarded > DISCARD_LIMIT:
                self._linger()
            return rest
        stream.bytes_received += taken
        stream.waits_for_continue = False
        pace = self._pace
        assert pace is not None
        pace.received += len(content)
        limit = self._factory.limits.body
        if limit and pace.received > limit:
            self._fail(StreamFault.OVERLOAD, 413, "the request content is too long")
            return b""
        if ended:
            self._input = _TUNNEL if stream.tunnelled else _NEXT
        if content or ended:  # chunk extensions and trailers are no progress
            self.arm()
        assert stream.receiver is not None
        if content:
            stream.receiver.data_received(content)
        if ended and self.stream is stream:
            stream.receiver.end_received(trailers)
        return rest

    def _linger_read(self, size: int) -> None:
        self._discarded += size
        if self._discarded > LINGER_LIMIT:
            self.abort()

    # -- the end of exchanges

    def response_ended(self, stream: Exchange) -> None:
        """The stream has handed its whole response to the wire."""
        self.stream = None
        stream.finished = True
        try:
            try:
                if self._input is not _NEXT:
                    self._end_request(stream)
                elif self._keep_alive:
                    self._next_request()
                elif self._held:
                    self._linger()
                else:
                    self._shut()
                if self.reading_paused and not (self.write_blocked and self._input is _HEAD):
                    self.resume_reading()
            finally:
                stream.tell_finished()
            if self._held:
                self._go_on()
        except Exception:  # not the failure of the transaction whose call this may be
            self._crashed()

    def _end_request(self, stream: Exchange) -> None:
        """The response has ended before the request."""
        if self._may_discard(stream):
            self._input = _DISCARD
            self._discarded = 0
            self.deadline = self._deadlines.now + self._factory.timeouts.idle
        else:
            self._linger()

    def _may_discard(self, stream: Exchange) -> bool:
        return self._keep_alive and not stream.waits_for_continue and self._remaining <= DISCARD_LIMIT

    def _next_request(self) -> None:
        if self.read_closed and not (self._held or self._consuming):
            self._shut()
            return
        self._input = _HEAD
        self.deadline = self._deadlines.now + self._factory.timeouts.keep_alive

    def will_keep_alive(self, stream: Exchange) -> bool:
        """Return whether the connection can serve another request after this response."""
        if not self._keep_alive:
            return False
        if stream.method == b"CONNECT":
            return False  # what follows may have been meant for the tunnel that is not to be
        return self._input is not _CONTENT or not stream.waits_for_continue

    def forbid_keep_alive(self) -> None:
        """The response has announced, or will show, the end of the connection."""
        self._keep_alive = False

    def tunnel_over(self, stream: Exchange) -> None:
        """Both directions of the tunnel have ended."""
        self.stream = None
        stream.finished = True
        try:
            try:
                self._shut()
            finally:
                stream.tell_finished()
        except Exception:  # as in `response_ended`
            self._crashed()

    def begin_tunnel(self) -> None:
        """The response has left HTTP."""
        if self._input is _CONTENT:
            return  # the request has to end first
        self._input = _TUNNEL
        self.arm()
        if self._held and not self._consuming:
            self.resume_reading()
            held, self._held = self._held, b""
            self.dataReceived(held)
        if self.read_closed and self.stream is not None:
            self.stream.tunnel_read_ended()

    # -- failures

    def _refuse(self, status: int, text: str) -> None:
        """Answer what has not become a request."""
        self._head = None
        self._factory.refused(self.connection, status, text)
        self.write(_error_response(status, text, True))
        self._linger()

    def _fail(self, fault: StreamFault, status: int, text: str) -> None:
        """Break the present stream off from our side, with an answer if none has begun."""
        stream = self.stream
        assert stream is not None
        answered = stream.response_started
        self._decoder = None
        self._break_stream(StreamError(fault, f"client: {text}", status=0 if answered else status))
        if answered:
            self.break_off(stream)
        else:
            stream.bytes_sent += self.write(_error_response(status, text, stream.method != b"HEAD"))
            self._linger()

    def break_exchange(self, error: StreamError) -> None:
        stream = self.stream
        if stream is not None and not self.lost:
            self._fail(error.fault, 500, str(error))
        else:
            self._break_stream(error)
            self._input = _CLOSED
            self.abort()

    def _break_stream(self, error: StreamError) -> None:
        stream = self.stream
        self.stream = None
        if stream is not None:
            stream.sending = False
            stream.failed(error)

    def break_off(self, stream: Exchange) -> None:
        """Close so that the client can see that the response is not complete; what was sent of it may still arrive."""
        self.stream = None
        stream.sending = False
        if stream.ends_with_connection or not stream.response_started:
            self._input = _CLOSED
            self.abort()
        else:
            self._shut()

    def _shut(self) -> None:
        self._input = _CLOSED
        self._head = None
        self._held = b""
        if not self.lost:
            self.close()

    def _linger(self) -> None:
        """Close, but let the client read what it was sent: a reset, for bytes that nobody reads, could undo that."""
        if self.lost:
            return
        if self.read_closed or self.connection.secure:
            self._shut()
            return
        self._input = _LINGER
        self._held = b""
        self.deadline = self._deadlines.now + LINGER
        self.resume_reading()
        self.close_writing()

    # -- time

    def arm(self) -> None:
        """Set the deadline that goes with the present state of an exchange."""
        timeouts = self._factory.timeouts
        now = self._deadlines.now
        input_ = self._input
        if input_ is _TUNNEL:
            self.deadline = now + timeouts.tunnel
            return
        pace = self._pace
        if input_ is _CONTENT and pace is not None and self.reading_paused:
            pace.pause(now)
        if input_ is _CONTENT and pace is not None and not self.reading_paused:
            self.deadline = min(pace.due(now, timeouts.idle, self._factory.limits.min_rate), self._expires)
        elif self.write_blocked:
            self.deadline = min(now + timeouts.idle, self._expires)
        else:
            self.deadline = self._expires

    def expired(self) -> None:
        """Somebody was silent for too long."""
        input_ = self._input
        stream = self.stream
        expired = stream is not None and self._expires < self._deadlines.now and input_ is not _TUNNEL
        least = max(1, round(self._factory.limits.min_rate * self._factory.timeouts.idle))
        if not expired and self.made_progress(1 if input_ is _TUNNEL else least):
            self.deadline = self._deadlines.now + self._factory.timeouts.idle
        elif stream is None:
            if input_ is _HEAD and self._head is not None:
                self._refuse(408, "the request head did not come in time")
            elif input_ in (_HEAD, _DISCARD) and not self.has_unsent():
                self._shut()
            else:
                self._input = _CLOSED
                self.abort()
        elif input_ is _TUNNEL or self.write_blocked:
            self._break_stream(StreamError(StreamFault.TIMEOUT, "client: silent for too long"))
            self._input = _CLOSED
            self.abort()
        elif input_ is _CONTENT:
            self._fail(StreamFault.TIMEOUT, 408, "the request did not come in time")
        else:
            self._fail(StreamFault.TIMEOUT, 504, "the response did not come in time")

    # -- the transport's buffer

    def writing_paused(self) -> None:
        stream = self.stream
        if stream is not None:
            self.arm()
            if stream.receiver is not None:
                stream.receiver.pause_writing()
        elif self._input is _HEAD:
            self.deadline = self._deadlines.now + self._factory.timeouts.idle

    def writing_resumed(self) -> None:
        stream = self.stream
        if stream is not None:
            self.arm()
            if stream.receiver is not None:
                stream.receiver.resume_writing()
        elif self._input is _HEAD:
            self.deadline = self._deadlines.now + self._factory.timeouts.keep_alive
            self._go_on()


def _error_response(status: int, text: str, content: bool) -> bytes:
    """Return an answer to a request that the codec itself refuses."""
    body = text.encode("ascii", "replace") + b"\n"
    head = b"HTTP/1.1 %d %b\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
    return head % (status, REASONS[status], len(body)) + (body if content else b"")


def _ignore(connection: ConnectionInfo, status: int, text: str) -> None:
    """Take a refusal and do nothing."""


class ServerFactory(Factory):
    """Makes a `ServerProtocol` for each connection to one listener, and keeps count of them."""

    noisy = False

    def __init__(
        self,
        handler: Handler,
        limits: Limits,
        timeouts: Timeouts,
        refused: Refused | None = None,
        deadlines: Deadlines | None = None,
    ) -> None:
        """`deadlines` left out is the one of the process. The attributes may be exchanged at any time (a reload)."""
        self.handler = handler
        self.limits = limits
        self.timeouts = timeouts
        self.refused: Refused = refused or _ignore
        self.deadlines = deadlines or shared_deadlines()
        self.connections: set[ServerProtocol] = set()
        self.draining = False
        self._by_client: dict[str, int] = {}

    def buildProtocol(self, addr: object) -> Any:
        return ServerProtocol(self)

    def drain(self) -> None:
        """Close every connection that is idle now, and the others when their exchange has ended."""
        self.draining = True
        for connection in list(self.connections):
            connection.drain()

    def admit(self, connection: ServerProtocol) -> str:
        """Count a connection in; return why it is one too many, else an empty string."""
        self.connections.add(connection)
        count = 0
        peer = connection.connection.peer
        if peer is not None:
            count = self._by_client[peer[0]] = self._by_client.get(peer[0], 0) + 1
        if len(self.connections) > self.limits.connections:
            return "too many connections"
        if 0 < self.limits.connections_per_client < count:
            return "too many connections from this address"
        return ""

    def left(self, connection: ServerProtocol) -> None:
        """Count a connection out."""
        self.connections.discard(connection)
        peer = connection.connection.peer
        if peer is not None:
            count = self._by_client.get(peer[0], 0) - 1
            if count > 0:
                self._by_client[peer[0]] = count
            else:
                self._by_client.pop(peer[0], None)
