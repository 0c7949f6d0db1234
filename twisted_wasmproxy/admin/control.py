"""What the control API asks of the proxy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from twisted_wasmproxy.cache.entry import Selection
    from twisted_wasmproxy.cache.policy import Freshness
    from twisted_wasmproxy.interfaces import IStoredResponse

__all__ = ["CacheControl", "WasmControl"]


class CacheControl(Protocol):
    """A cache in use. Any method may raise, or its Deferred fail with, `StoreError`."""

    def purge(self, selection: Selection, soft: bool) -> int | Deferred[int]:
        """Remove what is selected, or if `soft` make it stale; return how many stored responses there were."""

    def entries(
        self, selection: Selection, limit: int
    ) -> Sequence[IStoredResponse] | Deferred[Sequence[IStoredResponse]]:
        """Return up to `limit` stored responses."""

    def stats(self) -> Mapping[str, object] | Deferred[Mapping[str, object]]:
        """Return figures by name: numbers, texts, and mappings of these."""

    def freshness_of(self, stored: IStoredResponse) -> Freshness:
        """Return what the rules make of a stored response."""


class WasmControl(Protocol):
    """The Wasm modules in use."""

    def figures(self) -> Sequence[Mapping[str, object]]:
        """Return figures of each VM by name: numbers, texts, None, and mappings and lists of these."""
