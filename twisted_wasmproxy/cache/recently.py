"""`Recently`: what was learnt of cache keys a while ago, bounded in time and number."""

from __future__ import annotations

import time
from collections import OrderedDict

__all__ = ["Recently"]


class Recently:
    """Keys of which something was noted within the last `seconds`; of more than `limit`, the oldest are forgotten."""

    __slots__ = ("_limit", "_noted", "_seconds")

    def __init__(self, seconds: float, limit: int = 10_000) -> None:
        self._seconds = seconds
        self._limit = limit
        self._noted: OrderedDict[bytes, float] = OrderedDict()

    def note(self, key: bytes) -> None:
        self._noted[key] = time.monotonic()
        self._noted.move_to_end(key)
        if len(self._noted) > self._limit:
            self._noted.popitem(last=False)

    def __contains__(self, key: bytes) -> bool:
        noted = self._noted
        if key not in noted:
            return False
        if time.monotonic() - noted[key] < self._seconds:
            return True
        del noted[key]
        return False

    def forget(self, key: bytes) -> None:
        self._noted.pop(key, None)
