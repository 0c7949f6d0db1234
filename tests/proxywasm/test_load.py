"""Loading and linking, and what versions change (conformance cases L and C)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.proxywasm.guest import OUT_BYTES, OUT_U32, Guest, assemble
from twisted_wasmproxy.proxywasm import PluginError
from twisted_wasmproxy.proxywasm.abi import LogLevel, Version

OK, INVALID_MEMORY = 0, 6
MARKERS = ["0.1.0", "0.2.0", "0.2.1", "0.2.100"]


@pytest.mark.parametrize("version", MARKERS)
def test_L01_each_marker_is_known(bench, version):
    assert str(bench.load(Guest(version)).vm.version) == version


def test_L02_without_a_marker_the_error_names_them(bench):
    with pytest.raises(PluginError, match=r"proxy_abi_version_0_1_0 or .*0_2_0 or .*0_2_1 or .*0_2_100") as caught:
        bench.load(Guest(""))
    assert caught.value.file.endswith("guest1.wasm")


def test_L03_a_marker_is_a_function_without_parameters(bench):
    with pytest.raises(PluginError, match="0_2_1, but as a memory"):
        bench.load('(module (memory (export "proxy_abi_version_0_2_1") 1))')
    with pytest.raises(PluginError, match="no function"):
        bench.load('(module (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1") (param i32)))')


def test_L04_the_first_of_several_markers_counts(bench):
    wat = "".join(f'(func (export "proxy_abi_version_{name}"))' for name in ("0_2_0", "0_1_0", "0_2_1"))
    assert bench.load(f'(module (memory (export "memory") 1) {wat})').vm.version is Version.V0_2_0


UNKNOWN = """(module
  (import "env" "proxy_new_thing" (func $new (param i32) (result i32)))
  (import "wasi_snapshot_preview1" "new_thing" (func $wasi (result i32)))
  (import "other" "thing" (func $other))
  (import "env" "proxy_log" (func (param i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "proxy_on_vm_start") (param i32 i32) (result i32)
    (i32.and (i32.eq (call $new (i32.const 0)) (i32.const 12)) (i32.eq (call $wasi) (i32.const 52))))
  (func (export "proxy_on_tick") (param i32) (call $other)))"""


def test_L05_L06_what_cannot_be_linked_is_listed(bench):
    with pytest.raises(PluginError) as caught:
        bench.load(UNKNOWN)
    text = str(caught.value)
    assert "env.proxy_new_thing (i32) -> (i32): no such host function" in text
    assert "wasi_snapshot_preview1.new_thing () -> (i32): no such" in text
    assert "other.thing () -> (): no such" in text
    assert "env.proxy_log (i32, i32) -> (i32): the host function is (i32, i32, i32) -> (i32)" in text


def test_L05_lax_imports_are_stubs(bench):
    loaded = bench.load(UNKNOWN, lax_imports=True)
    loaded.plugin.root.set_tick(10)
    bench.clock.advance(0.01)
    assert loaded.plugin.root is None, "a stub without a status to answer fails the VM"
    assert any("other.thing" in text for text in bench.texts())


def test_imports_that_are_no_functions_are_listed(bench):
    with pytest.raises(PluginError, match=r"env\.table: a table is imported"):
        bench.load('(module (import "env" "table" (table 1 funcref)) (func (export "proxy_abi_version_0_2_1")))')


@pytest.mark.parametrize("module", ["wasi_unstable", "wasi_snapshot_preview1"])
def test_L07_both_names_of_wasi_link(bench, module):
    guest = Guest()
    call = guest.call("sched_yield", module=module)
    guest.on("proxy_on_vm_start", call)
    assert call.status(bench.load(guest).vm) == OK


@pytest.mark.parametrize("version", MARKERS)
def test_L08_functions_of_other_versions_link(bench, version):
    guest = Guest(version)
    calls = [
        guest.call("proxy_get_configuration", OUT_BYTES),
        guest.call("proxy_continue_request"),
        guest.call("proxy_clear_route_cache"),
        guest.call("proxy_continue_stream", 0),
        guest.call("proxy_get_log_level", OUT_U32),
    ]
    guest.on("proxy_on_configure", *calls)
    vm = bench.load(guest, configuration=b"x").vm
    assert [call.status(vm) for call in calls] == [OK] * 5


def test_L09_functions_of_0_1_0_link_without_their_result(bench):
    bench.load("""(module
      (import "env" "proxy_continue_request" (func $a))
      (import "env" "proxy_continue_response" (func $b))
      (import "env" "proxy_clear_route_cache" (func $c))
      (memory (export "memory") 1)
      (func (export "proxy_abi_version_0_1_0"))
      (func (export "proxy_on_vm_start") (param i32 i32) (result i32) (call $a) (call $b) (call $c) (i32.const 1)))""")


def reading_guest(allocator):
    guest = Guest(allocator=allocator)
    call = guest.call("proxy_get_buffer_bytes", 7, 0, 100, OUT_BYTES)
    guest.on("proxy_on_configure", call)
    return guest, call


@pytest.mark.parametrize("allocator", ["malloc", "proxy_on_memory_allocate"])
def test_L11_L12_either_allocator_does(bench, allocator):
    guest, call = reading_guest(allocator)
    assert call.value(bench.load(guest, configuration=b"text").vm) == b"text"


def test_L10_without_an_allocator_data_cannot_be_passed(bench):
    guest, call = reading_guest(None)
    assert call.status(bench.load(guest, configuration=b"text").vm) == INVALID_MEMORY
    guest, call = reading_guest(None)
    assert call.status(bench.load(guest).vm) == OK, "no data, no need"


def test_L13_of_both_allocators_that_of_the_specification_is_taken(bench):
    guest, call = reading_guest("proxy_on_memory_allocate")
    guest.extra = '(func (export "malloc") (param i32) (result i32) unreachable)'
    assert call.value(bench.load(guest, configuration=b"text").vm) == b"text"


@pytest.mark.parametrize(("address", "what"), [(0, "L14"), (8 * 65536 - 2, "L15"), (0xFFFFFFF0, "L15")])
def test_L14_L15_an_allocator_that_gives_no_room(bench, address, what):
    guest, call = reading_guest("malloc")
    guest.allocate = f"(local.set $p (i32.const {address}))"
    vm = bench.load(guest, configuration=b"text").vm
    assert call.status(vm) == INVALID_MEMORY


@pytest.mark.parametrize("wasm", [b"", b"\0asm", b"#!/bin/sh", b"\0asm\1\0\0\0\1\xff", b"<html>"])
def test_L16_what_is_no_module_is_named(bench, wasm):
    with pytest.raises(PluginError, match=r"guest1\.wasm: "):
        bench.load(wasm)


def test_a_missing_file_is_named(bench):
    with pytest.raises(PluginError, match=r"/nowhere/x\.wasm: cannot be read: No such file"):
        bench.load(Path("/nowhere/x.wasm"))


def test_an_unknown_runtime_is_named(bench):
    with pytest.raises(PluginError, match="nonesuch"):
        bench.load(Guest(), runtime="nonesuch")


def test_L17_what_emscripten_and_assemblyscript_import(bench):
    guest = Guest()
    grown = guest.call("emscripten_notify_memory_growth", 0)
    equal, other = guest.call("pthread_equal", 3, 3), guest.call("pthread_equal", 3, 4)
    guest.on("proxy_on_vm_start", grown, equal, other)
    vm = bench.load(guest).vm
    assert (equal.status(vm), other.status(vm)) == (1, 0)


def test_assemblyscript_abort_traps_with_its_message(bench):
    guest = Guest()
    words = [
        len(text.encode("utf-16-le")).to_bytes(4, "little") + text.encode("utf-16-le") for text in ("boom ü", "a.ts")
    ]
    message, file = (guest.data(word)[0] + 4 for word in words)
    abort = guest.call("abort", message, file, 12, 3)
    guest.on("proxy_on_configure", abort)
    with pytest.raises(PluginError, match=r"abort: boom ü at a\.ts:12:3"):
        bench.load(guest)


def test_L18_a_start_function_may_call_the_host(bench):
    guest = Guest()
    log = guest.call("proxy_log", 2, b"from the start section")
    guest.extra = f"(func $begin {log.code}) (start $begin)"
    loaded = bench.load(guest)
    assert log.status(loaded.vm) == OK
    assert bench.lines() == [("info", "from the start section")]


def test_L18_a_start_function_of_a_module_without_exports_before_it(bench):
    wat = '(module (func $begin nop) (func (export "proxy_abi_version_0_2_1")) (start $begin))'
    assert bench.load(wat).vm.failed is None
    with pytest.raises(PluginError, match="no function"):
        bench.load("(module (func $begin nop) (start $begin))")


def test_L19_an_export_that_is_no_function_is_no_callback(bench):
    guest = Guest()
    guest.extra = '(global (export "proxy_on_request_headers") i32 (i32.const 0))'
    assert bench.load(guest).stream().filter.request_headers is None


def test_a_callback_of_another_type_is_refused(bench):
    guest = Guest()
    guest.extra = '(func (export "proxy_on_request_headers") (param i64 i32 i32) (result i32) (i32.const 0))'
    with pytest.raises(
        PluginError, match=r"exports proxy_on_request_headers \(i64, i32, i32\) -> \(i32\), which should"
    ):
        bench.load(guest)


@pytest.mark.parametrize("version", MARKERS)
@pytest.mark.parametrize("params", [2, 3])
def test_C05_C06_the_export_says_how_many_parameters_it_takes(bench, version, params):
    guest = Guest(version)
    guest.on("proxy_on_request_headers", params=params)
    guest.on("proxy_on_response_headers", params=params)
    loaded, stream = bench.stream(guest)
    stream.request_head(True)
    stream.response_head(True)
    expected = [("proxy_on_request_headers", 2, 4, 1), ("proxy_on_response_headers", 2, 1, 1)]
    assert guest.trace(loaded.vm) == [entry[: params + 1] for entry in expected]


@pytest.mark.parametrize("level", list(LogLevel))
def test_C08_the_log_level_is_the_configured_one(bench, level):
    bench.level = level
    guest = Guest()
    call = guest.call("proxy_get_log_level", OUT_U32)
    guest.on("proxy_on_configure", call)
    assert call.value(bench.load(guest, name="x").vm) == level


def test_the_memory_may_have_any_size_of_module(bench):
    assert bench.load(assemble('(module (func (export "proxy_abi_version_0_2_0")))')).vm.memory_size() == 0
