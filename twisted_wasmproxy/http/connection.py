"""What is known of a connection, whatever version of HTTP it speaks (`ConnectionInfo`)."""

from __future__ import annotations

from itertools import count
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address

from twisted_wasmproxy.http.transport import is_secure

__all__ = ["Connection"]

_ids = count(1)


def _address(address: object) -> tuple[str, int] | None:
    if isinstance(address, IPv4Address | IPv6Address):
        return address.host, address.port
    return None


class Connection:
    """`ConnectionInfo` of a transport that is connected."""

    __slots__ = ("id", "local", "peer", "secure", "transport")

    def __init__(self, transport: Any) -> None:
        self.id = next(_ids)
        self.peer = _address(transport.getPeer())
        self.local = _address(transport.getHost())
        self.secure = is_secure(transport)
        self.transport: object = transport
