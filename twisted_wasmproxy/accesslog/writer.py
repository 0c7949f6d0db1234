"""`LineWriter`: appends lines to a file from a thread of its own, so that a slow or full disk holds nobody up."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from pathlib import Path

from twisted_wasmproxy.logs import Logger

__all__ = ["LineWriter"]

_LINE_END = ord("\n")

_log = Logger(namespace="twisted_wasmproxy.accesslog")


class LineWriter:
    """Lines go into a queue; a thread writes them every `interval` seconds, or as soon as `batch` bytes wait.

    Lines that cannot be written now (a full disk) wait in the queue and are tried again; beyond `capacity` bytes new
    ones are dropped, and their number is logged. `write` is called from one thread, the reactor's.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        interval: float = 1.0,
        batch: int = 64 * 1024,
        capacity: int = 64 * 1024 * 1024,
        complain_every: float = 60.0,
    ) -> None:
        """Make a writer to `path`, or to standard output where it is None; it begins with `start`."""
        self.path = path
        self.name = "to standard output" if path is None else str(path)
        self._interval = interval
        self._batch = batch
        self._capacity = capacity
        self._complain_every = complain_every
        self._lines: deque[bytes] = deque()
        # Each counter is changed by one thread only, so that neither needs a lock.
        self._accepted = 0
        self._dropped = 0
        self._done = 0
        self._dropped_told = 0
        self._wake = threading.Event()
        self._reopen = threading.Event()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._descriptor = -1
        self._rest = b""
        """Bytes that were taken from the queue and are not written yet."""
        self._torn = False
        """Whether the file ends in the middle of a line whose end is in `_rest`."""
        self._complained = float("-inf")

    def start(self) -> None:
        """Open the file and start the thread. Raises OSError."""
        self._descriptor = self._open()
        self._thread = threading.Thread(target=self._run, name=f"access log {self.name}", daemon=True)
        self._thread.start()

    def write(self, line: bytes) -> None:
        """Queue one line, its end included."""
        waiting = self._accepted - self._done
        size = len(line)
        if waiting + size > self._capacity:
            self._dropped += 1
            if self._dropped == self._dropped_told + 1:
                _log.warn("access log {path}: the queue is full, lines are dropped", path=self.name)
            return
        self._lines.append(line)
        self._accepted += size
        if waiting < self._batch <= waiting + size:
            self._wake.set()

    def reopen(self) -> None:
        """Close the file and open its path again, after it was renamed; what is queued goes to the new file."""
        self._reopen.set()
        self._wake.set()

    def stop(self, timeout: float = 5.0) -> None:
        """Write what is queued and close; wait for that up to `timeout` seconds. Blocks; call it in another thread."""
        thread = self._thread
        if thread is None:
            return
        self._closing.set()
        self._wake.set()
        thread.join(timeout)
        if thread.is_alive():
            _log.error(
                "access log {path}: still blocked after {timeout} s, lines are lost", path=self.name, timeout=timeout
            )
        self._thread = None

    # The thread

    def _open(self) -> int:
        if self.path is None:
            return os.dup(sys.__stdout__.fileno() if sys.__stdout__ is not None else 1)
        return os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY, 0o640)

    def _run(self) -> None:
        while not self._closing.is_set():
            self._wake.wait(self._interval)
            self._wake.clear()
            self._turn()
        self._turn()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _turn(self) -> None:
        try:
            if self._reopen.is_set():
                self._replace()
            self._flush()
        except OSError as error:
            self._complain(error)
        if self._dropped != self._dropped_told:
            self._tell_dropped()

    def _replace(self) -> None:
        new = self._open()  # where that fails the old one stays in use
        self._reopen.clear()
        if self._torn:
            self._torn = False
            line, _, self._rest = self._rest.partition(b"\n")
            self._done += len(line) + 1
        old, self._descriptor = self._descriptor, new
        if old >= 0:
            os.close(old)

    def _flush(self) -> None:
        while True:
            if not self._rest:
                self._rest = self._take()
                if not self._rest:
                    return
            written = os.write(self._descriptor, self._rest)
            if written < len(self._rest):
                self._torn = self._rest[written - 1] != _LINE_END
                self._rest = self._rest[written:]
            else:
                self._torn = False
                self._rest = b""
            self._done += written

    def _take(self) -> bytes:
        lines = []
        size = 0
        while self._lines and size < self._batch:
            line = self._lines.popleft()
            lines.append(line)
            size += len(line)
        return b"".join(lines)

    def _complain(self, error: OSError) -> None:
        now = time.monotonic()
        if now - self._complained < self._complain_every:
            return
        self._complained = now
        _log.error(
            "access log {path}: {reason}; {waiting} bytes wait",
            path=self.name,
            reason=error.strerror or error,
            waiting=self._accepted - self._done,
        )

    def _tell_dropped(self) -> None:
        if self._accepted - self._done > self._capacity // 2:
            return  # told once the queue moves again
        dropped = self._dropped
        _log.warn(
            "access log {path}: {lines} lines were dropped since the queue was full",
            path=self.name,
            lines=dropped - self._dropped_told,
        )
        self._dropped_told = dropped
