"""Writing the head of a message, and how its content is framed (RFC 9112 sections 3, 4 and 6)."""

from __future__ import annotations

from enum import Enum

from twisted_wasmproxy.http.headers import Headers
from twisted_wasmproxy.http.http1.syntax import HOP_BY_HOP, TOKEN
from twisted_wasmproxy.http.messages import Request, Response
from twisted_wasmproxy.http.trailers import allowed_trailers

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


# An attribute of an Enum costs ten times a global.
_NONE = Framing.NONE
_LENGTH = Framing.LENGTH
_CHUNKED = Framing.CHUNKED
_CLOSE = Framing.CLOSE
_TUNNEL = Framing.TUNNEL

_END = b"\r\n"  # joined to what is before it by another, which makes the empty line
_CONTROLS = bytes(set(range(0x20)) - {0x09}) + b"\x7f"
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
    """Return `head` if it has no control byte but for tabs and so many CR LF; else ValueError.

    One look at the whole, so that no value, reason or target can bring a line of its own.
    """
    if len(head.translate(None, _CONTROLS)) != len(head) - 2 * lines:
        raise ValueError("control bytes in a message head")
    return head


def _encode_fields(parts: list[bytes], headers: Headers, skipped: frozenset[bytes]) -> None:
    valid = _valid_names
    for key, name, value in headers.lines:
        if key not in skipped:
            if name not in valid:
                _check_name(name)
            parts.append(name + b": " + value)


def _encode_fields_and_length(parts: list[bytes], headers: Headers, skipped: frozenset[bytes]) -> int | None:
    """Append the fields but those skipped, among which is Content-Length: its value is returned, None if absent.

    Raises ValueError for several of it, or for one that is not a number.
    """
    length = None
    valid = _valid_names
    for key, name, value in headers.lines:
        if key in skipped:
            if key != b"content-length":
                continue
            if length is not None or not value.isdigit() or len(value) > 20:
                raise ValueError("invalid Content-Length")
            length = int(value)
        elif name not in valid:
            _check_name(name)
        parts.append(name + b": " + value)
    return length


_HOP_BY_HOP_AND_HOST = HOP_BY_HOP | {b"host"}
_SKIPPED_FROM_REQUEST = _HOP_BY_HOP_AND_HOST | {b"content-length"}
_NOTHING: frozenset[bytes] = frozenset()
_SKIPPED_FROM_RESPONSE = HOP_BY_HOP | {b"content-length"}


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
    parts = [method + b" " + target + b" HTTP/1.1", b"Host: " + authority]
    length = _encode_fields_and_length(parts, request.headers, _SKIPPED_FROM_REQUEST)
    framing = _NONE
    if length is not None:
        framing = _LENGTH
    elif not end_stream:
        framing = _CHUNKED
        parts.append(b"Transfer-Encoding: chunked")
    elif method in _METHODS_WITH_CONTENT:
        parts.append(b"Content-Length: 0")
    if request.upgrade is not None:
        parts += (b"Connection: Upgrade", b"Upgrade: " + request.upgrade)
    parts.append(_END)
    return _check_head(b"\r\n".join(parts), len(parts)), framing, length or 0


def encode_response(
    response: Response, request: Request, end_stream: bool, keep_alive: bool, method: bytes | None = None
) -> tuple[bytes, Framing, int]:
    """Return the head of a final response (or of a 101) for the wire, its framing, and the length where that is LENGTH.

    `keep_alive` says that the connection will serve another request; with Framing.CLOSE it will not all the same.
    `method` is the one that the client sent, and that frames its answer, where `request` may have another by now.
    Raises ValueError where a part of it must not be sent.
    """
    status = response.status
    if method is None:
        method = request.method
    parts = [b"HTTP/1.1 %d %b" % (status, response.reason)]
    connected = status < 300 and method == b"CONNECT"
    if connected or status == 204 or status == 101:
        # RFC 9110 section 8.6: neither these nor a 2xx to CONNECT may have a Content-Length.
        _encode_fields(parts, response.headers, _SKIPPED_FROM_RESPONSE)
        length = None
        framing = _NONE if status == 204 and not connected else _TUNNEL
        if status == 101:
            parts += (b"Connection: Upgrade", b"Upgrade: " + (response.upgrade or request.upgrade or b""))
    else:
        length = _encode_fields_and_length(parts, response.headers, _SKIPPED_FROM_RESPONSE)
        if status == 304 or method == b"HEAD":
            framing = _NONE
        elif end_stream and length:
            # What had no content by its method or status has another by now: its length was that of what is not sent.
            headers = response.headers.copy()
            headers.set(b"content-length", b"0")
            empty = Response(status, headers, response.reason)
            return encode_response(empty, request, True, keep_alive, method)
        elif length is not None:
            framing = _LENGTH
        elif end_stream:
            framing = _NONE
            parts.append(b"Content-Length: 0")
        elif request.version == b"1.1":
            framing = _CHUNKED
            parts.append(b"Transfer-Encoding: chunked")
        else:
            framing = _CLOSE
            keep_alive = False
    if framing is not _TUNNEL:
        if not keep_alive:
            parts.append(b"Connection: close")
        elif request.version == b"1.0":
            parts.append(b"Connection: keep-alive")
    parts.append(_END)
    return _check_head(b"\r\n".join(parts), len(parts)), framing, length or 0


def encode_informational(response: Response) -> bytes:
    """Return a 1xx response for the wire. Raises ValueError where a part of it must not be sent."""
    parts = [b"HTTP/1.1 %d %b" % (response.status, response.reason)]
    _encode_fields(parts, response.headers, _SKIPPED_FROM_RESPONSE)
    parts.append(_END)
    return _check_head(b"\r\n".join(parts), len(parts))


def encode_trailers(trailers: Headers | None) -> bytes:
    """Return the last chunk with those of these fields that may be trailers, whoever has added them.

    Raises ValueError for a field that is none.
    """
    if not trailers:
        return b"0\r\n\r\n"
    parts = [b"0"]
    _encode_fields(parts, allowed_trailers(trailers), _NOTHING)
    parts.append(_END)
    return _check_head(b"\r\n".join(parts), len(parts))
