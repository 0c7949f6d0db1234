"""Filters in Python, found through `twisted.plugin`."""

from __future__ import annotations

from twisted.plugin import getPlugins

from twisted_wasmproxy.config.model import NativeFilterConfig
from twisted_wasmproxy.interfaces import IFilterFactory

__all__ = ["FilterError", "native_factory", "native_names"]


class FilterError(Exception):
    """A native filter that is not there, or that refuses its configuration."""


def native_names() -> list[str]:
    """Return the names of the filters that are installed."""
    return sorted(plugin.name for plugin in getPlugins(IFilterFactory))


def native_factory(config: NativeFilterConfig) -> IFilterFactory:
    """Return the configured factory. Raises FilterError with a text for the operator."""
    for plugin in getPlugins(IFilterFactory):
        if plugin.name == config.native:
            try:
                return plugin.configured(config.configuration)
            except ValueError as wrong:
                raise FilterError(f"native filter {config.native!r}: {wrong}") from wrong
    installed = ", ".join(native_names()) or "none"
    raise FilterError(f"no native filter {config.native!r} in twisted.plugins (installed: {installed})")
