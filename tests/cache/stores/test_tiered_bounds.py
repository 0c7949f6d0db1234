"""What a tiered store keeps beside its two stores is bounded by bytes."""

from __future__ import annotations

from tests.cache.coordinating import MoodyStore
from tests.cache.support import head
from twisted_wasmproxy.cache.entry import StoredHead
from twisted_wasmproxy.cache.stores.memory import MemoryStore
from twisted_wasmproxy.cache.stores.tiered import BEHIND_SIZE, OTHERS_SIZE, TieredStore

MIB = 1024 * 1024


def tiered(late: str) -> tuple[TieredStore, MoodyStore]:
    disk = MoodyStore(512 * MIB, 64 * MIB)
    disk.late = {late}
    disk.gates = {late: []}
    store = TieredStore(MemoryStore(8 * MIB, 2 * MIB), disk, 2 * MIB)
    store.start()
    return store, disk


def save(store: TieredStore, given: StoredHead, content: bytes) -> None:
    writer = store.create(given, len(content), None, 0)
    assert writer is not None
    writer.write(content)
    writer.commit(given.replaced(length=len(content)))


def test_what_waits_for_a_slow_disk_is_bounded_by_bytes() -> None:
    store, disk = tiered("commit")
    size = MIB
    number = BEHIND_SIZE // size + 20
    for i in range(number):
        save(store, head(b"http://h/%d" % i), bytes(size))
    assert len(disk.gates["commit"]) * size <= BEHIND_SIZE
    dropped = number - len(disk.gates["commit"])
    assert store.dropped == dropped > 0
    disk.open("commit")
    disk.late.clear()
    save(store, head(b"http://h/again"), bytes(size))
    assert store.dropped == dropped
    assert len(disk.lookup(b"http://h/again")) == 1


def test_large_heads_count_too() -> None:
    store, disk = tiered("commit")
    for i in range(900):
        save(store, head(b"http://h/%d" % i, [(b"X", bytes(100_000))]), b"x")
    assert len(disk.gates["commit"]) <= BEHIND_SIZE // 200_000


def test_variants_on_disk_are_remembered_by_what_their_heads_take() -> None:
    store, disk = tiered("nothing")
    for number in range(40):
        key = b"http://h/%d" % number
        for language in range(3):
            vary = ((b"accept-language", b"%d" % language),)
            given = head(key, [(b"X", bytes(100_000))], vary=vary, length=1)
            writer = disk.create(given, 1, None, 0)
            writer.write(b"x")
            writer.commit(given)
        writer = store._memory.create(given, 1, None, 0)
        writer.write(b"x")
        writer.commit(given)
        assert len(store.lookup(key)) == 3
    kept = [stored for others in store._others.values() for stored in others]
    assert sum(2 * 100_000 for _ in kept) <= OTHERS_SIZE
    assert kept
