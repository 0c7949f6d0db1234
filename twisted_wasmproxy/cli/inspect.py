"""`wasmproxy inspect`: what a module needs, offers and lacks, without running it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from twisted_wasmproxy.cli.sdk import recognise
from twisted_wasmproxy.printable import printable
from twisted_wasmproxy.proxywasm.abi import CALLBACKS, IMPORTS, MARKERS
from twisted_wasmproxy.proxywasm.linker import unlinkable
from twisted_wasmproxy.proxywasm.module import callback_problems, detect_version
from twisted_wasmproxy.runtimes.binary import PAGE, Export, ModuleInfo, read_module
from twisted_wasmproxy.runtimes.interface import CompileError, FunctionType, Import

__all__ = ["describe", "inspect", "run"]

SERVED, NOT_YET, UNKNOWN, WRONG_TYPE = "served", "not served yet", "unknown", "wrong type"
CALLED, NOT_CALLED, OTHER = "called", "not called yet", "other"

_ALLOCATORS = ("proxy_on_memory_allocate", "malloc")
_STARTS = {
    "_initialize": FunctionType((), ()),
    "main": FunctionType(("i32", "i32"), ("i32",)),
    "__main_void": FunctionType((), ("i32",)),
    "_start": FunctionType((), ()),
}
_TAKES_BYTES = ("get_buffer_bytes", "get_header_map", "get_property", "get_shared_data", "dequeue", "get_configuration")
"""Parts of the names of host functions that put bytes into guest memory, for which the guest's allocator is needed."""


def run(files: Sequence[Path], *, as_json: bool) -> int:
    """Print what the modules are; return the exit status."""
    reports = [inspect(file) for file in files]
    if as_json:
        print(json.dumps(reports if len(reports) > 1 else reports[0], indent=2))
    else:
        for report in reports:
            print("\n".join(map(printable, _lines(report))))
    return 0 if all(report["usable"] for report in reports) else 1


def inspect(file: Path) -> dict[str, Any]:
    """Return the report on a file, as it goes out as JSON."""
    try:
        wasm = file.read_bytes()
        info = read_module(wasm)
    except OSError as error:
        return {"file": str(file), "usable": False, "problems": [f"cannot be read: {error.strerror}"]}
    except CompileError as error:
        return {"file": str(file), "usable": False, "problems": [str(error)]}
    return {"file": str(file), **describe(info, wasm)}


def describe(info: ModuleInfo, wasm: bytes) -> dict[str, Any]:
    """Return the report on a module; `info` is what was read from `wasm`."""
    problems = []
    try:
        version: str | None = str(detect_version(info))
    except ValueError as error:
        version = None
        problems.append(str(error))
    problems += [f"cannot link {problem}" for problem in unlinkable(info.imports)]
    problems += callback_problems(info)
    functions = info.function_exports
    allocator = next((name for name in _ALLOCATORS if functions.get(name) == FunctionType(("i32",), ("i32",))), None)
    if allocator is None and any(part in item.name for item in info.imports for part in _TAKES_BYTES):
        problems.append(f"exports no allocator, {' or '.join(_ALLOCATORS)}, but asks for data")
    if not any(export.kind == "memory" for export in info.exports):
        problems.append("exports no memory")
    return {
        "usable": not problems,
        "problems": problems,
        "abi": version,
        "built_with": recognise(info, wasm),
        "imports": [_import(item) for item in info.imports],
        "exports": [_export(export) for export in info.exports],
        "allocator": allocator,
        "start": [name for name, wanted in _STARTS.items() if functions.get(name) == wanted],
        "start_section": info.start is not None,
        "memory": [
            {
                "minimum": memory.minimum * PAGE,
                "maximum": None if memory.maximum is None else memory.maximum * PAGE,
                "imported": memory.imported,
            }
            for memory in info.memories
        ],
        "functions": info.functions,
        "size": {
            "file": info.size,
            "code": info.code_size,
            "data": info.data_size,
            "custom": {section.name: section.size for section in info.custom},
        },
    }


def _import(item: Import) -> dict[str, str]:
    entry = IMPORTS.get((item.module, item.name))
    if entry is None:
        state = UNKNOWN
    elif unlinkable([item]):
        state = WRONG_TYPE
    else:
        state = SERVED if entry.stable else NOT_YET
    return {
        "module": item.module,
        "name": item.name,
        "type": str(item.type) if item.type is not None else item.kind,
        "state": state,
    }


def _export(export: Export) -> dict[str, str]:
    callback = CALLBACKS.get(export.name)
    if export.name in MARKERS:
        state = "version"
    elif export.type is None:
        state = export.kind
    elif callback is not None:
        fits = callback.fits(export.type.params, export.type.results)
        state = WRONG_TYPE if not fits else CALLED if callback.called else NOT_CALLED
    elif export.name in _ALLOCATORS:
        state = "allocator"
    elif export.name in _STARTS:
        state = "start"
    else:
        state = OTHER
    return {"name": export.name, "type": str(export.type or export.kind), "state": state}


# As text


def _lines(report: dict[str, Any]) -> Iterator[str]:
    yield f"{report['file']}:"
    if "abi" in report:
        yield from _facts(report)
        yield from _table("imports", report["imports"], (SERVED, NOT_YET, WRONG_TYPE, UNKNOWN))
        yield from _table("exports", report["exports"], ())
    if report["usable"]:
        yield "  can be loaded"
    else:
        yield "  cannot be loaded:"
        yield from (f"    {problem}" for problem in report["problems"])


def _facts(report: dict[str, Any]) -> Iterator[str]:
    size = report["size"]
    start = [*(["start section"] if report["start_section"] else []), *report["start"]]
    custom = ", ".join(f"{name} {_size(number)}" for name, number in size["custom"].items())
    yield f"  ABI          {report['abi'] or 'no version marker'}"
    yield f"  built with   {report['built_with'] or 'not recognised'}"
    yield (
        f"  size         {_size(size['file'])}: code {_size(size['code'])} in {report['functions']} functions, "
        f"data {_size(size['data'])}{f'; custom sections: {custom}' if custom else ''}"
    )
    for memory in report["memory"]:
        limit = "no maximum" if memory["maximum"] is None else f"at most {_size(memory['maximum'])}"
        yield f"  memory       {_size(memory['minimum'])} at first, {limit}{', imported' if memory['imported'] else ''}"
    yield f"  start        {', '.join(start) or 'none'}"
    yield f"  allocator    {report['allocator'] or 'none'}"


def _table(title: str, rows: Sequence[dict[str, str]], states: Sequence[str]) -> Iterator[str]:
    counts = {state: sum(row["state"] == state for row in rows) for state in states}
    summary = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    yield f"  {title}      {len(rows)}{f': {summary}' if summary else ''}"
    labels = [printable(f"{row['module']}.{row['name']}" if "module" in row else row["name"]) for row in rows]
    width = max(map(len, labels), default=0)
    for label, row in sorted(zip(labels, rows, strict=True), key=lambda pair: pair[0]):
        yield f"    {label:{width}}  {row['state']:{len(NOT_YET)}}  {row['type']}"


def _size(number: int) -> str:
    for unit, factor in (("MiB", 1024 * 1024), ("KiB", 1024)):
        if number >= factor:
            return f"{number / factor:.1f} {unit}"
    return f"{number} bytes"
