"""What is to be stored of a response that has just come: its head, and which part of the representation it brings."""

from __future__ import annotations

from typing import NamedTuple

from twisted_wasmproxy.cache import combining, policy
from twisted_wasmproxy.cache.entry import StoredHead
from twisted_wasmproxy.cache.fields import content_length
from twisted_wasmproxy.cache.lookup import Lookup
from twisted_wasmproxy.http.headers import Headers
from twisted_wasmproxy.http.messages import Request, Response

__all__ = ["Arriving", "arriving", "complete"]


class Arriving(NamedTuple):
    """A head to store, and the content that comes with it: from `start` to `stop`, None if that is not known."""

    head: StoredHead
    start: int
    stop: int | None


def arriving(
    lookup: Lookup,
    request: Request,
    response: Response,
    end_stream: bool,
    request_time: float,
    response_time: float,
    wall_ahead: float,
) -> Arriving | None:
    """Return what to store of a response to `request`; None for a 206 that does not say for certain what it brings.

    Times and `wall_ahead`: as in `StoredHead`. A 206 is stored as the 200 that it is a part of (RFC 9111 section 3.4).
    """
    caching = lookup.caching
    headers = policy.stored_headers(response, caching.rules, caching.config, response_time + wall_ahead)
    status, reason, start = response.status, response.reason, 0
    length = stop = 0 if end_stream else content_length(headers.get(b"content-length"))
    if status == 206:
        part = combining.brought_part(request, response)
        if part is None or part.length is None:
            return None
        status, reason, start, stop, length = 200, b"OK", part.start, part.stop, part.length
        headers.remove(b"content-range")
        headers.remove(b"content-length")
        headers.add(b"Content-Length", b"%d" % part.length)
    head = StoredHead(
        key=lookup.key,
        url=lookup.url,
        status=status,
        reason=reason,
        headers=headers,
        request_time=request_time,
        response_time=response_time,
        version=response.version,
        vary=policy.selecting(policy.vary_names(response.headers) or (), request.headers),
        authorized=b"authorization" in request.headers,
        length=length,
        wall_ahead=wall_ahead,
        surrogate_keys=policy.surrogate_keys(response, caching.rules, caching.config),
    )
    return Arriving(head, start, stop)


def complete(head: StoredHead, length: int, trailers: Headers | None) -> StoredHead:
    """Return the head of a response that has come to its end, at `length`."""
    if head.length is None:
        headers = head.headers.copy()
        headers.set(b"Content-Length", b"%d" % length)
        head = head.replaced(headers=headers, length=length)
    return head if trailers is None else head.replaced(trailers=trailers)
