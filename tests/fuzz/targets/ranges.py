"""Range and Content-Range. The first line is the length of what is stored, the others are values of the fields."""

from __future__ import annotations

from tests.cache.support import head
from twisted_wasmproxy.cache.conditional import outcome, range_applies
from twisted_wasmproxy.cache.ranges import (
    Part,
    contains,
    content_range,
    missing,
    parse_range,
    partial,
    resolve,
    union,
)
from twisted_wasmproxy.http.headers import Headers

__all__ = ["WORDS", "run"]

WORDS = [
    *(b"\n", b"bytes=", b"BYTES=", b"bytes ", b"0-9", b"-5", b"5-", b"-", b",", b", ", b"/", b"*", b"/*", b"/10", b"="),
    *(b"bytes 0-9/10", b"bytes 0-9/*", b"bytes */10", b"9" * 19, b"9" * 101, b"0" * 5000, b"0-0," * 30, b" ", b"\t"),
    *(b'"a"', b'W/"a"', b"Tue, 15 Nov 1994 12:45:26 GMT", b"-1-2", b"1-0", b"\xb2", b"+1"),
]


def run(data: bytes) -> None:
    size, *values = data.split(b"\n")
    length = int(size) if size.isdigit() and len(size) < 18 else 10
    parts: tuple[Part, ...] = ()
    for value in values:
        _check_range(value, length)
        found = content_range(value)
        if found is not None:
            assert 0 <= found.start < found.stop
            assert found.length is None or found.stop <= found.length
            assert content_range(b"bytes %d-%d/%b" % (found.start, found.stop - 1, _length(found.length))) == found
            parts = _check_union(parts, (found.start, found.stop))
        stored = head(headers=[(b"ETag", b'"a"'), (b"Last-Modified", b"Tue, 15 Nov 1994 12:45:26 GMT")])
        range_applies(Headers([(b"If-Range", value)]), stored)
        for name in (b"If-None-Match", b"If-Modified-Since"):
            assert outcome(b"GET", Headers([(name, value)]), stored) in (200, 304)


def _length(length: int | None) -> bytes:
    return b"*" if length is None else b"%d" % length


def _check_range(value: bytes, length: int) -> None:
    ranges = parse_range(value)
    if ranges is not None:
        assert 0 < len(ranges) <= 100
        resolved = resolve(ranges, length)
        assert all(0 <= start < stop <= length for start, stop in resolved)
        for number, (start, stop) in enumerate(resolved):
            assert all(stop < other[0] or other[1] < start for other in resolved[number + 1 :]), "they overlap"
        for first, last in ranges:
            if first is not None and first < length:
                assert any(start <= first < stop for start, stop in resolved)
            assert first is None or last is None or first <= last
    answer = partial(value, length, b"text/plain")
    if answer is None:
        return
    assert ranges is not None
    parts = [piece for piece in answer.pieces if isinstance(piece, tuple)]
    assert all(0 <= start < stop <= length for start, stop in parts)
    size = sum(piece[1] - piece[0] if isinstance(piece, tuple) else len(piece) for piece in answer.pieces)
    assert answer.headers.get(b"content-length") == b"%d" % size
    if answer.status == 416:
        assert not parts
        assert not resolve(ranges, length)
        return
    assert answer.status == 206
    assert parts == resolve(ranges, length)
    assert size <= 2 * length + 4096
    if len(parts) == 1:
        told = content_range(answer.headers.get(b"content-range"))
        assert told is not None
        assert (told.start, told.stop, told.length) == (*parts[0], length)


def _check_union(parts: tuple[Part, ...], more: Part) -> tuple[Part, ...]:
    joined = union(parts, more)
    assert list(joined) == sorted(joined)
    assert contains(joined, more)
    assert all(contains(joined, part) for part in parts)
    gaps = missing(parts, more)
    for gap in gaps:
        assert more[0] <= gap[0] < gap[1] <= more[1]
        assert not contains(parts, gap)
    assert contains(union((*parts, *gaps[1:]), gaps[0]), more) if gaps else contains(parts, more)
    return joined
