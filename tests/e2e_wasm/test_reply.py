"""Local responses from every phase, in time and too late."""

from __future__ import annotations

import json
import socket

import pytest

from tests.e2e_wasm.support import Stand, read_answers, until

NAMES = ["a", "b", "o"]


def names_of(lines: list[str], event: str) -> list[str]:
    return [line.split()[0] for line in lines if line.split()[1] == event]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("event", ["request_headers", "request_body", "request_trailers", "tick"])
def test_a_request_is_answered_from_here(stand: Stand, name: str, event: str) -> None:
    script = f"{event} reply 403 denied x-why because"
    if event == "tick":
        script = "request_headers pause; period 20|tick#2 reply 403 denied x-why because"
    answer = stand.ask("/", method="POST", body=[b"x"], trailers=[("x", "y")], **{name: script})
    assert (answer.status, answer.body, answer.complete) == (403, b"denied", True)
    assert answer.header("x-why") == "because"
    assert answer.header("content-type") == "text/plain"
    assert answer.header("content-length") == "6"
    lines = stand.told(answer.tag, name)
    if event in ("request_headers", "tick"):
        assert not stand.seen(answer.tag)
    # The filters of the client phase see what the proxy says itself, the one that said it too.
    assert names_of(lines, "response_headers") == ["b", "a"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("event", ["create", "request_headers", "response_headers"])
def test_a_denial_with_a_bad_header_denies(stand: Stand, name: str, event: str) -> None:
    answer = stand.ask("/", **{name: f"{event} reply 403 denied x:y because"})
    assert (answer.status, answer.body, answer.complete) == (403, b"denied", True)
    lines = stand.told(answer.tag, name)
    assert f"{name} reply 0" in lines
    if event != "response_headers":
        assert not stand.seen(answer.tag)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("held", [False, True])
def test_a_response_is_replaced_at_its_head(stand: Stand, name: str, held: bool) -> None:
    script = "response_headers reply 451 gone"
    if held:
        script = "create period 20|response_headers pause|tick#8 reply 451 gone"
    answer = stand.ask("/bytes/100", **{name: script})
    assert (answer.status, answer.body, answer.complete) == (451, b"gone", True)
    lines = stand.told(answer.tag, name)
    assert names_of(lines, "response_headers").count(name) <= 2


def test_a_response_head_that_waits_for_its_length_can_be_replaced_from_its_body(stand: Stand) -> None:
    answer = stand.ask("/bytes/100", a="response_body reply 500 no")
    assert not answer.complete or answer.status == 500


@pytest.mark.parametrize("name", NAMES)
def test_after_the_response_head_there_is_no_answer_but_a_break(stand: Stand, name: str) -> None:
    answer = stand.ask("/chunks/one/two", **{name: "response_body#2 reply 403 late"})
    assert (answer.status, answer.body, answer.complete) == (200, b"one", False)
    stand.told(answer.tag, name)


def test_the_first_of_two_answers_counts(stand: Stand) -> None:
    answer = stand.ask("/", a="request_headers reply 403 first; reply 404 second")
    assert (answer.status, answer.body) == (403, b"first")


@pytest.mark.parametrize("name", NAMES)
def test_a_filter_that_is_shown_a_local_answer_may_give_another(stand: Stand, name: str) -> None:
    scripts = {"a": "response_headers reply 401 page"}
    scripts[name] = (scripts.get(name, "") + "|request_headers reply 403 denied").strip("|")
    answer = stand.ask("/", **scripts)
    assert (answer.status, answer.body, answer.complete) == (401, b"page", True)
    stand.told(answer.tag, "a")


def test_a_local_answer_is_replaced_later_from_a_timer(stand: Stand) -> None:
    script = "request_headers reply 403 denied|response_headers pause; period 20|tick#8 reply 401 page"
    answer = stand.ask("/", a=script)
    assert (answer.status, answer.body) == (401, b"page")


def test_an_answer_of_the_proxy_itself_may_be_replaced(stand: Stand) -> None:
    answer = stand.ask("http://[", a="response_headers reply 401 page")
    assert answer.status == 400
    answer = stand.ask(
        "/", method="POST", headers=[("Expect", "wonders")], body=b"", a="response_headers reply 401 page"
    )
    assert (answer.status, answer.body) == (401, b"page")


def test_the_connection_goes_on_after_an_answer_to_a_request_that_waits(stand: Stand) -> None:
    with socket.create_connection(("127.0.0.1", stand.proxy.port), 10) as sock:
        script = b"request_headers pause; period 20|tick#8 reply 403 denied"
        head = b"POST / HTTP/1.1\r\nHost: a\r\nx-a: %b\r\nContent-Length: 200000\r\n\r\n" % script
        sock.sendall(head + b"x" * 200_000 + b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        first, second = read_answers(sock, 2)
    assert (first.status, second.status) == (403, 200)


@pytest.mark.parametrize("event", ["log", "done", "delete"])
def test_an_answer_at_the_end_is_nothing(stand: Stand, event: str) -> None:
    answer = stand.ask("/", a=f"{event} reply 500 late; resume 0; close 0")
    assert (answer.status, answer.body) == (200, b"hello\n")
    assert "a reply 0" in stand.told(answer.tag, "a")
    assert stand.ask("/").status == 200


@pytest.mark.parametrize("status", [0, 99, 101, 600, 70000])
def test_a_status_that_is_none_becomes_500(stand: Stand, status: int) -> None:
    assert stand.ask("/", a=f"request_headers reply {status} x").status == 500


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_that_has_no_content_has_none(stand: Stand, status: int) -> None:
    answer = stand.ask("/", a=f"request_headers reply {status} text")
    assert (answer.status, answer.body, answer.header("content-length")) == (status, b"", None)


def test_an_answer_to_head_has_no_content(stand: Stand) -> None:
    answer = stand.ask("/", method="HEAD", a="request_headers reply 403 denied")
    assert (answer.status, answer.body, answer.complete) == (403, b"", True)


def test_framing_fields_of_an_answer_are_not_taken(stand: Stand) -> None:
    answer = stand.ask("/", a="request_headers reply 403 denied content-length 3")
    assert (answer.header("content-length"), answer.body) == ("6", b"denied")
    answer = stand.ask("/", a="request_headers reply 403 denied transfer-encoding chunked")
    assert (answer.header("content-length"), answer.body) == ("6", b"denied")


def test_an_answer_can_be_changed_and_its_body_too(stand: Stand) -> None:
    answer = stand.ask(
        "/", a="response_headers set 2 :status 418|response_body upper 1", b="request_headers reply 403 denied"
    )
    assert (answer.status, answer.body, answer.header("content-length")) == (418, b"DENIED", "6")


def test_the_connection_goes_on_after_an_answer_before_the_end_of_the_request(stand: Stand) -> None:
    with socket.create_connection(("127.0.0.1", stand.proxy.port), 10) as sock:
        sock.sendall(
            b"POST / HTTP/1.1\r\nHost: a\r\nx-a: request_headers reply 403 denied\r\nContent-Length: 5\r\n\r\n12345"
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
        )
        first, second = read_answers(sock, 2)
    assert (first.status, second.status) == (403, 200)


def test_a_grpc_request_gets_its_answer_in_the_head(stand: Stand) -> None:
    answer = stand.ask(
        "/s/m",
        method="POST",
        headers=[("content-type", "application/grpc")],
        body=b"x",
        a="request_headers reply 403 no",
    )
    assert answer.status == 200
    assert answer.header("grpc-status") == "7"
    assert answer.header("grpc-message") == "no"
    assert answer.body == b""


def test_the_log_tells_why_and_who(stand: Stand) -> None:
    answer = stand.ask("/why-and-who", b="request_headers reply 403 denied")
    stand.told(answer.tag, "b")
    access = stand.proxy.config.parent / "access.log"
    line = until(lambda: [line for line in access.read_text().splitlines() if "why-and-who" in line])[0]
    assert "told" in json.loads(line).values()
    assert "b" in json.loads(line).values()
