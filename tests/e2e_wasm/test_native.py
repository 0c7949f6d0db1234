"""Native filters found through twisted.plugin: every power of a module, on live streams, beside modules."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.e2e_wasm.conftest import Serve
from tests.e2e_wasm.support import Stand, module, read_answer, serving
from tests.support.proxy import StartFailed, free_port

EVENTS = [
    *("request_headers", "request_body", "request_trailers"),
    *("response_headers", "response_body", "response_trailers"),
]
HOOKS = [
    *("TXN_START", "READ_REQUEST_HDR", "PRE_REMAP", "POST_REMAP", "CACHE_LOOKUP_COMPLETE"),
    *("SEND_REQUEST_HDR", "READ_RESPONSE_HDR", "SEND_RESPONSE_HDR", "TXN_CLOSE"),
]


def native(name: str, **options: object) -> dict[str, object]:
    return {"native": "told", "name": name, "configuration": name, **options}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory, code_cache) -> Iterator[Stand]:
    """Native `n`, module `a`, native `f` (fails open) in the client phase; module `o`, native `p` in the origin's."""
    filters = [
        native("n"),
        module("a"),
        native("f", fail_open=True),
        module("o", phase="origin"),
        native("p", phase="origin"),
    ]
    with serving(tmp_path_factory.mktemp("mixed"), code_cache, filters) as running:
        yield running


def closed(stand: Stand, tag: str, name: str = "n") -> list[str]:
    stand.wait_line(tag, f"{name} closed")
    return [line.removeprefix(f"{name} ") for line in stand.lines(tag) if line.startswith(f"{name} ")]


def hooks(lines: list[str]) -> list[str]:
    return [line.removeprefix("hook ") for line in lines if line.startswith("hook ")]


def ask(stand: Stand, name: str, script: str):
    trailers = [] if script.startswith("request_body") else [("t", "1")]
    return stand.ask("/trailers/one/two", method="POST", body=[b"x"], trailers=trailers, **{name: script})


def test_native_filters_and_modules_stand_in_one_order(mixed: Stand) -> None:
    names = ["n", "a", "f", "o", "p"]
    scripts = {
        name: f"request_headers request_header x-way {name}|response_headers response_header x-back {name}"
        for name in names
    }
    for name in ("a", "o"):
        scripts[name] = f"request_headers add 0 x-way {name}|response_headers add 2 x-back {name}"
    answer = mixed.ask("/", **scripts)
    assert mixed.seen(answer.tag)[0].all("x-way") == names
    assert answer.all("x-back") == names[::-1]


def test_callbacks_come_in_order_and_the_end_once(mixed: Stand) -> None:
    answer = ask(mixed, "n", "nothing")
    assert answer.complete
    lines = [line for line in closed(mixed, answer.tag) if not line.startswith("hook")]
    assert lines[0] == "request_headers 0"
    assert lines[-1] == "closed"
    order = [line.split()[0] for line in lines]
    assert list(dict.fromkeys(order)) == [*EVENTS, "closed"]


def test_hooks_come_in_the_order_of_a_miss(mixed: Stand) -> None:
    answer = mixed.ask("/", n="nothing")
    assert hooks(closed(mixed, answer.tag)) == HOOKS


def test_filters_of_the_origin_phase_are_told_of_the_hooks_that_they_live_to_see(mixed: Stand) -> None:
    answer = mixed.ask("/", p="nothing")
    assert hooks(closed(mixed, answer.tag, "p")) == HOOKS[5:]


@pytest.mark.parametrize(("name", "hook"), [("n", hook) for hook in HOOKS[:-2]] + [("p", hook) for hook in HOOKS[5:-2]])
def test_a_stream_is_answered_or_broken_off_from_a_hook(mixed: Stand, name: str, hook: str) -> None:
    answer = mixed.ask("/", **{name: f"hook {hook} reply 403 no"})
    assert (answer.status, answer.body) == (403, b"no")
    closed(mixed, answer.tag, name)
    answer = mixed.ask("/", **{name: f"hook {hook} reset"})
    assert answer.status == 0
    closed(mixed, answer.tag, name)
    assert mixed.ask("/").status == 200


def test_hooks_of_a_local_answer_leave_the_origin_out(mixed: Stand) -> None:
    answer = mixed.ask("/", n="request_headers reply 403 no")
    assert hooks(closed(mixed, answer.tag)) == [*HOOKS[:2], *HOOKS[-2:]]


@pytest.mark.parametrize("name", ["n", "p"])
@pytest.mark.parametrize("event", EVENTS)
def test_a_stream_is_held_and_let_go_from_a_timer(mixed: Stand, name: str, event: str) -> None:
    direction = event.partition("_")[0]
    # What is held in a body goes on with the trailers, so that there is nothing to resume is fine too.
    answer = ask(mixed, name, f"{event} pause|{event} later 100 resume_{direction}")
    assert (answer.status, answer.body, answer.complete) == (200, b"onetwo", True)
    assert answer.trailers == [("X-Trailer", "from-origin")]
    assert mixed.seen(answer.tag)[0].body == b"x"


@pytest.mark.parametrize("name", ["n", "p"])
@pytest.mark.parametrize("event", EVENTS[:4])
@pytest.mark.parametrize("later", ["", "later 50 "])
def test_a_stream_is_answered_at_once_or_later(mixed: Stand, name: str, event: str, later: str) -> None:
    answer = ask(mixed, name, f"{event} {later}reply 403 no|{event} pause")
    assert (answer.status, answer.body, answer.header("x-from")) == (403, b"no", "native")


@pytest.mark.parametrize("name", ["n", "p"])
@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("later", ["", "later 50 "])
def test_a_stream_is_broken_off_at_once_or_later(mixed: Stand, name: str, event: str, later: str) -> None:
    answer = ask(mixed, name, f"{event} {later}reset|{event} pause")
    assert not answer.complete or (event.startswith("response_body") and later)
    closed(mixed, answer.tag, name)


@pytest.mark.parametrize("name", ["n", "p"])
def test_bodies_are_rewritten_and_trailers_made(mixed: Stand, name: str) -> None:
    script = "response_body upper_response|request_body upper_request"
    script += "|request_trailers request_trailer x-more 1|response_trailers response_trailer x-more 2"
    answer = ask(mixed, name, script)
    seen = mixed.seen(answer.tag)[0]
    assert seen.body == b"X"
    assert answer.body == b"ONETWO"
    assert ("x-more", "1") in [(n.lower(), v) for n, v in seen.trailers]
    assert ("x-more", "2") in [(n.lower(), v) for n, v in answer.trailers]


def test_the_head_waits_while_the_body_is_looked_at(mixed: Stand) -> None:
    answer = mixed.ask(
        "/echo", method="POST", body=[b"one", b"two"], n="request_headers pause_headers|request_body upper_request"
    )
    assert answer.body == b"ONETWO"


def test_the_path_is_changed_before_remapping(mixed: Stand) -> None:
    answer = mixed.ask("/a", n="request_headers path /bytes/7")
    assert answer.body == b"x" * 7


def test_attributes_have_the_types_of_python(mixed: Stand) -> None:
    answer = mixed.ask("/", n="response_headers attribute upstream.port|response_headers attribute connection.mtls")
    lines = closed(mixed, answer.tag)
    assert f"attribute upstream.port {mixed.origin.port}" in lines
    assert "attribute connection.mtls False" in lines


@pytest.mark.parametrize("event", ["create", *EVENTS, "hook"])
def test_an_exception_fails_the_stream_or_is_passed_over(mixed: Stand, event: str) -> None:
    answer = ask(mixed, "f", f"{event} trap")
    assert (answer.status, answer.body, answer.complete) == (200, b"onetwo", True)
    answer = ask(mixed, "n", f"{event} trap")
    if event in ("response_body", "response_trailers"):
        assert not answer.complete or answer.status == 500
    else:
        assert answer.status == 500
        assert answer.complete
    mixed.wait_log("RuntimeError: trapped")


def test_an_exception_at_the_end_spoils_nothing(mixed: Stand) -> None:
    assert mixed.ask("/", n="closed trap").body == b"hello\n"
    assert mixed.ask("/").body == b"hello\n"


def test_a_filter_that_refuses_its_configuration_or_is_not_there_is_told(serve: Serve) -> None:
    with pytest.raises(StartFailed, match="refused as it was told"), serve([native("refuse")]):
        pass
    with (
        pytest.raises(StartFailed, match=r"no native filter 'nobody'.*installed: .*told"),
        serve([{"native": "nobody"}]),
    ):
        pass


def test_a_connect_has_its_hooks_and_no_bodies(serve: Serve, stand: Stand) -> None:
    port = free_port()
    access = {"connect_ports": [stand.origin.port], "allow_destinations": ["127.0.0.1"]}
    listeners = [{"endpoint": f"tcp:{port}:interface=127.0.0.1", "mode": "forward", "access": access}]
    with serve([native("n")], pacer="n", listeners=listeners, port=port) as forward:
        with socket.create_connection(("127.0.0.1", port), 10) as sock:
            authority = f"127.0.0.1:{stand.origin.port}".encode()
            sock.sendall(
                b"CONNECT %b HTTP/1.1\r\nHost: %b\r\nx-tag: tunnel\r\nx-n: nothing\r\n\r\n" % (authority, authority)
            )
            assert sock.recv(4096).startswith(b"HTTP/1.1 200 ")
            sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert read_answer(sock).body == b"hello\n"
        lines = closed(forward, "tunnel")
        assert hooks(lines) == [hook for hook in HOOKS if hook != "READ_RESPONSE_HDR"]
        assert [line.split()[0] for line in lines if "body" in line] == []
