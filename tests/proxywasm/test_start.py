"""How a VM and its plugins are started (conformance cases S)."""

from __future__ import annotations

import pytest

from tests.proxywasm.guest import OUT_BYTES, Guest
from twisted_wasmproxy.proxywasm import PluginError

OK = 0


def starting(*exports):
    guest = Guest()
    for name, result in exports:
        guest.on(name, result=result, params=2 if name == "main" else 0)
    return guest


def test_S01_initialize_then_main(bench):
    guest = starting(("_initialize", None), ("main", 0), ("_start", None))
    assert guest.trace(bench.load(guest).vm) == [("_initialize",), ("main", 0, 0)]


def test_S02_main_alone_is_not_called(bench):
    guest = starting(("main", 0))
    assert guest.trace(bench.load(guest).vm) == []


def test_S03_start_where_there_is_no_initialize(bench):
    guest = starting(("_start", None), ("main", 0))
    assert guest.trace(bench.load(guest).vm) == [("_start",)]


def test_S04_none_of_them(bench):
    assert bench.load(starting()).vm.failed is None


@pytest.mark.parametrize("code", [0, 1])
@pytest.mark.parametrize("name", ["_start", "_initialize"])
def test_S05_exit_from_start(bench, name, code):
    guest = Guest()
    leave = guest.call("proc_exit", code, module="wasi_snapshot_preview1")
    guest.on(name, leave)
    guest.on("proxy_on_vm_start")
    if code:
        with pytest.raises(PluginError, match="exited with 1"):
            bench.load(guest)
    else:
        assert guest.names(bench.load(guest).vm) == [name, "vm_start"]


@pytest.mark.parametrize("name", ["_initialize", "_start"])
def test_S06_a_trap_in_the_initialisation_refuses_the_module(bench, name):
    guest = Guest()
    guest.on(name, "unreachable")
    with pytest.raises(PluginError, match=r"guest1\.wasm: its initialisation failed: .*unreachable"):
        bench.load(guest)


def test_S07_S08_order_ids_and_sizes(bench):
    guest = Guest()
    for name in ("_initialize", "proxy_on_context_create", "proxy_on_vm_start", "proxy_on_configure"):
        guest.on(name)
    loaded = bench.load(guest, vm_configuration=b"1234", configuration=b"12345")
    assert guest.trace(loaded.vm) == [
        ("_initialize",),
        ("proxy_on_context_create", 1, 0),
        ("proxy_on_vm_start", 1, 4),
        ("proxy_on_configure", 1, 5),
    ]


@pytest.mark.parametrize("name", ["proxy_on_vm_start", "proxy_on_configure"])
def test_S09_S10_false_refuses_the_plugin(bench, name):
    guest = Guest()
    guest.on(name, result=0)
    with pytest.raises(PluginError, match=rf"guest1\.wasm: {name} returned false"):
        bench.load(guest)


@pytest.mark.parametrize("name", ["proxy_on_context_create", "proxy_on_vm_start", "proxy_on_configure"])
def test_S11_a_trap_refuses_the_plugin(bench, name):
    guest = Guest()
    guest.on(name, "unreachable")
    with pytest.raises(PluginError, match=rf"guest1\.wasm: {name} failed: .*unreachable"):
        bench.load(guest)


def test_S12_plugins_with_one_key_share_a_vm(bench):
    guest = Guest()
    for name in ("proxy_on_context_create", "proxy_on_vm_start", "proxy_on_configure"):
        guest.on(name)
    first = bench.config(guest, configuration=b"1", root_id="a")
    second = bench.config(first.vm.code, configuration=b"22", root_id="b")
    loaded = bench.start(first, second)
    one, two = loaded.set.plugins
    assert one.root.vm is two.root.vm
    assert guest.trace(loaded.vm) == [
        *[("proxy_on_context_create", 1, 0), ("proxy_on_vm_start", 1, 0), ("proxy_on_configure", 1, 1)],
        *[("proxy_on_context_create", 2, 0), ("proxy_on_vm_start", 2, 0), ("proxy_on_configure", 2, 2)],
    ]


@pytest.mark.parametrize("difference", [{"vm_id": "b"}, {"vm_configuration": b"b"}, {"environment": (("A", "b"),)}])
def test_S13_other_vms_have_other_memories(bench, difference):
    guest = Guest()
    first = bench.config(guest)
    second = bench.config(first.vm.code, **difference)
    one, two = bench.start(first, second).set.plugins
    assert one.root.vm is not two.root.vm


def test_S13_other_code_is_another_vm(bench):
    guest, other = Guest(), Guest()
    other.data(b"x")
    one, two = bench.start(bench.config(guest), bench.config(other)).set.plugins
    assert one.root.vm is not two.root.vm


@pytest.mark.parametrize("root_id", ["", "my_root"])
def test_S14_the_root_id_is_readable_when_the_context_is_made(bench, root_id):
    guest = Guest()
    call = guest.call("proxy_get_property", b"plugin_root_id", OUT_BYTES)
    guest.on("proxy_on_context_create", call)
    vm = bench.load(guest, root_id=root_id).vm
    assert (call.status(vm), call.value(vm)) == (OK, root_id.encode())


def test_S15_a_new_configuration_is_told_to_the_same_vm(bench):
    guest = Guest()
    read = guest.call("proxy_get_buffer_bytes", 7, 0, 100, OUT_BYTES)
    guest.on("proxy_on_configure", read)
    guest.on("proxy_on_delete")
    first = bench.config(guest, configuration=b"old")
    old = bench.start(first)
    vm = old.vm
    new = bench.start(bench.config(first.vm.code, configuration=b"newer"))
    old.set.close()
    assert new.vm is vm
    assert read.value(vm) == b"newer"
    assert guest.trace(vm) == [
        *[("proxy_on_configure", 1, 3), ("proxy_on_configure", 2, 5), ("proxy_on_delete", 1)],
    ]


def test_nothing_but_logging_works_before_there_is_a_plugin(bench):
    guest = Guest()
    calls = [
        guest.call("proxy_log", 2, b"hello"),
        guest.call("proxy_set_tick_period_milliseconds", 10),
        guest.call("proxy_get_property", b"plugin_root_id", OUT_BYTES),
        guest.call("proxy_set_shared_data", b"k", b"v", 0),
        guest.call("proxy_done"),
        guest.call("proxy_add_header_map_value", 0, b"a", b"b"),
        guest.call("proxy_send_local_response", 200, b"", b"", b"", 0xFFFFFFFF),
    ]
    guest.on("_initialize", *calls)
    vm = bench.load(guest).vm
    assert [call.status(vm) for call in calls] == [0, 2, 1, 2, 1, 2, 2]
    assert bench.lines() == [("info", "hello")]


def test_a_plugin_that_does_not_start_leaves_nothing_running(bench):
    good, bad = Guest(), Guest()
    tick = good.call("proxy_set_tick_period_milliseconds", 10)
    good.on("proxy_on_configure", tick)
    good.on("proxy_on_tick")
    bad.on("proxy_on_configure", result=0)
    with pytest.raises(PluginError, match="guest2"):
        bench.start(bench.config(good), bench.config(bad))
    assert bench.clock.getDelayedCalls() == []


@pytest.mark.parametrize("fault", ["false", "trap"])
def test_a_new_plugin_that_does_not_start_does_not_harm_the_vm_that_serves(bench, fault):
    guest = Guest()
    step = "(if (i32.eq (local.get 1) (i32.const 3)) (then unreachable))" if fault == "trap" else ""
    read = "(if (i32.eq (local.get 1) (i32.const 3)) (then (return (i32.const 0))))" if fault == "false" else ""
    guest.on("proxy_on_configure", step, read)
    guest.on("proxy_on_request_headers")
    first = bench.config(guest, configuration=b"1")
    loaded = bench.start(first)
    with pytest.raises(PluginError):
        bench.start(bench.config(first.vm.code, configuration=b"bad"))
    assert loaded.vm.failed is None
    assert loaded.stream().request_head().name == "CONTINUE"
