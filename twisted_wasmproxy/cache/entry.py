"""What is stored beside a body: `StoredHead`; and how stored responses are chosen for a purge: `Selection`."""

from __future__ import annotations

from dataclasses import dataclass, replace

from twisted_wasmproxy.http.headers import Headers

__all__ = ["Selection", "StoreError", "StoreFull", "StoredHead"]


class StoreError(Exception):
    """A store cannot do what was asked, as the text says: what was to be read is gone, or the store is out of order."""


class StoreFull(StoreError):
    """The content is more than the store keeps of one response."""


@dataclass(frozen=True, slots=True)
class StoredHead:
    """The head of a stored response and what must be known of its request (RFC 9111 section 3). Never changed: a
    freshened response gets another one.

    Times are seconds since the epoch by the cache's clock (`cache.clock`).
    """

    key: bytes
    """The primary cache key; begins with `url`, and whatever else counts follows after a NUL."""
    url: bytes
    """Target URI, with normalised scheme and host and the query as far as it counts: what purges go by."""
    status: int
    reason: bytes
    headers: Headers
    """Fields as they are stored: no hop-by-hop ones, one Age or none. Never changed."""
    request_time: float
    """When the request was sent that the response, or its last validation, answered (RFC 9111 section 4.2.3)."""
    response_time: float
    """When that answer came."""
    version: bytes = b"1.1"
    """HTTP version of the response."""
    vary: tuple[tuple[bytes, bytes | None], ...] = ()
    """(lower-case field name, normalised value or None where the request had none): what a request must have too."""
    authorized: bool = False
    """Whether the request had Authorization (RFC 9111 section 3.5)."""
    length: int | None = None
    """Bytes of the complete representation; None only while that is not known."""
    surrogate_keys: tuple[bytes, ...] = ()
    trailers: Headers | None = None
    purged: float = 0.0
    """When a soft purge made it stale; 0 if none did."""
    wall_ahead: float = 0.0
    """Seconds that the machine's clock was ahead of the cache's when the answer came: it had been set."""

    @property
    def received(self) -> float:
        """When the answer came by the machine's clock: what Date, Expires and Last-Modified are compared with."""
        return self.response_time + self.wall_ahead

    def replaced(self, **changes: object) -> StoredHead:
        """Return a copy with these attributes changed."""
        return replace(self, **changes)  # type: ignore[arg-type]  # a dataclass checks the names itself


@dataclass(frozen=True)
class Selection:
    """Which stored responses: those for which all that is not None holds. With nothing set: all there are."""

    url: bytes | None = None
    """Exactly this `StoredHead.url`, whatever else is in the key; all variants."""
    prefix: bytes | None = None
    """`StoredHead.url` begins with this."""
    host: bytes | None = None
    """Host of `StoredHead.url`, lower-case; without a port: on any port."""
    surrogate_key: bytes | None = None
