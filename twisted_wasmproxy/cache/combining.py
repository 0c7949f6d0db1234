"""Partial responses: which part a 206 brings, and what it may be combined with (RFC 9111 section 3.4)."""

from __future__ import annotations

from twisted_wasmproxy.cache.dates import parse_http_date
from twisted_wasmproxy.cache.ranges import ContentRange, content_range, parse_range
from twisted_wasmproxy.http.headers import Headers
from twisted_wasmproxy.http.messages import Request, Response

__all__ = ["brought_part", "same_representation", "strong_validator"]


def strong_validator(headers: Headers) -> bytes | None:
    """Return what an If-Range can hold: a strong entity tag, else a Last-Modified that is strong because the response's
    Date is later by a second or more (RFC 9110 sections 8.8.2.2 and 13.1.5); None if there is neither."""
    etag = headers.get(b"etag")
    if etag is not None:
        return etag if etag.startswith(b'"') and etag.endswith(b'"') and len(etag) > 1 else None
    modified = headers.get(b"last-modified")
    if modified is None:
        return None
    when, date = parse_http_date(modified), parse_http_date(headers.get(b"date") or b"")
    return modified if when is not None and date is not None and date >= when + 1 else None


def same_representation(stored: Headers, received: Headers) -> bool:
    """Return whether two responses have parts of the same representation: the same strong validator."""
    validator = strong_validator(stored)
    return validator is not None and validator == strong_validator(received)


def brought_part(request: Request, response: Response) -> ContentRange | None:
    """Return the part that a 206 brings; None if it does not say so beyond doubt.

    There are origins whose Content-Range is not as long as their content. If the content is as long as the suffix that
    was asked for, it is that; else nothing is certain.
    """
    part = content_range(response.headers.get(b"content-range"))
    if part is None:
        return None
    declared = response.headers.get(b"content-length")
    if declared is None or declared == b"%d" % (part.stop - part.start):
        return part
    ranges = parse_range(request.headers.get(b"range") or b"")
    if part.length is not None and ranges is not None and len(ranges) == 1:
        first, suffix = ranges[0]
        if first is None and suffix is not None and declared == b"%d" % suffix and suffix <= part.length:
            return ContentRange(part.length - suffix, part.length, part.length)
    return None
