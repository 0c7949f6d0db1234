"""Twisted endpoint descriptions: checked without a reactor, their files resolved against the configuration's folder."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass

from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IStreamServerEndpointStringParser
from twisted.plugin import getPlugins

from twisted_wasmproxy.config.reader import Place
from twisted_wasmproxy.config.values import relative, text

__all__ = ["Described", "endpoint", "for_owner_alone", "only_this_machine"]

_BUILT_IN = ("ssl", "tcp", "unix")
_PORT_OF = {"tcp": 1, "tcp6": 1, "ssl": 1, "tls": 2}
"""Position of the port among the unnamed parts of a description."""
_INTERFACE_OF = {"tcp": 1, "tcp6": 2, "ssl": 4}
"""Position of the interface among those after the kind."""
_FILES = {
    "ssl": frozenset({"privateKey", "certKey", "extraCertChain", "dhParameters"}),
    "tls": frozenset({1, "path"}),
    "unix": frozenset({1, "address"}),
}
"""Which parts of a description are files, by position or name."""
_SAFE_WITHOUT_REACTOR = frozenset({"haproxy", "ssl", "stdio", "systemd", "tcp", "tcp6", "tls", "unix"})
"""Twisted's own parsers, which only keep the reactor that they are given."""

_PART = re.compile(r"((?:\\.|[^\\:])*)(:|\Z)", re.DOTALL)
_NAMED = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)


def endpoint(place: Place) -> str:
    """A server endpoint description, with its files absolute or relative to the configuration file."""
    description = text(place)
    prefix = description.partition(":")[0]
    known = sorted({*_BUILT_IN, *(plugin.prefix for plugin in getPlugins(IStreamServerEndpointStringParser))})
    if prefix not in known:
        place.reject(
            f"unknown kind of endpoint {prefix!r}; known: {', '.join(known)} (as in tcp:8080:interface=127.0.0.1)"
        )
    try:
        parts = _split(description)
    except ValueError as error:
        place.reject(str(error))
    resolved = _resolve(place, prefix, parts)
    if prefix in _SAFE_WITHOUT_REACTOR:
        _check_port(place, prefix, parts)
        try:
            serverFromString(None, resolved)
        except Exception as error:  # parsers raise whatever int(), getattr() and OpenSSL do
            place.reject(f"is not a usable endpoint: {_reason(error)}")
    return resolved


@dataclass(frozen=True)
class Described:
    """What a description says."""

    kind: str
    """`tcp`, `unix`, ..."""
    unnamed: tuple[str, ...]
    """The parts without a name, the kind left out."""
    named: Mapping[str, str]

    @classmethod
    def of(cls, description: str) -> Described:
        """Take it apart. Raises ValueError where a part is broken off."""
        kind, *parts = _split(description)
        pairs = [(_NAMED.fullmatch(part), part) for part in parts]
        return cls(
            kind,
            tuple(_unquote(part) for match, part in pairs if match is None),
            {match[1]: _unquote(match[2]) for match, _ in pairs if match is not None},
        )

    def part(self, name: str, position: int | None) -> str:
        """Return a part by its name or, where it has none, its position from 0 on; empty if it is not there."""
        if name in self.named or position is None or position >= len(self.unnamed):
            return self.named.get(name, "")
        return self.unnamed[position]

    @property
    def port(self) -> str:
        return self.part("port", _PORT_OF.get(self.kind, 1) - 1)

    @property
    def interface(self) -> str:
        return self.part("interface", _INTERFACE_OF.get(self.kind))


def only_this_machine(description: str) -> bool:
    """Whether a checked description is of an endpoint that no other machine can reach, as far as it says."""
    described = Described.of(description)
    if described.kind not in _PORT_OF:
        return True
    try:
        return ipaddress.ip_address(described.interface).is_loopback
    except ValueError:
        return False


def for_owner_alone(description: str) -> str:
    """Return a checked description; where it is of a Unix socket without a mode, with 600 and not Twisted's 666."""
    described = Described.of(description)
    if described.kind != "unix" or "mode" in described.named or len(described.unnamed) > 1:
        return description
    return f"{description}:mode=600"


def _split(description: str) -> list[str]:
    """The still quoted parts between unquoted colons. Raises ValueError."""
    parts = []
    position = 0
    while True:
        match = _PART.match(description, position)
        if match is None:
            raise ValueError("ends in a backslash")
        parts.append(match[1])
        if not match[2]:
            return parts
        position = match.end()


def _unquote(part: str) -> str:
    return re.sub(r"\\(.)", r"\1", part, flags=re.DOTALL)


def _resolve(place: Place, prefix: str, parts: list[str]) -> str:
    files = _FILES.get(prefix, frozenset())
    resolved = []
    position = 0
    for part in parts:
        named = _NAMED.fullmatch(part)
        name: str | int = named[1] if named else position
        position += not named
        value = _unquote(named[2] if named else part)
        if name in files and value and not value.startswith("\0"):
            quoted = re.sub(r"([\\:=])", r"\\\1", str(relative(place, value).absolute()))
            part = f"{named[1]}={quoted}" if named else quoted
        resolved.append(part)
    return ":".join(resolved)


def _check_port(place: Place, prefix: str, parts: list[str]) -> None:
    unnamed = [part for part in parts if not _NAMED.fullmatch(part)]
    named = {match[1]: match[2] for match in map(_NAMED.fullmatch, parts) if match}
    position = _PORT_OF.get(prefix, len(unnamed))
    number = named.get("port", unnamed[position] if position < len(unnamed) else "")
    if number.isascii() and number.isdigit() and int(number[:9]) > 65535:
        place.reject(f"port {number} is not from 0 to 65535")


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return f"no such file: {getattr(error.filename, 'decode', lambda: error.filename)()}"
    # What int() and argument binding say names Twisted's own functions first.
    return re.sub(r"^\w+(?:\.\w+)*\(\) ", "", str(error)) or type(error).__name__
