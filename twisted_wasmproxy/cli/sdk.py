"""Which toolchain and SDK a module was built with, as far as it shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from twisted_wasmproxy.runtimes.binary import ModuleInfo

__all__ = ["recognise"]


@dataclass(frozen=True)
class _Traces:
    """What a toolchain leaves behind besides the `producers` section."""

    imports: frozenset[str]
    exports: frozenset[str]
    functions: frozenset[str]
    sections: frozenset[str]
    wasm: bytes

    @classmethod
    def of(cls, info: ModuleInfo, wasm: bytes) -> _Traces:
        return cls(
            imports=frozenset(item.name for item in info.imports),
            exports=frozenset(export.name for export in info.exports),
            functions=frozenset(info.function_names.values()),
            sections=frozenset(section.name for section in info.custom),
            wasm=wasm,
        )

    def any_function(self, *parts: str) -> bool:
        return any(part in name for name in self.functions for part in parts)


_Mark = Callable[[_Traces], bool]


def _emscripten(t: _Traces) -> bool:
    return any("emscripten" in name for name in t.imports | t.exports)


def _assemblyscript(t: _Traces) -> bool:
    # Without names and with the stub runtime, the paths in the texts of its aborts are what is left: UTF-16.
    exported = bool({"__pin", "__collect", "__rtti_base"} & t.exports)
    return exported or t.any_function("~lib/rt/") or "~lib/".encode("utf-16-le") in t.wasm


def _tinygo(t: _Traces) -> bool:
    return t.any_function("tinygo") or {"malloc", "free", "calloc", "realloc", "_start"} <= t.exports


_TOOLCHAINS: tuple[tuple[str, _Mark], ...] = (
    ("Go", lambda t: "go:buildid" in t.sections),
    ("Rust", lambda t: b"/rustc/" in t.wasm),
    ("AssemblyScript", _assemblyscript),
    ("C++ (emscripten)", _emscripten),
    ("TinyGo", _tinygo),
    ("Zig", lambda t: t.any_function("heap.wasm_allocator", "start.wasi_start")),
    ("C++", lambda t: t.any_function("operator new")),
)
"""For modules without a `producers` section; the first that holds."""

_SDKS: tuple[tuple[str, str, _Mark], ...] = (
    ("Go", "Higress's fork of the Go SDK", lambda t: "proxy_abi_version_0_2_100" in t.exports),
    ("Go", "proxy-wasm Go SDK", lambda t: t.any_function("proxy-wasm-go-sdk", "proxywasm")),
    ("TinyGo", "proxy-wasm TinyGo SDK", lambda t: "proxy_on_vm_start" in t.exports),
    ("Rust", "Higress's fork of the Rust SDK", lambda t: "proxy_abi_version_0_2_100" in t.exports),
    ("Rust", "proxy-wasm Rust SDK", lambda t: "proxy_on_vm_start" in t.exports),
    # A callback that this SDK alone spells so.
    ("AssemblyScript", "proxy-wasm AssemblyScript SDK", lambda t: "proxy_on_grpc_trailing_metadata" in t.exports),
    ("C", "proxy-wasm C++ SDK", lambda t: _emscripten(t) and "proxy_on_vm_start" in t.exports),
)
"""By the beginning of the toolchain's name; the first that holds."""


def recognise(info: ModuleInfo, wasm: bytes) -> str | None:
    """Return what a module seems to be built with, as `Rust 1.80.1, proxy-wasm Rust SDK`; None if nothing tells.

    `info` is what was read from `wasm`.
    """
    traces = _Traces.of(info, wasm)
    toolchain = info.toolchain or next((name for name, mark in _TOOLCHAINS if mark(traces)), "")
    if not toolchain:
        return None
    sdk = next((sdk for name, sdk, mark in _SDKS if toolchain.startswith(name) and mark(traces)), "")
    return f"{toolchain}, {sdk}" if sdk else toolchain
