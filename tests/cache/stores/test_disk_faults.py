"""Damage, full disks and wrong folders: the store says so once, and what it still finds is right."""

from __future__ import annotations

import random
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lmdb
import pytest
from twisted.logger import globalLogPublisher

from tests.cache.stores.contract import noise
from tests.cache.stores.disk_audit import audit
from tests.cache.stores.driver import Driver, until
from tests.cache.support import head
from tests.support.reactor import run, started_reactor
from twisted_wasmproxy.cache.entry import Selection, StoreError
from twisted_wasmproxy.cache.stores.disk import DiskStore
from twisted_wasmproxy.cache.stores.disk_layout import CHUNK
from twisted_wasmproxy.cache.stores.memory import MemoryStore
from twisted_wasmproxy.cache.stores.tiered import TieredStore
from twisted_wasmproxy.config.model import DiskCacheConfig

MIB = 1024 * 1024
KEY = b"http://h/"


def opened(path: Path, size: int = 16 * MIB, map_size: int | None = None) -> Driver:
    store = Driver(DiskStore(DiskCacheConfig(path, size), started_reactor(), map_size), run, size // 4)
    store.start()
    return store


@pytest.fixture
def errors() -> Iterator[list[str]]:
    """Lines of errors in the log."""
    lines: list[str] = []

    def observe(event: Any) -> None:
        if event["log_level"].name in ("error", "critical"):
            lines.append(event["log_format"].format(**event))

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """The folder of a closed store with a hundred responses."""
    path = tmp_path / "cache"
    store = opened(path)
    for i in range(100):
        store.save(head(b"http://h/%d" % i), noise(20_000, i))
    store.stop()
    return path


def check_works(path: Path) -> None:
    store = opened(path)
    store.save(head(), b"works")
    assert store.found(KEY)[0][1] == {0: b"works"}
    store.stop()


# At the start


def test_what_was_stored_is_found_after_a_restart(filled: Path) -> None:
    store = opened(filled)
    assert store.stats()["entries"] == 100
    for i in range(100):
        assert store.found(b"http://h/%d" % i)[0][1] == {0: noise(20_000, i)}
    store.stop()


@pytest.mark.parametrize("damage", ["garbage", "empty", "short", "first page only", "magic", "other version"])
def test_a_damaged_store_is_begun_anew_with_an_error(filled: Path, errors: list[str], damage: str) -> None:
    data = filled / "data.mdb"
    size = data.stat().st_size
    if damage == "garbage":
        data.write_bytes(random.Random(1).randbytes(size))
    elif damage == "empty":
        data.write_bytes(b"")
    elif damage == "short":
        with data.open("r+b") as file:
            file.truncate(size // 3)
    elif damage == "first page only":
        with data.open("r+b") as file:
            file.truncate(4096)
    elif damage == "magic":
        with data.open("r+b") as file:
            for page in (0, 4096):
                file.seek(page + 16)
                file.write(b"\0\0\0\0")
    else:
        with lmdb.open(str(filled), map_size=64 * MIB, max_dbs=16) as environment, environment.begin(write=True) as txn:
            txn.put(b"magic", b"twisted-wasmproxy cache 0", db=environment.open_db(b"meta", txn=txn))
    store = opened(filled)
    assert store.stats()["entries"] == 0
    if damage != "empty":  # which is a new one
        (line,) = errors
        assert str(filled) in line
        assert "deleted" in line
    store.save(head(), b"works")
    store.stop()
    check_works(filled)


def test_a_file_short_of_its_last_pages_ends_no_process(filled: Path) -> None:
    with (filled / "data.mdb").open("r+b") as file:
        file.truncate(file.seek(0, 2) - 4096)
    store = opened(filled)
    for i in range(100):
        assert store.found(b"http://h/%d" % i) in (
            [],
            [(head(b"http://h/%d" % i, length=20_000), {0: noise(20_000, i)})],
        )
    store.stop()
    check_works(filled)


def test_damaged_content_is_not_given_out_and_removed(filled: Path, errors: list[str]) -> None:
    data = filled / "data.mdb"
    content = bytearray(data.read_bytes())
    victim = noise(20_000, 7)[5000:5100]
    at = content.index(victim)
    content[at + 50] ^= 1
    data.write_bytes(content)
    store = opened(filled)
    for i in range(100):
        found = store.found(b"http://h/%d" % i)
        assert found == [] if i == 7 else found[0][1] == {0: noise(20_000, i)}
    assert store.stats()["entries"] == 99
    assert len(errors) == 1
    store.stop()
    audit(filled, 128 * MIB)


def test_damage_in_a_streamed_body_fails_the_read_and_removes_it(tmp_path: Path, errors: list[str]) -> None:
    path = tmp_path / "cache"
    body = noise(3 * MIB)
    store = opened(path)
    store.save(head(), body)
    store.stop()
    content = bytearray((path / "data.mdb").read_bytes())
    at = content.index(body[20 * CHUNK : 20 * CHUNK + 100])
    content[at] ^= 0x80
    (path / "data.mdb").write_bytes(content)
    store = opened(path)
    (stored,) = store.lookup(KEY)
    assert store.read_all(stored, 0, 20 * CHUNK) == body[: 20 * CHUNK]
    with pytest.raises(StoreError):
        store.read(stored, 20 * CHUNK, 100)
    until(lambda: not store.lookup(KEY))
    assert len(errors) == 1
    store.stop()


def test_damaged_heads_are_as_if_they_were_not_there(filled: Path) -> None:
    content = bytearray((filled / "data.mdb").read_bytes())
    at = -1
    while (at := content.find(b"max-age=60", at + 1)) != -1:
        content[at] ^= 1
    (filled / "data.mdb").write_bytes(content)
    store = opened(filled)
    for i in range(100):
        assert list(store.lookup(b"http://h/%d" % i)) == []
    until(lambda: store.stats()["entries"] == 0)
    store.save(head(b"http://h/1"), b"new")
    assert store.found(b"http://h/1")[0][1] == {0: b"new"}
    store.stop()


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    with lmdb.open(str(tmp_path), max_dbs=4) as environment, environment.begin(write=True) as txn:
        txn.put(b"precious", b"data")
    before = (tmp_path / "data.mdb").read_bytes()
    with pytest.raises(StoreError, match="another program") as error:
        opened(tmp_path)
    assert str(tmp_path) in str(error.value)
    assert (tmp_path / "data.mdb").read_bytes() == before


def test_a_data_file_that_is_nobodys_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_bytes(b"my diary\n" * 1000)
    with pytest.raises(StoreError, match="not a cache of this proxy"):
        opened(tmp_path)
    assert (tmp_path / "data.mdb").read_bytes() == b"my diary\n" * 1000


def test_a_path_that_cannot_be_a_folder_is_an_error_with_its_cause(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match=r"disk cache .*/file/cache: Not a directory"):
        opened(tmp_path / "file" / "cache")


def test_memory_goes_on_alone_when_the_disk_cannot_be_started(tmp_path: Path, errors: list[str]) -> None:
    (tmp_path / "file").write_text("x")
    disk = DiskStore(DiskCacheConfig(tmp_path / "file", MIB), started_reactor())
    store = Driver(TieredStore(MemoryStore(MIB, MIB // 4), disk, MIB // 4), run, MIB // 4)
    store.start()
    (line,) = errors
    assert str(tmp_path / "file") in line
    store.save(head(), b"content")
    assert store.found(KEY)[0][1] == {0: b"content"}
    assert store.purge(Selection()) == 1
    store.stop()


# In use


def fill(store: Driver, count: int, size: int = 200_000) -> int:
    """Store until something goes wrong; return how many are stored."""
    for i in range(count):
        writer = store.create(head(b"http://h/%d" % i))
        if writer is None:
            return i
        try:
            store.write(writer, noise(size, i))
            store.commit(writer, head(b"http://h/%d" % i, length=size))
        except StoreError as error:
            assert "disk cache" in str(error)  # noqa: PT017  # what it says is the point
            store.abort(writer)
            return i
    return count


def test_a_full_disk_stops_storing_with_one_error_and_reading_goes_on(tmp_path: Path, errors: list[str]) -> None:
    path = tmp_path / "cache"
    store = opened(path, 64 * MIB)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6 * MIB, before[1]))
    try:
        kept = fill(store, 1000)
        assert 10 < kept < 40
        assert fill(store, 10) == 0
        (line,) = errors
        assert str(path) in line
        for i in range(kept):
            assert store.found(b"http://h/%d" % i)[0][1] == {0: noise(200_000, i)}
        assert store.purge(Selection(url=b"http://h/0")) == 1
        assert list(store.lookup(b"http://h/0")) == []
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    run(lambda: store.store._thread.__setattr__("_full_since", 0.0))  # a minute later
    assert fill(store, 50) == 50
    assert len(errors) == 1
    store.stop()
    audit(path, 128 * MIB)


def test_a_file_that_may_not_grow_as_it_should_keeps_less(tmp_path: Path, errors: list[str]) -> None:
    path = tmp_path / "cache"
    store = opened(path, 32 * MIB, map_size=12 * MIB)
    stored = 0
    for i in range(300):
        stored += fill(store, 1)
        assert len(store.lookup(b"http://h/0")) == 1 or stored < i + 1
        store.save(head(b"http://small/%d" % i), b"small")
    assert stored > 250
    assert errors == []
    for i in range(300):
        for _, content in store.found(b"http://small/%d" % i):
            assert content == {0: b"small"}
    store.stop()
    audit(path, 12 * MIB)


def test_a_store_that_is_made_smaller_evicts_and_stays_as_large_as_it_should(tmp_path: Path) -> None:
    store = opened(tmp_path, 32 * MIB)
    assert fill(store, 140) == 140
    store.stop()
    for _ in range(3):
        store = opened(tmp_path, 8 * MIB, map_size=10 * MIB)
        assert fill(store, 60) == 60
        until(lambda store=store: store.stats()["bytes"] <= 8 * MIB)
        assert store.stats()["entries"] > 30
        store.purge(Selection())
        store.stop()


def test_what_is_held_may_fill_a_file_and_leaves_room_when_it_is_released(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    store = opened(path, 32 * MIB, map_size=8 * MIB)
    held = []
    while fill(store, 1):
        held += store.lookup(b"http://h/0")
        store.hold(held[-1])
        assert len(held) < 40
    for stored in held:
        assert store.content(stored)[0] == noise(200_000, 0)
    for stored in held:
        store.release(stored)
    until(lambda: fill(store, 1) == 1)
    store.stop()
    audit(path, 8 * MIB)


def test_after_a_fault_nothing_is_found_or_kept_and_the_log_says_so_once(filled: Path, errors: list[str]) -> None:
    store = opened(filled)
    (stored,) = store.lookup(b"http://h/1")
    writer = store.create(head())
    store.write(writer, b"begun")
    run(lambda: store.store._fault("broken"))
    run(lambda: store.store._fault("broken again"))
    assert list(store.lookup(b"http://h/1")) == []
    assert store.create(head()) is None
    assert list(store.entries()) == []
    assert store.update(stored, stored.head).head == stored.head
    with pytest.raises(StoreError, match="broken"):
        store.write(writer, b"more")
    assert store.read(writer, 0, 10) == b"begun"
    with pytest.raises(StoreError, match="broken"):
        store.commit(writer, head(length=5))
    store.abort(writer)
    with pytest.raises(StoreError):
        store.purge(Selection())
    store.call(lambda: store.store.remove(stored))
    assert "broken" in store.stats()["trouble"]
    assert len(errors) == 1
    store.stop()


@pytest.mark.parametrize("table", ["blobs", "meta", "order"])
def test_rows_of_the_wrong_kind_are_a_fault_and_not_silence(filled: Path, errors: list[str], table: str) -> None:
    store = opened(filled)
    environment = store.store._folder.environment
    with environment.begin(write=True) as txn:
        for key, _ in list(txn.cursor(getattr(store.store._folder.index, table))):
            txn.put(key, b"odd", db=getattr(store.store._folder.index, table))
    for i in range(100):
        for stored in store.lookup(b"http://h/%d" % i):
            store.call(lambda stored=stored: store.store.remove(stored))
    writer = store.create(head())
    if writer is not None:
        try:
            store.commit(writer, head(length=0))
        except StoreError:
            store.abort(writer)
    store.stats()
    assert len(errors) == (table != "order")
    store.stop()
