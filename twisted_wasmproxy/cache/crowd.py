"""`Crowd`: the requests that wait for one answer from an origin, in the order in which they came."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twisted_wasmproxy.cache.fill import Fill
    from twisted_wasmproxy.cache.lookup import Lookup

__all__ = ["Crowd"]


class Crowd:
    """Who waits for a fill. `leader`: who has made it ask, as long as that one waits."""

    __slots__ = ("_waiting", "leader")

    def __init__(self) -> None:
        self._waiting: dict[Lookup, float] = {}
        """And since when, the longest first."""
        self.leader: Lookup | None = None

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, lookup: Lookup, fill: Fill, now: float) -> None:
        """Let a request wait for `fill`, whose crowd this is, from `now` on."""
        lookup.fill = fill
        self._waiting[lookup] = now
        lookup.client.take(lookup)

    def release(self, lookup: Lookup) -> None:
        """It waits no longer."""
        del self._waiting[lookup]
        lookup.fill = None
        lookup.settle()
        if lookup is self.leader:
            self.leader = None

    def release_all(self) -> list[Lookup]:
        """Nobody waits any longer: return who did."""
        waiting = list(self._waiting)
        for lookup in waiting:
            self.release(lookup)
        return waiting

    def waiting_since(self) -> float | None:
        """Return since when the first of those waits who have not made it ask; None if there is none."""
        return next((since for lookup, since in self._waiting.items() if lookup is not self.leader), None)

    def release_since(self, time: float) -> list[Lookup]:
        """Release those who have waited since `time` or longer, but not who has made it ask; return them."""
        found = [lookup for lookup, since in self._waiting.items() if since <= time and lookup is not self.leader]
        for lookup in found:
            self.release(lookup)
        return found

    def in_turn(self) -> Iterator[Lookup]:
        """Release one after the other, each when it is answered: as long as any is left, somebody waits."""
        while self._waiting:
            lookup = next(iter(self._waiting))
            self.release(lookup)
            yield lookup

    def __iter__(self) -> Iterator[Lookup]:
        """Go through those who wait now, and still do when it is their turn."""
        return (lookup for lookup in list(self._waiting) if lookup in self._waiting)
