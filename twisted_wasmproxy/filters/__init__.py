"""`FilterSet`: the filters of a configuration, Wasm modules and Python objects alike, in their order and phase."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred, succeed

from twisted_wasmproxy.config.model import Configuration, WasmFilterConfig
from twisted_wasmproxy.filters.native import FilterError, native_factory
from twisted_wasmproxy.interfaces import IFilterFactory, Phase
from twisted_wasmproxy.proxywasm.errors import PluginError
from twisted_wasmproxy.proxywasm.host import PluginSet, Prepared, WasmHost
from twisted_wasmproxy.transaction.chain import FilterSlot

__all__ = ["FilterError", "FilterSet"]


class FilterSet:
    """First `prepare` (in any thread), then `start` (in the reactor's); then `slots` has them, until `close`.

    `host` is the worker's, and outlives its sets: what a new set has in common with one that runs is not made again.
    """

    def __init__(self, config: Configuration, host: WasmHost) -> None:
        self._config = config
        self._host = host
        self._prepared: list[Prepared | IFilterFactory] = []
        self._plugins: PluginSet | None = None

    def prepare(self) -> None:
        """Read and compile modules, find native filters. Raises FilterError that names all that is wrong."""
        problems = []
        for filter_ in self._config.filters:
            try:
                if isinstance(filter_, WasmFilterConfig):
                    self._prepared.append(self._host.prepare(filter_))
                else:
                    self._prepared.append(native_factory(filter_))
            except (PluginError, FilterError) as wrong:
                problems.append(f"{filter_.location}: {wrong}" if filter_.location is not None else str(wrong))
        if problems:
            raise FilterError("\n".join(problems))

    def start(self) -> None:
        """Start the modules, all or none. Raises FilterError."""
        try:
            self._plugins = self._host.start([item for item in self._prepared if isinstance(item, Prepared)])
        except PluginError as wrong:
            raise FilterError(f"{wrong.location}: {wrong}" if wrong.location is not None else str(wrong)) from wrong

    def slots(self, phase: Phase) -> Sequence[FilterSlot]:
        """Return the filters of a phase in configured order."""
        assert self._plugins is not None
        plugins = iter(self._plugins.plugins)
        slots = []
        for filter_, made in zip(self._config.filters, self._prepared, strict=True):
            factory = next(plugins) if isinstance(made, Prepared) else made
            if filter_.phase is phase:
                slots.append(FilterSlot(factory, filter_.name or factory.name, filter_.fail_open))
        return slots

    def close(self) -> Deferred[None]:
        """Let them go; fires when the last of their streams has ended."""
        return self._plugins.close() if self._plugins is not None else succeed(None)
