"""How bytes cross between guest and host (conformance cases M)."""

from __future__ import annotations

import pytest

from tests.proxywasm.guest import OUT_BYTES, OUT_U32, OUT_U64, UNSET, Guest
from twisted_wasmproxy.http.headers import Headers
from twisted_wasmproxy.http.messages import Request
from twisted_wasmproxy.proxywasm.abi import IMPORTS, Kind

OK, NOT_FOUND, INVALID_MEMORY, FAULT = 0, 1, 6, 21
END = 8 * 65536
BAD_RANGES = [(END, 1), (END - 1, 2), (0, END + 1), (0xFFFFFFFF, 1), (1, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF)]


def run(bench, guest, *calls, **options):
    guest.on("proxy_on_request_headers", *calls)
    loaded, stream = bench.stream(guest, Request(b"GET", b"http", b"h", b"/", Headers([(b"a", b"value")])), **options)
    stream.request_head()
    return loaded.vm, stream


@pytest.mark.parametrize("name", [name for (module, name), e in IMPORTS.items() if Kind.BYTES in e.parameters])
def test_M01_M03_bytes_out_of_memory_are_refused(bench, name):
    entry = IMPORTS["env", name]
    guest = Guest("0.2.100")
    calls = []
    for position in (n for n, kind in enumerate(entry.parameters) if kind is Kind.BYTES):
        for address, size in BAD_RANGES:
            operands = []
            for n, kind in enumerate(entry.parameters):
                if n == position:
                    operands += [f"(i32.const {address})", f"(i32.const {size})"]
                elif kind is Kind.BYTES:
                    operands += ["(i32.const 0)", "(i32.const 0)"]
                else:
                    operands += [f"({wire}.const 1024)" for wire in kind.wire]
            if name == "proxy_log":
                operands[0] = "(i32.const 2)"
            calls.append(guest.call(name, *operands))
    vm, stream = run(bench, guest, *calls)
    assert {call.status(vm) for call in calls} == {INVALID_MEMORY}
    assert stream.events == []
    assert bench.lines() == []


def test_M02_no_bytes_may_be_anywhere_in_memory(bench):
    guest = Guest()
    calls = [guest.call("proxy_log", 2, f"(i32.const {at})", "(i32.const 0)") for at in (0, 1, END)]
    vm, _ = run(bench, guest, *calls)
    assert [call.status(vm) for call in calls] == [OK] * 3


@pytest.mark.parametrize("slot", [END - 3, END, 0xFFFFFFFE])
def test_M04_slots_out_of_memory_are_refused(bench, slot):
    at = f"(i32.const {slot})"
    guest = Guest()
    key = guest.data(b"a")
    fine = f"(i32.const {guest.slot()})"
    calls = [
        guest.call("proxy_get_header_map_value", 0, *[f"(i32.const {n})" for n in key], at, fine),
        guest.call("proxy_get_header_map_value", 0, *[f"(i32.const {n})" for n in key], fine, at),
        guest.call("proxy_get_header_map_size", 0, at),
        guest.call("proxy_get_current_time_nanoseconds", at),
        guest.call("proxy_define_metric", 0, b"m", at),
        guest.call("proxy_register_shared_queue", b"q", at),
    ]
    vm, _ = run(bench, guest, *calls)
    assert [call.status(vm) for call in calls] == [INVALID_MEMORY] * 6
    assert list(vm.services.metrics) == []
    assert vm.services.queues.resolve(b"", b"q") is None


def test_an_item_is_not_lost_where_its_slots_are_bad(bench):
    guest = Guest()
    register = guest.call("proxy_register_shared_queue", b"q", OUT_U32)
    put = guest.call("proxy_enqueue_shared_queue", 1, b"item")
    bad = guest.call("proxy_dequeue_shared_queue", 1, "(i32.const -4)", "(i32.const -3)")
    take = guest.call("proxy_dequeue_shared_queue", 1, OUT_BYTES)
    vm, _ = run(bench, guest, register, put, bad, take)
    assert bad.status(vm) == INVALID_MEMORY
    assert take.value(vm) == b"item"


def test_M05_slots_need_no_alignment(bench):
    guest = Guest()
    guest.slot(1)
    calls = [
        guest.call("proxy_get_header_map_value", 0, b"a", OUT_BYTES),
        guest.call("proxy_get_current_time_nanoseconds", OUT_U64),
    ]
    vm, _ = run(bench, guest, *calls)
    assert calls[0].value(vm) == b"value"
    assert calls[1].value(vm) > 1_600_000_000 * 10**9


def test_M06_an_empty_result_needs_no_allocation(bench):
    guest = Guest()
    guest.allocate = "unreachable"
    read = guest.call("proxy_get_buffer_bytes", 7, 0, 10, OUT_BYTES)
    vm, _ = run(bench, guest, read)
    assert (read.status(vm), read.slots(vm)) == (OK, (0, 0))


def test_M07_memory_may_grow_in_the_allocator(bench):
    guest = Guest()
    guest.allocate = "(local.set $p (i32.mul (memory.grow (i32.const 20)) (i32.const 65536)))"
    calls = [guest.call("proxy_get_header_map_value", 0, b"a", OUT_BYTES) for _ in range(3)]
    vm, _ = run(bench, guest, *calls)
    assert [call.value(vm) for call in calls] == [b"value"] * 3
    assert [call.slots(vm)[0] for call in calls] == [END, END + 20 * 65536, END + 40 * 65536]


def test_M08_exactly_what_is_needed_is_allocated(bench):
    guest = Guest()
    size = guest.slot()
    guest.allocate = f"(i32.store (i32.const {size}) (local.get 0)) (local.set $p (i32.const 0x70000))"
    read = guest.call("proxy_get_header_map_value", 0, b"a", OUT_BYTES)
    vm, _ = run(bench, guest, read)
    assert vm.read_u32(size) == 5
    assert read.slots(vm) == (0x70000, 5)


def test_M09_D08_the_allocator_may_log_and_no_more(bench):
    guest = Guest()
    inner = [
        guest.call("proxy_log", 2, b"in the allocator"),
        guest.call("proxy_done"),
        guest.call("proxy_add_header_map_value", 0, b"evil", b"1"),
        guest.call("proxy_set_effective_context", 1),
    ]
    guest.allocate = " ".join(call.code for call in inner) + "(local.set $p (i32.const 0x70000))"
    read = guest.call("proxy_get_header_map_value", 0, b"a", OUT_BYTES)
    after = guest.call("proxy_add_header_map_value", 0, b"after", b"1")
    vm, stream = run(bench, guest, read, after)
    assert [call.status(vm) for call in inner] == [0, 1, 2, 2]
    assert read.value(vm) == b"value"
    assert after.status(vm) == OK, "the effective context is what it was"
    assert list(stream.request.headers) == [(b"a", b"value"), (b"after", b"1")]


def test_a_trap_in_the_allocator_fails_the_vm(bench):
    guest = Guest()
    guest.allocate = "unreachable"
    guest.on("proxy_on_request_headers", guest.call("proxy_get_header_map_value", 0, b":path", OUT_BYTES))
    loaded, stream = bench.stream(guest)
    failed = loaded.vm
    stream.request_head()
    assert failed.failed is not None
    assert loaded.vm is not failed
    assert stream.events[0][:2] == ("response", 503)


def test_slots_stay_as_they_are_unless_the_call_succeeds(bench):
    guest = Guest()
    missing = guest.call("proxy_get_header_map_value", 0, b"none", OUT_BYTES)
    vm, _ = run(bench, guest, missing)
    assert (missing.status(vm), missing.slots(vm)) == (NOT_FOUND, (UNSET, UNSET))
