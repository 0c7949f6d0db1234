"""Access rules of the forward proxy."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twisted_wasmproxy.config.model import AccessConfig
from twisted_wasmproxy.upstream.access import Access
from twisted_wasmproxy.upstream.own import OwnListeners

PRIVATE = tuple(map(ip_network, ("127.0.0.0/8", "::1/128", "10.0.0.0/8", "fe80::/10")))


@pytest.mark.parametrize(
    ("client", "allowed"),
    [
        ("127.0.0.1", True),
        ("::ffff:127.0.0.1", True),
        ("::1", True),
        ("10.1.2.3", True),
        ("10.66.0.1", False),
        ("::ffff:10.66.0.1", False),
        ("192.0.2.1", False),
        ("fe80::1%eth0", True),
        ("2001:db8::1", False),
        ("nonsense", False),
        (None, True),
    ],
)
def test_clients_are_allowed_by_network_and_deny_goes_first(client: str | None, allowed: bool):
    access = Access(AccessConfig(allow_clients=PRIVATE, deny_clients=(ip_network("10.66.0.0/16"),)))
    assert access.client_allowed(client) == allowed


def test_without_allowed_clients_nobody_may():
    assert not Access(AccessConfig()).client_allowed("127.0.0.1")


def test_ports():
    access = Access(AccessConfig(connect_ports=(443, 8443), ports=()))
    assert access.port_allowed(443, connect=True)
    assert not access.port_allowed(22, connect=True)
    assert access.port_allowed(22, connect=False)
    assert not access.port_allowed(0, connect=False)
    assert not access.port_allowed(65536, connect=False)
    assert not Access(AccessConfig(ports=(80,))).port_allowed(81, connect=False)
    assert Access(AccessConfig(connect_ports=())).port_allowed(22, connect=True)


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("www.example.com", True),
        ("WWW.Example.COM.", True),
        ("example.com", True),
        ("notexample.com", False),
        ("secret.example.com", False),
        ("secret.example.com.", False),
        ("a.secret.example.com", True),
        ("deep.bad.example.com", False),
        ("bad.example.com", False),
        ("exact.test", True),
        ("sub.exact.test", False),
        ("[2001:DB8:0::1]", True),
        ("2001:db8::1", True),
        ("", False),
    ],
)
def test_hosts_by_name_and_domain(host: str, allowed: bool):
    config = AccessConfig(
        allow_hosts=("*.example.com", "exact.test", "2001:db8::1"),
        deny_hosts=("secret.example.com", "*.bad.example.com"),
    )
    assert Access(config).host_allowed(host) == allowed


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("127.0.0.1", False),
        ("127.0.0.2", True),
        ("::ffff:127.0.0.1", False),
        ("::ffff:127.0.0.2", True),
        ("0.0.0.0", False),
        ("::ffff:0.0.0.0", False),
        ("::", False),
        ("::1", False),
        ("10.0.0.1", False),
        ("192.0.2.1", True),
        ("fe80::1%2", False),
        ("64:ff9b::a00:1", False),
        ("64:ff9b::c000:201", True),
        ("not an address", False),
    ],
)
def test_destinations_are_judged_by_the_address_they_end_at(address: str, allowed: bool):
    config = AccessConfig(deny_destinations=PRIVATE, allow_destinations=(ip_network("127.0.0.2/32"),))
    assert Access(config).destination_allowed(address, 80) == allowed


GUARDED = [
    *("127.0.0.1", "127.255.255.255", "0.0.0.0", "0.1.2.3", "169.254.169.254", "224.0.0.1", "239.1.2.3"),
    *("255.255.255.255", "100.100.100.200", "168.63.129.16"),
    *("::1", "::", "fe80::1", "fe80::1%eth0", "ff02::1", "fd00:ec2::254", "fd20:ce::254"),
    # An IPv4 address inside: mapped, compatible, SIIT, NAT64 in each layout, 6to4, Teredo, ISATAP.
    *("::ffff:127.0.0.1", "::ffff:7f00:1", "::127.0.0.1", "::ffff:0:7f00:1", "::ffff:169.254.169.254"),
    *("64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::7f00:1", "64:ff9b:1:7f00:0:100::"),
    *("2002:7f00:1::", "2002:7f00:1::5", "2001:0:4136:e378:8000:63bf:80ff:fffe", "2001:db8::5efe:7f00:1"),
]


@pytest.mark.parametrize("address", GUARDED)
def test_what_trusts_its_neighbours_is_out_of_reach_by_default(address: str):
    assert not Access(AccessConfig()).destination_allowed(address, 80)
    everything = AccessConfig(allow_destinations=(ip_network("0.0.0.0/0"), ip_network("::/0")))
    assert Access(everything).destination_allowed(address, 80)


@pytest.mark.parametrize(
    "address",
    [
        *(
            "192.0.2.1",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "2001:db8::1",
            "fd00::1",
            "::ffff:192.0.2.1",
        ),
        *("64:ff9b::c000:201", "64:ff9b:1::c000:201", "64:ff9b:1:c000:2:100::", "2002:c000:201::1"),
    ],
)
def test_the_rest_may_be_reached_private_networks_too(address: str):
    assert Access(AccessConfig()).destination_allowed(address, 80)


def test_the_default_denies_no_name():
    assert Access(AccessConfig()).host_allowed("anything")


def test_own_listeners_are_out_of_reach_though_their_address_is_allowed():
    own = OwnListeners()
    own.replace([("127.0.0.1", 8080), ("0.0.0.0", 8081), ("::", 8082), ("::1", 8083)], [("127.0.0.5", 9000)])
    allow = (ip_network("0.0.0.0/0"), ip_network("::/0"))
    access = Access(AccessConfig(allow_destinations=allow), own.is_any)
    for address in ("127.0.0.1", "::ffff:127.0.0.1", "0.0.0.0", "::", "64:ff9b::7f00:1"):
        assert not access.destination_allowed(address, 8080)
    for address in (
        "127.0.0.1",
        "127.9.9.9",
        "::ffff:127.0.0.1",
    ):  # of the whole of 127.0.0.0/8 this machine is the host
        assert not access.destination_allowed(address, 8081)
        assert not access.destination_allowed(address, 8082)
    assert not access.destination_allowed("::1", 8083)
    assert not access.destination_allowed("127.0.0.5", 9000)
    assert access.destination_allowed("127.0.0.2", 8080)
    assert access.destination_allowed("192.0.2.1", 8081)
    assert access.destination_allowed("127.0.0.1", 9000)
    assert access.destination_allowed("127.0.0.1", 80)
    lax = Access(AccessConfig(allow_destinations=allow, allow_own_listeners=True), own.is_admin)
    assert lax.destination_allowed("127.0.0.1", 8081)
    assert not lax.destination_allowed("127.0.0.5", 9000)
    own.replace([], [])
    assert access.destination_allowed("127.0.0.1", 8080)


@given(st.text())
def test_nothing_raises(text: str):
    access = Access(AccessConfig(allow_clients=PRIVATE, deny_destinations=PRIVATE, allow_hosts=("a", "*.b")))
    access.client_allowed(text)
    access.host_allowed(text)
    access.destination_allowed(text, 80)


@settings(deadline=None)
@given(st.ip_addresses().map(str), st.integers(1, 65535))
def test_every_address_is_judged(address: str, port: int):
    own = OwnListeners()
    own.replace([("0.0.0.0", port), ("::", port)], [])
    assert not Access(AccessConfig(), own.is_any).destination_allowed("::1", port)
    Access(AccessConfig(), own.is_any).destination_allowed(address, port)
