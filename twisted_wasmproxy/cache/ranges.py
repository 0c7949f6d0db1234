"""Range requests and partial content (RFC 9110 section 14, RFC 9111 section 3.4): parsing, choosing, multipart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from twisted_wasmproxy.http.headers import Headers

__all__ = ["ContentRange", "Partial", "contains", "content_range", "missing", "parse_range", "partial", "union"]

Part = tuple[int, int]
"""(start, stop) in bytes of the complete representation; stop is exclusive."""


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
    """Fields to set or add: Content-Range, Content-Length, Content-Type of a multipart. (`replaced` fields are those
    of the same names.)"""
    pieces: tuple[bytes | Part, ...]
    """The content: literal bytes, and parts of the representation, in order."""


def parse_range(value: bytes) -> list[tuple[int | None, int | None]] | None:
    """Parse a Range field value of unit bytes: (first, last) inclusive, (first, None) open, (None, n) suffix.

    None for anything else (another unit, bad syntax, too many ranges): the field is then ignored."""
    raise NotImplementedError


def resolve(ranges: Sequence[tuple[int | None, int | None]], length: int) -> list[Part]:
    """Return the satisfiable ranges as parts of a representation of `length` bytes, in the order asked for, with
    overlapping and adjacent ones coalesced (RFC 9110 section 15.3.7.2); empty if none is satisfiable."""
    raise NotImplementedError


def content_range(value: bytes | None) -> ContentRange | None:
    """Parse a Content-Range; None if absent, of another unit, unsatisfied (`*/n`) or invalid."""
    raise NotImplementedError


def partial(value: bytes, length: int, content_type: bytes | None) -> Partial | None:
    """Work out the answer to a Range of this value for a representation of `length` bytes; None: answer the whole.

    Single range, multipart/byteranges with a fresh boundary, 416. Many or overlapping small ranges (RFC 9110 section
    17.15) are answered by the whole."""
    raise NotImplementedError


def contains(parts: Sequence[Part], wanted: Part) -> bool:
    """Say whether all of `wanted` is in the stored parts."""
    raise NotImplementedError


def missing(parts: Sequence[Part], wanted: Part) -> list[Part]:
    """Return what of `wanted` is not in the stored parts, in order."""
    raise NotImplementedError


def union(parts: Sequence[Part], more: Part) -> tuple[Part, ...]:
    """Return the parts with another, sorted and joined where they meet."""
    raise NotImplementedError
