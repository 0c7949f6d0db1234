"""Who may use a forward proxy, and what it reaches for them: the decisions of an `AccessConfig`, without I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from twisted_wasmproxy.config.model import AccessConfig

__all__ = ["GUARDED", "Access", "Peers"]

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

GUARDED: Final[tuple[Network, ...]] = tuple(
    ip_network(network)
    for network in (
        *("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "255.255.255.255/32"),
        *("::/128", "::1/128", "fe80::/10", "ff00::/8"),
        # Metadata services of clouds that are not at a link-local address: Alibaba, Azure, AWS, Google.
        *("100.100.100.200/32", "168.63.129.16/32", "fd00:ec2::254/128", "fd20:ce::254/128"),
    )
)
"""What nobody is let through to unless `allow_destinations` says so: loopback, link-local, unspecified, multicast and
broadcast addresses (RFC 6890), where servers trust whoever reaches them."""

_NAT64_LOCAL: Final = IPv6Network("64:ff9b:1::/48")
_CARRY_LAST_32: Final = tuple(map(IPv6Network, ("::/96", "64:ff9b::/96", "64:ff9b:1::/48", "::ffff:0:0:0/96")))
"""Prefixes whose addresses end in an IPv4 address: compatible (RFC 4291), NAT64 (RFC 6052, 8215), SIIT (RFC 2765)."""
_ISATAP: Final = frozenset([0x0000_5EFE, 0x0200_5EFE])
"""Bits 64 to 95 of an address that ends in an IPv4 address (RFC 5214)."""

_MOST_PEERS = 1024


def _nobody(address: str, port: int) -> bool:
    return False


class Access:
    """The rules of one listener, made ready for quick answers.

    Addresses are text as Twisted and the resolver give them (`192.0.2.1`, `fe80::1%eth0`). An IPv4 address inside IPv6
    (`::ffff:192.0.2.1`) is judged as the IPv4 address that it is, and the unspecified addresses `0.0.0.0` and `::` as
    the loopback address that a connection to them ends at. A destination in IPv6 that a translator or a tunnel may turn
    into an IPv4 address is judged as both.
    """

    __slots__ = ("_allow_clients", "_allow_hosts", "_config", "_denied", "_deny_clients", "_deny_hosts", "_own")

    def __init__(self, config: AccessConfig, own: Callable[[str, int], bool] = _nobody) -> None:
        """`own` tells whether an address and port are those of a listener of this proxy that is out of bounds."""
        self._config = config
        self._own = own
        self._allow_clients = Peers(config.allow_clients)
        self._deny_clients = Peers(config.deny_clients)
        self._deny_hosts = _HostSet(config.deny_hosts)
        self._allow_hosts = _HostSet(config.allow_hosts)
        self._denied = (*GUARDED, *config.deny_destinations)

    def client_allowed(self, address: str | None) -> bool:
        """Return whether a client at this address may use the proxy; None is the peer of a Unix socket, which may.

        A client that is in `deny_clients` may not; else one in `allow_clients` may; nobody else.
        """
        return address is None or (address not in self._deny_clients and address in self._allow_clients)

    def port_allowed(self, port: int, connect: bool) -> bool:
        """Return whether a port may be reached, by CONNECT or by a request in absolute form."""
        ports = self._config.connect_ports if connect else self._config.ports
        return 0 < port < 65536 and (not ports or port in ports)

    def host_allowed(self, host: str) -> bool:
        """Return whether a host may be reached by this name (or address literal, with or without brackets).

        This judges the name alone: a host has other names, so what must not be reached is for `deny_destinations`.
        """
        name = host_key(host)
        if name in self._deny_hosts:
            return False
        return not self._allow_hosts or name in self._allow_hosts

    def destination_allowed(self, address: str, port: int) -> bool:
        """Return whether a connection to this address and port may be made: asked after resolution, of the very
        address that is then connected to."""
        destination = _parse(address)
        if destination is None:
            return False
        for form in _forms(destination):
            if _contains(self._denied, form) and not _contains(self._config.allow_destinations, form):
                return False
            if self._own(str(form), port):
                return False
        return True


class Peers:
    """Networks of peers; remembers those it was asked about, which come again with each request."""

    __slots__ = ("_known", "_networks")

    def __init__(self, networks: Iterable[Network]) -> None:
        self._networks = tuple(networks)
        self._known: dict[str, bool] = {}

    def __contains__(self, address: str) -> bool:
        """Return whether an address is in one of them; what is no address is in none."""
        known = self._known.get(address)
        if known is None:
            parsed = _parse(address)
            known = parsed is not None and _contains(self._networks, parsed)
            if len(self._known) >= _MOST_PEERS:
                self._known.clear()
            self._known[address] = known
        return known


def host_key(host: str) -> str:
    """Return the form in which hosts compare: lower case, no final dot, addresses in their one canonical spelling."""
    key = host.lower()
    if key.endswith("."):
        key = key[:-1]
    if key.startswith("[") and key.endswith("]"):
        key = key[1:-1]
    if ":" in key or key[-1:].isdigit():
        address = _parse(key)
        if address is not None:
            return str(address)
    return key


class _HostSet:
    """Host names; `*.example.com` stands for the domain itself and all below it."""

    __slots__ = ("_domains", "_names")

    def __init__(self, patterns: Iterable[str]) -> None:
        self._names = {host_key(pattern) for pattern in patterns if not pattern.startswith("*.")}
        self._domains = {host_key(pattern[2:]) for pattern in patterns if pattern.startswith("*.")}

    def __bool__(self) -> bool:
        return bool(self._names or self._domains)

    def __contains__(self, name: str) -> bool:
        if name in self._names:
            return True
        if not self._domains:
            return False
        labels = name.split(".")
        return any(".".join(labels[start:]) in self._domains for start in range(len(labels)))


_LOOPBACK = {IPv4Address("0.0.0.0"): ip_address("127.0.0.1"), IPv6Address("::"): ip_address("::1")}  # noqa: S104 - compared, never bound


def _parse(address: str) -> Address | None:
    try:
        parsed = ip_address(address)
    except ValueError:
        return None
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped is not None:
            parsed = parsed.ipv4_mapped
        elif parsed.scope_id is not None:
            parsed = IPv6Address(int(parsed))
    return parsed


def _forms(address: Address) -> list[Address]:
    """Return an address and every IPv4 address that a packet to it may end at."""
    if isinstance(address, IPv4Address):
        return [address]
    forms: list[Address] = [address]
    number = int(address)
    if address.sixtofour is not None:
        forms.append(address.sixtofour)
    if address.teredo is not None:
        forms.extend(address.teredo)
    if (number >> 32) & 0xFFFF_FFFF in _ISATAP or (number > 1 and _contains(_CARRY_LAST_32, address)):
        forms.append(IPv4Address(number & 0xFFFF_FFFF))
    if address in _NAT64_LOCAL:  # the other layout there: RFC 6052 section 2.2, a prefix of 48 bits
        forms.append(IPv4Address((number >> 48 & 0xFFFF_0000) | (number >> 40 & 0xFFFF)))
        forms = [form for form in forms if int(form)]  # where one layout is used the other reads zero
    return forms


def _contains(networks: Iterable[Network], address: Address) -> bool:
    address = _LOOPBACK.get(address, address)
    return any(address in network for network in networks)
