"""What the Proxy-Wasm host asks of a WebAssembly engine: compile, load, link, call, use memory, interrupt."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

__all__ = [
    "LARGE_COPY",
    "CompileError",
    "Engine",
    "Exit",
    "FunctionType",
    "HostFunction",
    "Import",
    "Instance",
    "Limits",
    "LinkError",
    "MemoryFault",
    "Module",
    "RuntimeFault",
    "RuntimeUnavailable",
    "Trap",
]


LARGE_COPY = 16 * 1024
"""Bytes; what copies more to or from a guest's memory looks at the deadline of the call first."""


class RuntimeFault(Exception):
    """Anything that an engine reports."""


class RuntimeUnavailable(RuntimeFault):
    """The engine is not installed here, or does not work here; the text says which ones do."""


class CompileError(RuntimeFault):
    """The bytes are not a module that this engine can compile."""


class LinkError(RuntimeFault):
    """Imports cannot be satisfied; the text lists every one."""


class Trap(RuntimeFault):
    """The guest trapped, ran out of its time or memory, or a host function raised (then it is the cause).

    `timed_out` says that it was interrupted at its deadline. `backtrace` has the guest's frames, innermost
    first, where the engine tells them.
    """

    def __init__(self, text: str, *, timed_out: bool = False, backtrace: tuple[str, ...] = ()) -> None:
        super().__init__(text)
        self.timed_out = timed_out
        self.backtrace = backtrace


class Exit(Exception):
    """Raised by a host function (WASI proc_exit) to unwind the guest; comes out of the call as it is."""

    def __init__(self, code: int) -> None:
        super().__init__(f"proc_exit({code})")
        self.code = code


class MemoryFault(RuntimeFault):
    """An address range outside the guest's memory."""


@dataclass(frozen=True)
class FunctionType:
    """Parameter and result types, each of `i32`, `i64`, `f32`, `f64`."""

    params: tuple[str, ...]
    results: tuple[str, ...]

    def __str__(self) -> str:
        return f"({', '.join(self.params)}) -> ({', '.join(self.results)})"


@dataclass(frozen=True)
class Import:
    """One import of a module. `type` is None for what is not a function (`kind` says what it is)."""

    module: str
    name: str
    kind: str
    type: FunctionType | None


HostFunction = Callable[..., "int | None"]
"""Takes the guest's arguments as unsigned ints (i32 as u32, i64 as u64), returns an int, or None without a result."""


@dataclass(frozen=True)
class Limits:
    """What one instance may use."""

    memory: int = 128 * 1024 * 1024
    """Bytes of linear memory."""
    cpu: float = 1.0
    """Seconds for one call from outside; 0 for no limit."""
    table_elements: int = 1 << 20
    """Elements of one table. An engine that cannot tell tables apart from outside may have a limit of its own."""


class Instance(Protocol):
    """An instantiated module with its own memory. Used from one thread; not re-entered but by host functions."""

    exports: Mapping[str, FunctionType]
    """Exported functions by name."""

    def function(self, name: str) -> Callable[..., int | None]:
        """Return an exported function as a callable, made to be kept and called often.

        It takes ints (any that fit once masked) and returns an unsigned int, or None without a result. Calls from
        outside are held to `Limits.cpu`; a nested one (from a host function) runs in the time of the outer one.

        Raises Trap, Exit; KeyError from `function` itself where there is no such function.
        """

    def memory_size(self) -> int:
        """Return the present size of the memory in bytes (0 without a memory)."""

    def check_deadline(self) -> None:
        """For host functions that work for long: raises Trap where the call has taken longer than `Limits.cpu`.

        Short work needs no such look: an engine that can be interrupted ends an overdue call when the guest goes on.
        """

    def check_range(self, address: int, size: int) -> None:
        """Raises MemoryFault where so many bytes at an address are not in memory."""

    def read(self, address: int, size: int) -> bytes:
        """Return a copy of memory; address and size are unsigned. Raises MemoryFault; Trap as `check_deadline` does."""

    def write(self, address: int, data: bytes) -> None:
        """Raises MemoryFault, and then has written nothing; Trap as `check_deadline` does."""

    def read_u32(self, address: int) -> int:
        """Little-endian, may be unaligned. Raises MemoryFault."""

    def write_u32(self, address: int, value: int) -> None:
        """Little-endian, may be unaligned. Raises MemoryFault."""

    def close(self) -> None:
        """Let go of everything; nothing may be called afterwards."""


class Module(Protocol):
    """Compiled code, to be instantiated any number of times."""

    def instantiate(
        self, imports: Mapping[tuple[str, str], tuple[FunctionType, HostFunction]], limits: Limits
    ) -> Instance:
        """Link and instantiate; a core start section runs now. Raises LinkError, Trap."""


class Engine(Protocol):
    """A WebAssembly engine."""

    name: str
    """`wasmtime`, `wasmer`, ..."""
    version: str
    interruptible: bool
    """Whether `Limits.cpu` holds; where it does not, an endless loop in a module stops the worker."""
    limits_memory: bool
    """Whether `Limits.memory` holds for a module that declares no maximum."""

    def compile(self, wasm: bytes) -> bytes:
        """Return machine code in the engine's serialised form. Safe to call from any thread. Raises CompileError."""

    def load(self, code: bytes) -> Module:
        """Return the module that `compile` made. Raises CompileError where the code is of another version."""
