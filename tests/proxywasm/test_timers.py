"""Timers (conformance cases T)."""

from __future__ import annotations

import pytest

from tests.proxywasm.guest import Guest
from twisted_wasmproxy.config.model import RestartConfig


def ticking(period, *steps, **options):
    guest = Guest()
    guest.on("proxy_on_configure", guest.call("proxy_set_tick_period_milliseconds", period))
    guest.on("proxy_on_tick", *(step(guest) for step in steps), **options)
    return guest


def ticks(guest, vm):
    return guest.names(vm).count("tick")


def test_T01_each_period_one_tick_counted_from_the_end_of_the_last(bench):
    guest = ticking(100)
    vm = bench.load(guest).vm
    bench.clock.advance(0.099)
    assert ticks(guest, vm) == 0
    bench.clock.advance(0.001)
    assert ticks(guest, vm) == 1
    bench.clock.advance(1)  # late: one tick, and the next a period from now
    assert ticks(guest, vm) == 2
    bench.clock.advance(0.1)
    assert ticks(guest, vm) == 3


def test_T02_zero_cancels_from_inside_a_tick(bench):
    guest = ticking(10, lambda guest: guest.call("proxy_set_tick_period_milliseconds", 0))
    vm = bench.load(guest).vm
    bench.clock.pump([0.01] * 5)
    assert ticks(guest, vm) == 1
    assert bench.clock.getDelayedCalls() == []


def test_T03_another_period_from_inside_a_tick(bench):
    guest = ticking(10, lambda guest: guest.call("proxy_set_tick_period_milliseconds", 50))
    vm = bench.load(guest).vm
    bench.clock.pump([0.01] * 10)
    assert ticks(guest, vm) == 2


def test_T04_a_stream_sets_the_timer_of_its_plugin(bench):
    guest = Guest()
    guest.on("proxy_on_request_headers", guest.call("proxy_set_tick_period_milliseconds", 20))
    guest.on("proxy_on_tick")
    loaded, stream = bench.stream(guest)
    stream.request_head()
    stream.close()
    bench.clock.advance(0.02)
    assert guest.trace(loaded.vm)[-1] == ("proxy_on_tick", 1)


def test_T05_each_plugin_has_its_own(bench):
    guest = Guest()
    size = "(i32.mul (local.get 1) (i32.const 10))"
    guest.on("proxy_on_configure", guest.call("proxy_set_tick_period_milliseconds", size))
    guest.on("proxy_on_tick")
    first = bench.config(guest, configuration=b"1")
    loaded = bench.start(first, bench.config(first.vm.code, configuration=b"123"))
    bench.clock.pump([0.01] * 6)
    calls = [entry[1] for entry in guest.trace(loaded.vm) if entry[0] == "proxy_on_tick"]
    assert (calls.count(1), calls.count(2)) == (6, 2)


@pytest.mark.parametrize("end", ["close", "failure"])
def test_T06_no_tick_after_the_end(bench, end):
    guest = ticking(10)
    guest.on("proxy_on_request_headers", "unreachable")
    loaded, stream = bench.stream(guest, fail_open=True, restart=RestartConfig(traps=0))
    if end == "close":
        stream.close()
        loaded.set.close()
        assert bench.clock.getDelayedCalls() == []
    else:
        stream.request_head()
        assert [call.getTime() > 0.5 for call in bench.clock.getDelayedCalls() if call.getTime()] == [True]


def test_without_a_tick_callback_a_timer_does_no_harm(bench):
    guest = Guest()
    guest.on("proxy_on_configure", guest.call("proxy_set_tick_period_milliseconds", 10))
    vm = bench.load(guest).vm
    bench.clock.pump([0.01] * 3)
    assert vm.failed is None
