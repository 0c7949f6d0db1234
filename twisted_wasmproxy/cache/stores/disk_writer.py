"""The one thread of a process that writes to the disk store: many jobs to a transaction, and upkeep between them.

LMDB lets one process write at a time, and a commit costs a flush of the disk; so what has come meanwhile goes into one
transaction, and no transaction is long. The reactor hands jobs over and gets their results by Deferreds.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import lmdb
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from twisted_wasmproxy.cache.entry import StoreError
from twisted_wasmproxy.cache.stores.disk_folder import Folder, is_full, reason_of
from twisted_wasmproxy.cache.stores.disk_index import Change
from twisted_wasmproxy.cache.stores.disk_layout import Totals
from twisted_wasmproxy.logs import Logger

__all__ = ["WriterThread"]

T = TypeVar("T")

BATCH_JOBS = 256
BATCH_BYTES = 4 * 1024 * 1024
QUEUE_HIGH = 32 * 1024 * 1024
QUEUE_LOW = QUEUE_HIGH // 2
"""Bytes that wait to be written: from HIGH on writers are asked to wait, until there is no more than LOW."""

EVICT_STEPS = 400
"""Entries that the hand passes in one transaction: some 30 ms if all of them go."""
MARKS = 2000
"""Entries marked as used in one transaction."""
FREE_CHUNKS = 512
"""Chunks freed in one transaction: some 15 ms."""
FREE_INTERVAL = 1.0
SLACK = 16
"""What waits to be freed goes at once if it is more than this part of the size over it."""
UPKEEP_INTERVAL = 10.0
"""Seconds between rounds of upkeep: what was used is noted, what dead processes left is freed."""
FULL_PAUSE = 60.0
"""Seconds for which nothing new is stored after the disk was found full."""


@dataclass(slots=True)
class _Job:
    run: Callable[[Change], Any]
    size: int
    deferred: Deferred[Any]
    outcome: Any = field(default=None)


class WriterThread:
    """Started by `start`; `submit` and `room` are for the reactor's thread."""

    def __init__(
        self,
        folder: Folder,
        reactor: Any,
        size: int,
        used: set[int | bytes],
        failed: Callable[[str], None],
        log: Logger,
    ) -> None:
        """`used`: what has been used, by entry id or cache key; the reactor's thread adds, this one takes away.

        `failed` is called in the reactor's thread when the store is out of order, with the reason.
        """
        self._folder = folder
        self._reactor = reactor
        self._limit = size
        """Bytes to keep; less than was asked for where LMDB's file has grown to its end before."""
        self._failed = failed
        self._log = log
        self._jobs: deque[_Job] = deque()
        self._wake = threading.Condition()
        self._stopping = False
        self._out_of_order: str | None = None
        self._used = used
        self._queued = 0
        self._waiting: list[Deferred[None]] = []
        self._full_since: float | None = None
        self._next_upkeep = 0.0
        self._next_free = 0.0
        self._all_held = False
        """Whether there was nothing that could be freed when it was last tried."""
        self._evicting = False
        self._at_end = folder.is_at_end()
        """Whether LMDB's file cannot grow much further. Where it was so at the start, it has free pages inside."""
        self.totals = Totals()
        """As of the last transaction of this process."""
        self._thread = threading.Thread(target=self._run, name="disk cache writer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Do what has been submitted, and end. Blocks: for another thread than the reactor's."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join()

    def submit(self, run: Callable[[Change], T], size: int = 0) -> Deferred[T]:
        """Have `run` called in a write transaction; the Deferred has its result once that is committed.

        `run` may be called again if the transaction fails; a `StoreError` that it raises before it has changed
        anything fails this job alone. Jobs are done in order. `size`: bytes that the job keeps in memory.
        """
        deferred: Deferred[T] = Deferred()
        self._queued += size
        with self._wake:
            if self._stopping or self._out_of_order is not None:
                self._queued -= size
                deferred.errback(StoreError(self._out_of_order or "the disk cache is closed"))
                return deferred
            self._jobs.append(_Job(run, size, deferred))
            self._wake.notify()
        return deferred

    @property
    def full(self) -> bool:
        """Whether nothing new should be written, as the disk was found full."""
        return self._full_since is not None and time.monotonic() - self._full_since < FULL_PAUSE

    @property
    def queued(self) -> int:
        """Bytes that wait to be written."""
        return self._queued

    def room(self) -> Deferred[None] | None:
        """Return None if there is room in the queue, else a Deferred that fires when there is."""
        if self._queued < QUEUE_HIGH:
            return None
        deferred: Deferred[None] = Deferred()
        self._waiting.append(deferred)
        return deferred

    def _deliver(self, jobs: list[_Job]) -> None:
        """In the reactor's thread: tell the results."""
        for job in jobs:
            self._queued -= job.size
        for job in jobs:
            if isinstance(job.outcome, BaseException):
                job.deferred.errback(Failure(job.outcome))
            else:
                job.deferred.callback(job.outcome)
        if self._waiting and self._queued <= QUEUE_LOW:
            waiting, self._waiting = self._waiting, []
            for deferred in waiting:
                deferred.callback(None)

    # From here on: in the thread.

    def _run(self) -> None:
        while True:
            jobs = self._take()
            if not jobs and self._stopping:
                self._guarded(self._note_used)
                return
            if jobs:
                self._do(jobs)
                self._reactor.callFromThread(self._deliver, jobs)
            if self._out_of_order is None and not self._stopping:
                self._guarded(self._upkeep)

    def _take(self) -> list[_Job]:
        with self._wake:
            if not self._jobs and not self._stopping:
                now = time.monotonic()
                due = min(self._next_upkeep, self._next_free) if self.totals.doomed else self._next_upkeep
                if not self._evicting and due > now:
                    self._wake.wait(due - now)
            jobs: list[_Job] = []
            size = 0
            while self._jobs and len(jobs) < BATCH_JOBS and size < BATCH_BYTES:
                jobs.append(self._jobs.popleft())
                size += jobs[-1].size
            return jobs

    def _do(self, jobs: list[_Job]) -> None:
        """Do jobs in one transaction; where the map is full, one by one, with room made before each."""
        if self._out_of_order is not None:
            for job in jobs:
                job.outcome = StoreError(self._out_of_order)
            return
        try:
            self._transaction(jobs)
        except lmdb.MapFullError:
            for job in jobs:
                try:
                    self._make_room()
                    self._transaction([job])
                except lmdb.MapFullError:
                    job.outcome = StoreError(f"disk cache {self._folder.path}: no room in its file")
                except Exception as error:  # as below
                    self._fault([job], error)
        except Exception as error:  # damaged rows raise anything; whatever it is, the jobs must get an answer
            self._fault(jobs, error)
        else:
            if self._full_since is not None and not self.full and any(job.size for job in jobs):
                self._full_since = None
                self._log.info("disk cache {path}: storing again", path=self._folder.path)

    def _transaction(self, jobs: list[_Job]) -> None:
        with self._folder.begin(write=True) as txn:
            change = Change(self._folder.index, txn)
            if self._all_held:  # else it is freed faster than anything is added
                change.most_doomed = self._most_doomed()
            for job in jobs:
                try:
                    job.outcome = job.run(change)
                except StoreError as error:
                    job.outcome = error
            if change.totals.live > self._limit:
                change.use(self._folder.index.unmarked(txn, self._some_used()))
            self._evicting = not change.evict(self._limit, EVICT_STEPS)
            self._finish(change)
        self.totals = change.totals
        if not self._at_end and self._folder.is_at_end():
            self._at_end = True
            self._lower_limit()

    def _lower_limit(self) -> None:
        floor = min(self._limit, self._folder.map_size // 2)
        self._limit = max(floor, min(self._limit, self.totals.live * 15 // 16))

    def _finish(self, change: Change) -> None:
        if change.notices:
            change.totals.position = self._folder.changes.publish(change.notices)
        change.finish()

    def _fault(self, jobs: list[_Job], error: Exception) -> None:
        reason = f"disk cache {self._folder.path}: {reason_of(error)}"
        for job in jobs:
            job.outcome = StoreError(reason)
        if is_full(error):
            if self._full_since is None:
                self._log.error(
                    "disk cache {path}: {reason}; nothing is stored there for now, tried again every {pause:.0f} s",
                    path=self._folder.path,
                    reason=reason_of(error),
                    pause=FULL_PAUSE,
                )
            self._full_since = time.monotonic()
        else:
            self._out_of_order = reason
            self._reactor.callFromThread(self._failed, reason_of(error))

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except lmdb.MapFullError:
            self._next_free = self._next_upkeep = time.monotonic() + FREE_INTERVAL
        except Exception as error:  # as in `_do`: the thread must live on to answer
            self._next_free = self._next_upkeep = time.monotonic() + UPKEEP_INTERVAL
            self._fault([], error)

    def _upkeep(self) -> None:
        now = time.monotonic()
        if self._evicting:
            self._transaction([])
        if now >= self._next_upkeep:
            self._next_upkeep = now + UPKEEP_INTERVAL
            self._folder.check_sizes()
            self._folder.environment.reader_check()
            self._note_used()
            self._bury_dead()
        over = self.totals.live + self.totals.doomed - self._limit
        pressure = over > self._limit // SLACK or self.totals.doomed > self._most_doomed() // 2
        if now >= self._next_free or (pressure and not self._all_held):
            self._next_free = now + FREE_INTERVAL
            with self._folder.begin() as txn:
                self.totals = self._folder.index.totals(txn)
            doomed = self.totals.doomed
            if doomed and self._free(pressure):
                self._next_free = now
            self._all_held = pressure and doomed == self.totals.doomed

    def _most_doomed(self) -> int:
        return min(self._limit // 8 + BATCH_BYTES, self._folder.map_size // 8)

    def _free(self, pressure: bool) -> bool:
        """Free some of what is doomed; return whether there is more."""
        with self._folder.begin(write=True) as txn:
            held = self._folder.held()
            change = Change(self._folder.index, txn)
            more = change.free(held, FREE_CHUNKS, pressure)
            self._finish(change)
        self.totals = change.totals
        return more

    def _make_room(self) -> None:
        """Keep a sixteenth less from now on, and free all that can be."""
        self._lower_limit()
        done = False
        while not done:
            with self._folder.begin(write=True) as txn:
                change = Change(self._folder.index, txn)
                done = change.evict(self._limit, 100)
                self._finish(change)
            self.totals = change.totals
        while self._free(pressure=True):
            pass
        for _ in range(2):  # LMDB uses a freed page again in the second transaction after
            with self._folder.begin(write=True) as txn:
                Change(self._folder.index, txn).finish(always=True)

    def _note_used(self) -> None:
        while self._used:
            with self._folder.begin() as txn:
                unmarked = self._folder.index.unmarked(txn, self._some_used())
            if unmarked:
                with self._folder.begin(write=True) as txn:
                    change = Change(self._folder.index, txn)
                    change.use(unmarked)
                    self._finish(change)

    def _some_used(self) -> list[int | bytes]:
        return [self._used.pop() for _ in range(min(len(self._used), MARKS))]

    def _bury_dead(self) -> None:
        """Doom what processes were writing that are no more."""
        for process in self._folder.dead():
            done = False
            while not done:
                with self._folder.begin(write=True) as txn:
                    change = Change(self._folder.index, txn)
                    done = change.abandon_all(process, BATCH_JOBS)
                    self._finish(change)
            self._folder.bury(process)
