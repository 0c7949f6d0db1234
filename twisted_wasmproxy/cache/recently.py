"""`Recently`: what was learnt of cache keys a while ago, bounded in time and bytes."""

from __future__ import annotations

import time
from collections import OrderedDict
from hashlib import blake2b

__all__ = ["Recently"]


class Recently:
    """Keys of which something was noted within the last `seconds`; of more than `limit`, the oldest are forgotten.

    A key counts by a digest of 16 bytes, however long it is: 10,000 take 2 MiB.
    """

    __slots__ = ("_limit", "_noted", "_seconds")

    def __init__(self, seconds: float, limit: int = 10_000) -> None:
        self._seconds = seconds
        self._limit = limit
        self._noted: OrderedDict[bytes, float] = OrderedDict()

    def note(self, key: bytes) -> None:
        name = _digest(key)
        self._noted[name] = time.monotonic()
        self._noted.move_to_end(name)
        if len(self._noted) > self._limit:
            self._noted.popitem(last=False)

    def __contains__(self, key: bytes) -> bool:
        noted = self._noted
        if not noted:
            return False
        name = _digest(key)
        if name not in noted:
            return False
        if time.monotonic() - noted[name] < self._seconds:
            return True
        del noted[name]
        return False

    def forget(self, key: bytes) -> None:
        if self._noted:
            self._noted.pop(_digest(key), None)


def _digest(key: bytes) -> bytes:
    return blake2b(key, digest_size=16).digest()
