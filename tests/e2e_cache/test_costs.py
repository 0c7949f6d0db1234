"""No field costs more than its length is worth: what one request takes with 60 KB of it, beside an ordinary request."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e_cache.support import FRESH, Site, Stand, ok, serving

SIZE = 60_000
MOST = 20
"""Times the CPU of an ordinary request."""


def repeated(piece: str) -> str:
    return (piece * (SIZE // len(piece)))[:SIZE]


SHAPES = {
    "members": repeated("a,"),
    "different members": ",".join(f"a{i}" for i in range(SIZE // 7)),
    "weights": repeated("a;q=0.5,"),
    "parameters": "a" + repeated(";a"),
    "commas": repeated(","),
    "blank members": repeated(" ,"),
    "arguments": repeated("a=1,"),
    "quotes": repeated('"",'),
    "one quoted-string": 'a="' + repeated("x") + '"',
    "escapes": 'a="' + repeated('\\"') + '"',
    "an open quote": 'a="' + repeated("x"),
    "words": repeated("a "),
    "an inner list": "a=(" + repeated("a ") + ")",
    "tags": repeated('"a", '),
    "digits": repeated("9"),
    "zeros": repeated("0"),
    "ranges": "bytes=" + repeated("0-0,"),
    "slashes": repeated("/.."),
    "pairs": repeated("a=b; "),
    "blanks": "a" + repeated(" ") + "a",
    "stars": repeated("*"),
}

ASKED = (
    *("Accept", "Accept-Language", "Accept-Encoding", "Foo", "Cache-Control", "Pragma", "Range", "If-Range"),
    *("If-None-Match", "If-Modified-Since", "Cookie", "Authorization"),
)
ANSWERED = (
    *("Vary", "Cache-Control", "CDN-Cache-Control", "ETag", "Last-Modified", "Expires", "Date", "Age", "Pragma"),
    *("Surrogate-Key", "Content-Range", "Content-Location", "Location", "Set-Cookie", "Warning", "Cache-Status"),
    *("Content-Type", "Content-Encoding"),
)


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    rules = {"key": {"cookies": ["sid"], "query_without": ["utm_*"]}, "set_cookie": "store"}
    limits = {"request_line": "64KiB", "header_bytes": "128KiB"}
    with serving(tmp_path_factory.mktemp("costs"), {"memory": "64MiB", **rules}, limits=limits) as running:
        yield running


def used(stand: Stand) -> int:
    """Return the nanoseconds of CPU that the proxy's reactor has had."""
    return int(Path(f"/proc/{stand.proxy.process.pid}/schedstat").read_text().split()[0])


def cost(site: Site, *lines: str, to: str = "", method: str = "GET") -> int:
    """Return what one request takes."""
    with site.stand.connect() as client:
        before = used(site.stand)
        reply = client.ask(site.path + to, *lines, method=method)
        after = used(site.stand)
    assert reply.status in (200, 206, 304, 416), reply.status
    return after - before


@pytest.fixture(scope="module")
def ordinary(stand: Stand) -> dict[str, float]:
    site = stand.site()
    site.answer(ok(b"x" * 100, FRESH, "Vary: Foo", 'ETag: "a"'))
    for i in range(40):
        site.get("Accept: text/html, */*;q=0.5", to=f"/warm/{i}")
    lines = "Accept: text/html, */*;q=0.5", "Accept-Language: en, de;q=0.5", "Foo: a"
    missed = statistics.median(cost(site, *lines, to=f"/{i}") for i in range(20))
    site.get(*lines)
    return {"hit": statistics.median(cost(site, *lines) for _ in range(20)), "miss": missed}


def least(measured: Iterator[int], enough: float) -> int:
    """Return the least of some costs; what else the machine does is not the request's fault."""
    best = next(measured)
    for other in measured:
        if best <= enough:
            break
        best = min(best, other)
    return best


@pytest.mark.parametrize("name", ASKED)
def test_a_request(stand: Stand, ordinary: dict[str, float], name: str) -> None:
    site = stand.site()
    vary = "Vary: Accept, Accept-Language, Accept-Encoding, Foo"
    site.answer(ok(b"x" * 100, FRESH, vary, 'ETag: "b"', "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT"))
    for i in range(64):
        site.get(f"Accept-Language: x{i}")
    enough = MOST * ordinary["hit"]
    too_much = {}
    for shape, value in SHAPES.items():
        site.get(f"{name}: {value}")  # so that it may be a hit
        taken = least((cost(site, f"{name}: {value}") for _ in range(5)), enough)
        if taken > enough:
            too_much[shape] = round(taken / ordinary["hit"])
    assert not too_much


@pytest.mark.parametrize("name", ANSWERED)
def test_an_answer(stand: Stand, ordinary: dict[str, float], name: str) -> None:
    site = stand.site()
    enough = MOST * ordinary["miss"]
    too_much: dict[str, Any] = {}
    for shape, value in SHAPES.items():
        lines = [] if name == "Cache-Control" else [FRESH]
        if name not in ("ETag", "Content-Range"):
            lines.append('ETag: "b"')
        status = "206 Partial Content" if name == "Content-Range" else "200 OK"
        site.answer(ok(b"x" * 100, *lines, f"{name}: {value}", status=status))
        path = f"/{shape.replace(' ', '-')}"

        def cold(path: str = path) -> Iterator[int]:
            for i in range(5):
                yield cost(site, to=f"{path}/{i}", method="GET")

        def warm(path: str = path) -> Iterator[int]:
            for _ in range(5):
                yield cost(site, to=f"{path}/0")

        def changing(path: str = path) -> Iterator[int]:
            for _ in range(5):
                yield cost(site, to=f"{path}/0", method="DELETE")

        for kind in (cold, warm, changing):
            taken = least(kind(), enough)
            if taken > enough:
                too_much[f"{shape}, {kind.__name__}"] = round(taken / ordinary["miss"])
    assert not too_much


@pytest.mark.parametrize("query", ["a&", "&", "utm_a&", "a=1&", "%41&"])
def test_a_query(stand: Stand, ordinary: dict[str, float], query: str) -> None:
    site = stand.site()
    site.answer(ok(b"x", FRESH))
    to = "?" + (query * SIZE)[:SIZE]
    assert site.get(to=to).status == 200
    assert least((cost(site, to=to) for _ in range(5)), MOST * ordinary["hit"]) <= MOST * ordinary["hit"]
