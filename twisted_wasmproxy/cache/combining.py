"""Partial responses: which part a 206 brings, and what it may be combined with (RFC 9111 section 3.4)."""

from __future__ import annotations

from twisted_wasmproxy.cache.conditional import is_strong_date
from twisted_wasmproxy.cache.entry import StoredHead
from twisted_wasmproxy.cache.fields import entity_tag
from twisted_wasmproxy.cache.ranges import ContentRange, Part, content_range, parse_range
from twisted_wasmproxy.http.headers import Headers
from twisted_wasmproxy.http.messages import Request, Response

__all__ = ["brought_part", "fits", "same_representation", "strong_validator"]


def strong_validator(headers: Headers) -> bytes | None:
    """Return what an If-Range can hold: a strong entity tag, else a Last-Modified that is a strong validator; None if
    there is neither (RFC 9110 sections 8.8.1 and 13.1.5)."""
    if b"etag" not in headers:
        return headers.get(b"last-modified") if is_strong_date(headers) else None
    etag = entity_tag(headers)
    return etag if etag is not None and not etag.startswith(b"W/") else None


def same_representation(stored: Headers, received: Headers) -> bool:
    """Return whether two responses have parts of the same representation: the same strong validator."""
    validator = strong_validator(stored)
    return validator is not None and validator == strong_validator(received)


def fits(stored: StoredHead, gap: Part, response: Response) -> bool:
    """Return whether a 206 is the part that was asked for, of the same representation."""
    got = content_range(response.headers.get(b"content-range"))
    return (
        got is not None
        and (got.start, got.stop) == gap
        and got.length == stored.length
        and same_representation(stored.headers, response.headers)
    )


def brought_part(request: Request, response: Response) -> ContentRange | None:
    """Return the part that a 206 brings; None if it does not say so beyond doubt.

    There are origins that count the last byte one too far. What answers the last n bytes by n bytes goes to the end of
    the representation, wherever that is, if there is something before it; with any other difference nothing is certain.
    """
    part = content_range(response.headers.get(b"content-range"))
    if part is None:
        return None
    declared = response.headers.get(b"content-length")
    if declared is None or declared == b"%d" % (part.stop - part.start):
        return part
    ranges = parse_range(request.headers.get(b"range") or b"")
    if ranges is not None and len(ranges) == 1 and part.stop == part.length:
        first, suffix = ranges[0]
        if first is None and suffix is not None and declared == b"%d" % suffix and part.start > 0:
            end = part.start + suffix
            return ContentRange(part.start, end, end)
    return None
