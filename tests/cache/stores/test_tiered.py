"""Memory before disk: the contract, and what it promises of both together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cache.stores.contract import *  # noqa: F403  # the contract's tests are to run here
from tests.cache.stores.driver import Driver
from tests.support.reactor import run, started_reactor
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
