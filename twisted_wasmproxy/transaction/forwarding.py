"""What the proxy itself does to messages that it forwards: Via, X-Forwarded-*, Forwarded, Date, Max-Forwards."""

from __future__ import annotations

import hashlib
import socket

from twisted_wasmproxy.cache.dates import http_date
from twisted_wasmproxy.config.model import HeadersConfig
from twisted_wasmproxy.http.headers import Headers
from twisted_wasmproxy.http.messages import Request, Response

__all__ = ["Forwarder"]


class Forwarder:
    """The rules of one configuration.

    `identity` tells this proxy from others of the same pseudonym, in a comment of Via: it is how a loop is seen.
    """

    def __init__(self, config: HeadersConfig, endpoints: tuple[str, ...]) -> None:
        self._config = config
        name = "\0".join((socket.gethostname(), *endpoints))
        self.identity = hashlib.sha256(name.encode()).hexdigest()[:10].encode()
        self._via = f" {config.via} (".encode() + self.identity + b")" if config.via else None
        self._via_11 = b"1.1" + self._via if self._via else b""
        self._x_forwarded = config.x_forwarded
        self._forwarded = config.forwarded
        self._server = config.server.encode() if config.server else None
        lists = {b"via"} if self._via is not None else set()
        if self._x_forwarded:
            lists.add(b"x-forwarded-for")
            # As a forward proxy they are not said at all: what a client makes of them would be in no cache key.
            lists |= {b"x-forwarded-proto", b"x-forwarded-host"}
        if self._forwarded:
            lists.add(b"forwarded")
        self._written_forward = frozenset({*lists, b"proxy-authorization"})
        self._written_reverse = frozenset(lists)

    def is_loop(self, request: Request) -> bool:
        """Return whether the request has been through this very proxy."""
        if self._via is None:
            return False
        for key, _, value in request.headers.lines:  # noqa: SIM110  # a generator would cost several times as much
            if key == b"via" and self.identity in value:
                return True
        return False

    def outgoing(self, request: Request, path: bytes, peer: str | None, forward: bool) -> Request:
        """Return the request as it goes to the origin. `peer` is the client's address.

        As a forward proxy (`forward`) the scheme and host that the client named are the origin's own, so only
        X-Forwarded-For is added, and credentials meant for this proxy go no further (RFC 9110 section 11.7.1).
        """
        written = self._written_forward if forward else self._written_reverse
        lines = request.headers.lines
        headers = Headers.__new__(Headers)
        headers.lines = out = [line for line in lines if line[0] not in written]
        old = lines if len(out) != len(lines) else []
        if self._via is not None:
            via = self._via_11 if request.version == b"1.1" else request.version + self._via
            out.append((b"via", b"Via", _appended(old, b"via", via)))
        if self._x_forwarded:
            if peer is not None:
                out.append((b"x-forwarded-for", b"X-Forwarded-For", _appended(old, b"x-forwarded-for", peer.encode())))
            if not forward:
                out.append((b"x-forwarded-proto", b"X-Forwarded-Proto", request.scheme))
                if request.authority:
                    out.append((b"x-forwarded-host", b"X-Forwarded-Host", request.authority))
        if self._forwarded:
            element = b"for=" + _node(peer)
            if not forward:
                element += b";proto=" + request.scheme
                if request.authority:
                    element += b';host="' + request.authority.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'
            out.append((b"forwarded", b"Forwarded", _appended(old, b"forwarded", element)))
        return Request(
            request.method,
            request.scheme,
            request.authority,
            path,
            headers,
            upgrade=request.upgrade,
            target=request.target,
        )

    def incoming(self, response: Response, now: float) -> None:
        """Change an origin's response for the way to the client: Via, and Date where there is none."""
        lines = response.headers.lines
        dated = vias = False
        for line in lines:
            key = line[0]
            if key == b"date":
                dated = True
            elif key == b"via":
                vias = True
        if not dated and response.status >= 200:
            lines.append((b"date", b"Date", http_date(now)))
        if self._via is not None:
            via = self._via_11 if response.version == b"1.1" else response.version + self._via
            if vias:
                via = _appended(lines, b"via", via)
                lines[:] = [line for line in lines if line[0] != b"via"]
            lines.append((b"via", b"Via", via))

    def own(self, response: Response, now: float) -> None:
        """Add what belongs to an answer that the proxy makes itself."""
        headers = response.headers
        if b"date" not in headers:
            headers.add(b"Date", http_date(now))
        if self._server is not None and b"server" not in headers:
            headers.add(b"Server", self._server)


def _appended(lines: list[tuple[bytes, bytes, bytes]], key: bytes, element: bytes) -> bytes:
    """Return the list that a field holds, in however many lines, with one more element."""
    if not lines:
        return element
    return b", ".join([*(value for name, _, value in lines if name == key and value), element])


def _node(peer: str | None) -> bytes:
    """RFC 7239 section 6."""
    if peer is None:
        return b"unknown"
    return f'"[{peer}]"'.encode() if ":" in peer else peer.encode()
