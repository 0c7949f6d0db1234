"""A module made ready: read, checked against the ABI and compiled. All of it may be done in any thread."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from twisted_wasmproxy.logs import Logger
from twisted_wasmproxy.printable import printable
from twisted_wasmproxy.proxywasm.abi import CALLBACKS, MARKERS, Version
from twisted_wasmproxy.proxywasm.errors import PluginError
from twisted_wasmproxy.proxywasm.linker import unlinkable
from twisted_wasmproxy.proxywasm.start_section import EXPORT, export_start
from twisted_wasmproxy.runtimes.binary import ModuleInfo, Table, read_module
from twisted_wasmproxy.runtimes.interface import CompileError, Engine, FunctionType, Import, Module

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Options", "ProxyModule", "callback_problems", "detect_version", "load"]

_log = Logger()

DEFAULT_HOST_MEMORY = 32 * 1024 * 1024
"""Bytes; less for modules whose own memory is smaller."""


@dataclass(frozen=True)
class Options:
    """How a VM is to be made; VMs are shared by plugins whose module and options are the same."""

    vm_id: str = ""
    configuration: bytes = b""
    environment: tuple[tuple[str, str], ...] = ()
    cpu_limit: float = 1.0
    """Seconds for one callback; 0 for none."""
    memory_limit: int = 128 * 1024 * 1024
    """Bytes."""
    host_memory_limit: int | None = None
    """Bytes; None for the default."""
    lax_imports: bool = False
    capabilities: frozenset[str] | None = None
    """Imports and callbacks that are allowed; None for all."""
    traps: int = 1000
    """How many in `traps_within` seconds are made good at once."""
    traps_within: float = 60.0
    spare: bool = True
    """Whether a second VM stands by for the first to fail."""

    @property
    def host_memory(self) -> int:
        """Bytes that the host may keep for the VMs."""
        if self.host_memory_limit is not None:
            return self.host_memory_limit
        return min(self.memory_limit, DEFAULT_HOST_MEMORY)


@dataclass(frozen=True)
class ProxyModule:
    """A compiled Proxy-Wasm module with the options of its VMs."""

    file: str
    name: str
    """For log lines."""
    options: Options
    version: Version
    imports: tuple[Import, ...]
    tables: tuple[Table, ...]
    code: Module
    start_function: str | None
    """Export that is to be called first."""
    key: str
    """The same for equal code, engine and options."""


def load(
    file: Path, options: Options, engine: Engine, compile_module: Callable[[Engine, bytes], Module]
) -> ProxyModule:
    """Read, check and compile a module. Raises PluginError with everything that is wrong with it."""
    try:
        wasm = file.read_bytes()
    except OSError as error:
        raise PluginError(str(file), f"cannot be read: {error.strerror}") from error
    try:
        info = read_module(wasm)
        version = detect_version(info)
        problems = [f"cannot link {problem}" for problem in unlinkable(info.imports)] + callback_problems(info)
        if problems and not options.lax_imports:
            raise PluginError(str(file), "; ".join(problems))
        for problem in problems:
            _log.warn("{file}: {problem}", file=str(file), problem=problem)
        start_function = None
        code = wasm
        if info.start is not None:
            code, start_function = export_start(wasm, info.start), EXPORT
        module = compile_module(engine, code)
    except (CompileError, ValueError) as error:
        raise PluginError(str(file), printable(str(error))) from error
    return ProxyModule(
        file=str(file),
        name=file.stem,
        options=options,
        version=version,
        imports=info.imports,
        tables=info.tables,
        code=module,
        start_function=start_function,
        key=_key(wasm, engine, options),
    )


def detect_version(info: ModuleInfo) -> Version:
    """Return the version that a module announces, the first in the order of its exports. Raises ValueError."""
    for export in info.exports:
        if export.name in MARKERS and export.type == FunctionType((), ()):
            return MARKERS[export.name]
    odd = [f"{export.name}, but as a {export.kind}" for export in info.exports if export.name in MARKERS]
    found = f"; it exports {', '.join(odd)}" if odd else ""
    raise ValueError(f"not a Proxy-Wasm module: it exports no function {' or '.join(MARKERS)}{found}")


def callback_problems(info: ModuleInfo) -> list[str]:
    """Return a line for each callback that is exported with a type that the ABI does not have."""
    problems = []
    for name, found in info.function_exports.items():
        callback = CALLBACKS.get(name)
        if callback is not None and callback.called and not callback.fits(found.params, found.results):
            wanted = FunctionType(("i32",) * callback.arities[0], ("i32",) if callback.result else ())
            problems.append(f"exports {name} {found}, which should be {wanted}")
    return problems


def _key(wasm: bytes, engine: Engine, options: Options) -> str:
    # Traffic Server and Envoy share by VM id, configuration and code; what else tells VMs apart here is theirs too.
    capabilities = None if options.capabilities is None else sorted(options.capabilities)
    limits = (options.cpu_limit, options.memory_limit, options.host_memory)
    restart = (options.traps, options.traps_within, options.spare)
    rest = (options.environment, *limits, options.lax_imports, capabilities, *restart)
    parts = (options.vm_id.encode(), options.configuration, wasm, engine.name.encode(), repr(rest).encode())
    digest = sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()
