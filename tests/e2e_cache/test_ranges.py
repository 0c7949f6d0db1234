"""Parts: from what is stored whole and in part, stored, combined and completed (RFC 9110 section 14, RFC 9111 3.4)."""

from __future__ import annotations

import re

import pytest

from tests.e2e_cache.support import FRESH, STALE, Arrival, Reply, Site, ok

BODY = bytes(range(48, 122)) * 4
SIZE = len(BODY)
TAG = 'ETag: "v"'


def ranges(*lines: str, body: bytes = BODY, honours: bool = True):
    """Return an answer of an origin that knows single ranges, If-Range and If-None-Match."""

    def make(arrival: Arrival) -> bytes:
        asked = arrival.field(b"range")
        tag = next((line[6:].encode() for line in lines if line.startswith("ETag: ")), b"")
        condition = arrival.field(b"if-range")
        if tag and tag in b"".join(arrival.all(b"if-none-match")):
            return ok(b"", *lines, status="304 Not Modified", length=False)
        if not asked or not honours or (condition is not None and condition != tag):
            return ok(body, *lines)
        first, last = re.fullmatch(rb"bytes=(\d*)-(\d*)", asked).groups()
        if first:
            start, stop = int(first), min(int(last) + 1 if last else len(body), len(body))
        else:
            start, stop = max(0, len(body) - int(last)), len(body)
        if start >= len(body):
            return ok(b"", f"Content-Range: bytes */{len(body)}", status="416 Range Not Satisfiable")
        return ok(
            body[start:stop],
            f"Content-Range: bytes {start}-{stop - 1}/{len(body)}",
            *lines,
            status="206 Partial Content",
        )

    return make


def is_part(reply: Reply, start: int, stop: int, size: int = SIZE) -> None:
    assert (reply.status, reply.body) == (206, BODY[start:stop])
    assert reply.field("content-range") == f"bytes {start}-{stop - 1}/{size}"
    assert reply.field("content-length") == str(stop - start)


def parts(reply: Reply) -> list[tuple[str, bytes]]:
    """Return (Content-Range, content) of each part of a multipart/byteranges."""
    assert reply.status == 206
    kind = reply.field("content-type") or ""
    boundary = re.fullmatch(r'multipart/byteranges; ?boundary="?([^"]+)"?', kind).group(1).encode()
    assert reply.field("content-range") is None
    assert reply.body.endswith(b"--" + boundary + b"--\r\n") or reply.body.endswith(b"--" + boundary + b"--")
    found = []
    for part in reply.body.split(b"--" + boundary)[1:-1]:
        head, _, content = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        place = re.search(rb"(?i)content-range: *([^\r]+)", head).group(1)
        found.append((place.decode(), content.removesuffix(b"\r\n")))
    return found


# From a complete response


@pytest.fixture
def whole(site: Site) -> Site:
    site.answer(ok(BODY, FRESH, TAG, "Content-Type: text/x", "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT"))
    site.get()
    return site


SINGLE = {
    "bytes=0-0": (0, 1),
    "bytes=0-9": (0, 10),
    "bytes=10-19": (10, 20),
    "bytes=290-": (290, SIZE),
    "bytes=0-": (0, SIZE),
    "bytes=-5": (SIZE - 5, SIZE),
    "bytes=-9999": (0, SIZE),
    "bytes=290-9999": (290, SIZE),
    "BYTES=0-9": (0, 10),
    "bytes=000-0009": (0, 10),
    "bytes=0-4,5-9": (0, 10),
    "bytes=5-9, 9999-": (5, 10),
}


@pytest.mark.parametrize("asked", SINGLE)
def test_one_range_of_a_stored_response(whole: Site, asked: str) -> None:
    reply = whole.get(f"Range: {asked}")
    is_part(reply, *SINGLE[asked])
    assert reply.hit
    assert reply.field("etag") == '"v"'
    assert reply.field("content-type") == "text/x"
    assert whole.count == 1


def test_several_ranges_of_a_stored_response(whole: Site) -> None:
    reply = whole.get("Range: bytes=0-4, 100-109,-3")
    assert parts(reply) == [
        (f"bytes 0-4/{SIZE}", BODY[:5]),
        (f"bytes 100-109/{SIZE}", BODY[100:110]),
        (f"bytes {SIZE - 3}-{SIZE - 1}/{SIZE}", BODY[-3:]),
    ]
    assert b"Content-Type: text/x" in reply.body
    assert reply.hit


@pytest.mark.parametrize("asked", ["bytes=296-", "bytes=9999-99999", "bytes=-0", "bytes=300-400,500-"])
def test_what_is_not_there_is_416(whole: Site, asked: str) -> None:
    reply = whole.get(f"Range: {asked}")
    assert reply.status == 416
    assert reply.field("content-range") == f"bytes */{SIZE}"
    assert whole.get().body == BODY
    assert whole.count == 1


@pytest.mark.parametrize(
    "asked",
    ["items=0-1", "bytes", "bytes=", "bytes=a-b", "bytes=9-1", "bytes=1-2-3", "bytes 0-1", "bytes=--1", "bytes=0-1;x"],
)
def test_what_is_no_range_is_answered_by_the_whole(whole: Site, asked: str) -> None:
    reply = whole.get(f"Range: {asked}")
    assert (reply.status, reply.body) == (200, BODY)


def test_very_many_ranges_do_not_multiply_the_answer(whole: Site) -> None:
    reply = whole.get("Range: bytes=" + ",".join(["0-"] * 500))
    assert reply.status in (200, 206)
    assert len(reply.body) < SIZE * 2
    reply = whole.get("Range: bytes=" + ",".join(f"{n * 2}-{n * 2}" for n in range(140)))
    assert (reply.status, reply.body) == (200, BODY)


CONDITIONS = {
    'If-Range: "v"': 206,
    'If-Range: "w"': 200,
    'If-Range: W/"v"': 200,
    "If-Range: Sun, 06 Nov 1994 08:49:37 GMT": 206,
    "If-Range: Sun, 06 Nov 1994 08:49:38 GMT": 200,
    "If-Range: nonsense": 200,
    'If-None-Match: "w"': 206,
    'If-None-Match: "v"': 304,
}


@pytest.mark.parametrize("condition", CONDITIONS)
def test_conditions_decide_whether_a_part_is_sent(whole: Site, condition: str) -> None:
    reply = whole.get("Range: bytes=0-9", condition)
    assert reply.status == CONDITIONS[condition]
    assert reply.body == {200: BODY, 206: BODY[:10], 304: b""}[reply.status]
    assert whole.count == 1


def test_head_and_post_have_no_ranges(whole: Site) -> None:
    reply = whole.head("Range: bytes=0-9")
    assert reply.status in (200, 206)
    assert reply.field("content-length") in (str(SIZE), "10")


def test_only_200_is_cut(site: Site) -> None:
    site.answer(ok(BODY, FRESH, status="404 Not Found"))
    site.get()
    reply = site.get("Range: bytes=0-9")
    assert (reply.status, reply.body) == (404, BODY)


def test_a_range_of_an_empty_response(site: Site) -> None:
    site.answer(ok(b"", FRESH))
    site.get()
    assert site.get("Range: bytes=0-").status in (200, 416)
    assert site.get("Range: bytes=-5").status in (200, 416)


def test_a_range_that_is_missed(site: Site) -> None:
    """Nothing is stored: whatever goes to the origin, the client gets its part, and a hit the next time."""
    site.answer(ranges(FRESH, TAG))
    is_part(site.get("Range: bytes=10-19"), 10, 20)
    is_part(site.get("Range: bytes=10-19"), 10, 20)
    assert site.count == 1


def test_an_origin_without_ranges(site: Site) -> None:
    site.answer(ranges(FRESH, TAG, honours=False))
    reply = site.get("Range: bytes=10-19")
    assert (reply.status, reply.body) in ((200, BODY), (206, BODY[10:20]))
    is_part(site.get("Range: bytes=10-19"), 10, 20)
    assert site.get().body == BODY
    assert site.count == 1


# Stored parts


def test_a_stored_part_answers_what_lies_in_it(site: Site) -> None:
    site.answer(ranges(FRESH, TAG))
    site.get("Range: bytes=10-99")
    for asked, place in {"10-99": (10, 100), "20-29": (20, 30), "99-99": (99, 100)}.items():
        reply = site.get(f"Range: bytes={asked}")
        is_part(reply, *place)
        assert reply.hit
    assert site.count == 1


def test_a_stored_end_answers_suffix_and_open_ranges(site: Site) -> None:
    site.answer(ranges(FRESH, TAG))
    site.get("Range: bytes=200-")
    is_part(site.get("Range: bytes=-10"), SIZE - 10, SIZE)
    is_part(site.get("Range: bytes=250-"), 250, SIZE)
    is_part(site.get("Range: bytes=250-9999"), 250, SIZE)
    assert site.count == 1


def test_a_stored_part_never_answers_as_the_whole(site: Site) -> None:
    site.answer(ranges(FRESH, TAG))
    site.get("Range: bytes=0-99")
    reply = site.get()
    assert (reply.status, reply.body) == (200, BODY)
    assert site.get().hit


def test_a_part_is_completed_by_asking_for_the_rest(site: Site) -> None:
    site.answer(ranges(FRESH, TAG))
    site.get("Range: bytes=0-99")
    reply = site.get()
    assert (reply.status, reply.body, reply.field("content-length")) == (200, BODY, str(SIZE))
    assert reply.field("content-range") is None
    assert (site.seen[1].field("range") or "").startswith("bytes=100-")
    assert site.seen[1].field("if-range") == '"v"' or '"v"' in (site.seen[1].field("if-match") or "")
    assert site.get().hit
    is_part(site.get("Range: bytes=90-109"), 90, 110)
    assert site.count == 2


def test_parts_are_combined(site: Site) -> None:
    site.answer(ranges(FRESH, TAG))
    site.get("Range: bytes=0-99")
    is_part(site.get("Range: bytes=100-199"), 100, 200)
    is_part(site.get("Range: bytes=50-149"), 50, 150)
    assert site.count == 2
    is_part(site.get("Range: bytes=200-"), 200, SIZE)
    assert (site.get().body, site.count) == (BODY, 3)


def test_a_part_with_a_hole_is_filled(site: Site) -> None:
    site.answer(ranges(FRESH, TAG))
    site.get("Range: bytes=0-49")
    site.get("Range: bytes=200-")
    assert site.get().body == BODY
    assert site.get().hit


@pytest.mark.parametrize("first", ["bytes=0-49", "bytes=0-199999", "bytes=700000-700099", "bytes=1400000-"])
def test_a_large_body_of_which_a_part_is_stored_is_completed(site: Site, first: str) -> None:
    body = BODY * 5000
    site.answer(ranges(FRESH, TAG, body=body))
    site.get(f"Range: {first}")
    assert site.get("Range: bytes=13-").body == body[13:]
    for _ in range(2):
        assert site.get().body == body
    assert site.get().hit
    assert site.count <= 4


def test_a_range_over_the_end_of_a_part(site: Site) -> None:
    site.answer(ranges(FRESH, TAG))
    site.get("Range: bytes=0-99")
    is_part(site.get("Range: bytes=50-149"), 50, 150)
    is_part(site.get("Range: bytes=0-149"), 0, 150)
    assert site.count <= 3


def test_parts_of_different_representations_are_never_mixed(site: Site) -> None:
    other = BODY[::-1]
    site.answer(ranges(FRESH, TAG), ranges(FRESH, 'ETag: "w"', body=other))
    site.get("Range: bytes=0-99")
    reply = site.get()
    assert (reply.status, reply.body, reply.field("etag")) == (200, other, '"w"')
    assert site.get("Range: bytes=0-9").body == other[:10]


def test_a_part_of_another_representation_takes_the_place_of_the_first(site: Site) -> None:
    other = BODY[::-1]
    site.answer(ranges(FRESH, TAG), ranges(FRESH, 'ETag: "w"', body=other))
    site.get("Range: bytes=0-99")
    assert site.get("Range: bytes=150-199").body == other[150:200]
    assert site.get("Range: bytes=0-99").body in (other[:100],)
    assert site.get().body == other


@pytest.mark.parametrize("tag", ['ETag: W/"v"', "X: y"])
def test_parts_without_a_strong_validator_are_not_combined(site: Site, tag: str) -> None:
    site.answer(ranges(FRESH, tag))
    site.get("Range: bytes=0-99")
    site.get("Range: bytes=100-")
    assert site.get().body == BODY
    assert site.seen[-1].field("range") is None


def test_a_stale_part_is_validated_or_fetched_anew(site: Site) -> None:
    site.answer(ranges(*STALE, TAG))
    is_part(site.get("Range: bytes=0-9"), 0, 10)
    is_part(site.get("Range: bytes=0-9"), 0, 10)
    assert site.count == 2


def test_416_of_the_origin_is_not_stored_as_the_resource(site: Site) -> None:
    site.answer(ranges(FRESH, TAG))
    assert site.get("Range: bytes=9999-").status == 416
    assert site.get().body == BODY


BAD = {
    "none": [],
    "unsatisfied": [f"Content-Range: bytes */{SIZE}"],
    "another unit": [f"Content-Range: items 0-9/{SIZE}"],
    "backwards": [f"Content-Range: bytes 9-0/{SIZE}"],
    "past the end": ["Content-Range: bytes 0-9/5"],
    "twice": [f"Content-Range: bytes 0-9/{SIZE}", f"Content-Range: bytes 10-19/{SIZE}"],
    "words": ["Content-Range: bytes zero-nine/many"],
    "another length": [f"Content-Range: bytes 0-99/{SIZE}"],
    "huge": [f"Content-Range: bytes 0-9/{'9' * 40}"],
}


@pytest.mark.parametrize("lines", BAD.values(), ids=BAD)
def test_a_206_that_does_not_say_what_it_is_is_not_reused(site: Site, lines: list[str]) -> None:
    site.answer(ok(b"0123456789", FRESH, TAG, *lines, status="206 Partial Content"), ok(BODY, FRESH, TAG))
    site.get("Range: bytes=0-9")
    reply = site.get("Range: bytes=0-9")
    assert (reply.status, reply.body) in ((200, BODY), (206, BODY[:10]))
    assert site.get().body == BODY


def test_a_multipart_206_is_passed_on_and_not_stored(site: Site) -> None:
    body = b"--x\r\nContent-Range: bytes 0-1/9\r\n\r\nab\r\n--x--\r\n"
    kind = "Content-Type: multipart/byteranges; boundary=x"
    site.answer(ok(body, FRESH, TAG, kind, status="206 Partial Content"), ok(BODY, FRESH, TAG))
    reply = site.get("Range: bytes=0-1,5-6")
    assert reply.body == body or reply.status == 206
    assert site.get().body == BODY
