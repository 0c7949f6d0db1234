"""`OwnListeners`: the addresses that this proxy listens on, so that it does not become a client of itself."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from ipaddress import ip_address

__all__ = ["OwnListeners"]

Bound = tuple[str, int]
"""Address (`0.0.0.0` and `::` for all of the machine) and port."""


class OwnListeners:
    """What is listened on at the moment; changed by reloads."""

    def __init__(self) -> None:
        self._listeners: dict[int, set[str]] = {}
        self._admin: dict[int, set[str]] = {}

    def replace(self, listeners: Iterable[Bound], admin: Iterable[Bound]) -> None:
        """Forget what was bound, and remember these: the proxy's listeners, and that of the control API."""
        self._listeners = _by_port(listeners)
        self._admin = _by_port(admin)

    def is_admin(self, address: str, port: int) -> bool:
        """Return whether a connection to this address and port would end at the control API."""
        return _reaches(self._admin.get(port), address)

    def is_any(self, address: str, port: int) -> bool:
        """Return whether a connection to this address and port would end at the control API or a listener."""
        return _reaches(self._listeners.get(port), address) or self.is_admin(address, port)


def _by_port(bound: Iterable[Bound]) -> dict[int, set[str]]:
    found: dict[int, set[str]] = {}
    for address, port in bound:
        found.setdefault(port, set()).add(str(ip_address(address.partition("%")[0])))
    return found


def _reaches(bound: set[str] | None, address: str) -> bool:
    """Return whether a server that is bound to `bound` is reached by this address in its canonical spelling."""
    if not bound:
        return False
    parsed = ip_address(address)
    if parsed.is_unspecified:  # a connection to it goes to this machine
        return True
    if address in bound:
        return True
    # A socket bound to all of IPv6 may take IPv4 too.
    everywhere = "::" in bound or (parsed.version == 4 and "0.0.0.0" in bound)  # noqa: S104 - compared, never bound
    return everywhere and _is_ours(address, parsed.version)


def _is_ours(address: str, version: int) -> bool:
    """Return whether an interface of this machine has the address: only then can a socket be bound to it."""
    with socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return ip_address(address).is_link_local  # which interface it is of is not known here
    return True
