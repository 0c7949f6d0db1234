"""Chunked content: the same in any pieces, and the same as a decoder that is written straight from RFC 9112 reads."""

from __future__ import annotations

import re

from tests.fuzz.pieces import cuts
from twisted_wasmproxy.config.model import LimitsConfig
from twisted_wasmproxy.http.http1.chunked import ChunkedDecoder
from twisted_wasmproxy.http.http1.encode import encode_trailers
from twisted_wasmproxy.http.http1.syntax import MessageError

__all__ = ["WORDS", "run"]

WORDS = [
    *(b"\r\n", b"\n", b"\r", b"0\r\n\r\n", b"1\r\na\r\n", b"a\r\n0123456789\r\n", b"4\r\n\r\n\r\n\r\n", b"\r\n\r\n"),
    *(b";", b";a=b", b';a="b;c"', b"0", b"F", b"ffffffffffffffff", b"10000000000000000", b"000000000000000000001"),
    *(b"0\r\nX-A: b\r\n\r\n", b"X-A: b\r\n", b": ", b"\t", b" ", b"\0", b"-1", b"0x1", b"\xff", b"GET / HTTP/1.1"),
    *(b"Content-Length: 1\r\n", b"Transfer-Encoding: chunked\r\n", b"Host: a\r\n"),
]

NEVER_TRAILERS = {
    b"authorization",
    b"connection",
    b"content-length",
    b"cookie",
    b"host",
    b"trailer",
    b"transfer-encoding",
}
LIMITS = LimitsConfig(header_bytes=2048, header_count=20)
_SIZE_LINE = re.compile(rb"(0*[0-9A-Fa-f]{1,15})((?:;[^\r\n]*)?)\r\n")
_TRAILER = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*\r\n")

Decoded = tuple[bytes, int]
"""The content, and the number of bytes that it took on the wire."""


def run(data: bytes) -> None:
    if not data:
        return
    outcomes = [_decode(pieces) for pieces in cuts(data)]
    whole = outcomes[0]
    assert all(outcome == whole for outcome in outcomes), outcomes
    plain, unusual = _plainly(data)
    if isinstance(whole, tuple):
        assert plain == whole[:2], (plain, whole)
    elif isinstance(plain, tuple) and not unusual:
        assert plain[1] - len(plain[0]) > LIMITS.header_bytes, f"{whole}: refused, or no end was seen"


def _decode(pieces: list[bytes]) -> tuple[object, ...] | str | None:
    decoder = ChunkedDecoder(LIMITS)
    content = b""
    before = 0
    for piece in pieces:
        try:
            more, taken = decoder.feed(piece)
        except MessageError:
            return "refused"
        content += more
        assert 0 <= taken <= len(piece)
        before += taken
        if decoder.done:
            trailers = decoder.trailers
            assert trailers is None or NEVER_TRAILERS.isdisjoint(line[0] for line in trailers.lines)
            encode_trailers(trailers)
            return content, before, None if trailers is None else list(trailers)
        assert taken == len(piece)
    return None


def _plainly(data: bytes) -> tuple[Decoded | str | None, bool]:
    """Return what a simple decoder makes of it, and whether there was anything beside chunks and their sizes."""
    content = b""
    at = 0
    unusual = False
    while (line := _SIZE_LINE.match(data, at)) is not None:
        unusual = unusual or bool(line[2]) or len(line[1]) > 32
        at = line.end()
        size = int(line[1], 16)
        if not size:
            return _end(data, at, content, unusual)
        if len(data) < at + size + 2:
            return None, unusual
        if data[at + size : at + size + 2] != b"\r\n":
            return "refused", unusual
        content += data[at : at + size]
        at += size + 2
    return ("refused" if b"\n" in data[at:] else None), unusual


def _end(data: bytes, at: int, content: bytes, unusual: bool) -> tuple[Decoded | str | None, bool]:
    while (line := _TRAILER.match(data, at)) is not None:
        unusual = True
        at = line.end()
    if data[at : at + 2] == b"\r\n":
        return (content, at + 2), unusual
    return ("refused" if len(data) > at + 1 else None), True
