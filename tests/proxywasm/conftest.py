"""Engines, and a host with plugins made of test guests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher

from tests.proxywasm.guest import Guest, assemble
from tests.proxywasm.stream import Stream
from twisted_wasmproxy import logs
from twisted_wasmproxy.config.model import VMConfig, WasmFilterConfig
from twisted_wasmproxy.http.messages import Request
from twisted_wasmproxy.proxywasm import PluginSet, WasmHost
from twisted_wasmproxy.proxywasm.abi import LogLevel
from twisted_wasmproxy.proxywasm.plugin import Plugin
from twisted_wasmproxy.proxywasm.vm import VM
from twisted_wasmproxy.runtimes import available

VM_OPTIONS = (
    "vm_id",
    "environment",
    "cpu_limit",
    "memory_limit",
    "host_memory_limit",
    "lax_imports",
    "runtime",
    "allow_precompiled",
    "restart",
)


class Loaded:
    """One started plugin."""

    def __init__(self, host: WasmHost, plugins: PluginSet) -> None:
        self.host = host
        self.set = plugins
        self.plugin: Plugin = plugins.plugins[0]

    @property
    def vm(self) -> VM:
        assert self.plugin.root is not None
        return self.plugin.root.vm

    def stream(self, request: Request | None = None, attributes: Any = None) -> Stream:
        stream = Stream(request, attributes)
        stream.filter = self.plugin.create(stream)
        return stream


class Bench:
    """A host on a clock that tests move, and what it has logged."""

    def __init__(self, engine: str, folder: Path) -> None:
        self.engine = engine
        self.folder = folder
        self.clock = Clock()
        self.level = LogLevel.DEBUG
        self.node: dict[str, object] = {}
        self.host = WasmHost(self.clock, log_level=lambda namespace: self.level, node=self.node)
        self.events: list[Any] = []
        self._files = 0

    def config(
        self, guest: Guest | str | bytes | Path, *, vm_configuration: bytes = b"", **options: Any
    ) -> WasmFilterConfig:
        """Return the configuration of a plugin made of this guest."""
        if isinstance(guest, Path):
            file = guest
        else:
            wasm = guest if isinstance(guest, bytes) else assemble(guest.wat if isinstance(guest, Guest) else guest)
            self._files += 1
            file = self.folder / f"guest{self._files}.wasm"
            file.write_bytes(wasm)
        vm = {name: options.pop(name) for name in VM_OPTIONS if name in options}
        vm.setdefault("runtime", self.engine)
        return WasmFilterConfig(VMConfig(file, configuration=vm_configuration, **vm), **options)

    def load(self, guest: Guest | str | bytes | Path, **options: Any) -> Loaded:
        """Start a plugin made of this guest. Raises PluginError."""
        return self.start(self.config(guest, **options))

    def start(self, *configs: WasmFilterConfig) -> Loaded:
        return Loaded(self.host, self.host.start([self.host.prepare(config) for config in configs]))

    def stream(self, guest: Guest | str, request: Request | None = None, attributes: Any = None, **options: Any) -> Any:
        """Start a plugin and return (it, a new stream)."""
        loaded = self.load(guest, **options)
        return loaded, loaded.stream(request, attributes)

    def lines(self) -> list[tuple[str, str]]:
        """Return (level, text) of what guests have logged."""
        return [(event["wasm_level"], event["message"]) for event in self.events if "wasm_level" in event]

    def texts(self) -> list[str]:
        """Return everything that was logged, formatted."""
        from twisted.logger import formatEvent

        return [formatEvent(event) for event in self.events]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "real_modules: loads the big modules of a package; slow the first time")


@pytest.fixture(params=available())
def engine(request: pytest.FixtureRequest) -> str:
    """Each engine that works here."""
    name: str = request.param
    return name


@pytest.fixture
def bench(engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    # A test is told of a failure that another has logged just before, with another engine.
    monkeypatch.setattr(logs, "_failures", logs._Failures())
    bench = Bench(engine, tmp_path)
    globalLogPublisher.addObserver(bench.events.append)
    yield bench
    globalLogPublisher.removeObserver(bench.events.append)
    bench.host.stop()
