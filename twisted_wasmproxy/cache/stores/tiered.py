"""`TieredStore`: a store in memory before one on disk, seen as one.

What is stored goes to both at once: to memory, from where it answers in the same call, and behind it to the disk, whose
writer has all of the content too. So a response that outgrows memory while it is written goes on on the disk alone, and
one that the disk is too slow for stays in memory alone. What is found on disk and used is copied into memory.
Incomplete responses are on the disk alone, which puts them together without copying them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_wasmproxy.cache.entry import Selection, StoredHead, StoreError
from twisted_wasmproxy.cache.selection import matches
from twisted_wasmproxy.cache.stores.disk_changes import Changed, Purged
from twisted_wasmproxy.cache.stores.memory import charge
from twisted_wasmproxy.cache.stores.shared import SharedStore
from twisted_wasmproxy.cache.stores.tiered_response import FromDisk, TieredWriter, later
from twisted_wasmproxy.interfaces import ICacheStore, IStoredResponse, IStoreWriter
from twisted_wasmproxy.logs import Logger

__all__ = ["TieredStore"]

T = TypeVar("T")

BEHIND = 1000
"""Commits that wait for the disk; of more, it gets none that memory keeps."""
BEHIND_SIZE = 64 * 1024 * 1024
"""Bytes of them, if they are several."""
COPIES = 4
"""Responses that are copied into memory at once."""
COPY_SIZE = 256 * 1024
OTHERS_SIZE = 4 * 1024 * 1024
"""Bytes for what is remembered of variants that are on the disk only."""
_KEY_CHARGE = 512
_WRAPPER_CHARGE = 1024


@implementer(ICacheStore)
class TieredStore:
    """`memory` must answer at once; bodies of more than `memory_largest` bytes go to `disk` alone.

    If the disk cannot be started the log says so, and memory is all there is. Where `disk` is a `SharedStore`, what
    other processes do to it is done to this memory before it answers the next lookup.
    """

    def __init__(self, memory: ICacheStore, disk: ICacheStore, memory_largest: int) -> None:
        self._log = Logger(namespace="twisted_wasmproxy.cache")
        self._memory: Any = memory  # of the results that the interface allows, those that are there at once
        self._disk: ICacheStore | None = None
        self._given_disk = disk
        self._shared: SharedStore | None = None
        self._largest = memory_largest
        self._behind: dict[bytes, list[tuple[IStoredResponse, Deferred[None]]]] = {}
        """By key: what is in memory, if that has not evicted it, and will be on disk."""
        self._commits = self._behind_size = 0
        self._removing: dict[bytes, list[StoredHead]] = {}
        """By key: what is to be removed from the disk."""
        self._pending: set[Deferred[None]] = set()
        """Looks at the disk for something that is to be updated or removed there."""
        self._copying: set[tuple[bytes, tuple[tuple[bytes, bytes | None], ...]]] = set()
        self._others: OrderedDict[bytes, tuple[FromDisk, ...]] = OrderedDict()
        """By key: the variants on disk, where there is one in memory too; latest asked for last."""
        self._others_size = 0
        self.ahead = 0
        """Bytes that writers have given to the disk since it asked them to wait."""
        self.dropped = 0
        """Responses that the disk did not get, as it was too slow."""

    def start(self) -> Deferred[None]:
        def started(_: None) -> None:
            self._disk = self._given_disk
            if isinstance(self._disk, SharedStore):
                self._shared = self._disk
                self._shared.listen(self)

        def failed(failure: Failure) -> None:
            failure.trap(StoreError)
            self._log.error("{error}; the cache is in memory only", error=failure.getErrorMessage())

        self._memory.start()
        return later(self._given_disk.start).addCallbacks(started, failed)

    def stop(self) -> Deferred[None] | None:
        pending = self._committing()
        memory = later(self._memory.stop)
        if self._disk is None:
            return memory
        disk, self._disk, self._shared = self._disk, None, None
        self._others.clear()
        closing: list[Deferred[Any]] = [memory, later(disk.stop), *pending]
        return gatherResults(closing, consumeErrors=True).addCallback(lambda _: None)

    def lookup(self, key: bytes) -> Sequence[IStoredResponse] | Deferred[Sequence[IStoredResponse]]:
        if self._shared is not None:
            self._shared.catch_up()
        found: Sequence[IStoredResponse] = self._memory.lookup(key)
        if self._disk is None:
            return found
        if found:
            if self._shared is not None:
                self._shared.touch(found[0].head.key)  # which is kept anyway, other than `key`
            for stored in found:  # a generator would cost as much as all the rest
                if stored.head.vary:
                    break
            else:
                return found
        others = self._others.get(key)
        if others is not None and found:
            self._others.move_to_end(key)
            return self._merged(key, found, others)
        removing = list(self._removing.get(key, ()))
        result = self._disk.lookup(key)
        if isinstance(result, Deferred):
            return result.addCallback(lambda result: self._found(key, result, removing))
        return self._found(key, result, removing)

    def _found(
        self, key: bytes, on_disk: Sequence[IStoredResponse], removing: list[StoredHead]
    ) -> Sequence[IStoredResponse]:
        """`removing`: what was being removed when the disk was asked; that may be done by now."""
        removing += self._removing.get(key, ())
        others = tuple(
            [FromDisk(self, stored) for stored in on_disk if not any(_is_same(stored.head, one) for one in removing)]
        )
        found = self._memory.lookup(key)
        if found and all(self._is_current(stored.inner) for stored in others):
            self._remember_others(key, others)
        return self._merged(key, found, others)

    def _merged(
        self, key: bytes, found: Sequence[IStoredResponse], others: Sequence[FromDisk]
    ) -> Sequence[IStoredResponse]:
        """Return what is in memory, what will be on disk, and what is there of other variants; the latest first."""
        merged = list(found)
        varies = {stored.head.vary for stored in found}
        for stored in [*(stored for stored, _ in reversed(self._behind.get(key, ()))), *others]:
            if stored.head.vary not in varies:
                varies.add(stored.head.vary)
                merged.append(stored)
        if len(merged) > len(found):
            merged.sort(key=lambda stored: stored.head.response_time, reverse=True)
        return merged

    def _remember_others(self, key: bytes, others: tuple[FromDisk, ...]) -> None:
        self.forget_others(key)
        self._others[key] = others
        self._others_size += self._charge(others)
        while self._others_size > OTHERS_SIZE:
            self.forget_others(next(iter(self._others)))

    def forget_others(self, key: bytes) -> None:
        """Ask the disk again which variants there are."""
        others = self._others.pop(key, None)
        if others is not None:
            self._others_size -= self._charge(others)

    def _forget_all_others(self) -> None:
        self._others.clear()
        self._others_size = 0

    @staticmethod
    def _charge(others: tuple[FromDisk, ...]) -> int:
        return _KEY_CHARGE + sum(_WRAPPER_CHARGE + charge(stored.head) + len(stored.body or b"") for stored in others)

    def create(
        self, head: StoredHead, size: int | None, base: IStoredResponse | None, start: int
    ) -> TieredWriter | None:
        memory = disk = None
        on_disk = isinstance(base, FromDisk)
        if self._disk is not None and (base is None or on_disk):
            disk = self._disk.create(head, size, base.inner if isinstance(base, FromDisk) else None, start)
        # What is incomplete is put together on disk.
        whole = base is None and start == 0 and head.status != 206
        if (size or 0) <= self._largest and not on_disk and (whole or disk is None):
            memory = self._memory.create(head, size, base, start)
        if memory is None and disk is None:
            return None
        return TieredWriter(self, head, memory, disk, size is None)

    def stored(self, stored: IStoredResponse, disk: IStoreWriter | None) -> None:
        """It is in memory, and is to be on disk by this writer."""
        head = stored.head
        key = head.key
        self.forget_others(key)
        if self._disk is None:
            if disk is not None:
                disk.abort()
            return
        size = charge(head) + stored.size
        if disk is not None and (self._commits >= BEHIND or (self._commits and self._behind_size + size > BEHIND_SIZE)):
            self.dropped += 1
            disk.abort()
            disk = None
        if disk is None:
            self._forget_on_disk(lambda other: other.vary == head.vary, head)
            return

        done: Deferred[None] = Deferred()
        item = (stored, done)
        # If a purge has doomed it, it is not in memory.
        findable = any(other is stored for other in self._memory.lookup(key))
        if findable:
            self._behind.setdefault(key, []).append(item)
        self._commits += 1
        self._behind_size += size

        def ended(result: object) -> None:
            self._commits -= 1
            self._behind_size -= size
            behind = self._behind.get(key, [])
            if item in behind:
                behind.remove(item)
                if not behind:
                    del self._behind[key]
            self.forget_others(key)
            if isinstance(result, Failure) and self._disk is not None:
                self.dropped += 1
                self._forget_on_disk(lambda other: other.vary == head.vary, head)
            done.callback(None)

        later(disk.commit, head).addBoth(ended)

    def stored_on_disk(self, stored: IStoredResponse) -> IStoredResponse:
        """It is on disk; what it has replaced leaves memory."""
        self.forget_others(stored.head.key)
        for copy in self._copies(stored.head):
            self._memory.remove(copy)
        return FromDisk(self, stored)

    def update(self, stored: IStoredResponse, head: StoredHead) -> IStoredResponse | Deferred[IStoredResponse]:
        self.forget_others(head.key)
        if isinstance(stored, FromDisk):
            assert self._disk is not None
            for copy in self._copies(stored.head):
                if _is_same(copy.head, stored.head):
                    self._memory.update(copy, head)
            return later(self._disk.update, stored.inner, head).addCallback(self._updated)
        new: IStoredResponse = self._memory.update(stored, head)
        if self._disk is not None:
            old = stored.head

            def update(disk: ICacheStore, found: Sequence[IStoredResponse]) -> None:
                if any(_is_same(old, one) for one in self._removing.get(old.key, ())):
                    return  # the disk was asked about this first, and has answered first
                for other in found:
                    if _is_same(other.head, old):
                        later(disk.update, other, head).addBoth(lambda _: self.forget_others(head.key))

            self._on_disk(head.key, update)
        return new

    def _updated(self, stored: IStoredResponse) -> IStoredResponse:
        self.forget_others(stored.head.key)
        return FromDisk(self, stored)

    def remove(self, stored: IStoredResponse) -> None:
        head = stored.head
        self.forget_others(head.key)
        if isinstance(stored, FromDisk):
            for copy in self._copies(head):
                if _is_same(copy.head, head):
                    self._memory.remove(copy)
            if self._disk is not None:
                self._disk.remove(stored.inner)
            return
        copies = self._copies(head)
        self._memory.remove(stored)
        if self._disk is not None and (not copies or any(copy is stored for copy in copies)):
            self._forget_on_disk(lambda other: _is_same(other, head), head)

    def purge(self, selection: Selection, soft: bool) -> int | Deferred[int]:
        """See `ICacheStore`. What is in memory is taken to be on disk too, or the other way round, when counting."""
        self._forget_all_others()
        in_memory: int = self._memory.purge(selection, soft)
        for key, behind in list(self._behind.items()):
            self._behind[key] = [item for item in behind if not matches(selection, item[0].head)]
        if self._disk is None:
            return in_memory

        def purge(_: object) -> Deferred[int]:
            return succeed(0) if self._disk is None else later(self._disk.purge, selection, soft)

        def purged(on_disk: int) -> int:
            self._forget_all_others()
            # What was found on disk in between, and copied.
            self._memory.purge(selection, soft)
            return max(in_memory, on_disk)

        # What is about to be updated is not yet found by its new head.
        return self._settled(self._pending).addCallback(purge).addCallback(purged)

    def entries(
        self, selection: Selection, limit: int
    ) -> Sequence[IStoredResponse] | Deferred[Sequence[IStoredResponse]]:
        in_memory: Sequence[IStoredResponse] = self._memory.entries(selection, limit)
        if self._disk is None:
            return in_memory

        def found(on_disk: Sequence[IStoredResponse]) -> Sequence[IStoredResponse]:
            entries = {(stored.head.key, stored.head.vary): stored for stored in self._memory.entries(selection, limit)}
            for stored in on_disk:
                entries.setdefault((stored.head.key, stored.head.vary), FromDisk(self, stored))
            return list(entries.values())[:limit]

        return later(self._disk.entries, selection, limit).addCallback(found)

    def stats(self) -> Mapping[str, int | float | str] | Deferred[Mapping[str, int | float | str]]:
        """Figures of both under `memory_` and `disk_`; as both mostly have the same, the larger one counts for both."""
        memory: Mapping[str, int | float | str] = self._memory.stats()
        if self._disk is None:
            return memory

        def ask(_: object) -> Deferred[Mapping[str, int | float | str]]:
            return succeed(memory) if self._disk is None else later(self._disk.stats)

        def figures(disk: Mapping[str, int | float | str]) -> Mapping[str, int | float | str]:
            both: dict[str, int | float | str] = {}
            for name in ("entries", "bytes", "capacity", "evictions"):
                both[name] = max(float(memory[name]), float(disk[name])) // 1
            both = {name: int(value) for name, value in both.items()}
            both |= {"memory_" + name: value for name, value in memory.items()}
            both |= {"disk_" + name: value for name, value in disk.items()}
            return both | {"disk_dropped": self.dropped, "disk_commits_waiting": self._commits}

        return self._settled([*self._pending, *self._committing()]).addCallback(ask).addCallback(figures)

    def _committing(self) -> list[Deferred[None]]:
        return [done for behind in self._behind.values() for _, done in behind]

    # ChangeListener

    def changed(self, change: Changed) -> None:
        self.forget_others(change.key)
        for stored in list(self._memory.lookup(change.key)):
            if change.concerns(stored.head):
                self._memory.remove(stored)

    def purged(self, change: Purged) -> None:
        self._forget_all_others()
        self._memory.purge(change.selection, change.soft > 0)

    def too_much_changed(self) -> None:
        self._forget_all_others()
        self._memory.purge(Selection(), False)

    # Copies in memory

    def copy(self, stored: FromDisk) -> None:
        """Copy a response from the disk into memory, if it is of a size for that."""
        head = stored.head
        if stored.size > self._largest or stored.parts != ((0, head.length),):
            return
        name = (head.key, head.vary)
        if name in self._copying or len(self._copying) >= COPIES or self._copies(head):
            return
        writer = self._memory.create(head, stored.size, None, 0)
        if writer is None:
            return
        if stored.body is not None:
            self._finish_copy(stored, writer, stored.body)
            return
        self._copying.add(name)
        stored.hold()
        copying = Deferred.fromCoroutine(self._copy(stored, writer))

        def copied(_: object) -> None:
            self._copying.discard(name)
            stored.release()
            writer.abort()

        copying.addBoth(copied)

    async def _copy(self, stored: FromDisk, writer: IStoreWriter) -> None:
        position = 0
        while position < stored.size:
            data = stored.read(position, COPY_SIZE)
            if isinstance(data, Deferred):
                data = await data
            position += len(data)
            if position < stored.size:
                writer.write(data)
            else:
                self._finish_copy(stored, writer, data)

    def _finish_copy(self, stored: FromDisk, writer: IStoreWriter, last: bytes) -> None:
        try:
            if last:
                writer.write(last)
            if self._is_current(stored.inner) and not self._copies(stored.head):
                writer.commit(stored.head)
        except StoreError:
            pass  # memory has no room for it now
        writer.abort()

    def _copies(self, head: StoredHead) -> list[IStoredResponse]:
        """Return what memory has in the place of a response."""
        return [stored for stored in self._memory.lookup(head.key) if stored.head.vary == head.vary]

    def _is_current(self, stored: IStoredResponse) -> bool:
        return self._shared is None or self._shared.is_current(stored)

    # What is on disk

    def _forget_on_disk(self, which: Callable[[StoredHead], bool], head: StoredHead) -> None:
        """Remove from the disk what is there under the key of `head`."""
        key = head.key
        self._removing.setdefault(key, []).append(head)

        def remove(disk: ICacheStore, found: Sequence[IStoredResponse]) -> None:
            for other in found:
                if which(other.head):
                    disk.remove(other)

        def removed(_: object) -> None:
            self._removing[key].remove(head)
            if not self._removing[key]:
                del self._removing[key]
            self.forget_others(key)

        self._on_disk(key, remove).addBoth(removed)

    def _on_disk(
        self, key: bytes, function: Callable[[ICacheStore, Sequence[IStoredResponse]], None]
    ) -> Deferred[None]:
        """Call a function with what is on disk under a key, after what is on its way there has come."""

        def look(_: object) -> Deferred[Sequence[IStoredResponse]]:
            return succeed(()) if self._disk is None else later(self._disk.lookup, key)

        def found(result: Sequence[IStoredResponse]) -> None:
            if self._disk is not None:
                function(self._disk, result)

        settled = self._settled([done for _, done in self._behind.get(key, ())])
        result = settled.addCallback(look).addCallback(found)
        self._pending.add(result)

        def done(outcome: None) -> None:
            self._pending.discard(result)
            return outcome

        return result.addBoth(done)

    @staticmethod
    def _settled(deferreds: Iterable[Deferred[None]]) -> Deferred[None]:
        """Return a Deferred that fires after all of these; they never fail."""
        waiting: list[Deferred[None]] = []
        for deferred in deferreds:
            after: Deferred[None] = Deferred()
            waiting.append(after)

            def fired(result: None, after: Deferred[None] = after) -> None:
                after.callback(None)
                return result

            deferred.addCallback(fired)
        return gatherResults(waiting).addCallback(lambda _: None)


def _is_same(one: StoredHead, other: StoredHead) -> bool:
    """Whether two heads are of one response; memory and disk note the time of a soft purge each for itself."""
    return one == (other if one.purged == other.purged else other.replaced(purged=one.purged))
