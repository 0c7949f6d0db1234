"""Both ends of HTTP/1.1 for tests: a server whose handler is a script, and plain sockets that say exact bytes."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from tests.support.reactor import call, run, started_reactor
from twisted_wasmproxy.config.model import LimitsConfig, TimeoutsConfig
from twisted_wasmproxy.http.deadlines import Deadlines
from twisted_wasmproxy.http.headers import Headers
from twisted_wasmproxy.http.http1.server import ServerFactory
from twisted_wasmproxy.http.messages import Response

__all__ = ["TICK", "Exchange", "Peer", "Server", "connected_pair", "response", "serving"]

TICK = 0.05
"""Interval of the deadlines of a test server: its time-outs are exact to two of these."""


def response(status: int = 200, *fields: tuple[bytes, bytes]) -> Response:
    """Return a response head."""
    return Response(status, Headers(fields))


class Exchange:
    """What happened to one request: a `RequestReceiver` that writes it all down, and lets a script answer."""

    def __init__(self, server: Server, stream: Any, end_stream: bool) -> None:
        self.server = server
        self.stream = stream
        self.request = stream.request
        self.end_stream = end_stream
        self.content = b""
        self.trailers: Headers | None = None
        self.ended = end_stream
        self.error: Any = None
        self.finished = False
        self.events: list[str] = []

    def _note(self, event: str) -> None:
        with self.server.changed:
            self.events.append(event)
            self.server.changed.notify_all()
        self.server.script(self, event)

    def begin(self) -> None:
        self._note("head")
        if self.end_stream:
            self._note("end")

    def data_received(self, data: bytes) -> None:
        self.content += data
        self._note("data")

    def end_received(self, trailers: Headers | None) -> None:
        self.ended = True
        self.trailers = trailers
        self._note("end")

    def stream_failed(self, error: Any) -> None:
        self.error = error
        self._note("failed")

    def stream_finished(self) -> None:
        self.finished = True
        self._note("finished")

    def pause_writing(self) -> None:
        self._note("pause")

    def resume_writing(self) -> None:
        self._note("resume")

    def answer(self, body: bytes = b"ok", status: int = 200, *fields: tuple[bytes, bytes]) -> None:
        """Answer completely, with Content-Length."""
        self.stream.send_response(response(status, (b"Content-Length", b"%d" % len(body)), *fields), False)
        self.stream.send_data(body)
        self.stream.send_end()


Script = Callable[[Exchange, str], object]


def answer_at_end(exchange: Exchange, event: str) -> None:
    """Answer every request with its method, path and content, when all of it is in."""
    if event == "end":
        request = exchange.request
        exchange.answer(request.method + b" " + request.path + b" " + exchange.content)


class Server:
    """A listening server; the test thread looks at what it wrote down."""

    def __init__(self, script: Script, limits: LimitsConfig, timeouts: TimeoutsConfig) -> None:
        self.script = script
        self.changed = threading.Condition()
        self.exchanges: list[Exchange] = []
        self.refusals: list[tuple[int, str]] = []
        self.factory = ServerFactory(
            self._handle,
            limits,
            timeouts,
            lambda connection, status, text: self.refusals.append((status, text)),
            Deadlines(started_reactor(), TICK),
        )
        self.port = 0

    def _handle(self, stream: Any, end_stream: bool) -> Exchange:
        exchange = Exchange(self, stream, end_stream)
        with self.changed:
            self.exchanges.append(exchange)
        exchange.begin()
        return exchange

    def connect(self, receive_buffer: int | None = None) -> Peer:
        """Return a new client."""
        sock = socket.socket()
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.connect(("127.0.0.1", self.port))
        return Peer(sock)

    def wait(self, condition: Callable[[], object], timeout: float = 10.0) -> None:
        """Wait until something that an exchange has noted makes `condition` true."""
        with self.changed:
            assert self.changed.wait_for(condition, timeout), [exchange.events for exchange in self.exchanges]

    def exchange(self, event: str, number: int = 0) -> Exchange:
        """Wait for an event of an exchange and return the exchange."""
        self.wait(lambda: len(self.exchanges) > number and event in self.exchanges[number].events)
        return self.exchanges[number]


@contextmanager
def serving(script: Script = answer_at_end, **options: Any) -> Iterator[Server]:
    """Run a server; options are those of LimitsConfig and TimeoutsConfig."""
    timeout_names = TimeoutsConfig.__dataclass_fields__
    timeouts = replace(TimeoutsConfig(), **{k: v for k, v in options.items() if k in timeout_names})
    limits = replace(LimitsConfig(), **{k: v for k, v in options.items() if k not in timeout_names})
    server = Server(script, limits, timeouts)
    port = call(lambda: started_reactor().listenTCP(0, server.factory, interface="127.0.0.1", backlog=1024))
    server.port = port.getHost().port
    try:
        yield server
    finally:

        async def stop() -> None:
            await port.stopListening()
            for connection in list(server.factory.connections):
                connection.abort()

        run(stop)


class Peer:
    """A plain socket with time-outs, and just enough HTTP to know where an answer ends."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sock.settimeout(10.0)
        self.buffer = b""

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def fill(self, data: bytes, at_most: int = 64 * 1024 * 1024) -> int:
        """Send `data` again and again until the other end has not read for half a second; return bytes sent."""
        self.sock.settimeout(0.5)
        sent = 0
        try:
            while sent < at_most:
                sent += self.sock.send(data)
        except TimeoutError:
            return sent
        finally:
            self.sock.settimeout(10.0)
        raise AssertionError(f"all of {sent} bytes were read")

    def shutdown(self) -> None:
        """Half-close."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Close with a reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.sock.close()

    def _more(self) -> bool:
        data = self.sock.recv(65536)
        self.buffer += data
        return bool(data)

    def read_until(self, end: bytes) -> bytes:
        """Return everything up to and with `end`."""
        while end not in self.buffer:
            assert self._more(), f"closed after {self.buffer!r}"
        at = self.buffer.index(end) + len(end)
        data, self.buffer = self.buffer[:at], self.buffer[at:]
        return data

    def read(self, size: int) -> bytes:
        """Return exactly `size` bytes."""
        while len(self.buffer) < size:
            assert self._more(), f"closed after {self.buffer!r}"
        data, self.buffer = self.buffer[:size], self.buffer[size:]
        return data

    def read_all(self) -> bytes:
        """Return everything up to the close; ConnectionResetError for a reset."""
        while self._more():
            pass
        data, self.buffer = self.buffer, b""
        return data

    def closed(self) -> bool:
        """Wait for the close, orderly or not; return whether nothing came before it."""
        try:
            return not self.read_all()
        except ConnectionResetError:
            return not self.buffer

    def response(self, head: bool = False) -> tuple[int, dict[bytes, bytes], bytes]:
        """Read one response: status, fields by lower-case name, content. `head`: it answers HEAD."""
        lines = self.read_until(b"\r\n\r\n")[:-4].split(b"\r\n")
        status = int(lines[0].split(b" ")[1])
        fields = {name.lower(): value for name, _, value in (line.partition(b": ") for line in lines[1:])}
        if head or status < 200 or status in (204, 304):
            return status, fields, b""
        if b"content-length" in fields:
            return status, fields, self.read(int(fields[b"content-length"]))
        if fields.get(b"transfer-encoding") == b"chunked":
            content = b""
            while True:
                size = int(self.read_until(b"\r\n"), 16)
                if not size:
                    while self.read_until(b"\r\n") != b"\r\n":
                        pass
                    return status, fields, content
                content += self.read(size)
                assert self.read(2) == b"\r\n"
        return status, fields, self.read_all()


def connected_pair(protocol: Any) -> Peer:
    """Connect `protocol` (made in the reactor thread by calling it) to a socket of the test; return the socket."""
    from twisted.internet.protocol import ClientFactory

    listener = socket.create_server(("127.0.0.1", 0))

    class One(ClientFactory):
        noisy = False

        def buildProtocol(self, addr: object) -> Any:
            return protocol

    call(lambda: started_reactor().connectTCP("127.0.0.1", listener.getsockname()[1], One()))
    sock, _ = listener.accept()
    listener.close()
    while call(lambda: protocol.transport) is None:
        pass  # the reactor has not come to it yet
    return Peer(sock)
