"""The reader of the binary format: what it finds in modules, and that nothing makes it stumble."""

from __future__ import annotations

import gzip
import random
import time

import pytest
import wasmtime
from hypothesis import given
from hypothesis import strategies as st

from twisted_wasmproxy.runtimes.binary import Memory, ModuleInfo, Table, import_memory, limit_tables, read_module
from twisted_wasmproxy.runtimes.interface import CompileError, FunctionType, Import

SAMPLE = bytes(
    wasmtime.wat2wasm(
        """
(module $sample
  (import "env" "first" (func (param i32 i64) (result f64)))
  (import "env" "memory" (memory 3 9))
  (import "env" "table" (table 1 funcref))
  (import "env" "global" (global (mut i64)))
  (import "wasi_snapshot_preview1" "second" (func))
  (table 2 4 externref)
  (global i32 (i32.const 1))
  (func $own (export "own") (param f32) (result i32) (i32.const 7))
  (func $begin)
  (export "z_last" (func 0))
  (export "memory" (memory 0))
  (export "a_first" (func $begin))
  (start $begin)
  (data (i32.const 0) "some data"))
"""
    )
)


def section(number: int, body: bytes) -> bytes:
    assert len(body) < 128
    return bytes([number, len(body)]) + body


def module(*sections: bytes) -> bytes:
    return b"\0asm\x01\0\0\0" + b"".join(sections)


def test_imports_are_told_with_kind_and_type_in_order():
    info = read_module(SAMPLE)
    assert info.imports == (
        Import("env", "first", "function", FunctionType(("i32", "i64"), ("f64",))),
        Import("env", "memory", "memory", None),
        Import("env", "table", "table", None),
        Import("env", "global", "global", None),
        Import("wasi_snapshot_preview1", "second", "function", FunctionType((), ())),
    )


def test_exports_are_told_in_the_modules_order_with_the_types_of_functions():
    info = read_module(SAMPLE)
    assert [(export.name, export.kind) for export in info.exports] == [
        ("own", "function"),
        ("z_last", "function"),
        ("memory", "memory"),
        ("a_first", "function"),
    ]
    assert info.function_exports == {
        "own": FunctionType(("f32",), ("i32",)),
        "z_last": FunctionType(("i32", "i64"), ("f64",)),
        "a_first": FunctionType((), ()),
    }


def test_memory_start_and_sizes_are_told():
    info = read_module(SAMPLE)
    assert info.memories == (Memory(3, 9, imported=True),)
    assert info.start == 3
    assert info.functions == 2
    assert info.size == len(SAMPLE)
    assert 0 < info.code_size < info.size
    assert info.data_size > len("some data")


def test_names_are_read_from_the_name_section():
    info = read_module(SAMPLE)
    assert info.name == "sample"
    assert info.function_names[2] == "own"
    assert read_module(module()).name is None
    assert read_module(module()).function_names == {}


def test_faults_in_custom_sections_are_no_faults_of_the_module():
    for body in (b"\x04name\x01\x7f", b"\x04name\x00\x02\x05a", b"\x09producers\xff", b"\x09producers\x01\x08language"):
        info = read_module(module(section(0, body)))
        assert info.name is None
        assert info.function_names == {}
        assert info.producers == {}


def test_real_modules_tell_their_language_and_marker(real_modules):
    languages = set()
    for path in real_modules:
        info = read_module(path.read_bytes())
        languages.add(info.producers["language"][0][0])
        names = [export.name for export in info.exports]
        assert any(name.startswith("proxy_abi_version_") for name in names)
        assert {item.module for item in info.imports} <= {"env", "wasi_snapshot_preview1"}
        assert info.toolchain.startswith(("Rust 1.80.1", "Go 1.24"))
        assert len(info.function_names) > 1000
    assert languages == {"Go", "Rust"}


@pytest.mark.parametrize(
    ("fields", "imports", "expected"),
    [
        ({"language": [("Rust", "")], "processed-by": [("rustc", "1.80.1 (3f5)")]}, "", "Rust 1.80.1"),
        ({"language": [("Go", "go1.24.4")], "processed-by": [("Go cmd/compile", "go1.24.4")]}, "", "Go 1.24.4"),
        ({"language": [("C99", "")], "processed-by": [("TinyGo", "0.34.0")]}, "", "TinyGo 0.34.0"),
        ({"processed-by": [("clang", "18")], "sdk": [("Emscripten", "3.1.67")]}, "", "C or C++ (Emscripten 3.1.67)"),
        (
            {"language": [("C_plus_plus_14", "")], "processed-by": [("clang", "18.1.2 (x)")]},
            "",
            "C or C++ (clang 18.1.2)",
        ),
        ({"language": [("Zig", "")]}, "", "Zig"),
        ({}, '(import "env" "abort" (func (param i32 i32 i32 i32)))', "AssemblyScript"),
        ({}, "", ""),
    ],
)
def test_the_toolchain_is_recognised(fields, imports, expected):
    def text(value):
        return bytes([len(value)]) + value.encode()

    body = bytes([len(fields)])
    for name, values in fields.items():
        body += text(name) + bytes([len(values)]) + b"".join(text(a) + text(b) for a, b in values)
    custom = section(0, text("producers") + body)
    assert read_module(bytes(wasmtime.wat2wasm(f"(module {imports})")) + custom).toolchain == expected


@pytest.mark.parametrize(
    ("wasm", "text"),
    [
        (b"", "empty"),
        (gzip.compress(SAMPLE), "gzip"),
        (b"\x7fELF\x02\x01\x01", "ELF"),
        (b"!<arch>\n", "static library"),
        (b"PK\x03\x04....", "zip"),
        (b'\n  (module (func (export "f")))', "WAT"),
        (b";; a comment\n(module)", "WAT"),
        (b"<!DOCTYPE html><title>404</title>", "HTML"),
        (b"\0asm\x0d\0\x01\0", "component"),
        (b"\0asm\x02\0\0\0", "version 2"),
        (b"\0asm\x01", "cut off"),
        (b"hello world", "68 65 6c 6c 6f"),
    ],
)
def test_what_is_not_a_module_is_told_by_what_it_looks_like(wasm, text):
    with pytest.raises(CompileError, match=text):
        read_module(wasm)


TYPE = section(1, b"\x01\x60\x00\x00")


@pytest.mark.parametrize(
    ("wasm", "text"),
    [
        (module(b"\x01"), "size of the type section is cut off at offset 0x9"),
        (module(b"\x01\x7f\x00"), "type section of 127 bytes is cut off: 1 are left at offset 0xa"),
        (module(b"\x0f\x00"), "unknown id 15 at offset 0x8"),
        (module(TYPE, TYPE), "twice or too late"),
        (module(section(3, b"\x00"), TYPE), "twice or too late"),
        (module(section(1, b"\x01\x60\x01\x01\x00")), "0x01 is not a value type at offset 0xd"),
        (module(section(1, b"\x01\x5e\x00\x00")), "not a function type"),
        (module(section(1, b"\xff\xff\xff\xff\x0f")), "4294967295 types cannot stand in 0 bytes"),
        (module(section(1, b"\xff\xff\xff\xff\x1f")), "not a number of 32 bits"),
        (module(section(1, b"\x80\x80\x80\x80\x80\x00")), "not a number of 32 bits"),
        (module(section(1, b"\x00\x00")), "type section ends 1 bytes before"),
        (module(section(2, b"\x01\x01a\x01b\x07")), "unknown kind 7"),
        (module(section(2, b"\x01\x01a\x01b\x00\x00")), "of type 0, and there are 0"),
        (module(section(2, b"\x01\x01\xff\x01b\x00\x00")), "not UTF-8"),
        (module(TYPE, section(3, b"\x01\x00")), "1 functions are declared, 0 have code"),
        (module(TYPE, section(3, b"\x01\x00"), section(10, b"\x01\x05\x00")), "function body of 5 bytes is cut off"),
        (module(section(5, b"\x01\x01\x05\x02")), "5 at least and 2 at most"),
        (module(section(5, b"\x01\x70\x05")), "flags of a size are 0x70"),
        (module(section(7, b"\x01\x01f\x00\x00")), "of function 0, and there are 0"),
        (module(section(7, b"\x01\x01f\x02\x00")), "memory 0"),
        (
            module(section(5, b"\x01\x00\x01"), section(7, b"\x02\x01m\x02\x00\x01m\x02\x00")),
            "two exports are named 'm'",
        ),
        (module(section(8, b"\x03")), "start function is 3"),
    ],
)
def test_faults_are_told_with_their_offset(wasm, text):
    with pytest.raises(CompileError, match=r"offset 0x|functions are declared") as told:
        read_module(wasm)
    assert text in str(told.value)


def look_at_everything(info: ModuleInfo) -> None:
    assert isinstance(info.toolchain, str)
    assert isinstance(info.function_exports, dict)
    assert info.name is None or isinstance(info.name, str)


def survives(wasm: bytes) -> None:
    try:
        look_at_everything(read_module(wasm))
    except CompileError as error:
        assert str(error)  # noqa: PT017 - nothing else may come, and something said


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(tail):
    survives(b"\0asm\x01\0\0\0" + tail)


@given(st.data())
def test_a_sample_cut_off_or_altered_is_read_or_refused(data):
    wasm = bytearray(SAMPLE[: data.draw(st.integers(0, len(SAMPLE)))])
    for _ in range(data.draw(st.integers(0, 4)) if wasm else 0):
        wasm[data.draw(st.integers(0, len(wasm) - 1))] = data.draw(st.integers(0, 255))
    survives(bytes(wasm))


def test_real_modules_cut_off_or_altered_are_read_or_refused_soon(real_modules):
    chance = random.Random(20)
    wasm = next(path for path in real_modules if b"rustc" in path.read_bytes()[-2000:]).read_bytes()
    head = 6000  # where types, imports, functions and exports stand
    for _ in range(60):
        altered = bytearray(wasm)
        for _ in range(chance.randint(1, 3)):
            altered[chance.randrange(head)] = chance.randrange(256)
        if chance.random() < 0.3:
            del altered[chance.randrange(len(altered)) :]
        begun = time.process_time()
        survives(bytes(altered))
        assert time.process_time() - begun < 2


def test_a_reader_of_lies_about_sizes_stays_quick():
    many = b"\xff\xff\xff\x7f"
    body = many + b"\x60\x00\x00" * 20_000
    size = len(body)
    header = bytes([size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14])
    begun = time.process_time()
    with pytest.raises(CompileError):
        read_module(module(b"\x01" + header + body))
    assert time.process_time() - begun < 1


def test_a_memory_becomes_an_import_and_all_else_stays(real_modules):
    for wasm in (real_modules[0].read_bytes(), bytes(wasmtime.wat2wasm('(module (memory (export "memory") 2 7))'))):
        before, after = read_module(wasm), read_module(import_memory(wasm, "host", "its memory"))
        assert after.imports == (*before.imports, Import("host", "its memory", "memory", None))
        assert [(m.minimum, m.maximum) for m in after.memories] == [(m.minimum, m.maximum) for m in before.memories]
        assert after.memories[0].imported
        assert (after.exports, after.custom, after.code_size) == (before.exports, before.custom, before.code_size)


def test_a_module_without_a_memory_of_its_own_stays_as_it_is():
    for text in ("(module)", '(module (import "a" "b" (memory 1)))'):
        wasm = bytes(wasmtime.wat2wasm(text))
        assert import_memory(wasm, "host", "memory") is wasm
    with pytest.raises(CompileError, match="2 memories"):
        import_memory(bytes(wasmtime.wat2wasm("(module (memory 1) (memory 1))")), "host", "memory")


def test_tables_are_read():
    wat = '(module (import "env" "t" (table 7 funcref)) (table 2 4 externref) (table 1 funcref))'
    assert read_module(bytes(wasmtime.wat2wasm(wat))).tables == (Table(2, 4), Table(1, None))


def test_tables_get_a_maximum():
    wat = "(module (table 2 4 externref) (table 1 funcref) (table 5 5 funcref) (table 0 0 funcref) (memory 1))"
    wasm = bytes(wasmtime.wat2wasm(wat))
    limited = limit_tables(wasm, 1008)
    assert read_module(limited).tables == (Table(2, 4), Table(1, 501), Table(5, 5), Table(0, 0))
    wasmtime.Module.validate(wasmtime.Engine(), limited)
    assert limit_tables(limited, 1008) == limited
    with pytest.raises(CompileError, match="8 elements, and 7 are allowed"):
        limit_tables(wasm, 7)


@pytest.mark.parametrize("wat", ["(module)", "(module (table 3 3 funcref))"])
def test_a_module_whose_tables_do_not_grow_stays_as_it_is(wat):
    wasm = bytes(wasmtime.wat2wasm(wat))
    assert limit_tables(wasm, 100) is wasm
