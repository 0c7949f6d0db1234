"""Conditional requests answered from what is stored (RFC 9110 section 13)."""

from __future__ import annotations

from twisted_wasmproxy.cache.entry import StoredHead
from twisted_wasmproxy.http.headers import Headers

__all__ = ["is_conditional", "not_modified_headers", "outcome", "range_applies"]


def is_conditional(headers: Headers) -> bool:
    """Say whether the request has a precondition that a cache evaluates (If-None-Match, If-Modified-Since), or one that
    only the origin can (If-Match, If-Unmodified-Since)."""
    raise NotImplementedError


def outcome(method: bytes, headers: Headers, head: StoredHead) -> int:
    """Return the status for a request, by the stored response that is selected for it: 304, or that of the response
    itself (RFC 9110 section 13.2.2, RFC 9111 section 4.3.2)."""
    raise NotImplementedError


def range_applies(headers: Headers, head: StoredHead) -> bool:
    """Evaluate If-Range (RFC 9110 section 13.1.5): True without one."""
    raise NotImplementedError


def not_modified_headers(headers: Headers) -> Headers:
    """Return the fields of a 304 that stands for a response with these (RFC 9110 section 15.4.5)."""
    raise NotImplementedError
