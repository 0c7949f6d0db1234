"""The authority of a request, `host[:port]`: its grammar, and the one spelling that rules, cache and origin see."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["DEFAULT_PORTS", "normal_authority", "without_default_port"]

DEFAULT_PORTS: Final = {b"http": b":80", b"https": b":443"}
"""What a scheme's own port looks like at the end of an authority (RFC 9110 section 4.2)."""

# Sub-delimiters, which RFC 3986 allows in a reg-name, are refused: no name that can be resolved has any, and a comma
# would make two hosts of one for whoever reads Host as a list.
_AUTHORITY = re.compile(
    rb"((?:[A-Za-z0-9\-._~]|%[0-9A-Fa-f]{2})*|\[[0-9A-Fa-f:.]+\])(?::([0-9]{0,5}))?",
)

_LIMIT: Final = 1024
"""Bytes of an authority: a name has 253 characters at most, each of which may be percent-encoded."""

_known: Final[dict[bytes, bytes]] = {}
_KNOWN_LIMIT = 1024


def normal_authority(value: bytes) -> bytes | None:
    """Return `uri-host [":" port]` (RFC 9110 section 7.2) in its normal form; None for anything else.

    Lower case, the port without leading zeros, and no colon where there is no port (RFC 3986 sections 6.2.2.1 and
    6.2.3). User information is not part of it, and a port without a host is nothing at all. Empty stays empty.
    """
    known = _known.get(value)
    if known is not None:
        return known
    match = _AUTHORITY.fullmatch(value) if len(value) <= _LIMIT else None
    if match is None:
        return None
    host, digits = match.groups()
    if digits is not None and not host:
        return None
    normal: bytes = host.lower()
    if digits:
        port = int(digits)
        if port > 65535:
            return None
        normal += b":%d" % port
    if len(value) <= 255:
        if len(_known) >= _KNOWN_LIMIT:
            _known.clear()
        _known[value] = normal
    return normal


def without_default_port(authority: bytes, scheme: bytes) -> bytes:
    """Return a normal authority without the port that goes without saying for the scheme (RFC 9110 section 4.2.3)."""
    port = DEFAULT_PORTS.get(scheme)
    return authority[: -len(port)] if port is not None and authority.endswith(port) else authority
