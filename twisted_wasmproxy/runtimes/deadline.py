"""One thread a process that tells an engine when a call into a guest has outlived its deadline.

A call writes down its deadline and goes ahead; it wakes the thread only where the thread would sleep past that
deadline. So under steady load the thread wakes about once per limit, not once per call, and without calls never.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from math import inf
from time import monotonic
from typing import Protocol
from weakref import WeakSet

__all__ = ["DeadlineWatch", "Watched"]


_LONGEST_SLEEP = 3600.0
"""Seconds; the operating system's waits have an end."""


class Watched(Protocol):
    """What can be running past its deadline."""

    deadline: float
    """When the running call must have ended, on the clock of `time.monotonic`; infinite while none runs."""
    overdue: float
    """The deadline for which `expire` was called last; the watch's own note."""


class DeadlineWatch:
    """Calls `expire` (from its own thread) once for each deadline that passes. Started by the first call of `wake`."""

    def __init__(self, expire: Callable[[], None]) -> None:
        self.next_look: float = inf
        """When the thread looks next; whoever sets an earlier deadline must call `wake`."""
        self._expire = expire
        self._watched: WeakSet[Watched] = WeakSet()
        self._lock = threading.Lock()
        self._woken = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, watched: Watched) -> None:
        """Look at `watched` from now on."""
        with self._lock:
            self._watched.add(watched)

    def discard(self, watched: Watched) -> None:
        """Look at it no more."""
        with self._lock:
            self._watched.discard(watched)

    def wake(self, deadline: float) -> None:
        """Have the thread look no later than at `deadline`."""
        self.next_look = deadline
        self._woken.set()
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="wasm-deadlines", daemon=True)
                    self._thread.start()

    def _run(self) -> None:
        while True:
            # A deadline set while we look is either seen by the look or finds next_look infinite, and then wakes us.
            self._woken.clear()
            self.next_look = inf
            now = monotonic()
            nearest = inf
            overdue = False
            with self._lock:
                for watched in self._watched:
                    deadline = watched.deadline
                    if deadline > now:
                        nearest = min(nearest, deadline)
                    elif watched.overdue != deadline:
                        watched.overdue = deadline
                        overdue = True
            if overdue:
                self._expire()
            self.next_look = min(self.next_look, nearest)
            self._woken.wait(None if nearest == inf else min(max(nearest - monotonic(), 0.0), _LONGEST_SLEEP))
