"""Host names to addresses, through the reactor's resolver (which asks the system in threads)."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress, IHostResolution, IResolutionReceiver
from zope.interface import implementer

from twisted_wasmproxy.upstream.reactor import Reactor

__all__ = ["Resolver", "is_address"]

Answer = Callable[[list[str]], None]


class Resolver:
    """Looks names up: once for all who wait for the same name, and not again within `LIFETIME`.

    The system's resolver tells no time to live; so short a memory hides no change, and still spares a busy name its
    thread. Failures are not remembered.
    """

    LIFETIME = 5.0
    """Seconds."""
    CAPACITY = 1024
    """Names remembered."""
    ADDRESSES = 64
    """Addresses of one name; more are left out."""

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._waiting: dict[str, list[Answer]] = {}
        self._known: dict[str, tuple[float, list[str]]] = {}

    def lookup(self, host: str, answer: Answer) -> None:
        """Call `answer` with the addresses of `host`, best first; with none if there are none.

        In the same stack if the answer is known. There is no way to cancel: threads have none.
        """
        known = self._known.get(host)
        if known is not None:
            if self._reactor.seconds() < known[0]:
                answer(known[1])
                return
            del self._known[host]
        waiting = self._waiting.get(host)
        if waiting is not None:
            waiting.append(answer)
            return
        if not _can_be_asked(host):
            answer([])
            return
        self._waiting[host] = [answer]
        self._reactor.nameResolver.resolveHostName(_Receiver(lambda found: self._resolved(host, found)), host)

    def _resolved(self, host: str, addresses: list[str]) -> None:
        if addresses:
            if len(self._known) >= self.CAPACITY:
                del self._known[next(iter(self._known))]
            self._known[host] = (self._reactor.seconds() + self.LIFETIME, addresses)
        for answer in self._waiting.pop(host):
            answer(addresses)


def is_address(host: str) -> bool:
    """Return whether `host` is an IPv4 or IPv6 address (a scope as in `fe80::1%eth0` included) and no name."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _can_be_asked(host: str) -> bool:
    # Twisted's resolver never answers for a name that getaddrinfo cannot take (a label over 63 bytes, a NUL).
    try:
        return b"\0" not in host.encode("idna")
    except UnicodeError:
        return False


@implementer(IResolutionReceiver)
class _Receiver:
    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._found: list[str] = []

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        pass

    def addressResolved(self, address: IAddress) -> None:
        if isinstance(address, IPv4Address):
            host = address.host
        elif isinstance(address, IPv6Address):
            host = f"{address.host}%{address.scopeID}" if address.scopeID else address.host
        else:
            return
        if len(self._found) < Resolver.ADDRESSES and host not in self._found:
            self._found.append(host)

    def resolutionComplete(self) -> None:
        self._answer(self._found)
