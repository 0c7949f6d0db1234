"""No field of a request or a response, whatever is in its 60 KB, makes one request cost many times an ordinary one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.e2e_cache.support import ok
from tests.e2e_cost.fields import REQUEST_FIELDS, RESPONSE_FIELDS
from tests.e2e_cost.shapes import SHAPES, lines
from tests.e2e_cost.support import Bench, Cost, too_dear

VARIANTS = 64
LINES = 150
NEVER_VARIED = (
    *("Connection", "Content-Length", "Expect", "Host", "Keep-Alive", "Proxy-Connection", "TE", "Trailer"),
    *("Transfer-Encoding", "Upgrade", "Vary"),
)
"""Fields that have no variants here: they are refused, or are not there any more when the cache looks."""

Ask = Callable[[bytes, int], float]
"""Measures a request with a field line (or several), the nth of its kind."""


def measured(name: str, ask: Ask, usual: str = "X-Other") -> dict[str, str]:
    """Measure every shape of a field, in one line and in many, against an ordinary value of the field `usual`."""
    field = name.encode()

    def one(value: bytes) -> Cost:
        return lambda number: ask(b"%b: %b%d\r\n" % (field, value[:-2], number), number)

    def many(value: bytes) -> Cost:
        return lambda number: ask(lines(field, value[:-2] + b"%d" % number, LINES), number)

    costs = {
        **{shape: one(value) for shape, value in SHAPES.items()},
        **{
            f"{shape}, in {LINES} lines": many(SHAPES[shape])
            for shape in ("members", "weights", "quotes", "one letter")
        },
    }
    return too_dear(lambda number: ask(b"%b: ordinary%d\r\n" % (usual.encode(), number), number), costs)


@pytest.mark.parametrize("name", REQUEST_FIELDS)
def test_a_field_of_a_request_to_what_has_variants(running: Bench, name: str) -> None:
    path = running.fresh_path("/varied/")
    varying = "Accept-Language" if name in NEVER_VARIED else name
    running.answers[path] = ok(b"ok", "Cache-Control: max-age=3600", f"Vary: {varying}")
    for number in range(VARIANTS):
        running.ask(path, f"{varying}: v{number};q=0.{number % 10}, w\r\n".encode())
    assert not measured(name, lambda field, number: running.cost(running.get(path, field)), varying)


@pytest.mark.parametrize("name", REQUEST_FIELDS)
def test_a_field_of_a_request_to_a_hit(running: Bench, name: str) -> None:
    path = running.fresh_path("/hit/")
    running.answers[path] = ok(b"ok" * 100, "Cache-Control: max-age=3600", 'ETag: "x"')
    assert running.ask(path) == 200
    assert not measured(name, lambda field, number: running.cost(running.get(path, field)))


@pytest.mark.parametrize("name", ["Accept-Language", "Cookie", "X-Other"])
def test_a_field_of_a_request_that_is_in_the_key(running: Bench, name: str) -> None:
    path = running.fresh_path("/keyed/")
    assert not measured(name, lambda field, number: running.cost(running.get(f"{path}?b=1&a=2", field)))


@pytest.mark.parametrize("name", REQUEST_FIELDS)
def test_a_field_of_a_request_that_is_passed_on(running: Bench, name: str) -> None:
    path = running.fresh_path("/posted/")
    assert not measured(name, lambda field, number: running.cost(running.get(path, field, "POST")))


@pytest.mark.parametrize("method", ["OPTIONS", "TRACE"])
def test_max_forwards(running: Bench, method: str) -> None:
    assert not measured("Max-Forwards", lambda field, number: running.cost(running.get("/", field, method)))


def answer_with(field: bytes, *, status: str = "200 OK") -> bytes:
    """Return a response with these field lines."""
    name = field.partition(b":")[0].lower()
    usual = [(b"Cache-Control: max-age=3600\r\n", b"cache-control"), (b'ETag: "x"\r\n', b"etag")]
    length = b"" if name in (b"content-length", b"transfer-encoding") else b"Content-Length: 2\r\n"
    head = b"".join(line for line, key in usual if key != name)
    return b"HTTP/1.1 %b\r\n" % status.encode() + head + length + field + b"\r\n" + (b"" if "304" in status else b"ok")


@pytest.mark.parametrize("name", RESPONSE_FIELDS)
def test_a_field_of_a_response(running: Bench, name: str) -> None:
    def ask(field: bytes, number: int) -> float:
        path = running.fresh_path("/answer/")
        running.answers[path] = answer_with(field)
        return running.cost(running.get(path))

    assert not measured(name, ask)


@pytest.mark.parametrize("name", RESPONSE_FIELDS)
def test_a_field_of_a_response_that_is_stored(running: Bench, name: str) -> None:
    def ask(field: bytes, number: int) -> float:
        path = running.fresh_path("/stored/")
        running.answers[path] = answer_with(field)
        running.ask(path)
        return running.cost(
            running.get(path, b'If-None-Match: "y", "z"\r\nRange: bytes=0-0\r\nCache-Control: max-age=99\r\n')
        )

    assert not measured(name, ask)


@pytest.mark.parametrize("name", RESPONSE_FIELDS)
def test_a_field_of_a_response_that_validates(running: Bench, name: str) -> None:
    def ask(field: bytes, number: int) -> float:
        path = running.fresh_path("/validated/")
        running.answers[path] = ok(b"ok", "Cache-Control: no-cache", 'ETag: "x"')
        running.ask(path)
        running.answers[path] = answer_with(field, status="304 Not Modified")
        return running.cost(running.get(path))

    assert not measured(name, ask)
