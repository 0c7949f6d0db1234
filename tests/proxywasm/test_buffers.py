"""Buffers: bodies and configurations (conformance cases B and C01-C04)."""

from __future__ import annotations

import pytest

from tests.proxywasm.guest import OUT_BYTES, OUT_U32, UNSET, Guest

OK, NOT_FOUND, BAD_ARGUMENT = 0, 1, 2


def on_body(bench, body, *make_calls, direction="request", end_stream=True):
    guest = Guest()
    calls = [guest.call(name, *args) for name, *args in make_calls]
    guest.on(f"proxy_on_{direction}_body", *calls)
    loaded, stream = bench.stream(guest)
    getattr(stream, f"{direction}_data")(body, end_stream)
    return loaded.vm, getattr(stream, f"{direction}_body"), calls


def get(buffer, start, size):
    return ("proxy_get_buffer_bytes", buffer, start, size, OUT_BYTES)


@pytest.mark.parametrize(("direction", "buffer"), [("request", 0), ("response", 1)])
def test_B01_B02_B03_reading_is_cut_at_the_end(bench, direction, buffer):
    cases = {
        (0, 10): b"0123456789",
        (0, 3): b"012",
        (4, 3): b"456",
        (4, 100): b"456789",
        (10, 5): b"",
        (11, 5): b"",
        (0xFFFFFFFF, 5): b"",
        (0, 0x7FFFFFFF): b"0123456789",
        (2, 0xFFFFFFFF): b"23456789",
        (0, 0): b"",
    }
    vm, _, calls = on_body(bench, b"0123456789", *[get(buffer, *case) for case in cases], direction=direction)
    assert [(call.status(vm), call.value(vm)) for call in calls] == [(OK, data) for data in cases.values()]


def test_B04_B05_buffers_that_are_not_there(bench):
    vm, _, calls = on_body(bench, b"x", *[get(buffer, 0, 10) for buffer in (1, 2, 3, 4, 5, 8, 9, 100)])
    assert [call.status(vm) for call in calls] == [NOT_FOUND] * 6 + [BAD_ARGUMENT] * 2
    assert calls[0].slots(vm) == (UNSET, UNSET)


@pytest.mark.parametrize(
    ("start", "size", "data", "after"),
    [
        (0, 0, b"<", b"<0123456789"),
        (10, 0, b">", b"0123456789>"),
        (0x7FFFFFFF, 0, b">", b"0123456789>"),
        (0xFFFFFFFF, 7, b">", b"0123456789>"),
        (0, 10, b"new body, longer", b"new body, longer"),
        (0, 0x7FFFFFFF, b"s", b"s"),
        (0, 10, b"", b""),
        (0, 4, b"", b"456789"),
        (0, 4, b"ab", b"ab456789"),
        (3, 2, b"abc", b"012abc56789"),
        (3, 0, b"abc", b"012abc3456789"),
        (3, 0xFFFFFFFF, b"", b"012"),
    ],
)
@pytest.mark.parametrize(("direction", "buffer"), [("request", 0), ("response", 1)])
def test_B06_to_B10_writing_replaces_a_slice(bench, direction, buffer, start, size, data, after):
    vm, body, (write, read) = on_body(
        bench,
        b"0123456789",
        ("proxy_set_buffer_bytes", buffer, start, size, data),
        get(buffer, 0, 1000),
        direction=direction,
    )
    assert write.status(vm) == OK
    assert body.data == after
    assert read.value(vm) == after


def test_B11_buffers_that_are_not_written(bench):
    vm, _, calls = on_body(
        bench, b"x", *[("proxy_set_buffer_bytes", buffer, 0, 0, b"y") for buffer in (1, 2, 3, 4, 5, 6, 7, 8, 9)]
    )
    assert [call.status(vm) for call in calls] == [NOT_FOUND] * 3 + [BAD_ARGUMENT] * 6


def test_B12_buffer_status(bench):
    vm, _, calls = on_body(
        bench,
        b"12345",
        *[("proxy_get_buffer_status", buffer, OUT_U32, OUT_U32) for buffer in (0, 7, 1, 9)],
    )
    assert [call.status(vm) for call in calls] == [OK, OK, NOT_FOUND, BAD_ARGUMENT]
    assert (calls[0].value(vm, 0), calls[0].value(vm, 1)) == (5, 0)


def test_bodies_are_not_there_outside_their_callbacks(bench):
    guest = Guest()
    calls = [guest.call(*get(0, 0, 10)), guest.call("proxy_set_buffer_bytes", 0, 0, 0, b"x")]
    guest.on("proxy_on_request_headers", *calls)
    loaded, stream = bench.stream(guest)
    stream.request_head()
    assert [call.status(loaded.vm) for call in calls] == [NOT_FOUND, NOT_FOUND]


def test_C01_C02_configurations_are_read_with_their_sizes(bench):
    guest = Guest()
    vm_read, plugin_read = guest.call(*get(6, 0, 100)), guest.call(*get(7, 0, 100))
    guest.on("proxy_on_vm_start", vm_read)
    guest.on("proxy_on_configure", plugin_read)
    loaded = bench.load(guest, vm_configuration=b"for the VM", configuration=b"for\0the plugin")
    assert vm_read.value(loaded.vm) == b"for the VM"
    assert plugin_read.value(loaded.vm) == b"for\0the plugin"
    assert guest.trace(loaded.vm) == [("proxy_on_vm_start", 1, 10), ("proxy_on_configure", 1, 14)]


def test_configurations_are_read_from_streams_too(bench):
    guest = Guest()
    calls = [guest.call(*get(6, 0, 100)), guest.call(*get(7, 4, 100))]
    guest.on("proxy_on_request_headers", *calls)
    loaded, stream = bench.stream(guest, vm_configuration=b"vm", configuration=b"for the plugin")
    stream.request_head()
    assert [call.value(loaded.vm) for call in calls] == [b"vm", b"the plugin"]


def test_C03_an_empty_configuration(bench):
    guest = Guest()
    calls = [guest.call(*get(6, 0, 100)), guest.call(*get(7, 0, 100))]
    guest.on("proxy_on_configure", *calls)
    loaded = bench.load(guest)
    assert [(call.status(loaded.vm), call.slots(loaded.vm)) for call in calls] == [(OK, (0, 0))] * 2
    assert guest.trace(loaded.vm) == [("proxy_on_configure", 1, 0)]


def test_C04_the_one_configuration_of_0_1_0(bench):
    guest = Guest("0.1.0")
    reads = [guest.call("proxy_get_configuration", OUT_BYTES) for _ in range(4)]
    guest.on("proxy_on_context_create", nth={0: [reads[0]]})
    guest.on("proxy_on_vm_start", reads[1])
    guest.on("proxy_on_configure", reads[2])
    guest.on("proxy_on_request_headers", reads[3], params=2)
    loaded, stream = bench.stream(guest, vm_configuration=b"vm", configuration=b"plugin")
    stream.request_head()
    assert [read.value(loaded.vm) for read in reads] == [b"plugin", b"vm", b"plugin", b"vm"]
