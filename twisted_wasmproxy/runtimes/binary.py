"""Reader of the WebAssembly binary format: what a module imports, exports and declares, without an engine.

It reads the sections that say something about the interface of a module and steps over code, data and initialisers
(WebAssembly Core Specification 2.0, section 5.5). It does not validate: that an index exists where a section that is
stepped over uses it is for the engine to find.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from twisted_wasmproxy.runtimes.interface import CompileError, FunctionType, Import

__all__ = [
    *("PAGE", "CustomSection", "Export", "Memory", "ModuleInfo", "Table"),
    *("check_header", "import_memory", "limit_tables", "read_module"),
]

PAGE = 65536
"""Bytes in a page of memory."""

_HEADER = b"\0asm\x01\0\0\0"
_KINDS = ("function", "table", "memory", "global", "tag")
_VALUE_TYPES = {
    0x7F: "i32",
    0x7E: "i64",
    0x7D: "f32",
    0x7C: "f64",
    0x7B: "v128",
    # References; those to what is collected come from proposals that some engines take.
    0x74: "nullexnref",
    0x73: "nullfuncref",
    0x72: "nullexternref",
    0x71: "nullref",
    0x70: "funcref",
    0x6F: "externref",
    0x6E: "anyref",
    0x6D: "eqref",
    0x6C: "i31ref",
    0x6B: "structref",
    0x6A: "arrayref",
    0x69: "exnref",
}
_FUNCTION_FORM = 0x60

# Sections by id, in the order in which they must come; custom sections (0) may stand anywhere.
_SECTION_NAMES = {
    1: "type",
    2: "import",
    3: "function",
    4: "table",
    5: "memory",
    13: "tag",
    6: "global",
    7: "export",
    8: "start",
    9: "element",
    12: "data count",
    10: "code",
    11: "data",
}
_SECTION_ORDER = {number: place for place, number in enumerate(_SECTION_NAMES)}

_IMPORT_SECTION = 2
_TABLE_SECTION = 4
_MEMORY_SECTION = 5
_REWRITTEN_SECTIONS = (_IMPORT_SECTION, _MEMORY_SECTION)

# What people pass for a module by mistake, by how it begins.
_LOOKALIKES: tuple[tuple[bytes, str], ...] = (
    (b"\x1f\x8b", "it is gzip-compressed: unpack it first"),
    (b"\x28\xb5\x2f\xfd", "it is zstd-compressed: unpack it first"),
    (b"PK\x03\x04", "it is a zip archive"),
    (b"\x7fELF", "it is a native ELF program or library, perhaps compiled for the wrong target"),
    (b"\xcf\xfa\xed\xfe", "it is a native Mach-O program or library, perhaps compiled for the wrong target"),
    (b"!<arch>\n", "it is a static library: link it to a module first"),
    (b"BC\xc0\xde", "it is LLVM bitcode"),
    (b"#!", "it is a script"),
)


# Compilers that say who they are in the `producers` section; TinyGo and Zig name other languages beside.
_TOOLCHAINS = (("rustc", "Rust"), ("TinyGo", "TinyGo"), ("Go cmd/compile", "Go"), ("zig", "Zig"))
_ASSEMBLYSCRIPT_ABORT = ("env", "abort", FunctionType(("i32",) * 4, ()))


@dataclass(frozen=True)
class Memory:
    """A memory, imported or own; sizes in pages of 64 KiB. `maximum` is None where none is declared."""

    minimum: int
    maximum: int | None
    imported: bool


@dataclass(frozen=True)
class Table:
    """A table of the module's own; sizes in elements. `maximum` is None where none is declared."""

    minimum: int
    maximum: int | None


@dataclass(frozen=True)
class Export:
    """One export. `type` is None for what is not a function (`kind` says what it is)."""

    name: str
    kind: str
    index: int
    type: FunctionType | None


@dataclass(frozen=True)
class CustomSection:
    """A custom section's name and the bytes in it."""

    name: str
    data: bytes = field(repr=False)

    @property
    def size(self) -> int:
        return len(self.data)


@dataclass(frozen=True)
class ModuleInfo:
    """What a module says of itself. Imports and exports are in the module's order."""

    size: int
    types: tuple[FunctionType, ...]
    imports: tuple[Import, ...]
    exports: tuple[Export, ...]
    memories: tuple[Memory, ...]
    tables: tuple[Table, ...]
    functions: int
    """Number of functions of its own."""
    start: int | None
    """Index of the function that runs at instantiation."""
    code_size: int
    data_size: int
    custom: tuple[CustomSection, ...]

    @property
    def function_exports(self) -> dict[str, FunctionType]:
        """Exported functions by name."""
        return {export.name: export.type for export in self.exports if export.type is not None}

    @property
    def producers(self) -> dict[str, tuple[tuple[str, str], ...]]:
        """(name, version) pairs by field (`language`, `processed-by`, `sdk`); empty where there are none to read."""
        return self._decode("producers", _read_producers) or {}

    @property
    def toolchain(self) -> str:
        """What the module was made with, such as `Rust 1.80.1`; empty where nothing tells."""
        producers = self.producers
        made_by = dict(producers.get("processed-by", ()))
        languages = dict(producers.get("language", ()))
        for producer, label in _TOOLCHAINS:
            if producer in made_by:
                return f"{label} {_plain_version(made_by[producer])}".rstrip()
        for language in ("Rust", "Go", "Zig"):
            if language in languages:
                return f"{language} {_plain_version(languages[language])}".rstrip()
        compilers = [pair for pair in producers.get("processed-by", ()) if "clang" in pair[0]]
        for producer, version in (*producers.get("sdk", ()), *compilers):
            return f"C or C++ ({producer} {_plain_version(version)})"
        if any((item.module, item.name, item.type) == _ASSEMBLYSCRIPT_ABORT for item in self.imports):
            return "AssemblyScript"
        return ""

    @property
    def name(self) -> str | None:
        """The module's name in the `name` section."""
        return self._decode("name", lambda reader: _read_names(reader)[0])

    @property
    def function_names(self) -> dict[int, str]:
        """Function names by index in the `name` section; empty where there are none to read."""
        return self._decode("name", lambda reader: _read_names(reader)[1]) or {}

    def _decode(self, name: str, decode: Callable[[_Reader], _T]) -> _T | None:
        # Faults in custom sections do not make a module invalid (section 5.5.3).
        for section in self.custom:
            if section.name == name:
                try:
                    return decode(_Reader(section.data, 0, len(section.data)))
                except CompileError:
                    return None
        return None


_T = TypeVar("_T")


class _Reader:
    """A cursor in `data` that never passes `end`."""

    def __init__(self, data: bytes, position: int, end: int) -> None:
        self.data = data
        self.position = position
        self.end = end

    def fail(self, what: str, position: int | None = None) -> CompileError:
        return CompileError(f"malformed module: {what} at offset 0x{self.position if position is None else position:x}")

    def byte(self, what: str) -> int:
        position = self.position
        if position >= self.end:
            raise self.fail(f"{what} is cut off")
        self.position = position + 1
        return self.data[position]

    def unsigned(self, what: str, bits: int = 32) -> int:
        """Read a LEB128 number of at most `bits` bits."""
        start = self.position
        value = 0
        for shift in range(0, bits, 7):
            byte = self.byte(what)
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value >> bits:
                    break
                return value
        raise self.fail(f"{what} is not a number of {bits} bits", start)

    def take(self, size: int, what: str) -> bytes:
        start = self.position
        if size > self.end - start:
            raise self.fail(f"{what} of {size} bytes is cut off: {self.end - start} are left")
        self.position = start + size
        return self.data[start : start + size]

    def part(self, size: int, what: str) -> _Reader:
        """Return a reader of the next `size` bytes and step over them."""
        start = self.position
        if size > self.end - start:
            raise self.fail(f"{what} of {size} bytes is cut off: {self.end - start} are left")
        self.position = start + size
        return _Reader(self.data, start, start + size)

    def name(self, what: str) -> str:
        size = self.unsigned(f"the length of a {what}")
        start = self.position
        raw = self.take(size, f"a {what}")
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise self.fail(f"a {what} is not UTF-8", start) from None

    def vector(self, what: str, read: Callable[[_Reader], _T]) -> list[_T]:
        start = self.position
        count = self.unsigned(f"the number of {what}s")
        if count > self.end - self.position:  # each takes a byte at least
            raise self.fail(f"{count} {what}s cannot stand in {self.end - self.position} bytes", start)
        return [read(self) for _ in range(count)]

    def rest(self) -> bytes:
        return self.data[self.position : self.end]

    def finish(self, what: str) -> None:
        if self.position != self.end:
            raise self.fail(f"the {what} ends {self.end - self.position} bytes before its size says")


def _plain_version(text: str) -> str:
    """`1.80.1 (3f5fd8dd4 2024-08-06)` and `go1.24.4` are 1.80.1 and 1.24.4."""
    return text.removeprefix("go").partition(" ")[0]


def check_header(wasm: bytes) -> None:
    """Raise CompileError that says what `wasm` looks like where it does not begin as a core module does."""
    if wasm.startswith(_HEADER):
        return
    if not wasm:
        raise CompileError("not a WebAssembly module: it is empty")
    if wasm.startswith(_HEADER[:4]):
        if len(wasm) < len(_HEADER):
            raise CompileError("malformed module: it is cut off in its header at offset 0x4")
        if wasm[6:8] == b"\x01\0":
            raise CompileError(
                "it is a WebAssembly component (WASI 0.2 and later), and Proxy-Wasm is for core modules: "
                "compile for wasm32-wasip1 or wasm32-unknown-unknown"
            )
        raise CompileError(f"a module of the unknown version {int.from_bytes(wasm[4:8], 'little')}")
    for prefix, text in _LOOKALIKES:
        if wasm.startswith(prefix):
            raise CompileError(f"not a WebAssembly module: {text}")
    head = wasm[:4096].lstrip()
    if head.startswith((b"(module", b"(component", b";;", b"(;")):
        raise CompileError("it is WebAssembly text (WAT): translate it to a binary module first, e.g. by wat2wasm")
    if head[:1] == b"<":
        raise CompileError("not a WebAssembly module: it is HTML or XML, perhaps the answer of a failed download")
    raise CompileError(f"not a WebAssembly module: it begins with {wasm[:8].hex(' ')}, not with {_HEADER.hex(' ')}")


def read_module(wasm: bytes) -> ModuleInfo:
    """Read a module. Raises CompileError with the offset and what is wrong there."""
    return _ModuleReader(wasm).read()


class _ModuleReader:
    """Reads section by section and keeps what later ones refer to."""

    def __init__(self, wasm: bytes) -> None:
        self._wasm = wasm
        self._types: list[FunctionType] = []
        self._imports: list[Import] = []
        self._functions: list[FunctionType] = []  # the imported ones first, as indices count
        self._memories: list[Memory] = []
        self._tables: tuple[Table, ...] = ()
        self._counts = dict.fromkeys(_KINDS, 0)
        self._exports: list[Export] = []
        self._start: int | None = None
        self._bodies = 0
        self._sizes: dict[str, int] = {}
        self._custom: list[CustomSection] = []

    def read(self) -> ModuleInfo:
        for number, section in _sections(self._wasm):
            if number == 0:
                name = section.name("custom section name")
                self._custom.append(CustomSection(name, section.rest()))
                continue
            label = _SECTION_NAMES[number]
            self._sizes[label] = section.end - section.position
            read = self._READERS.get(label)
            if read is not None:
                read(self, section)
                section.finish(f"{label} section")
        own = len(self._functions) - self._imported_functions
        if own != self._bodies:
            raise CompileError(f"malformed module: {own} functions are declared, {self._bodies} have code")
        return ModuleInfo(
            size=len(self._wasm),
            types=tuple(self._types),
            imports=tuple(self._imports),
            exports=tuple(self._exports),
            memories=tuple(self._memories),
            tables=self._tables,
            functions=own,
            start=self._start,
            code_size=self._sizes.get("code", 0),
            data_size=self._sizes.get("data", 0),
            custom=tuple(self._custom),
        )

    @property
    def _imported_functions(self) -> int:
        return sum(item.type is not None for item in self._imports)

    def _read_types(self, reader: _Reader) -> None:
        self._types = reader.vector("type", _read_type)

    def _read_imports(self, reader: _Reader) -> None:
        self._imports = reader.vector("import", self._read_import)

    def _read_import(self, reader: _Reader) -> Import:
        module, name = reader.name("module name"), reader.name("import name")
        start = reader.position
        kind = reader.byte("an import's kind")
        function_type = None
        if kind == 0:
            function_type = self._type(reader, "an imported function")
            self._functions.append(function_type)
        elif kind == 1:
            _read_value_type(reader)
            _read_limits(reader)
        elif kind == 2:
            self._memories.append(Memory(*_read_limits(reader), imported=True))
        elif kind == 3:
            _read_value_type(reader)
            reader.byte("a global's mutability")
        elif kind == 4:
            reader.byte("a tag's attribute")
            self._type(reader, "a tag")
        else:
            raise reader.fail(f"the import {module!r}.{name!r} is of the unknown kind {kind}", start)
        return Import(module, name, _KINDS[kind], function_type)

    def _type(self, reader: _Reader, what: str) -> FunctionType:
        start = reader.position
        index = reader.unsigned(f"the type of {what}")
        if index >= len(self._types):
            raise reader.fail(f"{what} is of type {index}, and there are {len(self._types)}", start)
        return self._types[index]

    def _read_functions(self, reader: _Reader) -> None:
        self._functions += reader.vector("function", lambda reader: self._type(reader, "a function"))

    def _read_memories(self, reader: _Reader) -> None:
        self._memories += reader.vector("memory", lambda reader: Memory(*_read_limits(reader), imported=False))

    def _read_tables(self, reader: _Reader) -> None:
        self._tables = tuple(table for _, table in _table_section(reader))

    def _read_exports(self, reader: _Reader) -> None:
        self._exports = reader.vector("export", self._read_export)
        names = Counter(export.name for export in self._exports)
        if len(names) != len(self._exports):
            raise reader.fail(f"two exports are named {names.most_common(1)[0][0]!r}")

    def _read_export(self, reader: _Reader) -> Export:
        name = reader.name("export name")
        start = reader.position
        kind = reader.byte("an export's kind")
        if kind >= len(_KINDS):
            raise reader.fail(f"the export {name!r} is of the unknown kind {kind}", start)
        index = reader.unsigned("an export's index")
        if kind != 0:
            if kind == 2 and index >= len(self._memories):
                raise reader.fail(f"the export {name!r} is of memory {index}, which there is not", start)
            return Export(name, _KINDS[kind], index, None)
        if index >= len(self._functions):
            raise reader.fail(
                f"the export {name!r} is of function {index}, and there are {len(self._functions)}", start
            )
        return Export(name, _KINDS[kind], index, self._functions[index])

    def _read_start(self, reader: _Reader) -> None:
        self._start = reader.unsigned("the start function")
        if self._start >= len(self._functions):
            raise reader.fail(f"the start function is {self._start}, and there are {len(self._functions)}")

    def _read_code(self, reader: _Reader) -> None:
        self._bodies = reader.unsigned("the number of function bodies")
        for _ in range(self._bodies):
            reader.part(reader.unsigned("the size of a function body"), "a function body")

    _READERS: Mapping[str, Callable[[_ModuleReader, _Reader], None]] = {
        "type": _read_types,
        "import": _read_imports,
        "function": _read_functions,
        "table": _read_tables,
        "memory": _read_memories,
        "export": _read_exports,
        "start": _read_start,
        "code": _read_code,
    }


def _sections(wasm: bytes) -> Iterator[tuple[int, _Reader]]:
    """Yield each section's id and a reader of what is in it."""
    check_header(wasm)
    reader = _Reader(wasm, len(_HEADER), len(wasm))
    last = -1
    while reader.position < reader.end:
        start = reader.position
        number = reader.byte("a section")
        label = f"the {_SECTION_NAMES.get(number, 'custom')} section"
        if number:
            place = _SECTION_ORDER.get(number)
            if place is None:
                raise reader.fail(f"a section has the unknown id {number}", start)
            if place <= last:
                raise reader.fail(f"{label} comes twice or too late", start)
            last = place
        yield number, reader.part(reader.unsigned(f"the size of {label}"), label)


def _read_type(reader: _Reader) -> FunctionType:
    start = reader.position
    form = reader.byte("a type")
    if form != _FUNCTION_FORM:
        raise reader.fail(
            f"a type of the form 0x{form:02x} is not a function type (the GC proposal is not taken)", start
        )
    params = reader.vector("parameter", _read_value_type)
    return FunctionType(tuple(params), tuple(reader.vector("result", _read_value_type)))


def _read_value_type(reader: _Reader) -> str:
    start = reader.position
    code = reader.byte("a value type")
    if code in (0x63, 0x64):  # a typed reference; its heap type is a signed number of 33 bits, its value of no interest
        for _ in range(5):
            if reader.byte("a heap type") < 0x80:
                return "ref"
        raise reader.fail("a heap type is not a number of 33 bits", start)
    try:
        return _VALUE_TYPES[code]
    except KeyError:
        raise reader.fail(f"0x{code:02x} is not a value type", start) from None


def _read_limits(reader: _Reader) -> tuple[int, int | None]:
    start = reader.position
    flags = reader.byte("the flags of a size")
    if flags & ~0x0F:
        raise reader.fail(f"the flags of a size are 0x{flags:02x}", start)
    bits = 64 if flags & 0x04 else 32
    minimum = reader.unsigned("a minimum size", bits)
    maximum = reader.unsigned("a maximum size", bits) if flags & 0x01 else None
    if flags & 0x08:
        reader.unsigned("a page size")
    if maximum is not None and maximum < minimum:
        raise reader.fail(f"a size is {minimum} at least and {maximum} at most", start)
    return minimum, maximum


def _table_section(reader: _Reader) -> list[tuple[bytes, Table]]:
    """Return each table with its reference type as it is written."""
    return reader.vector("table", _read_table)


def _read_table(reader: _Reader) -> tuple[bytes, Table]:
    start = reader.position
    if reader.data[start : start + 1] == b"\x40":
        raise reader.fail("a table has an initialiser (the proposal of function references is not taken)")
    _read_value_type(reader)
    kind = reader.data[start : reader.position]
    return kind, Table(*_read_limits(reader))


def _read_producers(reader: _Reader) -> dict[str, tuple[tuple[str, str], ...]]:
    def read_pair(reader: _Reader) -> tuple[str, str]:
        return reader.name("producer"), reader.name("version")

    def read_field(reader: _Reader) -> tuple[str, tuple[tuple[str, str], ...]]:
        return reader.name("field name"), tuple(reader.vector("producer", read_pair))

    return dict(reader.vector("field", read_field))


def _read_names(reader: _Reader) -> tuple[str | None, dict[int, str]]:
    module_name = None
    functions: dict[int, str] = {}
    while reader.position < reader.end:
        number = reader.byte("a subsection")
        subsection = reader.part(reader.unsigned("the size of a subsection"), "a subsection")
        if number == 0:
            module_name = subsection.name("module name")
        elif number == 1:
            functions = dict(subsection.vector("function name", _read_association))
    return module_name, functions


def _read_association(reader: _Reader) -> tuple[int, str]:
    return reader.unsigned("an index"), reader.name("function name")


def import_memory(wasm: bytes, module: str, name: str) -> bytes:
    """Return the module with its own memory turned into the import `module`.`name` of the same size.

    For an engine that cannot limit the memory that a module makes: the host then makes it, as small as it wants.
    Indices stay what they were, since the memory was and is number 0. A module without an own memory is returned as it
    is. Raises CompileError where the module is malformed or has several memories.
    """
    info = read_module(wasm)
    if len(info.memories) > 1:
        raise CompileError(f"the module has {len(info.memories)} memories, and one is what this engine can limit")
    if not info.memories or info.memories[0].imported:
        return wasm
    sections = list(_sections(wasm))
    memory = next(section for number, section in sections if number == _MEMORY_SECTION)
    memory.unsigned("the number of memories")
    added = _sized(module.encode()) + _sized(name.encode()) + bytes([_KINDS.index("memory")]) + memory.rest()
    imports = [section for number, section in sections if number == _IMPORT_SECTION]
    count = imports[0].unsigned("the number of imports") if imports else 0
    import_section = _leb128(count + 1) + (imports[0].rest() if imports else b"") + added
    rewritten = [(number, section.rest()) for number, section in sections if number not in _REWRITTEN_SECTIONS]
    place = next(
        (
            n
            for n, (number, _) in enumerate(rewritten)
            if _SECTION_ORDER.get(number, -1) > _SECTION_ORDER[_IMPORT_SECTION]
        ),
        len(rewritten),
    )
    rewritten.insert(place, (_IMPORT_SECTION, import_section))
    return _HEADER + b"".join(bytes([number]) + _sized(body) for number, body in rewritten)


def limit_tables(wasm: bytes, elements: int) -> bytes:
    """Return the module with a maximum for its own tables, so that they have at most so many elements together.

    For an engine that cannot limit them. A table that is larger from the start is not made smaller: that raises
    CompileError, as a malformed module does.
    """
    tables = read_module(wasm).tables
    growing = sum(table.maximum != table.minimum for table in tables)
    left = elements - sum(table.minimum for table in tables)
    if left < 0:
        raise CompileError(f"the tables of the module have {elements - left} elements, and {elements} are allowed")
    if not growing:
        return wasm
    rewritten = []
    for number, section in _sections(wasm):
        body = section.rest()
        if number == _TABLE_SECTION:
            body = _leb128(len(tables))
            for kind, table in _table_section(section):
                maximum = table.minimum + left // growing
                if table.maximum is not None:
                    maximum = min(maximum, table.maximum)
                body += kind + b"\x01" + _leb128(table.minimum) + _leb128(maximum)
        rewritten.append(bytes([number]) + _sized(body))
    return _HEADER + b"".join(rewritten)


def _sized(data: bytes) -> bytes:
    return _leb128(len(data)) + data


def _leb128(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
