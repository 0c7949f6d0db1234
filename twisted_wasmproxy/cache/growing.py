"""`Growing`: content while it comes from the origin, read by any number of clients, each at its own pace.

A store's writer keeps it. If there is more than the store keeps of one response, a window of what comes after goes on
in memory for those who read already, and the origin waits for the slowest of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from twisted_wasmproxy.cache.delivery import Delivery, Piece
from twisted_wasmproxy.cache.entry import StoredHead, StoreError
from twisted_wasmproxy.http.headers import Headers
from twisted_wasmproxy.http.stream import StreamError
from twisted_wasmproxy.logs import Logger

if TYPE_CHECKING:
    from twisted_wasmproxy.cache.client import Client
    from twisted_wasmproxy.http.messages import Response
    from twisted_wasmproxy.interfaces import IStoredResponse, IStoreWriter

__all__ = ["WINDOW", "Growing"]

WINDOW = 1024 * 1024
"""Bytes that the slowest reader may be behind, where the content is more than the store keeps."""

_STORE, _READERS = 1, 2
"""Reasons for the origin to wait."""

_log = Logger()


class Growing:
    """The content of one response (a `Content`), from position `start` of the representation on.

    `pause` is called with whether the origin has to wait, `idle` when the last reader has gone.
    """

    __slots__ = (
        *("_deliveries", "_dropped", "_idle", "_pause", "_pauses", "_start", "_stop", "_stored", "_tail"),
        *("_tail_start", "_writer", "length", "outgrown", "trailers"),
    )

    def __init__(
        self, writer: IStoreWriter, start: int, pause: Callable[[bool], None], idle: Callable[[], None]
    ) -> None:
        self._writer: IStoreWriter | None = writer
        self._stored: IStoredResponse | None = None
        self._pause = pause
        self._pauses = 0
        self._idle = idle
        self._deliveries: dict[Delivery, None] = {}
        self._dropped = False
        self._start = self._stop = start
        self._tail: deque[bytes] = deque()
        self._tail_start = start
        self.outgrown = False
        """Whether there is more of it than the store keeps."""
        self.length: int | None = None
        self.trailers: Headers | None = None

    @property
    def stop(self) -> int:
        """Position behind the last byte that has come."""
        return self._stop

    @property
    def has_readers(self) -> bool:
        return bool(self._deliveries)

    def deliver(self, client: Client, response: Response, pieces: list[Piece]) -> None:
        """Let a client read."""
        delivery = Delivery(client, self, pieces)
        self._deliveries[delivery] = None
        delivery.start(response)

    # What comes

    def add(self, data: bytes, end: bool) -> None:
        """`data` has come; `end`: it is the last."""
        start = self._stop
        if not self.outgrown:
            assert self._writer is not None
            try:
                full = self._writer.write(data)
            except StoreError as error:
                _log.debug("not stored: {reason}", reason=error)
                self.outgrown = True
                self._tail_start = start
            else:
                if full is not None:
                    self._hold(_STORE)
                    full.addBoth(lambda _: self._release(_STORE))
        if self.outgrown and data:
            self._tail.append(data)
        self._stop = start + len(data)
        if end:
            self.length = self._stop
        for delivery in list(self._deliveries):
            delivery.more(data, start)
        if self.outgrown:
            self._trim()

    def end(self, trailers: Headers | None) -> None:
        """All has come."""
        self.trailers = trailers
        self.length = self._stop
        for delivery in list(self._deliveries):
            delivery.pump()

    def fail(self, error: StreamError) -> None:
        """No more will come."""
        self.abort()
        for delivery in list(self._deliveries):
            delivery.fail(error)

    def drop(self) -> None:
        """All has come, but it is not to be stored: it goes when the last reader has it."""
        self._dropped = True
        if not self._deliveries:
            self.abort()

    def abort(self) -> None:
        """Do not store it, and let go of what has come."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.abort()

    def commit(
        self,
        head: StoredHead,
        done: Callable[[IStoredResponse | None], None],
        crashed: Callable[[Failure], None],
    ) -> None:
        """Have it stored under `head`, and say when and what that made, None if it could not be.

        `crashed` is told of an exception that nobody expected and that came later.
        """
        writer = self._writer
        assert writer is not None

        def stored(stored: IStoredResponse) -> None:
            self._writer = None
            if self._deliveries:
                self._stored = stored
                stored.hold()
            done(stored)

        def failed(reason: object) -> None:
            _log.error("a response could not be stored: {reason}", reason=reason)
            self.drop()
            done(None)

        try:
            made = writer.commit(head)
        except StoreError as error:
            failed(error)
            return
        if isinstance(made, Deferred):
            made.addCallbacks(stored, lambda failure: failed(failure.value))
            made.addErrback(crashed)
        else:
            stored(made)

    # Content

    def reaches(self, position: int) -> bool:
        """Say whether there is something at a position, or it comes next."""
        return self._start <= position <= self._stop or position <= 0 or self.available(position) > 0

    def available(self, start: int) -> int:
        if self._stored is not None:
            return next((stop - start for first, stop in self._stored.parts if first <= start < stop), 0)
        if self.outgrown and start >= self._tail_start:
            return self._stop - start
        return self._writer.available(start) if self._writer is not None else 0

    def read(self, start: int, size: int) -> bytes | Deferred[bytes]:
        if self._stored is not None:
            return self._stored.read(start, size)
        if self.outgrown and start >= self._tail_start:
            return self._read_tail(start, size)
        if self._writer is None:
            raise StoreError("it is no longer being received")
        return self._writer.read(start, size)

    def _read_tail(self, start: int, size: int) -> bytes:
        position = self._tail_start
        for piece in self._tail:
            if start < position + len(piece):
                offset = start - position
                return piece[offset : offset + size]
            position += len(piece)
        raise StoreError("it has not come yet")

    def left(self, delivery: Delivery) -> None:
        if delivery not in self._deliveries:
            return
        del self._deliveries[delivery]
        if self.outgrown:
            self._trim()
        if not self._deliveries:
            stored, self._stored = self._stored, None
            if stored is not None:
                stored.release()
            if self._dropped:
                self.abort()
            self._idle()

    def advanced(self) -> None:
        """A delivery has read on."""
        if self.outgrown:
            self._trim()

    # The window

    def _trim(self) -> None:
        """Forget what every reader has had; let the origin wait, or go on."""
        slowest = min((delivery.needs_from for delivery in self._deliveries), default=self._stop)
        tail = self._tail
        while tail and self._tail_start + len(tail[0]) <= slowest:
            self._tail_start += len(tail.popleft())
        if slowest >= self._tail_start and self._writer is not None:
            self.abort()
        if self._stop - self._tail_start > WINDOW:
            self._hold(_READERS)
        else:
            self._release(_READERS)

    def _hold(self, reason: int) -> None:
        before = self._pauses
        self._pauses = before | reason
        if not before:
            self._pause(True)

    def _release(self, reason: int) -> None:
        before = self._pauses
        self._pauses = before & ~reason
        if before and not self._pauses:
            self._pause(False)
