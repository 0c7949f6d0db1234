"""Whatever function fails, once, whenever: every client gets an answer or an end, and nothing is left."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from twisted.web.server import Site

from tests.e2e.injection import Injector
from tests.e2e.support import Arrival, Client, ScriptedOrigin, answer, connect, eventually, scripted_origin
from tests.support.proxy import free_port
from tests.support.reactor import call, run, started_reactor
from twisted_wasmproxy.config import load
from twisted_wasmproxy.http.transport import turn
from twisted_wasmproxy.resource import WasmProxyResource
from twisted_wasmproxy.service import ProxyService

PACKAGES = ("http", "transaction", "cache", "upstream", "accesslog")

EXEMPT = frozenset(
    {
        # What makes a connection, or takes it off the books, in a line or two.
        "http.http1.server.ServerFactory.buildProtocol",
        "http.http1.server.ServerFactory.left",
        "http.http1.server.ServerProtocol.__init__",
        "http.http1.server.ServerProtocol.connection_lost",
        "http.http1.client.ClientProtocol.connection_lost",
        "http.http1.wire.Wire.__init__",
        "http.http1.wire.Wire.connectionLost",
        "http.http1.wire.Wire.stopProducing",
        "http.deadlines.Deadlines.remove",
        "http.transport.Turn.close",
        # What ends things after a failure, and the steps of it that only note that something has ended.
        "cache.coordinator.Cache.ended",
        "cache.fill.Fill._over",
        "cache.fill._fail_all",
        "cache.fill.Fill._close_fetch",
        "transaction.fetch.Fetch.close",
        "transaction.fetch.Fetch.give_up",
        "cache.lookup.Lookup.settle",
        "cache.lookup.Lookup.crashed",
        "cache.fill.Fill.crashed",
        "transaction.fetch.Fetch.crashed",
        "transaction.transaction.Transaction.crashed",
        "transaction.transaction.Transaction._close",
        "transaction.proxy.Proxy.ended",
        "transaction.transaction.Transaction.stream_failed",
        "transaction.transaction.Transaction.stream_finished",
        # All that these do is guarded, but for the call itself.
        "upstream.pool.Pool.open_stream",
        "upstream.pool.Pool.closed",
        "http.stream.StreamError.__init__",
        "upstream.pool.Pool._dialled",
        "transaction.fetch.Fetch._ready",
        "transaction.fetch.Fetch.data_received",
        "transaction.fetch.Fetch.end_received",
        "transaction.fetch.Fetch.response_received",
        "transaction.fetch.Fetch.stream_failed",
        "http.http1.wire.Wire.dataReceived",
        "http.http1.exchange.Exchange.failed",
        "http.http1.exchange.Exchange.tell_finished",
    }
)


def script(arrival: Arrival) -> bool:
    target = arrival.target
    content = arrival.content()
    if target.startswith(b"/upgrade"):
        arrival.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
        with contextlib.suppress(OSError):
            while data := arrival.sock.recv(65536):
                arrival.sock.sendall(data)
        return False
    if target.startswith(b"/slow"):
        time.sleep(0.05)
    if target.startswith(b"/close"):
        return False
    if target.startswith(b"/chunked"):
        arrival.send(
            b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
        )
        arrival.send(b"5\r\nworld\r\n0\r\nX-T: 1\r\n\r\n")
        return True
    if target.startswith(b"/large"):
        arrival.send(answer(b"l" * 1_000_000, "Cache-Control: max-age=60"))
    elif target.startswith(b"/stale"):
        if arrival.field(b"if-none-match"):
            arrival.send(b'HTTP/1.1 304 Not Modified\r\nETag: "1"\r\nCache-Control: max-age=0\r\n\r\n')
        else:
            arrival.send(answer(b"stale", "Cache-Control: max-age=0, stale-if-error=60", 'ETag: "1"'))
    elif target.startswith(b"/private"):
        arrival.send(answer(b"p" * 100_000, "Cache-Control: no-store"))
    else:
        arrival.send(answer(b"" if arrival.method == b"HEAD" else content + b"ok", "Cache-Control: max-age=60"))
    return True


def get(target: bytes, *lines: bytes, method: bytes = b"GET", body: bytes = b"", version: bytes = b"1.1") -> bytes:
    fields = [b"Host: a", *lines]
    if body:
        fields.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join([method + b" " + target + b" HTTP/" + version, *fields, b"", body])


Scenario = list[tuple[bytes, bool]]
"""For each client: the bytes it sends, and whether it goes away without reading."""

SCENARIOS: dict[str, Scenario] = {
    "miss, hit, part": [(get(b"/a%d") + get(b"/a%d") + get(b"/a%d", b"Range: bytes=0-0"), False)],
    "uncached": [(get(b"/private%d") + get(b"/private%d", b"Accept: x"), False)],
    "head": [(get(b"/h%d", method=b"HEAD"), False)],
    "post": [(get(b"/p%d", method=b"POST", body=b"hello"), False)],
    "post in chunks": [
        (
            get(b"/q%d", b"Transfer-Encoding: chunked", method=b"PUT")
            + b"5\r\nhello\r\n0\r\nX-Trailer: 1\r\n\r\n"
            + get(b"/q%d"),
            False,
        )
    ],
    "expect": [(get(b"/e%d", b"Expect: 100-continue", method=b"POST", body=b"hello"), False)],
    "chunked": [(get(b"/chunked%d") + get(b"/chunked%d"), False)],
    "large": [(get(b"/large%d") + get(b"/large%d") + get(b"/large%d", b"Range: bytes=5-9,20-30"), False)],
    "collapsed": [(get(b"/slow%d"), False)] * 4,
    "collapsed and leaving": [(get(b"/slow%d"), True)] * 2 + [(get(b"/slow%d"), False)] * 2,
    "validated": [(get(b"/stale%d") + get(b"/stale%d") + get(b"/stale%d", b'If-None-Match: "1"'), False)],
    "closed by the origin": [(get(b"/close%d"), False)],
    "nothing listens": [(get(b"/nobody"), False)],
    "rules": [(get(b"/local") + get(b"/moved") + get(b"/a%d", b"X: y", version=b"1.0"), False)],
    "many hops": [(get(b"/o", b"Max-Forwards: " + b"9" * 5000, method=b"OPTIONS"), False)],
    "options": [(get(b"/o", b"Max-Forwards: 0", method=b"OPTIONS"), False)],
    "purge": [(get(b"/a%d") + get(b"/a%d", method=b"PURGE"), False)],
    "refused": [(b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", False), (b"nonsense\r\n\r\n", False)],
    "upgrade": [(get(b"/upgrade", b"Connection: upgrade", b"Upgrade: echo") + b"bytes", False)],
    "leaving": [(get(b"/large%d"), True), (get(b"/p%d", b"Content-Length: 100", method=b"POST") + b"x", True)],
}


class Stand:
    """A proxy in this process, with a cache and an access log, and an injector in all of it."""

    def __init__(self, service: ProxyService, injector: Injector, port: int, origin: ScriptedOrigin) -> None:
        self.service = service
        self.injector = injector
        self.port = port
        self.origin = origin
        self.number = 0

    def left(self) -> dict[str, Any]:
        """Return everything that is still under way."""
        proxy = self.service.proxy
        assert proxy.cache is not None
        found: dict[str, Any] = {
            "transactions": len(proxy.transactions),
            "fills": proxy.cache.under_way,
            "connections": sum(len(listener._factory.connections) for listener in self.service._listeners.values()),
        }
        for cluster in proxy.upstreams._clusters.values():
            for pool in cluster.pools:
                found[f"{pool.server.name} lent"] = len(pool._lent)
                found[f"{pool.server.name} waiting"] = len(pool._waiting) + len(pool._dials)
        return {name: value for name, value in found.items() if value}

    def play(self, scenario: Scenario) -> None:
        """Let the clients of a scenario speak, and wait until each has an answer or an end."""
        self.number += 1
        number = b"%d" % self.number
        clients = []
        try:
            for message, _ in scenario:
                client = connect(self.port)
                clients.append(client)
                with contextlib.suppress(OSError):
                    client.send(message.replace(b"%d", number))
            for client, (message, leaves) in zip(clients, scenario, strict=True):
                if not leaves:
                    _read_to_end(client, message)
        finally:
            for client in clients:
                client.sock.close()


def _read_to_end(client: Client, message: bytes) -> None:
    """Read until everything is answered, or the connection is closed; fail if neither comes."""
    client.sock.settimeout(3)
    try:
        if b"Upgrade:" in message:
            received = b""
            while not received.endswith(b"bytes"):
                data = client.sock.recv(65536)
                received += data
                if not data or b" 500 " in received:
                    return
            return
        client.sock.shutdown(socket.SHUT_WR)
        while client.sock.recv(1 << 20):
            pass
    except TimeoutError:
        raise AssertionError("a client got neither an answer nor an end") from None
    except OSError:
        pass


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    folder = tmp_path_factory.mktemp("injected")
    port, nobody = free_port(), free_port()
    injector = Injector(PACKAGES, EXEMPT)
    injector.install()
    try:
        with scripted_origin() as origin:
            origin.script = script
            origin_config = {
                "servers": [f"http://127.0.0.1:{origin.port}"],
                "health": {"max_failures": 10**6},
                "connect_timeout": 0.5,
            }
            config = {
                "listeners": [{"endpoint": f"tcp:{port}:interface=127.0.0.1"}],
                "upstreams": {
                    "origin": origin_config,
                    "nobody": {**origin_config, "servers": [f"http://127.0.0.1:{nobody}"]},
                },
                "remap": [
                    {"match": {"path": "/local"}, "respond": 418},
                    {"match": {"path": "/moved"}, "redirect": {"to": "/there", "status": 301}},
                    {"match": {"path": "/nobody"}, "upstream": "nobody"},
                    {"upstream": "origin"},
                ],
                "cache": {"memory": "64MiB"},
                "access_log": {"path": str(folder / "log"), "format": "json"},
                "timeouts": {"drain": 1},
            }
            path = folder / "proxy.yaml"
            path.write_text(yaml.safe_dump(config))
            service = ProxyService(load(path), started_reactor())
            run(lambda: service.prepare().addCallback(lambda _: service.startService()), 60)
            injector.watch(call(threading.current_thread))
            try:
                yield Stand(service, injector, port, origin)
            finally:
                injector.watch(threading.Thread())
                run(service.stopService, 30)
    finally:
        injector.remove()


@pytest.mark.parametrize("name", SCENARIOS)
def test_no_failure_of_any_function_leaves_anything_behind(stand: Stand, name: str) -> None:
    scenario = SCENARIOS[name]
    injector = stand.injector
    injector.clear()
    stand.play(scenario)
    eventually(lambda: not call(stand.left), 5, "something is left without any failure")
    called = dict(injector.calls)
    faults = []
    for function, count in sorted(called.items()):
        for at in sorted({1, (count + 1) // 2, count}):
            with injector.failing(function, at):
                try:
                    stand.play(scenario)
                    eventually(lambda: not call(stand.left), 2)
                except AssertionError as fault:
                    faults.append(f"{function} at {at} of {count}: {fault} {call(stand.left)}")
                    call(_clear, stand)
    stand.play(SCENARIOS["miss, hit, part"])
    eventually(lambda: not call(stand.left), 5)
    assert not faults, f"{len(faults)} faults\n" + "\n".join(faults)


def test_a_failure_under_a_site_ends_the_request(stand: Stand) -> None:
    site = Site(WasmProxyResource(stand.service))
    port = call(lambda: started_reactor().listenTCP(0, site, interface="127.0.0.1"))
    try:
        for function in ("data_received", "end_received"):
            with stand.injector.failing(f"transaction.transaction.Transaction.{function}", 1):
                client = connect(port.getHost().port)
                client.send(get(b"/site", method=b"POST", body=b"hello"))
                _read_to_end(client, b"")
                client.sock.close()
                assert stand.injector.raised == 1
            eventually(lambda: not call(stand.left), 5)
    finally:
        run(port.stopListening)


def _clear(stand: Stand) -> None:
    """Forget what a fault has left, so that the next one is seen by itself."""
    proxy = stand.service.proxy
    turn.close()
    with contextlib.suppress(Exception):
        proxy.abort()
    proxy.transactions.clear()
    assert proxy.cache is not None
    proxy.cache._fills.clear()
    for listener in stand.service._listeners.values():
        for connection in list(listener._factory.connections):
            connection.transport.abortConnection()
        listener._factory.connections.clear()
    for cluster in proxy.upstreams._clusters.values():
        for pool in cluster.pools:
            pool._lent.clear()
            pool._waiting.clear()
            pool._dials.clear()
