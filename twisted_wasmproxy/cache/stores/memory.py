"""`MemoryStore`: stored responses in the memory of one process, bounded by bytes. Nothing here ever takes a while."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import islice
from operator import attrgetter, itemgetter

from zope.interface import implementer

from twisted_wasmproxy.cache.clock import CLOCK, Clock
from twisted_wasmproxy.cache.entry import Selection, StoredHead, StoreError, StoreFull
from twisted_wasmproxy.cache.keys import shown_key
from twisted_wasmproxy.cache.selection import matches
from twisted_wasmproxy.cache.status import LONGEST_KEY
from twisted_wasmproxy.cache.stores.pieces import Pieces, merged
from twisted_wasmproxy.cache.stores.s3fifo import MOST, S3FIFO
from twisted_wasmproxy.http.headers import Headers
from twisted_wasmproxy.interfaces import ICacheStore, IStoredResponse, IStoreWriter

__all__ = ["MemoryResponse", "MemoryStore", "MemoryWriter", "charge"]

WHOLE = 1024 * 1024
"""Complete content up to so many bytes is kept in one piece, to be written in one call."""
VARIANTS = 64
"""Stored responses under one key; of more, the least used goes."""
PARTS = 128
"""Parts of incomplete content: what has more is not added to."""

# What Python's objects take on a 64-bit machine, measured; tests hold the sums to it.
RESPONSE_CHARGE = 1408
LINE_CHARGE = 192
SURROGATE_KEY_CHARGE = 384
PIECE_CHARGE = 112


def _fields_charge(headers: Headers) -> int:
    """Bytes for fields, and for their serialisation, which the cache keeps in `memo`."""
    return sum([LINE_CHARGE + 3 * len(name) + 2 * len(value) for name, _, value in headers.lines])


def charge(head: StoredHead) -> int:
    """Return the bytes that a stored response takes beside its content."""
    size = RESPONSE_CHARGE + len(head.key) + len(head.url) + _fields_charge(head.headers)
    if len(head.key) <= LONGEST_KEY:
        size += 2 * len(shown_key(head.key))  # Cache-Status and its serialisation
    if head.trailers is not None:
        size += _fields_charge(head.trailers)
    for name, value in head.vary:
        size += LINE_CHARGE + len(name) + len(value or b"")
    for surrogate_key in head.surrogate_keys:
        size += SURROGATE_KEY_CHARGE + len(surrogate_key)
    return size


_NOTHING = Pieces()


class Content:
    """The content of a stored response, finished; a response and those that take its place by a validation share it."""

    __slots__ = ("body", "charge", "parts", "pieces")

    def __init__(self, pieces: Pieces, length: int | None) -> None:
        pieces.finish()
        self.parts = pieces.parts() or (((0, 0),) if length == 0 else ())
        self.body: bytes | None = None
        """All of it in one piece; `pieces` is empty then."""
        self.pieces = pieces
        if self.parts == ((0, length),) and pieces.size <= WHOLE:
            self.body = pieces.whole()
            self.pieces = _NOTHING
        self.charge = pieces.size + PIECE_CHARGE * (len(pieces) + len(self.parts))
        """Bytes it takes."""


@implementer(IStoredResponse)
class MemoryResponse:
    """A stored response. Whoever has it can read it, also when it is stored no more."""

    __slots__ = ("body", "charge", "content", "fingerprint", "frequency", "head", "memo", "parts", "size")

    def __init__(self, head: StoredHead, content: Content) -> None:
        self.head = head
        self.content = content
        self.parts = content.parts
        self.size = sum([stop - start for start, stop in content.parts])
        self.body = content.body
        self.memo: object = None
        self.charge = charge(head) + content.charge
        self.frequency = 0
        self.fingerprint = hash((head.key, head.vary))

    def read(self, start: int, size: int) -> bytes:
        if self.body is None:
            return self.content.pieces.read(start, size)
        data = self.body[start : start + size]
        if not data:
            raise StoreError(f"there is no content at {start}")
        return data

    def used(self) -> None:
        if self.frequency < MOST:
            self.frequency += 1

    def hold(self) -> None:
        """Nothing: the content is there as long as this object is."""

    def release(self) -> None:
        """Nothing."""

    def pieces(self) -> Pieces:
        """Return the content."""
        if self.body is None:
            return self.content.pieces
        whole = Pieces()
        whole.append(self.body)
        return whole


@implementer(IStoreWriter)
class MemoryWriter:
    """A response that is being stored; made by `MemoryStore.create`."""

    def __init__(self, store: MemoryStore, head: StoredHead, base: MemoryResponse | None, start: int) -> None:
        self.head = head
        self.charge = charge(head) + (0 if base is None else base.content.charge)
        """Bytes it takes; the store keeps this."""
        self.doomed = False
        """Whether a purge that selects it has come meanwhile: then it is not stored."""
        self._store = store
        self._base = base
        self._start = start
        self._written = Pieces(start)
        self._whole = True
        """Whether it has all that was given to `write`, and can be stored."""

    def size_with(self, more: int) -> int:
        """Return how many bytes of content there will be, at most, after `more`."""
        size = self._written.size + more
        if self._base is None:
            return size
        size += self._base.size
        return size if self.head.length is None else min(size, self.head.length)

    def write(self, data: bytes) -> None:
        try:
            self._check()
            self._store.grow(self, len(data))
        except StoreError:
            self._whole = False
            raise
        self._written.append(data)

    def _check(self) -> None:
        if not self._whole:
            raise StoreError("not all of it was written, or it has ended")

    def available(self, start: int) -> int:
        stop = self._had(start)
        if self._start <= stop < self._written.stop:
            stop = self._had(self._written.stop)
        return stop - start

    def _had(self, start: int) -> int:
        """Return where the part that was had before and has `start` ends; `start` if there is none."""
        if self._base is not None:
            i = bisect_right(self._base.parts, start, key=itemgetter(0)) - 1
            if i >= 0:
                return max(start, self._base.parts[i][1])
        return start

    def read(self, start: int, size: int) -> bytes:
        if self._base is None or self._start <= start < self._written.stop:
            return self._written.read(start, size)
        if start < self._start:
            size = min(size, self._start - start)
        return self._base.read(start, size)

    def commit(self, head: StoredHead) -> MemoryResponse:
        self._check()
        pieces = self._written if self._base is None else merged(self._base.pieces(), self._written)
        stored = MemoryResponse(head, Content(pieces, head.length))
        self._store.take(self, stored)
        self._end(stored)
        return stored

    def abort(self) -> None:
        if self._store.give_up(self):
            self._end(None)

    def _end(self, stored: MemoryResponse | None) -> None:
        """Let go of what was written; who still reads here reads what is stored."""
        self._whole = False
        self._base = stored
        self._written = Pieces(self._start)


@implementer(ICacheStore)
class MemoryStore:
    """Keeps up to `capacity` bytes, heads and Python's own needs included, and no body of more than `largest` bytes.

    What is being written counts too, and may take half of the capacity. What is still read by somebody after it was
    evicted does not count.
    """

    def __init__(self, capacity: int, largest: int, clock: Clock = CLOCK) -> None:
        self._capacity = capacity
        self._largest = largest
        self._clock = clock
        self._writable = max(capacity // 2, min(largest, capacity))
        self._writers: set[MemoryWriter] = set()
        self._evictions = 0
        self._clear()

    def _clear(self) -> None:
        self._queues: S3FIFO[MemoryResponse] = S3FIFO(self._capacity)
        self._variants: dict[bytes, tuple[MemoryResponse, ...]] = {}
        self._by_url: dict[bytes, set[MemoryResponse]] = {}
        self._by_surrogate_key: dict[bytes, set[MemoryResponse]] = {}
        self._writing = 0

    def start(self) -> None:
        """Nothing: it is open from the beginning."""

    def stop(self) -> None:
        for writer in list(self._writers):
            writer.abort()
        self._clear()

    def lookup(self, key: bytes) -> tuple[MemoryResponse, ...]:
        return self._variants.get(key, ())

    def create(
        self, head: StoredHead, size: int | None, base: IStoredResponse | None, start: int
    ) -> MemoryWriter | None:
        assert base is None or isinstance(base, MemoryResponse)
        if base is not None and len(base.parts) >= PARTS:
            return None
        writer = MemoryWriter(self, head, base, start)
        if writer.size_with(size or 0) > self._largest or not self._make_room_to_write(writer.charge):
            return None
        self._writers.add(writer)
        return writer

    def grow(self, writer: MemoryWriter, size: int) -> None:
        """Take up `size` bytes more for a writer, or raise `StoreFull`."""
        if writer.size_with(size) > self._largest:
            raise StoreFull(f"the content has more than {self._largest} bytes")
        if not self._make_room_to_write(size):
            raise StoreFull("too much is being written at once")
        writer.charge += size

    def _make_room_to_write(self, size: int) -> bool:
        if self._writing + size > self._writable:
            return False
        self._writing += size
        self._make_room(0)
        return True

    def _make_room(self, size: int) -> None:
        queues = self._queues
        while queues and queues.bytes + queues.overhead + self._writing + size > self._capacity:
            self._unlink(queues.evict())
            self._evictions += 1

    def take(self, writer: MemoryWriter, stored: MemoryResponse) -> None:
        """Store what has been written."""
        if self._writing - writer.charge + stored.charge > self._capacity:
            raise StoreFull("too much is being written at once")
        self.give_up(writer)
        if writer.doomed:
            return
        variants = self.lookup(stored.head.key)
        old = next((other for other in variants if other.head.vary == stored.head.vary), None)
        if old is not None:
            self._replace(old, stored)
        else:
            if len(variants) >= VARIANTS:
                self._drop(min(reversed(variants), key=attrgetter("frequency")))
                self._evictions += 1
            self._make_room(stored.charge)
            self._queues.add(stored)
            self._link(stored)

    def give_up(self, writer: MemoryWriter) -> bool:
        """Forget a writer; return whether it was known: it is not once it has ended."""
        known = writer in self._writers
        if known:
            self._writers.remove(writer)
            self._writing -= writer.charge
        return known

    def update(self, stored: IStoredResponse, head: StoredHead) -> MemoryResponse:
        assert isinstance(stored, MemoryResponse)
        new = MemoryResponse(head, stored.content)
        if stored in self._queues:
            self._replace(stored, new)
        return new

    def remove(self, stored: IStoredResponse) -> None:
        assert isinstance(stored, MemoryResponse)
        if stored in self._queues:
            self._drop(stored)

    def purge(self, selection: Selection, soft: bool) -> int:
        for writer in self._writers:
            writer.doomed = writer.doomed or matches(selection, writer.head)
        selected = list(self._selected(selection))
        now = self._clock.now()
        for stored in selected:
            if soft:
                self._replace(stored, MemoryResponse(stored.head.replaced(purged=now), stored.content))
            else:
                self._drop(stored)
        return len(selected)

    def entries(self, selection: Selection, limit: int) -> list[MemoryResponse]:
        return list(islice(self._selected(selection), limit))

    def _selected(self, selection: Selection) -> Iterator[MemoryResponse]:
        stored: Iterable[MemoryResponse] = self._queues
        if selection.surrogate_key is not None:
            stored = self._by_surrogate_key.get(selection.surrogate_key, ())
        elif selection.url is not None:
            stored = self._by_url.get(selection.url, ())
        return (one for one in stored if matches(selection, one.head))

    def stats(self) -> dict[str, int | float | str]:
        """`bytes`: what stored responses take; `writing`: what those do that are being written, in bytes too."""
        return {
            "entries": len(self._queues),
            "bytes": self._queues.bytes,
            "capacity": self._capacity,
            "writing": self._writing,
            "evictions": self._evictions,
        }

    def _replace(self, old: MemoryResponse, new: MemoryResponse) -> None:
        """Put `new` in the place of `old`, first of its key."""
        self._unlink(old)
        self._queues.add(new, old)
        self._link(new)
        self._make_room(0)

    def _drop(self, stored: MemoryResponse) -> None:
        self._queues.discard(stored)
        self._unlink(stored)

    def _link(self, stored: MemoryResponse) -> None:
        """Let it be found."""
        head = stored.head
        self._variants[head.key] = (stored, *self._variants.get(head.key, ()))
        self._by_url.setdefault(head.url, set()).add(stored)
        for surrogate_key in head.surrogate_keys:
            self._by_surrogate_key.setdefault(surrogate_key, set()).add(stored)

    def _unlink(self, stored: MemoryResponse) -> None:
        head = stored.head
        others = tuple([other for other in self._variants[head.key] if other is not stored])
        if others:
            self._variants[head.key] = others
        else:
            del self._variants[head.key]
        _discard(self._by_url, head.url, stored)
        for surrogate_key in head.surrogate_keys:
            _discard(self._by_surrogate_key, surrogate_key, stored)


def _discard(index: dict[bytes, set[MemoryResponse]], name: bytes, stored: MemoryResponse) -> None:
    """Take it out of an index, where it may be no more: a surrogate key may come twice."""
    members = index.get(name)
    if members is not None:
        members.discard(stored)
        if not members:
            del index[name]
