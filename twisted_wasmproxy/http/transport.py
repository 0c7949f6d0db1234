"""Writing to Twisted's transports with few system calls: what one turn brings goes out at once, in one piece."""

from __future__ import annotations

from collections.abc import Callable
from fcntl import ioctl
from socket import MSG_DONTWAIT, MSG_PEEK
from sys import byteorder
from termios import TIOCOUTQ
from typing import Any, Protocol

from twisted.internet import tcp
from twisted.internet.interfaces import ISSLTransport

from twisted_wasmproxy.logs import Logger

__all__ = ["Flushable", "Turn", "is_plain_tcp", "is_secure", "peer_has_spoken", "turn", "unsent_bytes", "write_now"]

_PLAIN_TCP = (tcp.Server, tcp.Client)
# Below this size a copy is cheaper than the system call that gathers; it also takes no more pieces than IOV_MAX.
_GATHER_FROM = 16 * 1024
_GATHER_AT_MOST = 256

_NO_BYTES = bytes(4)

_log = Logger()


class Flushable(Protocol):
    """A connection that holds back what it has to write."""

    def flush(self) -> None:
        """Write it."""

    def abort(self) -> None:
        """Reset the connection."""


class Turn:
    """While the reactor hands out what has been received (`active`), connections gather what they write.

    The first connection that receives something opens the turn; it closes when the reactor has served them all, and
    that flushes them one after the other. Beside joining small writes this wakes each peer once: a peer on another
    core that is woken for every single answer falls asleep in between, and waking it costs more than the writing.
    Outside of a turn everything is written at once.
    """

    __slots__ = ("_call_later", "active", "waiting")

    def __init__(self) -> None:
        self._call_later: Callable[..., object] | None = None
        self.active = False
        self.waiting: list[Flushable] = []

    def begin(self) -> None:
        """Begin a turn whose end the caller will tell."""
        self.active = True

    def open(self) -> None:
        """Begin a turn that ends when the reactor looks at its timers, which is after all that was ready to be read."""
        if self._call_later is None:
            from twisted.internet import reactor

            self._call_later = reactor.callLater
        self.active = True
        self._call_later(0, self.close)

    def close(self) -> None:
        """End the turn; flush all that wait, and those whom that wakes."""
        waiting = self.waiting
        while waiting:
            batch = waiting.copy()
            waiting.clear()
            for connection in batch:
                try:
                    connection.flush()
                except Exception:  # the others' answers must go out all the same
                    _log.failure("writing to a connection failed")
                    connection.abort()
        self.active = False


turn = Turn()
"""The turn of this process (there is one reactor)."""


def is_plain_tcp(transport: object) -> bool:
    """Return whether `write_now` may be used: Twisted's own TCP connection, without TLS, on a socket."""
    return type(transport) in _PLAIN_TCP and not getattr(transport, "TLS", True)


def is_secure(transport: object) -> bool:
    """Return whether the connection is TLS."""
    return bool(ISSLTransport.providedBy(transport))


def write_now(transport: Any, pieces: list[bytes], size: int) -> list[bytes]:
    """Write `pieces`, `size` bytes in all, to a plain TCP transport; return what is left for `writeSequence`.

    Twisted's `write` waits for the reactor to find the socket writable, which costs a turn and two changes of the
    poll set. Where nothing waits in the transport the socket can be asked directly. Errors are left to the
    transport, which meets them with the rest, so that it alone decides that a connection is lost.
    """
    if transport._tempDataBuffer or transport.dataBuffer or transport.disconnecting or not transport.connected:
        return pieces
    try:
        if len(pieces) == 1:
            sent = transport.socket.send(pieces[0])
        elif size < _GATHER_FROM or len(pieces) > _GATHER_AT_MOST:
            pieces = [b"".join(pieces)]
            sent = transport.socket.send(pieces[0])
        else:
            sent = transport.socket.sendmsg(pieces)
    except OSError:
        return pieces
    if sent == size:
        return []
    rest = []
    for piece in pieces:
        if sent < len(piece):
            rest.append(piece[sent:] if sent else piece)
        sent = max(0, sent - len(piece))
    return rest


def unsent_bytes(transport: Any) -> int:
    """Return how many bytes the peer has not acknowledged, as far as the transport and the system say.

    The system's part matters: it keeps megabytes for a slow reader, and takes no more for as long as they last.
    """
    below = getattr(transport, "transport", transport)
    try:
        waiting = int(len(below.dataBuffer) - below.offset + below._tempDataLen)
        queued = ioctl(below.socket, TIOCOUTQ, _NO_BYTES)
    except (AttributeError, OSError):
        return 0
    return waiting + int.from_bytes(queued, byteorder)


def peer_has_spoken(transport: Any) -> bool:
    """Return whether there is something from the peer that the reactor has not read: its close, or for TCP any byte."""
    plain = is_plain_tcp(transport)
    below = transport if plain else getattr(transport, "transport", transport)
    handle = getattr(below, "socket", None)
    if handle is None:
        return False
    try:
        data = handle.recv(1, MSG_PEEK | MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return plain or not data
