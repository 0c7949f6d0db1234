"""The Proxy-Wasm host of one worker: makes plugins ready, starts them, keeps what a new configuration leaves unchanged.

    prepared = [host.prepare(config) for config in filters]     # in any thread: reads and compiles
    plugins = host.start(prepared)                              # in the reactor thread
    ...                                                         # each of plugins.plugins makes filters
    plugins.close()                                             # fires when the last stream and plugin has ended

A new configuration is started before the old one is closed: plugins that are in both go on as they are.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from twisted_wasmproxy.logs import Logger
from twisted_wasmproxy.proxywasm.abi import LogLevel
from twisted_wasmproxy.proxywasm.errors import PluginError
from twisted_wasmproxy.proxywasm.keeper import VMKeeper
from twisted_wasmproxy.proxywasm.module import Options, ProxyModule, load
from twisted_wasmproxy.proxywasm.plugin import Plugin
from twisted_wasmproxy.proxywasm.services import Services
from twisted_wasmproxy.runtimes import get_engine
from twisted_wasmproxy.runtimes.code_cache import CodeCache, load_module
from twisted_wasmproxy.runtimes.interface import Engine, Module, RuntimeUnavailable

if TYPE_CHECKING:
    from twisted_wasmproxy.config.model import WasmFilterConfig

__all__ = ["PluginSet", "Prepared", "WasmHost"]

_log = Logger()

_PluginKey = tuple[object, ...]


@dataclass(frozen=True)
class Prepared:
    """A plugin whose module is compiled."""

    config: WasmFilterConfig
    module: ProxyModule


class WasmHost:
    """All plugins of a worker. `prepare` may be called from any thread, everything else from the reactor's."""

    def __init__(
        self,
        clock: IReactorTime,
        *,
        cache: CodeCache | None = None,
        node: Mapping[str, object] | None = None,
        log_level: Callable[[str], LogLevel] = lambda namespace: LogLevel.INFO,
        drain: float = 30.0,
    ) -> None:
        """`log_level` gives the lowest level that is logged under a logger namespace; `drain` is in seconds."""
        self.cache = cache
        self.services = Services(clock, node={} if node is None else node, log_level=log_level, drain=drain)
        self._keepers: dict[str, VMKeeper] = {}
        self._plugins: dict[_PluginKey, Plugin] = {}
        self._compiled: WeakValueDictionary[tuple[str, bytes], Module] = WeakValueDictionary()
        self._compiling = threading.Lock()
        self._warned: set[tuple[str, str]] = set()

    def prepare(self, config: WasmFilterConfig) -> Prepared:
        """Read, check and compile the module of a plugin. Raises PluginError."""
        vm = config.vm
        try:
            engine = get_engine(vm.runtime)
        except RuntimeUnavailable as error:
            raise PluginError(str(vm.code), str(error)) from error
        options = Options(
            vm_id=vm.vm_id,
            configuration=vm.configuration,
            environment=vm.environment,
            cpu_limit=vm.cpu_limit,
            memory_limit=vm.memory_limit,
            host_memory_limit=vm.host_memory_limit,
            lax_imports=vm.lax_imports,
            capabilities=config.capabilities,
            traps=vm.restart.traps,
            traps_within=vm.restart.within,
            spare=vm.restart.spare,
        )
        self._warn_of_limits(engine, options)
        cache = self.cache if vm.allow_precompiled else None
        return Prepared(config, load(vm.code, options, engine, lambda e, wasm: self._compile(e, wasm, cache)))

    def start(self, prepared: Sequence[Prepared]) -> PluginSet:
        """Start plugins, all or none; those that run already under the same key are taken as they are.

        Raises PluginError for the first that does not start.
        """
        plugins: list[Plugin] = []
        try:
            for item in prepared:
                plugin = self._plugin(item)
                plugin.users += 1
                plugins.append(plugin)
        except PluginError as error:
            error.location = item.config.location
            for plugin in plugins:
                self.release(plugin, _ignore)
            raise
        for keeper in self._keepers.values():
            keeper.put_in_service()
        return PluginSet(self, tuple(plugins))

    def stop(self) -> None:
        """Close every VM at once, without a word to the guests: for the end of a process that waits no longer."""
        for keeper in list(self._keepers.values()):
            keeper.stop()
        self._keepers.clear()
        self._plugins.clear()

    def figures(self) -> list[Mapping[str, object]]:
        """Return what the control API tells of each VM, in the order in which they were made."""
        return [keeper.figures() for keeper in self._keepers.values()]

    def refresh_log_levels(self) -> None:
        """Ask again for every plugin's log level."""
        for keeper in self._keepers.values():
            keeper.refresh_log_level()

    def _warn_of_limits(self, engine: Engine, options: Options) -> None:
        # Each once: they are true of the engine, whatever the module.
        if options.cpu_limit and not engine.interruptible and (engine.name, "cpu") not in self._warned:
            self._warned.add((engine.name, "cpu"))
            _log.warn(
                "{engine} cannot be interrupted: cpu_limit does not hold, an endless loop in a module stops the proxy",
                engine=engine.name,
            )
        if options.memory_limit and not engine.limits_memory and (engine.name, "memory") not in self._warned:
            self._warned.add((engine.name, "memory"))
            _log.warn("{engine} cannot limit memory: memory_limit does not hold", engine=engine.name)

    def _plugin(self, item: Prepared) -> Plugin:
        config, module = item.config, item.module
        key = (
            *(module.key, config.name, config.root_id, config.configuration, config.fail_open, config.phase),
            config.allow_on_headers_stop_iteration,
        )
        plugin = self._plugins.get(key)
        if plugin is None:
            plugin = Plugin(config, module.version, self.services)
            keeper = self._keepers.get(module.key)
            if keeper is None:
                keeper = VMKeeper(module, self.services, self._keeper_ended)
                try:
                    keeper.add(plugin)
                except PluginError:
                    self._keeper_ended(keeper)
                    raise
                self._keepers[module.key] = keeper
            else:
                keeper.add(plugin)
            self._plugins[key] = plugin
        return plugin

    def release(self, plugin: Plugin, ended: Callable[[], None]) -> None:
        """Take back one use of a plugin; `ended` is called when it has ended, or at once if it is used elsewhere."""
        if plugin.users == 1:
            for key in [key for key, known in self._plugins.items() if known is plugin]:
                del self._plugins[key]
        plugin.release(ended)

    def _keeper_ended(self, keeper: VMKeeper) -> None:
        self._keepers.pop(keeper.module.key, None)
        vm_id = keeper.module.options.vm_id
        others = (key for key, other in self._keepers.items() if other.module.options.vm_id == vm_id)
        self.services.ended(keeper.module.key, vm_id, next(others, None))

    def _compile(self, engine: Engine, wasm: bytes, cache: CodeCache | None) -> Module:
        # One at a time: the second of two equal modules finds the first one's code, and compilers use all cores.
        key = (engine.name, sha256(wasm).digest())
        with self._compiling:
            module = self._compiled.get(key)
            if module is None:
                module = self._compiled[key] = load_module(engine, wasm, cache)
            return module


class PluginSet:
    """The plugins of one configuration, in its order."""

    def __init__(self, host: WasmHost, plugins: tuple[Plugin, ...]) -> None:
        self.plugins = plugins
        self._host = host

    def close(self) -> Deferred[None]:
        """Let the plugins go. Those that no other set has end once their streams have; then the Deferred fires."""
        done: Deferred[None] = Deferred()
        left = len(self.plugins)
        plugins, self.plugins = self.plugins, ()

        def ended() -> None:
            nonlocal left
            left -= 1
            if not left:
                done.callback(None)

        if not plugins:
            done.callback(None)
        for plugin in plugins:
            self._host.release(plugin, ended)
        return done


def _ignore() -> None:
    pass
