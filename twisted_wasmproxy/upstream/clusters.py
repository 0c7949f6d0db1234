"""`Cluster`: the servers of one upstream, and how a request gets a connection to one of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from twisted.internet.interfaces import IDelayedCall

from twisted_wasmproxy.config.model import UpstreamConfig
from twisted_wasmproxy.http.deadlines import Deadlines
from twisted_wasmproxy.http.stream import ResponseReceiver, StreamError, StreamFault
from twisted_wasmproxy.logs import Logger
from twisted_wasmproxy.upstream.access import Access
from twisted_wasmproxy.upstream.balance import make_balancer
from twisted_wasmproxy.upstream.dial import Dial, Transport
from twisted_wasmproxy.upstream.pool import Connection, Pool
from twisted_wasmproxy.upstream.reactor import Reactor
from twisted_wasmproxy.upstream.resolve import Resolver
from twisted_wasmproxy.upstream.server import Server
from twisted_wasmproxy.upstream.stream import Acquisition, OriginStream, Ready
from twisted_wasmproxy.upstream.tls import OriginTLS

__all__ = ["Acquisition", "Cluster", "OriginStream", "Server"]

_log = Logger()

MOST_SHARES = 3
"""Into how many parts connect_timeout is divided: after each, one more server is asked beside those that are slow."""


class Cluster:
    """The servers of one upstream, each with its pool. Shared by two configurations where a reload changes nothing."""

    def __init__(
        self,
        config: UpstreamConfig,
        reactor: Reactor,
        resolver: Resolver,
        deadlines: Deadlines,
        connected: Callable[[Transport, Pool], Connection],
        tls: OriginTLS,
        access: Access | None = None,
    ) -> None:
        """`connected` makes a pool's connection from a transport; `access` judges the addresses of the servers."""
        self.name = config.name
        self.label = config.name.encode()
        self.users = 0
        """How many `Upstreams` share this."""
        self.config = config
        self.reactor = reactor
        self.tls = tls
        self.servers: Sequence[Server] = [Server(server, config.health, reactor.seconds) for server in config.servers]
        self._resolver = resolver
        self._deadlines = deadlines
        self._access = access
        self._balancer = make_balancer(config.balance, self.servers)
        self._pools = {server: self._make_pool(server, connected) for server in self.servers}
        self._only = self._pools[self.servers[0]] if len(self.servers) == 1 else None

    def acquire(
        self,
        key: bytes,
        ready: Ready,
        receiver: ResponseReceiver,
        exclude: Server | None = None,
    ) -> Acquisition:
        """Get a stream to one of the servers and give it to `ready`, once, unless cancelled.

        In the same stack, before this returns, if an idle connection is at hand; else when one is. Or gives a
        StreamError: CONNECT, DENIED, TIMEOUT, or OVERLOAD where no connection became free within connect_timeout.
        Such an error is final: every server has been tried (each once, several within connect_timeout), and nothing
        was sent.

        `key` is what consistent hashing hashes; `exclude` is avoided if there is another server to ask.
        """
        pool = self._only or self._pools[self._choose(key, exclude)]
        connection = pool.take_idle()
        if connection is None and self._only is None and pool.full:
            pool = self._pool_with_room(key) or pool
            connection = pool.take_idle()
        if connection is not None:
            ready(pool.open_stream(connection, receiver))
            return _FINISHED
        wait = _Wait(self, key, ready, receiver)
        wait.ask(pool)
        return wait

    def next_pool(self, key: bytes, tried: Sequence[Server]) -> Pool | None:
        """Return the pool of a server that is not among `tried`, or None."""
        left = [server for server in self.servers if server not in tried]
        return self._pools[self._choose(key, None, left)] if left else None

    def without_servers(self, text: str) -> str:
        """Return the text of an error with this upstream's name for its servers: clients need not know those."""
        for server in self.servers:
            known = "|".join(map(re.escape, (server.name, f"{server.host}:{server.port}", server.host)))
            text = re.sub(rf"(?<![\w.-])(?:{known})(?![\w.-]|:\d)", lambda match: self.name, text)
        return text

    @property
    def pools(self) -> Sequence[Pool]:
        return list(self._pools.values())

    @property
    def quiet(self) -> bool:
        """Whether there are no connections, and nobody waits for one."""
        return all(pool.quiet for pool in self._pools.values())

    def close(self) -> None:
        """Close idle connections, and the others when they are free. Requests may still be made."""
        for pool in self._pools.values():
            pool.close()

    def _choose(self, key: bytes, exclude: Server | None, among: Sequence[Server] | None = None) -> Server:
        """Choose by health, then by what was asked to be avoided, then by balance."""
        servers = self.servers if among is None else among
        now = self.reactor.seconds()
        awake = [server for server in servers if server.health.resting_until <= now]
        if not awake:
            # Never fail without a try: a server that rests may be well again.
            others = [server for server in servers if server is not exclude] or servers
            chosen = min(others, key=lambda server: server.health.resting_until)
        else:
            if exclude is not None and len(awake) > 1:
                awake = [server for server in awake if server is not exclude]
            chosen = self._balancer.pick(key, awake)
        if chosen.health.on_trial:
            chosen.health.tried(now)
        return chosen

    def _pool_with_room(self, key: bytes) -> Pool | None:
        """Return another pool where nobody need wait; but a hashed request waits for the server that it belongs to."""
        if self.config.balance == "consistent_hash":
            return None
        now = self.reactor.seconds()
        free = [server for server in self.servers if server.available(now) and not self._pools[server].full]
        return self._pools[self._balancer.pick(key, free)] if free else None

    def _make_pool(self, server: Server, connected: Callable[[Transport, Pool], Connection]) -> Pool:
        config = self.config

        def dial(done: Callable[[Transport | StreamError], None]) -> Dial:
            return Dial(
                self.reactor,
                self._resolver,
                server.host,
                server.port,
                config.connect_timeout,
                done,
                tls=self.tls if server.tls else None,
                access=self._access,
            )

        return Pool(
            server,
            dial,
            connected,
            self._deadlines,
            config.max_connections,
            config.max_idle,
            config.idle_timeout,
        )


class _Wait:
    """A request's wait for a connection, in the queue of one pool or more."""

    __slots__ = ("_cluster", "_deadline", "_errors", "_key", "_next", "_pools", "_ready", "_receiver", "_tried")

    def __init__(self, cluster: Cluster, key: bytes, ready: Ready, receiver: ResponseReceiver) -> None:
        self._cluster = cluster
        self._key = key
        self._ready: Ready | None = ready
        self._receiver = receiver
        self._pools: list[Pool] = []
        self._tried: list[Server] = []
        self._errors: list[StreamError] = []
        self._next: IDelayedCall | None = None
        self._deadline = cluster.reactor.callLater(cluster.config.connect_timeout, self._timed_out)

    def cancel(self) -> None:
        """Give up; `ready` is not called any more. Harmless when it has been."""
        self._end(cancelled=True)

    def ask(self, pool: Pool) -> None:
        """Queue up for a connection of `pool`, too."""
        self._tried.append(pool.server)
        self._pools.append(pool)
        servers = len(self._cluster.servers)
        if len(self._tried) < servers:
            share = self._cluster.config.connect_timeout / min(servers, MOST_SHARES)
            self._next = self._cluster.reactor.callLater(share, self._ask_next)
        pool.wait(self)

    def take(self, pool: Pool, connection: Connection) -> None:
        ready = self._end(cancelled=False)
        assert ready is not None
        try:
            made: OriginStream | StreamError = pool.open_stream(connection, self._receiver)
        except Exception:
            _log.failure("a request could not be given a connection")
            made = StreamError(StreamFault.INTERNAL, "internal error")
        ready(made)

    def not_connected(self, pool: Pool, error: StreamError) -> None:
        self._pools.remove(pool)
        self._errors.append(error)
        if self._next is not None:
            self._next.cancel()
            self._next = None
        self._ask_next()
        if not self._pools and self._ready is not None:
            text = "; ".join(dict.fromkeys(str(error) for error in self._errors))
            self._fail(StreamError(error.fault, text))

    def _ask_next(self) -> None:
        self._next = None
        pool = self._cluster.next_pool(self._key, self._tried)
        if pool is None:
            return
        connection = pool.take_idle()
        if connection is not None:
            self.take(pool, connection)
        else:
            self.ask(pool)

    def _timed_out(self) -> None:
        timeout = self._cluster.config.connect_timeout
        connecting = [pool.server.name for pool in self._pools if pool.is_connecting_for(self)]
        if connecting:
            text = f"{', '.join(connecting)}: no connection within {timeout:g} s"
            self._fail(StreamError(StreamFault.TIMEOUT, text))
        else:
            names = ", ".join(pool.server.name for pool in self._pools)
            limit = self._cluster.config.max_connections
            text = f"{names}: all of {limit} connections in use for {timeout:g} s"
            self._fail(StreamError(StreamFault.OVERLOAD, text))

    def _fail(self, error: StreamError) -> None:
        ready = self._end(cancelled=False)
        if ready is not None:
            ready(error)

    def _end(self, cancelled: bool) -> Ready | None:
        ready, self._ready = self._ready, None
        if ready is not None:
            pools, self._pools = self._pools, []
            try:
                for pool in pools:
                    pool.leave(self, cancelled)
                for call in (self._deadline, self._next):
                    if call is not None and call.active():
                        call.cancel()
            except Exception:  # the request is told all the same
                _log.failure("a request that waited for a connection did not leave its queues in order")
        return ready


class _Finished:
    """The wait that was none."""

    def cancel(self) -> None:
        pass


_FINISHED = _Finished()
