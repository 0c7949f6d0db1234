"""`Request` and `Response`: the head of a message, free of any wire format.

Hop-by-hop fields never get in here: a codec takes them out on receipt (Connection, what it names, Keep-Alive,
Proxy-Connection, TE, Transfer-Encoding, Upgrade; RFC 9110 section 7.6.1) and puts its own on the wire. The two
exceptions are `Connection` and `Upgrade` of a message that asks for or grants an upgrade (`upgrade` is set).
`Host` is `authority`, and not among `headers`.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from twisted_wasmproxy.http.headers import Headers

__all__ = ["REASONS", "Request", "Response", "SharedResponse"]

REASONS: dict[int, bytes] = {status.value: status.phrase.encode() for status in HTTPStatus} | {
    413: b"Content Too Large",
    416: b"Range Not Satisfiable",
    422: b"Unprocessable Content",
}
"""Reason phrases by status code (RFC 9110 section 15)."""


class Request:
    """The head of a request: its control data (RFC 9110 section 6.2) and fields."""

    __slots__ = ("authority", "headers", "method", "path", "scheme", "target", "upgrade", "version")

    def __init__(
        self,
        method: bytes,
        scheme: bytes,
        authority: bytes,
        path: bytes,
        headers: Headers,
        version: bytes = b"1.1",
        upgrade: bytes | None = None,
        target: bytes | None = None,
    ) -> None:
        self.method = method
        """Method token, as sent (case-sensitive)."""
        self.scheme = scheme
        """`http` or `https`; empty for CONNECT."""
        self.authority = authority
        """`host[:port]` that the client asked for, in its normal form (see `authority`); may be empty (HTTP/1.0)."""
        self.path = path
        """Origin-form target with its query; `*` in asterisk form; empty for CONNECT."""
        self.headers = headers
        self.version = version
        """HTTP version of the message as received: `1.0`, `1.1`, `2`."""
        self.upgrade = upgrade
        """Value of Upgrade where the message asks to leave HTTP (RFC 9110 section 7.8), else None."""
        self.target = path if target is None else target
        """Request target as it came (RFC 9112 section 3.2), whatever `path` has become since."""

    def __repr__(self) -> str:
        return f"<Request {self.method!r} {self.scheme!r} {self.authority!r} {self.path!r} HTTP/{self.version!r}>"


class Response:
    """The head of a response: status and fields."""

    __slots__ = ("headers", "reason", "status", "upgrade", "version")

    def __init__(
        self,
        status: int,
        headers: Headers,
        reason: bytes | None = None,
        version: bytes = b"1.1",
        upgrade: bytes | None = None,
    ) -> None:
        self.status = status
        """100 to 999."""
        self.headers = headers
        self.reason = REASONS.get(status, b"") if reason is None else reason
        """Reason phrase as received (HTTP/1), or the usual one."""
        self.version = version
        self.upgrade = upgrade
        """Value of Upgrade in a 101, else None."""

    def __repr__(self) -> str:
        return f"<Response {self.status} {self.reason!r}>"


class SharedResponse(Response):
    """A head that answers many requests: it is never changed, and who wants to change it takes a copy."""

    __slots__ = ("encoded",)

    encoded: Any
    """For a codec to remember what it has made of it; None at first."""

    @classmethod
    def of(cls, response: Response) -> SharedResponse:
        """Return one with the fields of `response`, which must not be changed any more."""
        shared = cls(response.status, response.headers, response.reason, response.version)
        shared.encoded = None
        return shared

    def copy(self) -> Response:
        """Return one that may be changed."""
        return Response(self.status, self.headers.copy(), self.reason, self.version)
