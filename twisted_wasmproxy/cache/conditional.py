"""Conditional requests answered from what is stored (RFC 9110 section 13)."""

from __future__ import annotations

import re

from twisted_wasmproxy.cache.dates import parse_http_date
from twisted_wasmproxy.cache.entry import StoredHead
from twisted_wasmproxy.cache.fields import entity_tag
from twisted_wasmproxy.http.headers import Headers

__all__ = ["is_conditional", "is_strong_date", "needs_origin", "not_modified_headers", "outcome", "range_applies"]

_OPAQUE = rb'"[\x21\x23-\x7e\x80-\xff]*"'
_ENTITY_TAGS = re.compile(rb"[ \t]*(?:(?:W/)?(" + _OPAQUE + rb")[ \t]*)?(?:,|\Z)")
"""One element of a list of them, which may be empty (section 5.6.1.2)."""

_FOR_ORIGIN = frozenset([b"if-match", b"if-unmodified-since"])
_PRECONDITIONS = _FOR_ORIGIN | {b"if-none-match", b"if-modified-since"}

MOST_TAGS = 100
"""Elements of an If-None-Match, empty ones included; a longer list names nothing."""
LONGEST_TAGS = 8 * 1024
"""Bytes of one, all lines together."""

_DATE_IS_LATER = 60.0
"""Seconds from Last-Modified to Date, beyond which it does not matter whether one clock made both."""

_IN_304 = frozenset(
    [
        *(b"cache-control", b"content-location", b"date", b"etag", b"expires", b"vary"),
        # What caches on the way have said of themselves.
        *(b"cache-status", b"via"),
    ]
)


def is_conditional(headers: Headers) -> bool:
    """Say whether the request has a precondition that a cache evaluates (If-None-Match, If-Modified-Since), or one that
    only the origin can (If-Match, If-Unmodified-Since)."""
    for line in headers.lines:  # noqa: SIM110  # a generator would cost several times as much
        if line[0] in _PRECONDITIONS:
            return True
    return False


def needs_origin(headers: Headers) -> bool:
    """Say whether the request has a precondition that only the origin can evaluate: If-Match, If-Unmodified-Since. A
    cache must not, and so has no answer (RFC 9111 section 4.3.2)."""
    for line in headers.lines:  # noqa: SIM110  # as above
        if line[0] in _FOR_ORIGIN:
            return True
    return False


def outcome(method: bytes, headers: Headers, head: StoredHead) -> int:
    """Return the status for a request, by the stored response that is selected for it: 304, or that of the response
    itself (RFC 9110 section 13.2.2, RFC 9111 section 4.3.2).

    A precondition that cannot be read is met: the client gets the response. Nothing but a stored 200 or 206 is ever
    compared, and only for GET and HEAD.
    """
    status = head.status
    if status not in (200, 206) or method not in (b"GET", b"HEAD"):
        return status
    tags = headers.get_all(b"if-none-match")
    if tags:
        return 304 if _names(tags, head.headers) else status
    since = headers.get_all(b"if-modified-since")
    if len(since) != 1:  # it is no list
        return status
    date = parse_http_date(since[0])
    modified = _modified(head)
    return 304 if date is not None and modified is not None and modified <= date else status


def range_applies(headers: Headers, head: StoredHead) -> bool:
    """Evaluate If-Range (RFC 9110 section 13.1.5): True without one.

    An entity-tag by strong comparison; a date if it is that of Last-Modified and strong, which it is where the response
    was made so much later that the representation cannot have changed within the same second (section 8.8.2.2).
    """
    values = headers.get_all(b"if-range")
    if not values:
        return True
    if len(values) != 1:
        return False
    value = values[0]
    if value[-1:] == b'"':
        return value[:1] == b'"' and value == entity_tag(head.headers)
    wanted = parse_http_date(value)
    return (
        wanted is not None and wanted == _single_date(head.headers, b"last-modified") and is_strong_date(head.headers)
    )


def is_strong_date(headers: Headers) -> bool:
    """Say whether Last-Modified is a strong validator: Date is so much later that the representation cannot have
    changed within the same second (RFC 9110 section 8.8.2.2)."""
    modified = _single_date(headers, b"last-modified")
    date = _single_date(headers, b"date")
    return modified is not None and date is not None and date - modified >= _DATE_IS_LATER


def not_modified_headers(headers: Headers) -> Headers:
    """Return the fields of a 304 that stands for a response with these (RFC 9110 section 15.4.5).

    Those that the section names, targeted ones like CDN-Cache-Control (RFC 9213), Last-Modified where there is no ETag,
    and what scripts need to see the 304 at all (Access-Control-Allow-Origin and its kin). Never Set-Cookie.
    """
    kept = [
        line
        for line in headers.lines
        if line[0] in _IN_304 or line[0].endswith(b"-cache-control") or line[0].startswith(b"access-control-")
    ]
    if b"etag" not in headers:
        kept.extend(line for line in headers.lines if line[0] == b"last-modified")
    new = Headers()
    new.lines = kept
    return new


def _names(values: list[bytes], stored: Headers) -> bool:
    """Say whether an If-None-Match names the stored response, by weak comparison (RFC 9110 section 13.1.2).

    One that is too long to be read names none: the client gets the response."""
    value = b",".join(values).strip(b" \t")
    if value == b"*":
        return True
    tag = entity_tag(stored)
    if tag is None:
        return False
    if value == tag:
        return True
    if len(value) > LONGEST_TAGS or value.count(b",") >= MOST_TAGS:
        return False
    opaque = tag.removeprefix(b"W/")
    found = False
    position = 0
    while position < len(value):
        element = _ENTITY_TAGS.match(value, position)
        if element is None:
            return False
        found = found or element[1] == opaque
        position = element.end()
    return found


def _modified(head: StoredHead) -> float | None:
    """Return what If-Modified-Since is compared with (RFC 9111 section 4.3.2); None if it cannot be read."""
    for name in (b"last-modified", b"date"):
        if name in head.headers:
            return _single_date(head.headers, name)
    return head.received


def _single_date(headers: Headers, name: bytes) -> float | None:
    values = headers.get_all(name)
    return parse_http_date(values[0]) if len(values) == 1 else None
