"""Which language and SDK a module was built with, as far as the module shows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from twisted_wasmproxy.runtimes.binary import ModuleInfo

__all__ = ["recognise"]


@dataclass(frozen=True)
class _Traces:
    """What a toolchain leaves behind: names of imports, exports, functions, custom sections, producers, and strings."""

    imports: frozenset[str]
    exports: frozenset[str]
    functions: frozenset[str]
    sections: frozenset[str]
    languages: dict[str, str]
    tools: dict[str, str]
    wasm: bytes

    @classmethod
    def of(cls, info: ModuleInfo, wasm: bytes) -> _Traces:
        producers = info.producers
        return cls(
            imports=frozenset(f"{item.module}.{item.name}" for item in info.imports),
            exports=frozenset(export.name for export in info.exports),
            functions=frozenset(info.function_names.values()),
            sections=frozenset(section.name for section in info.custom),
            languages=dict(producers.get("language", ())),
            tools=dict(producers.get("processed-by", ())),
            wasm=wasm,
        )

    def any_function(self, *parts: str) -> bool:
        return any(part in name for name in self.functions for part in parts)

    def any_name(self, part: str) -> bool:
        return any(part in name for name in self.imports | self.exports)


_Mark = Callable[[_Traces], bool]


def _assemblyscript(t: _Traces) -> bool:
    # Without names and with the stub runtime, the paths in the texts of its aborts are what is left: UTF-16.
    return (
        "AssemblyScript" in t.tools
        or bool({"__pin", "__collect", "__rtti_base"} & t.exports)
        or t.any_function("~lib/rt/")
        or "~lib/".encode("utf-16-le") in t.wasm
    )


def _tinygo(t: _Traces) -> bool:
    allocators = {"malloc", "free", "calloc", "realloc"}
    return "TinyGo" in t.tools or t.any_function("tinygo") or (allocators <= t.exports and "_start" in t.exports)


# The first that holds. Toolchains that carry another's traces (Rust carries clang's) come before it.
_LANGUAGES: tuple[tuple[str, _Mark], ...] = (
    ("Go", lambda t: "go:buildid" in t.sections or "Go cmd/compile" in t.tools),
    ("Rust", lambda t: "Rust" in t.languages or "rustc" in t.tools or b"/rustc/" in t.wasm),
    ("AssemblyScript", _assemblyscript),
    ("C++ (emscripten)", lambda t: t.any_name("emscripten")),
    ("TinyGo", _tinygo),
    (
        "Zig",
        lambda t: "Zig" in t.languages or "zig" in t.tools or t.any_function("heap.wasm_allocator", "start.wasi_start"),
    ),
    ("C++", lambda t: any(name.startswith("C_plus_plus") for name in t.languages) or t.any_function("operator new")),
    ("C", lambda t: any(name.startswith("C") for name in t.languages)),
    ("C or C++", lambda t: "clang" in t.tools),
)

_SDKS: dict[str, tuple[tuple[str, _Mark], ...]] = {
    "Go": (
        ("Higress's fork of the Go SDK", lambda t: "proxy_abi_version_0_2_100" in t.exports),
        ("proxy-wasm Go SDK", lambda t: t.any_function("proxy_wasm") or t.any_function("proxywasm")),
    ),
    "TinyGo": (("proxy-wasm TinyGo SDK", lambda t: t.any_function("proxywasm") or "proxy_on_vm_start" in t.exports),),
    "Rust": (
        ("Higress's fork of the Rust SDK", lambda t: "proxy_abi_version_0_2_100" in t.exports),
        ("proxy-wasm Rust SDK", lambda t: t.any_function("proxy_wasm") or "proxy_on_vm_start" in t.exports),
    ),
    "AssemblyScript": (
        (
            "proxy-wasm AssemblyScript SDK",
            lambda t: "proxy_on_grpc_trailing_metadata" in t.exports,
        ),  # as it alone spells it
    ),
    "C++ (emscripten)": (("proxy-wasm C++ SDK", lambda t: "proxy_on_vm_start" in t.exports),),
}


def recognise(info: ModuleInfo, wasm: bytes) -> str | None:
    """Return what a module seems to be built with, as `Rust (rustc 1.80.1), proxy-wasm Rust SDK`; None if unknown."""
    traces = _Traces.of(info, wasm)
    language = next((name for name, mark in _LANGUAGES if mark(traces)), None)
    if language is None:
        return None
    compiler = _compiler(language, traces)
    sdk = next((name for name, mark in _SDKS.get(language, ()) if mark(traces)), None)
    return (f"{language} ({compiler})" if compiler else language) + (f", {sdk}" if sdk else "")


def _compiler(language: str, traces: _Traces) -> str:
    tool = {"Go": "Go cmd/compile", "Rust": "rustc", "TinyGo": "TinyGo"}.get(language, "clang")
    version = traces.tools.get(tool, "").partition(" (")[0]
    if not version:
        return ""
    return version if language in version.lower() or tool == "Go cmd/compile" else f"{tool} {version}"
