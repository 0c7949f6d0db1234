"""Formats of the access log: Traffic Server's named ones, its `%<field>` strings and JSON lines, made into functions.

Sources: Traffic Server's `logging.yaml` and its "Formatting Log Files". What a client sent is escaped so that no
line can be forged: control bytes, `"`, `\\` and bytes beyond ASCII become `%XX`, and so does a space unless the field
stands between double quotes in the format.
"""

from __future__ import annotations

import difflib
import json
import re
import time
import uuid
from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING

from twisted_wasmproxy.accesslog.record import TransactionRecord

if TYPE_CHECKING:
    from twisted_wasmproxy.http.headers import Headers

__all__ = ["FIELDS", "FORMATS", "HEADER_FIELDS", "JSON_MEMBERS", "TEXT_LIMIT", "FormatError", "compile_format"]

Formatter = Callable[[TransactionRecord], str]
"""Makes the line of a record, without its end."""

_COMMON = '%<chi> - %<caun> [%<cqtn>] "%<cqhm> %<pqu> %<cqpv>" %<pssc> %<pscl>'
_EXTENDED = f"{_COMMON} %<sssc> %<sscl> %<cqcl> %<pqcl> %<cqhl> %<pshl> %<pqhl> %<sshl> %<tts>"

FORMATS: dict[str, str] = {
    "squid": "%<cqtq> %<ttms> %<chi> %<crc>/%<pssc> %<psql> %<cqhm> %<pquc> %<caun> %<phr>/%<shn> %<psct>",
    "common": _COMMON,
    "extended": _EXTENDED,
    "extended2": f"{_EXTENDED} %<phr> %<cfsc> %<pfsc> %<crc>",
}
"""Traffic Server's named formats. `json` is one more name."""


class FormatError(ValueError):
    """The format string cannot be used; the text says why."""


def compile_format(text: str) -> Formatter:
    """Return the function that makes lines of this format: a name, or a string with `%<field>`. Raises FormatError."""
    if text == "json":
        return _json_line
    if text in FORMATS:
        text = FORMATS[text]
    elif "%<" not in text:
        names = ", ".join([*FORMATS, "json"])
        raise FormatError(f"unknown format {text!r}; known: {names}, or a text with %<field>")
    if not text.isprintable():
        raise FormatError("a format must be one line of printable text")
    template, getters = _parse(text)
    return lambda record: template % tuple([getter(record) for getter in getters])


# Escaping

_SAFE = bytes(set(range(0x21, 0x7F)) - set(b'"\\'))
_SAFE_QUOTED = _SAFE + b" "
_ESCAPES = tuple(chr(byte) if byte in _SAFE else f"%{byte:02X}" for byte in range(256))
_ESCAPES_QUOTED = (*_ESCAPES[:0x20], " ", *_ESCAPES[0x21:])
_URI_SAFE = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~:/?#[]@!$&'()*+,;=%"
_URI_ESCAPES = tuple(bytes([byte]) if byte in _URI_SAFE else b"%%%02X" % byte for byte in range(256))


TEXT_LIMIT = 8 * 1024
"""Bytes of one text that are written; a line of Traffic Server's has hardly more in all."""


def _cut(value: bytes) -> bytes:
    return value[:TEXT_LIMIT] + b"..."


def _escape(value: bytes) -> str:
    if len(value) > TEXT_LIMIT:
        value = _cut(value)
    if not value.translate(None, _SAFE):
        return value.decode("ascii") or "-"
    return "".join(map(_ESCAPES.__getitem__, value))  # many times as fast as `translate`


def _escape_quoted(value: bytes) -> str:
    if len(value) > TEXT_LIMIT:
        value = _cut(value)
    if not value.translate(None, _SAFE_QUOTED):
        return value.decode("ascii") or "-"
    return "".join(map(_ESCAPES_QUOTED.__getitem__, value))


def _uri_escape(value: bytes) -> bytes:
    if len(value) > TEXT_LIMIT:
        value = _cut(value)
    return b"".join(map(_URI_ESCAPES.__getitem__, value)) if value.translate(None, _URI_SAFE) else value


# Values

_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]


class _Clock:
    """Formats times, each second once."""

    def __init__(self, form: Callable[[time.struct_time], str]) -> None:
        self.form = form
        self.second = -1
        self.text = ""

    def __call__(self, record: TransactionRecord) -> str:
        second = int(record.start)
        if second != self.second:
            self.second = second
            self.text = self.form(time.localtime(second))
        return self.text


def _netscape(at: time.struct_time) -> str:
    offset = (at.tm_gmtoff or 0) // 60
    sign = "-" if offset < 0 else "+"
    hours, minutes = divmod(abs(offset), 60)
    return (
        f"{at.tm_mday:02}/{_MONTHS[at.tm_mon - 1]}/{at.tm_year}:{at.tm_hour:02}:{at.tm_min:02}:{at.tm_sec:02} "
        f"{sign}{hours:02}{minutes:02}"
    )


def _hexadecimal_address(address: str) -> str:
    import ipaddress

    try:
        return ipaddress.ip_address(address.partition("%")[0]).packed.hex().upper()
    except ValueError:
        return "-"


def _url(r: TransactionRecord) -> bytes:
    """The URL that was asked for: of CONNECT its authority, else in absolute form."""
    if not r.scheme or not r.authority:
        return r.path or r.authority
    return b"%b://%b%b" % (r.scheme, r.authority, r.path)


def _mapped_url(r: TransactionRecord) -> bytes:
    return r.mapped_url or _url(r)


def _path_of(url: bytes) -> bytes:
    _, separator, rest = url.partition(b"://")
    path = rest.partition(b"/")[2] if separator else url.lstrip(b"/")
    return path.partition(b"?")[0]


def _content_type(r: TransactionRecord) -> bytes:
    headers = r.response_headers
    return (headers.get(b"content-type") or b"") if headers is not None else b""


def _request_text(r: TransactionRecord) -> bytes:
    return b"%b %b HTTP/%b" % (r.method, _mapped_url(r), r.version)


def _retry_after(r: TransactionRecord) -> bytes:
    headers = r.origin_response_headers
    return (headers.get(b"retry-after") or b"") if headers is not None else b""


_PROCESS = str(uuid.uuid4())
_sequence = count()

_NUMBERS: dict[str, Formatter] = {
    "chi": lambda r: r.client_address or "-",
    "chih": lambda r: _hexadecimal_address(r.client_address),
    "chp": lambda r: str(r.client_port),
    "hii": lambda r: r.local_address or "-",
    "hiih": lambda r: _hexadecimal_address(r.local_address),
    "php": lambda r: str(r.local_port),
    "shi": lambda r: r.origin_address or "-",
    "nhi": lambda r: r.origin_address or "-",
    "nhp": lambda r: str(r.origin_port),
    "cqcl": lambda r: str(r.request_body_bytes),
    "cqhl": lambda r: str(r.request_header_bytes),
    "cqql": lambda r: str(r.request_header_bytes + r.request_body_bytes),
    "pqcl": lambda r: str(r.origin_request_body_bytes),
    "pqhl": lambda r: str(r.origin_request_header_bytes),
    "pqql": lambda r: str(r.origin_request_header_bytes + r.origin_request_body_bytes),
    "pscl": lambda r: str(r.response_body_bytes),
    "pshl": lambda r: str(r.response_header_bytes),
    "psql": lambda r: str(r.response_header_bytes + r.response_body_bytes),
    "sscl": lambda r: str(r.origin_response_body_bytes),
    "sshl": lambda r: str(r.origin_response_header_bytes),
    "ssql": lambda r: str(r.origin_response_header_bytes + r.origin_response_body_bytes),
    "pssc": lambda r: f"{r.status:03}",
    "sssc": lambda r: f"{r.origin_status:03}",
    "cfsc": lambda r: "FIN" if r.request_finished else "INTR",
    "pfsc": lambda r: r.origin_finish,
    "crc": lambda r: r.result,
    "phr": lambda r: r.hierarchy,
    "sca": lambda r: str(r.origin_attempts),
    "cqtr": lambda r: str(int(r.client_reused)),
    "cqssl": lambda r: str(int(bool(r.tls_version))),
    "cqssv": lambda r: r.tls_version or "-",
    "cqssc": lambda r: r.tls_cipher or "-",
    "pqssl": lambda r: str(int(r.origin_tls)),
    "crid": lambda r: str(next(_sequence)),
    "puuid": lambda r: _PROCESS,
    "cqtq": lambda r: f"{r.start:.3f}",
    "cqts": lambda r: str(int(r.start)),
    "cqth": lambda r: f"{int(r.start):X}",
    "ttms": lambda r: str(int(r.duration * 1000)),
    "ttmsh": lambda r: f"{int(r.duration * 1000):X}",
    "ttmsf": lambda r: f"{r.duration:.3f}",
    "tts": lambda r: str(int(r.duration)),
    "stms": lambda r: str(int(r.origin_duration * 1000)),
    "stmsh": lambda r: f"{int(r.origin_duration * 1000):X}",
    "stmsf": lambda r: f"{r.origin_duration:.3f}",
    "sts": lambda r: str(int(r.origin_duration)),
}
"""Fields that the proxy makes itself, and which need no escaping."""

_CLOCKS: dict[str, Callable[[time.struct_time], str]] = {
    "cqtn": _netscape,
    "cqtd": lambda at: f"{at.tm_year:04}-{at.tm_mon:02}-{at.tm_mday:02}",
    "cqtt": lambda at: f"{at.tm_hour:02}:{at.tm_min:02}:{at.tm_sec:02}",
}

_TEXTS: dict[str, Callable[[TransactionRecord], bytes]] = {
    "caun": lambda r: r.user,
    "cqhm": lambda r: r.method,
    "cqhv": lambda r: b"HTTP/" + r.version if r.version else b"",
    "cqpv": lambda r: b"HTTP/" + r.version if r.version else b"",
    "sqpv": lambda r: b"HTTP/" + r.origin_version if r.origin_version else b"",
    "sshv": lambda r: b"HTTP/" + r.origin_version if r.origin_version else b"",
    "cqtx": _request_text,
    "cqu": _mapped_url,
    "cquc": _mapped_url,
    "pqu": _mapped_url,
    "pquc": _mapped_url,
    "cquuc": _url,
    "cquuh": lambda r: r.authority,
    "cquup": lambda r: _path_of(r.path),
    "cqup": lambda r: _path_of(_mapped_url(r)),
    "cqus": lambda r: r.scheme,
    "cssn": lambda r: r.tls_server_name.encode(),
    "shn": lambda r: r.origin_name.encode(),
    "psct": _content_type,
    "prrp": lambda r: r.reason,
    "crat": _retry_after,
    "details": lambda r: r.details,
    "filter": lambda r: r.filter.encode(),
}
"""Fields with what others sent or wrote: escaped, and the ones that can be sliced. The last two are our own."""

_HEADER_MAPS: dict[str, Callable[[TransactionRecord], Headers | None]] = {
    "cqh": lambda r: r.request_headers,
    "pqh": lambda r: r.origin_request_headers,
    "psh": lambda r: r.response_headers,
    "ssh": lambda r: r.origin_response_headers,
}

FIELDS = (*_NUMBERS, *_CLOCKS, *_TEXTS, *(f"{name[:-1]}ah" for name in _HEADER_MAPS))
"""Names of the fields that stand alone."""
HEADER_FIELDS = (*_HEADER_MAPS, *(f"e{name}" for name in _HEADER_MAPS))
"""Names of the fields that follow a `{Header-Name}`; with `e` in front they are URI-encoded."""


# Parsing

_PLACEHOLDER = re.compile(r"%<([^<>]*)>")
_FIELD = re.compile(
    r"(?:\{(?P<header>[^{}]*)\})?(?P<name>[A-Za-z0-9_]+)(?:\[(?P<start>-?\d{0,6}):(?P<end>-?\d{0,6})\])?"
)


def _parse(text: str) -> tuple[str, list[Formatter]]:
    """Return a %-template and what fills it."""
    template = []
    getters = []
    position = 0
    quoted = False
    for match in _PLACEHOLDER.finditer(text):
        literal = text[position : match.start()]
        quoted ^= literal.count('"') % 2 == 1
        template.append(literal.replace("%", "%%"))
        template.append("%s")
        getters.append(_getter(match[1], quoted))
        position = match.end()
    if "%<" in text[position:]:
        raise FormatError("a field begins with %< and ends with >")
    template.append(text[position:].replace("%", "%%"))
    return "".join(template), getters


def _getter(text: str, quoted: bool) -> Formatter:
    if text in _NUMBERS:
        return _NUMBERS[text]
    if text in _CLOCKS:
        return _Clock(_CLOCKS[text])
    values = [_text_getter(alternative) for alternative in text.split("??")]
    escape = _escape_quoted if quoted else _escape
    if len(values) == 1:
        value = values[0]
        return lambda record: escape(value(record))
    return lambda record: escape(next(filter(None, (value(record) for value in values)), b""))


def _text_getter(text: str) -> Callable[[TransactionRecord], bytes]:
    """Return what reads one field that holds text, with its slice."""
    match = _FIELD.fullmatch(text)
    if match is None:
        raise FormatError(f"%<{text}> is not a field; write %<name>, %<{{Header}}name> or %<name[0:9]>")
    name, header = match["name"], match["header"]
    value: Callable[[TransactionRecord], bytes]
    if header is not None:
        value = _header_getter(name, header)
    elif name in _TEXTS:
        value = _TEXTS[name]
    elif name.endswith("ah") and f"{name[:-2]}h" in _HEADER_MAPS:
        value = _all_headers(_HEADER_MAPS[f"{name[:-2]}h"])
    elif name in _NUMBERS or name in _CLOCKS:
        raise FormatError(f"%<{text}>: only a field that holds text can be sliced or have an alternative")
    elif name in HEADER_FIELDS:
        raise FormatError(f"%<{text}> needs the name of a header, as in %<{{User-Agent}}{name}>")
    else:
        close = difflib.get_close_matches(name, FIELDS, 1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise FormatError(
            f"unknown log field {name!r}; {hint}known: {' '.join(sorted(FIELDS))}, "
            f"and with {{Header}} in front: {' '.join(HEADER_FIELDS)}"
        )
    if match["start"] is None:
        return value
    part = slice(*(int(bound) if bound not in ("", "-") else None for bound in (match["start"], match["end"])))
    return lambda record: value(record)[part]


def _header_getter(name: str, header: str) -> Callable[[TransactionRecord], bytes]:
    if name not in HEADER_FIELDS:
        raise FormatError(f"unknown log field {name!r} after a header name; known: {' '.join(HEADER_FIELDS)}")
    if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", header):
        raise FormatError(f"{header!r} is not the name of a header")
    key = header.lower().encode()
    headers_of = _HEADER_MAPS[name.removeprefix("e")]

    def value(record: TransactionRecord) -> bytes:
        headers = headers_of(record)
        return b", ".join(headers.get_all(key)) if headers is not None else b""

    if name.startswith("e"):
        return lambda record: _uri_escape(value(record))
    return value


def _all_headers(headers_of: Callable[[TransactionRecord], Headers | None]) -> Callable[[TransactionRecord], bytes]:
    def value(record: TransactionRecord) -> bytes:
        headers = headers_of(record)
        if headers is None:
            return b""
        return b"{%b}" % b"".join(b"{{%b}:{%b}}" % line for line in headers)

    return value


# JSON lines


def _string(value: bytes) -> str:
    if len(value) > TEXT_LIMIT:
        value = _cut(value)
    return _encode(value.decode("utf-8", "backslashreplace")) if value else "null"


def _header(headers: Headers | None, name: bytes) -> str:
    value = headers.get(name) if headers is not None else None
    return _string(value) if value is not None else "null"


_encode = json.encoder.encode_basestring_ascii
_truth = {False: "false", True: "true"}

_JSON: dict[str, Formatter] = {
    "time": lambda r: f"{r.start:.6f}",
    "duration": lambda r: f"{r.duration:.6f}",
    "client": lambda r: _string(r.client_address.encode()),
    "client_port": lambda r: str(r.client_port),
    "user": lambda r: _string(r.user),
    "method": lambda r: _string(r.method),
    "url": lambda r: _string(_url(r)),
    "mapped_url": lambda r: _string(_mapped_url(r)),
    "version": lambda r: _string(r.version),
    "tls": lambda r: _string(r.tls_version.encode()),
    "user_agent": lambda r: _header(r.request_headers, b"user-agent"),
    "referer": lambda r: _header(r.request_headers, b"referer"),
    "request_header_bytes": lambda r: str(r.request_header_bytes),
    "request_body_bytes": lambda r: str(r.request_body_bytes),
    "request_finished": lambda r: _truth[r.request_finished],
    "status": lambda r: str(r.status),
    "content_type": lambda r: _string(_content_type(r)),
    "response_header_bytes": lambda r: str(r.response_header_bytes),
    "response_body_bytes": lambda r: str(r.response_body_bytes),
    "result": lambda r: _encode(r.result),
    "hierarchy": lambda r: _encode(r.hierarchy),
    "origin": lambda r: _string(r.origin_name.encode()),
    "origin_address": lambda r: _string(r.origin_address.encode()),
    "origin_port": lambda r: str(r.origin_port),
    "origin_status": lambda r: str(r.origin_status),
    "origin_duration": lambda r: f"{r.origin_duration:.6f}",
    "origin_attempts": lambda r: str(r.origin_attempts),
    "origin_request_header_bytes": lambda r: str(r.origin_request_header_bytes),
    "origin_request_body_bytes": lambda r: str(r.origin_request_body_bytes),
    "origin_response_header_bytes": lambda r: str(r.origin_response_header_bytes),
    "origin_response_body_bytes": lambda r: str(r.origin_response_body_bytes),
    "origin_finish": lambda r: _encode(r.origin_finish),
    "details": lambda r: _string(r.details),
    "filter": lambda r: _string(r.filter.encode()),
}
"""Members of a JSON line. Times are seconds, `time` since the epoch; texts that are not known are null."""

JSON_MEMBERS = tuple(_JSON)
_JSON_TEMPLATE = "{" + ",".join(f'"{name}":%s' for name in _JSON) + "}"
_JSON_GETTERS = tuple(_JSON.values())


def _json_line(record: TransactionRecord) -> str:
    return _JSON_TEMPLATE % tuple([getter(record) for getter in _JSON_GETTERS])
