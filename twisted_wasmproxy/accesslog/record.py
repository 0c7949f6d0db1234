"""`TransactionRecord`: what is known of a transaction once it has ended, for the access log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twisted_wasmproxy.http.headers import Headers

__all__ = ["TransactionRecord"]


@dataclass(slots=True)
class TransactionRecord:
    """One transaction. Byte counts are as on the wire; those of bodies count what a tunnel carried, too.

    Fields that do not apply keep their defaults and are logged as `-` (numbers: `0`).
    """

    start: float = 0.0
    """When its first byte came, in seconds since the epoch."""
    duration: float = 0.0
    """Seconds from there to the last byte to the client."""

    client_address: str = ""
    """IP address of the client; empty on a UNIX socket."""
    client_port: int = 0
    client_reused: bool = False
    """Whether the client's connection had carried a request before."""
    local_address: str = ""
    """IP address that the client connected to."""
    local_port: int = 0
    tls_version: str = ""
    """As `TLSv1.3`; empty without TLS."""
    tls_cipher: str = ""
    tls_server_name: str = ""
    """SNI of the client."""
    user: bytes = b""
    """Name the client authenticated with at the proxy."""

    method: bytes = b""
    scheme: bytes = b""
    authority: bytes = b""
    path: bytes = b""
    """Scheme, authority and path with query before remapping; together they are the URL that was asked for."""
    mapped_url: bytes = b""
    """URL that was asked of the origin; empty where it is the same."""
    version: bytes = b""
    """HTTP version of the request, as `1.1`."""
    request_headers: Headers | None = None
    """As received."""
    request_header_bytes: int = 0
    request_body_bytes: int = 0
    request_finished: bool = True
    """Whether the client stayed to the end."""

    status: int = 0
    """Status sent to the client; 0 if none was."""
    reason: bytes = b""
    response_headers: Headers | None = None
    """As sent."""
    response_header_bytes: int = 0
    response_body_bytes: int = 0

    result: str = "TCP_MISS"
    """Cache result code: TCP_MISS, TCP_HIT, ERR_CONNECT_FAIL, ERR_CLIENT_ABORT, ..."""
    hierarchy: str = "NONE"
    """DIRECT where an origin was asked, else NONE."""

    origin_name: str = ""
    """Host of the origin as it was named; of an upstream, that of the server chosen."""
    origin_address: str = ""
    """IP address that was connected to."""
    origin_port: int = 0
    origin_tls: bool = False
    origin_attempts: int = 0
    origin_duration: float = 0.0
    """Seconds between the first byte to the origin and the last from it."""
    origin_request_headers: Headers | None = None
    origin_request_header_bytes: int = 0
    origin_request_body_bytes: int = 0
    origin_status: int = 0
    origin_version: bytes = b""
    origin_response_headers: Headers | None = None
    origin_response_header_bytes: int = 0
    origin_response_body_bytes: int = 0
    origin_finish: str = "FIN"
    """FIN, INTR or TIMEOUT."""

    details: bytes = b""
    """Why the proxy, or a filter, answered itself or broke off."""
    filter: str = ""
    """Name of the filter that answered or broke off."""
