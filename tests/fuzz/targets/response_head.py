"""Heads of HTTP/1 responses: the same in any pieces, clean, and what is passed on is read as it was meant."""

from __future__ import annotations

from tests.fuzz.heads import LIMITS, WORDS, Head, check_fields, read_in_all_pieces
from twisted_wasmproxy.config.model import LimitsConfig
from twisted_wasmproxy.http.headers import Headers
from twisted_wasmproxy.http.http1.encode import encode_informational, encode_response
from twisted_wasmproxy.http.http1.head import ResponseHead
from twisted_wasmproxy.http.messages import Request

__all__ = ["WORDS", "run"]

REQUEST = Request(b"GET", b"http", b"h", b"/", Headers())


def run(data: bytes) -> None:
    if not data:
        return
    head = read_in_all_pieces(data, lambda: ResponseHead(LIMITS), _told)
    if head is None:
        return
    assert isinstance(head, ResponseHead)
    response = head.response
    assert 100 <= response.status <= 999
    assert not {0x00, 0x0A, 0x0D} & set(response.reason)
    check_fields(data, response.headers, response.upgrade)
    if response.status < 200 and response.status != 101:
        wire = encode_informational(response)
    else:
        wire, _, _ = encode_response(response, REQUEST, False, True)
    again = ResponseHead(LimitsConfig())
    assert again.feed(wire + b"HTTP/1.1 200 OK\r\n") == len(wire)
    assert (again.response.status, again.response.reason) == (response.status, response.reason)
    own = {b"content-length", b"connection", b"upgrade"}
    kept = [line for line in response.headers if line[0].lower() not in own]
    assert [line for line in again.response.headers if line[0].lower() not in own] == kept


def _told(head: Head) -> tuple[object, ...]:
    assert isinstance(head, ResponseHead)
    response = head.response
    return response.status, response.reason, response.version, response.upgrade, list(response.headers)
