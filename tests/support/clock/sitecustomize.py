"""Makes the wall clock of a process one that a test steps, see `tests.support.stepped`; monotonic clocks go on."""

import mmap
import os
import struct
import time

with open(os.environ["STEPPED_CLOCK"], "rb") as _file:
    _offset = mmap.mmap(_file.fileno(), 8, prot=mmap.PROT_READ)

_time, _time_ns = time.time, time.time_ns


def _stepped() -> float:
    return _time() + struct.unpack("d", _offset[:8])[0]


def _stepped_ns() -> int:
    return _time_ns() + int(struct.unpack("d", _offset[:8])[0] * 1e9)


time.time, time.time_ns = _stepped, _stepped_ns
