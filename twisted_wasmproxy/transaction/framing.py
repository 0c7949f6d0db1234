"""Content-Length when filters change content: the head waits for the first content, then tells the truth.

A filter that changes a body ought to remove Content-Length, but many forget. A message whose declared and real
lengths differ is broken at best and a smuggled request at worst. So where a filter looks at a body, a head with a
Content-Length is kept back until its content has passed the filters: all of it, and the length is made exact; a
first part that was changed, and the length is dropped (the codec then frames by chunks); an untouched one, and the
length stands, and the codec breaks off a message that does not keep to it.
"""

from __future__ import annotations

from twisted_wasmproxy.http.headers import Headers

__all__ = ["declared_length", "settle_length"]


def settle_length(headers: Headers, total: int | None, modified: bool) -> None:
    """Make Content-Length true, if there is one. `total`: bytes of content in all, if known by now."""
    declared = headers.get(b"content-length")
    if declared is None:
        return
    if total is not None:
        if declared != b"%d" % total:
            headers.set(b"content-length", b"%d" % total)
    elif modified:
        headers.remove(b"content-length")


def declared_length(headers: Headers) -> int | None:
    """Return the Content-Length that a message declares, or None; what a filter has written may be no number."""
    value = headers.get(b"content-length")
    return int(value) if value is not None and value.isdigit() and len(value) <= 20 else None
