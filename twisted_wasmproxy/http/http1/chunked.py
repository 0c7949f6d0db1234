"""The chunked transfer coding (RFC 9112 section 7.1), decoded by llhttp."""

from __future__ import annotations

import re
import sys

from httptools import HttpParserError, HttpRequestParser

from twisted_wasmproxy.http.headers import Headers
from twisted_wasmproxy.http.http1.head import HeadLimits
from twisted_wasmproxy.http.http1.syntax import MessageError
from twisted_wasmproxy.http.trailers import allowed_trailers

__all__ = ["ChunkedDecoder"]

_END = b"\r\n\r\n"
_START = b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
# What framing a chunk needs of itself: five bytes about a body of one.
_BYTES_PER_CONTENT_BYTE = 9

_MAX_DIGITS = 32
"""Hexadecimal digits of a chunk size, leading zeros among them."""
_LINE_END = rb"(?:\r\n|;[^\r\n]*\r\n)"  # the usual one first: it costs half
# No chunk is given back once it has matched, which spares remembering where each began. Python 3.10 cannot say so.
_AS_MANY_AS_THERE_ARE = b"*+" if sys.version_info >= (3, 11) else b"*"
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,%d})(?![0-9A-Fa-f])" % _MAX_DIGITS)
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,%d})" % _MAX_DIGITS + _LINE_END)


def _small_chunks() -> re.Pattern[bytes]:
    chunk = _LINE_END + rb".{%d}\r\n"
    by_digit = []
    for high in range(1, 16):
        longer = b"|".join(b"%x" % low + chunk % (16 * high + low) for low in range(16))
        by_digit.append(b"%x(?:%b|%b)" % (high, chunk % high, longer))
    chunks = b"(?:0{0,8}(?:%b))%b" % (b"|".join(by_digit), _AS_MANY_AS_THERE_ARE)
    return re.compile(chunks, re.DOTALL | re.IGNORECASE)


_SMALL_CHUNKS = _small_chunks()
"""Any number of chunks below 256 bytes: to step over one by one they would cost more than all else that is done with
them."""


class _EndFinder:
    """Finds the end of a chunked body, which llhttp does not tell: it follows the sizes of the chunks, and no more."""

    __slots__ = ("_in_trailers", "_line", "_skip", "_tail")

    def __init__(self) -> None:
        self._skip = 0
        """Bytes to come of the present chunk, the CRLF behind it among them."""
        self._line = b""
        """The beginning of a size line that has not ended yet."""
        self._in_trailers = False
        self._tail = b"\r\n"
        """The last bytes before what is to come of the trailers."""

    def find(self, data: bytes) -> int:
        """Return where in `data` the body ends, -1 if it goes on behind it. Raises MessageError for a bad size line."""
        at = 0
        length = len(data)
        while not self._in_trailers:
            if self._skip:
                at += self._skip
                self._skip = max(0, at - length)
            if at >= length:
                return -1
            if not self._line:
                found = _SMALL_CHUNKS.match(data, at)
                if found is not None:
                    at = found.end()
                found = _SIZE_LINE.match(data, at)
                if found is not None:
                    at = found.end()
                    self._begin_chunk(found[1])
                    continue
            end = data.find(b"\n", at) + 1
            line = self._line + data[at : min(end or length, at + 2 * _MAX_DIGITS)]
            if not end:
                self._line = line[: 2 * _MAX_DIGITS]  # whatever follows is an extension, or an error
                return -1
            at = end
            self._line = b""
            found = _SIZE.match(line)
            if found is None:
                raise MessageError(400, "invalid chunk size")
            self._begin_chunk(found[1])
        rest = self._tail + data[at:]
        end = rest.find(_END) + 4
        if end < 4:
            self._tail = rest[-3:]
            return -1
        return at + end - len(self._tail)

    def _begin_chunk(self, digits: bytes) -> None:
        size = int(digits, 16)
        if size:
            self._skip = size + 2
        else:
            self._in_trailers = True


class ChunkedDecoder:
    """Decodes one chunked body.

    llhttp does not say where in its input a message ended. So it is never fed more than the message: that both see its
    end in the same place is a condition of taking it.
    """

    __slots__ = ("_end", "_excess", "_limits", "_lines", "_parser", "_pieces", "done", "on_body")

    done: bool
    """Whether the last chunk and the trailers have come."""

    def __init__(self, limits: HeadLimits) -> None:
        self._limits = limits
        self._pieces: list[bytes] = []
        self.on_body = self._pieces.append
        """llhttp's callback for a piece of content."""
        self._lines: list[tuple[bytes, bytes, bytes]] = []
        self._end = _EndFinder()
        self._excess = 0
        self.done = False
        self._parser: HttpRequestParser | None = HttpRequestParser(self)
        self._parser.feed_data(_START)
        self._lines.clear()

    @property
    def trailers(self) -> Headers | None:
        """The trailer fields that may be some (see `trailers`), None if there were none."""
        if not self._lines:
            return None
        headers = Headers()
        headers.lines = self._lines
        return allowed_trailers(headers)

    def feed(self, data: bytes) -> tuple[bytes, int]:
        """Take bytes of the body; return the content in them, and how many of them belong to the body.

        Raises MessageError for bad framing, and for chunk extensions and trailers that are out of proportion.
        """
        parser = self._parser
        assert parser is not None
        self._parser = None  # it refers to methods of this object
        end = self._end.find(data)
        taken = len(data) if end < 0 else end
        try:
            parser.feed_data(data if taken == len(data) else data[:taken])
        except HttpParserError as error:
            raise MessageError(400, str(error)) from None
        if self.done != (end >= 0):
            raise MessageError(400, "chunks without a clear end")
        pieces = self._pieces
        content = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._excess = max(0, self._excess + taken - _BYTES_PER_CONTENT_BYTE * len(content))
        if self._excess > self._limits.header_bytes:
            raise MessageError(431 if not content else 400, "more framing than content")
        if len(self._lines) > self._limits.header_count:
            raise MessageError(431, "too many trailer fields")
        if not self.done:
            self._parser = parser
        return content, taken

    def on_header(self, name: bytes, value: bytes) -> None:
        """llhttp's callback for a trailer field."""
        self._lines.append((name.lower(), name, value.rstrip(b" \t")))

    def on_message_complete(self) -> None:
        """llhttp's callback for the end of the message."""
        self.done = True
