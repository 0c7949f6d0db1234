"""Well-known values of a transaction by attribute path, named and typed as Envoy has them.

Paths come as segments: `(b"request", b"headers", b"x-a")`. What is not known (yet) is None. Times and durations are
nanoseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from twisted_wasmproxy.http.headers import Headers
from twisted_wasmproxy.http.stream import ConnectionInfo
from twisted_wasmproxy.http.tls import TLSDetails, tls_details
from twisted_wasmproxy.transaction.framing import declared_length

if TYPE_CHECKING:
    from twisted_wasmproxy.transaction.transaction import Transaction

__all__ = ["attribute"]


def attribute(txn: Transaction, path: tuple[bytes, ...]) -> object:
    """Return the value at `path`, or None."""
    if not path:
        return None
    if len(path) == 1:
        whole = _TOP.get(path[0])
        return whole(txn) if whole is not None else None
    group = _GROUPS.get(path[0])
    if group is None:
        whole = _TOP.get(path[0])
        return _walk(whole(txn), path[1:]) if whole is not None else None
    read = group.get(path[1])
    if read is None:
        return None
    value = read(txn)
    return _walk(value, path[2:]) if len(path) > 2 else value


def _walk(value: object, path: tuple[bytes, ...]) -> object:
    for step in path:
        if isinstance(value, Headers):
            values = value.get_all(step)
            value = b",".join(values) if values else None
        elif isinstance(value, Mapping):
            value = value.get(step.decode("utf-8", "replace"))
        else:
            return None
    return value


def _address(address: tuple[str, int] | None) -> bytes | None:
    if address is None:
        return None
    host, port = address
    return (f"[{host}]:{port}" if ":" in host else f"{host}:{port}").encode()


def _port(address: tuple[str, int] | None) -> int | None:
    return address[1] if address is not None else None


def _request_header(name: bytes) -> Callable[[Transaction], object]:
    return lambda txn: txn.request.headers.get(name)


def _downstream_tls(read: Callable[[TLSDetails], object]) -> Callable[[Transaction], object]:
    def value(txn: Transaction) -> object:
        details = tls_details(txn.stream.connection)
        return read(details) if details is not None else None

    return value


def _upstream(read: Callable[[ConnectionInfo], object]) -> Callable[[Transaction], object]:
    def value(txn: Transaction) -> object:
        connection = txn.upstream_connection
        return read(connection) if connection is not None else None

    return value


def _upstream_tls(read: Callable[[TLSDetails], object]) -> Callable[[Transaction], object]:
    def value(connection: ConnectionInfo) -> object:
        details = tls_details(connection)
        return read(details) if details is not None else None

    return _upstream(value)


def _request_size(txn: Transaction) -> int:
    return txn.request_bytes or declared_length(txn.request.headers) or 0


def _size(headers: Headers) -> int:
    return sum(len(name) + len(value) for name, value in headers)


_REQUEST: dict[bytes, Callable[[Transaction], object]] = {
    b"path": lambda t: t.request.path,
    b"url_path": lambda t: t.request.path.partition(b"?")[0],
    b"query": lambda t: t.request.path.partition(b"?")[2],
    b"host": lambda t: t.request.authority,
    b"scheme": lambda t: t.request.scheme,
    b"method": lambda t: t.request.method,
    b"headers": lambda t: t.request.headers,
    b"referer": _request_header(b"referer"),
    b"useragent": _request_header(b"user-agent"),
    b"id": _request_header(b"x-request-id"),
    b"time": lambda t: int(t.start_date() * 1e9),
    b"duration": lambda t: t.duration_ns(),
    b"protocol": lambda t: b"HTTP/" + t.request.version,
    b"size": _request_size,
    b"total_size": lambda t: _request_size(t) + _size(t.request.headers),
    b"headers_bytes": lambda t: _size(t.request.headers),
}

_RESPONSE: dict[bytes, Callable[[Transaction], object]] = {
    b"code": lambda t: t.response.status if t.response is not None else None,
    b"code_details": lambda t: t.details or (b"via_upstream" if t.response is not None else None),
    b"headers": lambda t: t.response.headers if t.response is not None else None,
    b"trailers": lambda t: t.chain.response.trailers if t.chain is not None else None,
    b"flags": lambda t: 0 if t.response is not None else None,
    b"grpc_status": lambda t: t.grpc_status(),
    b"size": lambda t: t.response_bytes if t.response is not None else None,
    b"total_size": lambda t: t.response_bytes + _size(t.response.headers) if t.response is not None else None,
    b"headers_bytes": lambda t: _size(t.response.headers) if t.response is not None else None,
    b"backend_latency": lambda t: t.backend_latency_ns(),
}

_SOURCE: dict[bytes, Callable[[Transaction], object]] = {
    b"address": lambda t: _address(t.stream.connection.peer),
    b"port": lambda t: _port(t.stream.connection.peer),
}

_DESTINATION: dict[bytes, Callable[[Transaction], object]] = {
    b"address": lambda t: _address(t.stream.connection.local),
    b"port": lambda t: _port(t.stream.connection.local),
}

_CERTIFICATES: dict[bytes, Callable[[TLSDetails], object]] = {
    b"tls_version": lambda d: d.version,
    b"subject_local_certificate": lambda d: d.local.subject if d.local is not None else None,
    b"subject_peer_certificate": lambda d: d.peer.subject if d.peer is not None else None,
    b"dns_san_local_certificate": lambda d: d.local.dns_san if d.local is not None else None,
    b"dns_san_peer_certificate": lambda d: d.peer.dns_san if d.peer is not None else None,
    b"uri_san_local_certificate": lambda d: d.local.uri_san if d.local is not None else None,
    b"uri_san_peer_certificate": lambda d: d.peer.uri_san if d.peer is not None else None,
    b"sha256_peer_certificate_digest": lambda d: d.peer.sha256 if d.peer is not None else None,
    b"peer_certificate": lambda d: d.peer.pem if d.peer is not None else None,
}

_CONNECTION: dict[bytes, Callable[[Transaction], object]] = {
    b"id": lambda t: t.stream.connection.id,
    b"mtls": lambda t: (d := tls_details(t.stream.connection)) is not None and d.peer is not None,
    b"requested_server_name": _downstream_tls(lambda d: d.server_name),
    b"termination_details": lambda t: t.termination or None,
    **{name: _downstream_tls(read) for name, read in _CERTIFICATES.items()},
}

_UPSTREAM: dict[bytes, Callable[[Transaction], object]] = {
    b"address": _upstream(lambda c: _address(c.peer)),
    b"port": _upstream(lambda c: _port(c.peer)),
    b"local_address": _upstream(lambda c: _address(c.local)),
    b"local_port": _upstream(lambda c: _port(c.local)),
    b"request_attempt_count": lambda t: t.attempts or None,
    b"transport_failure_reason": lambda t: t.upstream_failure or None,
    **{name: _upstream_tls(read) for name, read in _CERTIFICATES.items()},
}

_XDS: dict[bytes, Callable[[Transaction], object]] = {
    b"node": lambda t: t.proxy.node,
    b"cluster_name": lambda t: t.upstream_name or None,
    b"route_name": lambda t: t.rule_name or None,
    b"listener_direction": lambda t: 1,
}

_GROUPS: dict[bytes, dict[bytes, Callable[[Transaction], object]]] = {
    b"request": _REQUEST,
    b"response": _RESPONSE,
    b"source": _SOURCE,
    b"destination": _DESTINATION,
    b"connection": _CONNECTION,
    b"upstream": _UPSTREAM,
    b"xds": _XDS,
}

_TOP: dict[bytes, Callable[[Transaction], object]] = {
    b"node": lambda t: t.proxy.node,
    b"cluster_name": lambda t: t.upstream_name or None,
    b"route_name": lambda t: t.rule_name or None,
    b"listener_direction": lambda t: 1,
    b"connection_id": lambda t: t.stream.connection.id,
}
