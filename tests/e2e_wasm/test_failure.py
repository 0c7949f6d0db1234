"""Modules that fail: in every callback, by a trap, an endless loop, too much memory; what streams and others see."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e_wasm.conftest import Serve
from tests.e2e_wasm.support import INTERRUPTIBLE, Stand, module, read_answer, read_answers, serving, until
from tests.support.proxy import free_port

EVENTS = [
    *("create", "request_headers", "request_body", "request_trailers"),
    *("response_headers", "response_body", "response_trailers", "tick"),
]


@pytest.fixture(scope="module")
def frail(tmp_path_factory: pytest.TempPathFactory, code_cache) -> Iterator[Stand]:
    """Module `shut` fails closed, `open` fails open, `other` has a VM of its own; each of the three a VM."""
    limits = {"cpu_limit": "300ms", "memory_limit": "16MiB"}
    wasm = [
        module("other", vm_id="other"),
        module("shut", vm_id="shut", vm_config=limits),
        module("open", vm_id="open", vm_config=limits, fail_open=True),
    ]
    with serving(tmp_path_factory.mktemp("frail"), code_cache, wasm, pacer="other") as running:
        yield running


def well_again(stand: Stand, name: str) -> None:
    """Wait until the module serves again."""
    deadline = time.monotonic() + 20
    while True:
        answer = stand.ask("/", **{name: "response_headers add 2 x-well 1"})
        if answer.header("x-well"):
            return
        assert answer.status == (503 if name == "shut" else 200)
        assert time.monotonic() < deadline
        time.sleep(0.05)


def ask_for(stand: Stand, name: str, event: str, how: str = "trap"):
    script = f"{event} {how}"
    if event == "tick":
        script = f"request_headers pause; period 20|tick {how}"
    return stand.ask("/trailers/one", method="POST", body=[b"x"], trailers=[("t", "1")], paced=False, **{name: script})


@pytest.mark.parametrize("event", EVENTS)
def test_a_trap_answers_503_or_is_passed_over(serve: Serve, event: str) -> None:
    wasm = [module("other", vm_id="x"), module("shut", vm_id="shut"), module("open", vm_id="open", fail_open=True)]
    with serve(wasm, pacer="other") as stand:
        answer = ask_for(stand, "open", event)
        assert (answer.status, answer.body, answer.complete) == (200, b"one", True)
        answer = ask_for(stand, "shut", event)
        if event in ("response_body", "response_trailers"):
            assert not answer.complete
        else:
            assert (answer.status, answer.complete) == (503, True)
        stand.told(answer.tag, "other")
        assert "failed: " in stand.proxy.log


@pytest.mark.parametrize("event", ["done", "log", "delete"])
def test_a_trap_at_the_end_of_a_stream_spoils_nothing(serve: Serve, event: str) -> None:
    with serve([module("open", vm_id="open", fail_open=True)], pacer="open") as stand:
        assert stand.ask("/", open=f"{event} trap").body == b"hello\n"
        stand.wait_log("a fresh VM replaces the failed one")
        assert stand.ask("/").status == 200
        well_again(stand, "open")


@pytest.mark.parametrize("name", ["shut", "open"])
def test_the_traps_of_one_client_take_the_filter_from_nobody(serve: Serve, name: str) -> None:
    """Each trap is followed at once by requests that the filter denies: none may reach the origin."""
    with serve([module("other", vm_id="other"), module(name, fail_open=name == "open")], pacer="other") as stand:
        for _ in range(30):
            traps = [stand.send("/", **{name: "request_headers trap"})[0] for _ in range(3)]
            denied = [stand.send("/", **{name: "request_headers reply 403 denied"}) for _ in range(3)]
            for sock in traps:
                with sock:
                    assert read_answer(sock).status == (200 if name == "open" else 503)
            for sock, tag in denied:
                with sock:
                    assert read_answer(sock).status == 403
                assert not stand.seen(tag)
        stand.wait_log("(trap 90 of 1000 in 60 s)")


def test_a_pipelined_request_after_a_trap_is_filtered(serve: Serve) -> None:
    with serve([module("open", fail_open=True)], pacer="open") as stand:
        sock, _ = stand.send("/", open="request_headers pause")
        with sock:
            lines = ["GET / HTTP/1.1", "Host: example.com", "X-Tag: second", "x-open: request_headers reply 403 denied"]
            sock.sendall("\r\n".join(lines).encode() + b"\r\n\r\n")
            assert stand.ask("/", open="request_headers trap").status == 200
            assert [answer.status for answer in read_answers(sock, 2)] == [200, 403]
        assert not stand.seen("second")


def vms(port: int, *options: str) -> str:
    """Return what `wasmproxy vms` prints."""
    command = [Path(sys.executable).with_name("wasmproxy"), "vms", "--admin", f"http://127.0.0.1:{port}", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def test_beyond_the_budget_of_traps_streams_get_what_fail_open_says(serve: Serve) -> None:
    budget = {"restart": {"traps": 2, "within": "1h"}}
    admin = free_port()
    listens = {"endpoint": f"tcp:{admin}:interface=127.0.0.1"}
    with serve([module("open", vm_config=budget, fail_open=True)], pacer="open", admin=listens) as stand:
        denial = "request_headers reply 403 denied"
        for _ in range(2):
            assert stand.ask("/", open="request_headers trap").status == 200
            assert stand.ask("/", open=denial).status == 403
        assert stand.ask("/", open="request_headers trap").status == 200
        assert stand.ask("/", open=denial).status == 200
        stand.wait_log("more than 2 traps in 3600 s")
        well_again(stand, "open")
        assert stand.ask("/", open=denial).status == 403
        (found,) = json.loads(vms(admin, "--json"))["vms"]
        assert (found["traps"], found["replaced_at_once"], found["restarted"], found["exhausted"]) == (3, 2, 1, 1)
        assert (found["serving"], found["plugins"]) == (True, ["open"])
        assert found["budget"] == {"traps": 2, "within": 3600.0, "spent": 3, "exhausted": True}
        assert found["streams_without_vm"] >= 1
        printed = vms(admin)
        assert "  traps        3, 3 of 2 in the last 3600 s" in printed.splitlines()
        assert "  replaced     2 at once, 1 after a delay" in printed.splitlines()


HOW = ["trap", "hog", "recurse", "exit 0", "exit 3", *["loop"] * INTERRUPTIBLE]


def test_a_failed_vm_is_replaced_and_nobody_else_notices(frail: Stand) -> None:
    """One after the other: each failure makes the next replacement later, so all of them are in one test."""
    frail.ask("/", shut="request_headers shared key kept", open="request_headers shared key kept")
    for how in ("trap", "hog", HOW[-1]):
        begun = time.monotonic()
        held, tag = frail.send("/", shut="request_headers pause")
        frail.wait_line(tag, "shut create 1")
        answer = frail.ask("/", shut=f"request_headers {how}")
        assert answer.status == 503, how
        assert time.monotonic() - begun < 5
        with held:
            assert read_answer(held).status == 503
        frail.told(tag, "other")
        well_again(frail, "shut")
        answer = frail.ask("/", shut="request_headers recall key")
        assert "shut recall 0 kept" in frail.told(answer.tag, "shut")
    assert frail.proxy.process.poll() is None


@pytest.mark.parametrize("how", HOW)
def test_every_kind_of_failure_is_contained(serve: Serve, how: str) -> None:
    limits = {"cpu_limit": "300ms", "memory_limit": "16MiB"}
    wasm = [module("other", vm_id="other"), module("open", vm_id="open", vm_config=limits, fail_open=True)]
    with serve(wasm, pacer="other") as stand:
        begun = time.monotonic()
        answer = stand.ask("/", open=f"response_headers {how}", other="response_headers add 2 x-other 1")
        assert (answer.status, answer.body, answer.header("x-other")) == (200, b"hello\n", "1")
        assert time.monotonic() - begun < 5
        well_again(stand, "open")


@pytest.mark.skipif(not INTERRUPTIBLE, reason="the engine cannot stop a loop")
def test_a_loop_in_a_timer_does_not_stop_the_others(serve: Serve) -> None:
    limits = {"cpu_limit": "200ms"}
    wasm = [
        module("other", vm_id="other"),
        module("loops", vm_id="loops", configuration="configure period 10|tick loop", vm_config=limits, fail_open=True),
    ]
    with serve(wasm, pacer="other") as stand:
        for _ in range(20):
            assert stand.ask("/", other="response_headers add 2 x-other 1").header("x-other") == "1"


def test_streams_of_a_failed_vm_are_all_answered(serve: Serve) -> None:
    wasm = [module("other", vm_id="other"), module("a", vm_id="a")]
    with serve(wasm, pacer="other") as stand:
        held = [stand.send("/", a="request_headers pause") for _ in range(50)]
        held += [stand.send("/", a="response_headers pause") for _ in range(50)]
        for _, tag in held[50:]:
            stand.wait_line(tag, "a response_headers 6 0")
        assert stand.ask("/", a="request_headers trap").status == 503
        for sock, _ in held:
            with sock:
                assert read_answer(sock).status == 503
        for _, tag in held:
            stand.told(tag, "other")


@pytest.mark.parametrize("event", ["request_headers", "request_body", "response_headers", "response_body"])
def test_streams_held_by_a_module_that_fails_open_go_on(serve: Serve, event: str) -> None:
    with serve([module("other", vm_id="other"), module("a", fail_open=True)], pacer="other") as stand:
        sock, tag = stand.send("/echo", method="POST", body=b"text", paced=False, a=f"{event} pause")
        until(lambda: any(line.startswith(f"a {event} ") for line in stand.lines(tag)))
        assert stand.ask("/", a="request_headers trap").status == 200
        with sock:
            answer = read_answer(sock)
        assert (answer.status, answer.body, answer.complete) == (200, b"text", True)


def test_a_stream_begun_without_its_module_is_never_shown_to_the_next_vm(serve: Serve) -> None:
    with serve([module("open", vm_id="open", fail_open=True)], pacer="open") as stand:
        sock, tag = stand.send("/hold", open="response_headers add 2 x-late 1")
        stand.wait_line(tag, "open create 1")
        assert stand.ask("/", open="request_headers trap").status == 200
        well_again(stand, "open")
        stand.origin.go.set()
        with sock:
            answer = read_answer(sock)
        assert (answer.status, answer.header("x-late"), answer.body) == (200, None, b"hello\n")


def test_a_client_may_break_off_in_a_trap(serve: Serve) -> None:
    with serve([module("a", fail_open=True)], pacer="a") as stand:
        sock, tag = stand.send("/", a="request_headers pause|done trap")
        stand.wait_line(tag, "a create 1")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        sock.close()
        stand.wait_log("failed: ")
        well_again(stand, "a")
