"""The grammar of start lines and of `Host` (RFC 9112 sections 3 and 4), and the fields that never cross a proxy."""

from __future__ import annotations

import re

__all__ = [
    "HOP_BY_HOP",
    "OTHER_REQUEST_LINE",
    "REQUEST_LINE",
    "STATUS_LINE",
    "TOKEN",
    "MessageError",
    "connection_options",
    "field_lines",
    "is_valid_authority",
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

# Sub-delimiters, which RFC 3986 allows in a reg-name, are refused: no name that can be resolved has any, and a comma
# would make two hosts of one for whoever reads Host as a list.
_AUTHORITY = re.compile(
    rb"(?:(?:[A-Za-z0-9\-._~]|%[0-9A-Fa-f]{2})*|\[[0-9A-Fa-f:.]+\])(?::([0-9]{0,5}))?",
)
_ABSOLUTE_FORM = re.compile(rb"(https?)://([^/?#]*)([^#]*)", re.IGNORECASE)


class MessageError(Exception):
    """A message that is refused: the status that says so to a client, and the reason in words."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


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


field_lines = _FieldLines()
"""`field_lines[line]` takes a valid field line, without its end, apart: (lower-case name, name, value)."""


_AUTHORITY_LIMIT = 1024
"""Bytes of an authority: a name has 253 characters at most, each of which may be percent-encoded."""
_OPTIONS_LIMIT = 100
"""Options in the Connection fields of a message."""

_valid_authorities: set[bytes] = set()
_VALID_AUTHORITIES_LIMIT = 1024


def is_valid_authority(value: bytes) -> bool:
    """Return whether `value` is `uri-host [":" port]` (RFC 9110 section 7.2) without user information."""
    if value in _valid_authorities:
        return True
    match = _AUTHORITY.fullmatch(value) if len(value) <= _AUTHORITY_LIMIT else None
    if match is None or int(match[1] or 0) > 65535:
        return False
    if len(_valid_authorities) >= _VALID_AUTHORITIES_LIMIT:
        _valid_authorities.clear()
    if len(value) <= 255:
        _valid_authorities.add(value)
    return True


def connection_options(values: list[bytes]) -> set[bytes]:
    """Return the lower-case options of Connection lines (RFC 9110 section 7.6.1). Raises MessageError for too many."""
    if len(values) + sum([value.count(b",") for value in values]) > _OPTIONS_LIMIT:
        raise MessageError(400, "too many connection options")
    return {
        option for value in values for option in (part.strip(b" \t").lower() for part in value.split(b",")) if option
    }


def split_target(method: bytes, target: bytes, secure: bool) -> tuple[bytes, bytes | None, bytes]:
    """Return (scheme, authority, path) of a request target in any of its forms (RFC 9112 section 3.2).

    Authority is None where Host has to supply it. Raises MessageError for a target that is none of the forms that go
    with `method`, has a fragment, or has user information.
    """
    if method != b"CONNECT" and target[0] == 0x2F and b"#" not in target:
        return (b"https" if secure else b"http"), None, target
    if method == b"CONNECT":
        host, _, port = target.rpartition(b":")
        if not host or not port.isdigit() or not is_valid_authority(target):
            raise MessageError(400, "the target of CONNECT must be host:port")
        return b"", target, b""
    if b"#" in target:
        raise MessageError(400, "a request target has no fragment")
    if target == b"*":
        if method != b"OPTIONS":
            raise MessageError(400, "the target * goes with OPTIONS only")
        return (b"https" if secure else b"http"), None, target
    match = _ABSOLUTE_FORM.fullmatch(target)
    if match is None:
        raise MessageError(400, "invalid request target")
    scheme, authority, path = match.groups()
    if b"@" in authority:
        raise MessageError(400, "user information in the request target")
    if authority[:1] in (b"", b":") or not is_valid_authority(authority):
        raise MessageError(400, "invalid authority in the request target")
    if not path.startswith(b"/"):
        path = b"*" if not path and method == b"OPTIONS" else b"/" + path
    return scheme.lower(), authority, path
