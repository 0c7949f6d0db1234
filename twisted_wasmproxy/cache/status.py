"""Cache-Status (RFC 9211): what this cache has to say about its handling of a request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from twisted_wasmproxy.config.model import CacheConfig
from twisted_wasmproxy.http.headers import Headers

__all__ = ["CacheStatus", "add_status"]

Forward = Literal["bypass", "method", "uri-miss", "vary-miss", "miss", "request", "stale", "partial"]


@dataclass(slots=True)
class CacheStatus:
    """The member of this cache (RFC 9211 section 2)."""

    hit: bool = False
    fwd: Forward | None = None
    fwd_status: int | None = None
    """Status of the origin's answer; said where it is not that of the response."""
    ttl: int | None = None
    """Seconds that the response is still fresh for; negative if it is stale."""
    stored: bool = False
    collapsed: bool = False
    detail: str | None = None
    """A few words of ours, as a token or string."""


def add_status(headers: Headers, status: CacheStatus, key: bytes, config: CacheConfig) -> None:
    """Append the member of this cache, behind those of caches nearer to the origin. Nothing if `config.status` is off."""
    raise NotImplementedError
