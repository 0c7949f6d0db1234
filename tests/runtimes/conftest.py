"""Every test that takes `engine` runs on each engine that works here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import wasmtime

from twisted_wasmproxy.runtimes import available, get_engine
from twisted_wasmproxy.runtimes.interface import Engine, FunctionType, Instance, Limits, Module

Build = Callable[..., Instance]


@pytest.fixture(params=available())
def engine(request: pytest.FixtureRequest) -> Engine:
    return get_engine(request.param)


def compile_wat(engine: Engine, wat: str) -> Module:
    return engine.load(engine.compile(bytes(wasmtime.wat2wasm(wat))))


@pytest.fixture
def build(engine: Engine) -> Iterator[Build]:
    """Instantiate WAT text; imports are `"module.name": ("i32 i64 -> i32", function)`."""
    instances: list[Instance] = []

    def make(wat: str, imports: dict[str, tuple[str, Callable[..., Any]]] | None = None, **limits: Any) -> Instance:
        linked = {}
        for label, (signature, function) in (imports or {}).items():
            module, name = label.split(".")
            linked[module, name] = (signature_of(signature), function)
        instance = compile_wat(engine, wat).instantiate(linked, Limits(**limits))
        instances.append(instance)
        return instance

    yield make
    for instance in instances:
        instance.close()


def signature_of(text: str) -> FunctionType:
    params, _, results = text.partition("->")
    return FunctionType(tuple(params.split()), tuple(results.split()))


@pytest.fixture(scope="session")
def real_modules() -> list[Path]:
    """Modules that were built with the Go and Rust SDKs, smallest first."""
    import gpustack_higress_plugins

    folder = Path(gpustack_higress_plugins.__file__).parent / "plugins"
    return sorted(folder.glob("*/*/plugin.wasm"), key=lambda path: path.stat().st_size)
