"""The store on disk, and memory before disk, beside a dict under random operations; and a store on disk that is closed
or dies in between."""

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.cache.stores.disk_audit import audit
from tests.cache.stores.driver import Driver
from tests.cache.stores.machine import StoreMachine, heads, selected, selections
from tests.support.reactor import call, run, started_reactor
from twisted_wasmproxy.cache.entry import Selection, StoredHead
from twisted_wasmproxy.cache.stores.disk import DiskStore
from twisted_wasmproxy.cache.stores.memory import MemoryStore
from twisted_wasmproxy.cache.stores.tiered import TieredStore
from twisted_wasmproxy.config.model import DiskCacheConfig

MIB = 1024 * 1024
SIZE = 16 * MIB
MAP = 128 * MIB


class DiskMachine(StoreMachine):
    def make(self) -> Driver:
        self.folder = Path(tempfile.mkdtemp(prefix="disk-model-"))
        return Driver(DiskStore(DiskCacheConfig(self.folder, SIZE), started_reactor()), run, SIZE // 4)

    def teardown(self) -> None:
        super().teardown()
        totals = audit(self.folder, MAP)
        assert totals.pending == 0
        shutil.rmtree(self.folder)


TestDiskStore = DiskMachine.TestCase
TestDiskStore.settings = settings(max_examples=15, stateful_step_count=25, deadline=None)


class TieredMachine(StoreMachine):
    def make(self) -> Driver:
        self.folder = Path(tempfile.mkdtemp(prefix="tiered-model-"))
        disk = DiskStore(DiskCacheConfig(self.folder, SIZE), started_reactor())
        return Driver(TieredStore(MemoryStore(MIB, 1000), disk, 1000), run, SIZE // 4)

    def teardown(self) -> None:
        super().teardown()
        audit(self.folder, MAP)
        shutil.rmtree(self.folder)


TestTieredStore = TieredMachine.TestCase
TestTieredStore.settings = settings(max_examples=15, stateful_step_count=25, deadline=None)


class RestartMachine(RuleBasedStateMachine):
    """Sizes here go over several chunks."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="restart-model-"))
        self.model: dict[Any, tuple[StoredHead, bytes]] = {}
        self.writers: list[Any] = []
        self.open()

    def open(self) -> None:
        self.store = Driver(DiskStore(DiskCacheConfig(self.folder, SIZE), started_reactor()), run, SIZE // 4)
        self.store.start()

    def teardown(self) -> None:
        self.store.stop()
        shutil.rmtree(self.folder)

    @rule(head=heads, size=st.sampled_from([0, 1, 5000, 65_472, 65_473, 200_000]), seed=st.integers(0, 1000))
    def save(self, head: StoredHead, size: int, seed: int) -> None:
        content = random.Random(seed).randbytes(size)
        head = head.replaced(length=size)
        self.store.save(head, content)
        self.model[head.key, head.vary] = head, content

    @rule(head=heads, size=st.sampled_from([1, 65_472, 300_000]))
    def begin(self, head: StoredHead, size: int) -> None:
        writer = self.store.create(head)
        self.store.write(writer, bytes(size))
        self.writers.append(writer)

    @rule(data=st.data())
    def update(self, data: st.DataObject) -> None:
        if self.model:
            key, vary = data.draw(st.sampled_from(sorted(self.model, key=repr)))
            head, content = self.model[key, vary]
            (stored,) = [stored for stored in self.store.lookup(key) if stored.head.vary == vary]
            new = head.replaced(surrogate_keys=(b"red",), purged=0.0)
            self.store.update(stored, new)
            self.model[key, vary] = new, content

    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        if self.model:
            key, vary = data.draw(st.sampled_from(sorted(self.model, key=repr)))
            (stored,) = [stored for stored in self.store.lookup(key) if stored.head.vary == vary]
            self.store.remove(stored)
            del self.model[key, vary]

    @rule(selection=selections)
    def purge(self, selection: Selection) -> None:
        gone = [variant for variant, (head, _) in self.model.items() if selected(selection, head)]
        assert self.store.purge(selection) == len(gone)
        for variant in gone:
            del self.model[variant]

    @rule(die=st.booleans())
    def restart(self, die: bool) -> None:
        """Close, or leave everything as it is: what was being written lies there as that of a dead process."""
        if die:
            call(self.store.store._writers.clear)
        self.writers.clear()
        self.store.stop()
        assert (audit(self.folder, MAP).pending > 0) <= die
        self.open()

    @invariant()
    def what_is_found_is_what_was_stored(self) -> None:
        assert self.store.stats()["entries"] == len(self.model)
        for key in {key for key, _ in self.model}:
            expected = {vary: found for (other, vary), found in self.model.items() if other == key}
            found = {stored.head.vary: stored for stored in self.store.lookup(key)}
            assert found.keys() == expected.keys()
            for vary, (head, content) in expected.items():
                assert found[vary].head == head
                assert self.store.content(found[vary]).get(0, b"") == content


TestRestarts = RestartMachine.TestCase
TestRestarts.settings = settings(max_examples=15, stateful_step_count=25, deadline=None)
