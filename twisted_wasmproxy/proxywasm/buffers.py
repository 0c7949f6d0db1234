"""Host calls on buffers: bodies and configurations."""

from __future__ import annotations

from typing import Any

from twisted_wasmproxy.proxywasm.abi import Buffer, Status, Version
from twisted_wasmproxy.proxywasm.contexts import Context, StreamContext
from twisted_wasmproxy.runtimes.interface import LARGE_COPY

_FREE_GROWTH = 4096
"""Bytes that are not counted."""

__all__ = ["get_bytes", "get_configuration", "get_status", "set_bytes"]


def get_bytes(context: Context, buffer: int, start: int, size: int) -> bytes | Status:
    if buffer <= Buffer.HTTP_RESPONSE_BODY:
        body = _body(context, buffer)
        if body is None:
            return Status.NOT_FOUND
        data: bytes = body.read(start, size)
        return data
    configuration = _configuration(context, buffer)
    if configuration is None:
        return _absent(context, buffer)
    return configuration[start : start + size]


def get_status(context: Context, buffer: int) -> tuple[int, int] | Status:
    if buffer <= Buffer.HTTP_RESPONSE_BODY:
        body = _body(context, buffer)
        return Status.NOT_FOUND if body is None else (len(body), 0)
    configuration = _configuration(context, buffer)
    return _absent(context, buffer) if configuration is None else (len(configuration), 0)


def set_bytes(context: Context, buffer: int, start: int, size: int, address: int, data_size: int) -> Status:
    """Put data in the place of `[start:start + size]`; a start past the end appends.

    BAD_ARGUMENT where a body would then be larger than what the guest was shown by more than a filter may hold;
    INTERNAL_FAILURE where the VM's budget has no room for what it is to grow by.
    """
    vm = context.vm
    vm.check_range(address, data_size)
    if buffer > Buffer.HTTP_RESPONSE_BODY:
        # Downstream and upstream data are writable, where there are any; the others never.
        return Status.NOT_FOUND if buffer in (Buffer.DOWNSTREAM_DATA, Buffer.UPSTREAM_DATA) else Status.BAD_ARGUMENT
    body = _body(context, buffer)
    if body is None:
        return Status.NOT_FOUND
    length = len(body)
    if length > LARGE_COPY:
        vm.check_deadline()
    growth = data_size - min(size, max(length - start, 0))
    if growth > 0:
        assert isinstance(context, StreamContext)
        shown = context.shown_request if buffer == Buffer.HTTP_REQUEST_BODY else context.shown_response
        if length + growth > shown + context.stream.buffer_limit:
            return Status.BAD_ARGUMENT
        if growth > _FREE_GROWTH and not vm.memory.lend(growth, vm.services.clock):
            return Status.INTERNAL_FAILURE
    body.replace(start, size, vm.read(address, data_size))
    return Status.OK


def get_configuration(context: Context) -> bytes | Status:
    """0.1.0: the plugin's configuration while that is being set up, else the VM's."""
    root = context.root
    if root is not None and root.configuring:
        return root.plugin.configuration
    return context.vm.configuration


def _body(context: Context, buffer: int) -> Any:
    if not isinstance(context, StreamContext) or context.ended:
        return None
    stream = context.stream
    return stream.request_body if buffer == Buffer.HTTP_REQUEST_BODY else stream.response_body


def _configuration(context: Context, buffer: int) -> bytes | None:
    if context.root is None:
        return None
    if buffer == Buffer.VM_CONFIGURATION:
        return context.vm.configuration
    if buffer == Buffer.PLUGIN_CONFIGURATION:
        return context.root.plugin.configuration
    return None


def _absent(context: Context, buffer: int) -> Status:
    last = Buffer.REDIS_CALL_RESPONSE if context.vm.version is Version.V0_2_100 else Buffer.FOREIGN_FUNCTION_ARGUMENTS
    return Status.BAD_ARGUMENT if buffer > last else Status.NOT_FOUND
