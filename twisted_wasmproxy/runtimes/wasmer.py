"""Wasmer 1.1 with Cranelift, through its Python package, which works on CPython 3.10 and not on later versions.

What the package does not do is made up for here:

- Compiling holds the interpreter's lock. A big module is compiled in a process of its own.
- Its objects may be used only in the thread that made them. A module is loaded where it is first instantiated.
- Loading code that is cut off or altered crashes the process. Code carries its digest.
- A memory that a module makes can grow to 4 GiB. The module is rewritten to import its memory, and we make it.
- Tables can grow as far. The module is rewritten to declare a maximum for each.
- Integers are signed. They are converted on both ways.

A running guest cannot be interrupted, but the host functions that it calls hold to its time.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from functools import cached_property
from math import inf
from time import monotonic
from typing import Any

import wasmer
from wasmer_compiler_cranelift import Compiler

from twisted_wasmproxy.runtimes.binary import PAGE, import_memory, limit_tables
from twisted_wasmproxy.runtimes.faults import BACKTRACE_FRAMES, one_line, overdue, surfaced
from twisted_wasmproxy.runtimes.interface import (
    LARGE_COPY,
    CompileError,
    FunctionType,
    HostFunction,
    Import,
    Limits,
    MemoryFault,
    RuntimeFault,
    Trap,
)
from twisted_wasmproxy.runtimes.linking import NUMBERS, match_imports

__all__ = ["WasmerEngine", "WasmerInstance", "WasmerModule", "compile_standard_input"]

_MEMORY_IMPORT = ("wasmproxy:host", "memory")
_TABLE_ELEMENTS = 1 << 18
"""Of all tables of a module; 16 bytes each."""
_COMPILE_HERE = 64 * 1024
"""Bytes of a module that compiles in some milliseconds, for which a process is not worth its start."""

_COMPILER_PROCESS = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from twisted_wasmproxy.runtimes.wasmer import compile_standard_input
compile_standard_input()
"""
_DIGEST_SIZE = hashlib.sha256().digest_size

_TYPES = {
    wasmer.Type.I32: "i32",
    wasmer.Type.I64: "i64",
    wasmer.Type.F32: "f32",
    wasmer.Type.F64: "f64",
    wasmer.Type.V128: "v128",
    wasmer.Type.EXTERN_REF: "externref",
    wasmer.Type.FUNC_REF: "funcref",
}
_TYPE_CODES = {name: code for code, name in _TYPES.items()}
_KINDS: dict[type, str] = {wasmer.MemoryType: "memory", wasmer.TableType: "table", wasmer.GlobalType: "global"}
_MASKS = {"i32": 0xFFFFFFFF, "i64": 0xFFFFFFFFFFFFFFFF}


class WasmerEngine:
    """Wasmer with Cranelift."""

    name = "wasmer"
    version: str = wasmer.__version__
    interruptible = False
    limits_memory = True

    def __init__(self) -> None:
        self._local = threading.local()

    def store(self) -> Any:
        """Return the store of this thread."""
        try:
            return self._local.store
        except AttributeError:
            store = self._local.store = wasmer.Store(wasmer.engine.Universal(Compiler))
            return store

    def compile(self, wasm: bytes) -> bytes:
        prepared = limit_tables(import_memory(wasm, *_MEMORY_IMPORT), _TABLE_ELEMENTS)
        code = self._compile_here(prepared) if len(prepared) <= _COMPILE_HERE else _compile_elsewhere(prepared)
        return self._digest(code) + code

    def load(self, code: bytes) -> WasmerModule:
        digest, body = code[:_DIGEST_SIZE], code[_DIGEST_SIZE:]
        if self._digest(body) != digest:
            raise CompileError(f"this is not code that wasmer {self.version} made")
        return WasmerModule(self, body)

    def _digest(self, code: bytes) -> bytes:
        return hashlib.sha256(self.version.encode() + b"\n" + code).digest()

    def _compile_here(self, wasm: bytes) -> bytes:
        try:
            return bytes(wasmer.Module(self.store(), wasm).serialize())
        except RuntimeError as error:
            raise CompileError(one_line(str(error))) from None


def _compile_elsewhere(wasm: bytes) -> bytes:
    command = [sys.executable, "-I", "-c", _COMPILER_PROCESS, json.dumps(sys.path)]
    process = subprocess.run(command, input=wasm, capture_output=True, check=False)  # noqa: S603 - our own interpreter
    if process.returncode:
        text = one_line(process.stderr.decode(errors="replace"))[-2000:]
        raise CompileError(text or f"the compiler process ended with status {process.returncode}")
    return process.stdout


def compile_standard_input() -> None:
    """Be the compiler process: a module comes on standard input, its code goes to standard output, faults to error."""
    try:
        code = bytes(wasmer.Module(WasmerEngine().store(), sys.stdin.buffer.read()).serialize())
    except RuntimeError as error:
        sys.exit(str(error))
    sys.stdout.buffer.write(code)


class WasmerModule:
    """Compiled code. It belongs to the thread that instantiates it first."""

    def __init__(self, engine: WasmerEngine, code: bytes) -> None:
        self.engine = engine
        self._code: bytes | None = code
        self._thread = 0

    @cached_property
    def module(self) -> Any:
        """The package's module."""
        assert self._code is not None
        self._thread = threading.get_ident()
        try:
            module = wasmer.Module.deserialize(self.engine.store(), self._code)
        except RuntimeError as error:
            raise CompileError(one_line(str(error))) from None
        self._code = None
        return module

    @cached_property
    def imports(self) -> tuple[Import, ...]:
        """What the module imports, but for the memory that is its own by right."""
        return tuple(
            Import(item.module, item.name, *_extern_type(item.type))
            for item in self.module.imports
            if (item.module, item.name) != _MEMORY_IMPORT
        )

    @cached_property
    def memory_type(self) -> Any:
        """The type of its own memory, or None."""
        for item in self.module.imports:
            if (item.module, item.name) == _MEMORY_IMPORT:
                return item.type
        return None

    @cached_property
    def functions(self) -> dict[str, FunctionType]:
        """Exported functions by name."""
        types = ((export.name, _extern_type(export.type)[1]) for export in self.module.exports)
        return {name: function_type for name, function_type in types if function_type is not None}

    def instantiate(
        self, imports: Mapping[tuple[str, str], tuple[FunctionType, HostFunction]], limits: Limits
    ) -> WasmerInstance:
        host_functions = match_imports(self.imports, imports)
        if threading.get_ident() != self._thread:
            raise RuntimeFault("a wasmer module can be instantiated only in the thread that was the first to do so")
        return WasmerInstance(self, host_functions, limits)


class WasmerInstance:
    """One instance with its own memory."""

    def __init__(
        self, module: WasmerModule, host_functions: list[tuple[FunctionType, HostFunction]], limits: Limits
    ) -> None:
        self.exports: Mapping[str, FunctionType] = module.functions
        self._functions: dict[str, Callable[..., Any]] = {}
        self._raised: BaseException | None = None
        self._depth = 0
        self._limits = limits
        self._deadline = inf
        self._closed = False
        self._size = 0
        self._view = memoryview(bytearray())
        store = module.engine.store()
        namespaces: dict[str, dict[str, Any]] = {}
        for item, (function_type, function) in zip(module.imports, host_functions, strict=True):
            namespaces.setdefault(item.module, {})[item.name] = self._host_function(store, function_type, function)
        self._memory: Any = None
        if module.memory_type is not None:
            self._memory = _make_memory(store, module.memory_type, limits)
            namespaces[_MEMORY_IMPORT[0]] = {_MEMORY_IMPORT[1]: self._memory}
        imports = wasmer.ImportObject()
        for name, namespace in namespaces.items():
            imports.register(name, namespace)
        self._instance = self._run(lambda: wasmer.Instance(module.module, imports))
        self._look_at_memory()

    def function(self, name: str) -> Callable[..., Any]:
        try:
            return self._functions[name]
        except KeyError:
            function = self._functions[name] = self._bind(name, self.exports[name])
            return function

    def memory_size(self) -> int:
        self._look_at_memory()
        return self._size

    def check_deadline(self) -> None:
        if monotonic() >= self._deadline:
            raise overdue(self._limits.cpu)

    def check_range(self, address: int, size: int) -> None:
        self._look_at_memory()
        if address < 0 or size < 0 or address + size > self._size:
            raise MemoryFault(f"{size} bytes at {address} are not in a memory of {self._size} bytes")

    def read(self, address: int, size: int) -> bytes:
        end = address + size
        if end > self._size or address < 0 or not 0 <= size <= LARGE_COPY:
            self._check(address, size)
        return self._view[address:end].tobytes()

    def write(self, address: int, data: bytes) -> None:
        size = len(data)
        end = address + size
        if end > self._size or address < 0 or size > LARGE_COPY:
            self._check(address, size)
        self._view[address:end] = data

    def read_u32(self, address: int) -> int:
        if address + 4 > self._size or address < 0:
            self._check(address, 4)
        return int.from_bytes(self._view[address : address + 4], "little")

    def write_u32(self, address: int, value: int) -> None:
        if address + 4 > self._size or address < 0:
            self._check(address, 4)
        self._view[address : address + 4] = (value & 0xFFFFFFFF).to_bytes(4, "little")

    def close(self) -> None:
        self._closed = True
        if self._depth:
            return  # a host function closes what is calling it: done when the outermost call is back
        self._size = 0
        self._view = memoryview(bytearray())
        self._memory = None
        self._functions.clear()
        self._instance = None

    def _host_function(self, store: Any, function_type: FunctionType, function: HostFunction) -> Any:
        unsigned = _masker(function_type.params)
        result = function_type.results[0] if function_type.results else None
        sign_bit = {"i32": 1 << 31, "i64": 1 << 63}.get(result or "")
        result_mask = _MASKS.get(result or "", 0)

        def host_function(*args: Any) -> Any:
            try:
                value: Any = function(*unsigned(args))
                if sign_bit is None:
                    return value if result else None
                return ((value & result_mask) ^ sign_bit) - sign_bit
            except BaseException as error:  # noted for the call that led here, then the package unwinds the guest
                self._raised = error
                raise

        codes = (
            [_TYPE_CODES[name] for name in function_type.params],
            [_TYPE_CODES[name] for name in function_type.results],
        )
        return wasmer.Function(store, host_function, wasmer.FunctionType(*codes))

    def _bind(self, name: str, function_type: FunctionType) -> Callable[..., Any]:
        if self._closed and not self._depth:
            raise RuntimeFault("the instance is closed")
        params, results = function_type.params, function_type.results
        if len(results) > 1 or not NUMBERS.issuperset(params + results):
            raise RuntimeFault(f"the exported function {name} {function_type} has a type that the host cannot call")
        exported = getattr(self._instance.exports, name)
        arity = len(params)
        limit = self._limits.cpu
        unsigned = _masker(params)
        result_mask = _MASKS.get(results[0]) if results else None

        def call(*args: int) -> Any:
            if len(args) != arity:
                raise TypeError(f"{name} takes {arity} arguments, not {len(args)}")
            if self._closed and not self._depth:
                raise RuntimeFault("the instance is closed")
            masked = unsigned(args)
            if limit and not self._depth:
                self._deadline = monotonic() + limit
            self._depth += 1
            try:
                value = exported(*masked)
            except BaseException as error:
                fault = self._fault(error)
                raise fault from fault.__cause__
            finally:
                self._depth -= 1
                if not self._depth:
                    self._deadline = inf
                if self._closed and not self._depth:
                    self.close()
            return value if result_mask is None else value & result_mask

        return call

    def _run(self, enter: Callable[[], Any]) -> Any:
        self._depth += 1
        try:
            return enter()
        except BaseException as error:
            fault = self._fault(error)
            raise fault from fault.__cause__
        finally:
            self._depth -= 1

    def _fault(self, error: BaseException) -> BaseException:
        raised, self._raised = self._raised, None
        text, *frames = str(error).splitlines() or [type(error).__name__]
        backtrace = tuple(frame.strip().removeprefix("at ") for frame in frames[:BACKTRACE_FRAMES])
        if raised is not None:
            return surfaced(raised, backtrace)
        if isinstance(error, RuntimeError):
            return Trap(text.removeprefix("RuntimeError: "), backtrace=backtrace)
        return error

    def _look_at_memory(self) -> None:
        if self._memory is None:
            return
        size = self._memory.data_size
        if size != self._size:
            self._view = memoryview(self._memory.buffer)
            self._size = len(self._view)

    def _check(self, address: int, size: int) -> None:
        self.check_range(address, size)
        if size > LARGE_COPY:
            self.check_deadline()


def _masker(kinds: tuple[str, ...]) -> Callable[[tuple[Any, ...]], list[Any]]:
    """Return a function that makes integers unsigned, as wide as their types; by far most are i32."""
    if set(kinds) <= {"i32"}:
        return lambda values: [value & 0xFFFFFFFF for value in values]
    masks = [_MASKS.get(kind) for kind in kinds]
    return lambda values: [v if mask is None else v & mask for v, mask in zip(values, masks, strict=True)]


def _make_memory(store: Any, memory_type: Any, limits: Limits) -> Any:
    minimum, maximum = memory_type.minimum, limits.memory // PAGE
    if memory_type.maximum is not None:
        maximum = min(maximum, memory_type.maximum)
    if minimum > maximum:
        raise Trap(f"the module needs {minimum * PAGE} bytes of memory, and the limit is {limits.memory}")
    try:
        return wasmer.Memory(store, wasmer.MemoryType(minimum, maximum, memory_type.shared))
    except RuntimeError as error:  # the address space is limited or used up
        raise Trap(one_line(str(error))) from None


def _extern_type(external: Any) -> tuple[str, FunctionType | None]:
    if isinstance(external, wasmer.FunctionType):
        return "function", FunctionType(
            tuple(_TYPES[code] for code in external.params), tuple(_TYPES[code] for code in external.results)
        )
    return _KINDS.get(type(external), type(external).__name__), None
