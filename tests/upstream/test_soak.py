"""Many requests at once against servers that die, refuse, hang and close: no wait is lost, nothing is left behind."""

from __future__ import annotations

import random
import socket
import threading
from collections import Counter
from typing import Any

import pytest

from tests.support.reactor import call, started_reactor
from tests.upstream.support import eventually, nothing_left, refusing, request
from twisted_wasmproxy.config.model import HealthConfig, ServerConfig, UpstreamConfig
from twisted_wasmproxy.http.headers import Headers
from twisted_wasmproxy.http.messages import Response
from twisted_wasmproxy.http.stream import StreamError
from twisted_wasmproxy.upstream.upstreams import Upstreams

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class UnreliableOrigin:
    """An HTTP server that answers, closes after an answer, closes without one, or resets, as chance will have it."""

    def __init__(self, seed: int) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self.listener.getsockname()[1]
        self._random = random.Random(seed)
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            connection.settimeout(10)
            buffer = b""
            while True:
                try:
                    data = connection.recv(4096)
                    if not data:
                        return
                    buffer += data
                    while b"\r\n\r\n" in buffer:
                        buffer = buffer.partition(b"\r\n\r\n")[2]
                        chance = self._random.random()
                        if chance < 0.8:
                            connection.sendall(OK)
                        elif chance < 0.9:
                            connection.sendall(OK)
                            return
                        elif chance < 0.95:
                            connection.sendall(OK[:-1])
                            return
                        else:
                            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                            return
                except OSError:
                    return

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for thread in self._threads:
            thread.join(10)


class Exchange:
    """One request; it may give up at any time."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.over = False
        self.stream: Any = None
        self.called = 0
        self.wait = run.cluster.acquire(run.random.randbytes(4), self.ready, self)

    def ready(self, made: Any) -> None:
        self.called += 1
        assert not self.over
        assert self.called == 1
        if isinstance(made, StreamError):
            self.end(made.fault.name)
            return
        self.run.check_limits()
        self.stream = made
        made.send_request(request(), True)

    def give_up(self) -> None:
        if not self.over:
            self.wait.cancel()
            if self.stream is not None:
                self.stream.abort()
            self.end("given up")

    def end(self, how: str) -> None:
        assert not self.over
        self.over = True
        self.run.ended(how)

    def response_received(self, response: Response, end_stream: bool) -> None:
        self.stream.server.succeeded()

    def data_received(self, data: bytes) -> None:
        pass

    def end_received(self, trailers: Headers | None) -> None:
        self.end("complete")

    def stream_failed(self, error: StreamError) -> None:
        self.stream.server.failed()
        self.end(error.fault.name)

    def informational_received(self, response: Response) -> None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...


class Run:
    """`total` exchanges, about `width` at a time. All in the reactor's thread but `wait`."""

    def __init__(self, upstreams: Upstreams, seed: int, total: int, width: int) -> None:
        self.cluster = upstreams.cluster("origin")
        self.random = random.Random(seed)
        self.left = total
        self.open = 0
        self.outcomes: Counter[str] = Counter()
        self.done = threading.Event()
        for _ in range(width):
            self.begin()

    def begin(self) -> None:
        if not self.left:
            if not self.open:
                self.done.set()
            return
        self.left -= 1
        self.open += 1
        exchange = Exchange(self)
        if self.random.random() < 0.2:
            started_reactor().callLater(self.random.random() * 0.01, exchange.give_up)

    def ended(self, how: str) -> None:
        self.outcomes[how] += 1
        self.open -= 1
        # Some go on in the same stack, as a transaction does that tries again.
        if self.random.random() < 0.5:
            self.begin()
        else:
            started_reactor().callLater(0, self.begin)

    def check_limits(self) -> None:
        for pool in self.cluster.pools:
            assert pool.open <= self.cluster.config.max_connections
            assert 0 <= pool.server.active <= pool.open


@pytest.mark.parametrize("balance", ["round_robin", "least_connections", "consistent_hash"])
@pytest.mark.parametrize("max_connections", [1, 4, 1024])
def test_every_request_has_one_end(balance: Any, max_connections: int):
    total = 600
    origins = [UnreliableOrigin(seed) for seed in range(2)]
    try:
        with nothing_left(), refusing() as dead:
            config = UpstreamConfig(
                "origin",
                tuple(ServerConfig("127.0.0.1", port) for port in (*(origin.port for origin in origins), dead)),
                balance=balance,
                max_connections=max_connections,
                max_idle=3,
                health=HealthConfig(max_failures=3, rest=0.01, max_rest=0.05),
            )
            upstreams = call(lambda: Upstreams([config], started_reactor()))
            run = call(Run, upstreams, max_connections, total, 20)
            assert run.done.wait(30), run.outcomes
            assert sum(run.outcomes.values()) == total
            assert run.outcomes["complete"] > total / 2, run.outcomes
            assert not run.outcomes["CONNECT"]
            assert not run.outcomes["OVERLOAD"]
            call(upstreams.close)
            eventually(lambda: upstreams.cluster("origin").quiet)
            assert [server.active for server in upstreams.cluster("origin").servers] == [0, 0, 0]
    finally:
        for origin in origins:
            origin.close()
