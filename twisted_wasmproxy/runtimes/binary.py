"""Reader of the WebAssembly binary format."""
from __future__ import annotations

from twisted_wasmproxy.runtimes.interface import CompileError


def check_header(wasm: bytes) -> None:
    if wasm[:8] != b"\0asm\x01\0\0\0":
        raise CompileError("not a WebAssembly module")
