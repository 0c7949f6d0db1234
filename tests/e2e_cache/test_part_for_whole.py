"""A part of a representation is never given as the whole of it (RFC 9110 section 15.3.7, RFC 9111 section 3.4)."""

from __future__ import annotations

import re

import pytest

from tests.e2e_cache.support import FRESH, Arrival, Site, ok

BODY = b"0123456789" * 10
PART = BODY[:10]
TAG = 'ETag: "v"'
BYTES = "Content-Range: bytes"


def answering(part: bytes):
    """Return an origin that answers a range by this, and else by all of `BODY`."""
    return lambda arrival: part if arrival.field(b"range") else ok(BODY, FRESH, TAG)


PARTS = {
    "of an unknown length": [f"{BYTES} 0-9/*"],
    "without a place": [],
    "of nothing": [f"{BYTES} */100"],
    "with two places": [f"{BYTES} 0-9/100", f"{BYTES} 0-9/10"],
    "with one place twice": [f"{BYTES} 0-9/10", f"{BYTES} 0-9/10"],
    "longer than the whole": [f"{BYTES} 0-9/9"],
    "that ends before it begins": [f"{BYTES} 9-0/100"],
    "before the beginning": [f"{BYTES} -1-9/100"],
    "with a sign": [f"{BYTES} 0-9/+10"],
    "beyond all numbers": [f"{BYTES} 0-9/{2**63}"],
    "of too many digits": [f"{BYTES} 0-9/{'0' * 5000}10"],
    "of fewer bytes": [f"{BYTES} 0-8/9"],
    "of more bytes": [f"{BYTES} 0-19/20"],
    "in another unit": ["Content-Range: lines 0-9/10"],
    "that is several": [f"{BYTES} 0-9/10", "Content-Type: multipart/byteranges; boundary=x"],
    "that is several after all": [
        f"{BYTES} 0-9/10",
        "Content-Type: text/plain",
        "Content-Type: multipart/byteranges; boundary=x",
    ],
}


@pytest.mark.parametrize("validator", [TAG, 'ETag: W/"v"', "X: none"])
@pytest.mark.parametrize("fields", PARTS.values(), ids=PARTS.keys())
@pytest.mark.parametrize("asked", ["bytes=0-9", "bytes=0-", "bytes=-10", "bytes=0-999"])
def test_a_part(site: Site, fields: list[str], asked: str, validator: str) -> None:
    site.answer(answering(ok(PART, FRESH, validator, *fields, status="206 Partial Content")))
    assert site.get(f"Range: {asked}").status == 206
    for _ in range(2):
        reply = site.get()
        assert (reply.status, reply.body) == (200, BODY)


@pytest.mark.parametrize("asked", ["bytes=0-9", "bytes=-10"])
def test_a_part_that_comes_in_chunks(site: Site, asked: str) -> None:
    chunked = f"{FRESH}\r\n{TAG}\r\n{BYTES} 0-9/*\r\nTransfer-Encoding: chunked"
    site.answer(answering(f"HTTP/1.1 206 x\r\n{chunked}\r\n\r\na\r\n0123456789\r\n0\r\n\r\n".encode()))
    assert site.get(f"Range: {asked}").body == PART
    assert site.get().body == BODY


def test_a_part_that_nobody_asked_for(site: Site) -> None:
    """RFC 9110 section 15.3.7: a 206 answers a range request."""
    site.answer(ok(PART, FRESH, TAG, f"{BYTES} 0-9/10", status="206 Partial Content"), ok(BODY, FRESH, TAG))
    assert site.get().status == 206
    assert site.get().body == BODY


def test_a_200_that_says_that_it_is_a_part(site: Site) -> None:
    site.answer(answering(ok(PART, FRESH, TAG, f"{BYTES} 0-9/100")))
    assert site.get("Range: bytes=0-9").body == PART
    assert site.get().body == BODY


def test_a_416_is_for_the_one_who_asked(site: Site) -> None:
    refused = ok(b"", FRESH, TAG, f"{BYTES} */10", status="416 Range Not Satisfiable")
    site.answer(answering(refused))
    assert site.get("Range: bytes=200-").status == 416
    assert site.get().body == BODY


@pytest.mark.parametrize("first", [10, 20, 200])
def test_parts_of_different_lengths_are_not_put_together(site: Site, first: int) -> None:
    def parts(arrival: Arrival) -> bytes:
        asked = re.fullmatch(rb"bytes=(\d+)-(\d*)", arrival.field(b"range") or b"bytes=0-99")
        start = int(asked[1])
        stop = int(asked[2] or 99) + 1
        if not arrival.field(b"range"):
            return ok(BODY, FRESH, TAG)
        length = first if start == 0 else 100
        return ok(BODY[start:stop], FRESH, TAG, f"{BYTES} {start}-{stop - 1}/{length}", status="206 Partial Content")

    site.answer(parts)
    assert site.get("Range: bytes=0-8").body == BODY[:9]
    assert site.get("Range: bytes=9-99").body == BODY[9:]
    reply = site.get()
    assert (reply.status, reply.body) == (200, BODY)


def test_parts_of_one_length_are_put_together(site: Site) -> None:
    def parts(arrival: Arrival) -> bytes:
        asked = re.fullmatch(rb"bytes=(\d+)-(\d*)", arrival.field(b"range"))
        start, stop = int(asked[1]), int(asked[2] or 99) + 1
        return ok(BODY[start:stop], FRESH, TAG, f"{BYTES} {start}-{stop - 1}/100", status="206 Partial Content")

    site.answer(parts)
    site.get("Range: bytes=0-8")
    site.get("Range: bytes=9-99")
    reply = site.get()
    assert (reply.status, reply.body, site.count) == (200, BODY, 2)
