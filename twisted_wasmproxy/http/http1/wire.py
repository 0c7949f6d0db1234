"""What the server's and the client's end of an HTTP/1.1 connection share: the transport, and framed content."""

from __future__ import annotations

from abc import ABC, abstractmethod
from sys import maxsize
from typing import Any, ClassVar, Protocol

from twisted.internet.interfaces import IHalfCloseableProtocol, IProtocol, IPushProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_wasmproxy.http.connection import Connection
from twisted_wasmproxy.http.deadlines import NEVER, Deadlines
from twisted_wasmproxy.http.headers import Headers
from twisted_wasmproxy.http.http1.chunked import ChunkedDecoder
from twisted_wasmproxy.http.http1.encode import Framing, encode_trailers
from twisted_wasmproxy.http.stream import ConnectionInfo, StreamError, StreamFault
from twisted_wasmproxy.http.transport import is_plain_tcp, turn, unsent_bytes, write_now
from twisted_wasmproxy.logs import Logger

__all__ = ["LINGER", "Timeouts", "Wire", "WireStream"]

LINGER = 5.0
"""Seconds that a connection may take to close after its last byte has been written."""

_FLUSH_AT = 64 * 1024

_log = Logger()

# An attribute of an Enum costs ten times a global.
_FRAMING_CHUNKED = Framing.CHUNKED
_FRAMING_LENGTH = Framing.LENGTH
_FRAMING_NONE = Framing.NONE
_FRAMING_TUNNEL = Framing.TUNNEL


class Timeouts(Protocol):
    """Times in seconds; `TimeoutsConfig` is one."""

    @property
    def header(self) -> float: ...

    @property
    def keep_alive(self) -> float: ...

    @property
    def idle(self) -> float: ...

    @property
    def total(self) -> float: ...

    @property
    def tunnel(self) -> float: ...


@implementer(IProtocol, IHalfCloseableProtocol, IPushProducer)
class Wire(ABC):
    """A Twisted protocol that gathers what it writes, knows when its peer does not read, and reads framed content.

    Every event of the reactor comes in through a method of this class. An exception that nobody expected ends the
    exchange and the connection, and nothing else (`_crashed`).
    """

    __slots__ = (
        "_consuming",
        "_deadlines",
        "_decoder",
        "_out",
        "_out_size",
        "_plain",
        "_registered",
        "_remaining",
        "_unsent",
        "connection",
        "deadline",
        "lost",
        "read_closed",
        "reading_paused",
        "transport",
        "write_blocked",
    )

    factory: ClassVar[Any] = None
    connection: ConnectionInfo
    deadline: float

    def __init__(self, deadlines: Deadlines) -> None:
        self._deadlines = deadlines
        self.deadline = NEVER
        self.transport: Any = None
        self._out: list[bytes] = []
        self._out_size = 0
        self._registered = False
        self._unsent = 0
        self._consuming = False
        self._remaining = 0
        self._decoder: ChunkedDecoder | None = None
        self.lost = False
        self.read_closed = False
        self.reading_paused = False
        self.write_blocked = False

    # -- IProtocol

    def makeConnection(self, transport: Any) -> None:
        self.transport = transport
        self.connection = Connection(transport)
        self._plain = is_plain_tcp(transport)
        if self._plain:
            transport.setTcpNoDelay(True)
        self._deadlines.add(self)
        try:
            self.connectionMade()
        except Exception:
            self._crashed()

    def dataReceived(self, data: bytes) -> None:
        try:
            if not turn.active:
                turn.open()
            self._consume(data)
        except Exception:
            self._crashed()

    def connectionLost(self, reason: Failure) -> None:
        self.lost = True
        self._out = []
        self._deadlines.remove(self)
        try:
            self.connection_lost(reason)
        except Exception:
            self._crashed()

    # -- IHalfCloseableProtocol

    def readConnectionLost(self) -> None:
        self.read_closed = True
        try:
            self.read_ended()
        except Exception:
            self._crashed()

    def writeConnectionLost(self) -> None:  # noqa: B027  # there is nothing to do
        """The transport has carried out loseWriteConnection."""

    # -- IPushProducer, for the transport

    def pauseProducing(self) -> None:
        self.write_blocked = True
        self._unsent = unsent_bytes(self.transport)
        try:
            self.writing_paused()
        except Exception:
            self._crashed()

    def resumeProducing(self) -> None:
        self.write_blocked = False
        try:
            self.writing_resumed()
        except Exception:
            self._crashed()

    def stopProducing(self) -> None:  # noqa: B027  # there is nothing to do
        """connectionLost follows."""

    # -- for the two ends to fill in

    @abstractmethod
    def connectionMade(self) -> None: ...

    @abstractmethod
    def _consume(self, data: bytes) -> None: ...

    @abstractmethod
    def connection_lost(self, reason: Failure) -> None: ...

    @abstractmethod
    def read_ended(self) -> None:
        """The peer has closed its direction."""

    @abstractmethod
    def writing_paused(self) -> None: ...

    @abstractmethod
    def writing_resumed(self) -> None: ...

    @abstractmethod
    def expired(self) -> None:
        """The deadline has passed."""

    @abstractmethod
    def break_exchange(self, error: StreamError) -> None:
        """Break the present exchange off, if there is one, and the connection."""

    # -- time, and failures

    def deadline_passed(self) -> None:
        """See `Deadlines`."""
        try:
            self.expired()
        except Exception:
            self._crashed()

    def _crashed(self) -> None:
        """Called in an except clause: log what nobody expected, and end what it has happened to."""
        _log.failure("a connection failed")
        try:
            self.break_exchange(StreamError(StreamFault.INTERNAL, "internal error"))
        except Exception:
            _log.failure("a connection failed, and could not be ended in order")
            self.abort()

    # -- what they use

    def write(self, *pieces: bytes) -> int:
        """Write at the end of the turn, or at once where there is none. Return the number of bytes."""
        out = self._out
        if not out and turn.active:
            turn.waiting.append(self)
        size = 0
        for piece in pieces:
            size += len(piece)
        out.extend(pieces)
        self._out_size += size
        if not turn.active or self._out_size > _FLUSH_AT:
            self.flush()
        return size

    def flush(self) -> None:
        """Hand to the transport what was written."""
        out = self._out
        if not out:
            return
        self._out = []
        size = self._out_size
        self._out_size = 0
        if self._plain:
            out = write_now(self.transport, out, size)
            if not out:
                return
        if not self._registered:
            self._registered = True
            self.transport.registerProducer(self, True)
        self.transport.writeSequence(out)

    def made_progress(self, least: int = 1) -> bool:
        """Return whether the peer has read `least` bytes, but not all, since the last call, or since closing began."""
        before = self._unsent
        self._unsent = unsent_bytes(self.transport)
        return 0 < self._unsent <= before - least

    def has_unsent(self) -> bool:
        """Return whether anything still waits in the transport."""
        return unsent_bytes(self.transport) > 0

    def pause_reading(self) -> None:
        """Stop reading from the transport."""
        if not self.reading_paused:
            self.reading_paused = True
            if not self.lost and not self.read_closed:
                self.transport.pauseProducing()

    def resume_reading(self) -> None:
        """Read from the transport again."""
        if self.reading_paused:
            self.reading_paused = False
            if not self.lost and not self.read_closed:
                self.transport.resumeProducing()

    def close(self) -> None:
        """Close once everything is written, or after LINGER."""
        self.flush()
        self._unregister()
        self._unsent = maxsize
        self.deadline = self._deadlines.now + LINGER
        self.transport.loseConnection()

    def close_writing(self) -> None:
        """Close our direction once everything is written; or, as TLS cannot be half closed, the connection."""
        if self.connection.secure:
            self.close()
            return
        self.flush()
        self._unregister()
        self._unsent = maxsize
        self.transport.loseWriteConnection()

    def abort(self) -> None:
        """Reset the connection and forget what is not written yet."""
        self._out = []
        self._out_size = 0
        if not self.lost:
            self.deadline = self._deadlines.now + LINGER
            self.transport.abortConnection()

    def _unregister(self) -> None:
        if self._registered:
            self._registered = False
            self.write_blocked = False
            self.transport.unregisterProducer()


class WireStream(ABC):
    """The sending half of a stream: content in its framing."""

    __slots__ = (
        "_framing",
        "_to_send",
        "_wire",
        "bytes_received",
        "bytes_sent",
        "connection",
        "head_received",
        "head_sent",
        "sending",
    )

    connection: ConnectionInfo
    bytes_received: int
    bytes_sent: int
    head_received: int
    head_sent: int

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.connection = wire.connection
        self.bytes_received = 0
        self.bytes_sent = 0
        self.head_received = 0
        self.head_sent = 0
        self._framing = _FRAMING_NONE
        self._to_send = 0
        self.sending = False
        """Whether content may be sent: the head is out and the end is not."""

    def send_data(self, data: bytes) -> None:
        """Send content. What goes beyond Content-Length breaks the stream."""
        if not self.sending or not data:
            return
        framing = self._framing
        if framing is _FRAMING_CHUNKED:
            self.bytes_sent += self._wire.write(b"%x\r\n" % len(data), data, b"\r\n")
        elif framing is _FRAMING_LENGTH:
            self._to_send -= len(data)
            if self._to_send < 0:
                self._break(StreamError(StreamFault.PROTOCOL, "more content than its Content-Length says"))
                return
            self.bytes_sent += self._wire.write(data)
        elif framing is not _FRAMING_NONE:
            self.bytes_sent += self._wire.write(data)
            if framing is _FRAMING_TUNNEL:
                self._tunnelled()

    def send_end(self, trailers: Headers | None = None) -> None:
        """End the message. Trailers go with chunked content only; an end short of Content-Length breaks the stream."""
        if not self.sending:
            return
        framing = self._framing
        if framing is _FRAMING_CHUNKED:
            try:
                self.bytes_sent += self._wire.write(encode_trailers(trailers))
            except ValueError as error:
                self._break(StreamError(StreamFault.PROTOCOL, f"trailers that cannot be sent: {error}"))
                return
        elif framing is _FRAMING_LENGTH and self._to_send:
            self._break(StreamError(StreamFault.INCOMPLETE, "less content than its Content-Length says"))
            return
        self.sending = False
        self._sent()

    @abstractmethod
    def _break(self, error: StreamError) -> None:
        """What was given to send cannot be sent: break the message off and tell the receiver."""

    @abstractmethod
    def _sent(self) -> None:
        """The message, or our direction of a tunnel, has ended."""

    @abstractmethod
    def _tunnelled(self) -> None:
        """Bytes went into a tunnel."""
