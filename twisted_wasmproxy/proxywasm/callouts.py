"""Host calls to other services and to host extensions: HTTP, gRPC, Redis, foreign functions.

Calls to other services are not served yet. They answer what SDKs take for "could not be sent", which modules handle.
"""

from __future__ import annotations

import zlib

from twisted_wasmproxy.proxywasm.abi import Status
from twisted_wasmproxy.proxywasm.contexts import Context

__all__ = [
    "call_foreign_function",
    "get_status",
    "grpc_call",
    "grpc_cancel",
    "grpc_close",
    "grpc_send",
    "grpc_stream",
    "http_call",
    "redis_call",
    "redis_init",
]


def http_call(context: Context, upstream: bytes, headers: bytes, body: bytes, trailers: bytes, timeout: int) -> Status:
    return Status.INTERNAL_FAILURE


def grpc_call(
    context: Context, upstream: bytes, service: bytes, method: bytes, metadata: bytes, message: bytes, timeout: int
) -> Status:
    return Status.INTERNAL_FAILURE


def grpc_stream(context: Context, upstream: bytes, service: bytes, method: bytes, metadata: bytes) -> Status:
    return Status.INTERNAL_FAILURE


def grpc_send(context: Context, token: int, message: bytes, end_stream: int) -> Status:
    return Status.NOT_FOUND


def grpc_cancel(context: Context, token: int) -> Status:
    return Status.NOT_FOUND


def grpc_close(context: Context, token: int) -> Status:
    return Status.NOT_FOUND


def redis_init(context: Context, upstream: bytes, user: bytes, password: bytes, timeout: int) -> Status:
    return Status.BAD_ARGUMENT


def redis_call(context: Context, upstream: bytes, query: bytes) -> Status:
    return Status.BAD_ARGUMENT


def get_status(context: Context) -> tuple[int, bytes]:
    """The status of the callout that is being delivered; there is none."""
    return 0, b""


def call_foreign_function(context: Context, name: bytes, arguments: bytes, data_slot: int, size_slot: int) -> Status:
    """Call an extension of the host by name. Null slots mean that its result is not wanted."""
    function = _FOREIGN.get(name)
    if function is None:
        return Status.NOT_FOUND
    status, result = function(arguments)
    vm = context.vm
    address = 0
    if result and data_slot:
        address = vm.allocate(len(result))
        vm.write(address, result)
    if data_slot:
        vm.write_u32(data_slot, address)
    if size_slot:
        vm.write_u32(size_slot, len(result) if data_slot else 0)
    return status


_LARGEST = 16 * 1024 * 1024
"""Bytes that `uncompress` may make."""


def _compress(arguments: bytes) -> tuple[Status, bytes]:
    return Status.OK, zlib.compress(arguments)


def _uncompress(arguments: bytes) -> tuple[Status, bytes]:
    decompressor = zlib.decompressobj()
    try:
        result = decompressor.decompress(arguments, _LARGEST)
    except zlib.error:
        return Status.SERIALIZATION_FAILURE, b""
    return (Status.OK, result) if decompressor.eof else (Status.SERIALIZATION_FAILURE, b"")


def _clear_route_cache(arguments: bytes) -> tuple[Status, bytes]:
    return Status.OK, b""


_FOREIGN = {b"compress": _compress, b"uncompress": _uncompress, b"clear_route_cache": _clear_route_cache}
"""Envoy's names. Routes are chosen after the filters have seen the request head: there is no cache to clear."""
