"""A response in the disk store, and one on its way there; both live in the reactor's thread."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_wasmproxy.cache.entry import StoredHead, StoreError, StoreFull
from twisted_wasmproxy.cache.stores.disk_changes import Changed, vary_of
from twisted_wasmproxy.cache.stores.disk_index import Change
from twisted_wasmproxy.cache.stores.disk_layout import CHUNK, Entry, Segment, overlay, parts_of
from twisted_wasmproxy.interfaces import IStoredResponse, IStoreWriter

if TYPE_CHECKING:
    from twisted_wasmproxy.cache.stores.disk import DiskStore

__all__ = ["DiskResponse", "DiskWriter"]

JOB_CHUNKS = 16
"""Chunks in one job for the writer thread."""
WRITER_HIGH = 2 * 1024 * 1024
"""Bytes that one writer has on their way to the disk when it asks to wait."""


@implementer(IStoredResponse)
class DiskResponse:
    """What a lookup found."""

    def __init__(self, store: DiskStore, entry: Entry, position: int, body: bytes | None = None) -> None:
        self._store = store
        self.entry = entry
        self.position = position
        """Of the change log, when this was found: with all changes before it, and maybe none after."""
        self.head = entry.head
        self.parts = parts_of(entry.segments) or (((0, 0),) if entry.head.length == 0 else ())
        self.size = sum(stop - start for start, stop in self.parts)
        self.body = b"" if not entry.segments and entry.head.length == 0 else body
        self.memo: object = None
        self._marked = False

    def read(self, start: int, size: int) -> bytes | Deferred[bytes]:
        if self.body is not None:
            return self.body[start : start + size]
        return self._store.read_content(self.entry, start, size)

    def used(self) -> None:
        if not self._marked:
            self._marked = True
            self._store.use(self.entry.id)

    def hold(self) -> None:
        self._store.hold(self.entry.segments)

    def release(self) -> None:
        self._store.release(self.entry.segments)


@implementer(IStoreWriter)
class DiskWriter:
    """Content goes to the disk chunk by chunk as it comes; the entry, with the rest, on `commit`."""

    def __init__(self, store: DiskStore, head: StoredHead, base: DiskResponse | None, start: int, blob: int) -> None:
        self.head = head
        self.purged = False
        """Whether a purge has selected it since it was begun."""
        self._store = store
        self._base = base.entry.segments if base is not None else ()
        self._start = start
        self._blob = blob
        self._written = 0
        self._flushed = 0
        """Bytes that are in the disk's chunks; between them and `_tail` lie those of `_sent`."""
        self._sent: deque[bytes] = deque()
        self._tail = bytearray()
        self._open = True
        self._failure: StoreError | None = None
        self._waiting: Deferred[None] | None = None
        store.hold(self._base)

    def write(self, data: bytes) -> Deferred[None] | None:
        if self._failure is not None:
            raise self._failure
        if not self._open:
            raise StoreError("the writer has been closed")
        if self._written + len(data) > self._store.max_object:
            self._failure = StoreFull(f"more than {self._store.max_object} bytes")
            raise self._failure
        self._written += len(data)
        self._tail += data
        if len(self._tail) < CHUNK:
            return None
        chunks = []
        whole = len(self._tail) // CHUNK * CHUNK
        with memoryview(self._tail) as view:
            chunks = [bytes(view[at : at + CHUNK]) for at in range(0, whole, CHUNK)]
        del self._tail[:whole]
        for at in range(0, len(chunks), JOB_CHUNKS):
            self._send(chunks[at : at + JOB_CHUNKS])
        if self._written - self._flushed > WRITER_HIGH:
            if self._waiting is None:
                self._waiting = Deferred()
            waiting: Deferred[None] = Deferred()
            self._waiting.chainDeferred(waiting)
            return waiting
        return self._store.room()

    def _send(self, chunks: list[bytes]) -> None:
        number = self._flushed // CHUNK + len(self._sent)
        self._sent.extend(chunks)
        size = sum(map(len, chunks))

        def run(change: Change) -> None:
            if self._failure is not None:
                raise self._failure
            change.append(self._blob, number, chunks)

        self._store.submit(run, size).addCallbacks(lambda _: self._have(chunks), self._broken)

    def _have(self, chunks: list[bytes]) -> None:
        if self._failure is not None:
            return  # what was sent before these has failed, and is read from memory, as all that follows it
        for chunk in chunks:
            self._sent.popleft()
            self._flushed += len(chunk)
        self._let_go_on()

    def _broken(self, failure: Failure) -> None:
        self.fail(failure.getErrorMessage())

    def fail(self, reason: str) -> None:
        """Take no more; what is still in memory can be read."""
        if self._failure is None:
            self._failure = StoreError(reason)
        self._let_go_on()

    def _let_go_on(self) -> None:
        if self._waiting is not None and (
            self._failure is not None or self._written - self._flushed <= WRITER_HIGH // 2
        ):
            waiting, self._waiting = self._waiting, None
            waiting.callback(None)

    def _new(self, written: int) -> Segment | None:
        return Segment(self._start, self._start + written, self._blob, self._start) if written else None

    def available(self, start: int) -> int:
        for first, stop in parts_of(overlay(self._base, self._new(self._written))):
            if first <= start < stop:
                return stop - start
        return 0

    def read(self, start: int, size: int) -> bytes | Deferred[bytes]:
        offset = start - self._start
        if 0 <= offset - self._flushed < self._written - self._flushed:
            offset -= self._flushed
            for chunk in self._sent:
                if offset < len(chunk):
                    return chunk[offset : offset + size]
                offset -= len(chunk)
            if not self._tail:
                raise StoreError("what was written has been dropped")
            return bytes(self._tail[offset : offset + size])
        if offset < self._flushed < self._written:
            size = min(size, self._flushed - offset)  # what follows is in memory
        return self._store.read_segments(overlay(self._base, self._new(self._written)), start, size)

    def commit(self, head: StoredHead) -> Deferred[IStoredResponse]:
        if self._failure is not None or not self._open:
            return maybeDeferred(self._refuse)
        self._open = False
        self._store.catch_up()
        new = self._new(self._written)
        number = self._flushed // CHUNK + len(self._sent)
        rest = bytes(self._tail)
        held = self._base

        def run(change: Change) -> Entry:
            if self._failure is not None:
                raise self._failure
            if rest:
                change.append(self._blob, number, (rest,))
            if self._store.purged_meanwhile(self, head):
                change.abandon(self._blob)
                return Entry(0, 0, head, overlay(held, new))
            entry = change.insert(head, held, new)
            change.notices.append(Changed(self._store.process, head.key, vary_of(head)).pack())
            return entry

        def stored(entry: Entry) -> IStoredResponse:
            self._close()
            body = rest if len(rest) == head.length and not held else None
            return DiskResponse(self._store, entry, self._store.position, body)

        def failed(failure: Failure) -> Failure:
            self._open = True
            self._broken(failure)
            return failure

        return self._store.submit(run, len(rest)).addCallbacks(stored, failed)

    def _refuse(self) -> IStoredResponse:
        raise self._failure or StoreError("the writer has been closed")

    def abort(self) -> None:
        if self._open:
            self._open = False
            self._close()
            if self._flushed or self._sent:
                blob = self._blob
                self._store.submit(lambda change: change.abandon(blob)).addErrback(lambda _: None)
            self._tail.clear()

    def _close(self) -> None:
        self._store.release(self._base)
        self._store.closed(self)
        self._let_go_on()
