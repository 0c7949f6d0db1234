"""The store in memory: the contract, and its own promises about memory, eviction and speed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from tests.cache.stores.contract import *  # noqa: F403  # the contract's tests are to run here
from tests.cache.stores.driver import Driver
from twisted_wasmproxy.cache.stores.memory import MemoryStore

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
