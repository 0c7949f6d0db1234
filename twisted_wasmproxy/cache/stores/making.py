"""`make_store`: the store of a configuration."""

from __future__ import annotations

from typing import Any

from twisted_wasmproxy.cache.stores.disk import DiskStore
from twisted_wasmproxy.cache.stores.memory import MemoryStore
from twisted_wasmproxy.cache.stores.plugins import plugin_store
from twisted_wasmproxy.cache.stores.tiered import TieredStore
from twisted_wasmproxy.config.model import CacheConfig
from twisted_wasmproxy.interfaces import ICacheStore

__all__ = ["make_store", "same_folder", "same_store"]


def make_store(config: CacheConfig, reactor: Any) -> ICacheStore:
    """Return a store, not started. Raises StoreError with a text for the operator."""
    if config.store is not None:
        return plugin_store(config.store, reactor)
    largest = config.memory_object or config.memory // 8
    memory = MemoryStore(config.memory, largest)
    if config.disk is None:
        return memory
    disk = DiskStore(config.disk, reactor)
    return TieredStore(memory, disk, largest) if config.memory else disk


def same_store(one: CacheConfig, other: CacheConfig) -> bool:
    """Say whether two configurations want the same store, so that a reload can go on with it."""
    return all(getattr(one, name) == getattr(other, name) for name in ("memory", "memory_object", "disk", "store"))


def same_folder(one: CacheConfig, other: CacheConfig) -> bool:
    """Say whether both keep a store in the same folder, which only one at a time can have open in a process."""
    return one.disk is not None and other.disk is not None and one.disk.path == other.disk.path
