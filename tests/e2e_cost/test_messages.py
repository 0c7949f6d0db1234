"""Request targets, chunked content, and heads under the default limits: none costs many times what others do."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e_cache.support import Conversation, ok
from tests.e2e_cost.shapes import SHAPES, SIZE
from tests.e2e_cost.support import Bench, bench, too_dear

MIB = 1 << 20

TARGETS: dict[str, bytes] = {
    "letters": b"a",
    "slashes": b"/",
    "segments": b"a/",
    "dot segments": b"../",
    "dots": b".",
    "percent-encodings": b"%41",
    "encoded slashes": b"%2f",
    "percent signs": b"%",
    "question marks": b"?",
    "ampersands": b"&",
    "equals signs": b"=",
    "semicolons": b";",
    "parameters": b"a=1&",
    "tracking parameters": b"utm_a=1&",
    "parameters without value": b"a&",
    "octets beyond ASCII": b"\xc3\xa9",
    "quotes": b'"',
    "backslashes": b"\\",
    "at signs": b"@",
    "colons": b":",
    "dollars": b"$1",
    "stars": b"*",
    "number signs": b"#",
}
DISTINCT = b"&".join(b"p%d=%d" % (n * 7919 % 9973, n) for n in range(SIZE // 12))

STARTS: dict[str, bytes] = {
    "a path": b"/plain/",
    "a query": b"/plain?",
    "a query in the key": b"/keyed/x?",
    "a path that is redirected": b"/moved/",
    "a query that is redirected": b"/moved/x?",
    "a URL": b"http://proxy.test/",
    "an authority": b"http://",
    "a port": b"http://proxy.test:",
    "what is no target": b"",
}


@pytest.mark.parametrize("start", STARTS)
def test_a_target_of_60_kilobytes(running: Bench, start: str) -> None:
    begin = STARTS[start]

    def cost(rest: bytes) -> float:
        return running.cost(b"GET " + begin + rest + b" HTTP/1.1\r\nHost: proxy.test\r\n\r\n")

    costs = {
        name: (lambda number, unit=unit: cost((unit * (SIZE // len(unit)))[: -3 - len(unit)] + b"%d" % number))
        for name, unit in {**TARGETS, "distinct parameters": DISTINCT}.items()
    }
    assert not too_dear(lambda number: cost(b"ordinary%d" % number), costs)


def test_a_method_of_60_kilobytes(running: Bench) -> None:
    costs = {
        name: (lambda number, unit=unit: running.cost(running.get("/", method=(unit * SIZE)[:SIZE].decode())))
        for name, unit in {"letters": b"A", "signs": b"!#", "quotes": b'"'}.items()
    }
    assert not too_dear(lambda number: running.cost(running.get("/", method="GET")), costs)


def chunks(content: bytes, size: int, extension: bytes = b"") -> bytes:
    """Return about a quarter of a mebibyte on the wire of chunks of `size` bytes."""
    chunk = b"%x%b\r\n%b\r\n" % (size, extension, (content * size)[:size])
    return chunk * (MIB // 4 // len(chunk))


BODIES: dict[str, bytes] = {
    "line ends": chunks(b"\r\n", 65536),
    "line feeds": chunks(b"\n", 65536),
    "what looks like the end": chunks(b"0\r\n\r\n", 65536),
    "what looks like chunks": chunks(b"1\r\na\r\n", 65536),
    "chunks of one byte": chunks(b"a", 1),
    "chunks of two line ends": chunks(b"\r\n\r\n", 4),
    "chunks of 15 bytes": chunks(b"\r\n", 15),
    "chunks of 16 bytes": chunks(b"\r\n", 16),
    "chunks of 255 bytes": chunks(b"\r\n", 255),
    "chunks of 256 bytes": chunks(b"\r\n", 256),
    "extensions": chunks(b"a", 1, b";a"),
    "long extensions": chunks(b"a", 64, b";a=" + b'"b"' * 100),
    "zeros": chunks(b"a", 16, b"").replace(b"10\r\n", b"0000010\r\n"),
}
ORDINARY_BODY = chunks(b"ordinary", 65536)
LAST = b"0\r\n\r\n"


def test_chunked_content_of_a_request(running: Bench) -> None:
    def cost(body: bytes) -> float:
        head = running.get("/body", b"Transfer-Encoding: chunked\r\n", "POST")
        return running.cost(head + body)

    costs = {name: (lambda number, body=body: cost(body + LAST)) for name, body in BODIES.items()}
    for name, trailers in {
        "many trailers": b"a: b\r\n" * 10_000,
        "trailers that are dropped": b"host: b\r\n" * 6_000,
        "a long trailer": b"a: " + b"a," * 30_000 + b"\r\n",
    }.items():
        costs[name] = lambda number, trailers=trailers: cost(ORDINARY_BODY + b"0\r\n" + trailers + b"\r\n")
    assert not too_dear(lambda number: cost(ORDINARY_BODY + LAST), costs)


def test_chunked_content_of_a_response(running: Bench) -> None:
    def cost(body: bytes) -> float:
        path = running.fresh_path("/chunked/")
        running.answers[path] = (
            b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n" + body
        )
        return running.cost(running.get(path))

    costs = {name: (lambda number, body=body: cost(body + LAST)) for name, body in BODIES.items()}
    assert not too_dear(lambda number: cost(ORDINARY_BODY + LAST), costs)


def test_a_head_in_many_small_pieces(running: Bench) -> None:
    """What is more than an ordinary request here are the reads, which nobody can make cheaper."""
    value = b"X-Other: " + b"a," * (SIZE // 2) + b"\r\n"

    def dribble(head: bytes, size: int) -> float:
        def client(conversation: Conversation) -> None:
            for at in range(0, len(head), size):
                conversation.sock.sendall(head[at : at + size])
            conversation.reply()

        return running.cost(b"", client)

    ordinary = running.get("/hit", b"X-Other: ordinary\r\n")
    awkward = running.get("/hit", value)
    # As many bytes a piece: 600 pieces against 10.
    costs = {"pieces of 100 bytes": lambda number: dribble(awkward, 100)}
    assert not too_dear(lambda number: dribble(ordinary, 10), costs)


def test_the_default_limits_let_no_more_in(tmp_path: Path) -> None:
    with bench(tmp_path, header_bytes="64KiB", request_line="16KiB") as running:
        running.answers["/"] = ok(b"ok", "Cache-Control: max-age=60", "Vary: Accept-Language, Cookie")
        for name in ("Accept-Language", "Cache-Control"):
            field = name.encode()
            costs = {
                shape: (
                    lambda number, value=value, field=field: running.cost(
                        running.get("/", b"%b: %b%d\r\n" % (field, value, number))
                    )
                )
                for shape, value in SHAPES.items()
            }
            found = too_dear(
                lambda number, field=field: running.cost(running.get("/", b"%b: ordinary%d\r\n" % (field, number))),
                costs,
            )
            assert not found, name
        path = {"letters": lambda number: running.cost(running.get("/" + "a" * SIZE))}
        assert not too_dear(lambda number: running.cost(running.get("/ordinary")), path)
