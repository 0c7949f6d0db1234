"""What a `TieredStore` hands out: a response that was found on disk, and a writer to memory, disk or both."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_wasmproxy.cache.entry import StoredHead, StoreError
from twisted_wasmproxy.interfaces import IStoredResponse, IStoreWriter

if TYPE_CHECKING:
    from twisted_wasmproxy.cache.stores.tiered import TieredStore

__all__ = ["AHEAD", "FromDisk", "TieredWriter", "later"]

T = TypeVar("T")

AHEAD = 64 * 1024 * 1024
"""Bytes that may wait for the disk; with more, what comes has to wait for it, too."""


@implementer(IStoredResponse)
class FromDisk:
    """A response found on disk: copied into memory when it is used."""

    def __init__(self, store: TieredStore, inner: IStoredResponse) -> None:
        self._store = store
        self.inner = inner
        self.head = inner.head
        self.parts = inner.parts
        self.size = inner.size
        self.body = inner.body
        self.memo: object = None
        self._used = False

    def read(self, start: int, size: int) -> bytes | Deferred[bytes]:
        data = self.inner.read(start, size)
        return data.addErrback(self._gone) if isinstance(data, Deferred) else data

    def _gone(self, failure: Failure) -> Failure:
        self._store.forget_others(self.head.key)
        return failure

    def used(self) -> None:
        self.inner.used()
        if not self._used:
            self._used = True
            self._store.copy(self)

    def hold(self) -> None:
        self.inner.hold()

    def release(self) -> None:
        self.inner.release()


@implementer(IStoreWriter)
class TieredWriter:
    """Writes to memory, disk or both; at least one is there, and has all that was written."""

    def __init__(
        self,
        store: TieredStore,
        head: StoredHead,
        memory: IStoreWriter | None,
        disk: IStoreWriter | None,
        may_grow: bool,
    ) -> None:
        self.head = head
        self._store = store
        self._memory = memory
        self._disk = disk
        self._written = 0
        self._may_grow = may_grow
        """Whether it may become too large for memory, so that the disk must keep up."""
        self._ahead = 0
        """Bytes given to the disk's writer since it asked to wait."""
        self._slow: Deferred[None] | None = None

    def write(self, data: bytes) -> Deferred[None] | None:
        self._written += len(data)
        pause = None
        if self._disk is not None:
            try:
                pause = self._disk.write(data)
            except StoreError:
                if self._memory is None:
                    raise
                self._leave_disk()
        if self._memory is not None:
            try:
                self._memory.write(data)
            except StoreError:
                if self._disk is None:
                    raise
                self._memory.abort()
                self._memory = None
        if pause is None or self._memory is None or self._may_grow:
            return pause
        return self._run_ahead(pause, len(data))

    def _run_ahead(self, pause: Deferred[None], size: int) -> Deferred[None] | None:
        """Go on although the disk asked to wait, as memory has room for all of it; but not further than `AHEAD`."""
        self._ahead += size
        self._store.ahead += size
        if self._slow is None:
            self._slow = pause
            pause.addCallback(lambda _: self._caught_up())
        return pause if self._store.ahead > AHEAD else None

    def _caught_up(self) -> None:
        self._slow = None
        self._store.ahead -= self._ahead
        self._ahead = 0

    def _leave_disk(self) -> None:
        if self._disk is not None:
            disk, self._disk = self._disk, None
            disk.abort()
            self._caught_up()

    def available(self, start: int) -> int:
        return self._one.available(start)

    def read(self, start: int, size: int) -> bytes | Deferred[bytes]:
        return self._one.read(start, size)

    @property
    def _one(self) -> IStoreWriter:
        one = self._memory if self._memory is not None else self._disk
        assert one is not None
        return one

    def commit(self, head: StoredHead) -> IStoredResponse | Deferred[IStoredResponse]:
        if self._memory is not None and self._disk is not None and self._written != head.length:
            self._memory.abort()
            self._memory = None
        if self._memory is not None:
            try:
                stored = self._memory.commit(head)
            except StoreError:
                if self._disk is None:
                    raise
                self._memory.abort()
                self._memory = None
            else:
                assert not isinstance(stored, Deferred)
                self._store.stored(stored, self._disk)
                return stored
        assert self._disk is not None
        return later(self._disk.commit, head).addCallback(self._store.stored_on_disk)

    def abort(self) -> None:
        if self._memory is not None:
            self._memory.abort()
        if self._disk is not None:
            self._disk.abort()
        self._caught_up()


def later(function: Callable[..., T | Deferred[T]], *arguments: object) -> Deferred[T]:
    """Return what a function returns, or raises, as a Deferred."""
    result: Deferred[Any] = maybeDeferred(function, *arguments)
    return result
