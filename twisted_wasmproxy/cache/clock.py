"""`Clock`: the time by which the cache measures ages. It goes on evenly, whatever happens to the machine's clock.

RFC 9111 section 4.2.3 takes the age of a response from the time that it has been here, and from its Date. The first is
measured by this clock, so that no step of the machine's clock makes a stored response older or younger; for the second
a stored head remembers how far the machine's clock was ahead when the response came (`StoredHead.wall_ahead`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

__all__ = ["CLOCK", "Clock", "ticks"]

AHEAD = 1.0
"""Seconds between this clock and the machine's that do not count: Date has no fractions."""

ticks: Callable[[], float] = (
    partial(time.clock_gettime, time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic
)
"""Seconds since some moment, the same for all processes of the machine; nobody sets it, and where the system can tell,
it counts the time that the machine was suspended, too."""


class Clock:
    """Wall time when it was made, carried on by `ticks`: seconds since the epoch, if the machine's clock was right."""

    __slots__ = ("_wall", "origin", "ticks")

    def __init__(self, wall: Callable[[], float] = time.time, ticks: Callable[[], float] = ticks) -> None:
        self._wall = wall
        self.ticks = ticks
        """Seconds since some moment."""
        self.origin = wall() - ticks()
        """Its time when the ticks were 0. It tells one clock from others."""

    def now(self) -> float:
        """Return the time."""
        return self.origin + self.ticks()

    def ahead(self) -> float:
        """Return how far the machine's clock is ahead of this one, in seconds: how far it has been set since."""
        ahead = self._wall() - self.now()
        return ahead if abs(ahead) >= AHEAD else 0.0


CLOCK = Clock()
"""That of this process."""
