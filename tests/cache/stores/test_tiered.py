"""Memory before disk: the contract, and what it promises of both together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from tests.cache.stores.contract import *  # noqa: F403  # the contract's tests are to run here
from tests.cache.stores.contract import KEY, noise, variant
from tests.cache.stores.driver import Driver, until
from tests.cache.support import head
from tests.support.reactor import call, run, started_reactor
from twisted_wasmproxy.cache.entry import Selection
from twisted_wasmproxy.cache.stores import tiered_response
from twisted_wasmproxy.cache.stores.disk import DiskStore
from twisted_wasmproxy.cache.stores.memory import MemoryStore
from twisted_wasmproxy.cache.stores.tiered import TieredStore
from twisted_wasmproxy.config.model import DiskCacheConfig

MIB = 1024 * 1024


def opened(path: Path, memory: int = 2 * MIB, memory_largest: int = MIB // 2) -> Driver:
    disk = DiskStore(DiskCacheConfig(path, 16 * MIB, 4 * MIB), started_reactor())
    driver = Driver(TieredStore(MemoryStore(memory, memory_largest), disk, memory_largest), run, 4 * MIB)
    driver.start()
    return driver


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Driver]:
    driver = opened(tmp_path / "cache")
    yield driver
    driver.stop()


def at_once(store: Driver, key: bytes = KEY) -> Any:
    """Return what a lookup returns in the same call, None if that is a Deferred."""
    (result,) = call(lambda: (store.store.lookup(key),))
    return None if isinstance(result, Deferred) else result


def restarted(store: Driver, path: Path) -> Driver:
    store.stop()
    return opened(path)


def test_what_is_small_is_found_in_the_same_call_and_again_after_a_restart(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.save(head(), b"small")
    (stored,) = at_once(store)
    assert stored.body == b"small"
    store = restarted(store, tmp_path)
    assert at_once(store) is None
    (stored,) = store.lookup(KEY)
    assert stored.body == b"small"
    assert at_once(store) is None
    store.used(stored)
    (stored,) = at_once(store)
    assert stored.body == b"small"
    store.stop()


@pytest.mark.parametrize(("size", "copied"), [(0, True), (100_000, True), (MIB // 2, True), (MIB // 2 + 1, False)])
def test_what_is_used_from_disk_is_copied_into_memory_if_it_is_not_too_large(
    tmp_path: Path, size: int, copied: bool
) -> None:
    store = opened(tmp_path)
    store.save(head(), noise(size))
    store = restarted(store, tmp_path)
    (stored,) = store.lookup(KEY)
    store.used(stored)
    if copied:
        until(lambda: at_once(store) is not None)
        assert store.content(at_once(store)[0]) == {0: noise(size)}
    else:
        assert store.stats()["memory_entries"] == 0
        assert store.found(KEY)[0][1] == {0: noise(size)}
    store.stop()


def test_what_is_purged_or_replaced_while_it_is_copied_does_not_come_back(tmp_path: Path) -> None:
    store = opened(tmp_path)
    for change in (lambda store: store.purge(Selection(url=KEY)), lambda store: store.save(head(), b"new")):
        store.save(head(), noise(MIB // 2))
        store = restarted(store, tmp_path)
        (stored,) = store.lookup(KEY)
        store.used(stored)
        change(store)
        for _ in range(20):
            assert [content[0] for _, content in store.found(KEY)] in ([], [b"new"])
        store.purge(Selection())
    store.stop()


@pytest.mark.parametrize("size", [10, MIB // 2])
@pytest.mark.parametrize("how", ["removed", "purged", "softly purged", "freshened"])
def test_what_was_found_before_a_change_and_is_used_after_it_is_not_copied(tmp_path: Path, how: str, size: int) -> None:
    store = opened(tmp_path)
    store.save(head(), noise(size))
    store = restarted(store, tmp_path)
    (before,) = store.lookup(KEY)
    (same,) = store.lookup(KEY)
    store.hold(before)
    if how == "removed":
        store.remove(same)
    elif how == "freshened":
        store.update(same, same.head.replaced(status=203))
    else:
        assert store.purge(Selection(), soft=how == "softly purged") == 1
    store.used(before)
    store.release(before)
    run(lambda: store.store._disk.read_content(before.inner.entry, 0, 1).addErrback(lambda _: None))
    assert store.stats()["memory_entries"] == 0
    for stored in store.lookup(KEY):
        assert stored.head.status == 203 or stored.head.purged
    store.stop()


def test_what_outgrows_memory_is_read_on_from_where_a_reader_was(tmp_path: Path) -> None:
    store = opened(tmp_path)
    content = noise(3 * MIB)
    writer = store.create(head())
    read = 0
    for start in range(0, len(content), 100_000):
        store.write(writer, content[start : start + 100_000])
        data = store.read(writer, read, 60_000)
        assert data == content[read : read + len(data)]
        read += len(data)
    assert store.stats()["memory_writing"] == 0
    assert store.read_all(writer, read, len(content)) == content[read:]
    store.commit(writer, head(length=len(content)))
    assert at_once(store) is None
    assert store.found(KEY)[0][1] == {0: content}
    store.stop()


def test_memory_goes_ahead_of_a_slow_disk_so_far_and_no_further(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiered_response, "AHEAD", 4 * MIB)
    disk = DiskStore(DiskCacheConfig(tmp_path / "cache", 256 * MIB), started_reactor())
    store = Driver(TieredStore(MemoryStore(64 * MIB, 32 * MIB), disk, 32 * MIB), run, 64 * MIB)
    store.start()
    content = noise(16 * MIB)
    writer = store.create(head(), len(content))
    pieces = [content[start : start + MIB] for start in range(0, len(content), MIB)]
    # In one turn of the reactor, in which the disk cannot say that it has caught up.
    pauses = call(lambda: [writer.write(piece) for piece in pieces])
    assert pauses[0] is None
    assert pauses[-1] is not None
    run(lambda: pauses[-1])
    store.commit(writer, head(length=len(content)))
    assert store.found(KEY)[0][1] == {0: content}
    assert store.stats()["disk_dropped"] == 0
    assert store.stats()["disk_entries"] == 1
    store.stop()


def test_variants_in_memory_and_on_disk_are_found_together_and_then_at_once(tmp_path: Path) -> None:
    store = opened(tmp_path)
    for language in (b"de", b"en", b"fr"):
        store.save(variant(language), language)
    store = restarted(store, tmp_path)
    (wanted,) = [stored for stored in store.lookup(KEY) if stored.head.vary == variant(b"en").vary]
    store.used(wanted)
    store.save(variant(b"it"), b"it")
    store.stats()  # by then it is on disk
    for found in (store.lookup(KEY), at_once(store), at_once(store)):
        assert sorted(store.content(stored)[0] for stored in found) == [b"de", b"en", b"fr", b"it"]
    store.save(variant(b"de"), b"neu")
    assert sorted(store.content(stored)[0] for stored in store.lookup(KEY)) == [b"en", b"fr", b"it", b"neu"]
    store.purge(Selection())
    assert list(store.lookup(KEY)) == []
    store.stop()


def test_what_memory_answers_counts_as_used_on_disk(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.save(head(), b"hot")
    for i in range(400):
        assert at_once(store)[0].body == b"hot"
        at_once(store)[0].used()
        store.save(head(b"http://h/%d" % i), bytes(100_000))
    assert store.stats()["disk_evictions"] > 200
    store = restarted(store, tmp_path)
    assert len(store.lookup(KEY)) == 1
    store.stop()
