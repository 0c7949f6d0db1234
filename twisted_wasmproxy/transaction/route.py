"""`route`: where a request goes: to an upstream by rule, to the origin it names (forward proxy), or nowhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_wasmproxy.http.messages import Request
from twisted_wasmproxy.transaction import local
from twisted_wasmproxy.transaction.local import LocalReply
from twisted_wasmproxy.upstream.tunnel import open_tunnel

if TYPE_CHECKING:
    from twisted_wasmproxy.cache.lookup import Caching
    from twisted_wasmproxy.transaction.fetch import Fetch
    from twisted_wasmproxy.transaction.proxy import Proxy
    from twisted_wasmproxy.transaction.transaction import Transaction
    from twisted_wasmproxy.upstream.access import Access
    from twisted_wasmproxy.upstream.clusters import Cluster
    from twisted_wasmproxy.upstream.server import Server
    from twisted_wasmproxy.upstream.stream import Acquisition, Ready

__all__ = ["Route", "TunnelRoute", "route"]

MOST_FORWARDS = 1_000_000
"""The largest value of Max-Forwards that is sent on (RFC 9110 section 7.6.2)."""

TUNNEL_CONNECT_TIMEOUT = 10.0
"""Seconds for the connection of a CONNECT."""


class Route:
    """An upstream to ask (an `Origin`), and under which path."""

    __slots__ = ("_cluster", "_key", "caching", "name", "path", "preserve_host", "retries")

    def __init__(self, cluster: Cluster, key: bytes, path: bytes, preserve_host: bool, caching: Caching | None) -> None:
        self.name = cluster.label
        """Of the upstream; for a forward proxy `host:port`."""
        self.path = path
        self.preserve_host = preserve_host
        self.retries = cluster.config.retries
        self.caching = caching
        """How it uses the cache; None: not at all."""
        self._cluster = cluster
        self._key = key

    def acquire(self, ready: Ready, receiver: Fetch, exclude: Server | None) -> Acquisition:
        return self._cluster.acquire(self._key, ready, receiver, exclude)


class TunnelRoute:
    """A host and port to connect to for a CONNECT (an `Origin`)."""

    __slots__ = ("_access", "_host", "_port", "_proxy", "name")

    path = b""
    preserve_host = True
    retries = 0
    caching = None

    def __init__(self, host: str, port: int, proxy: Proxy, access: Access) -> None:
        self.name = f"{host}:{port}".encode()
        self._host = host
        self._port = port
        self._proxy = proxy
        self._access = access

    def acquire(self, ready: Ready, receiver: Fetch, exclude: Server | None) -> Acquisition:
        proxy, access = self._proxy, self._access
        resolver = proxy.upstreams.resolver
        return open_tunnel(
            self._host, self._port, proxy.reactor, TUNNEL_CONNECT_TIMEOUT, access, receiver, ready, resolver
        )


def route(txn: Transaction) -> Route | TunnelRoute | LocalReply:
    """Decide where the request goes."""
    request = txn.request
    proxy = txn.proxy
    if proxy.forwarder.is_loop(request):
        return local.error(508, "the request has been through this proxy before", b"loop_detected")
    if request.method in (b"TRACE", b"OPTIONS"):
        answer = _max_forwards(request)
        if answer is not None:
            return answer
    match = proxy.remap.match(request) if request.method != b"CONNECT" else None
    if match is None:
        if txn.listener.mode == "forward":
            return _forward(txn)
        if request.method == b"CONNECT":
            return local.error(405, "CONNECT is for a forward proxy", b"connect_refused")
        return local.error(404, "no rule for this host and path", b"no_rule")
    txn.rule_name = match.label
    if match.redirect is not None:
        status, location = match.redirect
        return LocalReply(status, [(b"Location", location)], details=b"redirect")
    if match.respond is not None:
        return LocalReply(match.respond, details=b"rule")
    assert match.upstream is not None
    cluster = proxy.upstreams.cluster(match.upstream)
    key = _hash_key(txn, cluster) if cluster.config.balance == "consistent_hash" else b""
    return Route(cluster, key, match.path, match.preserve_host, proxy.caching_of(match.rule))


def _hash_key(txn: Transaction, cluster: Cluster) -> bytes:
    """Return what a consistent hash is taken of."""
    on = cluster.config.hash_on
    request = txn.request
    if on == "host":
        return request.authority.lower()
    if on == "source":
        peer = txn.stream.connection.peer
        return peer[0].encode() if peer is not None else b""
    if on.startswith("header:"):
        return request.headers.get(on[7:].encode()) or b""
    return request.path


def _forward(txn: Transaction) -> Route | TunnelRoute | LocalReply:
    """RFC 9112 section 3.2.2 and 3.2.3: the client names the origin."""
    request = txn.request
    proxy = txn.proxy
    connect = request.method == b"CONNECT"
    access = proxy.access(txn.listener)
    if not connect and request.target[:1] in (b"/", b"*"):
        return local.error(400, "a forward proxy wants the target in absolute form", b"not_absolute_form")
    if not connect and request.scheme not in (b"http", b"https"):
        return local.error(400, "only http and https can be fetched", b"bad_scheme")
    address = _host_and_port(request.authority, None if connect else 443 if request.scheme == b"https" else 80)
    if address is None:
        return local.error(400, "the target names no usable host and port", b"bad_authority")
    host, port = address
    if not access.host_allowed(host):
        return local.error(403, "this host may not be reached", b"host_denied")
    if not access.port_allowed(port, connect):
        return local.error(403, f"port {port} may not be reached", b"port_denied")
    txn.forward = True
    if connect:
        return TunnelRoute(host, port, proxy, access)
    cluster = proxy.upstreams.origin(request.scheme, host, port, access)
    return Route(cluster, b"", request.path, True, proxy.caching_of(txn.listener))


def _host_and_port(authority: bytes, default: int | None) -> tuple[str, int] | None:
    """Split `host[:port]`; brackets of an IPv6 address are taken off."""
    try:
        text = authority.decode("ascii")
    except UnicodeDecodeError:
        return None
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            return None
        digits = rest[1:]
    else:
        host, _, digits = text.partition(":")
    if digits:
        if not digits.isdigit() or len(digits) > 5:
            return None
        port = int(digits)
    elif default is None:
        return None
    else:
        port = default
    return (host, port) if host and 0 < port < 65536 else None


def _max_forwards(request: Request) -> LocalReply | None:
    """RFC 9110 section 7.6.2: TRACE and OPTIONS end here at zero, and are counted down before."""
    value = request.headers.get(b"max-forwards")
    if value is None or not value.isdigit():
        return None
    digits = value.lstrip(b"0")
    left = int(digits or b"0") if len(digits) <= len(str(MOST_FORWARDS)) else MOST_FORWARDS
    if left:
        request.headers.set(b"max-forwards", b"%d" % min(left - 1, MOST_FORWARDS))
        return None
    if request.method == b"OPTIONS":
        return LocalReply(200, [(b"Allow", b"GET, HEAD, POST, PUT, DELETE, OPTIONS, TRACE, PATCH")], details=b"options")
    secret = (b"authorization", b"cookie", b"proxy-authorization")
    lines = [name + b": " + value for name, value in request.headers if name.lower() not in secret]
    echo = b"\r\n".join([request.method + b" " + request.target + b" HTTP/" + request.version, *lines, b"", b""])
    return LocalReply(200, [(b"Content-Type", b"message/http")], echo, b"trace")
