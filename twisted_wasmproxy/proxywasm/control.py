"""Host calls that steer: contexts, streams, local responses, the clock and the timer."""

from __future__ import annotations

import time

from twisted_wasmproxy.logs import Logger
from twisted_wasmproxy.proxywasm.abi import Status, StreamType
from twisted_wasmproxy.proxywasm.contexts import Context, StreamContext
from twisted_wasmproxy.proxywasm.headers import acceptable
from twisted_wasmproxy.proxywasm.wire import decode_pairs

__all__ = [
    "clear_route_cache",
    "close_stream",
    "continue_request",
    "continue_response",
    "continue_stream",
    "done",
    "get_current_time",
    "send_local_response",
    "set_effective_context",
    "set_tick_period",
]

_log = Logger()

_LAST_STREAM = max(StreamType)
_LAST_GRPC_STATUS = 16
_FREE_ANSWER = 16 * 1024
"""Bytes of a local answer that are not counted."""


def set_effective_context(context: Context, context_id: int) -> Status:
    """Any live context of the VM may be chosen, until the call from outside returns."""
    vm = context.vm
    if context is vm.allocator:
        return Status.BAD_ARGUMENT
    chosen = vm.none if context_id == 0 else vm.contexts.get(context_id)
    if chosen is None:
        return Status.BAD_ARGUMENT
    vm.effective = chosen
    return Status.OK


def done(context: Context) -> Status:
    waiting: Context | None = context if context.awaiting_done else context.root
    if waiting is None or not waiting.awaiting_done:
        return Status.NOT_FOUND
    waiting.awaiting_done = False
    context.vm.defer(waiting.done_called)
    return Status.OK


def get_current_time(context: Context) -> tuple[int]:
    return (time.time_ns(),)


def set_tick_period(context: Context, period: int) -> Status:
    if context.root is None:
        return Status.BAD_ARGUMENT
    context.root.set_tick(period)
    return Status.OK


def continue_request(context: Context) -> Status:
    if isinstance(context, StreamContext):
        context.resume_request()
    return Status.OK


def continue_response(context: Context) -> Status:
    if isinstance(context, StreamContext):
        context.resume_response()
    return Status.OK


def continue_stream(context: Context, stream_type: int) -> Status:
    if stream_type > _LAST_STREAM:
        return Status.BAD_ARGUMENT
    if stream_type == StreamType.HTTP_REQUEST:
        return continue_request(context)
    if stream_type == StreamType.HTTP_RESPONSE:
        return continue_response(context)
    return Status.OK  # a TCP stream, and there is none: as for a stream that is not held


def close_stream(context: Context, stream_type: int) -> Status:
    if stream_type > _LAST_STREAM:
        return Status.BAD_ARGUMENT
    if isinstance(context, StreamContext) and stream_type <= StreamType.HTTP_RESPONSE:
        context.reset()
    return Status.OK


def clear_route_cache(context: Context) -> Status:
    """Routes are chosen after the filters have seen the request head: there is no cache to clear."""
    return Status.OK


def send_local_response(
    context: Context, status: int, details: bytes, body: bytes, headers: bytes, grpc_status: int
) -> Status:
    """The answer is sent once the call has returned. Without a stream there is nothing to answer, which is OK.

    What is wrong with its headers or its status does not stop it: it may be a denial, and the guest that is told of a
    failure goes on as if it had denied (ABI, `proxy_send_local_response`).
    """
    if context.root is None:
        return Status.BAD_ARGUMENT
    pairs = _sendable(context, headers)
    if not 200 <= status <= 599:
        _log.warn(
            "{vm}: the module answers {status}, which is no final status: sends 500", vm=context.vm.name, status=status
        )
        status = 500
    if isinstance(context, StreamContext):
        size = len(body) + len(headers)
        if size > _FREE_ANSWER and not context.charge(size):
            body = b""  # without it rather than not at all: the answer may be a denial
        context.respond(status, pairs, body, details, grpc_status if grpc_status <= _LAST_GRPC_STATUS else -1)
    return Status.OK


def _sendable(context: Context, headers: bytes) -> list[tuple[bytes, bytes]]:
    """Return the lines of a map that may stand in an answer; of a malformed map, none. What is left out is logged."""
    try:
        given = decode_pairs(headers)
    except ValueError as error:
        _log.warn("{vm}: the module answers with a map that is no map: {error}", vm=context.vm.name, error=error)
        return []
    lines = [(name, value) for name, value in given if not name.startswith(b":")]
    faults = [fault for name, value in lines if (fault := acceptable(name, value)) is not None]
    if not faults:
        return lines
    _log.warn(
        "{vm}: in an answer, the module {fault}: left out ({lines} such lines)",
        vm=context.vm.name,
        fault=faults[0],
        lines=len(faults),
    )
    return [line for line in lines if acceptable(*line) is None]
