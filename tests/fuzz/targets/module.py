"""The reader of WebAssembly modules: what the engine accepts it accepts, and nothing costs more than it weighs."""

from __future__ import annotations

import tracemalloc

import wasmtime

from twisted_wasmproxy.runtimes.binary import ModuleInfo, import_memory, read_module
from twisted_wasmproxy.runtimes.interface import CompileError
from twisted_wasmproxy.runtimes.wasmtime import WasmtimeEngine

__all__ = ["WORDS", "run"]

WORDS = [
    *(
        b"\0asm\x01\0\0\0",
        b"\x01\x04\x01\x60\0\0",
        b"\x02\x07\x01\x01a\x01b\0\0",
        b"\x03\x02\x01\0",
        b"\x05\x03\x01\0\x01",
    ),
    *(
        b"\x0a\x04\x01\x02\0\x0b",
        b"\x07\x05\x01\x01a\0\0",
        b"\0\x05\x04name",
        b"\0\x0a\x09producers",
        b"\x80\x80\x80\x80\x08",
    ),
    *(
        b"\xff\xff\xff\xff\x0f",
        b"\xff\xff\xff\xff\x7f",
        b"\x80\0",
        b"\x60",
        b"\x7f",
        b"\x63\x70",
        b"\x04",
        b"\x0d\x03\x01\0\0",
    ),
    *(b"\x0cprocessed-by", b"\x08language", b"\x03sdk", b"\x05rustc", b"\x08\x01\0", b"\xff", b"\x00\x0b"),
]

_HEADER = b"\0asm\x01\0\0\0"
_FIXED, _EACH = 64 * 1024, 1024
"""Bytes of memory that reading may take: in any case, and for each byte of the module."""

_engine = WasmtimeEngine().engine


def run(data: bytes) -> None:
    for wasm in (data, _HEADER + data):
        _check(wasm)


def _check(wasm: bytes) -> None:
    tracemalloc.start()
    try:
        info = _read(wasm)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= _FIXED + _EACH * len(wasm), f"{peak} bytes of memory for {len(wasm)} of a module"
    valid = _is_valid(wasm)
    if info is None:
        assert not valid, "the engine takes it, and the reader does not"
        return
    entries = [len(part) for part in (info.types, info.imports, info.exports, info.memories, info.custom)]
    assert sum(entries) + info.functions <= len(wasm)
    if valid:
        module = wasmtime.Module(_engine, wasm)
        assert [(item.module, item.name) for item in info.imports] == [(i.module, i.name) for i in module.imports]
        assert [item.name for item in info.exports] == [item.name for item in module.exports]
    _check_import_memory(wasm, info, valid)


def _read(wasm: bytes) -> ModuleInfo | None:
    try:
        info = read_module(wasm)
    except CompileError:
        return None
    assert isinstance(info.toolchain, str)
    assert info.name is None or isinstance(info.name, str)
    assert isinstance(info.function_names, dict)
    return info


def _is_valid(wasm: bytes) -> bool:
    try:
        wasmtime.Module.validate(_engine, wasm)
    except wasmtime.WasmtimeError:
        return False
    return True


def _check_import_memory(wasm: bytes, info: ModuleInfo, valid: bool) -> None:
    if len(info.memories) > 1:
        return
    rewritten = import_memory(wasm, "host", "memory")
    again = read_module(rewritten)
    assert again.functions == info.functions
    assert again.exports == info.exports
    assert all(memory.imported for memory in again.memories)
    assert _is_valid(rewritten) >= valid
