"""Wasmtime: its Python package for compiling, its C API through ctypes for linking, calling and memory.

The package's own `Func` costs 15 to 40 us a call, mostly in asking the function for its type and in boxing values.
Here the types are known from instantiation, values lie in arrays that are made once per depth of nesting, and one
ctypes call enters the guest.

Time is limited by epochs: compiled code compares the engine's epoch with its store's deadline at every loop and
function entry. The epoch moves only when a call is overdue (see `deadline`); then each store that runs is asked, by
`_on_epoch`, whether it is the one.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Callable, Mapping
from ctypes import c_char, c_size_t, c_uint8, c_uint64, c_void_p
from functools import cache
from importlib import metadata
from math import inf
from time import monotonic
from typing import Any, NoReturn

import wasmtime
from wasmtime import _ffi as ffi

from twisted_wasmproxy.runtimes.binary import check_header
from twisted_wasmproxy.runtimes.deadline import DeadlineWatch
from twisted_wasmproxy.runtimes.faults import BACKTRACE_FRAMES, one_line, overdue, surfaced
from twisted_wasmproxy.runtimes.interface import (
    LARGE_COPY,
    CompileError,
    FunctionType,
    HostFunction,
    Import,
    Limits,
    LinkError,
    MemoryFault,
    RuntimeFault,
    Trap,
)
from twisted_wasmproxy.runtimes.linking import NUMBERS, match_imports

__all__ = ["WasmtimeEngine", "WasmtimeInstance", "WasmtimeModule"]

_TABLES = 16
_NO_OFFSET = (1 << 64) - 1


def _function(name: str, restype: Any = None) -> Any:
    # An own function object, without argtypes: ctypes then takes our ready-made arguments as they are, which is
    # faster than converting them. Every argument must be a ctypes object of the right width.
    function = ffi.dll[name]
    function.restype = restype
    return function


_call_unchecked = _function("wasmtime_func_call_unchecked", c_void_p)
_func_new_unchecked = _function("wasmtime_func_new_unchecked")
_instance_new = _function("wasmtime_instance_new", c_void_p)
_export_get = _function("wasmtime_instance_export_get", ctypes.c_bool)
_memory_data = _function("wasmtime_memory_data", c_void_p)
_memory_data_size = _function("wasmtime_memory_data_size", c_size_t)
_trap_new = _function("wasmtime_trap_new", c_void_p)
_error_new = _function("wasmtime_error_new", c_void_p)
_set_epoch_deadline = _function("wasmtime_context_set_epoch_deadline")
_epoch_deadline_callback = _function("wasmtime_store_epoch_deadline_callback")

# wasm_trap_t *callback(void *env, wasmtime_caller_t *, wasmtime_val_raw_t *args_and_results, size_t)
_HostCallback = ctypes.CFUNCTYPE(c_size_t, c_void_p, c_void_p, c_void_p, c_size_t)
# wasmtime_error_t *callback(wasmtime_context_t *, void *data, uint64_t *delta, wasmtime_update_deadline_kind_t *)
_EpochCallback = ctypes.CFUNCTYPE(c_size_t, c_void_p, c_void_p, ctypes.POINTER(c_uint64), ctypes.POINTER(c_uint8))

_RAW_WORDS = ctypes.sizeof(ffi.wasmtime_val_raw_t) // 8
_RAW_FORMATS = {"i32": "I12x", "i64": "Q8x", "f32": "f12x", "f64": "d8x"}
_FLOAT_FORMATS = {"f32": ("<f", "<I"), "f64": ("<d", "<Q")}


_compiled_in: int | None = None
"""The process that compiled first."""


class WasmtimeEngine:
    """The one wasmtime engine of a process; made late, since its threads do not survive a fork."""

    name = "wasmtime"
    version = metadata.version("wasmtime")
    interruptible = True
    limits_memory = True

    def __init__(self) -> None:
        config = wasmtime.Config()
        config.epoch_interruption = True
        # Memory that never moves may be read through one address for as long as the instance lives.
        config.memory_may_move = False
        config.memory_reservation = 1 << 32
        # The compiler's pool of threads is wasmtime's, one a process: a fork takes the pool along and not the threads.
        config.parallel_compilation = _compiled_in in (None, os.getpid())
        self.engine = wasmtime.Engine(config)
        self.watch = DeadlineWatch(self.engine.increment_epoch)

    def compile(self, wasm: bytes) -> bytes:
        global _compiled_in
        check_header(wasm)
        _compiled_in = _compiled_in or os.getpid()
        try:
            return bytes(wasmtime.Module(self.engine, wasm).serialize())
        except wasmtime.WasmtimeError as error:
            raise CompileError(one_line(str(error))) from None

    def load(self, code: bytes) -> WasmtimeModule:
        try:
            module = wasmtime.Module.deserialize(self.engine, code)
        except wasmtime.WasmtimeError as error:
            raise CompileError(one_line(str(error))) from None
        return WasmtimeModule(self, module)


class WasmtimeModule:
    """Compiled code with the types of its imports and exports."""

    def __init__(self, engine: WasmtimeEngine, module: wasmtime.Module) -> None:
        self.engine = engine
        self.module = module
        self.imports: tuple[Import, ...] = tuple(
            Import(item.module, item.name or "", *_extern_type(item.type)) for item in module.imports
        )
        self.functions: dict[str, FunctionType] = {}
        self.memory: str | None = None
        for export in module.exports:
            kind, function_type = _extern_type(export.type)
            if function_type is not None:
                self.functions[export.name] = function_type
            elif kind == "memory" and (self.memory is None or export.name == "memory"):
                self.memory = export.name

    def instantiate(
        self, imports: Mapping[tuple[str, str], tuple[FunctionType, HostFunction]], limits: Limits
    ) -> WasmtimeInstance:
        return WasmtimeInstance(self, match_imports(self.imports, imports), limits)


class WasmtimeInstance:
    """A store with one instance in it."""

    def __init__(
        self, module: WasmtimeModule, host_functions: list[tuple[FunctionType, HostFunction]], limits: Limits
    ) -> None:
        self._closed = True
        self.exports: Mapping[str, FunctionType] = module.functions
        self.deadline = inf
        self.overdue = inf
        self._limits = limits
        self._watch = module.engine.watch
        self._depth = 0
        self._frames: list[_Frame] = []
        self._arity = max((max(len(t.params), len(t.results), 1) for t in module.functions.values()), default=1)
        self._functions: dict[str, Callable[..., Any]] = {}
        self._raised: BaseException | None = None
        self._expired = False
        self._memory: Any = None
        self._size = 0
        self._bytes: Any = b""
        self._view = memoryview(bytearray())

        self._store = wasmtime.Store(module.engine.engine)
        self._closed = False
        self._store.set_limits(
            memory_size=limits.memory, table_elements=limits.table_elements, instances=1, tables=_TABLES, memories=1
        )
        self._context = ctypes.cast(self._store._context(), c_void_p)
        _set_epoch_deadline(self._context, c_uint64(1))
        on_epoch = _EpochCallback(self._on_epoch)
        _epoch_deadline_callback(self._store.ptr(), on_epoch, None, None)
        # The store calls these as long as it lives.
        self._callbacks: list[Any] = [on_epoch]
        self._watch.add(self)
        try:
            self._instance = self._instantiate(module, host_functions)
            if module.memory is not None:
                extern = self._export(module.memory)
                if extern.kind != ffi.WASMTIME_EXTERN_MEMORY.value:
                    raise LinkError(f"the memory {module.memory!r} is shared between threads, and the host has none")
                self._memory = ctypes.byref(extern.of.memory)
                self._look_at_memory()
        except BaseException:
            self.close()
            raise

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
        if monotonic() >= self.deadline:
            raise overdue(self._limits.cpu)

    def check_range(self, address: int, size: int) -> None:
        self._look_at_memory()
        if address < 0 or size < 0 or address + size > self._size:
            raise MemoryFault(f"{size} bytes at {address} are not in a memory of {self._size} bytes")

    def read(self, address: int, size: int) -> bytes:
        end = address + size
        if end > self._size or address < 0 or not 0 <= size <= LARGE_COPY:
            self._check(address, size)
        data: bytes = self._bytes[address:end]
        return data

    def write(self, address: int, data: bytes) -> None:
        size = len(data)
        end = address + size
        if end > self._size or address < 0 or size > LARGE_COPY:
            self._check(address, size)
        self._view[address:end] = data

    def read_u32(self, address: int) -> int:
        if address + 4 > self._size or address < 0:
            self._check(address, 4)
        return int.from_bytes(self._bytes[address : address + 4], "little")

    def write_u32(self, address: int, value: int) -> None:
        if address + 4 > self._size or address < 0:
            self._check(address, 4)
        self._view[address : address + 4] = (value & 0xFFFFFFFF).to_bytes(4, "little")

    def close(self) -> None:
        self._closed = True
        if self._depth:
            return  # a host function closes what is calling it: done when the outermost call is back
        self._watch.discard(self)
        self._free()

    def __del__(self) -> None:
        # Runs wherever the collector does, maybe inside the watch with its lock held: the watch lets go by itself.
        if not self._closed:
            self._closed = True
            self._free()

    def _free(self) -> None:
        self._size = 0
        self._bytes = b""
        self._view = memoryview(bytearray())
        self._memory = None
        self._functions.clear()
        self._store.close()
        self._callbacks.clear()

    def _instantiate(self, module: WasmtimeModule, host_functions: list[tuple[FunctionType, HostFunction]]) -> Any:
        externs = (ffi.wasmtime_extern_t * max(len(host_functions), 1))()
        for extern, (function_type, function) in zip(externs, host_functions, strict=False):
            callback = self._callback(function_type, function)
            self._callbacks.append(callback)
            extern.kind = ffi.WASMTIME_EXTERN_FUNC.value
            signature = _functype(function_type)  # owns what its ptr() points to
            _func_new_unchecked(self._context, signature.ptr(), callback, None, None, ctypes.byref(extern.of.func))
        instance = ffi.wasmtime_instance_t()
        trap = c_void_p()
        self._enter()
        try:
            error = _instance_new(
                self._context,
                module.module.ptr(),
                externs,
                c_size_t(len(host_functions)),
                ctypes.byref(instance),
                ctypes.byref(trap),
            )
        finally:
            self._leave()
        if error or trap:
            self._fail(error, trap)
        return instance

    def _export(self, name: str) -> Any:
        encoded = name.encode()
        extern = ffi.wasmtime_extern_t()
        if not _export_get(
            self._context, ctypes.byref(self._instance), encoded, c_size_t(len(encoded)), ctypes.byref(extern)
        ):
            raise KeyError(name)
        return extern

    def _callback(self, function_type: FunctionType, function: HostFunction) -> Any:
        params = struct.Struct("<" + "".join(_RAW_FORMATS[name] for name in function_type.params)).unpack_from
        raw_values = c_uint64 * (_RAW_WORDS * max(len(function_type.params), 1))
        result = function_type.results[0] if function_type.results else None
        to_bits = _to_bits(result) if result in _FLOAT_FORMATS else None

        def callback(env: None, caller: int, address: int, count: int) -> int:
            try:
                values = raw_values.from_address(address)
                value = function(*params(values))
                if result is not None:
                    values[0] = value if to_bits is None else to_bits(value)  # type: ignore[assignment]  # None is a TypeError
                return 0
            except BaseException as error:  # goes on in the call that led here; ctypes would print and forget it
                self._raised = error
                return _new_trap()

        return _HostCallback(callback)

    def _bind(self, name: str, function_type: FunctionType) -> Callable[..., Any]:
        if self._closed and not self._depth:
            raise RuntimeFault("the instance is closed")
        params, results = function_type.params, function_type.results
        if len(results) > 1 or not NUMBERS.issuperset(params + results):
            raise RuntimeFault(f"the exported function {name} {function_type} has a type that the host cannot call")
        reference = ctypes.byref(self._export(name).of.func)
        context, frames, watch, limit = self._context, self._frames, self._watch, self._limits.cpu
        arity = len(params)
        count = c_size_t(max(arity, len(results)))
        mask = None if not results else 0xFFFFFFFF if results[0].endswith("32") else 0xFFFFFFFFFFFFFFFF

        call = _caller(arity, mask is not None)(self, context, reference, frames, count, watch, limit, mask)
        if not set(params + results) & _FLOAT_FORMATS.keys():
            return call
        to_bits = [_to_bits(kind) for kind in params]
        from_bits = _from_bits(results[0]) if results else _same

        def call_with_floats(*args: float) -> Any:
            return from_bits(call(*(convert(arg) for convert, arg in zip(to_bits, args, strict=True))))

        return call_with_floats

    def _enter(self) -> None:
        self._depth += 1
        if self._depth == 1 and self._limits.cpu:
            self.deadline = deadline = monotonic() + self._limits.cpu
            if deadline < self._watch.next_look:
                self._watch.wake(deadline)

    def _leave(self) -> None:
        self._depth -= 1
        if self._depth == 0:
            self.deadline = inf

    def _new_frame(self) -> _Frame:
        trap = c_void_p()
        frame = ((c_uint64 * (_RAW_WORDS * self._arity))(), trap, ctypes.byref(trap))
        self._frames.append(frame)
        return frame

    def _on_epoch(self, context: int, data: None, delta: Any, kind: Any) -> int:
        # Epochs count for the engine, deadlines for a store: another instance may be the one that is overdue.
        if monotonic() < self.deadline:
            delta[0] = 1
            kind[0] = 0  # WASMTIME_UPDATE_DEADLINE_CONTINUE
            return 0
        self._expired = True
        return _error_new(b"interrupted") or 0

    def _fail(self, error: int | None, trap: c_void_p) -> NoReturn:
        """Raise what ended a call into the guest, and free it."""
        raised, self._raised = self._raised, None
        expired, self._expired = self._expired, False
        if error:
            text, backtrace = _take_error(error)
        else:
            text, backtrace = _take_trap(trap)
        if raised is None:
            raise overdue(self._limits.cpu, backtrace) if expired else Trap(text, backtrace=backtrace)
        raise surfaced(raised, backtrace)

    def _look_at_memory(self) -> None:
        if self._memory is None:
            return
        size = _memory_data_size(self._context, self._memory)
        if size != self._size:
            base = _memory_data(self._context, self._memory)
            self._bytes = (c_char * size).from_address(base)
            self._view = memoryview(self._bytes).cast("B")
            self._size = size

    def _check(self, address: int, size: int) -> None:
        self.check_range(address, size)
        if size > LARGE_COPY:
            self.check_deadline()


_Frame = tuple[Any, c_void_p, Any]

_CALLER = """
def make(instance, context, reference, frames, count, watch, limit, mask):
    def call({parameters}):
        depth = instance._depth
        if depth == 0:
            if instance._closed:
                raise RuntimeFault("the instance is closed")
            if limit:
                instance.deadline = deadline = monotonic() + limit
                if deadline < watch.next_look:
                    watch.wake(deadline)
        try:
            values, trap, trap_out = frames[depth]
        except IndexError:
            values, trap, trap_out = instance._new_frame()
        # ctypes masks to 64 bits, and the guest reads as many as the type has.
        {stores}
        instance._depth = depth + 1
        try:
            error = call_unchecked(context, reference, values, count, trap_out)
        finally:
            instance._depth = depth
            if depth == 0:
                instance.deadline = inf
                if instance._closed:
                    instance.close()
        if error or trap:
            instance._fail(error, trap)
        # The guest writes 4 bytes of an i32: what was in the upper half is still there.
        return {result}
    return call
"""


@cache
def _caller(arity: int, has_result: bool) -> Callable[..., Callable[..., Any]]:
    """Return the maker of callers with so many parameters: written out, since a loop over them costs as much again."""
    names = [f"a{index}" for index in range(arity)]
    namespace = {"RuntimeFault": RuntimeFault, "call_unchecked": _call_unchecked, "inf": inf, "monotonic": monotonic}
    source = _CALLER.format(
        parameters=", ".join(names),
        stores="; ".join(f"values[{index * _RAW_WORDS}] = {name}" for index, name in enumerate(names)) or "pass",
        result="values[0] & mask" if has_result else "None",
    )
    exec(source, namespace)  # noqa: S102  # made of the names above only
    make: Callable[..., Callable[..., Any]] = namespace["make"]
    return make


"""An array for arguments and result, and a place for a trap with a pointer to it."""


def _new_trap() -> int:
    text = b"host function"
    address: int = _trap_new(text, c_size_t(len(text)))
    return address


def _take_trap(trap: c_void_p) -> tuple[str, tuple[str, ...]]:
    owned = wasmtime.Trap._from_ptr(ctypes.cast(trap, ctypes.POINTER(ffi.wasm_trap_t)))
    trap.value = None
    try:
        return _cause(owned.message), tuple(_frame_text(frame) for frame in owned.frames[:BACKTRACE_FRAMES])
    finally:
        owned.close()


def _take_error(error: int) -> tuple[str, tuple[str, ...]]:
    owned = wasmtime.WasmtimeError._from_ptr(ctypes.cast(error, ctypes.POINTER(ffi.wasmtime_error_t)))
    frames = ffi.wasm_frame_vec_t()
    ffi.wasmtime_error_wasm_trace(owned.ptr(), ctypes.byref(frames))
    try:
        texts = tuple(
            _frame_text(wasmtime.Frame._from_ptr(frames.data[n], owned))
            for n in range(min(frames.size, BACKTRACE_FRAMES))
        )
        return _cause(str(owned)), texts
    finally:
        ffi.wasm_frame_vec_delete(ctypes.byref(frames))
        owned.close()


def _cause(message: str) -> str:
    """Leave out the backtrace that wasmtime writes into its messages, and its prefixes."""
    _, found, cause = message.partition("Caused by:")
    text = one_line(cause if found else message)
    return text.removeprefix("0: ").removeprefix("wasm trap: ")


def _frame_text(frame: wasmtime.Frame) -> str:
    name = frame.func_name or f"function {frame.func_index}"
    offset = frame.module_offset
    return name if offset == _NO_OFFSET else f"{name} at 0x{offset:x}"


_KINDS: dict[type, str] = {
    wasmtime.MemoryType: "memory",
    wasmtime.TableType: "table",
    wasmtime.GlobalType: "global",
}


def _extern_type(external: Any) -> tuple[str, FunctionType | None]:
    if isinstance(external, wasmtime.FuncType):
        return "function", FunctionType(
            tuple(str(kind) for kind in external.params), tuple(str(kind) for kind in external.results)
        )
    return _KINDS.get(type(external), type(external).__name__), None


def _functype(function_type: FunctionType) -> wasmtime.FuncType:
    kinds = {
        "i32": wasmtime.ValType.i32,
        "i64": wasmtime.ValType.i64,
        "f32": wasmtime.ValType.f32,
        "f64": wasmtime.ValType.f64,
    }
    return wasmtime.FuncType(
        [kinds[name]() for name in function_type.params], [kinds[name]() for name in function_type.results]
    )


def _to_bits(kind: str) -> Callable[[Any], int]:
    if kind not in _FLOAT_FORMATS:
        return _same
    float_format, int_format = _FLOAT_FORMATS[kind]

    def convert(value: float) -> int:
        bits: int = struct.unpack(int_format, struct.pack(float_format, value))[0]
        return bits

    return convert


def _from_bits(kind: str) -> Callable[[Any], Any]:
    if kind not in _FLOAT_FORMATS:
        return _same
    float_format, int_format = _FLOAT_FORMATS[kind]
    return lambda bits: struct.unpack(float_format, struct.pack(int_format, bits))[0]


def _same(value: Any) -> Any:
    return value
