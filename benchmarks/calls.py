"""What a call between Python and a module costs, by each engine here and by the wasmtime package's own call path.

    python benchmarks/calls.py

Host call: the module calls a Python function that reads two short strings from its memory. Export call: Python calls
an exported function with three integers. Rounds of all ways take turns; the median of each is printed, and its ratio
to the package's own path in the same run.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import wasmtime

from twisted_wasmproxy.runtimes import available, get_engine
from twisted_wasmproxy.runtimes.interface import FunctionType, Limits

WAT = """
(module
  (import "env" "host" (func $host (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (data (i32.const 16) "content-type")
  (data (i32.const 64) "application/json")
  (func (export "call_host") (param $times i32)
    (loop $again
      (drop (call $host (i32.const 16) (i32.const 12) (i32.const 64) (i32.const 16)))
      (br_if $again (local.tee $times (i32.sub (local.get $times) (i32.const 1))))))
  (func (export "add") (param i32 i32 i32) (result i32)
    (i32.add (local.get 0) (i32.add (local.get 1) (local.get 2)))))
"""

Pair = tuple[Callable[[int], object], Callable[[int, int, int], object]]
"""The exported functions `call_host` and `add`, as Python calls them."""


def ours(name: str) -> Pair:
    engine = get_engine(name)
    module = engine.load(engine.compile(bytes(wasmtime.wat2wasm(WAT))))

    def host(key: int, key_size: int, value: int, value_size: int) -> int:
        read(key, key_size)
        read(value, value_size)
        return 0

    instance = module.instantiate({("env", "host"): (FunctionType(("i32",) * 4, ("i32",)), host)}, Limits(cpu=60))
    read = instance.read
    return instance.function("call_host"), instance.function("add")


def package() -> Pair:
    config = wasmtime.Config()
    config.epoch_interruption = True
    engine = wasmtime.Engine(config)
    store = wasmtime.Store(engine)
    store.set_epoch_deadline(1)
    linker = wasmtime.Linker(engine)
    i32 = wasmtime.ValType.i32()

    def host(caller: wasmtime.Caller, key: int, key_size: int, value: int, value_size: int) -> int:
        memory = caller["memory"]
        assert isinstance(memory, wasmtime.Memory)
        bytes(memory.read(caller, key, key + key_size))
        bytes(memory.read(caller, value, value + value_size))
        return 0

    linker.define_func("env", "host", wasmtime.FuncType([i32] * 4, [i32]), host, access_caller=True)
    exports = linker.instantiate(store, wasmtime.Module(engine, WAT)).exports(store)
    call_host, add = exports["call_host"], exports["add"]
    assert isinstance(call_host, wasmtime.Func)
    assert isinstance(add, wasmtime.Func)
    return lambda times: call_host(store, times), lambda a, b, c: add(store, a, b, c)


def host_call(pair: Pair, calls: int) -> float:
    begun = time.perf_counter()
    pair[0](calls)
    return (time.perf_counter() - begun) / calls


def export_call(pair: Pair, calls: int) -> float:
    add = pair[1]
    begun = time.perf_counter()
    for _ in range(calls):
        add(1, 2, 3)
    return (time.perf_counter() - begun) / calls


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure calls between Python and a module.")
    parser.add_argument("--calls", type=int, default=20_000, help="calls in a round")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    reference = "wasmtime package"
    ways = {reference: package(), **{name: ours(name) for name in available()}}
    print(f"{'microseconds a call':20}{'host call':>11}{'ratio':>8}{'export call':>13}{'ratio':>8}")
    medians: dict[str, list[float]] = {name: [] for name in ways}
    for measure in (host_call, export_call):
        rounds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(options.rounds):
            for name, pair in ways.items():
                rounds[name].append(measure(pair, options.calls) * 1e6)
        for name, times in rounds.items():
            medians[name].append(statistics.median(times))
    for name, (host, export) in medians.items():
        ratios = [there / here for there, here in zip(medians[reference], (host, export), strict=True)]
        print(f"{name:20}{host:11.2f}{ratios[0]:7.1f}x{export:13.2f}{ratios[1]:7.1f}x")


if __name__ == "__main__":
    main()
