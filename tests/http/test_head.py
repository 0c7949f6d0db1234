"""Heads: what is read from them whatever the pieces they come in, and what is refused."""

import contextlib
import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_wasmproxy.config.model import LimitsConfig
from twisted_wasmproxy.http.headers import Headers
from twisted_wasmproxy.http.http1.encode import Framing, encode_informational, encode_request, encode_response
from twisted_wasmproxy.http.http1.head import RequestHead, ResponseHead
from twisted_wasmproxy.http.http1.syntax import MessageError
from twisted_wasmproxy.http.messages import Request, Response

LIMITS = LimitsConfig()
TCHARS = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

tokens = st.lists(st.sampled_from(list(TCHARS)), min_size=1, max_size=12).map(bytes)
values = st.lists(st.sampled_from([*range(0x20, 0x7F), 0x09, *range(0x80, 0x100)]), max_size=30).map(
    lambda octets: bytes(octets).strip(b" \t")
)
RESERVED = {
    b"connection",
    b"content-length",
    b"expect",
    b"host",
    b"keep-alive",
    b"proxy-connection",
    b"te",
    b"transfer-encoding",
    b"upgrade",
}
fields = st.lists(
    st.tuples(tokens.filter(lambda name: name.lower() not in RESERVED and b"_" not in name), values), max_size=8
)
targets = st.lists(st.sampled_from([*range(0x21, 0x23), *range(0x24, 0x7F), *range(0x80, 0x100)]), max_size=20).map(
    lambda octets: b"/" + bytes(octets)
)


def cut(data, offsets):
    """Return `data` in pieces, cut at these offsets."""
    edges = sorted({0, len(data), *(offset % (len(data) + 1) for offset in offsets)})
    return [data[a:b] for a, b in itertools.pairwise(edges)]


def read(reader, pieces):
    """Feed pieces; return what was left over when the head was complete."""
    for number, piece in enumerate(pieces):
        taken = reader.feed(piece)
        if taken >= 0:
            return piece[taken:] + b"".join(pieces[number + 1 :])
    return None


def read_request(data, secure=False):
    head = RequestHead(LIMITS, secure)
    assert read(head, [data]) == b""
    return head


def refused(reader, data):
    with pytest.raises(MessageError) as caught:
        reader.feed(data)
    return caught.value.status


@given(method=tokens, target=targets, fields=fields, rest=st.binary(max_size=10), offsets=st.lists(st.integers(0, 500)))
def test_a_request_is_the_same_in_any_pieces(method, target, fields, rest, offsets):
    if method == b"CONNECT":
        return
    lines = [b"Host: example.com", *(name + b": " + value for name, value in fields)]
    data = method + b" " + target + b" HTTP/1.1\r\n" + b"\r\n".join(lines) + b"\r\n\r\n"
    head = RequestHead(LIMITS, False)
    assert read(head, cut(data + rest, offsets)) == rest
    request = head.request
    assert (request.method, request.path, request.authority, request.scheme) == (
        method,
        target,
        b"example.com",
        b"http",
    )
    assert list(request.headers) == fields
    assert head.size == len(data)


@given(
    fields=fields,
    status=st.integers(200, 999),
    reason=values,
    rest=st.binary(max_size=10),
    offsets=st.lists(st.integers(0, 500)),
)
def test_a_response_is_the_same_in_any_pieces(fields, status, reason, rest, offsets):
    data = b"HTTP/1.1 %d %b\r\n" % (status, reason)
    data += b"".join(name + b": " + value + b"\r\n" for name, value in fields) + b"\r\n"
    head = ResponseHead(LIMITS)
    assert read(head, cut(data + rest, offsets)) == rest
    assert (head.response.status, head.response.reason) == (status, reason)
    assert list(head.response.headers) == fields
    assert head.size == len(data)


@given(method=tokens, target=targets, fields=fields)
def test_a_request_reads_as_it_was_written(method, target, fields):
    if method == b"CONNECT":
        return
    wire, framing, _ = encode_request(Request(method, b"http", b"h:80", target, Headers(fields)), False)
    head = read_request(wire)
    assert (head.request.method, head.request.path, head.request.authority) == (method, target, b"h:80")
    assert list(head.request.headers) == fields
    assert framing is Framing.CHUNKED
    assert head.chunked


@given(status=st.integers(200, 999).filter(lambda s: s not in (204, 304)), fields=fields, reason=values)
def test_a_response_reads_as_it_was_written(status, fields, reason):
    request = Request(b"GET", b"http", b"h", b"/", Headers())
    wire, framing, _ = encode_response(Response(status, Headers(fields), reason), request, False, True)
    head = ResponseHead(LIMITS)
    assert head.feed(wire) == len(wire)
    assert (head.response.status, head.response.reason) == (status, reason)
    assert list(head.response.headers) == fields
    assert framing is Framing.CHUNKED
    assert head.chunked
    assert head.keep_alive


REFUSED_REQUESTS = {
    # request line
    b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n": 400,
    b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n": 400,
    b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n": 400,
    b" GET / HTTP/1.1\r\nHost: a\r\n\r\n": 400,
    b"GET /\r\n\r\n": 400,
    b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n": 400,
    b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n": 400,
    b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n": 400,
    b"GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n": 400,
    b"G@T / HTTP/1.1\r\nHost: a\r\n\r\n": 400,
    b"GET / http/1.1\r\nHost: a\r\n\r\n": 400,
    b"GET / HTTP/1.1\nHost: a\r\n\r\n": 400,
    b"GET / HTTP/1.1\rHost: a\r\n\r\n": 400,
    b"GET / HTTP/1.1\r\r\nHost: a\r\n\r\n": 400,
    b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n": 400,
    b"\r\rGET / HTTP/1.1\r\nHost: a\r\n\r\n": 400,
    b"\r\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n": 400,
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n": 400,
    b"GET / HTTP/0.9\r\nHost: a\r\n\r\n": 505,
    b"GET / HTTP/2.0\r\nHost: a\r\n\r\n": 505,
    b"GET / HTTP/1.2\r\nHost: a\r\n\r\n": 505,
    b"GET / HTTP/1.10\r\nHost: a\r\n\r\n": 505,
    b"GET / HTTP/11\r\nHost: a\r\n\r\n": 505,
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n": 505,
    # request target
    b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n": 400,
    b"GET a HTTP/1.1\r\nHost: a\r\n\r\n": 400,
    b"GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n": 400,
    b"GET * HTTP/1.1\r\nHost: a\r\n\r\n": 400,
    b"GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n": 400,
    b"GET http://:80/x HTTP/1.1\r\nHost: a\r\n\r\n": 400,
    b"GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n": 400,
    b"GET http://a:99999/ HTTP/1.1\r\nHost: a\r\n\r\n": 400,
    b"GET http://a\\b/ HTTP/1.1\r\nHost: a\r\n\r\n": 400,
    b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n": 400,
    b"CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n": 400,
    b"CONNECT 443 HTTP/1.1\r\nHost: a\r\n\r\n": 400,
    b"CONNECT :443 HTTP/1.1\r\nHost: a\r\n\r\n": 400,
    b"CONNECT u@a:443 HTTP/1.1\r\nHost: a\r\n\r\n": 400,
    b"CONNECT http://a:443 HTTP/1.1\r\nHost: a\r\n\r\n": 400,
    b"CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n": 400,
    # Host
    b"GET / HTTP/1.1\r\n\r\n": 400,
    b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n": 400,
    b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n": 400,
    b"GET / HTTP/1.1\r\nHost: a,b\r\n\r\n": 400,
    b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n": 400,
    b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n": 400,
    b"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n": 400,
    b"GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n": 400,
    b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n": 400,
    b"GET / HTTP/1.1\r\nHost: \xff\r\n\r\n": 400,
    b"GET http://a/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n": 400,
    b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n": 400,
    # field lines
    b"GET / HTTP/1.1\r\nHost: a\n\r\n": 400,
    b"GET / HTTP/1.1\r\nHost: a\r\nA: b\nC: d\r\n\r\n": 400,
    b"GET / HTTP/1.1\r\nHost: a\r\nA: b\rC: d\r\n\r\n": 400,
    b"GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n c\r\n\r\n": 400,
    b"GET / HTTP/1.1\r\n Host: a\r\n\r\n": 400,
    b"GET / HTTP/1.1\r\nHost : a\r\n\r\n": 400,
    b"GET / HTTP/1.1\r\nHost: a\r\nA\x00: b\r\n\r\n": 400,
    b"GET / HTTP/1.1\r\nHost: a\r\nA: b\x00c\r\n\r\n": 400,
    b"GET / HTTP/1.1\r\nHost: a\r\nA: b\x01\r\n\r\n": 400,
    b"GET / HTTP/1.1\r\nHost: a\r\nA: b\x7f\r\n\r\n": 400,
    b"GET / HTTP/1.1\r\nHost: a\r\nA b\r\n\r\n": 400,
    b"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n": 400,
    b"GET / HTTP/1.1\r\nHost: a\r\nA\xe9: b\r\n\r\n": 400,
    b"GET / HTTP/1.1\r\nHost: a\r\n\n": 400,
    # framing
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n": 400,
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\ncontent-length: 6\r\n\r\n": 400,
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\n": 400,
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n": 400,
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n": 400,
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\n": 400,
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5 5\r\n\r\n": 400,
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\n": 400,
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5.0\r\n\r\n": 400,
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \xb2\r\n\r\n": 400,
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n": 400,
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %b1\r\n\r\n" % (b"0" * 20): 400,
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %b1\r\n\r\n" % (b"0" * 5000): 400,
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n": 400,
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n": 400,
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n": 400,
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n": 400,
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n": 400,
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n": 400,
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n": 400,
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n": 400,
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n": 400,
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n": 400,
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n": 501,
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n": 501,
    b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n": 400,
    b"POST / HTTP/1.0\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n": 400,
    b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\nContent-Length: 5\r\n\r\n": 400,
    b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\nTransfer-Encoding: chunked\r\n\r\n": 400,
    # sizes
    b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % (b"a" * LIMITS.request_line): 414,
    b"GET /%b" % (b"a" * LIMITS.request_line): 414,
    b"GET / HTTP/1.1\r\nHost: a\r\nA: %b\r\n\r\n" % (b"a" * LIMITS.header_bytes): 431,
    b"GET / HTTP/1.1\r\nHost: a\r\nA: %b" % (b"a" * LIMITS.header_bytes): 431,
    b"GET / HTTP/1.1\r\nHost: a\r\n%b\r\n" % (b"A: b\r\n" * (LIMITS.header_count + 1)): 431,
    b"\r\n" * LIMITS.request_line: 400,
    b"\r\n\n": 400,
    b"\n": 400,
    b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % (b"a" * 1025): 400,
    b"GET http://%b/ HTTP/1.1\r\nHost: a\r\n\r\n" % (b"a." * 600): 400,
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: %b\r\n\r\n" % (b"a," * 100): 400,
    b"GET / HTTP/1.1\r\nHost: a\r\n%b\r\n" % (b"Connection: a\r\n" * 101): 400,
}


@pytest.mark.parametrize(("data", "status"), REFUSED_REQUESTS.items(), ids=lambda value: repr(value)[:60])
def test_a_request_that_can_be_read_in_two_ways_or_is_too_long_is_refused(data, status):
    assert refused(RequestHead(LIMITS, False), data) == status


@pytest.mark.parametrize("data", REFUSED_REQUESTS, ids=lambda value: repr(value)[:60])
def test_a_refused_request_is_refused_byte_by_byte_too(data):
    if len(data) > 1000:
        pieces = cut(data, range(0, len(data), 1000))
    else:
        pieces = cut(data, range(len(data)))
    head = RequestHead(LIMITS, False)
    with pytest.raises(MessageError) as caught:
        read(head, pieces)
    assert caught.value.status == REFUSED_REQUESTS[data]


@pytest.mark.parametrize("digits", [b"5", b"05", b"00000000000000000005"])
def test_leading_zeros_of_a_length_are_not_passed_on(digits):
    head = RequestHead(LIMITS, False)
    read(head, [b"POST / HTTP/1.1\r\nHost: a\r\ncontent-length: %b\r\n\r\n" % digits])
    assert (head.content_length, list(head.request.headers)) == (5, [(b"content-length", b"5")])
    answer = ResponseHead(LIMITS)
    read(answer, [b"HTTP/1.1 200 OK\r\nContent-Length: %b\r\n\r\n" % digits])
    assert (answer.content_length, list(answer.response.headers)) == (5, [(b"Content-Length", b"5")])


def cost_of_dribbling(new, data):
    """Return the CPU time of a head that comes byte by byte, or is refused before its end."""
    times = []
    for _ in range(5):
        head = new()
        begin = time.thread_time()
        with contextlib.suppress(MessageError):
            for at in range(len(data)):
                head.feed(data[at : at + 1])
        times.append(time.thread_time() - begin)
    return min(times)


DRIBBLED = {
    "a target": lambda size: b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % (b"a" * size),
    "a method": lambda size: b"G" * size,
    "a method and what is none": lambda size: b"G" * (size // 2) + b"\r" * (size // 2),
    "empty lines": lambda size: b"\r\n" * (size // 2),
    "empty lines and a method": lambda size: b"\r\n" * (size // 4) + b"G" * (size // 2),
    "a name": lambda size: b"GET / HTTP/1.1\r\n" + b"a" * size,
    "a value": lambda size: b"GET / HTTP/1.1\r\nA: " + b"a" * size,
    "spaces": lambda size: b"GET / HTTP/1.1\r\nA: " + b" " * size,
    "lines": lambda size: b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * (size // 6),
    "a reason": lambda size: b"HTTP/1.1 200 " + b"a" * size,
}


@pytest.mark.parametrize("name", DRIBBLED)
def test_a_head_that_comes_byte_by_byte_costs_in_proportion_to_its_size(name):
    limits = LimitsConfig(request_line=1 << 20, header_bytes=1 << 20)
    data = DRIBBLED[name]
    new = (lambda: ResponseHead(limits)) if name == "a reason" else (lambda: RequestHead(limits, False))
    assert cost_of_dribbling(new, data(40_000)) < 10 * cost_of_dribbling(new, data(10_000))


REFUSED_RESPONSES = [
    b"HTTP/1.1 200 OK\r\nConnection: %b\r\n\r\n" % (b"a," * 100),
    b"HTTP/1.1 200 OK\r\nContent-Length: %b1\r\n\r\n" % (b"0" * 5000),
    b"HTTP/1.1 099 Odd\r\n\r\n",
    b"HTTP/1.1 1000 Odd\r\n\r\n",
    b"HTTP/1.1 20 OK\r\n\r\n",
    b"HTTP/1.1  200 OK\r\n\r\n",
    b"HTTP/1.1 200OK\r\n\r\n",
    b"HTTP/2.0 200 OK\r\n\r\n",
    b"HTTP/1.2 200 OK\r\n\r\n",
    b"HTTP/1 200 OK\r\n\r\n",
    b"ICY 200 OK\r\n\r\n",
    b"\r\nHTTP/1.1 200 OK\r\n\r\n",
    b"HTTP/1.1 200 O\x00K\r\n\r\n",
    b"HTTP/1.1 200 OK\n\r\n",
    b"HTTP/1.1 200 O\rK\r\n\r\n",
    b"<html>\n",
    b"HTTP/1.1 200 %b\r\n\r\n" % (b"a" * LIMITS.request_line),
    b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nA: b\nC: d\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nA: b\x00\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nA: %b\r\n\r\n" % (b"a" * LIMITS.header_bytes),
    b"HTTP/1.1 200 OK\r\n%b\r\n" % (b"A: b\r\n" * (LIMITS.header_count + 1)),
]


@pytest.mark.parametrize("data", REFUSED_RESPONSES, ids=lambda value: repr(value)[:60])
def test_a_response_that_can_be_read_in_two_ways_or_is_too_long_is_refused(data):
    refused(ResponseHead(LIMITS), data)
    with pytest.raises(MessageError):
        read(ResponseHead(LIMITS), cut(data, range(0, len(data), 1 if len(data) < 1000 else 1000)))


@pytest.mark.parametrize(
    ("line", "secure", "expected"),
    [
        (b"GET /a?b HTTP/1.1", False, (b"http", b"h", b"/a?b")),
        (b"GET /a?b HTTP/1.1", True, (b"https", b"h", b"/a?b")),
        (b"GET //a HTTP/1.1", False, (b"http", b"h", b"//a")),
        (b"GET http://o:81/a?b HTTP/1.1", False, (b"http", b"o:81", b"/a?b")),
        (b"GET HTTP://o HTTP/1.1", False, (b"http", b"o", b"/")),
        (b"GET http://o?q HTTP/1.1", False, (b"http", b"o", b"/?q")),
        (b"GET https://[::1]:8443/ HTTP/1.1", False, (b"https", b"[::1]:8443", b"/")),
        (b"OPTIONS * HTTP/1.1", False, (b"http", b"h", b"*")),
        (b"OPTIONS http://o HTTP/1.1", False, (b"http", b"o", b"*")),
        (b"OPTIONS http://o/ HTTP/1.1", False, (b"http", b"o", b"/")),
        (b"CONNECT o:443 HTTP/1.1", False, (b"", b"o:443", b"")),
        (b"CONNECT [::1]:443 HTTP/1.1", False, (b"", b"[::1]:443", b"")),
        (b"GET /caf\xc3\xa9 HTTP/1.1", False, (b"http", b"h", b"/caf\xc3\xa9")),
        (b"\r\n\r\nGET / HTTP/1.1", False, (b"http", b"h", b"/")),
    ],
)
def test_every_form_of_target_gives_scheme_authority_and_path(line, secure, expected):
    request = read_request(line + b"\r\nHost: h\r\n\r\n", secure).request
    assert (request.scheme, request.authority, request.path) == expected


@pytest.mark.parametrize("method", [b"GET", b"get", b"M-SEARCH", b"PRI", b"SOURCE", b"BREW", b"!#$%&'*+-.^_`|~1aZ"])
def test_any_token_is_a_method(method):
    assert read_request(method + b" / HTTP/1.1\r\nHost: h\r\n\r\n").request.method == method


def test_host_may_be_empty_or_in_http_1_0_absent():
    assert read_request(b"GET / HTTP/1.1\r\nHost:\r\n\r\n").request.authority == b""
    assert read_request(b"GET / HTTP/1.0\r\n\r\n").request.authority == b""


def test_hop_by_hop_fields_do_not_get_in():
    request = read_request(
        b"GET / HTTP/1.1\r\nHost: h\r\nX-Hop: 1\r\nConnection: x-hop, Keep-Alive ,content-length\r\nKeep-Alive: 5\r\n"
        b"Proxy-Connection: keep-alive\r\nTE: trailers\r\nUpgrade: websocket\r\nX-End: 2 \t\r\nTrailer: X-T\r\n"
        b"Content-Length: 0\r\n\r\n"
    ).request
    assert list(request.headers) == [(b"X-End", b"2"), (b"Trailer", b"X-T"), (b"Content-Length", b"0")]
    assert request.upgrade is None


def test_an_upgrade_that_is_asked_for_stays():
    request = read_request(
        b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\r\n"
    ).request
    assert request.upgrade == b"websocket"
    assert request.headers.get(b"connection") == b"Upgrade"
    assert request.headers.get(b"upgrade") == b"websocket"


@pytest.mark.parametrize("value", [b"h2c", b"websocket, h2c", b"HTTP/2.0", b"h2"])
def test_an_upgrade_to_another_http_is_not_passed_on(value):
    request = read_request(b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: %b\r\nConnection: Upgrade\r\n\r\n" % value).request
    assert request.upgrade is None
    assert len(request.headers) == 0


def test_http_1_0_cannot_upgrade():
    head = read_request(b"GET / HTTP/1.0\r\nUpgrade: websocket\r\nConnection: Upgrade, keep-alive\r\n\r\n")
    assert head.request.upgrade is None
    assert head.keep_alive


@pytest.mark.parametrize(
    ("version", "connection", "keep_alive"),
    [
        (b"1.1", None, True),
        (b"1.1", b"close", False),
        (b"1.1", b"Keep-Alive, CLOSE", False),
        (b"1.0", None, False),
        (b"1.0", b"Keep-Alive", True),
        (b"1.0", b"keep-alive, close", False),
    ],
)
def test_persistence(version, connection, keep_alive):
    field = b"" if connection is None else b"Connection: " + connection + b"\r\n"
    assert read_request(b"GET / HTTP/%b\r\nHost: h\r\n%b\r\n" % (version, field)).keep_alive is keep_alive
    response = ResponseHead(LIMITS)
    response.feed(b"HTTP/%b 200 OK\r\n%b\r\n" % (version, field))
    assert response.keep_alive is keep_alive


def test_a_reason_may_be_missing_or_empty_or_odd():
    for line, reason in [(b"200", b"OK"), (b"200 ", b""), (b"299", b""), (b"200 \xe9t\xe9", b"\xe9t\xe9")]:
        head = ResponseHead(LIMITS)
        head.feed(b"HTTP/1.1 " + line + b"\r\n\r\n")
        assert head.response.reason == reason


INJECTIONS = [b"a\r\nX: y", b"a\nb", b"a\rb", b"a\x00b", b"a\x0bb", b"a\x7fb", b"\r\n\r\n"]


@pytest.mark.parametrize("value", INJECTIONS)
def test_nothing_given_to_send_can_bring_a_line_of_its_own(value):
    request = Request(b"GET", b"http", b"h", b"/", Headers())
    with pytest.raises(ValueError, match="control"):
        encode_response(Response(200, Headers([(b"A", value)])), request, True, True)
    with pytest.raises(ValueError, match="control"):
        encode_response(Response(200, Headers(), value), request, True, True)
    with pytest.raises(ValueError, match="control"):
        encode_informational(Response(103, Headers([(b"Link", value)])))
    with pytest.raises(ValueError, match="field name"):
        encode_response(Response(200, Headers([(value, b"a")])), request, True, True)
    for bad in (
        Request(b"GET", b"http", b"h", b"/", Headers([(b"A", value)])),
        Request(value, b"http", b"h", b"/", Headers()),
        Request(b"GET", b"http", value, b"/", Headers()),
        Request(b"GET", b"http", b"h", b"/" + value, Headers()),
        Request(b"GET", b"http", b"h", b"/", Headers(), upgrade=value),
    ):
        with pytest.raises(ValueError, match=r"control|field name|target"):
            encode_request(bad, True)


@pytest.mark.parametrize("name", [b"", b"a b", b"a:", b"a\xe9", b"(a)"])
def test_a_name_that_is_no_token_is_not_sent(name):
    request = Request(b"GET", b"http", b"h", b"/", Headers())
    with pytest.raises(ValueError, match="field name"):
        encode_response(Response(200, Headers([(name, b"a")])), request, True, True)


@pytest.mark.parametrize("lengths", [[b"5", b"5"], [b"+5"], [b"a"], [b""], [b"5, 5"], ["²".encode()]])
def test_a_length_that_is_none_is_not_sent(lengths):
    headers = Headers([(b"Content-Length", value) for value in lengths])
    request = Request(b"GET", b"http", b"h", b"/", Headers())
    with pytest.raises(ValueError, match="Content-Length"):
        encode_response(Response(200, headers), request, False, True)
    with pytest.raises(ValueError, match="Content-Length"):
        encode_request(Request(b"POST", b"http", b"h", b"/", headers), False)


@pytest.mark.parametrize(
    ("method", "version", "status", "fields", "end_stream", "keep_alive", "framing", "lines"),
    [
        (b"GET", b"1.1", 200, [(b"Content-Length", b"3")], False, True, Framing.LENGTH, [b"Content-Length: 3"]),
        (b"GET", b"1.1", 200, [], False, True, Framing.CHUNKED, [b"Transfer-Encoding: chunked"]),
        (b"GET", b"1.1", 200, [], True, True, Framing.NONE, [b"Content-Length: 0"]),
        (b"GET", b"1.1", 200, [], True, False, Framing.NONE, [b"Content-Length: 0", b"Connection: close"]),
        (b"GET", b"1.0", 200, [], False, True, Framing.CLOSE, [b"Connection: close"]),
        (b"GET", b"1.0", 200, [], True, True, Framing.NONE, [b"Content-Length: 0", b"Connection: keep-alive"]),
        (b"HEAD", b"1.1", 200, [], True, True, Framing.NONE, []),
        (b"HEAD", b"1.1", 200, [(b"Content-Length", b"3")], True, True, Framing.NONE, [b"Content-Length: 3"]),
        (b"GET", b"1.1", 304, [(b"Content-Length", b"3")], True, True, Framing.NONE, [b"Content-Length: 3"]),
        (b"GET", b"1.1", 204, [(b"Content-Length", b"3")], True, True, Framing.NONE, []),
        (b"CONNECT", b"1.1", 200, [(b"Content-Length", b"3")], False, True, Framing.TUNNEL, []),
        (b"CONNECT", b"1.1", 204, [], False, True, Framing.TUNNEL, []),
        (b"CONNECT", b"1.1", 299, [], False, True, Framing.TUNNEL, []),
        (b"CONNECT", b"1.1", 407, [(b"Content-Length", b"3")], False, True, Framing.LENGTH, [b"Content-Length: 3"]),
        (
            b"GET",
            b"1.1",
            200,
            [(b"Transfer-Encoding", b"gzip"), (b"Connection", b"x")],
            True,
            True,
            Framing.NONE,
            [b"Content-Length: 0"],
        ),
    ],
)
def test_the_framing_of_a_response(method, version, status, fields, end_stream, keep_alive, framing, lines):
    request = Request(method, b"http", b"h", b"/", Headers(), version)
    wire, chosen, _ = encode_response(Response(status, Headers(fields), b"X"), request, end_stream, keep_alive)
    assert chosen is framing
    assert wire == b"\r\n".join([b"HTTP/1.1 %d X" % status, *lines, b"", b""])


def test_an_upgrade_is_written_by_both_sides():
    request = Request(
        b"GET", b"http", b"h", b"/", Headers([(b"Upgrade", b"x"), (b"Connection", b"Upgrade")]), upgrade=b"x"
    )
    assert encode_request(request, True)[0] == b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"
    wire, framing, _ = encode_response(Response(101, Headers(), upgrade=b"x"), request, False, True)
    assert wire == b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"
    assert framing is Framing.TUNNEL
