"""Linking, values, memory and nesting, the same on every engine."""

from __future__ import annotations

import math

import pytest

from twisted_wasmproxy.runtimes.interface import Exit, FunctionType, LinkError, MemoryFault, RuntimeFault, Trap

ECHO = """
(module
  (import "env" "echo32" (func $echo32 (param i32) (result i32)))
  (import "env" "echo64" (func $echo64 (param i64) (result i64)))
  (func (export "echo32") (param i32) (result i32) (call $echo32 (local.get 0)))
  (func (export "echo64") (param i64) (result i64) (call $echo64 (local.get 0)))
  (func (export "same32") (param i32) (result i32) (local.get 0))
  (func (export "same64") (param i64) (result i64) (local.get 0))
  (func (export "third") (param i64 i32 i32) (result i32) (local.get 2))
  (func (export "nothing")))
"""


def echo(build, seen):
    def note(value):
        seen.append(value)
        return value

    return build(ECHO, {"env.echo32": ("i32 -> i32", note), "env.echo64": ("i64 -> i64", note)})


@pytest.mark.parametrize("value", [0, 1, 2**31 - 1, 2**31, 2**32 - 1])
def test_u32_goes_unsigned_into_the_guest_to_the_host_and_back(build, value):
    seen = []
    instance = echo(build, seen)
    assert instance.function("same32")(value) == value
    assert instance.function("echo32")(value) == value
    assert seen == [value]


@pytest.mark.parametrize("value", [0, 2**32, 2**63 - 1, 2**63, 2**64 - 1])
def test_u64_goes_unsigned_into_the_guest_to_the_host_and_back(build, value):
    seen = []
    instance = echo(build, seen)
    assert instance.function("same64")(value) == value
    assert instance.function("echo64")(value) == value
    assert seen == [value]


def test_arguments_and_results_are_masked_to_their_type(build):
    instance = build(ECHO, {"env.echo32": ("i32 -> i32", lambda value: -2), "env.echo64": ("i64 -> i64", lambda v: -2)})
    assert instance.function("same32")(-1) == 2**32 - 1
    assert instance.function("same32")(2**40 + 5) == 5
    assert instance.function("same64")(-1) == 2**64 - 1
    assert instance.function("same64")(2**64 + 7) == 7
    assert instance.function("echo32")(0) == 2**32 - 2
    assert instance.function("echo64")(0) == 2**64 - 2


def test_an_i32_result_has_nothing_of_a_wide_argument_in_it(build):
    assert echo(build, []).function("third")(2**64 - 1, 3, 4) == 4
    instance = build('(module (func (export "low") (param i64) (result i32) (i32.wrap_i64 (local.get 0))))')
    assert instance.function("low")(2**64 - 1 << 32) == 0
    assert instance.function("low")(0xFFFFFFFF_00000005) == 5


def test_without_a_result_there_is_none(build):
    assert echo(build, []).function("nothing")() is None


def test_many_arguments_of_mixed_types_keep_their_places(build):
    seen = []
    instance = build(
        """(module
          (import "env" "take" (func $take (param i32 i64 f32 f64 i32 i64 i32 i32 i32 i32 i32 i64) (result f64)))
          (func (export "run") (param i32 i64 f32 f64 i32 i64) (result f64)
            (call $take (local.get 0) (local.get 1) (local.get 2) (local.get 3) (local.get 4) (local.get 5)
              (i32.const 7) (i32.const -8) (i32.const 9) (i32.const 10) (i32.const 11) (i64.const -12))))""",
        {"env.take": ("i32 i64 f32 f64 i32 i64 i32 i32 i32 i32 i32 i64 -> f64", lambda *a: seen.append(a) or 0.25)},
    )
    assert instance.function("run")(1, 2**63, 0.5, math.pi, 5, 6) == 0.25
    assert seen == [(1, 2**63, 0.5, math.pi, 5, 6, 7, 2**32 - 8, 9, 10, 11, 2**64 - 12)]


def test_exports_tell_functions_with_their_types(build):
    instance = echo(build, [])
    assert instance.exports["third"] == FunctionType(("i64", "i32", "i32"), ("i32",))
    assert instance.exports["nothing"] == FunctionType((), ())
    with pytest.raises(KeyError):
        instance.function("absent")


def test_a_wrong_number_of_arguments_is_a_type_error(build):
    function = echo(build, []).function("third")
    with pytest.raises(TypeError, match="argument"):
        function(1, 2)
    with pytest.raises(TypeError, match="argument"):
        function(1, 2, 3, 4)


def test_every_import_that_does_not_fit_is_told_at_once(build):
    with pytest.raises(LinkError) as told:
        build(
            """(module
              (import "env" "right" (func (param i32)))
              (import "env" "absent" (func (param i32 i64) (result i32)))
              (import "env" "narrow" (func (param i32)))
              (import "env" "quiet" (func (result i32)))
              (import "wasi" "table" (table 1 funcref))
              (import "other" "global" (global i32)))""",
            {
                "env.right": ("i32 ->", print),
                "env.narrow": ("i64 ->", print),
                "env.quiet": ("->", print),
                "env.unused": ("->", print),
            },
        )
    text = str(told.value)
    assert "env.right" not in text
    assert "env.unused" not in text
    assert "env.absent (i32, i64) -> (i32)" in text
    assert "env.narrow: the module wants (i32) -> (), the host's is (i64) -> ()" in text
    assert "env.quiet" in text
    assert "wasi.table: a table is imported" in text
    assert "other.global: a global is imported" in text


def test_a_function_may_be_imported_twice(build):
    calls = []
    instance = build(
        """(module
          (import "env" "f" (func $a (param i32)))
          (import "env" "f" (func $b (param i32)))
          (func (export "run") (call $a (i32.const 1)) (call $b (i32.const 2))))""",
        {"env.f": ("i32 ->", calls.append)},
    )
    instance.function("run")()
    assert calls == [1, 2]


def test_a_start_section_runs_at_instantiation_with_its_imports(build):
    calls = []
    wat = """(module
      (import "env" "f" (func $f (param i32)))
      (func $start (call $f (i32.const 41)))
      (start $start))"""
    build(wat, {"env.f": ("i32 ->", calls.append)})
    assert calls == [41]


@pytest.mark.parametrize(("raised", "expected"), [(Exit(3), Exit), (OSError("disk"), Trap)])
def test_what_a_start_section_ends_with_comes_out_of_instantiate(build, raised, expected):
    def fail(_):
        raise raised

    wat = """(module (import "env" "f" (func $f (param i32))) (func $s (call $f (i32.const 0))) (start $s))"""
    with pytest.raises(expected):
        build(wat, {"env.f": ("i32 ->", fail)})


MEMORY = """
(module
  (import "env" "use" (func $use (param i32 i32)))
  (memory (export "memory") 1 4)
  (data (i32.const 8) "guest text")
  (func (export "use") (call $use (i32.const 8) (i32.const 10)))
  (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0)))
  (func (export "load") (param i32) (result i32) (i32.load (local.get 0)))
  (func (export "store") (param i32 i32) (i32.store (local.get 0) (local.get 1))))
"""


def test_host_and_guest_see_the_same_memory(build):
    instance = build(MEMORY, {"env.use": ("i32 i32 ->", lambda a, n: instance.write(a, instance.read(a, n).upper()))})
    instance.function("use")()
    assert instance.read(8, 10) == b"GUEST TEXT"
    instance.write_u32(1001, 0xFFFEFDFC)
    assert instance.function("load")(1001) == 0xFFFEFDFC
    instance.function("store")(65532, 0x80000001)
    assert instance.read_u32(65532) == 0x80000001
    assert instance.read(65532, 4) == b"\x01\x00\x00\x80"
    instance.write(20, memoryview(b"view")[1:])
    instance.write(30, bytearray(b"array"))
    assert instance.read(20, 15) == b"iew" + bytes(7) + b"array"


@pytest.mark.parametrize(("address", "size"), [(65536, 1), (65533, 4), (0, 65537), (2**32 - 1, 2), (-1, 1), (5, -1)])
def test_ranges_outside_memory_are_refused_and_nothing_is_written(build, address, size):
    instance = build(MEMORY, {"env.use": ("i32 i32 ->", print)})
    before = instance.read(0, 65536)
    with pytest.raises(MemoryFault):
        instance.read(address, size)
    if size >= 0:
        with pytest.raises(MemoryFault):
            instance.write(address, b"x" * size)
    assert instance.read(0, 65536) == before


@pytest.mark.parametrize("address", [65533, 65536, 2**32 - 1, -1])
def test_words_outside_memory_are_refused(build, address):
    instance = build(MEMORY, {"env.use": ("i32 i32 ->", print)})
    with pytest.raises(MemoryFault):
        instance.read_u32(address)
    with pytest.raises(MemoryFault):
        instance.write_u32(address, 1)


def test_empty_ranges_are_good_up_to_the_end(build):
    instance = build(MEMORY, {"env.use": ("i32 i32 ->", print)})
    assert instance.read(65536, 0) == b""
    instance.write(65536, b"")
    with pytest.raises(MemoryFault):
        instance.read(65537, 0)


def test_memory_that_grows_inside_a_host_call_is_seen_at_once(build):
    seen = []

    def use(address, size):
        seen.append(instance.memory_size())
        seen.append(instance.function("grow")(2))
        instance.write(3 * 65536 - 5, b"fresh")
        seen.append(instance.read(3 * 65536 - 5, 5))
        seen.append(instance.read(address, size))
        seen.append(instance.memory_size())
        with pytest.raises(MemoryFault):
            instance.read(3 * 65536 - 1, 2)

    instance = build(MEMORY, {"env.use": ("i32 i32 ->", use)})
    instance.function("use")()
    assert seen == [65536, 1, b"fresh", b"guest text", 3 * 65536]
    assert instance.function("load")(3 * 65536 - 4) == int.from_bytes(b"resh", "little")


def test_a_module_without_memory_has_none_to_read(build):
    instance = build('(module (func (export "f")))')
    assert instance.memory_size() == 0
    with pytest.raises(MemoryFault):
        instance.read(0, 1)
    with pytest.raises(MemoryFault):
        instance.write_u32(0, 1)


NESTED = """
(module
  (import "env" "back" (func $back (param i32 i32) (result i32)))
  (func $down (export "down") (param i32 i32) (result i32)
    (if (result i32) (i32.eqz (local.get 0))
      (then (local.get 1))
      (else (i32.add (local.get 0) (call $back (i32.sub (local.get 0) (i32.const 1)) (local.get 1))))))
  (func (export "broken") unreachable))
"""


def test_a_host_function_may_call_the_guest_to_any_depth(build):
    instance = build(NESTED, {"env.back": ("i32 i32 -> i32", lambda n, x: instance.function("down")(n, x))})
    assert instance.function("down")(30, 1000) == 1000 + sum(range(31))
    assert instance.function("down")(2, 7) == 10


def test_the_trap_of_a_nested_call_may_be_handled_by_the_host_function(build):
    def back(number, value):
        with pytest.raises(Trap):
            instance.function("broken")()
        return 5

    instance = build(NESTED, {"env.back": ("i32 i32 -> i32", back)})
    assert instance.function("down")(1, 0) == 6


def test_the_trap_of_a_nested_call_goes_out_through_the_outer_one(build):
    instance = build(NESTED, {"env.back": ("i32 i32 -> i32", lambda n, x: instance.function("broken")())})
    with pytest.raises(Trap, match="unreachable"):
        instance.function("down")(1, 0)
    assert instance.function("down")(0, 9) == 9


def test_recursion_through_the_host_ends_in_a_trap(build):
    instance = build(NESTED, {"env.back": ("i32 i32 -> i32", lambda n, x: instance.function("down")(n, x))})
    with pytest.raises(Trap):
        instance.function("down")(100_000, 0)


def test_exit_comes_out_as_it_is_through_any_depth(build):
    def back(number, value):
        if number == 0:
            raise Exit(17)
        return instance.function("down")(number, value)

    instance = build(NESTED, {"env.back": ("i32 i32 -> i32", back)})
    with pytest.raises(Exit) as told:
        instance.function("down")(4, 0)
    assert told.value.code == 17


def test_an_exception_of_a_host_function_is_the_cause_of_a_trap(build):
    def back(number, value):
        raise LookupError("no such thing")

    instance = build(NESTED, {"env.back": ("i32 i32 -> i32", back)})
    with pytest.raises(Trap, match="LookupError: no such thing") as told:
        instance.function("down")(1, 0)
    assert isinstance(told.value.__cause__, LookupError)
    assert not told.value.timed_out


def test_a_runtime_error_of_a_host_function_is_not_taken_for_the_guests(build):
    def back(number, value):
        raise RuntimeError("unreachable")

    instance = build(NESTED, {"env.back": ("i32 i32 -> i32", back)})
    with pytest.raises(Trap) as told:
        instance.function("down")(1, 0)
    assert isinstance(told.value.__cause__, RuntimeError)


def test_a_host_function_that_returns_nothing_where_a_result_is_due_traps(build):
    instance = build(NESTED, {"env.back": ("i32 i32 -> i32", lambda n, x: None)})
    with pytest.raises(Trap) as told:
        instance.function("down")(1, 0)
    assert isinstance(told.value.__cause__, TypeError)


def test_keyboard_interrupt_stays_what_it_is(build):
    def back(number, value):
        raise KeyboardInterrupt

    instance = build(NESTED, {"env.back": ("i32 i32 -> i32", back)})
    with pytest.raises(KeyboardInterrupt):
        instance.function("down")(1, 0)


def test_functions_with_types_that_python_cannot_hold_are_refused(build):
    instance = build('(module (func (export "two") (result i32 i32) (i32.const 1) (i32.const 2)))')
    with pytest.raises(RuntimeFault, match="two"):
        instance.function("two")
