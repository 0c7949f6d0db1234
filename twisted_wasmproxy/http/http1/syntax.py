"""The grammar of start lines (RFC 9112 sections 3 and 4), and the fields that never cross a proxy."""

from __future__ import annotations

import re

from twisted_wasmproxy.http.authority import normal_authority

__all__ = [
    "HOP_BY_HOP",
    "OTHER_REQUEST_LINE",
    "REQUEST_LINE",
    "STATUS_LINE",
    "TOKEN",
    "UNDERSCORE",
    "MessageError",
    "connection_options",
    "field_lines",
    "request_field_lines",
    "split_target",
]

_TCHAR = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"

TOKEN = re.compile(_TCHAR + rb"+")
"""RFC 9110 section 5.6.2; for `fullmatch`."""

REQUEST_LINE = re.compile(rb"(" + _TCHAR + rb"+) ([^\x00-\x20\x7f]+) HTTP/([0-9]\.[0-9])\r\n")
"""Method, target, version. Octets above 0x7f are let through in targets, as browsers send them."""

OTHER_REQUEST_LINE = re.compile(_TCHAR + rb"+ [^\x00-\x20\x7f]+ HTTP/[0-9]+(?:\.[0-9]+)?\r\n")
"""One whose version is not even of the form that HTTP/1 has."""

STATUS_LINE = re.compile(rb"HTTP/([0-9]\.[0-9]) ([1-9][0-9][0-9])(?: ([\t\x20-\x7e\x80-\xff]*))?\r\n")
"""Version, status code, reason phrase. The space before an absent reason is left out by some servers."""

HOP_BY_HOP = frozenset(
    [b"connection", b"keep-alive", b"proxy-connection", b"te", b"transfer-encoding", b"upgrade"],
)
"""Fields that concern one connection only, beside those that Connection names (RFC 9110 section 7.6.1)."""

_ABSOLUTE_FORM = re.compile(rb"(https?)://([^/?#]*)([^#]*)", re.IGNORECASE)


class MessageError(Exception):
    """A message that is refused: the status that says so to a client, and the reason in words."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


UNDERSCORE = b"_"
"""Stands for the lower-case name of a request's field with an underscore in it."""


class _FieldLines(dict[bytes, tuple[bytes, bytes, bytes]]):
    """Field lines taken apart, as `Headers.lines` has them; remembers short ones, since most come again and again."""

    lines_limit = 2048
    length_limit = 128
    # Each client's own: they would only crowd out the others, and secrets are not to lie about.
    forgotten = frozenset([b"authorization", b"cookie", b"proxy-authorization", b"set-cookie"])

    def __missing__(self, line: bytes) -> tuple[bytes, bytes, bytes]:
        name, _, value = line.partition(b":")
        parsed = (name.lower(), name, value.strip(b" \t"))
        if len(line) <= self.length_limit and parsed[0] not in self.forgotten:
            if len(self) >= self.lines_limit:
                self.clear()
            self[line] = parsed
        return parsed


class _RequestFieldLines(_FieldLines):
    """The same, with the names marked that could be taken for others."""

    def __missing__(self, line: bytes) -> tuple[bytes, bytes, bytes]:
        parsed = super().__missing__(line)
        if b"_" in parsed[0]:
            parsed = (UNDERSCORE, *parsed[1:])
            if line in self:
                self[line] = parsed
        return parsed


field_lines = _FieldLines()
"""`field_lines[line]` takes a valid field line, without its end, apart: (lower-case name, name, value)."""

request_field_lines = _RequestFieldLines()
"""The same for a request, but for `UNDERSCORE` instead of a name with an underscore: found once, when a line is new."""

_OPTIONS_LIMIT = 100
"""Options in the Connection fields of a message."""


def connection_options(values: list[bytes]) -> set[bytes]:
    """Return the lower-case options of Connection lines (RFC 9110 section 7.6.1). Raises MessageError for too many."""
    if len(values) + sum([value.count(b",") for value in values]) > _OPTIONS_LIMIT:
        raise MessageError(400, "too many connection options")
    return {
        option for value in values for option in (part.strip(b" \t").lower() for part in value.split(b",")) if option
    }


def split_target(method: bytes, target: bytes, secure: bool) -> tuple[bytes, bytes | None, bytes]:
    """Return (scheme, authority, path) of a request target in any of its forms (RFC 9112 section 3.2).

    Authority, in its normal form, is None where Host has to supply it. The scheme is what the target says; whether that
    counts is for the listener. Raises MessageError for a target that is none of the forms that go with `method`, has a
    fragment, or has user information.
    """
    if method != b"CONNECT" and target[0] == 0x2F and b"#" not in target:
        return (b"https" if secure else b"http"), None, target
    if method == b"CONNECT":
        authority = normal_authority(target)
        host, _, port = target.rpartition(b":")
        if authority is None or not host or not port.isdigit():
            raise MessageError(400, "the target of CONNECT must be host:port")
        return b"", authority, b""
    if b"#" in target:
        raise MessageError(400, "a request target has no fragment")
    if target == b"*":
        if method != b"OPTIONS":
            raise MessageError(400, "the target * goes with OPTIONS only")
        return (b"https" if secure else b"http"), None, target
    match = _ABSOLUTE_FORM.fullmatch(target)
    if match is None:
        raise MessageError(400, "invalid request target")
    scheme, given, path = match.groups()
    if b"@" in given:
        raise MessageError(400, "user information in the request target")
    authority = normal_authority(given)
    if not authority:
        raise MessageError(400, "invalid authority in the request target")
    if not path.startswith(b"/"):
        path = b"*" if not path and method == b"OPTIONS" else b"/" + path
    return scheme.lower(), authority, path
