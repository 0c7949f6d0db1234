"""Cutting an input into pieces as a network does, the same way each time for the same input."""

from __future__ import annotations

import random
import zlib
from itertools import pairwise

__all__ = ["cuts"]

_SINGLY = 512
"""Bytes up to which an input is fed byte by byte as well."""


def cuts(data: bytes) -> list[list[bytes]]:
    """Return `data` in several ways to cut it: whole, at two random sets of places, and into single bytes."""
    ways = [[data]]
    chance = random.Random(zlib.crc32(data))
    for most in (2, 12):
        places = sorted({0, len(data), *(chance.randrange(len(data)) for _ in range(most))})
        ways.append([data[start:stop] for start, stop in pairwise(places)])
    if len(data) <= _SINGLY:
        ways.append([data[at : at + 1] for at in range(len(data))])
    return ways
