"""What the proxy itself does to messages that it forwards: Via, X-Forwarded-*, Forwarded, Date, Max-Forwards."""

from __future__ import annotations

import hashlib
import socket
from email.utils import formatdate

from twisted_wasmproxy.config.model import HeadersConfig
from twisted_wasmproxy.http.headers import Headers
from twisted_wasmproxy.http.messages import Request, Response

__all__ = ["Forwarder", "http_date"]

_date: tuple[int, bytes] = (0, b"")


def http_date(now: float) -> bytes:
    """Return `now` (seconds since the epoch) as an IMF-fixdate (RFC 9110 section 5.6.7)."""
    global _date
    second = int(now)
    if _date[0] != second:
        _date = (second, formatdate(second, usegmt=True).encode())
    return _date[1]


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

    def is_loop(self, request: Request) -> bool:
        """Return whether the request has been through this very proxy."""
        if self._via is None:
            return False
        for key, _, value in request.headers.lines:
            if key == b"via" and self.identity in value:
                return True
        return False

    def outgoing(self, request: Request, peer: str | None, secure: bool, forward: bool) -> Request:
        """Return the request as it goes to the origin. `peer` is the client's address, `secure` whether it used TLS.

        As a forward proxy (`forward`) the scheme and host that the client named are the origin's own, so only
        X-Forwarded-For is added, and credentials meant for this proxy go no further (RFC 9110 section 11.7.1).
        """
        lines = request.headers.lines.copy()
        out = Headers.__new__(Headers)
        out.lines = lines
        if self._via is not None:
            via = self._via_11 if request.version == b"1.1" else request.version + self._via
            _append(out, b"via", b"Via", via)
        if self._x_forwarded:
            if peer is not None:
                _append(out, b"x-forwarded-for", b"X-Forwarded-For", peer.encode())
            if not forward:
                _set(out, b"x-forwarded-proto", b"X-Forwarded-Proto", b"https" if secure else b"http")
                if request.authority:
                    _set(out, b"x-forwarded-host", b"X-Forwarded-Host", request.authority)
        if self._forwarded:
            element = b"for=" + _node(peer)
            if not forward:
                element += b";proto=" + (b"https" if secure else b"http")
                if request.authority:
                    element += b';host="' + request.authority.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'
            _append(out, b"forwarded", b"Forwarded", element)
        if forward:
            out.remove(b"proxy-authorization")
        return Request(
            request.method,
            request.scheme,
            request.authority,
            request.path,
            out,
            upgrade=request.upgrade,
            target=request.target,
        )

    def incoming(self, response: Response, now: float) -> None:
        """Change an origin's response for the way to the client: Via, and Date where there is none."""
        lines = response.headers.lines
        dated = False
        for line in lines:
            if line[0] == b"date":
                dated = True
                break
        if not dated and response.status >= 200:
            lines.append((b"date", b"Date", http_date(now)))
        if self._via is not None:
            via = self._via_11 if response.version == b"1.1" else response.version + self._via
            _append(response.headers, b"via", b"Via", via)

    def own(self, response: Response, now: float) -> None:
        """Add what belongs to an answer that the proxy makes itself."""
        headers = response.headers
        if b"date" not in headers:
            headers.add(b"Date", http_date(now))
        if self._server is not None and b"server" not in headers:
            headers.add(b"Server", self._server)


def _append(headers: Headers, key: bytes, name: bytes, element: bytes) -> None:
    """Add an element to a list-valued field, at the end of its last line."""
    lines = headers.lines
    for i in range(len(lines) - 1, -1, -1):
        if lines[i][0] == key:
            _, spelled, value = lines[i]
            lines[i] = (key, spelled, value + b", " + element if value else element)
            return
    lines.append((key, name, element))


def _set(headers: Headers, key: bytes, name: bytes, value: bytes) -> None:
    for line in headers.lines:
        if line[0] == key:
            headers.set(name, value)
            return
    headers.lines.append((key, name, value))


def _node(peer: str | None) -> bytes:
    """RFC 7239 section 6."""
    if peer is None:
        return b"unknown"
    return f'"[{peer}]"'.encode() if ":" in peer else peer.encode()
