"""What tests of the cache share: heads and requests with as little said as a test needs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from twisted_wasmproxy.cache.entry import StoredHead
from twisted_wasmproxy.http.headers import Headers
from twisted_wasmproxy.http.messages import Request

NOW = 1_700_000_000.0
"""When the answers of `head` came."""

Fields = Iterable[tuple[bytes, bytes]]
"""Field lines: pairs, or `Headers`."""


def head(
    url: bytes = b"http://h/", headers: Fields = ((b"Cache-Control", b"max-age=60"),), **changes: Any
) -> StoredHead:
    """Return the head of a 200 that came at `NOW`, under its URL as key; `changes` are attributes of `StoredHead`."""
    attributes: dict[str, Any] = {
        "key": url,
        "url": url,
        "status": 200,
        "reason": b"OK",
        "headers": Headers(headers),
        "request_time": NOW,
        "response_time": NOW,
    }
    return StoredHead(**(attributes | changes))


def request(url: bytes = b"http://h/", headers: Fields = (), method: bytes = b"GET") -> Request:
    """Return a request for an absolute URL."""
    parts = urlsplit(url)
    target = (parts.path or b"/") + (b"?" + parts.query if parts.query else b"")
    return Request(method, parts.scheme, parts.netloc, target, Headers(headers))
