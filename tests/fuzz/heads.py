"""What the fuzzers of request heads and response heads share."""

from __future__ import annotations

from collections.abc import Callable

from tests.fuzz.pieces import cuts
from twisted_wasmproxy.config.model import LimitsConfig
from twisted_wasmproxy.http.headers import Headers
from twisted_wasmproxy.http.http1.head import RequestHead, ResponseHead
from twisted_wasmproxy.http.http1.syntax import HOP_BY_HOP, TOKEN, MessageError

__all__ = ["LIMITS", "REFUSED", "WORDS", "check_fields", "read_in_all_pieces"]

LIMITS = LimitsConfig(request_line=512, header_bytes=6000, header_count=20)

REFUSED = "refused"

WORDS = [
    *(b"\r\n", b"\n", b"\r", b"\r\n\r\n", b": ", b" ", b"\t", b"\0", b"\x0b", b"\x7f", b"\x85", b"\xff"),
    *(b"HTTP/1.1", b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/1.1 200 OK\r\n", b"GET / HTTP/1.1\r\n"),
    *(b"Host: a", b"Host:", b"Content-Length: 0", b"Content-Length: 1", b"Content-Length: +1", b"Content-Length: 1,1"),
    *(b"Content-Length: " + b"0" * 4400, b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip, chunked"),
    *(b"Connection: close", b"Connection: keep-alive, x-a", b"Connection: upgrade\r\nUpgrade: websocket"),
    *(b"Expect: 100-continue", b"X-A: b", b"Keep-Alive: 1", b"chunked", b"identity", b", ", b"X" * 200),
]

Head = RequestHead | ResponseHead
Outcome = tuple[object, ...] | str | None


def read_in_all_pieces(data: bytes, new: Callable[[], Head], told: Callable[[Head], tuple[object, ...]]) -> Head | None:
    """Read a head in every way to cut it, which must not matter; return it, None if it is refused or has no end."""
    first: Head | None = None
    outcomes: list[Outcome] = []
    for pieces in cuts(data):
        head = new()
        outcome = _read(head, pieces, told)
        outcomes.append(outcome)
        if first is None and isinstance(outcome, tuple):
            first = head
    whole = outcomes[0]
    assert all(outcome == whole for outcome in outcomes), outcomes
    return first


def _read(head: Head, pieces: list[bytes], told: Callable[[Head], tuple[object, ...]]) -> Outcome:
    before = 0
    for piece in pieces:
        try:
            taken = head.feed(piece)
        except MessageError:
            return REFUSED
        if taken >= 0:
            assert taken <= len(piece)
            return before + taken, head.size, head.keep_alive, head.chunked, head.content_length, *told(head)
        before += len(piece)
    return None


def check_fields(data: bytes, headers: Headers, upgrade: bytes | None) -> None:
    """Check fields against the lines they were read from, by a reader that knows no more than CR LF and the colon."""
    sent = []
    for line in data.partition(b"\r\n")[2].partition(b"\r\n\r\n")[0].split(b"\r\n") if data else []:
        name, _, value = line.partition(b":")
        value = value.strip(b" \t")
        if name.lower() == b"content-length":
            value = value.lstrip(b"0") or b"0"
        sent.append((name, value))
    allowed = {b"connection", b"upgrade"} if upgrade is not None else set()
    for key, name, value in headers.lines:
        assert key == name.lower()
        assert TOKEN.fullmatch(name), name
        assert not {0x00, 0x0A, 0x0D} & set(value), value
        assert value == value.strip(b" \t")
        if key in allowed:
            continue
        assert key not in HOP_BY_HOP, name
        assert (name, value) in sent, (name, value)
