"""Bodies: looked at, changed, made longer and shorter, with and without Content-Length, short and long."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.e2e_wasm.support import Answer, Stand, module, read_answers, serving

NAMES = ["a", "o"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("command", "result"),
    [
        ("body %d 0 2147483647 new", b"new"),
        ("body %d 0 0 pre-", b"pre-hello"),
        ("body %d 2147483647 0 -post", b"hello-post"),
        ("body %d 0 2147483647", b""),
        ("body %d 0 2 J", b"Jllo"),
        ("body %d 1 3 --", b"h--o"),
        ("body %d 0 4294967295 all", b"all"),
        ("upper %d", b"HELLO"),
    ],
)
@pytest.mark.parametrize("chunked", [False, True])
def test_a_changed_body_has_the_right_length(
    stand: Stand, name: str, command: str, result: bytes, chunked: bool
) -> None:
    request = [b"he", b"llo"] if chunked else b"hello"
    script = f"request_body pause|request_body#%d {command % 0}; ret 0"
    script = f"{script % (3 if chunked else 2)}"
    answer = stand.ask("/echo", method="POST", body=request, **{name: script})
    assert answer.body == result
    seen = stand.seen(answer.tag)[0]
    assert seen.body == result
    assert seen.chunked or seen.header("content-length") == str(len(result))
    path = "/chunks/he/llo" if chunked else "/echo"
    script = f"response_body pause|response_body#%d {command % 1}; ret 0" % (3 if chunked else 2)
    answer = stand.ask(path, method="POST", body=b"hello", **{name: script})
    assert (answer.body, answer.complete) == (result, True)


@pytest.mark.parametrize("name", NAMES)
def test_chunks_are_changed_as_they_pass(stand: Stand, name: str) -> None:
    answer = stand.ask("/chunks/one/two/three", **{name: "response_body upper 1"})
    assert (answer.body, answer.complete) == (b"ONETWOTHREE", True)
    answer = stand.ask("/echo", method="POST", body=[b"one", b"two"], **{name: "request_body upper 0"})
    assert stand.seen(answer.tag)[0].body == b"ONETWO"


@pytest.mark.parametrize("name", NAMES)
def test_a_body_that_grows_in_passing_loses_its_length(stand: Stand, name: str) -> None:
    answer = stand.ask("/bytes/200000", **{name: "response_body body 1 0 0 +"})
    assert answer.complete
    assert answer.body.count(b"x") == 200_000
    assert answer.body.count(b"+") > 1
    answer = stand.ask("/echo", method="POST", body=b"x" * 200_000, **{name: "request_body body 0 0 0 +"})
    assert answer.complete
    assert stand.seen(answer.tag)[0].body.count(b"x") == 200_000


@pytest.mark.parametrize("name", NAMES)
def test_a_content_length_taken_away_by_the_module_makes_chunks(stand: Stand, name: str) -> None:
    answer = stand.ask(
        "/echo",
        method="POST",
        body=b"hello",
        **{name: "request_headers del 0 content-length|request_body#1 body 0 0 9 longer-body"},
    )
    seen = stand.seen(answer.tag)[0]
    assert seen.body == b"longer-body"
    answer = stand.ask("/bytes/5", **{name: "response_headers del 2 content-length|response_body fill 1 0 9 100000"})
    assert answer.complete
    assert set(answer.body) <= set(b"fx")


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_content_length_set_by_the_module_cannot_split_the_message(stand: Stand, name: str) -> None:
    answer = stand.ask("/bytes/5", **{name: "response_headers set 2 content-length 3"})
    assert not answer.complete or answer.body == b"xxxxx"
    answer = stand.ask("/bytes/5", **{name: "response_headers set 2 content-length 30"})
    assert not answer.complete or answer.body == b"xxxxx"
    answer = stand.ask("/echo", method="POST", body=b"hello", **{name: "request_headers set 0 content-length 3"})
    seen = stand.seen(answer.tag)
    assert answer.status in (200, 400, 500, 502)
    assert not seen or seen[0].body in (b"hello", b"hel")
    assert stand.ask("/").status == 200


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", ["chunked", "gzip"])
def test_transfer_encoding_set_by_the_module_changes_no_framing(stand: Stand, name: str, value: str) -> None:
    answer = stand.ask("/bytes/5", **{name: f"response_headers add 2 transfer-encoding {value}"})
    assert not answer.complete or answer.body == b"xxxxx"
    answer = stand.ask(
        "/echo", method="POST", body=b"hello", **{name: f"request_headers add 0 transfer-encoding {value}"}
    )
    seen = stand.seen(answer.tag)
    assert not seen or seen[0].body == b"hello"
    assert stand.ask("/").status == 200


@pytest.mark.parametrize("name", NAMES)
def test_a_response_to_head_or_without_content_keeps_its_length_under_a_body_filter(stand: Stand, name: str) -> None:
    answer = stand.ask("/bytes/100", method="HEAD", **{name: "response_body fill 1 0 1000 50"})
    assert (answer.header("content-length"), answer.complete) == ("100", True)
    assert stand.ask("/status/304", **{name: "response_body fill 1 0 1000 50"}).status == 304


def test_an_empty_body_may_be_filled(stand: Stand) -> None:
    answer = stand.ask("/bytes/0", a="response_body body 1 0 0 filled")
    assert answer.complete
    assert answer.body in (b"", b"filled")


@pytest.fixture(scope="module")
def roomy(tmp_path_factory: pytest.TempPathFactory, code_cache) -> Iterator[Stand]:
    wasm = [module("a"), module("o", phase="origin")]
    with serving(tmp_path_factory.mktemp("roomy"), code_cache, wasm, limits={"buffer": "16MiB"}) as running:
        yield running


@pytest.mark.parametrize("name", NAMES)
def test_ten_mebibytes_are_held_and_changed(roomy: Stand, name: str) -> None:
    size = 10 * 1024 * 1024
    hold = "response_body pause"
    answer = roomy.ask(f"/bytes/{size}", paced=False, **{name: hold + "|tick resume 1; say resumed|create period 300"})
    assert len(answer.body) == size
    body = b"y" * size
    answer = roomy.ask(
        "/echo", method="POST", body=body, **{name: "request_body pause|create period 300|tick upper 0; resume 0"}
    )
    assert len(answer.body) == size
    seen = roomy.seen(answer.tag)[0]
    assert len(seen.body) == size
    assert seen.body[-1:] == b"Y" or seen.body == body


@pytest.mark.parametrize("name", NAMES)
def test_a_body_is_replaced_by_a_much_larger_one(roomy: Stand, name: str) -> None:
    answer = roomy.ask("/bytes/5", **{name: "response_body#1 fill 1 0 2147483647 5000000"})
    assert answer.complete
    assert answer.body == b"f" * 5_000_000
    answer = roomy.ask("/echo", method="POST", body=b"x", **{name: "request_body#1 fill 0 0 2147483647 5000000"})
    assert roomy.seen(answer.tag)[0].body == b"f" * 5_000_000


@pytest.mark.parametrize("name", NAMES)
def test_an_origin_that_lies_about_its_length_gives_a_broken_message(stand: Stand, name: str) -> None:
    answer = stand.ask("/lie/1000", **{name: "response_body read 1 0 10"})
    assert not answer.complete or answer.status == 502
    answer = stand.ask("/lie/1000", **{name: "response_body upper 1"})
    assert not answer.complete or answer.status == 502
    answer = stand.ask("/lie/1000", **{name: "response_body pause"})
    assert not answer.complete or answer.status == 502


def ask_twice(stand: Stand, first: str, method: str, script: str) -> list[Answer]:
    """Send two requests on one connection: what the first answer is must not spill into the second."""
    with socket.create_connection(("127.0.0.1", stand.proxy.port), 10) as sock:
        head = f"{method} {first} HTTP/1.1\r\nHost: a\r\nx-a: {script}\r\n\r\n"
        sock.sendall(f"{head}GET /bytes/3 HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        return read_answers(sock, 2, method)


def test_the_method_that_the_client_sent_frames_its_answer(stand: Stand) -> None:
    head, get = ask_twice(stand, "/bytes/5", "HEAD", "request_headers set 0 :method GET")
    assert (head.status, head.header("content-length"), get.body) == (200, "5", b"xxx")
    empty, get = ask_twice(stand, "/bytes/5", "GET", "request_headers set 0 :method HEAD")
    assert (empty.status, empty.header("content-length"), get.body) == (200, "0", b"xxx")


@pytest.mark.parametrize("status", [204, 304])
def test_a_status_given_or_taken_by_a_filter_frames_its_answer(stand: Stand, status: int) -> None:
    empty, get = ask_twice(stand, "/bytes/5", "GET", f"response_headers set 2 :status {status}")
    assert (empty.status, get.body) == (status, b"xxx")
    empty, get = ask_twice(stand, f"/status/{status}", "GET", "response_headers set 2 :status 200")
    assert (empty.status, empty.body, get.body) == (200, b"", b"xxx")


def test_a_filter_cannot_make_an_upgrade_of_an_answer(stand: Stand) -> None:
    answer, get = ask_twice(stand, "/bytes/5", "GET", "response_headers set 2 :status 101")
    assert (answer.status, get.body) == (500, b"xxx")
