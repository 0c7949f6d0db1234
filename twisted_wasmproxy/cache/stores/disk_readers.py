"""Threads that read the disk store for the reactor. Results that come together wake it once, not each by itself."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

__all__ = ["ReaderThreads"]

T = TypeVar("T")


class ReaderThreads:
    """`call` is for the reactor's thread."""

    def __init__(self, reactor: Any, number: int) -> None:
        self._reactor = reactor
        self._jobs: SimpleQueue[tuple[Callable[[], Any], Deferred[Any]] | None] = SimpleQueue()
        self._done: deque[tuple[Deferred[Any], Any]] = deque()
        self._delivering = False
        """Whether the reactor has been asked to call `_deliver`."""
        self._threads = [
            threading.Thread(target=self._run, name=f"disk cache reader {index}", daemon=True)
            for index in range(number)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Do what has been asked for, and end. Blocks: for another thread than the reactor's."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    def call(self, function: Callable[[], T]) -> Deferred[T]:
        """Call a function in one of the threads; the Deferred has its result, or fails as it did."""
        deferred: Deferred[T] = Deferred()
        self._jobs.put((function, deferred))
        return deferred

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            function, deferred = job
            try:
                result = function()
            except BaseException:  # whatever it is, the caller of `call` gets it
                result = Failure()
            # In this order: `_deliver` takes back that it is coming before it looks what there is.
            self._done.append((deferred, result))
            if not self._delivering:
                self._delivering = True
                self._reactor.callFromThread(self._deliver)
            del job, function, deferred, result

    def _deliver(self) -> None:
        self._delivering = False
        for _ in range(len(self._done)):  # what comes meanwhile is for the next time
            deferred, result = self._done.popleft()
            deferred.callback(result)
