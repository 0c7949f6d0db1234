"""The store in memory beside a dict, under random operations."""

from __future__ import annotations

from hypothesis import settings

from tests.cache.stores.driver import Driver
from tests.cache.stores.machine import StoreMachine
from tests.cache.stores.test_memory import at_once
from twisted_wasmproxy.cache.stores.memory import MemoryStore


class MemoryMachine(StoreMachine):
    def make(self) -> Driver:
        return Driver(MemoryStore(1 << 24, 1 << 20), at_once, 1 << 20)


TestMemoryStore = MemoryMachine.TestCase
TestMemoryStore.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
