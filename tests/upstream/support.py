"""What these tests share: a receiver that remembers, plain sockets to talk to, and a look for what is left behind."""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IHostnameResolver
from zope.interface import implementer

from tests.support.reactor import call, started_reactor
from twisted_wasmproxy.http.headers import Headers
from twisted_wasmproxy.http.messages import Request, Response
from twisted_wasmproxy.http.stream import StreamError

TIMEOUT = 10.0


class Recorder:
    """A `ResponseReceiver`, and a `Ready`: what happened, in order, to be waited for in the test's thread."""

    def __init__(self) -> None:
        self.events: queue.Queue[tuple[str, Any]] = queue.Queue()
        self.stream: Any = None

    def ready(self, result: Any) -> None:
        if isinstance(result, StreamError):
            self.events.put(("error", result))
        else:
            self.stream = result
            self.events.put(("ready", result))

    def informational_received(self, response: Response) -> None:
        self.events.put(("informational", response))

    def response_received(self, response: Response, end_stream: bool) -> None:
        self.events.put(("response", response))
        if end_stream:
            self.events.put(("end", None))

    def data_received(self, data: bytes) -> None:
        self.events.put(("data", data))

    def end_received(self, trailers: Headers | None) -> None:
        self.events.put(("end", trailers))

    def stream_failed(self, error: StreamError) -> None:
        self.events.put(("failed", error))

    def pause_writing(self) -> None:
        self.events.put(("pause", None))

    def resume_writing(self) -> None:
        self.events.put(("resume", None))

    def next(self, kind: str) -> Any:
        """Return what comes with the next event, which must be of this kind."""
        happened, value = self.events.get(timeout=TIMEOUT)
        assert happened == kind, (happened, value)
        return value

    def data(self, size: int) -> bytes:
        """Return the next `size` bytes."""
        received = b""
        while len(received) < size:
            received += self.next("data")
        return received

    def nothing(self) -> None:
        """Check that nothing has happened, after all that was under way in the reactor."""
        call(lambda: None)
        assert self.events.empty(), self.events.get()


def request(path: bytes = b"/", method: bytes = b"GET") -> Request:
    return Request(method, b"http", b"example.com", path, Headers())


@contextmanager
def listening(host: str = "127.0.0.1") -> Iterator[socket.socket]:
    """A listening socket, with a time-out on all that is done with it."""
    with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as server:
        server.settimeout(TIMEOUT)
        yield server


def port_of(server: socket.socket) -> int:
    port = server.getsockname()[1]
    assert isinstance(port, int)
    return port


def accept(server: socket.socket) -> socket.socket:
    connection, _ = server.accept()
    connection.settimeout(TIMEOUT)
    return connection


@contextmanager
def refusing() -> Iterator[int]:
    """A port that refuses connections, and is nobody else's meanwhile."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield port_of(held)


@contextmanager
def black_hole() -> Iterator[int]:
    """A port that answers no connection: its queue is full."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        fillers = []
        try:
            for _ in range(4):
                filler = socket.socket()
                filler.setblocking(False)
                filler.connect_ex(server.getsockname())
                fillers.append(filler)
            yield port_of(server)
        finally:
            for filler in fillers:
                filler.close()


def eventually(check: Callable[[], bool], turns: int = 2000) -> None:
    """Let the reactor turn, once in 5 ms, until `check`, called in its thread, is true."""
    reactor = started_reactor()
    done = threading.Event()

    def turn() -> None:
        nonlocal turns
        turns -= 1
        if check():
            done.set()
        elif turns:
            reactor.callLater(0.005, turn)

    reactor.callFromThread(turn)
    assert done.wait(turns * 0.005 + 5), "it did not come true"


def sockets_and_timers() -> tuple[set[Any], set[Any]]:
    """Return what the reactor watches and waits for."""
    reactor = started_reactor()
    return call(lambda: ({*reactor.getReaders(), *reactor.getWriters()}, set(reactor.getDelayedCalls())))


@contextmanager
def nothing_left() -> Iterator[None]:
    """Check that the block leaves no socket and no timer behind: gone at once, not when some time-out ends them."""
    readers, timers = sockets_and_timers()

    def clean() -> bool:
        reactor = started_reactor()
        now_watched = {*reactor.getReaders(), *reactor.getWriters()}
        return now_watched <= readers and {c for c in reactor.getDelayedCalls() if c.active()} <= timers | ticking()

    def ticking() -> set[Any]:
        return {c for c in started_reactor().getDelayedCalls() if "eventually" in repr(c)}

    yield
    eventually(clean, 200)


@implementer(IHostnameResolver)
class Names:
    """A resolver that knows some names, counts what it is asked, and leaves the rest to the real one."""

    def __init__(self, real: Any, addresses: dict[str, list[str]]) -> None:
        self.real = real
        self.addresses = addresses
        self.asked: list[str] = []

    def resolveHostName(self, resolutionReceiver: Any, hostName: str, portNumber: int = 0, *rest: Any) -> Any:
        self.asked.append(hostName)
        if hostName not in self.addresses:
            return self.real.resolveHostName(resolutionReceiver, hostName, portNumber, *rest)

        def answer() -> None:
            for address in self.addresses[hostName]:
                family = IPv6Address if ":" in address else IPv4Address
                resolutionReceiver.addressResolved(family("TCP", address, portNumber))
            resolutionReceiver.resolutionComplete()

        started_reactor().callLater(0, answer)
        return None


@contextmanager
def names(addresses: dict[str, list[str]]) -> Iterator[Names]:
    """Install `Names`."""
    reactor = started_reactor()
    mine = Names(reactor.nameResolver, addresses)
    real = call(reactor.installNameResolver, mine)
    try:
        yield mine
    finally:
        call(reactor.installNameResolver, real)
