"""Names, several addresses, and which of them are connected to."""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.reactor import call, started_reactor
from tests.upstream.support import (
    Names,
    Recorder,
    accept,
    black_hole,
    eventually,
    listening,
    names,
    nothing_left,
    port_of,
    refusing,
)
from tests.upstream.test_clusters import Proxy, answer
from twisted_wasmproxy.config.model import AccessConfig, ServerConfig, UpstreamConfig
from twisted_wasmproxy.http.stream import StreamFault
from twisted_wasmproxy.upstream.access import Access
from twisted_wasmproxy.upstream.dial import interleave


@contextmanager
def origin(host: str, port: int, *addresses: str, **keys: Any) -> Iterator[tuple[Proxy, Names]]:
    """A proxy with one origin, whose name has these addresses."""
    config = UpstreamConfig("origin", (ServerConfig(host, port),), **keys)
    with nothing_left(), names({host: list(addresses)} if addresses else {}) as known, Proxy(config) as proxy:
        yield proxy, known


@contextmanager
def also_listening(host: str, port: int) -> Iterator[socket.socket]:
    with socket.create_server((host, port)) as server:
        server.settimeout(10)
        yield server


def serve(proxy: Proxy, server: socket.socket) -> float:
    """Do one exchange on a new connection; return how long it took to get one."""
    began = time.monotonic()
    receiver, peer = proxy.begin(server)
    took = time.monotonic() - began
    answer(receiver, peer)
    peer.close()
    eventually(lambda: receiver.stream.server.active == 0)
    return took


def acquire(proxy: Proxy) -> Recorder:
    receiver = Recorder()
    proxy.cluster.acquire(b"", receiver.ready, receiver)
    return receiver


# Several addresses


def test_an_address_that_refuses_is_followed_by_the_next_at_once():
    with (
        refusing() as port,
        also_listening("127.0.0.2", port) as server,
        origin("both.test", port, "127.0.0.1", "127.0.0.2") as (proxy, _),
    ):
        assert serve(proxy, server) < 0.2


def test_an_address_that_is_silent_does_not_hold_up_the_next():
    with (
        black_hole() as port,
        also_listening("127.0.0.2", port) as server,
        origin("both.test", port, "127.0.0.1", "127.0.0.2") as (proxy, _),
    ):
        assert 0.2 < serve(proxy, server) < 2


def test_a_silent_address_beside_one_that_refuses_is_waited_for():
    with (
        black_hole() as port,
        origin("both.test", port, "127.0.0.1", "127.0.0.2", connect_timeout=0.5) as (proxy, _),
    ):
        assert proxy.acquire().next("error").fault is StreamFault.TIMEOUT


def test_all_addresses_are_tried_before_it_fails():
    with refusing() as port, origin("both.test", port, "127.0.0.1", "127.0.0.3", "::1") as (proxy, _):
        error = proxy.acquire().next("error")
        assert error.fault is StreamFault.CONNECT
        assert str(error).startswith(f"both.test:{port}: ")
        assert proxy.cluster.servers[0].health.failures == 1


@given(st.lists(st.sampled_from(["192.0.2.%d", "2001:db8::%d"]), min_size=1))
def test_families_take_turns_from_the_resolvers_choice_on(kinds: list[str]):
    addresses = [kind % number for number, kind in enumerate(kinds)]
    order = interleave(addresses)
    assert sorted(order) == sorted(addresses)
    assert order[0] == addresses[0]
    for colon in (True, False):
        family = [address for address in addresses if (":" in address) == colon]
        assert [address for address in order if (":" in address) == colon] == family
    scarce = min(sum(":" in address for address in addresses), sum("." in address for address in addresses))
    turns = [":" in address for address in order[: 2 * scarce]]
    assert all(one != other for one, other in itertools.pairwise(turns))


def test_cancelling_between_two_addresses_leaves_no_timer():
    def staggered() -> bool:
        return any("_try_next" in repr(timer) for timer in started_reactor().getDelayedCalls())

    with black_hole() as port, origin("both.test", port, "127.0.0.1", "127.0.0.2") as (proxy, _):
        receiver = proxy.acquire()
        eventually(staggered)
        call(receiver.wait.cancel)
        assert not call(staggered)
        receiver.nothing()


# Names


def test_a_name_is_looked_up_once_for_all_who_wait_and_remembered_for_a_moment():
    with listening() as server, origin("one.test", port_of(server), "127.0.0.1") as (proxy, known):
        receivers = call(lambda: [acquire(proxy) for _ in range(5)])
        receivers.append(proxy.acquire())
        peers = [accept(server) for _ in receivers]
        for receiver in receivers:
            receiver.next("ready")
        assert known.asked == ["one.test"]
        for receiver, peer in zip(receivers, peers, strict=True):
            call(receiver.stream.abort)
            peer.close()


def test_a_name_is_not_remembered_for_longer(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("twisted_wasmproxy.upstream.resolve.Resolver.LIFETIME", 0.0)
    with (
        listening() as server,
        also_listening("127.0.0.2", port_of(server)) as moved,
        origin("one.test", port_of(server), "127.0.0.1") as (proxy, known),
    ):
        serve(proxy, server)
        known.addresses["one.test"] = ["127.0.0.2"]
        eventually(lambda: proxy.cluster.quiet)
        serve(proxy, moved)


def test_an_address_needs_no_resolver():
    with listening() as server, origin("127.0.0.1", port_of(server)) as (proxy, known):
        serve(proxy, server)
        assert known.asked == []


@pytest.mark.parametrize("host", ["no-such-host.invalid", "x" * 64, "fe80::1%nosuch", "a..b"])
def test_a_host_that_cannot_be_reached(host: str):
    with origin(host, 80) as (proxy, _):
        error = proxy.acquire().next("error")
        assert error.fault is StreamFault.CONNECT
        assert host in str(error)


def test_a_name_with_an_underscore_is_asked_for():
    with listening() as server, origin("my_service", port_of(server), "127.0.0.1") as (proxy, _):
        serve(proxy, server)


def test_cancelling_in_the_lookup_leaves_nothing():
    with listening() as server, origin("one.test", port_of(server), "127.0.0.1") as (proxy, _):
        receiver = Recorder()
        call(lambda: proxy.cluster.acquire(b"", receiver.ready, receiver).cancel())
        receiver.nothing()
        assert call(lambda: proxy.cluster.quiet)


def test_ipv6():
    try:
        with listening("::1"):
            pass
    except OSError as error:
        pytest.skip(f"no IPv6 loopback: {error}")
    with listening("::1") as server, origin("::1", port_of(server)) as (proxy, _):
        assert proxy.cluster.servers[0].authority == b"[::1]:%d" % port_of(server)
        serve(proxy, server)


# Access


def test_what_was_judged_is_what_is_connected_to(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("twisted_wasmproxy.upstream.resolve.Resolver.LIFETIME", 0.0)
    access = Access(AccessConfig(allow_destinations=(ip_network("127.0.0.2/32"),)))
    with (
        listening() as denied,
        also_listening("127.0.0.2", port_of(denied)) as allowed,
        origin("rebinding.test", 1, "127.0.0.1") as (proxy, known),
    ):
        cluster = call(proxy.upstreams.origin, b"http", "rebinding.test", port_of(denied), access)
        error = proxy.acquire(cluster=cluster).next("error")
        assert error.fault is StreamFault.DENIED
        assert str(error) == f"rebinding.test:{port_of(denied)}: access to 127.0.0.1 is denied"
        # Allowed when it is looked up, denied when somebody would look again.
        known.addresses["rebinding.test"] = ["127.0.0.1", "127.0.0.2"]
        receiver, peer = proxy.begin(allowed, cluster=cluster)
        known.addresses["rebinding.test"] = ["127.0.0.1"]
        answer(receiver, peer)
        peer.close()
        denied.setblocking(False)
        with pytest.raises(BlockingIOError):
            denied.accept()


def test_connections_are_not_shared_between_different_rules():
    strict, lax = Access(AccessConfig()), Access(AccessConfig())
    with origin("h", 80) as (proxy, _):
        one = call(proxy.upstreams.origin, b"http", "h", 80, strict)
        assert call(proxy.upstreams.origin, b"http", "h", 80, lax) is not one
        assert call(proxy.upstreams.origin, b"http", "h", 80, strict) is one
