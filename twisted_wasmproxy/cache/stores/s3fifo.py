"""S3-FIFO: which stored response goes when there is no room, so that one pass over cold ones spares the hot ones.

After Yang, Zhang, Qiu, Yue and Rashmi, "FIFO queues are all you need for cache eviction" (SOSP 2023), with queues
bounded by bytes instead of objects. What is new enters a *small* queue, a tenth of the bytes. At its end what has been
used meanwhile moves to the *main* queue, and the rest is evicted; of those a fingerprint stays behind in the *ghost*
queue (as many as there are responses), and what comes back while it is there enters the main queue at once. At the end
of the main queue what has been used starts again, with one use less to its credit. A use costs no move in a queue.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

__all__ = ["MOST", "S3FIFO", "Evictable"]

MOST = 3
"""`frequency` is not counted beyond this."""
SMALL_SHARE = 10
"""The small queue has one part in so many of the bytes."""
PROMOTED = 1
"""Uses in the small queue that make a response move to the main one."""
GHOST_CHARGE = 208
"""Bytes that remembering one fingerprint takes."""


class Evictable(Protocol):
    """What the queues hold; compared and hashed by identity."""

    charge: int
    """Bytes it takes; not changed while it is here."""
    frequency: int
    """Uses that count for it, 0 to `MOST`: raised by its user."""
    fingerprint: int
    """The same when the same comes again; a collision does no harm."""


T = TypeVar("T", bound=Evictable)


class S3FIFO(Generic[T]):
    """The queues. Who adds makes room first (`evict`)."""

    def __init__(self, capacity: int) -> None:
        self._small_capacity = capacity // SMALL_SHARE
        self._small: OrderedDict[T, None] = OrderedDict()
        self._main: OrderedDict[T, None] = OrderedDict()
        self._ghost: OrderedDict[int, None] = OrderedDict()
        self._small_bytes = 0
        self.bytes = 0
        """Sum of the charges."""

    @property
    def overhead(self) -> int:
        """Bytes taken beside the charges."""
        return len(self._ghost) * GHOST_CHARGE

    def __len__(self) -> int:
        return len(self._small) + len(self._main)

    def __contains__(self, item: T) -> bool:
        return item in self._main or item in self._small

    def __iter__(self) -> Iterator[T]:
        yield from self._main
        yield from self._small

    def add(self, item: T, old: T | None = None) -> None:
        """Take in a new item. In the place of `old`, it goes to the queue that `old` is in, with its uses."""
        if old is not None:
            main = old in self._main
            item.frequency = old.frequency
            self.discard(old)
        else:
            main = self._ghost.pop(item.fingerprint, self) is None
        self.bytes += item.charge
        if main:
            self._main[item] = None
        else:
            self._small[item] = None
            self._small_bytes += item.charge

    def discard(self, item: T) -> None:
        """Forget an item without remembering that it was here; nothing if it is not."""
        if item in self._main:
            del self._main[item]
        elif item in self._small:
            del self._small[item]
            self._small_bytes -= item.charge
        else:
            return
        self.bytes -= item.charge

    def evict(self) -> T:
        """Choose what goes, forget it but for its fingerprint, and return it. Raises KeyError if nothing is here."""
        while True:
            if self._small and (self._small_bytes > self._small_capacity or not self._main):
                item, _ = self._small.popitem(last=False)
                self._small_bytes -= item.charge
                if item.frequency < PROMOTED:
                    self._ghost[item.fingerprint] = None
                    break
                item.frequency = 0
            else:
                item, _ = self._main.popitem(last=False)
                if item.frequency == 0:
                    break
                item.frequency -= 1
            self._main[item] = None
        self.bytes -= item.charge
        while len(self._ghost) > len(self):
            self._ghost.popitem(last=False)
        return item
