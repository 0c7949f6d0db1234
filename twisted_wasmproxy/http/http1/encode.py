"""Writing the head of a message, and how its content is framed (RFC 9112 sections 3, 4 and 6)."""

from __future__ import annotations

from enum import Enum

from twisted_wasmproxy.http.headers import Headers
from twisted_wasmproxy.http.http1.chunked import NOT_IN_TRAILERS
from twisted_wasmproxy.http.http1.syntax import HOP_BY_HOP, TOKEN
from twisted_wasmproxy.http.messages import Request, Response

__all__ = ["Framing", "encode_informational", "encode_request", "encode_response", "encode_trailers"]


class Framing(Enum):
    """How the receiver will know where the content ends."""

    NONE = 0
    """There is none, whatever the fields say; what is sent is dropped."""
    LENGTH = 1
    CHUNKED = 2
    CLOSE = 3
    """It ends with the connection."""
    TUNNEL = 4
    """It is not content: the connection has left HTTP."""


_CONTROLS = bytes(set(range(0x20)) - {0x09}) + b"\x7f"
_SKIPPED = HOP_BY_HOP | {b"host"}
_METHODS_WITH_CONTENT = frozenset([b"POST", b"PUT", b"PATCH"])
# Names seen before, which need no second look. Bounded, since peers choose names.
_valid_names: set[bytes] = set()
_VALID_NAMES_LIMIT = 4096


def _check_name(name: bytes) -> None:
    if not TOKEN.fullmatch(name):
        raise ValueError(f"invalid field name {name!r}")
    if len(_valid_names) < _VALID_NAMES_LIMIT and len(name) <= 64:
        _valid_names.add(name)


def _check_head(head: bytes, lines: int) -> bytes:
    """Return `head` if it holds no control byte but for tabs and the CR LF of so many lines; else ValueError.

    One look at the whole, so that no value, reason or target can bring a line of its own.
    """
    if len(head.translate(None, _CONTROLS)) != len(head) - 2 * lines:
        raise ValueError("control bytes in a message head")
    return head


def _encode_fields(parts: list[bytes], headers: Headers, skipped: frozenset[bytes]) -> None:
    valid = _valid_names
    for key, name, value in headers.lines:
        if key in skipped:
            continue
        if name not in valid:
            _check_name(name)
        parts.append(b"%b: %b" % (name, value))


def _content_length(headers: Headers) -> int | None:
    """Return the value of Content-Length, None if absent. Raises ValueError for several or for anything but digits."""
    length = None
    for key, _, value in headers.lines:
        if key == b"content-length":
            if length is not None or not value.isdigit():
                raise ValueError("invalid Content-Length")
            length = int(value)
    return length


_SKIPPED_WITHOUT_LENGTH = _SKIPPED | {b"content-length"}
_SKIPPED_FROM_RESPONSE = HOP_BY_HOP
_SKIPPED_FROM_RESPONSE_WITHOUT_LENGTH = HOP_BY_HOP | {b"content-length"}


def encode_request(request: Request, end_stream: bool) -> tuple[bytes, Framing, int]:
    """Return the head of a request for the wire, its framing, and its content's length where that is LENGTH.

    Raises ValueError where a part of it must not be sent.
    """
    method = request.method
    if method not in _valid_names:
        _check_name(method)
    authority = request.authority
    target = authority if method == b"CONNECT" else request.path
    if not target or b" " in target or b" " in authority or b"\t" in target:
        raise ValueError("invalid request target or authority")
    parts = [b"%b %b HTTP/1.1" % (method, target), b"Host: %b" % authority]
    length = _content_length(request.headers)
    _encode_fields(parts, request.headers, _SKIPPED)
    framing = Framing.NONE
    if length is not None:
        framing = Framing.LENGTH
    elif not end_stream:
        framing = Framing.CHUNKED
        parts.append(b"Transfer-Encoding: chunked")
    elif method in _METHODS_WITH_CONTENT:
        parts.append(b"Content-Length: 0")
    if request.upgrade is not None:
        parts.append(b"Connection: Upgrade\r\nUpgrade: %b" % request.upgrade)
        lines = len(parts) + 2
    else:
        lines = len(parts) + 1
    parts.append(b"\r\n")
    return _check_head(b"\r\n".join(parts), lines), framing, length or 0


def encode_response(
    response: Response, request: Request, end_stream: bool, keep_alive: bool
) -> tuple[bytes, Framing, int]:
    """Return the head of a final response (or of a 101) for the wire, its framing, and the length where that is LENGTH.

    `keep_alive` says that the connection will serve another request; with Framing.CLOSE it will not all the same.
    Raises ValueError where a part of it must not be sent.
    """
    status = response.status
    headers = response.headers
    skipped = _SKIPPED_FROM_RESPONSE
    length = None
    extra = b""
    if status == 101 or (request.method == b"CONNECT" and 200 <= status < 300):
        framing = Framing.TUNNEL
        skipped = _SKIPPED_FROM_RESPONSE_WITHOUT_LENGTH
        if status == 101:
            extra = b"Connection: Upgrade\r\nUpgrade: %b" % (response.upgrade or request.upgrade or b"")
    elif status == 204:
        framing = Framing.NONE
        skipped = _SKIPPED_FROM_RESPONSE_WITHOUT_LENGTH
    elif status == 304 or request.method == b"HEAD":
        framing = Framing.NONE
        _content_length(headers)
    else:
        length = _content_length(headers)
        if length is not None:
            framing = Framing.LENGTH
        elif end_stream:
            framing = Framing.NONE
            extra = b"Content-Length: 0"
        elif request.version == b"1.1":
            framing = Framing.CHUNKED
            extra = b"Transfer-Encoding: chunked"
        else:
            framing = Framing.CLOSE
    parts = [b"HTTP/1.1 %d %b" % (status, response.reason)]
    _encode_fields(parts, headers, skipped)
    lines = 1
    if extra:
        parts.append(extra)
        lines += extra.count(b"\r\n") if status == 101 else 0
    if framing is not Framing.TUNNEL:
        if not keep_alive or framing is Framing.CLOSE:
            parts.append(b"Connection: close")
        elif request.version == b"1.0":
            parts.append(b"Connection: keep-alive")
    lines += len(parts)
    parts.append(b"\r\n")
    return _check_head(b"\r\n".join(parts), lines), framing, length or 0


def encode_informational(response: Response) -> bytes:
    """Return a 1xx response for the wire. Raises ValueError where a part of it must not be sent."""
    parts = [b"HTTP/1.1 %d %b" % (response.status, response.reason)]
    _encode_fields(parts, response.headers, _SKIPPED_FROM_RESPONSE_WITHOUT_LENGTH)
    lines = len(parts) + 1
    parts.append(b"\r\n")
    return _check_head(b"\r\n".join(parts), lines)


def encode_trailers(trailers: Headers | None) -> bytes:
    """Return the last chunk with these trailer fields. Raises ValueError where one must not be sent."""
    if not trailers:
        return b"0\r\n\r\n"
    parts = [b"0"]
    _encode_fields(parts, trailers, NOT_IN_TRAILERS)
    lines = len(parts) + 1
    parts.append(b"\r\n")
    return _check_head(b"\r\n".join(parts), lines)
