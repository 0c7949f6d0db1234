"""Cache-Status (RFC 9211): what this cache has to say about its handling of a request."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from twisted_wasmproxy.cache.keys import shown_key
from twisted_wasmproxy.config.model import CacheConfig
from twisted_wasmproxy.http.headers import Headers

__all__ = ["LONGEST_KEY", "CacheStatus", "add_status"]

Forward = Literal["bypass", "method", "uri-miss", "vary-miss", "miss", "request", "stale", "partial"]

LONGEST_KEY = 2048
"""Bytes; longer ones are left out: many clients take no more than 8 KiB of fields."""

_LARGEST_INTEGER = 999_999_999_999_999
"""RFC 9651 section 3.3.1."""

_TOKEN = re.compile(r"[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*")


@dataclass(slots=True)
class CacheStatus:
    """The member of this cache (RFC 9211 section 2)."""

    hit: bool = False
    """Without effect where `fwd` is set: a request is either satisfied from the cache or goes on."""
    fwd: Forward | None = None
    fwd_status: int | None = None
    """Status of the origin's answer; said where it is not that of the response. This, `stored` and `collapsed` are said
    only with `fwd`."""
    ttl: int | None = None
    """Seconds that the response is still fresh for; negative if it is stale."""
    stored: bool = False
    collapsed: bool = False
    detail: str | None = None
    """A few words of ours, as a token or string."""


def add_status(headers: Headers, status: CacheStatus, key: bytes, config: CacheConfig) -> None:
    """Append the member of this cache, behind those of caches nearer to the origin. Nothing if `config.status` is off.

    It has a line of its own, so that it is all there whatever the other lines are."""
    if not config.status:
        return
    member = _token_or_string(config.status_name)
    if status.fwd is not None:
        member += b";fwd=" + status.fwd.encode()
        if status.fwd_status is not None:
            member += b";fwd-status=%d" % status.fwd_status
    elif status.hit:
        member += b";hit"
    ttl = status.ttl
    if ttl is not None:
        member += b";ttl=%d" % max(-_LARGEST_INTEGER, min(ttl, _LARGEST_INTEGER))
    if status.fwd is not None:
        if status.stored:
            member += b";stored"
        if status.collapsed:
            member += b";collapsed"
    if config.status_key and len(key) <= LONGEST_KEY:
        member += _key(key)
    if status.detail is not None:
        member += b";detail=" + _token_or_string(status.detail)
    headers.lines.append((b"cache-status", b"Cache-Status", member))


@lru_cache(maxsize=256)  # what is asked for often is, and the rest costs little more
def _key(key: bytes) -> bytes:
    return b";key=" + _string(shown_key(key))


def _string(printable: bytes) -> bytes:
    """Serialise an sf-string (RFC 9651 section 4.1.6)."""
    if b'"' in printable or b"\\" in printable:
        printable = printable.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    return b'"' + printable + b'"'


@lru_cache(maxsize=256)
def _token_or_string(text: str) -> bytes:
    """Serialise as an sf-token if that is possible, else as an sf-string; what neither can have becomes `?`."""
    if _TOKEN.fullmatch(text):
        return text.encode()
    return _string("".join(char if " " <= char <= "~" else "?" for char in text).encode())
