"""Reading the head of a message: our start line, llhttp's field lines, and what RFC 9112 says they mean together.

llhttp is fed a fixed start line, because of the real one it takes both too much (HTTP/0.9, two spaces, any version) and
too little (a fixed list of methods). It judges the field section: white space, line ends, control bytes,
Content-Length and Transfer-Encoding against each other. What it lets pass and must not pass is refused here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Protocol

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser, HttpResponseParser

from twisted_wasmproxy.http.authority import normal_authority
from twisted_wasmproxy.http.headers import Headers
from twisted_wasmproxy.http.http1.syntax import (
    HOP_BY_HOP,
    OTHER_REQUEST_LINE,
    REQUEST_LINE,
    STATUS_LINE,
    UNDERSCORE,
    MessageError,
    connection_options,
    field_lines,
    request_field_lines,
    split_target,
)
from twisted_wasmproxy.http.messages import REASONS, Request, Response

__all__ = ["HeadLimits", "RequestHead", "RequestLimits", "ResponseHead"]

_END = b"\r\n\r\n"
_LENGTH_DIGITS = len(str(2**64 - 1))
_ZERO = 0x30
_PERSISTENCE = frozenset([b"close", b"keep-alive"])
_KEEP_ALIVE = frozenset([b"keep-alive", b"Keep-Alive"])
_NO_OPTIONS: set[bytes] = set()
_REQUEST_CONTROL = HOP_BY_HOP | {b"host", b"content-length", b"expect", UNDERSCORE}
_UNASKED_CODINGS = frozenset({b"", b"gzip", b"x-gzip", b"deflate", b"compress", b"x-compress"})
"""Transfer codings that nobody asked for (there is no TE), and that change the content (RFC 9112 section 7)."""
_RESPONSE_CONTROL = HOP_BY_HOP | {b"content-length"}
# To pass on an upgrade to another version of HTTP would be to let clients talk past every rule of this proxy.
_NOT_TO_TUNNEL = frozenset([b"h2c", b"h2", b"http"])


class HeadLimits(Protocol):
    """The sizes that a head may have, in bytes and lines; `LimitsConfig` is one."""

    @property
    def request_line(self) -> int: ...

    @property
    def header_bytes(self) -> int: ...

    @property
    def header_count(self) -> int: ...


class RequestLimits(HeadLimits, Protocol):
    """The sizes that the head of a request may have, and what its names may be; `LimitsConfig` is one."""

    @property
    def underscores(self) -> str:
        """What becomes of a field with an underscore in its name, which CGI (RFC 3875 section 4.1.18) and what is like
        it cannot tell from a hyphen: `drop`, `refuse` or `pass`."""


class _Head(ABC):
    """What reading the head of a request and of a response have in common."""

    __slots__ = (
        "_fields",
        "_incomplete",
        "_limits",
        "_lines",
        "_parser",
        "_skipped",
        "_start",
        "_tail",
        "chunked",
        "content_length",
        "keep_alive",
        "on_headers_complete",
        "size",
    )

    content_length: int | None
    """Value of Content-Length."""
    chunked: bool
    """Whether the content is chunked."""
    keep_alive: bool
    """Whether the sender lets the connection serve another exchange."""
    size: int
    """Bytes of the head so far."""

    _lines: list[tuple[bytes, bytes, bytes]]
    _parser_type: type[HttpRequestParser] | type[HttpResponseParser]
    _parser_start: bytes
    _taken_apart: Mapping[bytes, tuple[bytes, bytes, bytes]]

    # llhttp's callbacks: it is to judge. What it has let pass is plain enough to be cut into lines without it.
    on_url = on_status = on_header = on_body = None
    on_message_begin = on_message_complete = on_chunk_header = on_chunk_complete = None

    def __init__(self, limits: HeadLimits) -> None:
        self._limits = limits
        self._parser: HttpRequestParser | HttpResponseParser | None = None
        self._start: bytes | bytearray = b""
        self._skipped = 0  # bytes of empty lines before what is kept
        self._incomplete = [True]
        self.on_headers_complete = self._incomplete.clear
        """llhttp's callback."""
        self.content_length = None
        self.chunked = False

    def feed(self, data: bytes) -> int:
        """Take bytes of the head, in pieces of any size.

        Return how many of `data` belong to the head once it is complete, and -1 until then. Raises MessageError.
        """
        if self._parser is not None:
            return self._feed_more(data)
        taken = len(self._start)
        if taken:
            # A CR alone has begun an empty line, or is wrong.
            if b"\n" not in data and taken + len(data) <= self._limits.request_line and self._start != b"\r":
                self._start += data
                return -1
            data = bytes(self._start) + data
        begin = self._start_line(data)
        if begin < 0:
            self._keep(data)
            return -1
        self._parser = self._parser_type(self)
        end = data.find(_END, begin - 2) + 4
        if end < 4:
            self.size = self._skipped + len(data)
            self._fields = bytearray(data[begin:])
            self._tail = data[max(begin - 2, len(data) - 3) :]
            self._judge(self._parser_start + data[begin:], len(self._fields))
            return -1
        self.size = self._skipped + end
        self._judge(self._parser_start + data[begin:end], end - begin)
        self._finish(data[begin : end - 4])
        return end - taken

    def _keep(self, data: bytes) -> None:
        """Keep the beginning of a start line until more comes."""
        self._start = bytearray(data)

    def _feed_more(self, data: bytes) -> int:
        joined = self._tail + data
        end = joined.find(_END) + 4
        if end < 4:
            self._tail = joined[-3:]
        else:
            end -= len(self._tail)
            data = data[:end]
        self.size += len(data)
        self._fields += data
        self._judge(data, len(self._fields))
        if end < 4 and self._incomplete:
            return -1
        self._finish(bytes(self._fields[:-4]))
        return end

    def _judge(self, piece: bytes, size: int) -> None:
        """Show llhttp a piece of the head. `size`: bytes of the field section so far."""
        assert self._parser is not None
        if size > self._limits.header_bytes:
            self._parser = None
            raise MessageError(431, "the header fields are too long")
        try:
            self._parser.feed_data(piece)
        except HttpParserUpgrade:
            pass  # raised at the end of a head; what follows it is not for this parser anyway
        except HttpParserError as error:
            self._parser = None
            raise MessageError(400, str(error)) from None

    def _finish(self, fields: bytes) -> None:
        """Take the field lines, which llhttp has found valid, apart."""
        self._parser = None  # it refers to this object
        if self._incomplete:
            raise MessageError(400, "invalid header")
        lines = fields.split(b"\r\n") if fields else []
        if len(lines) > self._limits.header_count:
            raise MessageError(431, "too many header fields")
        taken_apart = self._taken_apart
        self._interpret([taken_apart[line] for line in lines])

    @abstractmethod
    def _start_line(self, data: bytes) -> int:
        """Read the start line; return where it ends in `data`, -1 if that has not come yet."""

    @abstractmethod
    def _interpret(self, lines: list[tuple[bytes, bytes, bytes]]) -> None:
        """Make the message of the start line and these fields."""

    def _read_length(self, line: tuple[bytes, bytes, bytes]) -> tuple[bytes, bytes, bytes]:
        """Take the value of a Content-Length, which llhttp has found to be digits of a number of 64 bits.

        Return the line to pass on: others may read leading zeros as something else than decimal digits.
        """
        key, name, digits = line
        if len(digits) > _LENGTH_DIGITS:
            raise MessageError(400, "Content-Length has too many digits")
        self.content_length = int(digits)
        return line if digits[0] != _ZERO or len(digits) == 1 else (key, name, b"%d" % self.content_length)

    def _read_connection(self, values: list[bytes], version_1_1: bool) -> set[bytes]:
        """Set `keep_alive`, take out the fields that Connection names, and return its options."""
        if len(values) == 1 and values[0] in _KEEP_ALIVE:
            self.keep_alive = True
            return _NO_OPTIONS
        options = connection_options(values)
        self.keep_alive = b"close" not in options and (version_1_1 or b"keep-alive" in options)
        if not options <= _PERSISTENCE:
            # Content-Length stays, whatever Connection says: it did frame the content.
            self._lines = [line for line in self._lines if line[0] not in options or line[0] == b"content-length"]
        return options

    def _grant_upgrade(self, protocols: list[bytes], options: set[bytes]) -> bytes | None:
        """Return the value of Upgrade if it is one that may be tunnelled, with its two fields put among the lines."""
        if not protocols or b"upgrade" not in options:
            return None
        value = b", ".join(protocols)
        names = {name.partition(b"/")[0].strip(b" \t").lower() for name in value.split(b",")}
        if names & _NOT_TO_TUNNEL or b"" in names:
            return None
        self._lines.append((b"connection", b"Connection", b"Upgrade"))
        self._lines.append((b"upgrade", b"Upgrade", value))
        return value


class RequestHead(_Head):
    """Reads the head of one request."""

    __slots__ = ("_method", "_request_limits", "_secure", "_target", "_version_1_1", "expects_continue", "request")

    request: Request
    """The request, once `feed` has returned the end of its head."""
    expects_continue: bool
    """Whether the client waits for 100 (Continue) before it sends the content (RFC 9110 section 10.1.1)."""

    _parser_type = HttpRequestParser
    _parser_start = b"PUT / HTTP/1.1\r\n"
    _taken_apart = request_field_lines

    def __init__(self, limits: RequestLimits, secure: bool) -> None:
        super().__init__(limits)
        self._request_limits = limits
        self._secure = secure
        self.expects_continue = False

    def _start_line(self, data: bytes) -> int:
        begin = 0
        if data[0] < 0x20:
            # RFC 9112 section 2.2: empty lines before a request line are to be skipped.
            begin = len(data) - len(data.lstrip(b"\r\n"))
            half = begin % 2  # a CR at the end, whose LF may be to come
            if not begin or data[:begin] != (b"\r\n" * (begin // 2 + 1))[:begin] or (half and begin < len(data)):
                raise MessageError(400, "invalid line end before the request line")
            begin -= half
            if self._skipped + begin > self._limits.request_line:
                raise MessageError(400, "empty lines without end")
            if begin + half == len(data):
                return -1
            if data[begin] < 0x20:
                raise MessageError(400, "invalid request line")
        match = REQUEST_LINE.match(data, begin)
        if match is None:
            self._refuse_start(data, begin)
            return -1
        end = match.end()
        if end - begin - 2 > self._limits.request_line:
            raise MessageError(414, "the request line is too long")
        self._method, self._target, version = match.groups()
        if version == b"1.1":
            self._version_1_1 = True
        elif version == b"1.0":
            self._version_1_1 = False
        else:
            raise MessageError(505, "the version of HTTP is neither 1.0 nor 1.1")
        return end

    def _keep(self, data: bytes) -> None:
        rest = data.lstrip(b"\r\n")
        if len(rest) != len(data):  # empty lines that were found right: they need not be looked at again
            half = data[-1:] if not rest and len(data) % 2 else b""
            self._skipped += len(data) - len(rest) - len(half)
            data = rest or half
        super()._keep(data)

    def _refuse_start(self, data: bytes, begin: int) -> None:
        """Raise MessageError unless the request line in `data` may still become a valid one."""
        end = data.find(b"\n", begin)
        if (len(data) if end < 0 else end) - begin > self._limits.request_line:
            raise MessageError(414, "the request line is too long")
        if end >= 0:
            if OTHER_REQUEST_LINE.match(data, begin):
                raise MessageError(505, "the version of HTTP is neither 1.0 nor 1.1")
            raise MessageError(400, "invalid request line")

    def _interpret(self, lines: list[tuple[bytes, bytes, bytes]]) -> None:
        host: bytes | None = None
        connection: list[bytes] = []
        codings: list[bytes] = []
        protocols: list[bytes] = []
        version_1_1 = self._version_1_1
        kept = self._lines = []
        for line in lines:
            key = line[0]
            if key not in _REQUEST_CONTROL:
                kept.append(line)
            elif key == b"host":
                if host is not None:
                    raise MessageError(400, "several Host fields")
                host = normal_authority(line[2])
                if host is None:
                    raise MessageError(400, "invalid Host field")
            elif key == b"connection":
                connection.append(line[2])
            elif key == b"content-length":
                digits = line[2]
                if len(digits) < _LENGTH_DIGITS and digits[0] != _ZERO:
                    self.content_length = int(digits)
                    kept.append(line)
                else:
                    kept.append(self._read_length(line))
            elif key == b"transfer-encoding":
                codings.append(line[2].lower())
            elif key == b"upgrade":
                protocols.append(line[2])
            elif key == b"expect":
                self.expects_continue = version_1_1 and line[2].lower() == b"100-continue"
                kept.append(line)
            elif key == UNDERSCORE:
                underscores = self._request_limits.underscores
                if underscores == "refuse":
                    raise MessageError(400, "a field name with an underscore")
                if underscores == "pass":
                    kept.append((line[1].lower(), line[1], line[2]))
        if host is None and version_1_1:
            raise MessageError(400, "no Host field")
        method = self._method
        if codings:
            self._check_codings(codings)
        if method == b"CONNECT" and (self.chunked or self.content_length):
            raise MessageError(400, "CONNECT has no content")
        scheme, authority, path = split_target(method, self._target, self._secure)
        upgrade = None
        self.keep_alive = version_1_1
        if connection:
            options = self._read_connection(connection, version_1_1)
            if version_1_1 and method != b"CONNECT":
                upgrade = self._grant_upgrade(protocols, options)
        headers = Headers.__new__(Headers)
        headers.lines = self._lines
        if authority is None:
            authority = host or b""
        version = b"1.1" if version_1_1 else b"1.0"
        self.request = Request(method, scheme, authority, path, headers, version, upgrade, self._target)

    def _check_codings(self, codings: list[bytes]) -> None:
        if not self._version_1_1:
            raise MessageError(400, "Transfer-Encoding in HTTP/1.0")  # RFC 9112 section 6.1: faulty framing
        if codings != [b"chunked"]:
            raise MessageError(501, "no transfer coding but chunked is implemented")
        self.chunked = True


class ResponseHead(_Head):
    """Reads the head of one response. Whether it has content depends on the request too (RFC 9112 section 6.3)."""

    __slots__ = ("_reason", "_status", "_version_1_1", "response")

    response: Response
    """The response, once `feed` has returned the end of its head."""

    _parser_type = HttpResponseParser
    _taken_apart = field_lines
    _parser_start = b"HTTP/1.1 200 OK\r\n"

    def _start_line(self, data: bytes) -> int:
        match = STATUS_LINE.match(data)
        if match is None:
            if b"\n" in data:
                raise MessageError(502, "invalid status line")
            if len(data) > self._limits.request_line:
                raise MessageError(502, "the status line is too long")
            return -1
        version, status, self._reason = match.groups()
        if match.end() - 2 > self._limits.request_line:
            raise MessageError(502, "the status line is too long")
        if version != b"1.1" and version != b"1.0":
            raise MessageError(502, "the version of HTTP is neither 1.0 nor 1.1")
        self._version_1_1 = version == b"1.1"
        self._status = int(status)
        return match.end()

    def _interpret(self, lines: list[tuple[bytes, bytes, bytes]]) -> None:
        status = self._status
        version_1_1 = self._version_1_1
        codings = False
        connection: list[bytes] = []
        protocols: list[bytes] = []
        kept = self._lines = []
        for line in lines:
            key = line[0]
            if key not in _RESPONSE_CONTROL:
                kept.append(line)
            elif key == b"content-length":
                digits = line[2]
                if len(digits) < _LENGTH_DIGITS and digits[0] != _ZERO:
                    self.content_length = int(digits)
                    kept.append(line)
                else:
                    kept.append(self._read_length(line))
            elif key == b"connection":
                connection.append(line[2])
            elif key == b"transfer-encoding":
                if not version_1_1:
                    raise MessageError(502, "Transfer-Encoding in HTTP/1.0")
                coding = line[2].lower()
                if codings or b"," in coding or coding in _UNASKED_CODINGS:
                    raise MessageError(502, "a transfer coding other than chunked")
                codings = True
                # What is no coding at all leaves the content as it is, and its end to that of the connection
                # (RFC 9112 section 6.3).
                self.chunked = coding == b"chunked"
            elif key == b"upgrade":
                protocols.append(line[2])
        self.keep_alive = version_1_1
        upgrade = None
        if connection:
            options = self._read_connection(connection, version_1_1)
            if status == 101:
                upgrade = self._grant_upgrade(protocols, options)
        headers = Headers.__new__(Headers)
        headers.lines = self._lines
        reason = self._reason
        if reason is None:
            reason = REASONS.get(status, b"")
        self.response = Response(status, headers, reason, b"1.1" if version_1_1 else b"1.0", upgrade)
