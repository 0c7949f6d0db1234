"""Answers that the proxy makes itself: from a filter's local reply, and from what went wrong."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote_from_bytes

from twisted_wasmproxy.http.headers import Headers
from twisted_wasmproxy.http.messages import REASONS, Request, Response
from twisted_wasmproxy.http.stream import StreamError, StreamFault

__all__ = ["LocalReply", "build", "error", "from_fault", "held_too_long", "overflow"]


class LocalReply:
    """An answer made by a filter or by the proxy itself."""

    __slots__ = ("body", "details", "filter", "grpc_status", "headers", "replaces", "status")

    def __init__(
        self,
        status: int,
        headers: Sequence[tuple[bytes, bytes]] = (),
        body: bytes = b"",
        details: bytes = b"",
        grpc_status: int = -1,
        filter: str = "",
    ) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.details = details
        """Why, for the log."""
        self.grpc_status = grpc_status
        """0 or more: answer a gRPC request with this."""
        self.filter = filter
        """Name of the filter that answers; empty for the proxy itself."""
        self.replaces = False
        """Whether the filter says it of a response head that it is shown, which may be a local answer itself."""


_GRPC_OF_HTTP = {400: 13, 401: 16, 403: 7, 404: 12, 429: 14, 502: 14, 503: 14, 504: 14}
"""gRPC status by HTTP status, as the gRPC specification maps them; anything else is 2 (unknown)."""

_STATUS_OF_FAULT = {
    StreamFault.DISCONNECTED: 502,
    StreamFault.PROTOCOL: 502,
    StreamFault.INCOMPLETE: 502,
    StreamFault.CONNECT: 502,
    StreamFault.DENIED: 403,
    StreamFault.TIMEOUT: 504,
    StreamFault.OVERLOAD: 503,
    StreamFault.INTERNAL: 500,
}


def error(status: int, cause: str, details: bytes) -> LocalReply:
    """Return an answer whose short body names the cause (for the client) and whose details go to the log."""
    reason = REASONS.get(status, b"").decode()
    body = f"{status} {reason}: {cause}\n".encode()
    return LocalReply(status, [(b"Content-Type", b"text/plain; charset=utf-8")], body, details)


def overflow(status: int, direction: str) -> LocalReply:
    """Return the answer where a filter holds more than it may."""
    text = f"the {direction} body is more than a filter may hold"
    return error(status, text, direction.encode() + b"_payload_too_large")


def held_too_long() -> LocalReply:
    """Return the answer where a filter has held a stream for as long as it may."""
    return error(504, "a filter has held the stream for too long", b"filter_timeout")


def from_fault(fault: StreamError, cause: str) -> LocalReply:
    """Return the answer for an origin that could not be asked or gave no usable answer (RFC 9110 section 15.6).

    `cause` is the fault in words that are fit for a client.
    """
    return error(_STATUS_OF_FAULT[fault.fault], cause, fault.fault.name.lower().encode())


def build(reply: LocalReply, request: Request) -> tuple[Response, bytes]:
    """Return head and content. Header lines that a local answer may not have (framing) are left out.

    To a gRPC request with a `grpc_status` it is a trailers-only answer (gRPC over HTTP/2, "Responses"), as Envoy
    makes it.
    """
    content_type = request.headers.get(b"content-type")
    if content_type is not None and content_type.startswith(b"application/grpc") and request.method == b"POST":
        grpc_status = reply.grpc_status if reply.grpc_status >= 0 else _GRPC_OF_HTTP.get(reply.status, 2)
        headers = Headers([(b"Content-Type", b"application/grpc"), (b"grpc-status", b"%d" % grpc_status)])
        if reply.body:
            headers.add(b"grpc-message", quote_from_bytes(reply.body, safe=" !\"#$&'()*+,/:;<=>?@[\\]^`{|}").encode())
        for name, value in reply.headers:
            if name.lower() not in _NOT_LOCAL and name.lower() != b"content-type":
                headers.add(name, value)
        return Response(200, headers), b""
    status = reply.status if 200 <= reply.status <= 599 else 500
    headers = Headers()
    for name, value in reply.headers:
        if name.lower() not in _NOT_LOCAL:
            headers.add(name, value)
    body = b"" if status in (204, 304) else reply.body
    if body and b"content-type" not in headers:
        headers.add(b"Content-Type", b"text/plain")
    if status not in (204, 304):
        headers.add(b"Content-Length", b"%d" % len(body))
    return Response(status, headers), body


_NOT_LOCAL = frozenset({b"content-length", b"transfer-encoding", b"connection", b"upgrade", b"keep-alive", b":status"})
