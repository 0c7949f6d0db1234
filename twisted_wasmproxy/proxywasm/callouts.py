"""Host calls to other services and to host extensions: HTTP, gRPC, Redis, foreign functions.

Calls to other services are not served yet. They answer what SDKs take for "could not be sent", which modules handle.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

from twisted_wasmproxy.proxywasm.abi import VALUE_SIZE, Status
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
    vm = context.vm
    status, result = function(arguments, vm.check_deadline)
    address = 0
    if result and data_slot:
        address = vm.allocate(len(result))
        vm.write(address, result)
    if data_slot:
        vm.write_u32(data_slot, address)
    if size_slot:
        vm.write_u32(size_slot, len(result) if data_slot else 0)
    return status


_PIECE = 64 * 1024
"""Bytes that are worked on between two looks at the deadline of the call."""


def _compress(arguments: bytes, check_deadline: Callable[[], None]) -> tuple[Status, bytes]:
    compressor = zlib.compressobj()
    pieces = []
    with memoryview(arguments) as view:
        for start in range(0, len(view), _PIECE):
            check_deadline()
            pieces.append(compressor.compress(view[start : start + _PIECE]))
    pieces.append(compressor.flush())
    return Status.OK, b"".join(pieces)


def _uncompress(arguments: bytes, check_deadline: Callable[[], None]) -> tuple[Status, bytes]:
    """What would have more than VALUE_SIZE bytes is refused, as what is no zlib stream or has no end."""
    decompressor = zlib.decompressobj()
    pieces = []
    size = 0
    for start in range(0, len(arguments), _PIECE):
        rest = arguments[start : start + _PIECE]
        more = True
        while more:
            check_deadline()
            try:
                piece = decompressor.decompress(rest, _PIECE)
            except zlib.error:
                return Status.SERIALIZATION_FAILURE, b""
            pieces.append(piece)
            size += len(piece)
            if size > VALUE_SIZE:
                return Status.SERIALIZATION_FAILURE, b""
            if decompressor.eof:
                return Status.OK, b"".join(pieces)
            rest = decompressor.unconsumed_tail
            more = bool(rest) or len(piece) == _PIECE
    return Status.SERIALIZATION_FAILURE, b""


def _clear_route_cache(arguments: bytes, check_deadline: Callable[[], None]) -> tuple[Status, bytes]:
    return Status.OK, b""


_FOREIGN = {b"compress": _compress, b"uncompress": _uncompress, b"clear_route_cache": _clear_route_cache}
"""Envoy's names. Routes are chosen after the filters have seen the request head: there is no cache to clear."""
