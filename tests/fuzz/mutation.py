"""A fuzzer for where there is no other: it changes kept inputs at random, from a seed that can be given again."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence

__all__ = ["MAX_LENGTH", "fuzz", "mutated"]

MAX_LENGTH = 8192
"""Bytes of an input."""

Change = Callable[[bytearray, random.Random, Sequence[bytes], Sequence[bytes]], None]


def fuzz(
    run: Callable[[bytes], None], seeds: Sequence[bytes], words: Sequence[bytes], seconds: float, seed: int, most: int
) -> tuple[int, tuple[bytes, BaseException] | None]:
    """Run mutated inputs for so long, `most` of them at most; return their number, and the first one that failed."""
    chance = random.Random(seed)
    deadline = time.monotonic() + seconds
    count = 0
    while count < most and time.monotonic() < deadline:
        data = mutated(chance, seeds, words)
        count += 1
        try:
            run(data)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            return count, (data, error)
    return count, None


def mutated(chance: random.Random, seeds: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    """Return one of the seeds with up to eight changes."""
    data = bytearray(chance.choice(seeds))
    for _ in range(chance.choice((1, 1, 2, 3, 5, 8))):
        chance.choice(_CHANGES)(data, chance, seeds, words)
        del data[MAX_LENGTH:]
    return bytes(data)


def _flip(data: bytearray, chance: random.Random, seeds: Sequence[bytes], words: Sequence[bytes]) -> None:
    if data:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _byte(data: bytearray, chance: random.Random, seeds: Sequence[bytes], words: Sequence[bytes]) -> None:
    if data:
        data[chance.randrange(len(data))] = (
            chance.choice(b'\0\1\x7f\x80\xff \t\r\n,;:="\\/0159aZ*') if chance.random() < 0.7 else chance.randrange(256)
        )


def _insert(data: bytearray, chance: random.Random, seeds: Sequence[bytes], words: Sequence[bytes]) -> None:
    at = chance.randrange(len(data) + 1)
    data[at:at] = chance.choice(words)


def _overwrite(data: bytearray, chance: random.Random, seeds: Sequence[bytes], words: Sequence[bytes]) -> None:
    word = chance.choice(words)
    at = chance.randrange(len(data) + 1)
    data[at : at + len(word)] = word


def _remove(data: bytearray, chance: random.Random, seeds: Sequence[bytes], words: Sequence[bytes]) -> None:
    if data:
        at = chance.randrange(len(data))
        del data[at : at + chance.choice((1, 1, 2, 4, 16, 64))]


def _repeat(data: bytearray, chance: random.Random, seeds: Sequence[bytes], words: Sequence[bytes]) -> None:
    at = chance.randrange(len(data) + 1)
    part = data[at : at + chance.choice((1, 2, 4, 8, 32))]
    data[at:at] = part * chance.choice((1, 1, 2, 10, 100))


def _cut(data: bytearray, chance: random.Random, seeds: Sequence[bytes], words: Sequence[bytes]) -> None:
    del data[chance.randrange(len(data) + 1) :]


def _cross(data: bytearray, chance: random.Random, seeds: Sequence[bytes], words: Sequence[bytes]) -> None:
    other = chance.choice(seeds)
    start = chance.randrange(len(other) + 1)
    at = chance.randrange(len(data) + 1)
    data[at:] = other[start:]


_CHANGES: tuple[Change, ...] = (
    _flip,
    _byte,
    _byte,
    _insert,
    _insert,
    _insert,
    _overwrite,
    _remove,
    _repeat,
    _cut,
    _cross,
)
