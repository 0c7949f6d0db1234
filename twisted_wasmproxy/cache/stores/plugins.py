"""Stores that others have written, found through `twisted.plugin`."""

from __future__ import annotations

from typing import Any

from twisted.plugin import getPlugins

from twisted_wasmproxy.cache.entry import StoreError
from twisted_wasmproxy.config.model import CacheStoreConfig
from twisted_wasmproxy.interfaces import ICacheStore, ICacheStoreFactory

__all__ = ["plugin_store"]


def plugin_store(config: CacheStoreConfig, reactor: Any) -> ICacheStore:
    """Return the configured store, not started. Raises StoreError with a text for the operator."""
    factories = list(getPlugins(ICacheStoreFactory))
    for factory in factories:
        if factory.name == config.name:
            try:
                return factory.make(config.configuration, reactor)
            except ValueError as wrong:
                raise StoreError(f"cache store {config.name!r}: {wrong}") from wrong
    installed = ", ".join(sorted(factory.name for factory in factories)) or "none"
    raise StoreError(f"no cache store {config.name!r} in twisted.plugins (installed: {installed})")
