"""Shared data, queues and metrics (conformance cases X01 to X03)."""

from __future__ import annotations

import pytest

from tests.proxywasm.guest import OUT_BYTES, OUT_U32, OUT_U64, Guest
from twisted_wasmproxy.config.model import RestartConfig
from twisted_wasmproxy.proxywasm.abi import MetricType
from twisted_wasmproxy.proxywasm.memory import HostMemory
from twisted_wasmproxy.proxywasm.shared import SharedData

OK, NOT_FOUND, BAD_ARGUMENT, EMPTY, CAS_MISMATCH = 0, 1, 2, 7, 8


def run(bench, guest, *calls, **options):
    guest.on("proxy_on_configure", *calls)
    return bench.load(guest, **options).vm


def get(guest, key=b"k"):
    return guest.call("proxy_get_shared_data", key, OUT_BYTES, OUT_U32)


def put(guest, value, cas=0, key=b"k"):
    return guest.call("proxy_set_shared_data", key, value, cas)


def test_X01_shared_data(bench):
    guest = Guest()
    calls = [
        get(guest),
        put(guest, b"one"),
        get(guest),
        put(guest, b"two", 1),
        put(guest, b"three", 1),
        get(guest),
        put(guest, b""),
        get(guest),
        put(guest, b"new", 77, b"other"),
    ]
    vm = run(bench, guest, *calls)
    statuses = [NOT_FOUND, OK, OK, OK, CAS_MISMATCH, OK, OK, OK, OK]
    assert [call.status(vm) for call in calls] == statuses
    assert [(calls[n].value(vm), calls[n].value(vm, 1)) for n in (2, 5, 7)] == [(b"one", 1), (b"two", 2), (b"", 3)]


def test_X01_vms_of_one_vm_id_share_and_others_do_not(bench):
    writer, reader, stranger = Guest(), Guest(), Guest()
    for guest in (reader, stranger):
        guest.found = get(guest)
        guest.on("proxy_on_request_headers", guest.found)
    writer.on("proxy_on_request_headers", put(writer, b"x"))
    loaded = {
        name: bench.load(guest, vm_id=vm_id)
        for name, guest, vm_id in (("writer", writer, "a"), ("reader", reader, "a"), ("stranger", stranger, "b"))
    }
    for one in loaded.values():
        one.stream().request_head()
    assert reader.found.value(loaded["reader"].vm) == b"x"
    assert stranger.found.status(loaded["stranger"].vm) == NOT_FOUND


def test_X01_data_goes_with_the_last_vm_of_its_id(bench):
    writer = Guest()
    one = bench.config(writer, vm_id="a")
    writer.on("proxy_on_vm_start", put(writer, b"x"))
    loaded = bench.load(writer, vm_id="a")
    other = bench.start(one)
    data = bench.host.services.shared_data
    loaded.set.close()
    assert data.get(b"a", b"k") == (b"x", 1)
    other.set.close()
    assert data.get(b"a", b"k") is None


def test_the_number_of_a_value_is_never_zero():
    data = SharedData()
    data._last = 0xFFFFFFFE
    for expected in (0xFFFFFFFF, 1, 2):
        assert data.set(b"", b"k", b"", 0, HostMemory(1 << 20)) == OK
        assert data.get(b"", b"k") == (b"", expected)


def test_X02_queues(bench):
    guest = Guest()
    calls = [
        guest.call("proxy_register_shared_queue", b"q", OUT_U32),
        guest.call("proxy_register_shared_queue", b"q", OUT_U32),
        guest.call("proxy_resolve_shared_queue", b"", b"q", OUT_U32),
        guest.call("proxy_resolve_shared_queue", b"me", b"q", OUT_U32),
        guest.call("proxy_resolve_shared_queue", b"other", b"q", OUT_U32),
        guest.call("proxy_dequeue_shared_queue", 1, OUT_BYTES),
        guest.call("proxy_enqueue_shared_queue", 1, b"one"),
        guest.call("proxy_enqueue_shared_queue", 1, b""),
        guest.call("proxy_dequeue_shared_queue", 1, OUT_BYTES),
        guest.call("proxy_dequeue_shared_queue", 1, OUT_BYTES),
        guest.call("proxy_enqueue_shared_queue", 9, b"x"),
        guest.call("proxy_dequeue_shared_queue", 9, OUT_BYTES),
    ]
    guest.on("proxy_on_queue_ready")
    vm = run(bench, guest, *calls, vm_id="me")
    statuses = [OK] * 4 + [NOT_FOUND, EMPTY] + [OK] * 4 + [NOT_FOUND] * 2
    assert [call.status(vm) for call in calls] == statuses
    assert [calls[n].value(vm) for n in (0, 1, 2, 3)] == [1] * 4
    assert [calls[n].value(vm) for n in (8, 9)] == [b"one", b""]
    assert "queue_ready" not in guest.names(vm), "never inside another call"
    bench.clock.advance(0)
    assert guest.trace(vm)[-2:] == [("proxy_on_queue_ready", 1, 1)] * 2


def test_X02_the_last_to_register_is_told(bench):
    receivers = [Guest(), Guest()]
    for guest in receivers:
        guest.data(b"x" * len(guest.version))
        guest.on("proxy_on_configure", guest.call("proxy_register_shared_queue", b"q", OUT_U32))
        guest.on("proxy_on_queue_ready")
    receivers[1].data(b"different code")
    first, last = (bench.load(guest, vm_id="receiver") for guest in receivers)
    sender = Guest()
    sender.on("proxy_on_configure", sender.call("proxy_enqueue_shared_queue", 1, b"item"))
    bench.load(sender, vm_id="sender", restart=RestartConfig(spare=False))
    bench.clock.advance(0)
    assert receivers[0].names(first.vm) == ["configure"]
    assert receivers[1].names(last.vm) == ["configure", "queue_ready"]


def test_X03_metrics(bench):
    guest = Guest()
    define = [guest.call("proxy_define_metric", kind, b"name", OUT_U32) for kind in (0, 1, 2, 3)]
    again = guest.call("proxy_define_metric", 0, b"name", OUT_U32)
    counter, gauge, histogram = 4, 9, 14
    steps = {
        ("increment", counter, 5): OK,
        ("increment", counter, -1): BAD_ARGUMENT,
        ("increment", counter, 0): BAD_ARGUMENT,
        ("record", counter, 2): OK,
        ("record", gauge, 10): OK,
        ("increment", gauge, -3): OK,
        ("record", histogram, 7): OK,
        ("increment", histogram, 7): BAD_ARGUMENT,
        ("record", 99, 1): NOT_FOUND,
        ("increment", 99, 1): NOT_FOUND,
    }
    calls = [guest.call(f"proxy_{verb}_metric", token, value) for verb, token, value in steps]
    reads = [guest.call("proxy_get_metric", token, OUT_U64) for token in (counter, gauge, histogram, 99)]
    vm = run(bench, guest, *define, again, *calls, *reads)
    assert [call.status(vm) for call in define] == [OK, OK, OK, BAD_ARGUMENT]
    assert [call.value(vm) for call in define[:3]] == [counter, gauge, histogram]
    assert again.value(vm) == counter
    assert [call.status(vm) for call in calls] == list(steps.values())
    assert [call.status(vm) for call in reads] == [OK, OK, BAD_ARGUMENT, NOT_FOUND]
    assert (reads[0].value(vm), reads[1].value(vm)) == (7, 7)
    kept = {metric.kind: (metric.value, metric.count) for metric in bench.host.services.metrics}
    assert kept[MetricType.HISTOGRAM] == (7, 1)


@pytest.mark.parametrize(
    ("name", "arguments", "status"),
    [
        ("proxy_http_call", (b"up", b"", b"", b"", 100, OUT_U32), 10),
        ("proxy_grpc_call", (b"up", b"s", b"m", b"", b"", 100, OUT_U32), 10),
        ("proxy_grpc_stream", (b"up", b"s", b"m", b"", OUT_U32), 10),
        ("proxy_grpc_send", (1, b"", 0), 1),
        ("proxy_grpc_cancel", (1,), 1),
        ("proxy_grpc_close", (1,), 1),
        ("proxy_redis_init", (b"up", b"", b"", 100), 2),
        ("proxy_redis_call", (b"up", b"", OUT_U32), 2),
        ("proxy_call_foreign_function", (b"none", b"", OUT_BYTES), 1),
    ],
)
def test_what_is_not_served_answers_what_sdks_survive(bench, name, arguments, status):
    guest = Guest("0.2.100")
    calls = []
    for argument in arguments:
        if argument is OUT_BYTES:
            calls += ["(i32.const 64)", "(i32.const 68)"]
        else:
            calls.append(argument)
    call = guest.call(name, *calls)
    assert call.status(run(bench, guest, call)) == status


def test_status_of_no_callout(bench):
    guest = Guest()
    call = guest.call("proxy_get_status", OUT_U32, OUT_BYTES)
    vm = run(bench, guest, call)
    assert (call.status(vm), call.value(vm, 0), call.slots(vm, 1)) == (OK, 0, (0, 0))


def test_X05_foreign_functions(bench):
    guest = Guest()
    slot = guest.slot(8)
    slots = (f"(i32.const {slot})", f"(i32.const {slot + 4})")
    null = ("(i32.const 0)", "(i32.const 0)")
    packed = guest.call("proxy_call_foreign_function", b"compress", b"hello world!", *slots)
    unwanted = guest.call("proxy_call_foreign_function", b"compress", b"x", *null)
    bad = guest.call("proxy_call_foreign_function", b"uncompress", b"x", *null)
    vm = run(bench, guest, packed, unwanted, bad)
    assert [call.status(vm) for call in (packed, unwanted, bad)] == [OK, OK, 3]
    assert vm.read(vm.read_u32(slot), 2) == b"\x78\x9c"
