"""Clusters, pools and their limits, with real connections to origins that the tests play by hand."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack
from typing import Any

import pytest

from tests.support.reactor import call, started_reactor
from tests.upstream.support import (
    Recorder,
    accept,
    black_hole,
    eventually,
    listening,
    nothing_left,
    port_of,
    refusing,
    request,
)
from twisted_wasmproxy.config.model import HealthConfig, ServerConfig, UpstreamConfig
from twisted_wasmproxy.http.stream import StreamFault
from twisted_wasmproxy.upstream.clusters import Cluster
from twisted_wasmproxy.upstream.upstreams import Upstreams

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def upstream(*ports: int, name: str = "origin", **keys: Any) -> UpstreamConfig:
    return UpstreamConfig(name, tuple(ServerConfig("127.0.0.1", port) for port in ports), **keys)


class Proxy:
    """The upstreams of one configuration."""

    def __init__(self, *configs: UpstreamConfig, previous: Proxy | None = None) -> None:
        old = previous.upstreams if previous is not None else None
        self.upstreams: Upstreams = call(lambda: Upstreams(configs, started_reactor(), previous=old))

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *exc: object) -> None:
        call(self.upstreams.close)

    @property
    def cluster(self) -> Cluster:
        return self.upstreams.cluster("origin")

    def acquire(self, key: bytes = b"", exclude: Any = None, cluster: Cluster | None = None) -> Recorder:
        receiver = Recorder()
        receiver.wait = call((cluster or self.cluster).acquire, key, receiver.ready, receiver, exclude)
        return receiver

    def begin(self, server: socket.socket, **keys: Any) -> tuple[Recorder, socket.socket]:
        """Return an exchange on a new connection, its request read."""
        receiver = self.acquire(**keys)
        peer = accept(server)
        receiver.next("ready")
        ask(receiver, peer)
        return receiver, peer

    def finished(self, server: socket.socket, **keys: Any) -> socket.socket:
        """Return a connection that is idle after one exchange."""
        receiver, peer = self.begin(server, **keys)
        answer(receiver, peer)
        return peer


def ask(receiver: Recorder, peer: socket.socket) -> bytes:
    """Send a request and return its head as the origin gets it."""
    call(receiver.stream.send_request, request(), True)
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        data = peer.recv(65536)
        assert data, head
        head += data
    return head


def answer(receiver: Recorder, peer: socket.socket, response: bytes = OK) -> None:
    """Answer, and see the answer come."""
    peer.sendall(response)
    assert receiver.next("response").status == 200
    assert receiver.data(2) == b"ok"
    receiver.next("end")


def closed(peer: socket.socket) -> bool:
    """Wait for the proxy to close its end."""
    try:
        return peer.recv(1) == b""
    except ConnectionResetError:
        return True


def no_connection(server: socket.socket) -> bool:
    server.setblocking(False)
    try:
        server.accept()
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        server.settimeout(10)


# Pools


def test_a_connection_is_used_again_in_the_same_stack():
    with nothing_left(), listening() as server, Proxy(upstream(port_of(server))) as proxy:
        peer = proxy.finished(server)
        order: list[str] = []
        receiver = Recorder()

        def again() -> None:
            proxy.cluster.acquire(b"", lambda stream: (order.append("ready"), receiver.ready(stream))[0], receiver)
            order.append("returned")

        call(again)
        assert order == ["ready", "returned"]
        receiver.next("ready")
        assert receiver.stream.reused
        assert receiver.stream.server is proxy.cluster.servers[0]
        assert receiver.stream.authority == b"127.0.0.1:%d" % port_of(server)
        ask(receiver, peer)
        answer(receiver, peer)
        assert no_connection(server)
        peer.close()


def test_the_last_connection_that_became_idle_is_the_first_to_be_used_again():
    with nothing_left(), listening() as server, Proxy(upstream(port_of(server))) as proxy:
        first, first_peer = proxy.begin(server)
        second, second_peer = proxy.begin(server)
        assert proxy.cluster.servers[0].active == 2
        answer(second, second_peer)
        answer(first, first_peer)
        assert proxy.cluster.servers[0].active == 0
        third = proxy.acquire()
        third.next("ready")
        ask(third, first_peer)
        answer(third, first_peer)
        first_peer.close()
        second_peer.close()


def test_a_connection_that_the_origin_has_closed_is_not_used_again():
    with nothing_left(), listening() as server, Proxy(upstream(port_of(server))) as proxy:
        peer = proxy.finished(server)
        deadlines = proxy.upstreams._workshop.deadlines
        idle_since = call(lambda: deadlines.now)
        eventually(lambda: deadlines.now > idle_since)

        def close_and_acquire() -> Recorder:
            # Within one turn of the reactor: it cannot have noticed.
            peer.shutdown(socket.SHUT_RDWR)
            peer.close()
            receiver = Recorder()
            proxy.cluster.acquire(b"", receiver.ready, receiver)
            return receiver

        receiver = call(close_and_acquire)
        peer = accept(server)
        receiver.next("ready")
        assert not receiver.stream.reused
        ask(receiver, peer)
        answer(receiver, peer)
        peer.close()


def test_a_connection_that_may_not_persist_is_closed():
    with nothing_left(), listening() as server, Proxy(upstream(port_of(server))) as proxy:
        receiver, peer = proxy.begin(server)
        answer(receiver, peer, OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        assert closed(peer)
        peer.close()
        eventually(lambda: proxy.cluster.quiet)
        assert proxy.cluster.servers[0].active == 0


def test_an_aborted_exchange_gives_its_place_back():
    with nothing_left(), listening() as server, Proxy(upstream(port_of(server), max_connections=1)) as proxy:
        receiver, peer = proxy.begin(server)
        waiting = proxy.acquire()
        call(receiver.stream.abort)
        assert closed(peer)
        peer.close()
        peer = accept(server)
        waiting.next("ready")
        ask(waiting, peer)
        answer(waiting, peer)
        peer.close()


def test_beyond_max_connections_requests_wait_in_order():
    with nothing_left(), listening() as server, Proxy(upstream(port_of(server), max_connections=1)) as proxy:
        receiver, peer = proxy.begin(server)
        waiting = [proxy.acquire() for _ in range(3)]
        assert no_connection(server)
        for following in waiting:
            answer(receiver, peer)
            receiver = following
            receiver.next("ready")
            ask(receiver, peer)
        answer(receiver, peer)
        peer.close()


def test_who_waits_too_long_for_a_place_gets_an_overload():
    config = {"max_connections": 1, "connect_timeout": 0.1}
    with nothing_left(), listening() as server, Proxy(upstream(port_of(server), **config)) as proxy:
        receiver, peer = proxy.begin(server)
        late = proxy.acquire()
        error = late.next("error")
        assert error.fault is StreamFault.OVERLOAD
        assert "all of 1 connections in use" in str(error)
        answer(receiver, peer)
        late.nothing()
        peer.close()


def test_who_cancels_is_not_served():
    with nothing_left(), listening() as server, Proxy(upstream(port_of(server), max_connections=1)) as proxy:
        receiver, peer = proxy.begin(server)
        gone, next_one = proxy.acquire(), proxy.acquire()
        call(gone.wait.cancel)
        answer(receiver, peer)
        next_one.next("ready")
        gone.nothing()
        ask(next_one, peer)
        answer(next_one, peer)
        call(gone.wait.cancel)
        call(next_one.wait.cancel)
        next_one.nothing()
        peer.close()


def test_no_more_than_max_idle_connections_are_kept():
    with nothing_left(), listening() as server, Proxy(upstream(port_of(server), max_idle=1)) as proxy:
        exchanges = [proxy.begin(server) for _ in range(3)]
        for receiver, peer in exchanges:
            answer(receiver, peer)
        assert closed(exchanges[1][1])
        assert closed(exchanges[2][1])
        again = proxy.acquire()
        again.next("ready")
        ask(again, exchanges[0][1])
        answer(again, exchanges[0][1])
        for _, peer in exchanges:
            peer.close()


def test_idle_connections_are_closed_in_time():
    with nothing_left(), listening() as server, Proxy(upstream(port_of(server), idle_timeout=0.2)) as proxy:
        peer = proxy.finished(server)
        began = time.monotonic()
        assert closed(peer)
        assert time.monotonic() - began >= 0.15
        peer.close()
        eventually(lambda: proxy.cluster.quiet)


def test_a_wait_is_served_by_whatever_is_free_first():
    with nothing_left(), listening() as server, Proxy(upstream(port_of(server))) as proxy:
        receiver, peer = proxy.begin(server)
        server.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(server.getsockname())
        waiting = proxy.acquire()
        waiting.nothing()
        answer(receiver, peer)
        waiting.next("ready")
        assert waiting.stream.reused
        ask(waiting, peer)
        answer(waiting, peer)
        for filler in fillers:
            filler.close()
        peer.close()


# Errors


def test_a_refused_connection_is_a_connect_error():
    with nothing_left(), refusing() as port, Proxy(upstream(port)) as proxy:
        receiver = proxy.acquire()
        error = receiver.next("error")
        assert error.fault is StreamFault.CONNECT
        assert str(error) == f"127.0.0.1:{port}: Connection refused"
        assert proxy.cluster.quiet


def test_a_silent_server_is_a_timeout_and_a_failure():
    with nothing_left(), black_hole() as port, Proxy(upstream(port, connect_timeout=0.2)) as proxy:
        receiver = proxy.acquire()
        error = receiver.next("error")
        assert error.fault is StreamFault.TIMEOUT
        assert str(error) == f"http://127.0.0.1:{port}: no connection within 0.2 s"
        eventually(lambda: proxy.cluster.quiet and proxy.cluster.servers[0].health.failures == 1)
        receiver.nothing()


def test_cancelling_while_connecting_leaves_nothing():
    with nothing_left(), black_hole() as port, Proxy(upstream(port)) as proxy:
        receiver = proxy.acquire()
        other = proxy.acquire()
        call(receiver.wait.cancel)
        assert not call(lambda: proxy.cluster.quiet)
        call(other.wait.cancel)
        assert call(lambda: proxy.cluster.quiet)
        receiver.nothing()
        other.nothing()


# Several servers


def test_a_refused_connection_is_tried_on_the_next_server():
    with nothing_left(), refusing() as dead, listening() as server, Proxy(upstream(dead, port_of(server))) as proxy:
        for _ in range(4):
            receiver = proxy.acquire()
            peer = accept(server)
            assert receiver.next("ready").server is proxy.cluster.servers[1]
            call(receiver.stream.abort)
            peer.close()


def test_each_server_is_tried_once_and_the_error_names_all():
    with nothing_left(), ExitStack() as stack:
        ports = [stack.enter_context(refusing()) for _ in range(3)]
        proxy = stack.enter_context(Proxy(upstream(*ports)))
        error = proxy.acquire().next("error")
        assert error.fault is StreamFault.CONNECT
        assert sorted(str(error).split("; ")) == sorted(f"127.0.0.1:{port}: Connection refused" for port in ports)
        assert [server.health.failures for server in proxy.cluster.servers] == [1, 1, 1]


def test_a_slow_server_does_not_use_up_the_time_for_the_next():
    with (
        nothing_left(),
        black_hole() as slow,
        listening() as server,
        Proxy(upstream(slow, port_of(server), connect_timeout=0.6)) as proxy,
    ):
        began = time.monotonic()
        receiver = proxy.acquire()
        peer = accept(server)
        receiver.next("ready")
        assert time.monotonic() - began < 0.6
        assert receiver.stream.server is proxy.cluster.servers[1]
        ask(receiver, peer)
        answer(receiver, peer)
        peer.close()


def test_round_robin_and_exclude():
    with nothing_left(), listening() as one, listening() as two, Proxy(upstream(port_of(one), port_of(two))) as proxy:
        first, second = proxy.cluster.servers
        peers = [proxy.finished(one), proxy.finished(two)]
        assert proxy.acquire(exclude=first).next("ready").server is second
        assert proxy.acquire(exclude=second).next("ready").server is first
        call(lambda: [pool.close() for pool in proxy.cluster.pools])
        for peer in peers:
            peer.close()


def test_exclude_falls_back_to_the_only_server():
    with nothing_left(), listening() as server, Proxy(upstream(port_of(server))) as proxy:
        peer = proxy.finished(server)
        receiver = proxy.acquire(exclude=proxy.cluster.servers[0])
        receiver.next("ready")
        ask(receiver, peer)
        answer(receiver, peer)
        peer.close()


def test_a_failing_server_rests_and_comes_back():
    health = HealthConfig(max_failures=2, rest=0.3, max_rest=0.3)
    with (
        nothing_left(),
        listening() as one,
        listening() as two,
        Proxy(upstream(port_of(one), port_of(two), health=health)) as proxy,
    ):
        bad, good = proxy.cluster.servers
        proxy.finished(one).close()
        peer = proxy.finished(two)
        call(bad.failed)
        call(bad.failed)
        for _ in range(4):
            receiver = proxy.acquire()
            assert receiver.next("ready").server is good
            ask(receiver, peer)
            answer(receiver, peer)
        eventually(lambda: bad.available(started_reactor().seconds()))
        picked = [call(proxy.cluster._choose, b"", None) for _ in range(4)]
        assert picked.count(bad) == 1
        call(bad.succeeded)
        picked = [call(proxy.cluster._choose, b"", None) for _ in range(4)]
        assert picked.count(bad) == 2
        peer.close()


def test_when_all_rest_the_one_that_rests_the_shortest_is_tried():
    health = HealthConfig(max_failures=1, rest=30.0)
    with (
        nothing_left(),
        listening() as one,
        listening() as two,
        Proxy(upstream(port_of(one), port_of(two), health=health)) as proxy,
    ):
        first, second = proxy.cluster.servers
        call(second.failed)
        call(first.failed)
        receiver = proxy.acquire()
        peer = accept(two)
        assert receiver.next("ready").server is second
        call(receiver.stream.abort)
        peer.close()


@pytest.mark.parametrize("idle", [True, False])
def test_a_full_server_sends_requests_to_one_with_room(idle: bool):
    with (
        nothing_left(),
        listening() as one,
        listening() as two,
        Proxy(upstream(port_of(one), port_of(two), max_connections=1)) as proxy,
    ):
        first, second = proxy.cluster.servers
        held = proxy.acquire()
        peers = [accept(one)]
        assert held.next("ready").server is first
        receiver, peer = proxy.begin(two)
        peers.append(peer)
        if idle:
            answer(receiver, peer)
        else:
            call(receiver.stream.abort)
            eventually(lambda: second.active == 0)
        other = proxy.acquire()
        if not idle:
            peers.append(accept(two))
        assert other.next("ready").server is second
        assert other.stream.reused == idle
        call(held.stream.abort)
        call(other.stream.abort)
        for peer in peers:
            peer.close()


def test_a_hashed_request_waits_for_its_server():
    config = {"max_connections": 1, "balance": "consistent_hash", "connect_timeout": 0.3}
    with nothing_left(), listening() as one, listening() as two:
        servers = {port_of(one): one, port_of(two): two}
        with Proxy(upstream(*servers, **config)) as proxy:
            chosen = call(proxy.cluster._choose, b"/a", None)
            held = proxy.acquire(key=b"/a")
            peer = accept(servers[chosen.port])
            held.next("ready")
            waiting = proxy.acquire(key=b"/a")
            waiting.nothing()
            ask(held, peer)
            answer(held, peer)
            assert waiting.next("ready").server is chosen
            call(waiting.stream.abort)
            peer.close()


def test_a_key_stays_with_its_server():
    with nothing_left(), listening() as one, listening() as two:
        servers = {port_of(one): one, port_of(two): two}
        with Proxy(upstream(*servers, balance="consistent_hash")) as proxy:
            for key in (b"/a", b"/b", b"/c", b"/d"):
                chosen = call(proxy.cluster._choose, key, None)
                receiver = proxy.acquire(key=key)
                peer = accept(servers[chosen.port])
                assert receiver.next("ready").server is chosen
                call(receiver.stream.abort)
                peer.close()


# Reload and close


def test_closing_closes_idle_connections_now_and_others_when_they_are_free():
    with nothing_left(), listening() as server:
        proxy = Proxy(upstream(port_of(server)))
        receiver, peer = proxy.begin(server)
        idle_receiver, idle_peer = proxy.begin(server)
        answer(idle_receiver, idle_peer)
        call(proxy.upstreams.close)
        call(proxy.upstreams.close)
        assert closed(idle_peer)
        answer(receiver, peer)
        assert closed(peer)
        late, late_peer = proxy.begin(server)
        answer(late, late_peer)
        assert closed(late_peer)
        for connection in (peer, idle_peer, late_peer):
            connection.close()


def test_a_reload_keeps_the_connections_of_what_has_not_changed():
    with nothing_left(), listening() as same, listening() as changed:
        before = Proxy(upstream(port_of(same)), upstream(port_of(changed), name="b"))
        kept = before.finished(same)
        dropped = before.finished(changed, cluster=before.upstreams.cluster("b"))
        after = Proxy(upstream(port_of(same)), upstream(port_of(changed), name="b", max_idle=3), previous=before)
        call(before.upstreams.close)
        assert closed(dropped)
        receiver = after.acquire()
        receiver.next("ready")
        assert receiver.stream.reused
        ask(receiver, kept)
        answer(receiver, kept)
        call(after.upstreams.close)
        assert closed(kept)
        kept.close()
        dropped.close()


def test_a_reload_that_is_given_up_changes_nothing():
    with nothing_left(), listening() as server, Proxy(upstream(port_of(server))) as proxy:
        peer = proxy.finished(server)
        given_up = Proxy(upstream(port_of(server)), previous=proxy)
        call(given_up.upstreams.close)
        receiver = proxy.acquire()
        receiver.next("ready")
        ask(receiver, peer)
        answer(receiver, peer)
        peer.close()


# Origins of a forward proxy


def test_origins_are_made_on_demand_and_keep_their_connections():
    with nothing_left(), listening() as server, Proxy() as proxy:
        origin = call(proxy.upstreams.origin, b"http", "127.0.0.1", port_of(server))
        peer = proxy.finished(server, cluster=origin)
        assert call(proxy.upstreams.origin, b"http", "127.0.0.1", port_of(server)) is origin
        assert call(proxy.upstreams.origin, b"https", "127.0.0.1", port_of(server)) is not origin
        receiver = proxy.acquire(cluster=origin)
        receiver.next("ready")
        ask(receiver, peer)
        answer(receiver, peer)
        call(proxy.upstreams.close)
        assert closed(peer)
        peer.close()


def test_origins_are_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("twisted_wasmproxy.upstream.upstreams.ORIGINS", 2)
    with nothing_left(), listening() as server, Proxy() as proxy:
        first = call(proxy.upstreams.origin, b"http", "127.0.0.1", port_of(server))
        peer = proxy.finished(server, cluster=first)
        second = call(proxy.upstreams.origin, b"http", "127.0.0.1", 2)
        call(proxy.upstreams.origin, b"http", "127.0.0.1", 3)
        assert closed(peer)
        assert call(proxy.upstreams.origin, b"http", "127.0.0.1", 2) is second
        assert call(proxy.upstreams.origin, b"http", "127.0.0.1", port_of(server)) is not first
        peer.close()
