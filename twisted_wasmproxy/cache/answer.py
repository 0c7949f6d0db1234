"""The answer to one request from one stored response: its conditions and range applied, Age and Cache-Status added."""

from __future__ import annotations

from collections.abc import Sequence

from twisted_wasmproxy.cache import conditional, policy, ranges
from twisted_wasmproxy.cache.delivery import Piece
from twisted_wasmproxy.cache.entry import StoredHead
from twisted_wasmproxy.cache.lookup import Lookup
from twisted_wasmproxy.cache.policy import Freshness
from twisted_wasmproxy.cache.status import CacheStatus, add_status
from twisted_wasmproxy.http.headers import Headers
from twisted_wasmproxy.http.messages import Response

__all__ = ["Parts", "answer", "wanted_part"]

Parts = Sequence[tuple[int, int | None]]
"""What there is of the representation; the last stop is None as long as its end is not known."""


def answer(
    lookup: Lookup,
    head: StoredHead,
    parts: Parts,
    fresh: Freshness,
    status: CacheStatus,
    now: float,
    headers: Headers | None,
    validated: bool,
) -> tuple[Response, list[Piece]] | None:
    """Return the head, and the pieces of content to give (none: it has no content); None where too little is stored.

    `headers`: the fields of the answer, if not those of `head`; they are changed. `validated`: the origin was asked for
    just this request, and so there is no Age but that of caches on the way (RFC 9111 section 5.1).
    """
    request = lookup.client.request
    asked = request.headers
    if headers is None:
        headers = head.headers.copy()
    headers.remove(b"age")
    age = int(policy.current_age(fresh, now))
    status.ttl = round(policy.remaining(fresh, now))
    code, reason = head.status, head.reason
    pieces: list[Piece] | None = None
    if conditional.is_conditional(asked) and conditional.outcome(request.method, asked, head) == 304:
        code, reason = 304, b"Not Modified"
        headers = conditional.not_modified_headers(headers)
        pieces = []
    elif request.method == b"HEAD" or head.length == 0 or code in (204, 304):
        pieces = [] if parts or head.length == 0 else None
    elif code == 200 and b"range" in asked:
        partial = _partial(lookup, head)
        if partial is not None:
            code, reason = partial.status, b"Partial Content" if partial.status == 206 else b"Range Not Satisfiable"
            if not all(isinstance(piece, bytes) or contains(parts, piece) for piece in partial.pieces):
                return None
            if partial.status == 416:
                headers = _unsatisfied(headers)
            for name, value in partial.headers:
                headers.set(name, value)
            pieces = list(partial.pieces)
    if pieces is None:
        if parts[0][0] != 0 or len(parts) > 1 or parts[0][1] not in (None, head.length):
            return None
        pieces = [(0, parts[0][1])]
    if age or not validated:
        headers.lines.append((b"age", b"Age", b"%d" % age))
    add_status(headers, status, lookup.key, lookup.caching.config)
    return Response(code, headers, reason, head.version), pieces


_OF_THE_REPRESENTATION = frozenset({b"etag", b"last-modified", b"expires", b"content-type", b"content-encoding"})


def _unsatisfied(headers: Headers) -> Headers:
    """Return the fields for a 416, which is no representation of the resource, out of those of the stored response."""
    kept = Headers()
    kept.lines = [
        line
        for line in headers.lines
        if line[0] not in _OF_THE_REPRESENTATION and not line[0].endswith(b"cache-control")
    ]
    return kept


def contains(parts: Parts, wanted: tuple[int, int | None]) -> bool:
    """Say whether all of `wanted` is there, or on its way."""
    start, stop = wanted
    return any(first <= start and (last is None or (stop is not None and stop <= last)) for first, last in parts)


def _partial(lookup: Lookup, head: StoredHead) -> ranges.Partial | None:
    asked = lookup.client.request.headers
    if head.length is None or not conditional.range_applies(asked, head):
        return None
    values = asked.get_all(b"range")
    if len(values) != 1:
        return None
    return ranges.partial(values[0], head.length, head.headers.get(b"content-type"))


def wanted_part(lookup: Lookup, head: StoredHead) -> tuple[int, int] | None:
    """Return the one part of a representation of known length that the request needs; None if there is no such one."""
    request = lookup.client.request
    length = head.length
    if length is None or request.method != b"GET":
        return None
    partial = _partial(lookup, head) if b"range" in request.headers else None
    if partial is None:
        return (0, length)
    if len(partial.pieces) == 1 and not isinstance(partial.pieces[0], bytes):
        return partial.pieces[0]
    return None
