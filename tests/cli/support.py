"""Modules for the command to judge, and the command itself as a subprocess."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import wasmtime

ROOT = Path(__file__).parents[2]
C_EXAMPLE = ROOT / "examples" / "c_headers" / "headers.wasm"
AS_EXAMPLE = ROOT / "examples" / "as_body" / "redact.wasm"

MARKER = '(func (export "proxy_abi_version_0_2_1"))'
MEMORY = '(memory (export "memory") 1 4)'
ALLOCATOR = '(func (export "proxy_on_memory_allocate") (param i32) (result i32) i32.const 1024)'
ANSWER = '(func (export "{0}") (param i32 i32) (result i32) {1})'


def module(folder: Path, name: str, *parts: str) -> Path:
    """Write a module of WAT parts."""
    path = folder / name
    path.write_bytes(wasmtime.wat2wasm(f"(module {' '.join(parts)})"))
    return path


NASTY = "\x1b]0;owned\x07\r\x9b31m\u202e\n  can be loaded"
"""A name that steers a terminal, and forges a line."""


def nasty_module(folder: Path, name: str = "nasty.wasm") -> Path:
    """Write a module whose imports, exports and custom sections have that name."""
    text = "".join(f"\\{byte:02x}" for byte in NASTY.encode())
    return module(
        folder,
        name,
        f'(import "{text}" "{text}" (func)) (import "env" "{text}" (global i32))',
        f'(@custom "{text}" "x") (@producers (language "{text}" "{text}"))',
        MEMORY,
        MARKER,
        ALLOCATOR,
        f'(func (export "{text}"))',
    )


def good_module(folder: Path, name: str = "good.wasm") -> Path:
    return module(folder, name, MEMORY, MARKER, ALLOCATOR)


def wasmproxy(*arguments: str | Path, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
    """Run the command, as installed."""
    command = Path(sys.executable).with_name("wasmproxy")
    return subprocess.run(
        [command, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        stdin=subprocess.DEVNULL,
    )
