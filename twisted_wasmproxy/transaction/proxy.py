"""`Proxy`: what one configuration makes, shared by its transactions: rules, upstreams, filters, logs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from twisted.internet.defer import Deferred, DeferredList

from twisted_wasmproxy.cache.coordinator import Cache
from twisted_wasmproxy.cache.lookup import Caching
from twisted_wasmproxy.config.model import (
    AccessConfig,
    CacheConfig,
    CacheRules,
    Configuration,
    ListenerConfig,
    RemapConfig,
)
from twisted_wasmproxy.http.authority import DEFAULT_PORTS, without_default_port
from twisted_wasmproxy.http.stream import ConnectionInfo, RequestReceiver, ServerStream, StreamError
from twisted_wasmproxy.logs import Logger
from twisted_wasmproxy.transaction import local
from twisted_wasmproxy.transaction.chain import Chain, FilterSlot
from twisted_wasmproxy.transaction.forwarding import Forwarder
from twisted_wasmproxy.transaction.record import record_of, record_of_refusal
from twisted_wasmproxy.transaction.remap import RemapTable
from twisted_wasmproxy.transaction.target import scheme_for
from twisted_wasmproxy.transaction.transaction import Transaction
from twisted_wasmproxy.upstream.access import Access
from twisted_wasmproxy.upstream.own import OwnListeners

if TYPE_CHECKING:
    from twisted_wasmproxy.accesslog import AccessLog
    from twisted_wasmproxy.upstream.reactor import Reactor
    from twisted_wasmproxy.upstream.upstreams import Upstreams

__all__ = ["Proxy"]

_log = Logger()

_SLASH: Final = 0x2F
_DEFAULT_PORTS: Final = tuple(DEFAULT_PORTS.values())


class Proxy:
    """One configuration at work. A reload makes another; transactions stay with the one that they began on.

    `client_filters` and `origin_filters`: the filters of each phase in configured order. `traced`: whether hooks go
    to the debug log.
    """

    def __init__(
        self,
        config: Configuration,
        reactor: Reactor,
        upstreams: Upstreams,
        client_filters: Sequence[FilterSlot],
        origin_filters: Sequence[FilterSlot],
        access_logs: Sequence[AccessLog],
        traced: bool = False,
        cache: Cache | None = None,
        own: OwnListeners | None = None,
    ) -> None:
        self.config = config
        self.reactor = reactor
        self.upstreams = upstreams
        self.client_filters = client_filters
        self.origin_filters = origin_filters
        self.traced = traced
        self.remap = RemapTable(config.remap)
        self.cache = cache
        self._own = own or OwnListeners()
        self._cachings: dict[int, Caching] = {}
        if cache is not None and config.cache is not None:
            for listener in config.listeners:
                if listener.mode == "forward":
                    space = _forward_space(listener.access)
                    caching = _caching(cache, config.cache.rules, config.cache, space)
                    if caching is not None:
                        self._cachings[id(listener)] = caching
            for rule in config.remap:
                caching = _caching(
                    cache, rule.cache or config.cache.rules, config.cache, (rule.upstream or "").encode()
                )
                if caching is not None:
                    self._cachings[id(rule)] = caching
        self.forwarder = Forwarder(config.headers, tuple(listener.endpoint for listener in config.listeners))
        self.node: dict[str, object] = dict(config.node)
        self.transactions: set[Transaction] = set()
        self.access_logs = access_logs
        self._idle_waiters: list[Callable[[], None]] = []
        self._accesses: dict[int, Access] = {}

    def handler(self, listener: ListenerConfig) -> Callable[[ServerStream, bool], RequestReceiver]:
        """Return what a listener's codec calls with each request head."""
        return self._forward_handler(listener) if listener.mode == "forward" else self._reverse_handler(listener)

    def _reverse_handler(self, listener: ListenerConfig) -> Callable[[ServerStream, bool], RequestReceiver]:
        scheme_of = scheme_for(listener.trusted_proxies)
        told = bool(listener.trusted_proxies)

        def handle(stream: ServerStream, end_stream: bool) -> RequestReceiver:
            request = stream.request
            if told or request.target[0] != _SLASH:  # else the codec has taken the connection's
                request.scheme = scheme_of(stream)
            if request.authority.endswith(_DEFAULT_PORTS):
                request.authority = without_default_port(request.authority, request.scheme)
            transaction = Transaction(self, listener, stream, end_stream)
            transaction.start()
            return transaction

        return handle

    def _forward_handler(self, listener: ListenerConfig) -> Callable[[ServerStream, bool], RequestReceiver]:
        access = self.access(listener)

        def handle(stream: ServerStream, end_stream: bool) -> RequestReceiver:
            request = stream.request
            if request.authority.endswith(_DEFAULT_PORTS):
                request.authority = without_default_port(request.authority, request.scheme)
            peer = stream.connection.peer
            transaction = Transaction(self, listener, stream, end_stream)
            if access.client_allowed(peer[0] if peer is not None else None):
                transaction.start()
            else:
                transaction.start(local.error(403, "this client may not use the proxy", b"client_denied"))
            return transaction

        return handle

    def filters_read_requests(self, chain: Chain | None) -> bool:
        """Return whether any filter wants to see request content."""
        if chain is not None and chain.request.shows_bodies:
            return True
        return any(getattr(slot.factory, "reads_requests", True) for slot in self.origin_filters)

    def caching_of(self, asked: RemapConfig | ListenerConfig) -> Caching | None:
        """Return how a remap rule, or what a forward listener fetches, uses the cache; None: not at all."""
        return self._cachings.get(id(asked))

    def access(self, listener: ListenerConfig) -> Access:
        """Return the access rules of a forward listener."""
        access = self._accesses.get(id(listener))
        if access is None:
            own = self._own.is_admin if listener.access.allow_own_listeners else self._own.is_any
            access = self._accesses[id(listener)] = Access(listener.access, own)
        return access

    def ended(self, transaction: Transaction, error: StreamError | None) -> None:
        """A transaction has closed: log it, and tell who waits for the last one."""
        self.transactions.discard(transaction)
        if self.access_logs:
            try:
                record = record_of(transaction, error)
                for log in self.access_logs:
                    log.log(record)
            except Exception:  # a line less is better than a transaction that never ends
                _log.failure("a transaction could not be logged")
        if self._idle_waiters and not self.transactions:
            waiters, self._idle_waiters = self._idle_waiters, []
            for waiter in waiters:
                waiter()

    def refused(self, connection: ConnectionInfo, status: int, text: str) -> None:
        """A codec has refused what a client sent before there was a transaction."""
        if self.access_logs:
            record = record_of_refusal(connection, status, text)
            for log in self.access_logs:
                log.log(record)

    def when_idle(self, call: Callable[[], None]) -> None:
        """Call back once, when no transaction is left (at once if there is none)."""
        if self.transactions:
            self._idle_waiters.append(call)
        else:
            call()

    def abort(self) -> None:
        """Break off every transaction that still runs."""
        for transaction in list(self.transactions):
            transaction.break_off(b"stopped")

    def close(self) -> Deferred[None]:
        """Let go of connections and logs; transactions still running are cut when their connections are."""
        self.upstreams.close()
        return DeferredList([log.stop() for log in self.access_logs], consumeErrors=True).addCallback(lambda _: None)


def _forward_space(access: AccessConfig) -> bytes:
    """Return what keeps apart what forward listeners have fetched that let their clients reach different addresses.

    A hit is answered without looking at an address: nobody is to get from the cache what he might not fetch.
    """
    reach = (
        sorted(map(str, access.deny_destinations)),
        sorted(map(str, access.allow_destinations)),
        access.allow_own_listeners,
    )
    if not any(reach):
        return b""
    return b"forward " + hashlib.sha256(repr(reach).encode()).hexdigest()[:16].encode()


def _caching(cache: Cache, rules: CacheRules, config: CacheConfig, space: bytes) -> Caching | None:
    if not rules.enabled:
        return None
    caching = Caching(cache, rules, config, space)
    cache.cachings[caching.keys.space] = caching
    return caching
