"""Range requests and partial content (RFC 9110 section 14, RFC 9111 section 3.4): parsing, choosing, multipart."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from twisted_wasmproxy.http.headers import Headers

__all__ = [
    "ContentRange",
    "Partial",
    "contains",
    "content_range",
    "missing",
    "parse_range",
    "partial",
    "resolve",
    "union",
]

Part = tuple[int, int]
"""(start, stop) in bytes of the complete representation; stop is exclusive."""

_MAX_RANGES = 100
_FEW_PARTS = 16
"""As many parts may come in any order and cost more than the whole."""
_MAX_LENGTH = 2**63 - 1

# Longer numbers stand for nothing that there is, and an attempt to convert them could raise.
_DIGITS = rb"[0-9]{1,100}"
_RANGE_SPEC = re.compile(rb"(" + _DIGITS + rb")?-(" + _DIGITS + rb")?")
_CONTENT_RANGE = re.compile(rb"bytes (" + _DIGITS + rb")-(" + _DIGITS + rb")/(\*|" + _DIGITS + rb")", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ContentRange:
    """A valid `Content-Range: bytes first-last/length`."""

    start: int
    stop: int
    """Exclusive."""
    length: int | None
    """Of the complete representation; None for `*`."""


@dataclass(frozen=True, slots=True)
class Partial:
    """How to answer a Range request from a complete representation."""

    status: int
    """206 or 416."""
    headers: Headers
    """Fields to set or add: Content-Range, Content-Length, Content-Type of a multipart, Cache-Control of a 416.
    (`replaced` fields are those of the same names.)"""
    pieces: tuple[bytes | Part, ...]
    """The content: literal bytes, and parts of the representation, in order."""


def parse_range(value: bytes) -> list[tuple[int | None, int | None]] | None:
    """Parse a Range field value of unit bytes: (first, last) inclusive, (first, None) open, (None, n) suffix.

    None for anything else (another unit, bad syntax, too many ranges): the field is then ignored."""
    unit, equals, specs = value.strip(b" \t").partition(b"=")
    if unit.lower() != b"bytes" or not equals or specs.count(b",") >= 2 * _MAX_RANGES:
        return None
    ranges: list[tuple[int | None, int | None]] = []
    for spec in specs.split(b","):
        spec = spec.strip(b" \t")
        if not spec:  # an empty element of a list counts for nothing (RFC 9110 section 5.6.1.2)
            continue
        match = _RANGE_SPEC.fullmatch(spec)
        if match is None or spec == b"-":
            return None
        first = None if match[1] is None else int(match[1])
        last = None if match[2] is None else int(match[2])
        if first is not None and last is not None and last < first:
            return None
        ranges.append((first, last))
    return ranges if 0 < len(ranges) <= _MAX_RANGES else None


def resolve(ranges: Sequence[tuple[int | None, int | None]], length: int) -> list[Part]:
    """Return the satisfiable ranges as parts of a representation of `length` bytes, in the order asked for, with
    overlapping and adjacent ones coalesced (RFC 9110 section 15.3.7.2); empty if none is satisfiable.

    A coalesced part stands where the first of those asked for that are in it would stand."""
    parts = _satisfiable(ranges, length)
    return parts if len(parts) < 2 else _coalesced(parts)


def content_range(value: bytes | None) -> ContentRange | None:
    """Parse a Content-Range; None if absent, of another unit, unsatisfied (`*/n`) or invalid."""
    match = None if value is None else _CONTENT_RANGE.fullmatch(value)
    if match is None:
        return None
    start, stop = int(match[1]), int(match[2]) + 1
    length = None if match[3] == b"*" else int(match[3])
    end = _MAX_LENGTH if length is None else length
    return ContentRange(start, stop, length) if start < stop <= end <= _MAX_LENGTH else None


def partial(value: bytes, length: int, content_type: bytes | None) -> Partial | None:
    """Work out the answer to a Range of this value for a representation of `length` bytes; None: answer the whole.

    Single range, multipart/byteranges with a fresh boundary, 416. Many or overlapping small ranges (RFC 9110 section
    17.15) are answered by the whole."""
    ranges = parse_range(value)
    if ranges is None:
        return None
    parts = _satisfiable(ranges, length)
    if not parts:
        if any(first is None and last for first, last in ranges):
            return None  # "the last n bytes" of nothing are the whole of it, and no Content-Range can say so
        fields = [
            (b"Content-Range", b"bytes */%d" % length),
            (b"Content-Length", b"0"),
            # A cache nearer to the client must not take the lifetime of the representation for that of the refusal.
            (b"Cache-Control", b"no-store"),
        ]
        return Partial(416, Headers(fields), ())
    if len(parts) > 1:
        if sum(stop - start for start, stop in parts) > length:
            return None
        parts = _coalesced(parts)
    if len(parts) > 1:
        return _multipart(parts, length, content_type)
    ((start, stop),) = parts
    fields = [
        (b"Content-Range", _content_range_value(start, stop, length)),
        (b"Content-Length", b"%d" % (stop - start)),
    ]
    return Partial(206, Headers(fields), ((start, stop),))


def contains(parts: Sequence[Part], wanted: Part) -> bool:
    """Say whether all of `wanted` is in the stored parts."""
    return not missing(parts, wanted)


def missing(parts: Sequence[Part], wanted: Part) -> list[Part]:
    """Return what of `wanted` is not in the stored parts, in order."""
    position, end = wanted
    gaps = []
    for start, stop in sorted(parts):
        if start >= end:
            break
        if start > position:
            gaps.append((position, start))
        position = max(position, stop)
    if position < end:
        gaps.append((position, end))
    return gaps


def union(parts: Sequence[Part], more: Part) -> tuple[Part, ...]:
    """Return the parts with another, sorted and joined where they meet."""
    return tuple(sorted(_coalesced([part for part in (*parts, more) if part[0] < part[1]])))


def _satisfiable(ranges: Sequence[tuple[int | None, int | None]], length: int) -> list[Part]:
    """Return the satisfiable ranges (RFC 9110 section 14.1.2) as they were asked for."""
    parts = []
    for first, last in ranges:
        if first is None:
            assert last is not None, "a suffix range has a length"
            part = (max(0, length - last), length)
        else:
            part = (first, length if last is None else min(last + 1, length))
        if part[0] < part[1]:
            parts.append(part)
    return parts


def _coalesced(parts: Sequence[Part]) -> list[Part]:
    """Return the parts with those that overlap or meet joined, each where its first one was."""
    order = sorted(range(len(parts)), key=parts.__getitem__)
    joined: list[tuple[int, int, int]] = []  # (place, start, stop)
    for place in order:
        start, stop = parts[place]
        if joined and start <= joined[-1][2]:
            other, begin, end = joined[-1]
            joined[-1] = (min(other, place), begin, max(end, stop))
        else:
            joined.append((place, start, stop))
    return [(start, stop) for _, start, stop in sorted(joined)]


def _content_range_value(start: int, stop: int, length: int) -> bytes:
    return b"bytes %d-%d/%d" % (start, stop - 1, length)


def _multipart(parts: list[Part], length: int, content_type: bytes | None) -> Partial | None:
    boundary = secrets.token_hex(16).encode()
    type_line = b"" if content_type is None else b"Content-Type: " + content_type + b"\r\n"
    pieces: list[bytes | Part] = []
    size = 0
    line_end = b""
    for start, stop in parts:
        content_range_line = b"Content-Range: " + _content_range_value(start, stop, length) + b"\r\n"
        head = line_end + b"--" + boundary + b"\r\n" + type_line + content_range_line + b"\r\n"
        pieces += (head, (start, stop))
        size += len(head) + stop - start
        line_end = b"\r\n"
    tail = b"\r\n--" + boundary + b"--\r\n"
    pieces.append(tail)
    size += len(tail)
    if len(parts) > _FEW_PARTS and (size > length or parts != sorted(parts)):
        return None
    fields = [
        (b"Content-Type", b"multipart/byteranges; boundary=" + boundary),
        (b"Content-Length", b"%d" % size),
    ]
    return Partial(206, Headers(fields), tuple(pieces))
