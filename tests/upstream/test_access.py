"""Access rules of the forward proxy."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_wasmproxy.config.model import AccessConfig
from twisted_wasmproxy.upstream.access import Access

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
        ("0.0.0.0", False),
        ("::ffff:0.0.0.0", False),
        ("::", False),
        ("::1", False),
        ("192.0.2.1", True),
        ("fe80::1%2", False),
        ("not an address", False),
    ],
)
def test_destinations_are_judged_by_the_address_they_end_at(address: str, allowed: bool):
    config = AccessConfig(deny_destinations=PRIVATE, allow_destinations=(ip_network("127.0.0.2/32"),))
    assert Access(config).destination_allowed(address) == allowed


def test_the_default_denies_no_destination():
    access = Access(AccessConfig())
    assert access.destination_allowed("127.0.0.1")
    assert access.host_allowed("anything")


@given(st.text())
def test_nothing_raises(text: str):
    access = Access(AccessConfig(allow_clients=PRIVATE, deny_destinations=PRIVATE, allow_hosts=("a", "*.b")))
    access.client_allowed(text)
    access.host_allowed(text)
    access.destination_allowed(text)
