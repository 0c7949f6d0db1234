"""What a forward proxy lets which client reach: the decisions of an `AccessConfig`, without I/O."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from twisted_wasmproxy.config.model import AccessConfig

__all__ = ["Access"]

Network = IPv4Network | IPv6Network


class Access:
    """The rules of one listener, made ready for quick answers.

    Addresses are text as Twisted and the resolver give them (`192.0.2.1`, `fe80::1%eth0`). An IPv4 address inside IPv6
    (`::ffff:192.0.2.1`) is judged as the IPv4 address that it is, and the unspecified addresses `0.0.0.0` and `::` as
    the loopback address that a connection to them ends at.
    """

    __slots__ = ("_allow_hosts", "_config", "_deny_hosts", "checks_destinations")

    def __init__(self, config: AccessConfig) -> None:
        self._config = config
        self._deny_hosts = _HostSet(config.deny_hosts)
        self._allow_hosts = _HostSet(config.allow_hosts)
        self.checks_destinations = bool(config.deny_destinations)
        """Whether any address at all is denied."""

    def client_allowed(self, address: str | None) -> bool:
        """Return whether a client at this address may use the proxy; None is the peer of a Unix socket, which may.

        A client that is in `deny_clients` may not; else one in `allow_clients` may; nobody else.
        """
        if address is None:
            return True
        client = _parse(address)
        if client is None or _contains(self._config.deny_clients, client):
            return False
        return _contains(self._config.allow_clients, client)

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

    def destination_allowed(self, address: str) -> bool:
        """Return whether a connection to this address may be made; to be asked after resolution, before connecting."""
        if not self.checks_destinations:
            return True
        destination = _parse(address)
        if destination is None:
            return False
        if not _contains(self._config.deny_destinations, destination):
            return True
        return _contains(self._config.allow_destinations, destination)


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


def _parse(address: str) -> IPv4Address | IPv6Address | None:
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


def _contains(networks: tuple[Network, ...], address: IPv4Address | IPv6Address) -> bool:
    address = _LOOPBACK.get(address, address)
    return any(address in network for network in networks)
