"""Traps in all their forms, and the limits of time and memory."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest

from tests.runtimes.conftest import compile_wat
from twisted_wasmproxy.runtimes.interface import LARGE_COPY, Limits, MemoryFault, RuntimeFault, Trap

TRAPS = """
(module
  (memory (export "memory") 1)
  (table 2 funcref)
  (elem (i32.const 0) $wide)
  (type $none (func))
  (func $wide (param i64))
  (func $unreachable (export "unreachable") unreachable)
  (func $divide (export "divide") (result i32) (i32.div_u (i32.const 1) (i32.const 0)))
  (func $overflow (export "overflow") (result i32) (i32.div_s (i32.const 0x80000000) (i32.const -1)))
  (func $outside (export "outside") (result i32) (i32.load (i32.const 65533)))
  (func $far (export "far") (result i32) (i32.load offset=4294967295 (i32.const -1)))
  (func $recurse (export "recurse") (call $recurse))
  (func $null (export "null") (call_indirect (type $none) (i32.const 1)))
  (func $signature (export "signature") (call_indirect (type $none) (i32.const 0)))
  (func $beyond (export "beyond") (call_indirect (type $none) (i32.const 7)))
  (func $truncate (export "truncate") (result i32) (i32.trunc_f32_s (f32.const nan)))
  (func $outer (export "outer") (call $unreachable))
  (func (export "well") (result i32) (i32.const 1)))
"""


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("unreachable", "unreachable"),
        ("divide", "divide by zero"),
        ("overflow", "overflow"),
        ("outside", "out of bounds memory access"),
        ("far", "out of bounds memory access"),
        ("recurse", "call stack exhausted"),
        ("null", "uninitialized|null"),
        ("signature", "indirect call|mismatch"),
        ("beyond", "out of bounds|undefined element"),
        ("truncate", "invalid conversion"),
    ],
)
def test_a_trap_says_in_one_line_what_happened_and_where(build, name, text):
    instance = build(TRAPS)
    with pytest.raises(Trap, match=text) as told:
        instance.function(name)()
    assert "\n" not in str(told.value)
    assert not told.value.timed_out
    assert told.value.__cause__ is None
    assert told.value.backtrace
    assert name in told.value.backtrace[0]
    assert len(told.value.backtrace) <= 20


def test_a_backtrace_is_innermost_first(build):
    with pytest.raises(Trap) as told:
        build(TRAPS).function("outer")()
    assert [frame.split()[0] for frame in told.value.backtrace] == ["unreachable", "outer"]


def test_the_engine_is_well_after_a_trap(build):
    instance = build(TRAPS)
    for _ in range(3):
        with pytest.raises(Trap):
            instance.function("recurse")()
        assert instance.function("well")() == 1


LOOP = """
(module
  (import "env" "host" (func $host))
  (func (export "forever") (loop $again (br $again)))
  (func (export "ask_forever") (loop $again (call $host) (br $again)))
  (func (export "ask") (call $host))
  (func (export "spin") (param i32)
    (loop $again (br_if $again (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))))
"""


@pytest.fixture
def interruptible(engine):
    if not engine.interruptible:
        pytest.skip(f"{engine.name} cannot be interrupted")


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("limit", [0.05, 0.3])
def test_an_endless_loop_is_interrupted_at_its_limit(build, limit):
    instance = build(LOOP, {"env.host": ("->", lambda: None)}, cpu=limit)
    for name in ("forever", "ask_forever"):
        begun = time.monotonic()
        with pytest.raises(Trap, match="interrupted") as told:
            instance.function(name)()
        assert told.value.timed_out
        assert limit <= time.monotonic() - begun < limit + 2  # an upper bound for a machine under load
        assert told.value.backtrace


@pytest.mark.usefixtures("interruptible")
def test_an_endless_start_section_is_interrupted(build):
    with pytest.raises(Trap) as told:
        build("(module (func $s (loop $again (br $again))) (start $s))", cpu=0.05)
    assert told.value.timed_out


@pytest.mark.usefixtures("interruptible")
def test_a_short_limit_holds_though_the_watch_sleeps_for_a_long_one(build):
    patient = build(LOOP, {"env.host": ("->", lambda: None)}, cpu=600)
    hasty = build(LOOP, {"env.host": ("->", lambda: None)}, cpu=0.05)
    patient.function("ask")()
    with pytest.raises(Trap) as told:
        hasty.function("forever")()
    assert told.value.timed_out


@pytest.mark.usefixtures("interruptible")
def test_one_instance_that_is_overdue_does_not_end_another(build):
    """The one that waits in a host function is within its time while the one that it called is not."""
    hasty = build(LOOP, {"env.host": ("->", lambda: None)}, cpu=0.05)

    def host():
        with pytest.raises(Trap):
            hasty.function("forever")()

    patient = build(LOOP, {"env.host": ("->", host)}, cpu=60)
    patient.function("ask")()
    patient.function("spin")(1000)


@pytest.mark.usefixtures("interruptible")
def test_a_nested_call_runs_in_the_time_of_the_outer_one(build):
    instance = build(LOOP, {"env.host": ("->", lambda: instance.function("spin")(1000))}, cpu=0.2)
    begun = time.monotonic()
    with pytest.raises(Trap) as told:
        instance.function("ask_forever")()
    assert told.value.timed_out
    assert time.monotonic() - begun < 3


@pytest.mark.usefixtures("interruptible")
def test_a_time_out_that_a_host_function_swallows_still_ends_the_outer_call(build):
    calls = []

    def host():
        calls.append(1)
        with pytest.raises(Trap):
            instance.function("forever")()

    instance = build(LOOP, {"env.host": ("->", host)}, cpu=0.05)
    with pytest.raises(Trap) as told:
        instance.function("ask_forever")()
    assert told.value.timed_out
    assert len(calls) == 1


@pytest.mark.usefixtures("interruptible")
def test_each_call_from_outside_has_the_whole_time(build):
    instance = build(LOOP, {"env.host": ("->", lambda: None)}, cpu=0.25)
    spin = instance.function("spin")
    begun = time.monotonic()
    while time.monotonic() - begun < 0.6:
        spin(10_000)
    with pytest.raises(Trap):
        instance.function("forever")()
    spin(10_000)


@pytest.mark.usefixtures("interruptible")
def test_time_that_a_host_function_takes_counts(build):
    instance = build(LOOP, {"env.host": ("->", lambda: time.sleep(0.1))}, cpu=0.05)
    with pytest.raises(Trap) as told:
        instance.function("ask_forever")()
    assert told.value.timed_out


def test_no_limit_of_time_is_no_interruption(build):
    instance = build(LOOP, {"env.host": ("->", lambda: None)}, cpu=0)
    instance.function("spin")(2_000_000)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("limit", [1e300, float("inf")])
def test_a_limit_past_all_clocks_does_not_disturb_others(build, limit):
    build(LOOP, {"env.host": ("->", lambda: None)}, cpu=limit).function("ask")()
    with pytest.raises(Trap) as told:
        build(LOOP, {"env.host": ("->", lambda: None)}, cpu=0.05).function("forever")()
    assert told.value.timed_out


@pytest.mark.usefixtures("interruptible")
def test_threads_with_an_instance_each_are_held_to_their_own_limits(build):
    instances = [build(LOOP, {"env.host": ("->", lambda: None)}, cpu=limit) for limit in (0.05, 0.1, 0.15, 60)]
    ended: dict[int, bool] = {}

    def run(number):
        try:
            for _ in range(3):
                instances[number].function("spin")(1000)
            instances[number].function("forever" if number < 3 else "spin")(*([1000] * (number == 3)))
            ended[number] = False
        except Trap as trap:
            ended[number] = trap.timed_out

    workers = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(10)
    assert ended == {0: True, 1: True, 2: True, 3: False}


@pytest.mark.usefixtures("interruptible")
def test_calls_start_one_thread_at_most_and_it_sleeps_between_deadlines(build):
    instance = build(LOOP, {"env.host": ("->", lambda: None)}, cpu=600)
    ask = instance.function("ask")
    ask()
    before = threading.active_count()
    for _ in range(2000):
        ask()
    assert threading.active_count() == before
    assert sum(thread.name == "wasm-deadlines" for thread in threading.enumerate()) == 1


GROW = """
(module
  (memory (export "memory") 2)
  (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0)))
  (func (export "eat")
    (loop $again (if (i32.eq (memory.grow (i32.const 1)) (i32.const -1)) (then unreachable)) (br $again))))
"""


def test_memory_does_not_grow_past_its_limit(engine, build):
    assert engine.limits_memory
    instance = build(GROW, memory=5 * 65536 + 100)
    grow = instance.function("grow")
    assert grow(3) == 2
    assert grow(1) == 0xFFFFFFFF
    assert grow(0) == 5
    assert instance.memory_size() == 5 * 65536
    with pytest.raises(Trap):
        instance.function("eat")()


def test_the_limit_of_memory_is_the_instances_and_not_the_modules(engine):
    module = compile_wat(engine, GROW)
    small, large = (module.instantiate({}, Limits(memory=pages * 65536)) for pages in (3, 9))
    assert small.function("grow")(2) == 0xFFFFFFFF
    assert large.function("grow")(7) == 2
    small.close()
    large.close()


def test_a_declared_maximum_below_the_limit_holds(build):
    instance = build(
        '(module (memory (export "memory") 1 2) (func (export "grow") (result i32) (memory.grow (i32.const 2))))'
    )
    assert instance.function("grow")() == 0xFFFFFFFF


def test_a_module_that_needs_more_memory_than_it_may_have_is_refused(build):
    with pytest.raises(Trap, match="memory"):
        build(GROW, memory=65536)


@pytest.mark.parametrize("wat", ['(module (memory (export "memory") 1 2 shared))', "(module (memory 1) (memory 1))"])
def test_memories_that_cannot_be_limited_or_shared_are_refused(build, wat):
    with pytest.raises(RuntimeFault):
        build(wat)


def test_an_address_space_that_is_used_up_is_a_fault_and_no_crash(engine):
    """Each instance reserves 4 GiB of addresses."""
    script = """
import resource, sys, wasmtime
from twisted_wasmproxy.runtimes import get_engine
from twisted_wasmproxy.runtimes.interface import Limits, RuntimeFault
engine = get_engine(sys.argv[1])
module = engine.load(engine.compile(bytes(wasmtime.wat2wasm('(module (memory (export "memory") 1))'))))
module.instantiate({}, Limits()).close()
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
try:
    module.instantiate({}, Limits())
except RuntimeFault as fault:
    print("told:", fault)
"""
    done = subprocess.run([sys.executable, "-c", script, engine.name], check=True, timeout=60, capture_output=True)
    assert done.stdout.startswith(b"told:")


def test_memory_that_is_not_exported_is_limited_as_well(build):
    instance = build(
        '(module (memory 1) (func (export "grow") (result i32) (memory.grow (i32.const 9))))', memory=655360 - 1
    )
    assert instance.function("grow")() == 0xFFFFFFFF


TABLES = """
(module
  (table $grows 1 funcref)
  (table $grows_a_little 2 10 funcref)
  (table $stays 3 3 funcref)
  (func (export "grow") (param i32) (result i32) (table.grow $grows (ref.null func) (local.get 0)))
  (func (export "little") (param i32) (result i32) (table.grow $grows_a_little (ref.null func) (local.get 0)))
  (func (export "stay") (param i32) (result i32) (table.grow $stays (ref.null func) (local.get 0))))
"""


def test_tables_do_not_grow_past_their_limit(engine, build):
    instance = build(TABLES, table_elements=1000)
    grow, little, stay = map(instance.function, ("grow", "little", "stay"))
    if engine.name == "wasmtime":
        assert grow(1000) == 0xFFFFFFFF
        assert grow(999) == 1
    # An engine that cannot be told has a limit of its own.
    assert grow(1 << 20) == 0xFFFFFFFF
    assert little(9) == 0xFFFFFFFF
    assert little(8) == 2
    assert stay(1) == 0xFFFFFFFF
    assert stay(0) == 3


def test_many_tables_are_limited_together(build):
    tables = "".join(f"(table $t{n} 1 funcref)" for n in range(16))
    grown = "".join(f"(drop (table.grow $t{n} (ref.null func) (i32.const 1048570)))" for n in range(16))
    sizes = "".join(f"(i32.add (table.size $t{n})" for n in range(16)) + "(i32.const 0)" + ")" * 16
    instance = build(f'(module {tables} (func (export "f") (result i32) {grown} {sizes}))', table_elements=1 << 16)
    assert instance.function("f")() <= 1 << 20


SLOW = """
(module
  (import "env" "host" (func $host))
  (memory (export "memory") 2)
  (func (export "ask") (call $host)))
"""


@pytest.mark.parametrize("cpu", [0.1, 0])
@pytest.mark.parametrize("kind", ["check", "read", "write"])
def test_a_host_function_that_works_for_long_is_told_that_time_is_up(build, kind, cpu):
    """On every engine, whether it can interrupt a guest or not."""
    done = []

    def host():
        instance.check_deadline()
        done.append("early")
        time.sleep(0.15)
        instance.read(0, LARGE_COPY)
        instance.write(0, bytes(LARGE_COPY))
        done.append("small")
        work[kind]()
        done.append("late")

    instance = build(SLOW, {"env.host": ("->", host)}, cpu=cpu)
    work = {
        "check": instance.check_deadline,
        "read": lambda: instance.read(0, LARGE_COPY + 1),
        "write": lambda: instance.write(0, bytes(LARGE_COPY + 1)),
    }
    if cpu:
        with pytest.raises(Trap, match=r"took longer than 0\.1 s") as told:
            instance.function("ask")()
        assert told.value.timed_out
        assert done == ["early", "small"]
    else:
        instance.function("ask")()
        assert done == ["early", "small", "late"]
    work[kind]()  # outside of calls there is all the time


def test_a_range_is_checked_without_a_copy(build):
    instance = build(SLOW, {"env.host": ("->", lambda: None)})
    instance.check_range(0, 131072)
    instance.check_range(131072, 0)
    for address, size in ((0, 131073), (131072, 1), (131073, 0), (0xFFFFFFFF, 0xFFFFFFFF)):
        with pytest.raises(MemoryFault):
            instance.check_range(address, size)
