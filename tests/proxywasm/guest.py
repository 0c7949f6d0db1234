"""Builds small guest modules in WAT: callbacks that make host calls, and leave a trace that the test reads from memory.

guest = Guest("0.2.1")
path = guest.call("proxy_get_header_map_value", 0, b":path", OUT_BYTES)
guest.on("proxy_on_request_headers", path, result=0)
...
assert path.status(vm) == 0 and path.value(vm) == b"/"
assert guest.trace(vm) == [("proxy_on_request_headers", 2, 4, 1)]
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING

from twisted_wasmproxy.proxywasm.abi import CALLBACKS, IMPORTS

if TYPE_CHECKING:
    from twisted_wasmproxy.proxywasm.vm import VM

UNSET = 0xEEEEEEEE
"""What output slots and statuses hold before a call has written them."""

_TRACE_COUNT = 16
_TRACE = 0x1000
_TRACE_ENTRY = 32
_TRACE_ROOM = 400
_COUNTERS = 0x5000
_RESULTS = 0x6000
_DATA = 0x8000
_HEAP = 0x40000
_PAGES = 8


class Out(Enum):
    """An output parameter."""

    BYTES = 2
    U32 = 1
    U64 = 8


OUT_BYTES, OUT_U32, OUT_U64 = Out.BYTES, Out.U32, Out.U64


class Call:
    """One host call in a guest, and where it leaves what came of it."""

    def __init__(self, guest: Guest, name: str, module: str, args: Sequence[int | bytes | Out | str]) -> None:
        self.entry = IMPORTS[module, name]
        guest.imports[module, name] = self.entry.params, self.entry.results
        self._status = guest.slot()
        self._outs: list[tuple[Out, int]] = []
        operands: list[str] = []
        for arg in args:
            if isinstance(arg, bytes):
                address, size = guest.data(arg)
                operands += [f"(i32.const {address})", f"(i32.const {size})"]
            elif isinstance(arg, Out):
                first = guest.slot(4 if arg is OUT_U32 else 8)
                self._outs.append((arg, first))
                operands.append(f"(i32.const {first})")
                if arg is OUT_BYTES:
                    operands.append(f"(i32.const {first + 4})")
            elif isinstance(arg, str):
                operands.append(arg)
            else:
                operands.append(f"({self.entry.params[len(operands)]}.const {arg})")
        assert len(operands) == len(self.entry.params), f"{name} takes {self.entry.params}"
        called = f"(call ${module}.{name} {' '.join(operands)})"
        self.code = f"(i32.store (i32.const {self._status}) {called})" if self.entry.results else called

    def status(self, vm: VM) -> int:
        """Return what the call answered, or UNSET."""
        return vm.read_u32(self._status)

    def value(self, vm: VM, index: int = 0) -> int | bytes:
        """Return an output."""
        kind, address = self._outs[index]
        if kind is OUT_BYTES:
            return vm.read(vm.read_u32(address), vm.read_u32(address + 4))
        return int.from_bytes(vm.read(address, 4 if kind is OUT_U32 else 8), "little")

    def slots(self, vm: VM, index: int = 0) -> tuple[int, int]:
        """Return both slots of an output of bytes as they are."""
        address = self._outs[index][1]
        return vm.read_u32(address), vm.read_u32(address + 4)


Step = Call | str


class Guest:
    """A module in the making."""

    def __init__(self, version: str = "0.2.1", *, allocator: str | None = "proxy_on_memory_allocate") -> None:
        self.version = version
        self.allocator = allocator
        self.allocate = "(local.set $p (global.get $heap))" + (
            "(global.set $heap (i32.and (i32.add (i32.add (local.get $p) (local.get 0)) (i32.const 7)) (i32.const -8)))"
        )
        self.imports: dict[tuple[str, str], tuple[tuple[str, ...], tuple[str, ...]]] = {}
        self.extra = ""
        """Further WAT fields."""
        self._data: list[bytes] = []
        self._data_end = _DATA
        self._results = _RESULTS
        self._functions: list[str] = []
        self._names: list[str] = []

    def data(self, value: bytes) -> tuple[int, int]:
        """Put bytes into the module, and return their address and size."""
        address = self._data_end
        self._data.append(value)
        self._data_end += len(value)
        return address, len(value)

    def slot(self, size: int = 4) -> int:
        """Return the address of room for a result."""
        address = self._results
        self._results += size
        return address

    def call(self, name: str, *args: int | bytes | Out | str, module: str = "env") -> Call:
        """Return a host call: bytes stand for address and size, `OUT_*` for slots, a str for WAT."""
        return Call(self, name, module, args)

    def on(
        self,
        name: str,
        *steps: Step,
        result: int | Sequence[int] | None = None,
        params: int | None = None,
        nth: dict[int, Sequence[Step]] | None = None,
    ) -> None:
        """Export a callback that leaves a trace, takes `steps` and returns `result` (of a row, one each time).

        `nth` has steps for the first (0), second... time only.
        """
        callback = CALLBACKS.get(name)
        count = params if params is not None else callback.arities[0] if callback else 0
        returns = callback.result if callback else result is not None
        index = len(self._names)
        self._names.append(name)
        counter = _COUNTERS + 4 * index
        body = [f"(call $trace (i32.const {index}) {' '.join(self._padded(count))})"]
        body += [step if isinstance(step, str) else step.code for step in steps]
        for number, rest in (nth or {}).items():
            inner = " ".join(step if isinstance(step, str) else step.code for step in rest)
            body.append(f"(if (i32.eq (i32.load (i32.const {counter})) (i32.const {number})) (then {inner}))")
        body.append(f"(i32.store (i32.const {counter}) (i32.add (i32.load (i32.const {counter})) (i32.const 1)))")
        if returns:
            default = callback.default if callback else 0
            row = [default] if result is None else [result] if isinstance(result, int) else list(result)
            address, _ = self.data(b"".join(item.to_bytes(4, "little") for item in row))
            body.append(
                f"(local.set $i (i32.sub (i32.load (i32.const {counter})) (i32.const 1)))"
                f"(i32.load (i32.add (i32.const {address}) (i32.mul (i32.const 4) (select (local.get $i)"
                f" (i32.const {len(row) - 1}) (i32.lt_u (local.get $i) (i32.const {len(row)}))))))"
            )
        signature = " (param i32)" * count + (" (result i32)" if returns else "")
        self._functions.append(f'(func (export "{name}"){signature} (local $i i32)\n  ' + "\n  ".join(body) + ")")

    def trace(self, vm: VM) -> list[tuple[str | int, ...]]:
        """Return the callbacks that have been called, with their arguments."""
        entries: list[tuple[str | int, ...]] = []
        for position in range(vm.read_u32(_TRACE_COUNT)):
            at = _TRACE + _TRACE_ENTRY * position
            name = self._names[vm.read_u32(at)]
            entries.append((name, *(vm.read_u32(at + 8 + 4 * n) for n in range(vm.read_u32(at + 4)))))
        return entries

    def names(self, vm: VM) -> list[str]:
        """Return the names of the callbacks that have been called, without `proxy_on_`."""
        return [str(name).removeprefix("proxy_on_") for name, *_ in self.trace(vm)]

    @property
    def wat(self) -> str:
        """The text of the module."""
        imports = "\n".join(
            f'(import "{module}" "{name}" (func ${module}.{name}{_types("param", params)}{_types("result", results)}))'
            for (module, name), (params, results) in self.imports.items()
        )
        marker = f'(func (export "proxy_abi_version_{self.version.replace(".", "_")}"))' if self.version else ""
        allocator = (
            f'(func (export "{self.allocator}") (param i32) (result i32) (local $p i32) {self.allocate} (local.get $p))'
            if self.allocator
            else ""
        )
        content = "".join(f"\\{byte:02x}" for byte in b"".join(self._data))
        unset = "\\ee" * (self._results - _RESULTS)
        functions = "\n".join(self._functions)
        return f"""(module
{imports}
(memory (export "memory") {_PAGES})
(global $heap (mut i32) (i32.const {_HEAP}))
(data (i32.const {_RESULTS}) "{unset}")
(data (i32.const {_DATA}) "{content}")
(func $trace (param i32 i32 i32 i32 i32) (local $at i32)
  (local.set $at (i32.load (i32.const {_TRACE_COUNT})))
  (if (i32.ge_u (local.get $at) (i32.const {_TRACE_ROOM})) (then (return)))
  (i32.store (i32.const {_TRACE_COUNT}) (i32.add (local.get $at) (i32.const 1)))
  (local.set $at (i32.add (i32.const {_TRACE}) (i32.mul (local.get $at) (i32.const {_TRACE_ENTRY}))))
  (i32.store (local.get $at) (local.get 0))
  (i32.store offset=4 (local.get $at) (local.get 1))
  (i32.store offset=8 (local.get $at) (local.get 2))
  (i32.store offset=12 (local.get $at) (local.get 3))
  (i32.store offset=16 (local.get $at) (local.get 4)))
{marker}
{allocator}
{functions}
{self.extra}
)"""

    @staticmethod
    def _padded(count: int) -> list[str]:
        values = [f"(local.get {n})" for n in range(min(count, 3))]
        return [f"(i32.const {min(count, 3)})", *values, *["(i32.const 0)"] * (3 - len(values))]


def _types(word: str, types: Sequence[str]) -> str:
    return f" ({word} {' '.join(types)})" if types else ""


def assemble(wat: str) -> bytes:
    """Return the binary form of a module's text."""
    try:
        from wasmtime import wat2wasm
    except ImportError:
        from wasmer import wat2wasm
    return bytes(wat2wasm(wat))


__all__ = ["OUT_BYTES", "OUT_U32", "OUT_U64", "UNSET", "Call", "Guest", "assemble"]
