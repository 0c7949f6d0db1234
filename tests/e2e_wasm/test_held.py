"""A stream that a filter holds ends all the same: when nobody lets it go, when its client has gone, at a limit."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest

from tests.e2e_wasm.support import Stand, module, read_answer, serving, until


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory, code_cache) -> Iterator[Stand]:
    """Modules `a` (client phase) and `o` (origin phase), and little patience."""
    wasm = [module("a"), module("o", phase="origin")]
    folder = tmp_path_factory.mktemp("hasty")
    with serving(folder, code_cache, wasm, limits={"buffer": "64KiB"}, timeouts={"idle": "1s"}) as running:
        yield running


@pytest.mark.parametrize("name", ["a", "o"])
@pytest.mark.parametrize("event", ["request_headers", "request_body", "response_headers"])
def test_a_stream_held_for_too_long_is_answered_504(hasty: Stand, name: str, event: str) -> None:
    answer = hasty.ask("/bytes/5", method="POST", body=b"x", **{name: f"{event} pause"})
    assert answer.status == 504
    assert b"filter has held" in answer.body
    lines = hasty.told(answer.tag, name)
    assert [line.removeprefix(f"{name} ") for line in lines if line.startswith(name)][-3:] == ["done", "log", "delete"]
    hasty.wait_log(f"filter {name} has held a stream")


@pytest.mark.parametrize("name", ["a", "o"])
def test_a_response_held_in_its_body_for_too_long_is_broken_off(hasty: Stand, name: str) -> None:
    answer = hasty.ask("/chunks/one/two", **{name: "response_body#2 pause|response_body#3 pause"})
    assert (answer.status, answer.body, answer.complete) == (200, b"one", False)
    assert f"{name} delete" in hasty.told(answer.tag, name)


def test_a_held_local_response_is_given_up_too(hasty: Stand) -> None:
    answer = hasty.ask("/", o="request_headers reply 403 no", a="response_headers pause")
    assert answer.status == 0
    hasty.told(answer.tag, "a", "o")


def test_a_stream_that_moves_is_not_given_up(hasty: Stand) -> None:
    script = "create period 300|request_headers pause|tick#2 resume 0|response_headers pause|tick#4 resume 1"
    answer = hasty.ask("/", a=script)
    assert (answer.status, answer.body) == (200, b"hello\n")


@pytest.mark.parametrize("name", ["a", "o"])
def test_a_request_that_a_filter_holds_beyond_its_buffer_is_answered_413(hasty: Stand, name: str) -> None:
    answer = hasty.ask("/echo", method="POST", body=b"x" * 70_000, **{name: "request_body pause"})
    assert answer.status == 413
    assert answer.body.startswith(b"413 ")
    hasty.told(answer.tag, name)
    hasty.wait_log(f"filter {name} holds more of a body than 65536 bytes")


@pytest.mark.parametrize("name", ["a", "o"])
def test_a_response_that_a_filter_holds_beyond_its_buffer_is_answered_502(hasty: Stand, name: str) -> None:
    answer = hasty.ask("/bytes/70000", **{name: "response_body pause"})
    assert answer.status == 502
    assert answer.body.startswith(b"502 ")
    hasty.told(answer.tag, name)


def test_a_body_of_any_size_waits_behind_a_held_head(hasty: Stand) -> None:
    body = b"x" * 3_000_000
    answer = hasty.ask("/echo", method="POST", body=body, a="request_headers pause; period 100|tick#3 resume 0")
    assert answer.status == 200
    assert answer.body == body


@pytest.mark.parametrize("event", ["request_headers", "response_headers"])
def test_a_client_that_closes_while_its_stream_is_held_ends_it(stand: Stand, event: str) -> None:
    sock, tag = stand.send(f"/gone-{event}", a=f"{event} pause")
    stand.wait_line(tag, "a create 1")
    sock.close()
    assert [line for line in stand.told(tag, "a") if line.startswith("a ")][-3:] == ["a done", "a log", "a delete"]
    entry = until(lambda: [json.loads(line) for line in _access_log(stand) if f"gone-{event}" in line])[0]
    assert "ERR_CLIENT_ABORT" in entry.values()


def test_a_client_that_only_shuts_down_its_side_gets_its_answer(stand: Stand) -> None:
    sock, tag = stand.send("/", a="request_headers pause|tick#100 resume 0")
    with sock:
        sock.shutdown(socket.SHUT_WR)
        assert read_answer(sock).body == b"hello\n"
    stand.told(tag, "a")


def _access_log(stand: Stand) -> list[str]:
    return (stand.proxy.config.parent / "access.log").read_text().splitlines()
