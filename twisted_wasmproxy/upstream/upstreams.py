"""`Upstreams`: every cluster of a configuration, and those that a forward proxy makes as it goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from twisted_wasmproxy.config.model import ServerConfig, UpstreamConfig
from twisted_wasmproxy.http.deadlines import NEVER, Deadlines
from twisted_wasmproxy.http.http1.client import ClientProtocol
from twisted_wasmproxy.upstream.access import Access
from twisted_wasmproxy.upstream.clusters import Cluster
from twisted_wasmproxy.upstream.dial import Transport, attach
from twisted_wasmproxy.upstream.pool import Connection, Pool
from twisted_wasmproxy.upstream.reactor import Reactor
from twisted_wasmproxy.upstream.resolve import Resolver
from twisted_wasmproxy.upstream.tls import OriginTLS

__all__ = ["Upstreams"]

ORIGIN_DEFAULTS = UpstreamConfig("", (), max_idle=8)
"""How a forward proxy treats the origins that its clients name; verified TLS, like all else."""
ORIGINS = 1024
"""Origins that a forward proxy remembers; the one not asked for the longest time goes first."""


class Upstreams:
    """The clusters that the transactions of one configuration use.

    On a reload the new one is given the previous one, and shares with it each cluster whose configuration and TLS files
    are the same, with its connections and its health. What is shared is closed when the last of those who share it is.
    """

    def __init__(
        self,
        configs: Sequence[UpstreamConfig],
        reactor: Reactor,
        previous: Upstreams | None = None,
    ) -> None:
        """Raises OSError or ValueError if a TLS file of an upstream cannot be used; then nothing is shared."""
        self._workshop: _Workshop = _Workshop(reactor) if previous is None else previous._workshop
        self.resolver = self._workshop.resolver
        """Looks up names for all that connects; also for `open_tunnel`."""
        self._origins: _Origins = _Origins(self._workshop) if previous is None else previous._origins
        # Where a value stands in its file makes no difference to it.
        clusters: dict[str, Cluster] = {
            config.name: self._workshop.cluster(replace(config, location=None), _tls_of(config)) for config in configs
        }
        if previous is not None:
            for name, cluster in clusters.items():
                old = previous._clusters.get(name)
                if old is not None and old.config == cluster.config and old.tls == cluster.tls:
                    clusters[name] = old
        self._clusters: dict[str, Cluster] = clusters
        self._closed = False
        for shared in self._shared():
            shared.users += 1

    def cluster(self, name: str) -> Cluster:
        """Return the cluster of a configured upstream; KeyError if there is none."""
        return self._clusters[name]

    def origin(self, scheme: bytes, host: str, port: int, access: Access | None = None) -> Cluster:
        """Return the cluster for an origin that a client of a forward proxy has named: one server.

        `access` judges the addresses that the host resolves to. Connections are shared only under the same rules.
        """
        return self._origins.cluster(scheme, host, port, access)

    def close(self) -> None:
        """Close idle connections now, others when they are free; but leave alone what another still uses.

        Requests may still be made, for transactions that are under way.
        """
        if self._closed:
            return
        self._closed = True
        for shared in self._shared():
            shared.users -= 1
            if not shared.users:
                shared.close()

    def _shared(self) -> Sequence[Cluster | _Origins]:
        return [*self._clusters.values(), self._origins]


def _tls_of(config: UpstreamConfig) -> OriginTLS:
    tls = OriginTLS(config.tls)
    if any(server.tls for server in config.servers):
        tls.prepare()
    return tls


class _Workshop:
    """What all clusters are made with and share."""

    def __init__(self, reactor: Reactor) -> None:
        self.reactor = reactor
        self.deadlines = Deadlines(reactor)
        self.resolver = Resolver(reactor)

    def cluster(self, config: UpstreamConfig, tls: OriginTLS, access: Access | None = None) -> Cluster:
        return Cluster(config, self.reactor, self.resolver, self.deadlines, self._connected, tls, access)

    def _connected(self, transport: Transport, pool: Pool) -> Connection:
        connection = ClientProtocol(pool.released, pool.closed, deadlines=self.deadlines)
        attach(transport, connection)
        return connection


class _Origins:
    """Clusters made on demand, each dropped when it has been idle for a while, or to make room."""

    def __init__(self, workshop: _Workshop) -> None:
        self.users = 0
        self.deadline = NEVER
        self._workshop = workshop
        self._tls = OriginTLS(ORIGIN_DEFAULTS.tls)
        self._deadlines = workshop.deadlines
        self._clusters: dict[tuple[bytes, str, int, Access | None], tuple[float, Cluster]] = {}
        self._closing = False

    def cluster(self, scheme: bytes, host: str, port: int, access: Access | None) -> Cluster:
        key = (scheme, host, port, access)
        _, cluster = self._clusters.pop(key, (0.0, None))
        if cluster is None:
            server = ServerConfig(host, port, scheme == b"https")
            config = replace(ORIGIN_DEFAULTS, name=f"{host}:{port}", servers=(server,))
            cluster = self._workshop.cluster(config, self._tls, access)
            if self._closing:
                cluster.close()
                return cluster
            if len(self._clusters) >= ORIGINS:
                self._clusters.pop(next(iter(self._clusters)))[1].close()
            elif not self._clusters:
                self.deadline = self._deadlines.now + ORIGIN_DEFAULTS.idle_timeout
                self._deadlines.add(self)
        # Taken out and put back: the dict is in order of last use.
        self._clusters[key] = (self._deadlines.now, cluster)
        return cluster

    def deadline_passed(self) -> None:
        """Drop the clusters that have not been used for a while and have no connection left."""
        now = self._deadlines.now
        for key, (used, cluster) in list(self._clusters.items()):
            if used > now - ORIGIN_DEFAULTS.idle_timeout:
                break
            if cluster.quiet:
                del self._clusters[key]
        if self._clusters:
            self.deadline = now + ORIGIN_DEFAULTS.idle_timeout / 4
        else:
            self._deadlines.remove(self)

    def close(self) -> None:
        self._closing = True
        self._deadlines.remove(self)
        clusters, self._clusters = self._clusters, {}
        for _, cluster in clusters.values():
            cluster.close()
