"""`DiskStore`: stored responses in an LMDB database that all processes of a machine share.

Layout of the tables: `disk_layout`. Reads, writes and eviction: `disk_index`. The writing thread: `disk_writer`. The
reading threads: `disk_readers`. One lookup: `disk_lookup`. The folder, its checks, and other processes: `disk_folder`.
Messages between processes: `disk_changes`. System calls of the hot path: `disk_calls`.

All that touches the database runs in threads: one that writes, and a few that read. An entry becomes findable in one
transaction, with the last of its content; the rest may have been written in many before.

Durability: LMDB never overwrites a page that its last commit needs, so a process killed at any moment loses what it had
not committed, and nothing else. Each commit flushes its data before the page that makes it valid is written (`sync`);
that page itself is flushed with the next commit (no `metasync`), which halves the flushes: a power loss may undo the
last commit, and damages nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any, TypeVar

import lmdb
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_wasmproxy.cache.clock import CLOCK
from twisted_wasmproxy.cache.entry import Selection, StoredHead, StoreError
from twisted_wasmproxy.cache.selection import matches
from twisted_wasmproxy.cache.stores.disk_changes import Changed, ChangeLog, Cut, Purged, TooFarBehind, vary_of
from twisted_wasmproxy.cache.stores.disk_folder import Folder, reason_of
from twisted_wasmproxy.cache.stores.disk_index import Change, Damaged
from twisted_wasmproxy.cache.stores.disk_layout import CHUNK, Entry, Segment, Totals, blob_id
from twisted_wasmproxy.cache.stores.disk_lookup import Lookup
from twisted_wasmproxy.cache.stores.disk_readers import ReaderThreads
from twisted_wasmproxy.cache.stores.disk_response import DiskResponse, DiskWriter
from twisted_wasmproxy.cache.stores.disk_writer import WriterThread
from twisted_wasmproxy.cache.stores.shared import ChangeListener
from twisted_wasmproxy.config.model import DiskCacheConfig
from twisted_wasmproxy.interfaces import ICacheStore, IStoredResponse
from twisted_wasmproxy.logs import Logger

__all__ = ["DiskStore"]

T = TypeVar("T")

READERS = 4
"""Threads that read."""
READ_LARGEST = 256 * 1024
"""Bytes that one read returns at most."""
SEGMENTS = 256
"""Of an incomplete response with more than these nothing more is taken over."""
PURGE_ROWS = 300
"""Rows looked at in one transaction of a purge: some 30 ms if all of them go."""
FOLLOW_INTERVAL = 1.0
"""Seconds between looks at the change log where nobody asks; it would take megabytes a second to miss something."""
MAP_EXTRA = 64 * 1024 * 1024


@implementer(ICacheStore)
class DiskStore:
    """Keeps up to `config.size` bytes in `config.path`, and no body of more than `config.max_object`.

    After a fault it is out of order: it finds and keeps nothing, and the log has said so once.
    """

    def __init__(self, config: DiskCacheConfig, reactor: Any, map_size: int | None = None) -> None:
        """`map_size`: bytes that the file may grow to, with what waits to be freed; by default more than `size`."""
        self._log = Logger(namespace="twisted_wasmproxy.cache.disk")
        self._config = config
        self._reactor = reactor
        self._map_size = map_size or (config.size * 5 // 4 + MAP_EXTRA) // CHUNK * CHUNK
        self.max_object = config.max_object or config.size // 4
        """Bytes of the largest body kept."""
        self._trouble: str | None = "the disk cache has not been started"
        self._folder: Folder
        self._thread: WriterThread
        self._readers = ReaderThreads(reactor, READERS)
        self._numbers = count(1)
        self._writers: set[DiskWriter] = set()
        self._removed: set[int] = set()
        """Entries that are on their way out: not found any more."""
        self._purging: list[Selection] = []
        self._holding = threading.Lock()
        self._holds: dict[int, int] = {}
        self._listeners: list[ChangeListener] = []
        self._follow = LoopingCall(self._tick)
        self._follow.clock = reactor
        self.position = 0
        """Of the change log: how far this process has followed it."""
        self._position = b""
        """The same, as `_counter` returns it."""
        self._counter: Callable[[], bytes] = bytes
        """Returns where the change log ends (`ChangeLog.shown`); nothing, as long as it is not open."""
        self._used: set[int | bytes] = set()
        """What has been used since the writer thread looked: entry ids and keys."""

    # ICacheStore

    def start(self) -> Deferred[None]:
        self._readers.start()

        def opened(folder: Folder) -> None:
            self._folder = folder
            if folder.fresh_start is not None:
                self._log.error(
                    "disk cache {path}: {reason}; what was there has been deleted, it starts empty",
                    path=folder.path,
                    reason=folder.fresh_start,
                )
            if folder.warning is not None:
                self._log.warn("disk cache {path}: {warning}", path=folder.path, warning=folder.warning)
            self._have_followed(folder.changes.counter)
            self._counter = folder.changes.shown
            self._thread = WriterThread(folder, self._reactor, self._config.size, self._used, self._fault, self._log)
            self._thread.start()
            self._trouble = None
            following: Deferred[Any] = self._follow.start(FOLLOW_INTERVAL, now=False)
            following.addErrback(lambda failure: self._fault(failure.getErrorMessage()))

        def failed(failure: Failure) -> Deferred[None]:
            stopping = self._blocking(self._readers.stop)
            return stopping.addCallback(lambda _: failure)

        opening = self._readers.call(lambda: Folder(self._config.path, self._map_size))
        return opening.addCallback(opened).addErrback(failed)

    def stop(self) -> Deferred[None]:
        if not self._follow.running:
            return succeed(None)
        self._follow.stop()
        for writer in list(self._writers):
            writer.abort()
        self._trouble = "the disk cache is closed"
        self._follow_no_more()

        def close() -> None:
            self._readers.stop()
            self._thread.stop()
            self._folder.close()

        return self._blocking(close)

    def lookup(self, key: bytes) -> Deferred[Sequence[IStoredResponse]] | tuple[()]:
        if self._trouble is not None:
            return ()
        lookup = Lookup(self._folder, key, self.hold)
        removed = self._removed.copy()

        def let_go() -> None:
            for segments in lookup.held:
                self.release(segments)

        def found(_: Lookup) -> Sequence[IStoredResponse]:
            if lookup.held:  # until whoever has asked has had the time to hold what is wanted
                self._reactor.callLater(0, let_go)
            removed.update(self._removed)  # what was then, too: that may be done by now, and not have been seen
            for row in lookup.damaged:
                self._drop_damaged(row)
            return [
                DiskResponse(self, entry, lookup.position, body)
                for entry, body in lookup.found
                if entry.id not in removed
            ]

        def failed(_: Failure) -> Sequence[IStoredResponse]:
            let_go()
            return ()

        return self._in_thread(lookup.run).addCallbacks(found, failed)

    def create(self, head: StoredHead, size: int | None, base: IStoredResponse | None, start: int) -> DiskWriter | None:
        self.catch_up()
        if self._trouble is not None or self._thread.full or (size or 0) > self.max_object:
            return None
        if self._thread.totals.pending > self._config.size // 2:
            return None
        if base is not None:
            assert isinstance(base, DiskResponse)
            if len(base.entry.segments) >= SEGMENTS:
                return None
        writer = DiskWriter(self, head, base, start, blob_id(self._folder.process, next(self._numbers)))
        self._writers.add(writer)
        return writer

    def update(self, stored: IStoredResponse, head: StoredHead) -> Deferred[IStoredResponse] | IStoredResponse:
        assert isinstance(stored, DiskResponse)
        old = stored.entry
        transient = DiskResponse(self, Entry(old.id, old.stamp, head, old.segments), stored.position, stored.body)
        if self._trouble is not None or old.id in self._removed:
            return transient

        def run(change: Change) -> Entry | None:
            if self._purged_since(stored.position, head):
                return None
            entry = change.update(old, head)
            if entry is not None:
                change.notices.append(Changed(self.process, head.key, vary_of(head)).pack())
            return entry

        def updated(entry: Entry | None) -> IStoredResponse:
            return transient if entry is None else DiskResponse(self, entry, self.position, stored.body)

        return self.submit(run).addCallbacks(updated, lambda _: transient)

    def remove(self, stored: IStoredResponse) -> None:
        assert isinstance(stored, DiskResponse)
        entry = stored.entry
        if self._trouble is not None or entry.id in self._removed:
            return
        self._removed.add(entry.id)

        def run(change: Change) -> None:
            if change.remove(entry):
                change.notices.append(Changed(self.process, entry.head.key, vary_of(entry.head)).pack())

        self.submit(run).addErrback(lambda _: None).addCallback(lambda _: self._removed.discard(entry.id))

    def purge(self, selection: Selection, soft: bool) -> Deferred[int]:
        for writer in self._writers:
            writer.purged = writer.purged or matches(selection, writer.head)
        self._purging.append(selection)
        return Deferred.fromCoroutine(self._purge(selection, soft))

    async def _purge(self, selection: Selection, soft: bool) -> int:
        now = CLOCK.now() if soft else 0.0
        notice = Purged(self.process, selection, now).pack()
        purged = 0
        after: bytes | None = b""
        first = True
        below = 0

        def step(change: Change) -> tuple[int, bytes | None]:
            nonlocal below
            if first:
                below = change.totals.next_id
            entries, more = change.index.scan(change.txn, selection, after or b"", PURGE_ROWS, below)
            for entry in entries:
                if soft:
                    change.update(entry, entry.head.replaced(purged=now))
                else:
                    change.remove(entry)
            # At first, so that nothing is stored that was begun before; and at last, as copies may have been made.
            if first or more is None:
                change.notices.append(notice)
            return len(entries), more

        try:
            while after is not None:
                number, after = await self.submit(step)
                purged += number
                first = False
        finally:
            self._purging.remove(selection)
        return purged

    def entries(
        self, selection: Selection, limit: int
    ) -> Deferred[Sequence[IStoredResponse]] | Sequence[IStoredResponse]:
        if self._trouble is not None:
            return ()

        removed = set(self._removed)

        def scan() -> tuple[list[Entry], int]:
            found: list[Entry] = []
            after: bytes | None = b""
            position = 0
            while after is not None and len(found) < limit:
                with self._folder.begin() as txn:
                    totals = self._folder.index.totals(txn)
                    position = position or totals.position
                    more, after = self._folder.index.scan(txn, selection, after, PURGE_ROWS, totals.next_id)
                    found += more
            return found[:limit], position

        def scanned(result: tuple[list[Entry], int]) -> Sequence[IStoredResponse]:
            entries, position = result
            removed.update(self._removed)
            return [DiskResponse(self, entry, position) for entry in entries if entry.id not in removed]

        return self._in_thread(scan).addCallbacks(scanned, lambda _: ())

    def stats(self) -> Deferred[Mapping[str, int | float | str]] | Mapping[str, int | float | str]:
        if self._trouble is not None:
            return self._no_figures()

        def figures(totals: Totals) -> Mapping[str, int | float | str]:
            return {
                "entries": totals.entries,
                "bytes": totals.live + totals.doomed,
                "capacity": self._config.size,
                "evictions": totals.evictions,
                "file_bytes": (self._folder.path / "data.mdb").stat().st_size,
                "waiting_to_be_freed": totals.doomed,
                "being_written": totals.pending,
                "queued": self._thread.queued,
            }

        # By the writer, for figures that agree with all that was asked before.
        return self.submit(lambda change: change.totals).addCallbacks(figures, lambda _: self._no_figures())

    def _no_figures(self) -> Mapping[str, int | float | str]:
        return {"entries": 0, "bytes": 0, "capacity": 0, "evictions": 0, "trouble": self._trouble or "unknown"}

    # SharedStore

    def listen(self, listener: ChangeListener) -> None:
        self._listeners.append(listener)

    def catch_up(self) -> None:
        try:
            if self._counter() == self._position:
                return
            changes, position = self._changes()
        except (Cut, OSError) as error:
            self._fault(reason_of(error))
            return
        if changes is None:
            for writer in self._writers:
                writer.purged = True
            for listener in self._listeners:
                listener.too_much_changed()
        else:
            for change in changes:
                if change.process != self.process:
                    self._apply(change)
        # Last: the writer thread takes from it which changes have been applied.
        self._have_followed(position)

    def _changes(self) -> tuple[list[Changed | Purged] | None, int]:
        """Return (what has changed, the position behind it); None for the changes if there have been too many."""
        try:
            return self._folder.changes.read(self.position)
        except TooFarBehind:
            return None, self._folder.changes.counter

    def _have_followed(self, position: int) -> None:
        self.position = position
        self._position = ChangeLog.packed(position)

    def _follow_no_more(self) -> None:
        self._counter = bytes
        self._position = b""

    def _tick(self) -> None:
        self.catch_up()
        if self._trouble is not None:
            self._used.clear()

    def _apply(self, change: Changed | Purged) -> None:
        if isinstance(change, Changed):
            for listener in self._listeners:
                listener.changed(change)
            return
        for writer in self._writers:
            writer.purged = writer.purged or change.concerns(writer.head)
        for listener in self._listeners:
            listener.purged(change)

    def is_current(self, stored: IStoredResponse) -> bool:
        assert isinstance(stored, DiskResponse)
        head = stored.head
        if self._trouble is not None or stored.entry.id in self._removed:
            return False
        if any(matches(selection, head) for selection in self._purging):
            return False
        try:
            changes, _ = self._folder.changes.read(stored.position)
        except (TooFarBehind, Cut):
            return False
        return not any(change.concerns(head) for change in changes)

    def touch(self, key: bytes) -> None:
        self._used.add(key)

    # For responses and writers

    @property
    def process(self) -> int:
        """The number of this process among those that have shared the store."""
        return self._folder.process

    def submit(self, run: Callable[[Change], T], size: int = 0) -> Deferred[T]:
        """As `WriterThread.submit`."""
        if self._trouble is not None:
            deferred: Deferred[T] = Deferred()
            deferred.errback(StoreError(self._trouble))
            return deferred
        return self._thread.submit(run, size)

    def room(self) -> Deferred[None] | None:
        """As `WriterThread.room`."""
        return self._thread.room()

    def use(self, entry: int) -> None:
        """Note that an entry is used."""
        self._used.add(entry)

    def hold(self, segments: Sequence[Segment]) -> None:
        """Keep content until it is released as often. May be called in any thread."""
        with self._holding:
            for blob in {segment.blob for segment in segments}:
                holds = self._holds.get(blob, 0)
                self._holds[blob] = holds + 1
                if not holds and self._trouble is None:
                    self._folder.hold(blob)

    def release(self, segments: Sequence[Segment]) -> None:
        with self._holding:
            for blob in {segment.blob for segment in segments}:
                holds = self._holds.pop(blob)
                if holds > 1:
                    self._holds[blob] = holds - 1
                elif self._trouble is None:
                    self._folder.release(blob)

    def closed(self, writer: DiskWriter) -> None:
        """A writer has committed or aborted."""
        self._writers.discard(writer)

    def purged_meanwhile(self, writer: DiskWriter, head: StoredHead) -> bool:
        """In the writer thread, with the write lock: whether a purge has selected what is to be stored."""
        position = self.position  # before the flag, see `catch_up`
        return writer.purged or self._purged_since(position, head)

    def _purged_since(self, position: int, head: StoredHead) -> bool:
        """Whether another process may have purged a response with this head since a position of the change log."""
        try:
            changes, _ = self._folder.changes.read(position)
        except TooFarBehind:
            return True
        return any(
            isinstance(change, Purged) and change.process != self.process and change.concerns(head)
            for change in changes
        )

    def read_content(self, entry: Entry, start: int, size: int) -> Deferred[bytes]:
        """Read content of an entry; if it is damaged the entry is removed."""

        def failed(failure: Failure) -> Failure:
            if failure.check(Damaged):
                self._drop_damaged(entry.key)
            return failure

        return self.read_segments(entry.segments, start, size).addErrback(failed)

    def read_segments(self, segments: Sequence[Segment], start: int, size: int) -> Deferred[bytes]:
        """Read content. Fails with `StoreError`."""
        if self._trouble is not None:
            deferred: Deferred[bytes] = Deferred()
            deferred.errback(StoreError(self._trouble))
            return deferred

        def read() -> bytes:
            with self._folder.begin(buffers=True) as txn:
                pieces = self._folder.index.content(txn, segments, start, min(size, READ_LARGEST))
            if not pieces:
                raise StoreError(f"there is no content at {start}")
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)

        return self._in_thread(read)

    def _drop_damaged(self, row: bytes) -> None:
        number = int.from_bytes(row[-8:], "big")
        if number in self._removed:
            return
        self._removed.add(number)
        self._log.error("disk cache {path}: a stored response is damaged, it is removed", path=self._config.path)

        def run(change: Change) -> None:
            entry = change.get(row)
            if entry is None:
                change.remove_damaged(row)
            else:
                change.remove(entry)

        self.submit(run).addErrback(lambda _: None).addCallback(lambda _: self._removed.discard(number))

    def _blocking(self, function: Callable[[], None]) -> Deferred[Any]:
        """Call a function that waits for the threads of the store to end."""
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), function)

    def _in_thread(self, function: Callable[[], T]) -> Deferred[T]:
        """Call a function in a thread that reads; what is wrong with the database comes as `StoreError`."""

        return self._readers.call(function).addErrback(self._reading_failed)

    def _reading_failed(self, failure: Failure) -> Failure:
        if failure.check(StoreError):
            return failure
        assert failure.value is not None
        reason = reason_of(failure.value)
        if failure.check(lmdb.ReadersFullError) is None:
            self._fault(reason)
        return Failure(StoreError(f"disk cache {self._config.path}: {reason}"))

    def _fault(self, reason: str) -> None:
        """Give up: neither find nor keep anything from now on."""
        if self._trouble is None:
            self._trouble = f"disk cache {self._config.path}: {reason}"
            self._follow_no_more()
            self._log.error(
                "disk cache {path}: {reason}; it is not used any more until the proxy is started again",
                path=self._config.path,
                reason=reason,
            )
            for writer in self._writers:
                writer.fail(self._trouble)
