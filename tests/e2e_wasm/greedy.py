"""Modules that ask the host for as much as they can, in WAT: a loop of one host call in one callback."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import wasmtime

from twisted_wasmproxy.proxywasm.abi import IMPORTS

__all__ = ["KEY", "OUT", "TEXT", "greedy"]

KEY = 0xFFF8
"""Address of eight letters that are others in each round of the loop; `TEXT` comes right after them."""
TEXT = 0x10000
"""Address of as many letters as fit."""
OUT = 64
"""Address of room for what a call gives back."""
_ALLOCATED = 1024


def greedy(
    file: Path,
    calls: Sequence[tuple[str, Sequence[int | str]]],
    rounds: int,
    *,
    on: str = "request_headers",
    pages: int = 128,
    letter: str = "v",
    before: str = "",
    fields: str = "",
) -> Path:
    """Write a module that makes these calls so many times in each of its callbacks `on`.

    Arguments are numbers or WAT; `OUT` is the address of slots. The module has so many pages of memory from the start,
    full of `letter` behind `TEXT`. `before` is done once before the loop; `fields` are further fields of the module.
    """
    imports = []
    steps = []
    for name, arguments in calls:
        entry = IMPORTS["wasi_snapshot_preview1" if name == "fd_write" else "env", name]
        line = f'(import "{entry.module}" "{name}" (func ${name} {_types("param", entry.params)} (result i32)))'
        if line not in imports:
            imports.append(line)
        operands = " ".join(
            f"({kind}.const {argument})" if isinstance(argument, int) else argument
            for kind, argument in zip(entry.params, arguments, strict=True)
        )
        steps.append(f"(drop (call ${name} {operands}))")
    count = {"request_headers": 3, "response_headers": 3, "response_body": 3, "tick": 1}[on]
    params = "(param i32) " * count
    result = "(result i32)" if on != "tick" else ""
    last = "(i32.const 0)" if on != "tick" else ""
    wat = f"""(module
{chr(10).join(imports)}
(memory (export "memory") {pages})
{fields}
(func (export "proxy_abi_version_0_2_1"))
(func (export "malloc") (param i32) (result i32) (i32.const {_ALLOCATED}))
(func (export "proxy_on_vm_start") (param i32 i32) (result i32)
  (memory.fill (i32.const {TEXT}) (i32.const {ord(letter)}) (i32.const {pages * 65536 - TEXT})) (i32.const 1))
(func (export "proxy_on_{on}") {params} {result} (local $n i32) (local $i i32) (local $k i32)
  {before}
  (loop $again
    (local.set $k (local.get $n))
    (local.set $i (i32.const 0))
    (loop $digits
      (i32.store8 (i32.add (i32.const {KEY}) (local.get $i))
        (i32.add (i32.const 97) (i32.and (local.get $k) (i32.const 15))))
      (local.set $k (i32.shr_u (local.get $k) (i32.const 4)))
      (br_if $digits (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 8))))
    {" ".join(steps)}
    (br_if $again (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const {rounds}))))
  {last}))"""
    file.write_bytes(wasmtime.wat2wasm(wat))
    return file


def _types(word: str, types: Sequence[str]) -> str:
    return f"({word} {' '.join(types)})" if types else ""
