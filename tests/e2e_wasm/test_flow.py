"""Order of callbacks, pause and resume at every point, several filters in both phases: on live streams."""

from __future__ import annotations

import socket

import pytest

from tests.e2e_wasm.support import Stand, read_answer, until

TRAILERS = [("X-End", "1")]


def of(name: str, lines: list[str]) -> list[str]:
    """Return the lines of one module, without its name."""
    return [line.removeprefix(f"{name} ") for line in lines if line.startswith(f"{name} ")]


def events(lines: list[str], *wanted: str) -> list[str]:
    """Return `NAME EVENT` of the lines of these events, in order."""
    return [" ".join(line.split()[:2]) for line in lines if line.split()[1] in wanted]


def test_a_get_is_shown_in_the_order_of_the_specification(stand: Stand) -> None:
    answer = stand.ask("/", a="request_headers say hi")
    assert (answer.status, answer.body) == (200, b"hello\n")
    assert of("a", stand.told(answer.tag, "a")) == [
        "create 1",
        "request_headers 6 1",
        "hi",
        "response_headers 6 0",
        "response_body 6 0",
        "response_body 0 1",
        "done",
        "log",
        "delete",
    ]


def test_a_post_in_chunks_has_its_end_with_the_last_body_callback(stand: Stand) -> None:
    answer = stand.ask("/echo", method="POST", body=[b"one", b"two"])
    assert answer.body == b"onetwo"
    lines = of("a", stand.told(answer.tag, "a"))
    assert [line for line in lines if line.startswith("request")] == [
        "request_headers 5 0",
        "request_body 3 0",
        "request_body 3 0",
        "request_body 0 1",
    ]


def test_a_body_before_trailers_has_no_end(stand: Stand) -> None:
    answer = stand.ask("/trailers/x", method="POST", body=[b"one"], trailers=TRAILERS)
    lines = of("a", stand.told(answer.tag, "a", "o"))
    assert [line for line in lines if line.startswith("re")] == [
        "request_headers 5 0",
        "request_body 3 0",
        "request_trailers 1",
        "response_headers 5 0",
        "response_body 1 0",
        "response_trailers 1",
    ]
    assert answer.trailers == [("X-Trailer", "from-origin")]
    assert stand.seen(answer.tag)[0].trailers == TRAILERS


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_without_content_ends_with_its_head(stand: Stand, status: int) -> None:
    answer = stand.ask(f"/status/{status}")
    assert answer.status == status
    assert answer.complete
    lines = of("a", stand.told(answer.tag, "a"))
    assert [line.split()[::2] for line in lines if line.startswith("response")] == [["response_headers", "1"]]


def test_an_answer_to_head_ends_with_its_head(stand: Stand) -> None:
    answer = stand.ask("/bytes/100", method="HEAD")
    assert answer.header("content-length") == "100"
    lines = of("a", stand.told(answer.tag, "a"))
    assert [line.split()[::2] for line in lines if line.startswith("response")] == [["response_headers", "1"]]


def test_requests_go_in_order_and_responses_in_reverse(stand: Stand) -> None:
    answer = stand.ask("/echo", method="POST", body=b"x", a="request_headers add 0 x-p a|response_headers add 2 x-q a",
        b="request_headers add 0 x-p b|response_headers add 2 x-q b",
        o="request_headers add 0 x-p o|response_headers add 2 x-q o")  # fmt: skip
    assert stand.seen(answer.tag)[0].all("x-p") == ["a", "b", "o"]
    assert answer.all("x-q") == ["o", "b", "a"]
    lines = stand.told(answer.tag, "a", "b", "o")
    assert events(lines, "request_headers", "response_headers") == [
        "a request_headers", "b request_headers", "o request_headers",
        "o response_headers", "b response_headers", "a response_headers",
    ]  # fmt: skip


# Pause and resume


@pytest.mark.parametrize("name", ["a", "b", "o"])
def test_a_request_held_at_its_head_goes_on_from_a_timer(stand: Stand, name: str) -> None:
    answer = stand.ask("/", **{name: "request_headers pause; period 20|tick#3 resume 0; say resumed"})
    assert answer.status == 200
    assert "resumed" in of(name, stand.told(answer.tag, name))


def test_no_body_is_shown_while_the_head_is_held(stand: Stand) -> None:
    answer = stand.ask(
        "/echo", method="POST", body=[b"one", b"two"], paced=False, a="request_headers pause|tick#10 say tick; resume 0"
    )
    assert answer.body == b"onetwo"
    lines = of("a", stand.told(answer.tag, "a"))
    request = [line for line in lines if line.startswith("request") or line == "tick"]
    assert request == ["request_headers 6 0", "tick", "request_body 6 1"]


def test_a_held_body_grows_and_goes_as_one(stand: Stand) -> None:
    answer = stand.ask(
        "/echo",
        method="POST",
        body=[b"one", b"two", b"three"],
        a="request_body pause|request_body#4 read 0 3 100; ret 0",
        b="request_body say b",
    )
    assert answer.body == b"onetwothree"
    lines = stand.told(answer.tag, "a", "b")
    assert [line for line in of("a", lines) if line.startswith(("request_body", "read"))] == [
        "request_body 3 0",
        "request_body 6 0",
        "request_body 11 0",
        "request_body 11 1",
        "read 0 8 twothree",
    ]
    assert "request_body 11 1" in of("b", lines)


def test_a_body_held_at_its_end_goes_on_without_another_callback(stand: Stand) -> None:
    answer = stand.ask("/echo", method="POST", body=[b"one", b"two"], a="request_body pause|tick#8 resume 0")
    assert answer.body == b"onetwo"
    lines = of("a", stand.told(answer.tag, "a"))
    assert [line for line in lines if "request_body" in line][-1] == "request_body 6 1"


def test_a_body_passed_on_empties_the_buffer(stand: Stand) -> None:
    answer = stand.ask("/echo", method="POST", body=[b"one", b"two"], a="request_body read 0 0 100")
    lines = of("a", stand.told(answer.tag, "a"))
    assert [line for line in lines if line.startswith("read")] == ["read 0 3 one", "read 0 3 two", "read 0 0 "]
    assert answer.body == b"onetwo"


@pytest.mark.parametrize("name", ["a", "o"])
@pytest.mark.parametrize("event", ["response_headers", "response_body", "response_trailers"])
def test_a_response_held_anywhere_goes_on_from_a_timer(stand: Stand, name: str, event: str) -> None:
    script = f"create period 20|{event} pause|tick#8 resume 1; say resumed"
    path = "/chunks/one/two" if event == "response_body" else "/trailers/one/two"
    answer = stand.ask(path, **{name: script})
    assert answer.status == 200
    assert answer.body == b"onetwo"
    assert bool(answer.trailers) == path.startswith("/trailers")
    assert answer.complete
    assert "resumed" in of(name, stand.told(answer.tag, name))


@pytest.mark.parametrize("name", ["a", "o"])
def test_request_trailers_held_go_on_from_a_timer(stand: Stand, name: str) -> None:
    script = "create period 20|request_trailers pause; add 1 x-more 2|tick#8 resume 0"
    answer = stand.ask("/echo", method="POST", body=[b"one"], trailers=TRAILERS, **{name: script})
    assert answer.body == b"one"
    assert [(n.lower(), v) for n, v in stand.seen(answer.tag)[0].trailers] == [("x-end", "1"), ("x-more", "2")]


@pytest.mark.parametrize("event", ["request_headers", "request_body", "request_trailers"])
def test_a_resume_inside_the_callback_wins_over_its_pause(stand: Stand, event: str) -> None:
    answer = stand.ask("/echo", method="POST", body=[b"one"], trailers=TRAILERS, b=f"{event} resume 0; pause")
    assert answer.body == b"one"


@pytest.mark.parametrize("event", ["response_headers", "response_body", "response_trailers"])
def test_a_resume_inside_a_response_callback_wins_over_its_pause(stand: Stand, event: str) -> None:
    answer = stand.ask("/trailers/one", b=f"{event} resume 1; pause")
    assert (answer.body, answer.complete) == (b"one", True)


def test_a_resume_of_what_is_not_held_is_nothing(stand: Stand) -> None:
    answer = stand.ask("/", a="request_headers resume 1; resume 0|response_headers resume 0; resume 1; resume 4")
    assert answer.status == 200
    lines = of("a", stand.told(answer.tag, "a"))
    assert [line for line in lines if line.startswith("resume")] == ["resume 0"] * 4 + ["resume 2"]


@pytest.mark.parametrize("value", [1, 3, 4])
def test_what_plugins_in_c_return_to_stop_holds_the_head(stand: Stand, value: int) -> None:
    answer = stand.ask("/", a=f"request_headers ret {value}|tick#2 say resumed; resume 0")
    assert answer.status == 200
    assert "resumed" in of("a", stand.told(answer.tag, "a"))


def test_continue_and_end_stream_continues(stand: Stand) -> None:
    assert stand.ask("/", a="request_headers ret 2").status == 200


def test_stop_without_buffer_drops_the_bytes_that_were_shown(stand: Stand) -> None:
    answer = stand.ask("/chunks/one/two/three", b="response_body#1 ret 3|response_body#2 ret 3")
    assert (answer.body, answer.complete) == (b"three", True)


@pytest.mark.parametrize("event", ["request_headers", "request_body", "response_headers", "response_body"])
def test_a_stream_closed_by_a_filter_breaks_the_connection(stand: Stand, event: str) -> None:
    answer = stand.ask("/chunks/one/two", method="POST", body=[b"x"], a=f"{event} close 0")
    assert not answer.complete
    assert of("a", stand.told(answer.tag, "a"))[-3:] == ["done", "log", "delete"]


@pytest.mark.parametrize("name", ["a", "b", "o"])
@pytest.mark.parametrize("event", ["request_headers", "request_body", "response_headers", "response_body"])
def test_a_client_that_goes_while_its_stream_is_held_ends_it(stand: Stand, name: str, event: str) -> None:
    sock, tag = stand.send("/chunks/one/two", method="POST", body=[b"x"], **{name: f"{event} pause"})
    until(lambda: any(line.startswith(f"{name} {event} ") for line in stand.lines(tag)))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    sock.close()
    lines = stand.told(tag, *("a", "b", "o") if name == "o" or event.startswith("response") else ("a", "b"))
    for each in {line.split()[0] for line in lines}:
        assert of(each, lines)[-3:] == ["done", "log", "delete"]


def test_trailers_made_by_a_filter_reach_both_ends(stand: Stand) -> None:
    answer = stand.ask(
        "/chunks/one", method="POST", body=[b"x"], a="request_body#2 add 1 x-made 1|response_body#2 add 3 x-made 2"
    )
    assert [(n.lower(), v) for n, v in stand.seen(answer.tag)[0].trailers] == [("x-made", "1")]
    assert [(n.lower(), v) for n, v in answer.trailers] == [("x-made", "2")]
    assert answer.body == b"one"


def test_trailers_made_by_the_origin_phase_reach_both_ends_and_are_shown(stand: Stand) -> None:
    answer = stand.ask(
        "/chunks/one", method="POST", body=[b"x"], o="request_body#2 add 1 x-made 1|response_body#2 add 3 x-made 2"
    )
    assert [(n.lower(), v) for n, v in stand.seen(answer.tag)[0].trailers] == [("x-made", "1")]
    assert [(n.lower(), v) for n, v in answer.trailers] == [("x-made", "2")]
    assert "response_trailers 1" in of("a", stand.told(answer.tag, "a"))


def test_streams_on_one_connection_do_not_mix(stand: Stand) -> None:
    sock, first = stand.send("/", a="request_headers pause|tick#10 resume 0; set 0 x-first 1")
    with sock:
        sock.sendall(b"GET /echo HTTP/1.1\r\nHost: b\r\nX-Tag: mix2\r\n\r\n")
        assert read_answer(sock).body == b"hello\n"
    assert stand.seen(first)
