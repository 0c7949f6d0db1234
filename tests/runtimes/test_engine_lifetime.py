"""Instances that come and go, threads, processes, and what engines do at import and at compile time."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time

import pytest
import wasmtime

from tests.runtimes.conftest import compile_wat
from twisted_wasmproxy.runtimes.interface import CompileError, FunctionType, Limits, RuntimeFault, Trap

SMALL = """
(module
  (import "env" "host" (func $host (param i32) (result i32)))
  (memory (export "memory") 2)
  (func (export "run") (param i32) (result i32) (i32.store (i32.const 0) (local.get 0)) (call $host (i32.const 0)))
  (func (export "trap") unreachable))
"""
HOST_TYPE = FunctionType(("i32",), ("i32",))


def resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def live(module, number):
    def host(address):
        return instance.read_u32(address) + 1

    instance = module.instantiate({("env", "host"): (HOST_TYPE, host)}, Limits())
    assert instance.function("run")(number) == number + 1
    with pytest.raises(Trap):
        instance.function("trap")()
    return instance


def test_thousands_of_instances_leave_nothing_behind(engine):
    module = compile_wat(engine, SMALL)
    for number in range(300):
        live(module, number).close()
    gc.collect()
    before = resident()
    for number in range(2000):
        live(module, number).close()
    gc.collect()
    assert resident() - before < 6 * 1024 * 1024


def test_instances_that_are_dropped_unclosed_are_freed(engine):
    module = compile_wat(engine, SMALL)
    for number in range(50):
        live(module, number)
    gc.collect()
    before = resident()
    for number in range(300):
        live(module, number)
        if number % 50 == 0:
            gc.collect()
    gc.collect()
    assert resident() - before < 6 * 1024 * 1024


def test_a_closed_instance_refuses_everything(engine):
    instance = live(compile_wat(engine, SMALL), 1)
    run = instance.function("run")
    instance.close()
    instance.close()
    with pytest.raises(RuntimeFault, match="closed"):
        run(1)
    with pytest.raises(RuntimeFault):
        instance.function("run")(1)
    with pytest.raises(RuntimeFault):
        instance.read(0, 1)
    with pytest.raises(RuntimeFault):
        instance.write_u32(0, 1)
    assert instance.memory_size() == 0


def test_a_host_function_may_close_the_instance_that_calls_it(engine):
    def host(address):
        instance.close()
        return instance.read_u32(address)

    instance = compile_wat(engine, SMALL).instantiate({("env", "host"): (HOST_TYPE, host)}, Limits())
    run = instance.function("run")
    assert run(7) == 7
    with pytest.raises(RuntimeFault):
        run(7)


def test_instances_of_one_module_share_nothing(engine):
    module = compile_wat(engine, SMALL)
    first, second = live(module, 10), live(module, 20)
    assert (first.read_u32(0), second.read_u32(0)) == (10, 20)
    first.close()
    assert second.function("run")(30) == 31
    second.close()


def test_a_module_compiled_and_loaded_in_a_thread_runs_in_another(engine):
    found = []
    worker = threading.Thread(target=lambda: found.append(compile_wat(engine, SMALL)))
    worker.start()
    worker.join()
    live(found[0], 5).close()


def test_a_module_of_an_engine_that_is_bound_to_a_thread_says_so(engine):
    module = compile_wat(engine, SMALL)
    live(module, 1).close()
    ended = []

    def run():
        try:
            live(module, 2).close()
            ended.append("")
        except RuntimeFault as fault:
            ended.append(str(fault))

    worker = threading.Thread(target=run)
    worker.start()
    worker.join()
    assert ended == ["" if engine.name == "wasmtime" else ended[0]]
    assert engine.name == "wasmtime" or "thread" in ended[0]


def test_threads_compile_at_once(engine):
    codes: dict[int, bytes] = {}
    texts = [f'(module (func (export "f") (result i32) (i32.const {n})))' for n in range(12)]
    workers = [
        threading.Thread(target=lambda n=n: codes.setdefault(n, engine.compile(bytes(wasmtime.wat2wasm(texts[n])))))
        for n in range(12)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for number, code in codes.items():
        instance = engine.load(code).instantiate({}, Limits())
        assert instance.function("f")() == number
        instance.close()
    assert len(codes) == 12


def test_compiling_a_big_module_leaves_the_interpreter_to_others(engine, real_modules):
    wasm = real_modules[0].read_bytes()
    code: list[bytes] = []
    worker = threading.Thread(target=lambda: code.append(engine.compile(wasm)))
    worker.start()
    turns, longest, last = 0, 0.0, time.monotonic()
    while worker.is_alive():
        worker.join(0.005)
        now = time.monotonic()
        turns, longest, last = turns + 1, max(longest, now - last), now
    assert turns > 20
    assert longest < 1.0
    module = engine.load(code[0])
    assert len(module.imports) > 20  # type: ignore[attr-defined]  # more than the contract has


@pytest.mark.parametrize("wasm", [b"", b"\0asm\x01\0\0\0\xff", b"(module)", b"\x1f\x8b\x08", b"\0asm\x0d\0\x01\0"])
def test_what_is_not_a_module_does_not_compile(engine, wasm):
    with pytest.raises(CompileError):
        engine.compile(wasm)


def test_an_invalid_module_does_not_compile(engine):
    wasm = bytes(wasmtime.wat2wasm('(module (func (export "f") (result i32) (i32.const 1)))'))
    broken = wasm.replace(b"\x41\x01", b"\x42\x01")  # i64.const where an i32 is due
    assert broken != wasm
    with pytest.raises(CompileError):
        engine.compile(broken)


def test_code_that_is_not_whole_does_not_load(engine):
    code = engine.compile(bytes(wasmtime.wat2wasm(SMALL)))
    for damaged in (b"", code[:100], code[:-1], b"x" * len(code), b"\0asm\x01\0\0\0"):
        with pytest.raises(CompileError):
            engine.load(damaged)


def test_importing_starts_no_thread_and_makes_no_engine():
    script = """
import threading
from twisted_wasmproxy.runtimes import available, get_engine, registry
assert available()
assert not registry._engines
assert len(open("/proc/self/stat").read()) and threading.active_count() == 1
import os
assert len(os.listdir("/proc/self/task")) == 1, os.listdir("/proc/self/task")
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_a_forked_process_has_an_engine_that_interrupts(engine):
    if not engine.interruptible:
        pytest.skip(f"{engine.name} cannot be interrupted")
    script = """
import os, signal, sys, wasmtime
from twisted_wasmproxy.runtimes import get_engine
from twisted_wasmproxy.runtimes.interface import Limits, Trap

def run():
    engine = get_engine(sys.argv[1])
    wasm = wasmtime.wat2wasm('(module (func (export "f") (loop $l (br $l))))')
    instance = engine.load(engine.compile(bytes(wasm))).instantiate({}, Limits(cpu=0.05))
    try:
        instance.function("f")()
    except Trap as trap:
        return trap.timed_out

assert run()
child = os.fork()
if not child:
    signal.alarm(20)  # so that a child that hangs does not stay
    os._exit(0 if run() else 1)
assert os.waitpid(child, 0)[1] == 0
"""
    subprocess.run([sys.executable, "-c", script, engine.name], check=True, timeout=60)
