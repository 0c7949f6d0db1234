"""`ProxyService`: a configuration as a Twisted service: start, reload, drain, stop."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from types import FrameType
from typing import Any

from twisted.application.service import Service
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, DeferredList, DeferredLock, ensureDeferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import LogLevel
from twisted.python.failure import Failure

from twisted_wasmproxy import logs
from twisted_wasmproxy.accesslog import AccessLog
from twisted_wasmproxy.admin import AdminError, AdminServer
from twisted_wasmproxy.cache.coordinator import Cache
from twisted_wasmproxy.cache.entry import StoreError
from twisted_wasmproxy.cache.stores.making import make_store, same_folder, same_store
from twisted_wasmproxy.config import Configuration, ConfigurationError, load
from twisted_wasmproxy.config.model import CacheConfig
from twisted_wasmproxy.filters import FilterError, FilterSet
from twisted_wasmproxy.interfaces import Phase
from twisted_wasmproxy.listeners import Listener, ListenError
from twisted_wasmproxy.logs import Logger
from twisted_wasmproxy.monotonic import make_timers_monotonic
from twisted_wasmproxy.proxywasm.abi import LogLevel as WasmLevel
from twisted_wasmproxy.proxywasm.host import WasmHost
from twisted_wasmproxy.runtimes.code_cache import CodeCache, default_folder
from twisted_wasmproxy.transaction.proxy import Proxy
from twisted_wasmproxy.upstream.own import OwnListeners
from twisted_wasmproxy.upstream.upstreams import Upstreams

__all__ = ["ProxyService", "StartError"]

_log = Logger()

TRACE_NAMESPACE = "twisted_wasmproxy.transaction"
"""At level debug, every hook of every transaction is logged."""

_WASM_LEVELS = {
    LogLevel.debug: WasmLevel.DEBUG,
    LogLevel.info: WasmLevel.INFO,
    LogLevel.warn: WasmLevel.WARN,
    LogLevel.error: WasmLevel.ERROR,
    LogLevel.critical: WasmLevel.CRITICAL,
}


def _wasm_level(namespace: str) -> WasmLevel:
    return _WASM_LEVELS[logs.level_of(namespace)]


def _addresses(servers: Iterable[Listener | AdminServer]) -> Iterator[tuple[str, int]]:
    for server in servers:
        address = server.port.getHost() if server.port is not None else None
        if isinstance(address, IPv4Address | IPv6Address):
            yield address.host, address.port


class StartError(Exception):
    """The proxy cannot start; the text says why, for the operator."""


class ProxyService(Service):
    """The whole proxy. `config` may have come from a file; then SIGHUP and `reload` read that file again.

    The reactor's timers become monotonic (see `make_timers_monotonic`).

    Addresses are bound in `privilegedStartService`, before twistd gives up its privileges; modules are loaded in
    `startService`, after it has forked. Both raise StartError.
    """

    name = "wasmproxy"

    def __init__(self, config: Configuration, reactor: Any = None) -> None:
        if reactor is None:
            from twisted.internet import reactor
        make_timers_monotonic(reactor)
        self.config = config
        self._reactor = reactor
        self._listeners: dict[str, Listener] = {}
        self._own = OwnListeners()
        self._host: WasmHost | None = None
        self._filters: FilterSet | None = None
        self._prepared: FilterSet | None = None
        self._proxy: Proxy | None = None
        self._admin: AdminServer | None = None
        self._retired: dict[Proxy, FilterSet] = {}
        self._reloads = DeferredLock()
        self._draining: list[Deferred[None]] = []
        self._previous_handlers: dict[signal.Signals, Any] = {}

    @property
    def proxy(self) -> Proxy:
        """The configuration at work."""
        assert self._proxy is not None, "the service is not running"
        return self._proxy

    @property
    def ports(self) -> list[Any]:
        """The listening ports (`IListeningPort`), in the order of the listeners."""
        return [listener.port for listener in self._listeners.values()]

    # Start

    def privilegedStartService(self) -> None:
        Service.privilegedStartService(self)
        self._bind()

    def prepare(self) -> Deferred[None]:
        """Read and compile the modules in a thread; `startService` then finds them ready.

        For a service that is started while the reactor runs, which compiling would hold up for seconds. Fails with
        FilterError.
        """
        filters = FilterSet(self.config, self._make_host())

        def prepared(result: None) -> None:
            self._prepared = filters

        return self._in_thread(filters.prepare).addCallback(prepared)

    def startService(self) -> None:
        Service.startService(self)
        self._bind()
        logs.adopt_standard_logging()
        logs.set_levels(self.config.log_levels)
        config = self.config
        filters, self._prepared = self._prepared, None
        try:
            if filters is None:
                filters = FilterSet(config, self._make_host())
                filters.prepare()
            filters.start()
            self._proxy = self._make_proxy(config, filters, None)
        except (FilterError, StartError) as wrong:
            if filters is not None:
                filters.close()
            raise self._cannot_start(str(wrong)) from wrong
        self._filters = filters
        for warning in self.config.warnings:
            _log.warn("{warning}", warning=warning)
        for wanted in config.listeners:
            self._listeners[wanted.endpoint].use(self._proxy, wanted)
        if self._admin is not None:
            self._admin.use(self._proxy.cache, self._host)
        if config.path is not None:
            self._handle(signal.SIGHUP, self._reload_and_report)

    def _make_host(self) -> WasmHost:
        config = self.config
        self._host = WasmHost(
            self._reactor,
            cache=CodeCache(config.code_cache or default_folder()),
            node=dict(config.node),
            log_level=_wasm_level,
            drain=max((listener.timeouts.drain for listener in config.listeners), default=config.timeouts.drain),
        )
        return self._host

    def _bind(self) -> None:
        if self.config.admin is not None and self._admin is None:
            self._admin = AdminServer(self.config.admin, self._reactor)
            self._bound(self._admin.open())
        for config in self.config.listeners:
            if config.endpoint not in self._listeners:
                listener = Listener(config, self._reactor)
                self._bound(listener.open())
                self._listeners[config.endpoint] = listener
        self._note_own(self._listeners.values(), self._admin)

    def _note_own(self, listeners: Iterable[Listener], *admins: AdminServer | None) -> None:
        """Tell the access rules of forward listeners what is listened on."""
        self._own.replace(_addresses(listeners), _addresses(admin for admin in admins if admin is not None))

    def _bound(self, opening: Deferred[None]) -> None:
        failures: list[Failure] = []
        opening.addErrback(failures.append)
        if failures:  # binding an address fails at once
            raise self._cannot_start(failures[0].getErrorMessage()) from failures[0].value

    def _cannot_start(self, text: str) -> StartError:
        _log.critical("cannot start: {text}", text=text)
        for listener in self._listeners.values():
            listener.close()
        self._listeners.clear()
        if self._admin is not None:
            self._admin.close()
            self._admin = None
        return StartError(text)

    def _make_proxy(self, config: Configuration, filters: FilterSet, previous: Proxy | None) -> Proxy:
        access_logs = [AccessLog(log) for log in config.access_log]
        try:
            for log in access_logs:
                log.start()
            upstreams = Upstreams(config.upstreams, self._reactor, previous.upstreams if previous is not None else None)
            cache = self._make_cache(config.cache, previous.cache if previous is not None else None)
        except (OSError, ValueError, StoreError) as wrong:
            for log in access_logs:
                log.stop()
            raise StartError(str(wrong)) from wrong
        traced = logs.level_of(TRACE_NAMESPACE) <= LogLevel.debug
        client, origin = filters.slots(Phase.CLIENT), filters.slots(Phase.ORIGIN)
        return Proxy(config, self._reactor, upstreams, client, origin, access_logs, traced, cache, self._own)

    def _make_cache(self, config: CacheConfig | None, previous: Cache | None) -> Cache | None:
        """Return the cache of a configuration: the present one, where its store is to stay as it is.

        Raises StoreError.
        """
        if config is None:
            return None
        if previous is not None and (same_store(config, previous.config) or same_folder(config, previous.config)):
            if not same_store(config, previous.config):
                _log.warn("cache: the sizes of memory and disk stay as they are until the next start")
                kept = previous.config
                config = replace(config, memory=kept.memory, memory_object=kept.memory_object, disk=kept.disk)
            previous.config = config
            return previous
        cache = Cache(make_store(config, self._reactor), config)
        cache.open()
        return cache

    # Reload

    def reload(self) -> Deferred[None]:
        """Read the configuration file again and use it for new transactions.

        Fires when that is done. Fails, with nothing changed, with ConfigurationError or StartError.
        """
        # One after the other: the file may have changed since the one that is under way has read it.
        return self._reloads.run(lambda: ensureDeferred(self._reload()))

    async def _reload(self) -> None:
        path = self.config.path
        if path is None:
            raise StartError("this configuration did not come from a file")
        assert self._host is not None
        config = await self._in_thread(load, path, *self.config.more_paths)
        filters = FilterSet(config, self._host)
        opened: list[Listener] = []
        admin, opened_admin = self._admin, None
        try:
            await self._in_thread(filters.prepare)
            filters.start()
            for wanted in config.listeners:
                if wanted.endpoint not in self._listeners:
                    listener = Listener(wanted, self._reactor)
                    await listener.open()
                    opened.append(listener)
            if config.admin is None or admin is None or config.admin.endpoint != admin.config.endpoint:
                admin = None
                if config.admin is not None:
                    admin = opened_admin = AdminServer(config.admin, self._reactor)
                    await admin.open()
            self._note_own([*self._listeners.values(), *opened], self._admin, opened_admin)
            if not self.running:
                raise StartError("stopped meanwhile")
            old, old_filters = self.proxy, self._filters
            assert old_filters is not None
            new = self._make_proxy(config, filters, old)
        except BaseException as wrong:
            filters.close()
            for listener in opened:
                listener.close()
            if opened_admin is not None:
                opened_admin.close()
            self._note_own(self._listeners.values(), self._admin)
            if isinstance(wrong, (FilterError, ListenError, AdminError)):
                raise StartError(str(wrong)) from wrong
            raise
        logs.set_levels(config.log_levels)
        for listener in opened:
            self._listeners[listener.config.endpoint] = listener
        wanted_endpoints = {wanted.endpoint for wanted in config.listeners}
        for endpoint in [endpoint for endpoint in self._listeners if endpoint not in wanted_endpoints]:
            self._listeners.pop(endpoint).close()
        for wanted in config.listeners:
            self._listeners[wanted.endpoint].use(new, wanted)
        if admin is not self._admin and self._admin is not None:
            self._admin.close()
        self._admin = admin
        if admin is not None:
            admin.use(new.cache, self._host, config.admin)
        self._note_own(self._listeners.values(), admin)
        self.config = config
        self._proxy, self._filters = new, filters
        self._host.refresh_log_levels()
        self._retire(old, old_filters)
        for warning in config.warnings:
            _log.warn("{warning}", warning=warning)
        _log.info("configuration reloaded from {path}", path=path)

    def _in_thread(self, work: Any, *args: Any) -> Deferred[Any]:
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), work, *args)

    def _retire(self, old: Proxy, old_filters: FilterSet) -> None:
        self._retired[old] = old_filters

        def over() -> None:
            if self._retired.pop(old, None) is not None:
                old.close()
                old_filters.close()
                used = [proxy.cache for proxy in (self.proxy, *self._retired)]
                if old.cache is not None and old.cache not in used:
                    old.cache.close()

        old.when_idle(over)

    def _handle(self, number: signal.Signals, act: Callable[[], None]) -> None:
        """Act on a signal in the reactor's turn, where signals can be had (the main thread of a process)."""

        def received(number: int, frame: FrameType | None) -> None:
            self._reactor.callFromThread(act)

        with suppress(ValueError):  # not the main thread
            self._previous_handlers.setdefault(number, signal.signal(number, received))

    def _reload_and_report(self) -> None:
        if not self.running:
            return

        def failed(failure: Failure) -> None:
            if failure.check(ConfigurationError, StartError):
                _log.error("reload refused, nothing changed: {reason}", reason=failure.getErrorMessage())
            else:
                _log.failure("reload failed, nothing changed", failure)

        for log in self.proxy.access_logs:
            log.reopen()
        self.reload().addErrback(failed)

    # Stop

    def stopService(self) -> Deferred[None]:
        """Stop listening, let the transactions in flight finish (up to `timeouts.drain`), and close everything.

        A further SIGINT or SIGTERM ends the wait.
        """
        Service.stopService(self)
        if self._previous_handlers:
            for number in (signal.SIGINT, signal.SIGTERM):
                self._handle(number, self._drain_no_longer)
        return ensureDeferred(self._stop()).addBoth(self._stopped)

    def _drain_no_longer(self) -> None:
        for idle in self._draining:
            idle.cancel()

    def _stopped(self, result: Any) -> Any:
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        self._previous_handlers.clear()
        return result

    async def _stop(self) -> None:
        listeners = list(self._listeners.values())
        self._listeners.clear()
        await DeferredList([listener.close() for listener in listeners], consumeErrors=True)
        if self._admin is not None:
            await self._admin.close()
            self._admin = None
        running = dict(self._retired)
        self._retired.clear()
        if self._proxy is not None and self._filters is not None:
            running[self._proxy] = self._filters
        limit = max((listener.timeouts.drain for listener in self.config.listeners), default=self.config.timeouts.drain)
        left = sum(len(proxy.transactions) for proxy in running)
        if left:
            _log.info("waiting up to {limit} s for {left} transactions", limit=limit, left=left)
        self._draining = [_idle(proxy).addTimeout(limit, self._reactor) for proxy in running]
        await DeferredList(self._draining, consumeErrors=True)
        for listener in listeners:
            listener.abort()
        for proxy in running:
            proxy.abort()
        closing = []
        for proxy, filters in running.items():
            closing += [proxy.close(), filters.close()]
        closing += [cache.close() for cache in {proxy.cache for proxy in running} if cache is not None]
        await DeferredList(closing, consumeErrors=True)
        self._proxy = self._filters = self._host = None


def _idle(proxy: Proxy) -> Deferred[None]:
    """Fire when no transaction is left."""
    done: Deferred[None] = Deferred()
    proxy.when_idle(lambda: None if done.called else done.callback(None))
    return done
