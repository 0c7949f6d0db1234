"""The chunked transfer coding (RFC 9112 section 7.1): decoding by llhttp, and the bytes to send."""

from __future__ import annotations

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


class ChunkedDecoder:
    """Decodes one chunked body.

    llhttp does not say where in its input a message ended. So it is fed in slices that end at every CRLF CRLF, as
    every message does too: then the end of a message is the end of a slice.
    """

    __slots__ = ("_excess", "_limits", "_lines", "_parser", "_pieces", "_tail", "_trailer_count", "done")

    done: bool
    """Whether the last chunk and the trailers have come."""

    def __init__(self, limits: HeadLimits) -> None:
        self._limits = limits
        self._pieces: list[bytes] = []
        self._lines: list[tuple[bytes, bytes, bytes]] = []
        self._tail = b""
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
        assert self._parser is not None
        view = memoryview(data)
        start = 0
        try:
            for end in self._slice_ends(data):
                self._parser.feed_data(view[start:end] if start or end < len(data) else data)
                start = end
                if self.done:
                    self._parser = None  # it refers to methods of this object
                    break
        except HttpParserError as error:
            self._parser = None
            raise MessageError(400, str(error)) from None
        if not self.done:
            self._tail = (self._tail + data[-3:])[-3:]
        pieces = self._pieces
        content = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._excess = max(0, self._excess + start - _BYTES_PER_CONTENT_BYTE * len(content))
        if self._excess > self._limits.header_bytes:
            self._parser = None
            raise MessageError(431 if not content else 400, "more framing than content")
        if len(self._lines) > self._limits.header_count:
            self._parser = None
            raise MessageError(431, "too many trailer fields")
        return content, start

    def _slice_ends(self, data: bytes) -> list[int]:
        """Return the offsets behind every CRLF CRLF that ends in `data`, and that of its end."""
        tail = self._tail
        ends = []
        if tail:
            border = tail + data[:3]
            at = border.find(_END)
            while at >= 0:
                ends.append(at + 4 - len(tail))
                at = border.find(_END, at + 1)
        at = data.find(_END)
        while at >= 0:
            ends.append(at + 4)
            at = data.find(_END, at + 1)
        if not ends or ends[-1] != len(data):
            ends.append(len(data))
        return ends

    def on_header(self, name: bytes, value: bytes) -> None:
        """llhttp's callback for a trailer field."""
        self._lines.append((name.lower(), name, value.rstrip(b" \t")))

    def on_body(self, content: bytes) -> None:
        """llhttp's callback for a piece of content."""
        self._pieces.append(content)

    def on_message_complete(self) -> None:
        """llhttp's callback for the end of the message."""
        self.done = True
