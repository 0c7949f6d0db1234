"""The client's end of an HTTP/1.1 connection: one request at a time to an origin, and its response."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from twisted_wasmproxy.http.deadlines import NEVER, Deadlines, shared_deadlines
from twisted_wasmproxy.http.http1.chunked import ChunkedDecoder
from twisted_wasmproxy.http.http1.encode import Framing, encode_request
from twisted_wasmproxy.http.http1.head import HeadLimits, ResponseHead
from twisted_wasmproxy.http.http1.syntax import MessageError
from twisted_wasmproxy.http.http1.wire import Wire, WireStream
from twisted_wasmproxy.http.messages import Request, Response
from twisted_wasmproxy.http.stream import ResponseReceiver, StreamError, StreamFault
from twisted_wasmproxy.http.transport import peer_has_spoken

__all__ = ["ClientProtocol", "ResponseLimits"]


INTERIM_LIMIT = 100
"""Responses with a status of 1xx that may come before the final one (RFC 9110 section 15.2)."""


@dataclass(frozen=True)
class ResponseLimits:
    """What the head of a response may measure; origins are allowed more than clients."""

    request_line: int = 16 * 1024
    """Bytes of the status line."""
    header_bytes: int = 256 * 1024
    header_count: int = 1000


class _Input(Enum):
    """What the next byte from the origin is."""

    IDLE = "nothing that was asked for"
    HEAD = "part of a response head"
    CONTENT = "content with a Content-Length, or chunked"
    REST = "content that ends with the connection"
    TUNNEL = "no HTTP"
    CLOSED = "not read"


# An attribute of an Enum costs ten times a global.
_FRAMING_TUNNEL = Framing.TUNNEL
_IDLE = _Input.IDLE
_HEAD = _Input.HEAD
_CONTENT = _Input.CONTENT
_REST = _Input.REST
_TUNNEL = _Input.TUNNEL
_CLOSED = _Input.CLOSED

# What each state goes over to:
#
#   IDLE     a stream is opened -> HEAD; any byte -> CLOSED
#   HEAD     a 1xx -> HEAD; 101, or 2xx to CONNECT -> TUNNEL; a head -> CONTENT or REST, or, where it has no content,
#            as CONTENT at its end
#   CONTENT  its end -> IDLE, or CLOSED where the connection does not persist or the request has not ended
#   REST     the origin closes -> CLOSED
#   TUNNEL   both directions have ended -> CLOSED
#   any      the connection is lost or aborted, what comes is not HTTP, silence -> CLOSED


class ClientProtocol(Wire):
    """One connection to an origin."""

    __slots__ = ("_head", "_idle_since", "_input", "_limits", "_on_closed", "_on_idle", "_served", "_stream")

    def __init__(
        self,
        on_idle: Callable[[ClientProtocol], None],
        on_closed: Callable[[ClientProtocol], None],
        limits: HeadLimits | None = None,
        deadlines: Deadlines | None = None,
    ) -> None:
        """`on_idle` is called when an exchange has ended and another may begin, `on_closed` when all is over.

        At `on_idle` the receiver of the exchange has not been told of its end yet, so that what it does then finds a
        free connection.
        """
        super().__init__(deadlines or shared_deadlines())
        self._on_idle = on_idle
        self._on_closed = on_closed
        self._limits = limits or _DEFAULT_LIMITS
        self._input = _IDLE
        self._head: ResponseHead | None = None
        self._stream: _ClientStream | None = None
        self._served = 0
        self._idle_since = 0.0

    # -- for the pool

    @property
    def reused(self) -> bool:
        """Whether an exchange has been served."""
        return self._served > 0

    @property
    def idle(self) -> bool:
        """Whether a stream may be opened."""
        return self._input is _IDLE

    def usable(self) -> bool:
        """Return whether a stream may be opened and, where it has been idle for a while, the origin has not closed."""
        if self._input is not _IDLE:
            return False
        # A look at the socket costs a system call; between two ticks the reactor has just had one.
        return self._idle_since == self._deadlines.now or not peer_has_spoken(self.transport)

    def open_stream(self, receiver: ResponseReceiver) -> _ClientStream:
        """Begin an exchange. The connection must be idle."""
        assert self._input is _IDLE
        stream = self._stream = _ClientStream(self, receiver, self._served > 0)
        self._served += 1
        self._input = _HEAD
        return stream

    def close(self) -> None:
        """Close an idle connection."""
        self._input = _CLOSED
        if not self.lost:
            super().close()

    # -- the connection

    def connectionMade(self) -> None:
        self._idle_since = self._deadlines.now

    def connection_lost(self, reason: Failure) -> None:
        stream = self._stream
        try:
            if stream is not None:
                if self._input is _REST and isinstance(reason.value, ConnectionDone):
                    self._response_ended(stream)
                    stream.receiver.end_received(None)
                else:
                    self._lost(reason.getErrorMessage())
        finally:
            self._input = _CLOSED
            self._head = None
            self._on_closed(self)

    def read_ended(self) -> None:
        stream = self._stream
        if self._input is _TUNNEL:
            assert stream is not None
            stream.tunnel_read_ended()
            return
        if self._input is _REST:
            assert stream is not None
            self._response_ended(stream)
            stream.receiver.end_received(None)
        elif stream is not None:
            self._lost("closed the connection")
        else:
            self.close()

    def _lost(self, text: str) -> None:
        begun = self._input in (_CONTENT, _REST) or self._head is not None
        fault = StreamFault.INCOMPLETE if begun else StreamFault.DISCONNECTED
        self._fail(StreamError(fault, f"origin: {text}"))

    # -- input

    def _consume(self, data: bytes) -> None:
        while data:
            input_ = self._input
            if input_ is _HEAD:
                data = self._read_head(data)
            elif input_ is _CONTENT:
                data = self._read_content(data)
            elif input_ is _CLOSED:
                return
            elif input_ is _IDLE:
                # Bytes that nobody asked for: the connection is out of step.
                self.close()
                return
            else:
                stream = self._stream
                assert stream is not None
                stream.bytes_received += len(data)
                self.arm()
                stream.receiver.data_received(data)
                return

    def _read_head(self, data: bytes) -> bytes:
        stream = self._stream
        assert stream is not None
        if stream.request is None:
            self._fail(StreamError(StreamFault.PROTOCOL, "origin: a response before the request"))
            return b""
        head = self._head
        if head is None:
            head = self._head = ResponseHead(self._limits)
        try:
            taken = head.feed(data)
        except MessageError as error:
            self._fail(StreamError(StreamFault.PROTOCOL, f"origin: {error}"))
            return b""
        if taken < 0:
            stream.bytes_received += len(data)
            return b""
        self._head = None
        stream.bytes_received += taken
        rest = data[taken:] if taken < len(data) else b""
        response = head.response
        status = response.status
        if status < 200:
            self._read_informational(stream, response)
            return rest
        method = stream.request.method
        if method == b"CONNECT" and status < 300:
            self._begin_tunnel(stream, response)
            return rest
        stream.head_received = head.size
        stream.keep_alive = head.keep_alive
        if method == b"HEAD" or status == 204 or status == 304:
            end_stream = True
        elif head.chunked:
            end_stream = False
            self._decoder = ChunkedDecoder(self._limits)
            self._input = _CONTENT
        elif head.content_length is not None:
            self._remaining = head.content_length
            end_stream = not self._remaining
            self._input = _CONTENT
        else:
            end_stream = False
            self._input = _REST
        if end_stream:
            self._response_ended(stream, rest)
            rest = b""
        else:
            self.arm()
        stream.receiver.response_received(response, end_stream)
        return rest

    def _read_informational(self, stream: _ClientStream, response: Response) -> None:
        if response.status != 101:
            stream.interim += 1
            if stream.interim > INTERIM_LIMIT:
                self._fail(StreamError(StreamFault.PROTOCOL, f"origin: more than {INTERIM_LIMIT} interim responses"))
                return
            self.arm()
            stream.receiver.informational_received(response)
        elif stream.request is None or stream.request.upgrade is None or response.upgrade is None:
            self._fail(StreamError(StreamFault.PROTOCOL, "origin: a 101 that was not asked for"))
        else:
            self._begin_tunnel(stream, response)

    def _begin_tunnel(self, stream: _ClientStream, response: Response) -> None:
        self._input = _TUNNEL
        stream.begin_tunnel()
        self.arm()
        stream.receiver.response_received(response, False)

    def _read_content(self, data: bytes) -> bytes:
        stream = self._stream
        assert stream is not None
        decoder = self._decoder
        trailers = None
        if decoder is not None:
            try:
                content, taken = decoder.feed(data)
            except MessageError as error:
                self._fail(StreamError(StreamFault.PROTOCOL, f"origin: {error}"))
                return b""
            ended = decoder.done
            if ended:
                trailers = decoder.trailers
        else:
            taken = min(len(data), self._remaining)
            content = data if taken == len(data) else data[:taken]
            self._remaining -= taken
            ended = not self._remaining
        stream.bytes_received += taken
        rest = data[taken:] if taken < len(data) else b""
        if not ended:
            if content:  # chunk extensions and trailers are no progress
                self.arm()
                stream.receiver.data_received(content)
            return rest
        if content:
            stream.receiver.data_received(content)
            if self._stream is not stream:
                return b""
        self._response_ended(stream, rest)
        stream.receiver.end_received(trailers)
        return b""

    def _response_ended(self, stream: _ClientStream, rest: bytes = b"") -> None:
        """Free the connection, or close it if it cannot serve another exchange."""
        self._stream = None
        self._decoder = None
        try:
            self.resume_reading()
            if stream.keep_alive and stream.request_ended and not rest and not self.read_closed and not self.lost:
                self._input = _IDLE
                self.deadline = NEVER
                self._idle_since = self._deadlines.now
                self._on_idle(self)
            else:
                stream.sending = False
                self.close()
        except Exception:  # the response is complete all the same
            self._crashed()

    def break_exchange(self, error: StreamError) -> None:
        if self._stream is not None:
            self._fail(error)
        else:
            self._input = _CLOSED
            self.abort()

    def _fail(self, error: StreamError) -> None:
        """Break the exchange off."""
        stream = self._stream
        assert stream is not None
        try:
            self.drop(stream)
        finally:
            stream.receiver.stream_failed(error)

    def drop(self, stream: _ClientStream) -> None:
        """End the exchange with the connection."""
        self._stream = None
        self._head = None
        self._decoder = None
        stream.sending = False
        self._input = _CLOSED
        self.abort()

    def tunnel_over(self) -> None:
        """Both directions of the tunnel have ended."""
        self._stream = None
        try:
            self.close()
        except Exception:  # both directions are complete all the same
            self._crashed()

    # -- time

    def arm(self) -> None:
        """Set the deadline: the origin owes a byte, or must read what is sent to it."""
        stream = self._stream
        if stream is None:
            return
        now = self._deadlines.now
        if self._input is _TUNNEL:
            self.deadline = NEVER  # the time of a tunnel is measured at the client's side
        elif self.write_blocked or (stream.request_ended and not self.reading_paused):
            self.deadline = now + stream.idle_timeout
        else:
            self.deadline = NEVER

    def expired(self) -> None:
        """The origin was silent for too long."""
        stream = self._stream
        if stream is None:
            self.abort()
        elif self.made_progress():
            self.arm()
        else:
            self._fail(StreamError(StreamFault.TIMEOUT, "origin: silent for too long"))

    # -- the transport's buffer

    def writing_paused(self) -> None:
        stream = self._stream
        if stream is not None:
            self.arm()
            stream.receiver.pause_writing()

    def writing_resumed(self) -> None:
        stream = self._stream
        if stream is not None:
            self.arm()
            stream.receiver.resume_writing()


class _ClientStream(WireStream):
    """One request and its response."""

    __slots__ = (
        "authority",
        "idle_timeout",
        "interim",
        "keep_alive",
        "receiver",
        "request",
        "request_ended",
        "reused",
        "server",
        "tunnel_ended",
    )

    _wire: ClientProtocol
    server: Any
    """For the pool that hands the stream out; nothing here looks at it."""
    authority: bytes
    """The same."""

    def __init__(self, wire: ClientProtocol, receiver: ResponseReceiver, reused: bool) -> None:
        super().__init__(wire)
        self.receiver = receiver
        self.reused = reused
        self.request: Request | None = None
        self.request_ended = False
        self.keep_alive = False
        self.tunnel_ended = False
        self.interim = 0
        self.idle_timeout = 60.0
        """Seconds that the origin may be silent; may be changed before the request is sent."""

    # -- ClientStream

    def send_request(self, request: Request, end_stream: bool) -> None:
        """Send the head. Raises ValueError, and sends nothing, if it would not be one valid head."""
        wire = self._wire
        if self.request is not None or wire._stream is not self:
            return
        head, self._framing, self._to_send = encode_request(request, end_stream)
        self.request = request
        self.sending = True
        self.head_sent = wire.write(head)
        self.bytes_sent += self.head_sent
        if end_stream:
            self.send_end()

    def abort(self) -> None:
        """Give the exchange up; nothing is called after this."""
        if self._wire._stream is self:
            self._wire.drop(self)

    def pause_reading(self) -> None:
        wire = self._wire
        if wire._stream is self:
            wire.pause_reading()
            wire.arm()

    def resume_reading(self) -> None:
        wire = self._wire
        if wire._stream is self:
            wire.resume_reading()
            wire.arm()

    # -- from the wire

    def begin_tunnel(self) -> None:
        """The response has left HTTP."""
        self._framing = _FRAMING_TUNNEL
        self.sending = True

    def tunnel_read_ended(self) -> None:
        """The origin has half-closed the tunnel."""
        if self.tunnel_ended:
            return
        self.tunnel_ended = True
        if not self.sending:
            self._wire.tunnel_over()
        self.receiver.end_received(None)

    def _sent(self) -> None:
        wire = self._wire
        if self._framing is not _FRAMING_TUNNEL:
            self.request_ended = True
            wire.arm()
        elif self.tunnel_ended:
            wire.tunnel_over()
        else:
            wire.close_writing()

    def _break(self, error: StreamError) -> None:
        try:
            self._wire.drop(self)
        finally:
            self.receiver.stream_failed(error)

    def _tunnelled(self) -> None:
        """The time of a tunnel is measured at the client's side."""


_DEFAULT_LIMITS = ResponseLimits()
