"""Host calls that compilers, not the ABI, ask for."""

from __future__ import annotations

from twisted_wasmproxy.proxywasm.abi import Status
from twisted_wasmproxy.proxywasm.contexts import Context
from twisted_wasmproxy.runtimes.interface import MemoryFault, Trap

__all__ = ["abort", "notify_memory_growth", "pthread_equal"]


def notify_memory_growth(context: Context, memory: int) -> Status:
    """Emscripten: memory has grown. Nothing here keeps a view of it."""
    return Status.OK


def pthread_equal(context: Context, left: int, right: int) -> int:
    return int(left == right)


def abort(context: Context, message: int, file: int, line: int, column: int) -> Status:
    """AssemblyScript: an assertion failed. `message` and `file` are its strings: UTF-16, with the size before them."""
    text = f"abort: {_string(context, message) or 'no message'} at {_string(context, file) or '?'}:{line}:{column}"
    raise Trap(text)


def _string(context: Context, address: int) -> str:
    if address < 4:
        return ""
    try:
        size = context.vm.read_u32(address - 4)
        return context.vm.read(address, min(size, 2048)).decode("utf-16-le", "replace")
    except MemoryFault:
        return ""
