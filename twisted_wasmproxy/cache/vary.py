"""Selecting header fields: what Vary names, and the values of a request made alike (RFC 9111 section 4.1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

from twisted_wasmproxy.cache.entry import StoredHead
from twisted_wasmproxy.http.headers import Headers

__all__ = ["SelectingFields", "selecting", "selects", "vary_names"]

MOST_NAMES = 32
"""Names in a Vary, doubles and empty ones included."""
MOST_VARY_BYTES = 2048
"""Of a Vary, all lines together."""
MOST_MEMBERS = 64
"""Members of a request field that are made alike."""
MOST_BYTES = 1024
"""Of a request field that is made alike."""

_TOKEN = frozenset(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


def vary_names(headers: Headers) -> tuple[bytes, ...] | None:
    """Return the lower-case names in Vary, sorted, each once; None if there is a `*`, or it cannot be read, or has more
    than `MOST_NAMES` or `MOST_VARY_BYTES`."""
    names: set[bytes] = set()
    members = size = 0
    for key, _, value in headers.lines:
        if key == b"vary":
            members += 1 + value.count(b",")
            size += len(value)
            if members > MOST_NAMES or size > MOST_VARY_BYTES:
                return None
            for item in value.lower().split(b","):
                name = item.strip(b" \t")
                if name == b"*" or not _TOKEN.issuperset(name):
                    return None
                if name:
                    names.add(name)
    return tuple(sorted(names))


def selecting(names: Sequence[bytes], request: Headers) -> tuple[tuple[bytes, bytes | None], ...]:
    """Return the selecting fields of a request, normalised (RFC 9111 section 4.1): lines joined, white space and, where
    the field's own definition allows it (Accept, Accept-Encoding, Accept-Language...), case and order made alike.

    Of a field with more than `MOST_MEMBERS` or `MOST_BYTES` only the lines are joined: it has a variant of its own."""
    return tuple((name, _normalized(name, request.get_all(name))) for name in names)


def selects(head: StoredHead, request: Headers) -> bool:
    """Say whether the request has the selecting fields of the stored response (RFC 9111 section 4.1)."""
    return SelectingFields(request).selects(head)


class SelectingFields:
    """The selecting fields of one request, each made alike once, however many stored responses it is compared with."""

    __slots__ = ("_known", "_request")

    def __init__(self, request: Headers) -> None:
        self._request = request
        self._known: dict[bytes, bytes | None] = {}

    def selects(self, head: StoredHead) -> bool:
        """As `selects`."""
        known = self._known
        for name, value in head.vary:
            if name not in known:
                known[name] = _normalized(name, self._request.get_all(name))
            if known[name] != value:
                return False
        return True


def _normalized(name: bytes, values: list[bytes]) -> bytes | None:
    if not values:
        return None
    value = values[0].strip(b" \t") if len(values) == 1 else b", ".join([line.strip(b" \t") for line in values])
    if b'"' in value:
        return value  # a comma in a quoted-string is none between members
    if len(value) > MOST_BYTES or value.count(b",") >= MOST_MEMBERS:
        return value
    if name in _PREFERENCES:
        return _remembered(name, value) if len(value) <= _USUAL_LENGTH else _preferences(name, value)
    if b"," in value:
        return b", ".join([item.strip(b" \t") for item in value.split(b",")])
    return value


def _preferences(name: bytes, value: bytes) -> bytes:
    """Make alike the lists of what is preferred and how much: the order says nothing (RFC 9110 section 12.4.2).

    Two members that say different things of one range are left in their order.
    """
    same = _PREFERENCES[name]
    weights: dict[bytes, bytes] = {}
    plain: list[bytes] = []
    unclear = False
    for item in value.split(b","):
        item = item.strip(b" \t")
        if not item:
            continue
        what, *parameters = [part.strip(b" \t") for part in item.split(b";")]
        weight = b"1"
        kept = [same(what)]
        for parameter in parameters:
            attribute, equals, argument = parameter.partition(b"=")
            attribute = attribute.lower()
            if attribute == b"q":
                weight = _weight(argument)
            else:
                kept.append(attribute + equals + argument)
        range_ = b";".join(kept)
        plain.append(range_ + b";q=" + weight)
        unclear = unclear or weights.setdefault(range_, weight) != weight
    if not unclear:
        plain = sorted(set(plain))
    return b", ".join(plain)


# Few values come again and again: all browsers of one kind send the same.
_remembered = lru_cache(maxsize=1024)(_preferences)
_USUAL_LENGTH = 256


def _weight(argument: bytes) -> bytes:
    """Return a qvalue without its idle zeros (RFC 9110 section 12.4.2); what is none, as it is."""
    whole, _, fraction = argument.partition(b".")
    if whole not in (b"0", b"1") or len(fraction) > 3 or not (fraction.isdigit() or not fraction):
        return argument
    fraction = fraction.rstrip(b"0")
    if whole == b"1" and fraction:
        return argument
    return whole + b"." + fraction if fraction else whole


def _coding(name: bytes) -> bytes:
    """RFC 9110 sections 8.4.1.1 and 8.4.1.3: two codings have two names."""
    name = name.lower()
    return {b"x-gzip": b"gzip", b"x-compress": b"compress"}.get(name, name)


_PREFERENCES: dict[bytes, Callable[[bytes], bytes]] = {
    b"accept": bytes.lower,
    b"accept-charset": bytes.lower,
    b"accept-encoding": _coding,
    b"accept-language": bytes.lower,
}
"""Fields of ranges with weights, and what makes the names of their ranges alike."""
