"""The one way between guest and host functions: addresses become bytes, results guest memory, exceptions statuses.

A host function is served by a plain Python function (`abi.HostImport.server`) that takes the effective context and the
values of its parameters. What it returns:

- a `Status` says how it went; outputs are then not written;
- where there are outputs, a tuple of their values says OK; for one output of bytes, the bytes themselves.

A call crosses here some ten times for each message, so the wrapper of each shape of parameters is written out as Python
source, once, without loops or tests that depend on the shape.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from struct import Struct
from typing import TYPE_CHECKING, Any

from twisted_wasmproxy.logs import Logger
from twisted_wasmproxy.printable import printable
from twisted_wasmproxy.proxywasm.abi import IMPORTS, Errno, HostImport, Kind, Status
from twisted_wasmproxy.runtimes.interface import Exit, FunctionType, HostFunction, Import, MemoryFault, Trap

if TYPE_CHECKING:
    from twisted_wasmproxy.proxywasm.vm import VM

__all__ = ["HostError", "link", "server", "unlinkable"]

_log = Logger()


class HostError(Exception):
    """Raised by a serving function to answer `status`, from wherever it is."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.name)
        self.status = status


def unlinkable(imports: Sequence[Import]) -> list[str]:
    """Return a line for each import that this host cannot satisfy: what is wanted and, where near, what there is."""
    return [problem for item in imports if (problem := _problem(item)) is not None]


def link(
    vm: VM, imports: Sequence[Import], allowed: frozenset[str] | None, lax: bool
) -> dict[tuple[str, str], tuple[FunctionType, HostFunction]]:
    """Return the host functions for the imports of a module, to work on `vm`.

    What is not in `allowed` (None for everything) answers so by its status. With `lax`, unknown functions are
    satisfied by stubs; otherwise they are left out, and the caller has asked `unlinkable` before.
    """
    linked = {}
    for item in imports:
        if item.type is None:
            continue
        entry = IMPORTS.get((item.module, item.name))
        if entry is None or _problem(item) is not None:
            if lax:
                linked[item.module, item.name] = (item.type, _stub(vm, item))
        elif allowed is not None and _restricted(entry) and entry.name not in allowed:
            linked[item.module, item.name] = (item.type, _refusal(entry))
        else:
            linked[item.module, item.name] = (item.type, _host_function(vm, entry))
    return linked


def server(entry: HostImport) -> Callable[..., Any]:
    """Return the Python function that serves an import."""
    topic, _, name = entry.server.partition(".")
    function: Callable[..., Any] = getattr(import_module(f"twisted_wasmproxy.proxywasm.{topic}"), name)
    return function


def _problem(item: Import) -> str | None:
    label = printable(f"{item.module}.{item.name}")
    if item.type is None:
        return f"{label}: a {item.kind} is imported, and this host offers functions only"
    entry = IMPORTS.get((item.module, item.name))
    if entry is None:
        return f"{label} {item.type}: no such host function"
    if item.type.params != entry.params or not (
        item.type.results == entry.results or (entry.results_optional and not item.type.results)
    ):
        return f"{label} {item.type}: the host function is {FunctionType(entry.params, entry.results)}"
    return None


def _restricted(entry: HostImport) -> bool:
    return entry.name.startswith("proxy_") or entry.module != "env"


def _refusal(entry: HostImport) -> HostFunction:
    answer = Status.INTERNAL_FAILURE if entry.module == "env" else Errno.NOTCAPABLE
    value = int(answer) if entry.results else None

    def refused(*args: int) -> int | None:
        return value

    return refused


def _stub(vm: VM, item: Import) -> HostFunction:
    label = printable(f"{item.module}.{item.name}")
    answers = {"env": Status.UNIMPLEMENTED} | dict.fromkeys(("wasi_snapshot_preview1", "wasi_unstable"), Errno.NOSYS)
    known = item.module != "env" or item.name.startswith("proxy_")
    answer = answers.get(item.module) if known else None
    assert item.type is not None
    answers_status = answer is not None and item.type.results == ("i32",)
    warned = False

    def stub(*args: int) -> int | None:
        nonlocal warned
        if not warned:
            warned = True
            _log.warn("{vm}: {label} was called; it is unknown here", vm=vm.name, label=label)
        if answers_status and answer is not None:
            return int(answer)
        raise Trap(f"unknown host function {label} called")

    return stub


def _host_function(vm: VM, entry: HostImport) -> HostFunction:
    if entry.raw:
        make = _raw_wrapper(len(entry.params))
        fault: int = Status.INVALID_MEMORY if entry.module == "env" else Errno.FAULT
        failure: int = Status.INTERNAL_FAILURE if entry.module == "env" else Errno.NOSYS
    else:
        make = _wrapper(entry.parameters, entry.probe, entry.sizes, entry.too_large)
        fault, failure = Status.INVALID_MEMORY, Status.INTERNAL_FAILURE
    wrapped: HostFunction = make(vm, server(entry), int(fault), int(failure), entry.name)
    if entry.results:
        return wrapped

    def without_result(*args: int) -> None:
        wrapped(*args)

    return without_result


def _report(vm: VM, name: str) -> None:
    _log.failure("{vm}: {name} failed", vm=vm.name, name=name)


_TEMPLATE = """
def make(vm, serve, fault, failure, name):
    def host_function({arguments}):
        try:
            {probes}
            result = serve(vm.effective{values})
            {outputs}
        except MemoryFault:
            return fault
        except HostError as error:
            return int(error.status)
        except (Exit, Trap):
            raise
        except Exception:  # our own failure: told in the log, and to the guest as a status
            report(vm, name)
            return failure
    return host_function
"""

_NAMES = {
    "Exit": Exit,
    "HostError": HostError,
    "MemoryFault": MemoryFault,
    "Trap": Trap,
    "pack": Struct("<II").pack,
    "report": _report,
}


@cache
def _wrapper(
    parameters: tuple[Kind, ...], probe: bool, sizes: tuple[int, ...], too_large: Status | None
) -> Callable[..., HostFunction]:
    """Return the maker of wrappers for this shape of parameters."""
    most = iter(sizes)
    arguments: list[str] = []
    values: list[str] = []
    outputs: list[tuple[Kind, list[str]]] = []
    for kind in parameters:
        names = [f"a{len(arguments) + index}" for index in range(len(kind.wire))]
        arguments += names
        if kind is Kind.BYTES:
            values.append(_bytes(names[0], names[1], next(most), too_large))
        elif kind is Kind.S64:
            values.append(f"({names[0]} ^ 0x8000000000000000) - 0x8000000000000000")
        elif kind in (Kind.U32, Kind.U64):
            values.append(names[0])
        else:
            outputs.append((kind, names))
    return _compiled(
        arguments=", ".join(arguments),
        values="".join(f", {value}" for value in values),
        probes="\n".join(_probes(outputs)) if probe else "",
        outputs="\n".join(_stores(outputs)),
    )


def _bytes(address: str, size: str, most: int, too_large: Status | None) -> str:
    """Return what reads an argument whose size is looked at first."""
    otherwise = f"vm.cut({address}, {size}, {most})"
    if too_large is not None:
        otherwise = f"vm.too_large({address}, {size}, {int(too_large)})"
    return f"vm.read({address}, {size}) if {size} <= {most} else {otherwise}"


def _probes(outputs: list[tuple[Kind, list[str]]]) -> list[str]:
    lines = []
    for kind, names in outputs:
        lines += [f"vm.read({name}, {8 if kind is Kind.OUT_U64 else 4})" for name in names]
    return lines


def _stores(outputs: list[tuple[Kind, list[str]]]) -> list[str]:
    if not outputs:
        return ["return result"]
    if [kind for kind, _ in outputs] == [Kind.OUT_BYTES]:
        lines = ["if result.__class__ is not bytes:", "    return result"]
        results = ["result"]
    else:
        lines = ["if result.__class__ is not tuple:", "    return result"]
        results = [f"r{index}" for index in range(len(outputs))]
        lines.append(f"{', '.join(results)}, = result")
    for result, (kind, names) in zip(results, outputs, strict=True):
        if kind is Kind.OUT_BYTES:
            lines += [
                f"size = len({result})",
                "if size:",
                "    effective = vm.effective",  # VM.allocate, written out
                "    vm.effective = vm.allocator",
                "    address = vm.malloc(size)",
                "    vm.effective = effective",
                "    if not address:",
                "        return fault",
                f"    vm.write(address, {result})",
                "else:",
                "    address = 0",
                f"if {names[1]} == {names[0]} + 4:",
                f"    vm.write({names[0]}, pack(address, size))",
                "else:",
                f"    vm.write_u32({names[0]}, address)",
                f"    vm.write_u32({names[1]}, size)",
            ]
        elif kind is Kind.OUT_U32:
            lines.append(f"vm.write_u32({names[0]}, {result})")
        else:
            lines.append(f"vm.write({names[0]}, ({result}).to_bytes(8, 'little'))")
    lines.append("return 0")
    return lines


@cache
def _raw_wrapper(arity: int) -> Callable[..., HostFunction]:
    names = [f"a{index}" for index in range(arity)]
    return _compiled(
        arguments=", ".join(names),
        values="".join(f", {name}" for name in names),
        probes="",
        outputs="return int(result)",
    )


def _compiled(**parts: str) -> Callable[..., HostFunction]:
    indented = {key: text.replace("\n", "\n" + " " * 12) for key, text in parts.items()}
    namespace: dict[str, Any] = dict(_NAMES)
    # The text is made of names and constants of this file only.
    exec(_TEMPLATE.format(**indented), namespace)  # noqa: S102
    make: Callable[..., HostFunction] = namespace["make"]
    return make
