"""The URI that a request is for (RFC 9110 section 7.1), settled before rules, cache and origin look at it.

They all read `scheme`, `authority` and `path` of the request, so what is in the cache key is what the origin is told.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network
from typing import Final

from twisted_wasmproxy.http.authority import DEFAULT_PORTS, normal_authority, without_default_port
from twisted_wasmproxy.http.messages import Request
from twisted_wasmproxy.http.stream import ServerStream
from twisted_wasmproxy.upstream.access import Peers

__all__ = ["normalized", "scheme_for"]

_HTTP: Final = b"http"
_HTTPS: Final = b"https"
_DEFAULT_PORTS: Final = tuple(DEFAULT_PORTS.values())

Network = IPv4Network | IPv6Network


def scheme_for(trusted: tuple[Network | None, ...]) -> Callable[[ServerStream], bytes]:
    """Return what tells the scheme of a request to a reverse listener, whatever the request itself says.

    It is that of the connection; but where the peer is among `trusted` (None: a Unix socket) and has sent
    X-Forwarded-Proto, its last element, if that is `http` or `https`.
    """
    if not trusted:
        return _scheme_of_connection
    peers = Peers(network for network in trusted if network is not None)
    unix = None in trusted

    def scheme(stream: ServerStream) -> bytes:
        peer = stream.connection.peer
        if unix if peer is None else peer[0] in peers:
            said = stream.request.headers.get_all(b"x-forwarded-proto")
            word = said[-1].rpartition(b",")[2].strip(b" \t").lower() if said else b""
            if word in (_HTTP, _HTTPS):
                return word
        return _scheme_of_connection(stream)

    return scheme


def _scheme_of_connection(stream: ServerStream) -> bytes:
    return _HTTPS if stream.connection.secure else _HTTP


def normalized(request: Request) -> bool:
    """Bring what filters may have made of the URI into its normal form; return False if it is none.

    A fragment is never sent (RFC 9110 section 4.2.5).
    """
    if not request.scheme.islower():
        request.scheme = request.scheme.lower()
    authority = normal_authority(request.authority)
    if authority is None:
        return False
    if request.method != b"CONNECT":
        if authority.endswith(_DEFAULT_PORTS):
            authority = without_default_port(authority, request.scheme)
        request.authority = authority
        path = request.path
        if path[:1] != b"/":
            return path == b"*"
        if b"#" in path:
            request.path = path.partition(b"#")[0]
    return True
