"""What takes the place of a VM that has failed, and when: a spare, a fresh one, or none for a while."""

from __future__ import annotations

import pytest

from tests.proxywasm.guest import OUT_BYTES, OUT_U32, Guest
from tests.proxywasm.stream import Stream
from twisted_wasmproxy.config.model import RestartConfig
from twisted_wasmproxy.interfaces import Action
from twisted_wasmproxy.proxywasm.keeper import FIRST_DELAY, JITTER, OVERRUN_SHARE
from twisted_wasmproxy.runtimes import get_engine

REFUSED = ("response", 503, [], b"", b"wasm_fail_stream", 14)
LATEST = FIRST_DELAY * (1 + JITTER)
NO_SPARE = RestartConfig(spare=False)
TRAP_AT_END = "(if (i32.eqz (local.get 2)) (then unreachable))"
"""In a headers callback: a message with a body traps, one without passes."""


def filtering():
    """Return a guest that answers 403, or traps where the request has a body."""
    guest = Guest()
    guest.on("proxy_on_vm_start")
    denial = guest.call("proxy_send_local_response", 403, b"", b"", b"", 0xFFFFFFFF)
    guest.on("proxy_on_request_headers", TRAP_AT_END, denial)
    return guest


def denied(loaded):
    """Show a new stream to the plugin, and tell whether it is denied."""
    stream = loaded.stream()
    action = stream.filter is not None and stream.request_head(True)
    return action is Action.PAUSE and [event[1] for event in stream.events] == [403]


def trap(loaded):
    return loaded.stream().request_head(False)


def figures(bench):
    (found,) = bench.host.figures()
    return found


@pytest.mark.parametrize("fail_open", [False, True])
@pytest.mark.parametrize("restart", [RestartConfig(), NO_SPARE], ids=["spare", "none"])
def test_who_comes_after_a_trap_is_filtered(bench, fail_open, restart):
    loaded = bench.load(filtering(), fail_open=fail_open, restart=restart)
    for round in range(50):
        if round % 3 == 0:
            bench.clock.advance(0)  # the spare is there in some rounds, and not yet in others
        assert trap(loaded) is (Action.CONTINUE if fail_open else Action.PAUSE), "its own stream: as fail_open says"
        assert denied(loaded)
    found = figures(bench)
    assert (found["traps"], found["replaced_at_once"], found["restarted"]) == (50, 50, 0)
    assert found["streams_without_vm"] == 0


def test_the_spare_is_started_and_configured_before_it_is_wanted(bench):
    guest = filtering()
    loaded = bench.load(guest)
    assert not figures(bench)["spare"]
    bench.clock.advance(0)
    assert figures(bench)["spare"]
    assert figures(bench)["spare_memory"] == figures(bench)["memory"] > 0
    first = loaded.vm
    trap(loaded)
    assert loaded.vm is not first
    assert not figures(bench)["spare"], "the next is started in a later turn"
    bench.clock.advance(0)
    assert figures(bench)["spare"]


def test_without_spares_none_is_started(bench):
    bench.load(filtering(), restart=NO_SPARE)
    bench.clock.advance(10)
    assert not figures(bench)["spare"]


@pytest.mark.parametrize("fail_open", [False, True])
def test_streams_that_come_while_the_failed_vm_lets_go_of_its_own_are_filtered(bench, fail_open):
    """A connection's next request may be read while the answer to the one before it is sent."""
    guest = filtering()
    guest.on("proxy_on_response_headers", result=1)
    loaded = bench.load(guest, fail_open=fail_open)
    held = loaded.stream()
    assert held.response_head() is Action.PAUSE
    seen = []
    released = "resume_request" if fail_open else "send_local_response"
    setattr(held, released, lambda *args: seen.append(denied(loaded)))
    trap(loaded)
    assert seen == [True]


@pytest.mark.parametrize("fail_open", [False, True])
def test_a_stream_that_the_failed_vm_has_not_been_shown_is_shown_to_the_next(bench, fail_open):
    guest = filtering()
    guest.on("proxy_on_done")
    loaded = bench.load(guest, fail_open=fail_open)
    early, unseen = loaded.stream(), loaded.stream()
    root = loaded.plugin.root
    trap(loaded)
    assert early.request_head(True) is Action.PAUSE
    assert [event[1] for event in early.events] == [403]
    early.close()
    unseen.close()
    assert guest.names(loaded.vm)[-2:] == ["done", "done"]
    assert loaded.plugin.root.streams == 0
    assert root.streams == 1, "the one that trapped has not been closed"


def test_streams_of_the_failed_vm_get_what_fail_open_says(bench):
    guest = filtering()
    guest.on("proxy_on_response_headers", result=1)
    loaded = bench.load(guest, fail_open=True)
    shown = loaded.stream()
    assert shown.response_head() is Action.PAUSE
    trap(loaded)
    assert shown.events == ["resume_request", "resume_response"]


def test_more_traps_than_the_budget_are_not_replaced_at_once(bench):
    loaded = bench.load(filtering(), restart=RestartConfig(traps=3, within=10.0))
    for _ in range(3):
        trap(loaded)
        assert denied(loaded)
    assert not figures(bench)["budget"]["exhausted"]
    trap(loaded)
    found = figures(bench)
    assert (found["serving"], found["exhausted"], found["traps"]) == (False, 1, 4)
    assert found["budget"] == {"traps": 3, "within": 10.0, "spent": 4, "exhausted": True}
    stream = loaded.stream()
    assert stream.request_head() is Action.PAUSE
    assert stream.events == [REFUSED]
    assert figures(bench)["streams_without_vm"] == 1
    bench.clock.advance(LATEST)
    assert denied(loaded)
    trap(loaded)
    bench.clock.advance(FIRST_DELAY * (1 - JITTER))
    assert not figures(bench)["serving"], "the second delay is longer"
    bench.clock.advance(2 * LATEST)
    assert denied(loaded)
    assert sum("more than 3 traps in 10 s" in text for text in bench.texts()) == 1
    bench.clock.advance(11)
    assert not figures(bench)["budget"]["exhausted"]
    trap(loaded)
    assert denied(loaded), "traps out of the window do not count"
    assert figures(bench)["restarted"] == 2


def test_with_a_budget_of_none_every_trap_costs_a_delay(bench):
    loaded = bench.load(filtering(), restart=RestartConfig(traps=0))
    trap(loaded)
    assert not denied(loaded)
    bench.clock.advance(LATEST)
    assert denied(loaded)


def test_a_vm_that_fails_before_any_stream_has_failed_while_starting(bench):
    guest = Guest()
    guest.on("proxy_on_configure", guest.call("proxy_set_tick_period_milliseconds", 10))
    guest.on("proxy_on_tick", "unreachable")
    guest.on("proxy_on_request_headers")
    loaded = bench.load(guest)
    bench.clock.advance(0.01)
    assert not figures(bench)["serving"]
    bench.clock.advance(LATEST)
    assert figures(bench)["serving"]
    loaded.stream().request_head()
    bench.clock.advance(0.01)
    assert figures(bench)["serving"], "after a stream it is replaced at once"
    assert figures(bench)["replaced_at_once"] == 1


def test_a_timer_that_loops_does_not_get_a_fresh_vm_at_once_again_and_again(bench):
    if not get_engine(bench.engine).interruptible:
        pytest.skip("this engine cannot be interrupted")
    guest = Guest()
    guest.on("proxy_on_configure", guest.call("proxy_set_tick_period_milliseconds", 10))
    guest.on("proxy_on_tick", "(loop $again (br $again))")
    guest.on("proxy_on_request_headers", "(if (i32.eqz (local.get 2)) (then (loop $again (br $again))))")
    loaded = bench.load(guest, cpu_limit=0.1)
    loaded.stream().request_head()
    loaded.stream().request_head(False)
    assert figures(bench)["replaced_at_once"] == 1, "a stream that runs out of its time counts as any trap"
    loaded.stream().request_head()
    bench.clock.advance(0.01)
    assert not figures(bench)["serving"]
    bench.clock.advance(LATEST)
    assert figures(bench)["serving"]
    loaded.plugin.root.set_tick(int(1000 * 0.1 * OVERRUN_SHARE))
    loaded.stream().request_head()
    bench.clock.advance(0.1 * OVERRUN_SHARE)
    assert figures(bench)["serving"]


def test_memory_that_is_exhausted_counts_as_any_trap(bench):
    if not get_engine(bench.engine).limits_memory:
        pytest.skip("this engine cannot limit memory")
    guest = Guest()
    grow = "(if (i32.eq (memory.grow (i32.const 1000)) (i32.const -1)) (then unreachable))"
    guest.on("proxy_on_request_headers", f"(if (i32.eqz (local.get 2)) (then {grow}))")
    loaded = bench.load(guest, memory_limit=50 * 65536)
    trap(loaded)
    assert loaded.stream().request_head(True) is Action.CONTINUE
    assert figures(bench)["replaced_at_once"] == 1


def test_a_spare_does_not_tick_and_takes_no_queue_until_it_serves(bench):
    guest = Guest()
    guest.on(
        "proxy_on_configure",
        guest.call("proxy_set_tick_period_milliseconds", 50),
        guest.call("proxy_register_shared_queue", b"q", OUT_U32),
    )
    guest.on("proxy_on_tick")
    guest.on("proxy_on_queue_ready")
    guest.on("proxy_on_request_headers", TRAP_AT_END)
    loaded = bench.load(guest, vm_id="v")
    first = loaded.vm
    bench.clock.advance(0)
    bench.clock.advance(0.05)
    bench.host.services.queues.enqueue(1, b"item", first.memory)
    bench.clock.advance(0)
    assert guest.names(first) == ["configure", "tick", "queue_ready"]
    trap(loaded)
    assert guest.names(loaded.vm) == ["configure"]
    bench.clock.advance(0)
    bench.clock.advance(0.049)
    assert guest.names(loaded.vm) == ["configure"], "the first tick is a whole period away"
    bench.clock.advance(0.001)
    bench.host.services.queues.enqueue(1, b"item", first.memory)
    bench.clock.advance(0)
    assert guest.names(loaded.vm) == ["configure", "tick", "queue_ready"]


@pytest.mark.parametrize("spare", [True, False], ids=["spare", "none"])
def test_the_timer_of_the_next_vm_is_set_once_and_the_failed_one_s_is_gone(bench, spare):
    guest = Guest()
    periods = [guest.call("proxy_set_tick_period_milliseconds", period) for period in (10, 0, 50)]
    guest.on("proxy_on_configure", *periods)
    guest.on("proxy_on_tick")
    guest.on("proxy_on_request_headers", TRAP_AT_END)
    loaded = bench.load(guest, restart=RestartConfig(spare=spare))
    bench.clock.advance(0)
    made = []
    call_later = bench.clock.callLater
    bench.clock.callLater = lambda *args: made.append(args[0]) or call_later(*args)
    trap(loaded)
    assert made == ([0.05, 0.0] if spare else [0.05]), "0.0: the next spare"
    bench.clock.advance(0)
    assert len(bench.clock.getDelayedCalls()) == 1


def test_items_that_wait_when_a_vm_fails_are_told_to_the_next(bench):
    guest = Guest()
    guest.on("proxy_on_configure", guest.call("proxy_register_shared_queue", b"q", OUT_U32))
    take = guest.call("proxy_dequeue_shared_queue", 1, OUT_BYTES)
    poison = f"(if (i32.eq (i32.load8_u (i32.load (i32.const {take._outs[0][1]}))) (i32.const 33)) (then unreachable))"
    guest.on("proxy_on_queue_ready", take, poison)
    guest.on("proxy_on_request_headers")
    loaded = bench.load(guest, vm_id="v")
    first = loaded.vm
    loaded.stream().request_head()
    bench.clock.advance(0)
    used = first.memory.used
    for item in (b"a", b"!", b"b", b"c"):
        bench.host.services.queues.enqueue(1, item, first.memory)
    while bench.clock.getDelayedCalls():
        bench.clock.advance(0)
    assert loaded.vm is not first
    assert guest.names(loaded.vm) == ["configure", "queue_ready", "queue_ready"]
    assert loaded.vm.memory.used == used, "all items are taken"


def test_a_spare_that_registers_a_queue_in_a_loop_is_remembered_once(bench):
    guest = Guest()
    register = guest.call("proxy_register_shared_queue", b"q", OUT_U32)
    guest.on("proxy_on_configure", *[register] * 1000)
    guest.on("proxy_on_request_headers", TRAP_AT_END)
    loaded = bench.load(guest)
    bench.clock.advance(0)
    owned = []
    queues = bench.host.services.queues
    own = queues.own
    queues.own = lambda token, owner: owned.append(owner) or own(token, owner)
    trap(loaded)
    assert owned == [loaded.plugin.root]


def test_a_plugin_that_ends_takes_no_queue_from_one_that_goes_on(bench):
    """Its streams are still going on when the VM fails, and the spare was started with both."""
    guest = Guest()
    guest.on("proxy_on_configure", guest.call("proxy_register_shared_queue", b"q", OUT_U32))
    guest.on("proxy_on_queue_ready")
    guest.on("proxy_on_request_headers", TRAP_AT_END)
    config = bench.config(guest, name="a", vm_id="v")
    both = bench.start(config, type(config)(config.vm, name="b"))
    bench.clock.advance(0)
    ending = both.set.plugins[1]
    held = Stream()
    held.filter = ending.create(held)
    fresh = bench.start(config)
    both.set.close()
    assert ending.keeper is not None, "it waits for its stream"
    trap(fresh)
    bench.host.services.queues.enqueue(1, b"item", fresh.vm.memory)
    bench.clock.advance(0)
    assert guest.trace(fresh.vm)[-1][:2] == ("proxy_on_queue_ready", fresh.plugin.root.id)


@pytest.mark.parametrize("spare", [True, False], ids=["spare", "none"])
def test_what_failed_vms_and_spares_take_of_the_host_s_memory_is_given_back(bench, spare):
    guest = Guest()
    guest.extra = "(table 100 100 funcref)"
    put = guest.call("proxy_set_shared_data", b"key", b"value", 0)
    queue = guest.call("proxy_register_shared_queue", b"q", OUT_U32)
    guest.on("proxy_on_configure", put, queue)
    property_ = guest.call("proxy_set_property", b"mine", b"value" * 100)
    guest.on("proxy_on_request_headers", property_, TRAP_AT_END)
    loaded = bench.load(guest, restart=RestartConfig(spare=spare))
    memory = loaded.vm.memory
    alone = memory.used
    bench.clock.advance(0)
    used = memory.used
    assert used == alone + (800 if spare else 0)
    for _ in range(10):
        streams = [loaded.stream() for _ in range(3)]
        for stream, last in zip(streams, (True, True, False), strict=True):
            stream.request_head(last)
        bench.clock.advance(0)
        assert memory.used > used
        for stream in streams:
            stream.close()
        assert memory.used == used
    assert figures(bench)["replaced_at_once"] == 10
    loaded.set.close()
    assert memory.used == 0


def test_a_vm_that_breaks_off_while_it_is_initialised_gives_back_what_it_took(bench, monkeypatch):
    guest = filtering()
    guest.extra = "(table 100 100 funcref)"
    loaded = bench.load(guest)
    used = loaded.vm.memory.used

    def initialise(vm):
        raise OSError("out of something")

    with monkeypatch.context() as patch:
        patch.setattr(type(loaded.vm), "_initialise", initialise)
        bench.clock.advance(0)
    assert figures(bench)["start_failures"] == 1
    assert loaded.vm.memory.used == used


def broken_later():
    """Return a guest that does not start once shared data say so, and traps on requests with bodies."""
    guest = Guest()
    mark = guest.call("proxy_get_shared_data", b"broken", OUT_BYTES, OUT_U32)
    guest.on("proxy_on_vm_start", mark, f"(return (i32.load (i32.const {mark._status})))")
    guest.on("proxy_on_request_headers", TRAP_AT_END)
    return guest


def test_a_spare_that_does_not_start_harms_nobody_and_is_tried_again(bench):
    loaded = bench.load(broken_later())
    shared = bench.host.services.shared_data
    shared.set(b"", b"broken", b"1", 0, loaded.vm.memory)
    bench.clock.advance(0)
    assert not figures(bench)["spare"]
    assert any("no spare VM" in text for text in bench.texts())
    assert loaded.stream().request_head(True) is Action.CONTINUE
    bench.clock.advance(LATEST)
    assert figures(bench)["start_failures"] == 2
    shared.forget(b"")
    bench.clock.advance(2 * LATEST)
    assert figures(bench)["spare"]


def test_where_no_fresh_vm_starts_there_is_none_for_a_while(bench):
    loaded = bench.load(broken_later())
    shared = bench.host.services.shared_data
    shared.set(b"", b"broken", b"1", 0, loaded.vm.memory)
    bench.clock.advance(0)
    trap(loaded)
    assert loaded.plugin.root is None
    assert any("cannot start again" in text for text in bench.texts())
    shared.forget(b"")
    bench.clock.advance(LATEST)
    assert loaded.stream().request_head(True) is Action.CONTINUE
    assert figures(bench)["restarted"] == 1


def test_an_engine_that_is_out_of_something_is_asked_again(bench, monkeypatch):
    loaded = bench.load(filtering(), restart=NO_SPARE)

    def instantiate(*args):
        raise OSError("no memory")

    with monkeypatch.context() as patch:
        patch.setattr(type(loaded.vm.module.code), "instantiate", instantiate)
        trap(loaded)
    assert figures(bench)["start_failures"] == 1
    assert not figures(bench)["serving"]
    bench.clock.advance(LATEST)
    assert denied(loaded)


def test_plugins_of_one_vm_are_replaced_together(bench):
    guest = filtering()
    config = bench.config(guest, name="a")
    other = bench.config(guest, name="b")
    other = type(other)(config.vm, name="b")
    loaded = bench.start(config, other)
    a, b = loaded.set.plugins
    bench.clock.advance(0)
    trap(loaded)
    assert a.root.vm is b.root.vm
    assert a.root.id != b.root.id
    assert denied(loaded)
    assert figures(bench)["plugins"] == ["a", "b"]
    assert guest.names(loaded.vm)[:2] == ["vm_start", "vm_start"]


def test_a_reload_makes_a_spare_with_the_plugins_of_the_new_configuration(bench):
    guest = filtering()
    config = bench.config(guest, name="a")
    loaded = bench.start(config)
    bench.clock.advance(0)
    fresh = bench.start(config, type(config)(config.vm, name="b"))
    loaded.set.close()
    bench.clock.advance(0)
    assert figures(bench)["spare"]
    trap(fresh)
    a, b = fresh.set.plugins
    assert a.root.vm is b.root.vm is fresh.vm
    bench.clock.advance(0)
    last = bench.start(type(config)(config.vm, name="b"))
    fresh.set.close()
    trap(last)
    assert figures(bench)["plugins"] == ["b"]
    assert denied(last)


def test_a_trap_while_the_old_configuration_drains_ends_what_nobody_uses(bench):
    guest = filtering()
    guest.on("proxy_on_response_headers", result=1)
    loaded = bench.load(guest)
    held, traps = loaded.stream(), loaded.stream()
    assert held.response_head() is Action.PAUSE
    bench.clock.advance(0)
    done = loaded.set.close()
    assert not done.called
    assert traps.request_head(False) is Action.PAUSE
    assert done.called
    assert held.events == [REFUSED]
    assert bench.host.figures() == []
    assert bench.clock.getDelayedCalls() == []


@pytest.mark.parametrize("end", ["close", "stop"])
def test_nothing_is_left_of_a_spare(bench, end):
    loaded = bench.load(filtering())
    if end == "close":
        bench.clock.advance(0)
        assert loaded.set.close().called
    else:
        trap(loaded)
        bench.host.stop()
    assert bench.clock.getDelayedCalls() == []


def test_the_next_vm_starts_where_the_first_one_did(bench):
    guest = filtering()
    loaded = bench.load(guest)
    bench.clock.advance(0)
    before = guest.trace(loaded.vm)
    trap(loaded)
    assert guest.trace(loaded.vm) == before
    assert denied(loaded)
