"""Single response fields that the rules of caching go by: None for what is not there, or not what it should be."""

from __future__ import annotations

from urllib.parse import urljoin

from twisted_wasmproxy.cache.dates import parse_http_date
from twisted_wasmproxy.cache.directives import delta_seconds
from twisted_wasmproxy.cache.keys import normalized_url, split_url
from twisted_wasmproxy.http.headers import Headers

__all__ = ["age", "content_length", "date", "entity_tag", "same_origin_uri"]

LONGEST_TAG = 1024
"""Bytes of an entity tag; a longer one is none."""
LONGEST_REFERENCE = 8 * 1024
"""Bytes of a URI in Location or Content-Location; a longer one is not resolved."""

_IN_TAGS = bytes([0x21, *range(0x23, 0x7F), *range(0x80, 0x100)])


def age(value: bytes | None) -> int | None:
    """Return the first member of an Age, in seconds (RFC 9111 section 5.1)."""
    return None if value is None else delta_seconds(value.partition(b",")[0].strip(b" \t"))


def content_length(value: bytes | None) -> int | None:
    """Return a Content-Length in bytes (RFC 9110 section 8.6)."""
    # Longer ones stand for nothing that there is, and could not be converted.
    return int(value) if value is not None and value.isdigit() and len(value) < 20 else None


def date(headers: Headers, name: bytes, now: float | None = None) -> int | None:
    """Return the time in the first line of this name, in seconds since the epoch; `now`: see `parse_http_date`."""
    value = headers.get(name)
    return None if value is None else parse_http_date(value, now)


def entity_tag(headers: Headers) -> bytes | None:
    """Return the ETag (RFC 9110 section 8.8.3); None also for several that differ."""
    values = headers.get_all(b"etag")
    if not values or values.count(values[0]) != len(values):
        return None
    opaque = values[0].removeprefix(b"W/")
    if not 2 <= len(opaque) <= LONGEST_TAG or opaque[:1] != b'"' or opaque[-1:] != b'"':
        return None
    if opaque[1:-1].translate(None, _IN_TAGS):
        return None
    return values[0]


def same_origin_uri(target: bytes, reference: bytes) -> bytes | None:
    """Return the normalised URI that a reference means, resolved against the normalised `target` (RFC 3986 section 5);
    None if it is not valid, too long or of another origin (RFC 9110 section 4.3.1)."""
    if len(reference) > LONGEST_REFERENCE:
        return None
    try:
        # latin-1: any octet is a character, and comes back as it was.
        absolute = urljoin(target.decode("latin-1"), reference.decode("latin-1")).encode("latin-1")
    except ValueError:
        return None
    uri = normalized_url(*split_url(absolute))
    return uri if split_url(uri)[:2] == split_url(target)[:2] else None
