"""Engines by name: ours, Traffic Server's and Envoy's. An engine is made when it is first asked for, once a process."""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Callable

from twisted_wasmproxy.runtimes.interface import Engine, RuntimeUnavailable

__all__ = ["ALIASES", "available", "get_engine"]


def _wasmer() -> Engine:
    from twisted_wasmproxy.runtimes.wasmer import WasmerEngine

    return WasmerEngine()


def _wasmtime() -> Engine:
    from twisted_wasmproxy.runtimes.wasmtime import WasmtimeEngine

    return WasmtimeEngine()


# In the order in which `auto` prefers them.
_MAKERS: dict[str, Callable[[], Engine]] = {"wasmer": _wasmer, "wasmtime": _wasmtime}
_PACKAGES = {"wasmer": ("wasmer", "wasmer_compiler_cranelift"), "wasmtime": ("wasmtime",)}

ALIASES = {
    "ats.wasm.runtime.wasmtime": "wasmtime",
    "ats.wasm.runtime.wamr": "wamr",
    "ats.wasm.runtime.wasmedge": "wasmedge",
    "ats.wasm.runtime.v8": "v8",
    "envoy.wasm.runtime.wasmtime": "wasmtime",
    "envoy.wasm.runtime.wamr": "wamr",
    "envoy.wasm.runtime.wasmedge": "wasmedge",
    "envoy.wasm.runtime.v8": "v8",
}
"""The names that Traffic Server's and Envoy's configurations have for engines."""

_engines: dict[str, Engine] = {}
_lock = threading.Lock()


def get_engine(name: str = "auto") -> Engine:
    """Return the engine of this process for a configured name.

    `auto` is the first of `available()`. Raises RuntimeUnavailable where there is no such engine, or none here.
    """
    plain = ALIASES.get(name, name)
    with _lock:
        if plain == "auto":
            return _first()
        if plain not in _MAKERS:
            raise RuntimeUnavailable(f"there is no runtime {name!r} here; {_installed()}")
        return _get(plain)


def available() -> list[str]:
    """Return the names of the engines that work here, the one that `auto` takes first."""
    with _lock:
        return [name for name in _MAKERS if _works(name)]


def _first() -> Engine:
    for name in _MAKERS:
        if _works(name):
            return _get(name)
    raise RuntimeUnavailable("no WebAssembly runtime is installed; `pip install wasmtime` brings one")


def _get(name: str) -> Engine:
    if name not in _engines:
        try:
            _engines[name] = _MAKERS[name]()
        except (ImportError, OSError, RuntimeError) as error:  # as ctypes and the packages report a missing library
            raise RuntimeUnavailable(f"the runtime {name!r} does not work here ({error}); {_installed()}") from error
    return _engines[name]


def _works(name: str) -> bool:
    # Not by making the engine: that starts threads, and this may be asked before a daemon forks.
    for package in _PACKAGES[name]:
        try:
            importlib.import_module(package)
        except (ImportError, OSError, RuntimeError):
            return False
    return True


def _installed() -> str:
    names = [name for name in _MAKERS if _works(name)]
    return f"those that work: {', '.join(names)}" if names else "none is installed"


def _after_fork() -> None:
    # The threads of an engine stay with the parent.
    global _lock
    _lock = threading.Lock()
    _engines.clear()


os.register_at_fork(after_in_child=_after_fork)
