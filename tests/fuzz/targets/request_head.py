"""Heads of HTTP/1 requests: the same in any pieces, clean, and what is passed on is read as it was meant."""

from __future__ import annotations

from tests.fuzz.heads import LIMITS, WORDS, Head, check_fields, read_in_all_pieces
from twisted_wasmproxy.http.authority import normal_authority
from twisted_wasmproxy.http.http1.encode import encode_request
from twisted_wasmproxy.http.http1.head import RequestHead
from twisted_wasmproxy.http.http1.syntax import TOKEN
from twisted_wasmproxy.http.messages import Request

__all__ = ["WORDS", "run"]


def run(data: bytes) -> None:
    if not data:
        return
    head = read_in_all_pieces(data, lambda: RequestHead(LIMITS, False), _told)
    if head is None:
        return
    assert isinstance(head, RequestHead)
    request = head.request
    assert TOKEN.fullmatch(request.method)
    assert normal_authority(request.authority) == request.authority
    assert not (head.chunked and head.content_length is not None), "two framings"
    if request.method == b"CONNECT":
        assert (request.scheme, request.path) == (b"", b"")
    else:
        assert request.scheme in (b"http", b"https")
        assert request.path == b"*" or request.path.startswith(b"/")
    assert not set(request.path) & {*range(0x21), 0x7F, 0x23}
    check_fields(data.lstrip(b"\r\n"), request.headers, request.upgrade)
    _check_passed_on(head)


def _told(head: Head) -> tuple[object, ...]:
    assert isinstance(head, RequestHead)
    return head.expects_continue, *_said(head.request)


def _said(request: Request) -> tuple[object, ...]:
    return (request.method, request.scheme, request.authority, request.path, request.upgrade, list(request.headers))


def _check_passed_on(head: RequestHead) -> None:
    """What goes to an origin is one request, and the same one."""
    request = head.request
    wire, _, _ = encode_request(request, not (head.chunked or head.content_length))
    again = RequestHead(LIMITS_OF_ORIGIN, False)
    assert again.feed(wire + b"GET / HTTP/1.1\r\n") == len(wire)
    own = {b"content-length", b"connection", b"upgrade"}
    kept = [line for line in request.headers if line[0].lower() not in own]
    assert [line for line in again.request.headers if line[0].lower() not in own] == kept
    assert again.request.method == request.method
    assert again.request.authority == request.authority
    assert again.request.path == request.path
    assert again.request.upgrade == request.upgrade
    assert again.content_length in (head.content_length, 0)
    assert again.chunked == head.chunked


LIMITS_OF_ORIGIN = type(LIMITS)()
