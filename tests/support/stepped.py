"""The wall clock of a proxy under test, to be set forwards and back while it runs."""

from __future__ import annotations

import os
import struct
from pathlib import Path

__all__ = ["SteppedClock"]


class SteppedClock:
    """The wall clock of the processes that are started with `environment`."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self._file.write_bytes(struct.pack("d", 0.0))
        path = [str(Path(__file__).with_name("clock")), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path), "STEPPED_CLOCK": str(self._file)}

    def step(self, seconds: float) -> None:
        """Set the clock `seconds` forwards, or back if negative."""
        with self._file.open("r+b") as file:
            (offset,) = struct.unpack("d", file.read(8))
            file.seek(0)
            file.write(struct.pack("d", offset + seconds))
