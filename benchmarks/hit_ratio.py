"""Hit ratio of the memory store beside that of LRU, over traces of the shape that web caches see.

    python benchmarks/hit_ratio.py

A trace has requests for 100,000 objects by a zipf distribution, and between them scans: crawlers, backups, builds that
ask for objects that nobody asked for before or will again, each once. Sizes are log-normal (median 4 KiB, a tail of
some MiB; what is more than 1 MiB is stored by neither) and have nothing to do with popularity. Both caches have the
same capacity, a part of the bytes of all objects, and count the same bytes for an object: those that the memory store
counts. Hits count where they are of objects that come again; a hit ratio over all requests is lower for both. The same
seed makes the same trace.
"""

from __future__ import annotations

import argparse
import bisect
import itertools
import math
import random
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from twisted_wasmproxy.cache.entry import StoredHead
from twisted_wasmproxy.cache.stores.memory import MemoryStore, charge
from twisted_wasmproxy.http.headers import Headers

OBJECTS = 100_000
MEDIAN = 4 * 1024
SIGMA = 1.5
LARGEST = 1024 * 1024
CONTENT = bytes(LARGEST)


@dataclass(frozen=True)
class Shape:
    alpha: float
    """Of the zipf distribution: the object of rank n is asked for in proportion to n ** -alpha."""
    scanned: float
    """Part of all requests that belongs to scans."""
    scan: int = 2_000
    """Requests of one scan, one after another but for the others in between."""
    capacity: float = 0.05
    """Of the store, as part of the bytes of all objects."""


SHAPES = [
    Shape(alpha, scanned, capacity=capacity)
    for capacity in (0.02, 0.1)
    for alpha in (0.8, 0.9, 1.0)
    for scanned in (0.0, 0.3)
]


def head(number: int, size: int) -> StoredHead:
    url = b"http://www.example.com/%d" % number
    headers = Headers([(b"Cache-Control", b"max-age=3600"), (b"Content-Length", b"%d" % size), (b"ETag", b'"1"')])
    return StoredHead(url, url, 200, b"OK", headers, 0.0, 0.0, length=size)


class Memory:
    """The store as the proxy uses it."""

    def __init__(self, capacity: int) -> None:
        self._store = MemoryStore(capacity, LARGEST)

    def request(self, head: StoredHead, size: int) -> bool:
        """Ask for an object, and store it if it is not there; return whether it was."""
        for stored in self._store.lookup(head.key):
            stored.used()
            return True
        writer = self._store.create(head, size, None, 0)
        if writer is not None:
            writer.write(CONTENT[:size])
            writer.commit(head)
        return False


class LRU:
    """The least recently used goes."""

    def __init__(self, capacity: int) -> None:
        self._room = capacity
        self._charges: OrderedDict[bytes, int] = OrderedDict()

    def request(self, head: StoredHead, size: int) -> bool:
        if head.key in self._charges:
            self._charges.move_to_end(head.key)
            return True
        if size <= LARGEST:
            self._charges[head.key] = size + charge(head)
            self._room -= self._charges[head.key]
            while self._room < 0:
                self._room += self._charges.popitem(last=False)[1]
        return False


def trace(shape: Shape, requests: int, seed: int) -> Iterator[int]:
    """Yield numbers of objects; below zero for what a scan asks for."""
    chance = random.Random(seed)
    weights = list(itertools.accumulate(rank**-shape.alpha for rank in range(1, OBJECTS + 1)))
    # A scan makes half of the requests while it goes on.
    begin = shape.scanned / shape.scan / (1 - shape.scanned)
    left, scanned = 0, 0
    for _ in range(requests):
        if left == 0 and chance.random() < begin:
            left = shape.scan
        if left and chance.random() < 0.5:
            left -= 1
            scanned += 1
            yield -scanned
        else:
            yield bisect.bisect_left(weights, chance.random() * weights[-1])


def replay(shape: Shape, requests: int, seed: int) -> tuple[float, float]:
    """Return the hit ratios of the memory store and of LRU, from 0 to 1; the first fifth of the requests only warms."""
    chance = random.Random(seed)
    sizes = [int(chance.lognormvariate(math.log(MEDIAN), SIGMA)) for _ in range(OBJECTS)]
    capacity = int(shape.capacity * sum(sizes))
    memory, lru = Memory(capacity), LRU(capacity)
    hits = [0, 0]
    for i, number in enumerate(trace(shape, requests, seed)):
        size = sizes[number % OBJECTS]
        wanted = head(number, size)
        found = memory.request(wanted, size), lru.request(wanted, size)
        if i >= requests // 5:
            hits[0] += found[0]
            hits[1] += found[1]
    counted = requests - requests // 5
    return hits[0] / counted, hits[1] / counted


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--requests", type=int, default=500_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    print(f"Hit ratio of the memory store and of LRU: {OBJECTS:,} objects, {options.requests:,} requests")
    print(f"  {'capacity':>8}{'zipf':>6}{'scans':>7}{'memory':>9}{'LRU':>8}{'points':>8}")
    for shape in SHAPES:
        memory, lru = replay(shape, options.requests, options.seed)
        print(
            f"  {shape.capacity:>8.0%}{shape.alpha:>6}{shape.scanned:>7.0%}{memory:>9.1%}{lru:>8.1%}"
            f"{100 * (memory - lru):>+8.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
