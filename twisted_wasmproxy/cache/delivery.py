"""`Delivery`: one client's reading of one stored response, or of one that is being stored, at its own pace."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from sys import maxsize
from typing import TYPE_CHECKING, Protocol

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from twisted_wasmproxy.cache.entry import StoreError
from twisted_wasmproxy.http.headers import Headers
from twisted_wasmproxy.http.stream import StreamError, StreamFault
from twisted_wasmproxy.logs import Logger

if TYPE_CHECKING:
    from twisted_wasmproxy.cache.client import Client
    from twisted_wasmproxy.http.messages import Response
    from twisted_wasmproxy.interfaces import IStoredResponse

__all__ = ["Content", "Delivery", "Piece", "StoredContent"]

Piece = bytes | tuple[int, int | None]
"""Literal bytes, or (start, stop) of the representation; stop None: whatever its end will be."""

CHUNK = 256 * 1024
"""Bytes read and sent at a time."""

_log = Logger()


class Content(Protocol):
    """What a delivery reads."""

    length: int | None
    """Where the content ends; None as long as that is not known. Complete when it is."""
    trailers: Headers | None
    """Known when the content is complete."""

    def available(self, start: int) -> int:
        """Return how many bytes can be read from `start` on, without a gap."""

    def read(self, start: int, size: int) -> bytes | Deferred[bytes]:
        """As `IStoredResponse.read`."""

    def advanced(self) -> None:
        """The delivery has read on."""

    def left(self, delivery: Delivery) -> None:
        """The delivery is over."""


class StoredContent:
    """The content of a stored response, kept readable until the delivery is over."""

    __slots__ = ("_stored", "length", "read", "trailers")

    def __init__(self, stored: IStoredResponse) -> None:
        stored.hold()
        self._stored = stored
        self.length: int | None = stored.parts[-1][1] if stored.parts else 0
        self.trailers = stored.head.trailers
        self.read: Callable[[int, int], bytes | Deferred[bytes]] = stored.read

    def available(self, start: int) -> int:
        return CHUNK

    def advanced(self) -> None:
        """It stays as it is."""

    def left(self, delivery: Delivery) -> None:
        self._stored.release()


class Delivery:
    """A `Source` that gives a client a head, and then pieces of content as they become available."""

    __slots__ = (
        "_busy",
        "_content",
        "_index",
        "_over",
        "_paused",
        "_pieces",
        "_position",
        "_reading",
        "_whole",
        "client",
    )

    def __init__(self, client: Client, content: Content, pieces: Sequence[Piece]) -> None:
        self.client = client
        self._content = content
        self._pieces = pieces
        self._whole = pieces[0] in ((0, None), (0, content.length))
        """Trailers are of the whole: a digest would be wrong for a part."""
        self._index = 0
        self._position = -1
        """Where the next byte of the present piece comes from; -1: it has not begun."""
        self._paused = False
        self._busy = False
        self._reading = False
        self._over = False

    @property
    def needs_from(self) -> int:
        """Position in the representation; nothing that lies before it is needed any more."""
        first = self._index + (self._position >= 0)
        starts = [piece[0] for piece in self._pieces[first:] if not isinstance(piece, bytes)]
        if self._position >= 0:
            starts.append(self._position)
        return min(starts, default=maxsize)

    def start(self, response: Response) -> None:
        """Give the head, and what there is of the content."""
        client = self.client
        client.take(self)
        try:
            client.respond(response, False)
        except Exception:
            self._crashed()
        self.pump()

    def go_on(self) -> None:
        """Give the content; the client has the head."""
        self.client.take(self)
        self.pump()

    # Source

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        self._paused = False
        self.pump()

    def give_up(self) -> None:
        if not self._over:
            self._over = True
            self._content.left(self)

    # For what is being stored

    def more(self, data: bytes, start: int) -> None:
        """`data` has been added to the content at `start`: pass it on if it is what comes next, else look later."""
        if (
            self._position == start
            and not (self._paused or self._busy or self._reading or self._over)
            and self._index == len(self._pieces) - 1
            and self._pieces[-1][1] is None
        ):
            self._position += len(data)
            try:
                if self._content.length is None:
                    self.client.fetch_data(data, False)
                else:
                    self._give(data, True)
            except Exception:
                self._crashed()
        else:
            self.pump()

    def fail(self, error: StreamError) -> None:
        """There will be no more content."""
        if not self._over:
            self._over = True
            self._content.left(self)
            try:
                self.client.fetch_failed(error)
            except Exception:
                self.client.crashed()

    def _crashed(self) -> None:
        """Called in an except clause: this client gets no more."""
        self.give_up()
        self.client.crashed()

    # The work

    def pump(self) -> None:
        """Give what can be given now."""
        if self._busy or self._reading:
            return
        self._busy = True
        try:
            while not self._paused and not self._over and self._next():
                pass
        except Exception:
            self._crashed()
        finally:
            self._busy = False
        if not self._over:
            self._content.advanced()

    def _next(self) -> bool:
        """Give the next bytes; return whether there may be more."""
        piece = self._pieces[self._index]
        if isinstance(piece, bytes):
            self._give(piece, True)
            return True
        content = self._content
        start, stop = piece
        if self._position < 0:
            self._position = start
        if stop is None:
            stop = content.length
            if stop is not None and self._position >= stop:
                self._give(b"", True)
                return True
        size = min(CHUNK, content.available(self._position))
        if stop is not None:
            size = min(size, stop - self._position)
        if size <= 0:
            if content.length is not None:
                self._broken("it is shorter than was announced")
            return False
        try:
            data = content.read(self._position, size)
        except StoreError as error:
            self._broken(error)
            return False
        if isinstance(data, Deferred):
            self._reading = True
            data.addCallbacks(self._read, self._read_failed)
            data.addErrback(self.client.crashed)
            return not self._reading
        self._advance(data)
        return True

    def _read(self, data: bytes) -> None:
        self._reading = False
        if not self._over:
            try:
                self._advance(data)
            except Exception:
                self._crashed()
            self.pump()

    def _read_failed(self, failure: Failure) -> None:
        self._reading = False
        self._broken(failure.value)

    def _broken(self, error: object) -> None:
        if not self._over:
            _log.error("a stored response cannot be read to its end: {reason}", reason=error)
            self.fail(StreamError(StreamFault.INCOMPLETE, f"cache: {error}"))

    def _advance(self, data: bytes) -> None:
        self._position += len(data)
        _, stop = self._pieces[self._index]
        if stop is None:
            stop = self._content.length
        self._give(data, stop is not None and self._position >= stop)

    def _give(self, data: bytes, ends_piece: bool) -> None:
        """Give bytes to the client; with the last ones, the end."""
        client = self.client
        if ends_piece:
            self._index += 1
            self._position = -1
        if self._index < len(self._pieces):
            client.fetch_data(data, False)
            return
        self._over = True
        trailers = self._content.trailers if self._whole else None
        self._content.left(self)
        if trailers is None:
            client.fetch_data(data, True)
        else:
            if data:
                client.fetch_data(data, False)
            client.fetch_end(trailers)
