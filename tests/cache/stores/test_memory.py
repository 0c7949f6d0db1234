"""The store in memory: the contract of all stores, and what this one promises beside: bounds, and what it evicts."""

from __future__ import annotations

import contextlib
import gc
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from tests.cache.stores.contract import *  # noqa: F403  # the contract's tests are to run here
from tests.cache.stores.driver import Driver
from tests.cache.support import head
from twisted_wasmproxy.cache.entry import Selection, StoredHead, StoreFull
from twisted_wasmproxy.cache.stores.memory import MemoryStore
from twisted_wasmproxy.http.headers import Headers

KIB = 1024
MIB = 1024 * 1024


def at_once(function: Callable[[], Any]) -> Any:
    """Call: nothing takes a while."""
    result = function()
    assert not isinstance(result, Deferred)
    return result


@pytest.fixture
def store() -> Driver:
    driver = Driver(MemoryStore(16 * MIB, 4 * MIB), at_once, 4 * MIB)
    driver.start()
    return driver


class Growth:
    bytes = 0


@contextmanager
def measured() -> Iterator[Growth]:
    """Measure by how much what Python has allocated grows in between."""
    growth = Growth()
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        yield growth
        gc.collect()
        growth.bytes = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


def save(store: MemoryStore, given: StoredHead, content: bytes = b"x") -> None:
    writer = store.create(given, len(content), None, 0)
    assert writer is not None
    writer.write(content)
    writer.commit(given.replaced(length=len(content)))


def lines(count: int, i: int) -> list[tuple[bytes, bytes]]:
    return [(b"X-Field-%d" % n, b"value %d of %d" % (n, i)) for n in range(count)]


# Bounds


@pytest.mark.parametrize(
    "make",
    [
        lambda i: head(b"http://h/%d" % i, []),
        lambda i: head(b"http://h/%d" % i, lines(12, i)),
        lambda i: head(b"http://h/%d" % i, lines(2, i), surrogate_keys=tuple(b"%d-%d" % (i, n) for n in range(20))),
        lambda i: head(b"http://h/%d" % i, [], vary=tuple((b"x-%d" % n, b"%d" % i) for n in range(20))),
        lambda i: head(b"http://h/%d" % (i // 60), [], vary=((b"accept", b"%d" % i),)),
        lambda i: head(b"http://h/%d" % i, [], trailers=Headers(lines(12, i))),
    ],
    ids=["bare", "fields", "surrogate keys", "vary", "variants", "trailers"],
)
def test_heads_count_for_what_they_take(make: Callable[[int], StoredHead]) -> None:
    capacity = 4 * MIB
    with measured() as growth:
        store = MemoryStore(capacity, capacity)
        i = 0
        while store.stats()["evictions"] < 500:
            save(store, make(i))
            i += 1
    assert 0.45 * capacity < growth.bytes < 1.1 * capacity


def test_content_counts_for_what_it_takes() -> None:
    capacity = 8 * MIB
    with measured() as growth:
        store = MemoryStore(capacity, capacity)
        for i in range(300):
            save(store, head(b"http://h/%d" % i), bytes(100_000))
    assert 0.8 * capacity < growth.bytes < 1.05 * capacity


def test_scattered_parts_count_for_what_they_take() -> None:
    capacity = MIB // 2
    with measured() as growth:
        store = MemoryStore(capacity, capacity)
        for i in range(50):
            base = None
            for start in range(0, 160, 2):
                writer = store.create(head(b"http://h/%d" % i, [], length=1000), 1, base, start)
                assert writer is not None
                writer.write(b"%d" % (i % 10))
                base = writer.commit(writer.head)
    assert store.stats()["evictions"]
    assert 0.4 * capacity < growth.bytes < 1.1 * capacity


def test_what_has_very_many_parts_is_not_added_to() -> None:
    store = MemoryStore(MIB, MIB)
    base = None
    for start in range(0, 10_000, 2):
        writer = store.create(head(length=10_000), 1, base, start)
        if writer is None:
            break
        writer.write(b"x")
        base = writer.commit(writer.head)
    assert base is not None
    assert 100 <= len(base.parts) <= 1000


@pytest.mark.parametrize("size", [1, 5000, 300 * KIB])
def test_what_is_being_written_is_bounded_and_leaves_half_of_the_store(size: int) -> None:
    capacity = 8 * MIB
    store = MemoryStore(capacity, 4 * MIB)
    for i in range(100):
        save(store, head(b"http://h/%d" % i), bytes(50_000))
    entries = store.stats()["entries"]
    writers = []
    with measured() as growth:
        for i in range(100_000):
            writer = store.create(head(b"http://w/%d" % i), None, None, 0)
            if writer is None:
                break
            writers.append(writer)
            with contextlib.suppress(StoreFull):
                writer.write(b"%d" % i + bytes(size))
    assert 10 < len(writers) < 10_000
    assert growth.bytes < 0.6 * capacity
    assert store.stats()["writing"] <= capacity // 2
    assert store.stats()["entries"] > entries // 3
    del writer
    while writers:
        writers.pop().abort()
    assert store.stats()["writing"] == 0
    save(store, head(b"http://w/again"))
    assert len(store.lookup(b"http://w/again")) == 1


def test_many_writers_that_grow_are_told_when_it_is_full() -> None:
    capacity = 8 * MIB
    store = MemoryStore(capacity, 4 * MIB)
    with measured() as growth:
        writers = [store.create(head(b"http://h/%d" % i), None, None, 0) for i in range(50)]
        full = 0
        for _ in range(100):
            for writer in list(writers):
                assert writer is not None
                try:
                    writer.write(bytes(bytearray(8000)))
                except StoreFull:
                    full += 1
                    writers.remove(writer)
                    writer.abort()
    assert 0 < full < 50
    assert growth.bytes < 0.6 * capacity


def test_content_in_very_many_tiny_pieces_takes_little_more_than_its_bytes() -> None:
    store = MemoryStore(16 * MIB, 8 * MIB)
    pieces = [bytes([i]) for i in range(256)]
    with measured() as growth:
        writer = store.create(head(), None, None, 0)
        assert writer is not None
        for i in range(250_000):
            writer.write(pieces[i % 256])
    assert growth.bytes < 1.2 * 250_000
    for start in (0, 1000, 123_456, 249_999):
        assert writer.available(start) == 250_000 - start
        assert writer.read(start, 1) == pieces[start % 256]
    assert writer.commit(head(length=250_000)).body == bytes(range(256)) * 976 + bytes(range(144))


def test_all_memory_comes_back() -> None:
    with measured() as growth:
        store = MemoryStore(8 * MIB, MIB)
        for i in range(3000):
            save(store, head(b"http://h/%d" % i, lines(5, i), surrogate_keys=(b"%d" % i,)))
        store.purge(Selection(), False)
        for i in range(20):
            store.create(head(b"http://h/%d" % i), None, None, 0)
        store.stop()
    assert growth.bytes < 64 * KIB
    stats = store.stats()
    assert (stats["entries"], stats["bytes"], stats["writing"]) == (0, 0, 0)


def test_a_store_without_capacity_keeps_nothing() -> None:
    assert MemoryStore(0, 0).create(head(), 0, None, 0) is None


def test_a_whole_block_is_read_without_a_copy() -> None:
    store = MemoryStore(16 * MIB, 8 * MIB)
    save(store, head(), bytes(4 * MIB))
    (stored,) = store.lookup(b"http://h/")
    assert stored.body is None
    assert stored.read(0, 8 * MIB) is stored.read(0, 8 * MIB)
    save(store, head(), bytes(MIB))
    (stored,) = store.lookup(b"http://h/")
    assert stored.read(0, MIB) is stored.body


# Eviction


def test_one_pass_over_cold_objects_spares_the_hot_ones() -> None:
    capacity = 8 * MIB
    size = 16 * KIB
    store = MemoryStore(capacity, MIB)
    hot = [b"http://hot/%d" % i for i in range(capacity // size // 2)]
    for _ in range(3):
        for key in hot:
            for stored in store.lookup(key):
                stored.used()
            if not store.lookup(key):
                save(store, head(key), bytes(size))
    assert all(store.lookup(key) for key in hot)
    for i in range(5 * capacity // size):
        save(store, head(b"http://cold/%d" % i), bytes(size))
    assert sum(bool(store.lookup(key)) for key in hot) > 0.95 * len(hot)


def test_what_comes_back_soon_after_its_eviction_stays() -> None:
    capacity = 8 * MIB
    size = 16 * KIB
    store = MemoryStore(capacity, MIB)
    for i in range(2 * capacity // size):
        save(store, head(b"http://h/%d" % i), bytes(size))
    late = next(i for i in range(2 * capacity // size) if store.lookup(b"http://h/%d" % i)) - 1
    back = b"http://h/%d" % late
    save(store, head(back), bytes(size))
    for i in range(capacity // size):
        save(store, head(b"http://cold/%d" % i), bytes(size))
    assert store.lookup(back)


def test_a_fresher_response_inherits_the_uses_of_its_predecessor() -> None:
    capacity = 8 * MIB
    size = 16 * KIB
    store = MemoryStore(capacity, MIB)
    for how in (b"updated", b"replaced", b"marked"):
        save(store, head(b"http://h/" + how), bytes(size))
        for _ in range(3):
            store.lookup(b"http://h/" + how)[0].used()
    (updated,) = store.lookup(b"http://h/updated")
    store.update(updated, updated.head.replaced(status=203))
    save(store, head(b"http://h/replaced"), bytes(size))
    store.purge(Selection(url=b"http://h/marked"), soft=True)
    for i in range(3 * capacity // size):
        save(store, head(b"http://cold/%d" % i), bytes(size))
    assert all(store.lookup(b"http://h/" + how) for how in (b"updated", b"replaced", b"marked"))


def test_of_too_many_variants_the_least_used_goes() -> None:
    store = MemoryStore(8 * MIB, MIB)
    for i in range(64):
        save(store, head(vary=((b"accept", b"%d" % i),)))
    for stored in store.lookup(b"http://h/"):
        if stored.head.vary != ((b"accept", b"20"),):
            stored.used()
    save(store, head(vary=((b"accept", b"new"),)))
    kept = {stored.head.vary[0][1] for stored in store.lookup(b"http://h/")}
    assert kept == {b"%d" % i for i in range(64)} - {b"20"} | {b"new"}
    assert store.stats()["evictions"] == 1
