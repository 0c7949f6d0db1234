"""Failures of a VM: what becomes of its streams, of it and of others (conformance cases X06 and X07)."""

from __future__ import annotations

import time

import pytest

from tests.proxywasm.guest import OUT_BYTES, OUT_U32, Guest
from twisted_wasmproxy.config.model import RestartConfig
from twisted_wasmproxy.http.headers import Headers
from twisted_wasmproxy.interfaces import Action
from twisted_wasmproxy.proxywasm import PluginError
from twisted_wasmproxy.proxywasm.keeper import FIRST_DELAY, JITTER, LONGEST_DELAY, STEADY
from twisted_wasmproxy.proxywasm.memory import HostMemory
from twisted_wasmproxy.runtimes import get_engine

REFUSED = ("response", 503, [], b"", b"wasm_fail_stream", 14)
LATEST = FIRST_DELAY * (1 + JITTER)
NEVER_AT_ONCE = RestartConfig(traps=0, spare=False)

CALLBACKS = [f"proxy_on_{side}_{part}" for side in ("request", "response") for part in ("headers", "body", "trailers")]


def call_callback(stream, name):
    side, part = name.split("_")[2:]
    if part == "headers":
        return getattr(stream, f"{side}_head")(False)
    if part == "body":
        return getattr(stream, f"{side}_data")(b"x")
    setattr(stream, f"{side}_trailers", Headers())
    return getattr(stream.filter, f"{side}_trailers")()


@pytest.mark.parametrize("name", CALLBACKS)
def test_X06_fail_closed_answers_503_or_breaks_off_after_the_response_head(bench, name):
    guest = Guest()
    guest.on(name, "unreachable")
    loaded, stream = bench.stream(guest, restart=NEVER_AT_ONCE)
    if name in ("proxy_on_response_body", "proxy_on_response_trailers"):
        stream.response_head(False)
        stream.response_headers_writable = False
    assert call_callback(stream, name) is Action.PAUSE
    assert stream.events == (["reset"] if not stream.response_headers_writable else [REFUSED])
    assert loaded.plugin.root is None
    stream.close()


@pytest.mark.parametrize("name", ["proxy_on_context_create", *CALLBACKS])
def test_X06_fail_open_skips_the_plugin(bench, name):
    guest = Guest()
    step = "(if (i32.eq (local.get 0) (i32.const 2)) (then unreachable))" if "create" in name else "unreachable"
    guest.on(name, step)
    guest.on("proxy_on_response_headers") if name != "proxy_on_response_headers" else None
    loaded, stream = bench.stream(guest, fail_open=True, restart=NEVER_AT_ONCE)
    shown = "proxy_on_response_headers" if "create" in name else name
    assert call_callback(stream, shown) is Action.CONTINUE
    assert stream.response_head() is Action.CONTINUE
    assert stream.events == []
    stream.close()
    assert loaded.plugin.create(stream) is None, "later streams stay out of it"


def test_X06_without_a_vm_streams_are_refused_until_there_is_a_fresh_one(bench):
    guest = Guest()
    guest.on("proxy_on_vm_start")
    guest.on("proxy_on_request_headers", "(if (i32.eqz (local.get 2)) (then unreachable))")
    loaded, stream = bench.stream(guest, restart=NEVER_AT_ONCE)
    failed = loaded.vm
    assert stream.request_head(False) is Action.PAUSE
    meanwhile = loaded.stream()
    assert meanwhile.request_head() is Action.PAUSE
    assert meanwhile.events == [REFUSED]
    assert meanwhile.response_head(status=503) is Action.CONTINUE, "the refusal itself passes"
    meanwhile.close()
    bench.clock.advance(LATEST)
    assert loaded.vm is not failed
    assert guest.names(loaded.vm) == ["vm_start"]
    after = loaded.stream()
    assert after.request_head(True) is Action.CONTINUE
    assert any("guest1: proxy_on_request_headers failed: " in text for text in bench.texts())


def test_X06_the_delay_doubles_up_to_a_limit_and_is_forgiven(bench):
    guest = Guest()
    guest.on("proxy_on_request_headers", "unreachable")
    loaded = bench.load(guest, restart=NEVER_AT_ONCE)
    expected = FIRST_DELAY
    for _ in range(9):
        loaded.stream().request_head()
        (restart,) = bench.clock.getDelayedCalls()
        delay = restart.getTime() - bench.clock.seconds()
        assert expected * (1 - JITTER) <= delay <= expected * (1 + JITTER)
        expected = min(2 * expected, LONGEST_DELAY)
        bench.clock.advance(delay)
    bench.clock.advance(STEADY + 1)
    loaded.stream().request_head()
    (restart,) = bench.clock.getDelayedCalls()
    assert restart.getTime() - bench.clock.seconds() <= LATEST


def test_X06_a_vm_that_does_not_start_again_is_tried_again(bench):
    guest = Guest()
    mark = guest.call("proxy_get_shared_data", b"broken", OUT_BYTES, OUT_U32)
    guest.on("proxy_on_vm_start", mark, f"(return (i32.load (i32.const {mark._status})))")
    guest.on("proxy_on_request_headers", "unreachable")
    loaded, stream = bench.stream(guest)
    bench.host.services.shared_data.set(b"", b"broken", b"1", 0, HostMemory(1 << 20))
    stream.request_head()
    bench.clock.advance(LATEST)
    assert loaded.plugin.root is None
    assert any("cannot start again" in text for text in bench.texts())
    bench.host.services.shared_data.forget(b"")
    bench.clock.advance(2 * LATEST)
    assert loaded.plugin.root is not None


@pytest.mark.parametrize("fail_open", [False, True])
def test_X06_streams_that_the_vm_holds_are_not_left_hanging(bench, fail_open):
    guest = Guest()
    guest.on("proxy_on_request_headers", "(if (i32.eqz (local.get 2)) (then unreachable))", result=1)
    guest.on("proxy_on_response_headers", result=1)
    loaded = bench.load(guest, fail_open=fail_open, restart=NEVER_AT_ONCE)
    held_request, held_response, free, resumed = (loaded.stream() for _ in range(4))
    assert held_request.request_head(True) is Action.PAUSE
    assert held_response.response_head(True) is Action.PAUSE
    loaded.stream().request_head(False)
    if fail_open:
        assert held_request.events == held_response.events == ["resume_request", "resume_response"]
    else:
        assert held_request.events == held_response.events == [REFUSED]
    assert free.events == resumed.events == []
    expected = Action.CONTINUE if fail_open else Action.PAUSE
    assert free.request_head(True) is expected, "a stream that the VM did not hold is dealt with at its next callback"


@pytest.mark.parametrize("where", ["proxy_on_tick", "proxy_on_done", "proxy_on_log", "proxy_on_delete"])
def test_X06_a_trap_elsewhere_fails_the_vm_too(bench, where):
    guest = Guest()
    guest.on("proxy_on_configure", guest.call("proxy_set_tick_period_milliseconds", 10))
    guest.on("proxy_on_request_headers", result=1)
    guest.on(where, "unreachable")
    loaded = bench.load(guest, restart=NEVER_AT_ONCE)
    held, ends = loaded.stream(), loaded.stream()
    held.request_head()
    ends.request_head()
    ends.close() if where != "proxy_on_tick" else bench.clock.advance(0.01)
    assert held.events == [REFUSED]
    assert loaded.plugin.root is None


def test_X06_other_vms_and_shared_data_are_untouched(bench):
    guest, other = Guest(), Guest()
    guest.on("proxy_on_vm_start", guest.call("proxy_set_shared_data", b"k", b"v", 0))
    guest.on("proxy_on_request_headers", "unreachable")
    other.on("proxy_on_request_headers")
    loaded, good = bench.load(guest, restart=NEVER_AT_ONCE), bench.load(other)
    held = good.stream()
    loaded.stream().request_head()
    assert held.request_head() is Action.CONTINUE
    assert held.events == []
    assert bench.host.services.shared_data.get(b"", b"k") == (b"v", 1)
    bench.clock.advance(LATEST)
    assert bench.host.services.shared_data.get(b"", b"k") == (b"v", 2)


def test_the_log_names_module_function_and_frames(bench):
    guest = Guest()
    guest.extra = "(func $deep unreachable) (func $outer (call $deep))"
    guest.on("proxy_on_request_headers", "(call $outer)")
    _, stream = bench.stream(guest)
    stream.request_head()
    (text,) = (text for text in bench.texts() if "failed: " in text)
    assert "guest1: proxy_on_request_headers failed" in text
    assert "deep" in text
    assert "outer" in text


def test_closing_the_plugin_while_it_has_no_vm(bench):
    guest = Guest()
    guest.on("proxy_on_request_headers", "unreachable")
    loaded, stream = bench.stream(guest)
    stream.request_head()
    assert loaded.set.close().called
    assert bench.clock.getDelayedCalls() == []


def test_X07_an_endless_loop_is_interrupted(bench):
    if not get_engine(bench.engine).interruptible:
        pytest.skip("this engine cannot be interrupted")
    guest = Guest()
    guest.on("proxy_on_request_headers", "(loop $again (br $again))")
    loaded, stream = bench.stream(guest, cpu_limit=0.1, restart=NEVER_AT_ONCE)
    begin = time.monotonic()
    assert stream.request_head() is Action.PAUSE
    assert time.monotonic() - begin < 2
    assert stream.events == [REFUSED]
    assert loaded.plugin.root is None
    guest = Guest()
    guest.on("proxy_on_configure", "(loop $again (br $again))")
    with pytest.raises(PluginError, match="proxy_on_configure failed: interrupted"):
        bench.load(guest, cpu_limit=0.1)


def test_a_limit_that_does_not_hold_is_said_once(bench):
    engine = get_engine(bench.engine)
    bench.load(Guest())
    bench.load(Guest("0.2.0"))
    assert sum("cannot be interrupted" in text for text in bench.texts()) == (not engine.interruptible)
    assert sum("cannot limit memory" in text for text in bench.texts()) == (not engine.limits_memory)


def test_X07_memory_is_limited(bench):
    if not get_engine(bench.engine).limits_memory:
        pytest.skip("this engine cannot limit memory")
    guest = Guest()
    grown = guest.slot()
    guest.on("proxy_on_request_headers", f"(i32.store (i32.const {grown}) (memory.grow (i32.const 100)))")
    loaded, stream = bench.stream(guest, memory_limit=50 * 65536)
    assert stream.request_head() is Action.CONTINUE
    assert loaded.vm.read_u32(grown) == 0xFFFFFFFF
    with pytest.raises(PluginError, match=r"cannot be instantiated|memory"):
        bench.load(Guest(), memory_limit=4 * 65536)


CAPABILITIES = frozenset({"proxy_on_request_headers", "proxy_get_header_map_value", "proxy_on_memory_allocate"})


def test_X07_what_is_not_allowed_is_refused_and_not_called(bench):
    guest = Guest()
    allowed = guest.call("proxy_get_header_map_value", 0, b":path", OUT_BYTES)
    refused = guest.call("proxy_log", 2, b"x")
    wasi = guest.call("sched_yield", module="wasi_snapshot_preview1")
    always = guest.call("pthread_equal", 1, 1)
    guest.on("proxy_on_request_headers", allowed, refused, wasi, always)
    guest.on("proxy_on_response_headers")
    guest.on("proxy_on_log")
    loaded, stream = bench.stream(guest, capabilities=CAPABILITIES)
    stream.request_head()
    assert stream.filter.response_headers is None
    vm = loaded.vm
    assert [call.status(vm) for call in (allowed, refused, wasi, always)] == [0, 10, 76, 1]
    assert allowed.value(vm) == b"/"
    stream.close()
    assert guest.names(vm) == ["request_headers"]
    assert bench.lines() == []


def test_a_host_function_that_fails_answers_a_status_and_is_logged(bench):
    guest = Guest()
    call = guest.call("proxy_get_property", b"boom", OUT_BYTES)
    guest.on("proxy_on_request_headers", call)
    loaded, stream = bench.stream(guest)
    stream.attribute = lambda path: 1 // 0
    assert stream.request_head() is Action.CONTINUE
    assert call.status(loaded.vm) == 10
    assert any("proxy_get_property failed" in text for text in bench.texts())
    globals_logged = [event for event in bench.events if "log_failure" in event]
    assert len(globals_logged) == 1


def test_done_and_a_trap_in_one_call_count_a_stream_once(bench):
    guest = Guest()
    guest.on("proxy_on_configure", guest.call("proxy_set_tick_period_milliseconds", 10))
    guest.on("proxy_on_done", result=0)
    choose, done = guest.call("proxy_set_effective_context", 2), guest.call("proxy_done")
    guest.on("proxy_on_tick", choose, done, "unreachable")
    loaded, stream = bench.stream(guest)
    other = loaded.stream()
    other.close()
    stream.close()
    root = loaded.plugin.root
    bench.clock.advance(0.01)
    assert root.streams == 0
    assert all(call.getTime() <= bench.clock.seconds() + LATEST for call in bench.clock.getDelayedCalls())


def test_a_stream_whose_resumption_fails_does_not_stop_the_others(bench):
    guest = Guest()
    guest.on("proxy_on_configure", guest.call("proxy_set_tick_period_milliseconds", 10))
    guest.on("proxy_on_request_headers", result=1)
    steps = []
    for context in (2, 3):
        steps += [guest.call("proxy_set_effective_context", context), guest.call("proxy_continue_stream", 0)]
    guest.on("proxy_on_tick", *steps)
    loaded = bench.load(guest)
    bad, good = loaded.stream(), loaded.stream()
    bad.request_head()
    good.request_head()
    bad.resume_request = lambda: 1 // 0
    bench.clock.advance(0.01)
    assert good.events == ["resume_request"]
    assert loaded.vm.failed is None
