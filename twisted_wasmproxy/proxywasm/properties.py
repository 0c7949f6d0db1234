"""Host calls on properties: the plugin's own names, the stream's attributes as Envoy has them, and filter state.

Paths come in segments and are compared segment by segment. A property that is not known (yet) is NOT_FOUND, never
empty. What a guest sets is kept with the stream, shared by its filters, and read back by the same path or, as in
Envoy, under `filter_state` with `wasm.` before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted_wasmproxy.proxywasm.abi import MapType, Status
from twisted_wasmproxy.proxywasm.contexts import Context, StreamContext
from twisted_wasmproxy.proxywasm.headers import pairs
from twisted_wasmproxy.proxywasm.memory import ENTRY
from twisted_wasmproxy.proxywasm.wire import Unserializable, encode_pairs, encode_value, split_path

__all__ = ["get_property", "set_property"]

_MAPS: Mapping[tuple[bytes, ...], MapType] = {
    (b"request", b"headers"): MapType.HTTP_REQUEST_HEADERS,
    (b"request", b"trailers"): MapType.HTTP_REQUEST_TRAILERS,
    (b"response", b"headers"): MapType.HTTP_RESPONSE_HEADERS,
    (b"response", b"trailers"): MapType.HTTP_RESPONSE_TRAILERS,
}

_STATE_PREFIX = b"wasm."

_MOST_SEGMENTS = 32
"""Longer paths are those of nothing; looking for them would take time that no limit on guests covers."""

_MOST_STATE = 1024
"""Entries of a stream's filter state, which can be read as one map."""
_SEGMENT = 64
"""Bytes counted for a segment of a path beside its own."""

_PLUGIN = frozenset({b"plugin_name", b"plugin_root_id", b"plugin_vm_id"})

_WHOLE = frozenset(
    {
        *_PLUGIN,
        *(b"metadata", b"filter_state", b"upstream_filter_state", b"xds", b"node", b"connection_id"),
        *(b"cluster_name", b"cluster_metadata", b"route_name", b"route_metadata", b"listener_direction"),
        *(b"listener_metadata", b"upstream_host_metadata"),
    }
)
"""First segments under which nothing can be set."""

_ATTRIBUTES: Mapping[bytes, frozenset[bytes]] = {
    b"request": frozenset(
        b"path url_path host scheme method headers referer useragent time id protocol query duration size total_size "
        b"headers_bytes trailers is_subrequest".split()
    ),
    b"response": frozenset(
        b"code code_details flags grpc_status headers trailers size total_size headers_bytes backend_latency".split()
    ),
    b"source": frozenset((b"address", b"port")),
    b"destination": frozenset((b"address", b"port")),
    b"connection": frozenset(
        b"id mtls requested_server_name tls_version subject_local_certificate subject_peer_certificate "
        b"dns_san_local_certificate dns_san_peer_certificate uri_san_local_certificate uri_san_peer_certificate "
        b"sha256_peer_certificate_digest peer_certificate termination_details transport_failure_reason".split()
    ),
    b"upstream": frozenset(
        b"address port local_address local_port tls_version subject_local_certificate subject_peer_certificate "
        b"dns_san_local_certificate dns_san_peer_certificate uri_san_local_certificate uri_san_peer_certificate "
        b"sha256_peer_certificate_digest transport_failure_reason num_endpoints request_attempt_count "
        b"cx_pool_ready_duration locality peer_certificate".split()
    ),
}
"""Second segments of Envoy's attributes, which nobody can set."""


def get_property(context: Context, path: bytes) -> bytes | Status:
    if path.count(b"\0") > _MOST_SEGMENTS:
        return Status.NOT_FOUND
    parts = split_path(path)
    try:
        value = _find(context, parts)
        return Status.NOT_FOUND if value is None else encode_value(value)
    except Unserializable:
        return Status.SERIALIZATION_FAILURE


def set_property(context: Context, path: bytes, value: bytes) -> Status:
    if not isinstance(context, StreamContext) or path.count(b"\0") > _MOST_SEGMENTS:
        return Status.NOT_FOUND
    parts = split_path(path)
    if _read_only(parts):
        return Status.NOT_FOUND
    state = context.stream.filter_state
    before = state.get(parts)
    if len(state) >= _MOST_STATE and before is None:
        return Status.INTERNAL_FAILURE
    # A value that takes the place of another is counted by what it is larger: the other may be of another module.
    size = len(value) - len(before) if before is not None else ENTRY + _SEGMENT * len(parts) + len(path) + len(value)
    if size > 0 and not context.charge(size):
        return Status.INTERNAL_FAILURE
    state[parts] = value
    return Status.OK


def _read_only(parts: tuple[bytes, ...]) -> bool:
    if parts[0] in _WHOLE or (len(parts) == 1 and parts[0] in _ATTRIBUTES):
        return True
    return len(parts) > 1 and parts[1] in _ATTRIBUTES.get(parts[0], ())


def _find(context: Context, parts: tuple[bytes, ...]) -> object:
    root = context.root
    if root is None:
        return None
    first = parts[0]
    if len(parts) == 1 and first in _PLUGIN:
        if first == b"plugin_name":
            return root.plugin.name
        return root.plugin.root_id if first == b"plugin_root_id" else context.vm.vm_id
    if first == b"node":
        return _walk(context.vm.services.node or None, parts[1:])
    if parts[:2] == (b"xds", b"node"):
        return _walk(context.vm.services.node or None, parts[2:])
    stream = context.stream
    if stream is None:
        return None
    if first == b"filter_state":
        return _filter_state(stream.filter_state, parts[1:])
    map_type = _MAPS.get(parts[:2])
    if map_type is not None:
        return _fields(stream, map_type, parts[2:])
    value = _attribute(stream, parts)
    return stream.filter_state.get(parts) if value is None else value


def _attribute(stream: Any, parts: tuple[bytes, ...]) -> object:
    """Return what the stream knows at a path, or at the beginning of it and then inside what is found there."""
    for size in range(len(parts), 0, -1):
        value = stream.attribute(parts[:size])
        if value is not None:
            return _walk(value, parts[size:])
    return None


def _walk(value: object, parts: tuple[bytes, ...]) -> object:
    for part in parts:
        if not isinstance(value, Mapping):
            return None
        found = value.get(part)
        value = value.get(part.decode("utf-8", "replace")) if found is None else found
    return value


def _fields(stream: Any, map_type: MapType, parts: tuple[bytes, ...]) -> object:
    found = pairs(stream, map_type)
    if not found or len(parts) > 1:
        return None
    if not parts:
        return encode_pairs(found)
    values = [value for name, value in found if name == parts[0].lower()]
    return b",".join(values) if values else None


def _filter_state(state: Mapping[tuple[bytes, ...], bytes], parts: tuple[bytes, ...]) -> object:
    if not parts:
        return {_STATE_PREFIX + b"\0".join(key): value for key, value in state.items()} or None
    if not parts[0].startswith(_STATE_PREFIX):
        return None
    return state.get((parts[0][len(_STATE_PREFIX) :], *parts[1:]))
