"""Cache directives: Cache-Control (RFC 9111 section 5.2) and targeted fields (RFC 9213) as one type, `Directives`."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import http_sf

from twisted_wasmproxy.http.headers import Headers

__all__ = [
    "MAX_DELTA",
    "NO_DIRECTIVES",
    "UNREAD",
    "Directives",
    "cache_control",
    "delta_seconds",
    "response_directives",
    "targeted",
]

MAX_DELTA = 2**31
"""What delta-seconds that are greater count as (RFC 9111 section 1.2.2)."""

MOST_MEMBERS = 100
"""Members of a Cache-Control or of a targeted field."""
MOST_BYTES = 16 * 1024
"""Of a Cache-Control, all lines together; a quarter of that if there are quoted-strings."""
MOST_TARGETED_BYTES = 1024
"""Of a targeted field: a structured field takes longer to parse."""
_USUAL_BYTES = 256

_FIELD_LISTS = (b"no-cache", b"private")
_INTEGERS = frozenset({"max-age", "s-maxage", "stale-if-error", "stale-while-revalidate"})
_BOOLEANS = frozenset(
    {"immutable", "must-revalidate", "must-understand", "no-store", "no-transform", "proxy-revalidate", "public"}
)
_UNREADABLE = b" "
"""An argument that none can be."""
_TOKEN = frozenset(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
# Whatever the cache itself goes by, or could not do without: a stored response without it would be another one.
_NEEDED = frozenset(
    {
        b"age",
        b"cache-control",
        b"content-encoding",
        b"content-length",
        b"content-location",
        b"content-range",
        b"content-type",
        b"date",
        b"etag",
        b"expires",
        b"last-modified",
        b"vary",
    }
)


class Directives:
    """Cache directives by lower-case name. Nothing here raises: what cannot be read takes the safe reading."""

    __slots__ = ("arguments",)

    def __init__(self, arguments: dict[bytes, bytes | None]) -> None:
        self.arguments = arguments
        """Name to argument, without the quotes; None where there is none. The first of several counts (RFC 9111 section
        4.2.1), but for no-cache and private, which add up."""

    def __contains__(self, name: bytes) -> bool:
        return name in self.arguments

    def bare(self, name: bytes) -> bool:
        """Say whether the directive is there and has no argument: for those that allow something."""
        return self.arguments.get(name, b"") is None

    def seconds(self, name: bytes) -> int | None:
        """Return the delta-seconds of a directive, 0 for what is none; None if the directive is not there."""
        if name not in self.arguments:
            return None
        return delta_seconds(self.arguments[name]) or 0

    def unqualified(self, name: bytes) -> bool:
        """Say whether no-cache or private is there and is not just about some fields (RFC 9111 section 5.2.2.4)."""
        return name in self.arguments and not self.fields(name)

    def fields(self, name: bytes) -> tuple[bytes, ...]:
        """Return the lower-case field names in the argument of no-cache or private.

        Empty if the directive is not there or speaks of the whole response, as it does if its argument cannot be read
        or names what the cache goes by itself.
        """
        argument = self.arguments.get(name)
        if not argument:
            return ()
        names = tuple(item.strip(b" \t").lower() for item in argument.split(b","))
        if all(item and _TOKEN.issuperset(item) for item in names) and _NEEDED.isdisjoint(names):
            return names
        return ()


NO_DIRECTIVES = Directives({})
UNREAD = Directives({b"no-store": None, b"no-cache": None})
"""What a field counts as that is longer than anybody reads: nobody knows what it forbids."""


def delta_seconds(value: bytes | None) -> int | None:
    """Return a non-negative integer, `MAX_DELTA` at most (RFC 9111 section 1.2.2); None for anything else."""
    if value is None or not value.isdigit():
        return None
    digits = value.lstrip(b"0")
    return min(int(digits or b"0"), MAX_DELTA) if len(digits) <= 10 else MAX_DELTA


def cache_control(values: Iterable[bytes]) -> Directives:
    """Parse the lines of Cache-Control (RFC 9111 section 5.2).

    A quote where none may be, or without its end, is taken for no-store as well: who knows what it has swallowed.
    More than `MOST_MEMBERS` or `MOST_BYTES` are no-store and no-cache, whatever they say.
    """
    lines = tuple(values)
    usual = sum(map(len, lines)) + len(lines) <= _USUAL_BYTES
    return _remembered(lines) if usual else _parsed(lines)


def _parsed(values: tuple[bytes, ...]) -> Directives:
    members_at_most = len(values) + sum([value.count(b",") for value in values])
    quoted = any(b'"' in value for value in values)
    if members_at_most > MOST_MEMBERS or sum(map(len, values)) > (MOST_BYTES // 4 if quoted else MOST_BYTES):
        return UNREAD
    arguments: dict[bytes, bytes | None] = {}
    for value in values:
        if b'"' in value:
            members, whole = _split_quoted(value)
            if not whole:
                arguments[b"no-store"] = None
        else:
            members = value.split(b",")
        for member in members:
            _add(arguments, member.strip(b" \t"))
    return Directives(arguments)


# An origin says the same again and again, and each of its responses is asked several times.
_remembered = lru_cache(maxsize=512)(_parsed)


def _add(arguments: dict[bytes, bytes | None], member: bytes) -> None:
    name, equals, rest = member.partition(b"=")
    if not name:
        return
    argument: bytes | None = None
    if equals:
        argument = _unquoted(rest)
    bare = name.rstrip(b" \t").lower()
    if len(bare) != len(name):
        argument = _UNREADABLE
    if bare not in arguments:
        arguments[bare] = argument
    elif bare in _FIELD_LISTS:
        before = arguments[bare]
        arguments[bare] = None if before is None or argument is None else before + b"," + argument


def _unquoted(argument: bytes) -> bytes:
    """Return the argument without quotes and escapes (RFC 9110 section 5.6.4)."""
    if argument[:1] != b'"':
        return argument
    if len(argument) < 2 or argument[-1:] != b'"':
        return _UNREADABLE
    inner = argument[1:-1]
    if b"\\" not in inner:
        return _UNREADABLE if b'"' in inner else inner
    out = bytearray()
    octets = iter(inner)
    for octet in octets:
        if octet == 0x5C:
            octet = next(octets, 0x5C)
        elif octet == 0x22:
            return _UNREADABLE
        out.append(octet)
    return bytes(out)


def _split_quoted(value: bytes) -> tuple[list[bytes], bool]:
    """Split at the commas outside of quoted-strings; say also whether all quotes are where they may be."""
    members = []
    start = 0
    quoted = escaped = stray = False
    for at, octet in enumerate(value):
        if escaped:
            escaped = False
        elif quoted:
            if octet == 0x5C:
                escaped = True
            elif octet == 0x22:
                quoted = False
        elif octet == 0x22:
            quoted = value[at - 1 : at] == b"="
            stray = stray or not quoted
        elif octet == 0x2C:
            members.append(value[start:at])
            start = at + 1
    members.append(value[start:])
    return members, not quoted and not stray


def targeted(values: Iterable[bytes]) -> Directives | None:
    """Parse the lines of a targeted field (RFC 9213 section 2.1); None if it is empty or not valid: it counts not.

    More than `MOST_MEMBERS` or `MOST_TARGETED_BYTES` are no-store and no-cache, whatever they say.
    """
    value = b", ".join(values)
    return _remembered_targeted(value) if len(value) <= _USUAL_BYTES else _parsed_targeted(value)


def _parsed_targeted(value: bytes) -> Directives | None:
    if len(value) > MOST_TARGETED_BYTES or value.count(b",") >= MOST_MEMBERS:
        return UNREAD
    try:
        members = http_sf.parse(value, tltype="dictionary")
    except ValueError:
        return None
    if not isinstance(members, dict) or not members:
        return None
    arguments: dict[bytes, bytes | None] = {}
    for name, member in members.items():
        given = member[0] if isinstance(member, tuple) else member
        if not _allowed(name, given):
            return None
        if given is False:
            continue
        argument = None if given is True else str(given).encode("utf-8", "replace")
        arguments[name.encode("ascii", "replace")] = argument
    return Directives(arguments)


_remembered_targeted = lru_cache(maxsize=128)(_parsed_targeted)


def _allowed(name: str, value: object) -> bool:
    """Say whether the value has the type that the directive asks for (RFC 9213 section 2.1)."""
    if name in _INTEGERS:
        return isinstance(value, int) and not isinstance(value, bool)
    if name in _BOOLEANS:
        return value is True
    if name in ("no-cache", "private"):
        return value is True or isinstance(value, str)
    return True


def response_directives(headers: Headers, names: Iterable[bytes]) -> tuple[Directives, bool]:
    """Return the directives of a response, and whether they are from a targeted field, which puts Cache-Control and
    Expires out of force (RFC 9213 section 2.2). `names` are those of targeted fields, lower-case, in order."""
    for name in names:
        values = headers.get_all(name)
        if values:
            found = targeted(values)
            if found is not None:
                return found, True
    values = headers.get_all(b"cache-control")
    return (cache_control(values) if values else NO_DIRECTIVES), False
