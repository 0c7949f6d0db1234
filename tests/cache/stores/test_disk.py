"""The store on disk: the contract, and what it promises of restarts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cache.stores.contract import *  # noqa: F403  # the contract's tests are to run here
from tests.cache.stores.driver import Driver
from tests.support.reactor import run, started_reactor
from twisted_wasmproxy.cache.stores.disk import DiskStore
from twisted_wasmproxy.config.model import DiskCacheConfig

MIB = 1024 * 1024


def opened(path: Path, size: int = 16 * MIB, largest: int = 4 * MIB) -> Driver:
    driver = Driver(DiskStore(DiskCacheConfig(path, size, largest), started_reactor()), run, largest)
    driver.start()
    return driver


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Driver]:
    driver = opened(tmp_path / "cache")
    yield driver
    driver.stop()
