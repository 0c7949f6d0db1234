"""Range requests and partial content (RFC 9110 section 14, 15.3.7, 17.15)."""

from __future__ import annotations

import email
import email.policy
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_wasmproxy.cache.ranges import (
    ContentRange,
    Partial,
    contains,
    content_range,
    missing,
    parse_range,
    partial,
    resolve,
    union,
)
from twisted_wasmproxy.http.headers import Headers

Part = tuple[int, int]

ALPHABET = b"abcdefghijklmnopqrstuvwxyz"


def body(answer: Partial, content: bytes) -> bytes:
    """Return the content of an answer; its Content-Length must be true."""
    data = b"".join(piece if isinstance(piece, bytes) else content[piece[0] : piece[1]] for piece in answer.pieces)
    assert answer.headers.get_all(b"content-length") == [b"%d" % len(data)]
    return data


def multipart(answer: Partial, content: bytes) -> list[tuple[str | None, str, bytes]]:
    """Return (Content-Type, Content-Range, content) of each part, as a MIME parser reads them."""
    content_type = answer.headers.get(b"content-type")
    assert content_type is not None
    message = email.message_from_bytes(
        b"Content-Type: " + content_type + b"\r\n\r\n" + body(answer, content), policy=email.policy.HTTP
    )
    assert message.get_content_type() == "multipart/byteranges"
    assert not message.defects
    parts = []
    for part in message.iter_parts():
        parts.append((part["Content-Type"], part["Content-Range"], part.get_payload(decode=True)))
    return parts


def single(value: bytes, content: bytes = ALPHABET) -> tuple[bytes | None, bytes]:
    answer = partial(value, len(content), b"text/plain")
    assert answer is not None
    assert answer.status == 206
    assert b"content-type" not in answer.headers
    return answer.headers.get(b"content-range"), body(answer, content)


# Parsing


@pytest.mark.parametrize(
    ("value", "ranges"),
    [
        (b"bytes=0-0", [(0, 0)]),
        (b"bytes=0-499", [(0, 499)]),
        (b"bytes=500-", [(500, None)]),
        (b"bytes=-500", [(None, 500)]),
        (b"bytes=-0", [(None, 0)]),
        (b"BYTES=1-2", [(1, 2)]),
        (b"Bytes=1-2,-3,4-", [(1, 2), (None, 3), (4, None)]),
        (b"bytes= 1-2 ,\t3-4\t", [(1, 2), (3, 4)]),
        (b"bytes=,1-2,,3-4,", [(1, 2), (3, 4)]),
        (b"bytes=0001-0002", [(1, 2)]),
        (b"bytes=9223372036854775807-", [(2**63 - 1, None)]),
        (b"bytes=0-99999999999999999999999999", [(0, 10**26 - 1)]),
        (b"bytes=-99999999999999999999999999", [(None, 10**26 - 1)]),
    ],
)
def test_ranges_of_bytes(value: bytes, ranges: list[tuple[int | None, int | None]]) -> None:
    assert parse_range(value) == ranges


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"bytes",
        b"bytes=",
        b"bytes=,",
        b"bytes=-",
        b"bytes=--1",
        b"bytes=a-b",
        b"bytes=1",
        b"bytes=1-2-3",
        b"bytes=2-1",
        b"bytes=0-1,2-1",
        b"bytes=0-1,x",
        b"bytes=0-1 2-3",
        b"bytes=0-1;2-3",
        b"bytes=+1-2",
        b"bytes=1 -2",
        b"bytes=1- 2",
        b"bytes=0x1-2",
        b"bytes=1_0-20",
        b"bytes=\xd9\xa1-\xd9\xa2",
        b"bytes =0-1",
        b"bytes 0-1",
        b"bytes:0-1",
        b"items=0-1",
        b"none=0-1",
        b"bytes=0-1, bytes=2-3",
        b"bytes=" + b"9" * 5000 + b"-",
        b"bytes=-" + b"9" * 5000,
    ],
)
def test_anything_else_is_ignored(value: bytes) -> None:
    assert parse_range(value) is None
    assert partial(value, 1000, None) is None


def test_too_many_ranges_are_ignored() -> None:
    def field(count: int) -> bytes:
        return b"bytes=" + b",".join(b"%d-%d" % (i * 10, i * 10) for i in range(count))

    assert len(parse_range(field(100)) or ()) == 100
    assert parse_range(field(101)) is None
    assert parse_range(b"bytes=0-1" + b"," * 50000) is None


# Which bytes they are


@pytest.mark.parametrize(
    ("ranges", "length", "parts"),
    [
        ([(0, 0)], 10, [(0, 1)]),
        ([(0, 9)], 10, [(0, 10)]),
        ([(0, 100)], 10, [(0, 10)]),
        ([(9, 9)], 10, [(9, 10)]),
        ([(10, 11)], 10, []),
        ([(3, None)], 10, [(3, 10)]),
        ([(10, None)], 10, []),
        ([(None, 3)], 10, [(7, 10)]),
        ([(None, 10)], 10, [(0, 10)]),
        ([(None, 2**64)], 10, [(0, 10)]),
        ([(None, 0)], 10, []),
        ([(0, None)], 0, []),
        ([(None, 5)], 0, []),
        ([(8, 9), (0, 1)], 10, [(8, 10), (0, 2)]),
        ([(20, 30), (0, 1), (50, None)], 10, [(0, 2)]),
        ([(0, 3), (2, 5)], 10, [(0, 6)]),
        ([(0, 3), (4, 5)], 10, [(0, 6)]),
        ([(4, 5), (0, 3)], 10, [(0, 6)]),
        ([(0, 3), (5, 5)], 10, [(0, 4), (5, 6)]),
        ([(2, 3), (2, 3)], 10, [(2, 4)]),
        ([(0, 9), (2, 3)], 10, [(0, 10)]),
        ([(6, 7), (0, 1), (8, 8), (3, 3)], 10, [(6, 9), (0, 2), (3, 4)]),
        ([(0, 1), (4, 5), (2, 3)], 10, [(0, 6)]),
        ([(6, 7), (20, 21), (4, 6)], 30, [(4, 8), (20, 22)]),
        ([], 10, []),
    ],
)
def test_satisfiable_ranges_coalesced_in_the_order_asked_for(
    ranges: list[tuple[int | None, int | None]], length: int, parts: list[Part]
) -> None:
    assert resolve(ranges, length) == parts


# Answers


@pytest.mark.parametrize(
    ("value", "expected_range", "content"),
    [
        (b"bytes=0-1", b"bytes 0-1/26", b"ab"),
        (b"bytes=25-", b"bytes 25-25/26", b"z"),
        (b"bytes=-2", b"bytes 24-25/26", b"yz"),
        (b"bytes=-100", b"bytes 0-25/26", ALPHABET),
        (b"bytes=0-", b"bytes 0-25/26", ALPHABET),
        (b"bytes=20-9999999999999999999999", b"bytes 20-25/26", b"uvwxyz"),
        (b"bytes=0-1,2-3", b"bytes 0-3/26", b"abcd"),
        (b"bytes=2-3,0-1", b"bytes 0-3/26", b"abcd"),
        (b"bytes=0-1,100-", b"bytes 0-1/26", b"ab"),
    ],
)
def test_one_part_is_a_plain_206(value: bytes, expected_range: bytes, content: bytes) -> None:
    assert single(value) == (expected_range, content)


def test_several_parts_are_multipart_byteranges_in_the_order_asked_for() -> None:
    answer = partial(b"bytes=20-22, 0-1, -1", 26, b"text/plain")
    assert answer is not None
    assert answer.status == 206
    assert b"content-range" not in answer.headers
    assert multipart(answer, ALPHABET) == [
        ("text/plain", "bytes 20-22/26", b"uvw"),
        ("text/plain", "bytes 0-1/26", b"ab"),
        ("text/plain", "bytes 25-25/26", b"z"),
    ]


def test_the_bytes_of_a_multipart() -> None:
    answer = partial(b"bytes=0-1,4-5", 26, b"a/b")
    assert answer is not None
    boundary = (answer.headers.get(b"content-type") or b"").removeprefix(b"multipart/byteranges; boundary=")
    assert body(answer, ALPHABET) == (
        b"--%(b)b\r\nContent-Type: a/b\r\nContent-Range: bytes 0-1/26\r\n\r\nab\r\n"
        b"--%(b)b\r\nContent-Type: a/b\r\nContent-Range: bytes 4-5/26\r\n\r\nef\r\n"
        b"--%(b)b--\r\n"
    ) % {b"b": boundary}


def test_a_part_has_a_content_type_only_if_the_response_has() -> None:
    answer = partial(b"bytes=0-1,4-5", 26, None)
    assert answer is not None
    assert b"content-type" not in body(answer, ALPHABET).lower()


def test_each_multipart_has_a_boundary_of_its_own() -> None:
    answers = [partial(b"bytes=0-1,4-5", 26, None) for _ in range(20)]
    assert len({answer.headers.get(b"content-type") for answer in answers if answer}) == 20


@pytest.mark.parametrize("value", [b"bytes=26-", b"bytes=26-30,99-", b"bytes=-0", b"bytes=9223372036854775808-"])
def test_nothing_satisfiable_is_a_416_that_tells_the_length(value: bytes) -> None:
    answer = partial(value, 26, b"text/plain")
    assert answer is not None
    assert answer.status == 416
    assert answer.headers.get(b"content-range") == b"bytes */26"
    assert answer.headers.get(b"cache-control") == b"no-store"
    assert body(answer, ALPHABET) == b""


def test_the_last_bytes_of_nothing_are_the_whole() -> None:
    assert partial(b"bytes=-5", 0, None) is None
    assert partial(b"bytes=0-, -5", 0, None) is None


@pytest.mark.parametrize("value", [b"bytes=0-", b"bytes=0-0", b"bytes=-0"])
def test_nothing_has_no_first_byte(value: bytes) -> None:
    answer = partial(value, 0, None)
    assert answer is not None
    assert answer.status == 416
    assert answer.headers.get(b"content-range") == b"bytes */0"


@pytest.mark.parametrize(
    "value",
    [
        b"bytes=0-,0-,0-",
        b"bytes=0-,-1",
        b"bytes=" + b",".join([b"0-%d" % i for i in range(40, 90)]),
        b"bytes=" + b",".join([b"%d-%d" % (i, i) for i in range(0, 100, 2)]),
    ],
)
def test_ranges_that_cost_more_than_the_whole_get_the_whole(value: bytes) -> None:
    assert partial(value, 100, None) is None


def test_many_small_ranges_are_answered_only_in_order() -> None:
    length = 1_000_000
    places = [place * 1000 for place in range(50)]
    ordered = b"bytes=" + b",".join(b"%d-%d" % (place, place + 9) for place in places)
    mixed = b"bytes=" + b",".join(b"%d-%d" % (place, place + 9) for place in [*places[25:], *places[:25]])
    answer = partial(ordered, length, None)
    assert answer is not None
    assert len(multipart(answer, bytes(length))) == 50
    assert partial(mixed, length, None) is None


# Content-Range


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"bytes 0-0/1", ContentRange(0, 1, 1)),
        (b"bytes 4-9/10", ContentRange(4, 10, 10)),
        (b"BYTES 4-9/10", ContentRange(4, 10, 10)),
        (b"bytes 4-9/*", ContentRange(4, 10, None)),
        (b"bytes 0-9223372036854775806/9223372036854775807", ContentRange(0, 2**63 - 1, 2**63 - 1)),
    ],
)
def test_content_range(value: bytes, expected: ContentRange) -> None:
    assert content_range(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"bytes */10",
        b"bytes 4-9",
        b"bytes 9-4/10",
        b"bytes 4-10/10",
        b"bytes 4-9/",
        b"bytes -9/10",
        b"bytes 4-/10",
        b"bytes=4-9/10",
        b"bytes  4-9/10",
        b"bytes 4 - 9/10",
        b"bytes 4-9/10, bytes 4-9/10",
        b"bytes 4-9/-10",
        b"items 4-9/10",
        b"bytes 0-0/9223372036854775808",
        b"bytes 0-9223372036854775807/*",
        b"bytes 0-" + b"9" * 5000 + b"/*",
    ],
)
def test_a_content_range_that_is_not_valid_is_none(value: bytes | None) -> None:
    assert content_range(value) is None


# Parts that are stored


@pytest.mark.parametrize(
    ("parts", "wanted", "gaps"),
    [
        ([], (0, 5), [(0, 5)]),
        ([(0, 5)], (0, 5), []),
        ([(0, 5)], (1, 4), []),
        ([(0, 5)], (3, 8), [(5, 8)]),
        ([(3, 5)], (0, 8), [(0, 3), (5, 8)]),
        ([(0, 2), (4, 6), (8, 9)], (1, 9), [(2, 4), (6, 8)]),
        ([(0, 5), (5, 9)], (2, 8), []),
        ([(10, 20)], (0, 5), [(0, 5)]),
        ([(0, 5)], (5, 5), []),
        ([(0, 5)], (7, 7), []),
    ],
)
def test_what_is_missing(parts: list[Part], wanted: Part, gaps: list[Part]) -> None:
    assert missing(parts, wanted) == gaps
    assert contains(parts, wanted) is (gaps == [])


@pytest.mark.parametrize(
    ("parts", "more", "expected"),
    [
        ([], (1, 2), ((1, 2),)),
        ([(1, 2)], (2, 3), ((1, 3),)),
        ([(1, 2)], (3, 4), ((1, 2), (3, 4))),
        ([(3, 4)], (1, 2), ((1, 2), (3, 4))),
        ([(1, 4), (6, 9)], (3, 7), ((1, 9),)),
        ([(1, 4), (6, 9)], (0, 10), ((0, 10),)),
        ([(1, 4)], (2, 3), ((1, 4),)),
        ([(1, 4)], (5, 5), ((1, 4),)),
        ([], (5, 5), ()),
    ],
)
def test_union(parts: list[Part], more: Part, expected: tuple[Part, ...]) -> None:
    assert union(parts, more) == expected


# Whatever comes


numbers = st.one_of(st.none(), st.integers(0, 40))
specs = st.lists(st.tuples(numbers, numbers).filter(lambda spec: spec != (None, None)), min_size=1, max_size=8)
small_parts = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)).map(lambda pair: (min(pair), max(pair))))


def written(ranges: list[tuple[int | None, int | None]]) -> bytes:
    texts = [b"%b-%b" % tuple(b"" if n is None else b"%d" % n for n in pair) for pair in ranges]
    return b"bytes=" + b", ".join(texts)


@given(specs)
def test_what_is_written_is_read(ranges: list[tuple[int | None, int | None]]) -> None:
    valid = all(first is None or last is None or first <= last for first, last in ranges)
    assert parse_range(written(ranges)) == (ranges if valid else None)


@given(specs, st.integers(0, 30))
def test_parts_are_just_the_bytes_asked_for(ranges: list[tuple[int | None, int | None]], length: int) -> None:
    if parse_range(written(ranges)) is None:
        return
    wanted: set[int] = set()
    for first, last in ranges:
        if first is None:
            wanted |= set(range(length)[-last:]) if last else set()
        else:
            wanted |= set(range(length)[first:]) if last is None else set(range(length)[first : last + 1])
    parts = resolve(ranges, length)
    assert sorted(byte for part in parts for byte in range(*part)) == sorted(wanted)
    ends = sorted(parts)
    assert all(before[1] < after[0] for before, after in pairwise(ends))


@given(specs, st.integers(0, 30), st.sampled_from([None, b"text/plain"]))
def test_a_206_has_the_bytes_that_it_says(
    ranges: list[tuple[int | None, int | None]], length: int, content_type: bytes | None
) -> None:
    content = bytes(range(65, 65 + length))
    value = written(ranges)
    answer = partial(value, length, content_type)
    if answer is None:
        asked = sum(stop - start for one in ranges for start, stop in resolve([one], length))
        assert parse_range(value) is None or asked > length or not length
        return
    if answer.status == 416:
        assert resolve(ranges, length) == []
        return
    parts = resolve(ranges, length)
    if len(parts) == 1:
        said = content_range(answer.headers.get(b"content-range"))
        assert said == ContentRange(*parts[0], length)
        assert body(answer, content) == content[slice(*parts[0])]
        return
    read = multipart(answer, content)
    assert [content_range(text.encode()) for _, text, _ in read] == [ContentRange(*part, length) for part in parts]
    assert [data for _, _, data in read] == [content[slice(*part)] for part in parts]


@given(
    st.one_of(
        st.binary(max_size=60),
        st.text("bytes=0123456789-,* /\t", max_size=40).map(str.encode),
        st.text("0123456789-, ", max_size=40).map(lambda text: b"bytes=" + text.encode()),
        st.text("0123456789-/*", max_size=40).map(lambda text: b"bytes " + text.encode()),
    ),
    st.integers(0, 2**63),
)
def test_nothing_raises(value: bytes, length: int) -> None:
    answer = partial(value, length, b"text/plain")
    assert answer is None or answer.status in (206, 416)
    said = content_range(value)
    assert said is None or 0 <= said.start < said.stop < 2**63


@given(small_parts, st.tuples(st.integers(0, 30), st.integers(0, 30)).map(lambda pair: (min(pair), max(pair))))
def test_parts_are_sets_of_bytes(parts: list[Part], more: Part) -> None:
    have = {byte for part in parts for byte in range(*part)}
    other = set(range(*more))
    gaps = missing(parts, more)
    assert {byte for gap in gaps for byte in range(*gap)} == other - have
    assert contains(parts, more) is (other <= have)
    joined = union(parts, more)
    assert {byte for part in joined for byte in range(*part)} == have | other
    assert all(start < stop for start, stop in joined)
    assert all(before[1] < after[0] for before, after in pairwise(joined))


def test_an_answer_is_its_own() -> None:
    first = partial(b"bytes=0-1", 10, None)
    assert first is not None
    first.headers.add(b"X", b"y")
    second = partial(b"bytes=0-1", 10, None)
    assert second is not None
    assert second.headers == Headers([(b"Content-Range", b"bytes 0-1/10"), (b"Content-Length", b"2")])
