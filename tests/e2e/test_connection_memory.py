"""The most that one connection makes the proxy hold, whatever it asks for and however slowly it reads."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.e2e.support import Arrival, Pair, answer, connect, resident_kib, reverse_config, scripted_origin
from tests.support.proxy import running_proxy

HIT = 256 * 1024
BOUND_KIB = 12 * 1024
"""What a connection may hold by docs/security.md (under 2 MiB), and room for what the allocator keeps."""

ANSWERS = {
    "hit": b"GET /hit HTTP/1.1\r\nHost: a\r\n\r\n",
    "part": b"GET /hit HTTP/1.1\r\nHost: a\r\nRange: bytes=1-262000\r\n\r\n",
    "parts": b"GET /hit HTTP/1.1\r\nHost: a\r\nRange: bytes=0-99999,120000-262000\r\n\r\n",
    "miss": b"GET /miss HTTP/1.1\r\nHost: a\r\n\r\n",
    "local answer": b"GET /local HTTP/1.1\r\nHost: a\r\n\r\n",
    "redirect": b"GET /moved/%b HTTP/1.1\r\nHost: a\r\n\r\n" % (b"x" * 400),
    "error": b"GET /nowhere HTTP/1.1\r\nHost: b\r\n\r\n",
    "trace": b"TRACE / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\nX: %b\r\n\r\n" % (b"x" * 400),
    "interim": b"GET /hints HTTP/1.1\r\nHost: a\r\n\r\n",
    "post": b"POST /post HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
}


def script(arrival: Arrival) -> bool:
    arrival.content()
    if arrival.target == b"/hints":
        for _ in range(20):
            arrival.send(b"HTTP/1.1 103 Early Hints\r\nLink: <%b>\r\n\r\n" % (b"l" * 1000))
        arrival.send(answer(b"x"))
    elif arrival.target == b"/tunnel":
        arrival.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
        with contextlib.suppress(OSError):
            while True:
                arrival.sock.sendall(b"t" * 65536)
    elif arrival.target == b"/hit":
        arrival.send(answer(b"h" * HIT, "Cache-Control: max-age=3600", 'ETag: "1"'))
    else:
        arrival.send(answer(b"m" * HIT, "Cache-Control: no-store"))
    return True


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("memory")
    with scripted_origin() as origin:
        origin.script = script
        config = reverse_config(origin, cache={"memory": "32MiB"}, timeouts={"idle": 60})
        rule = {"upstream": "origin", "match": {"host": "a"}}
        config["remap"] = [
            {"match": {"path": "/local"}, "respond": 418},
            {"match": {"path": "/moved/"}, "redirect": {"to": "https://$host$path", "status": 301}},
            rule,
        ]
        with running_proxy(config, folder) as proxy:
            assert proxy.fetch("/hit", headers=[("Host", "a")]).status == 200
            yield Pair(proxy, origin, folder / "log")


def send_until_blocked(sock: socket.socket, message: bytes) -> int:
    """Send `message` over and over until the other end reads no more; return how many bytes it took."""
    sock.settimeout(1.5)
    block = message * (1 + 65536 // len(message))
    sent = 0
    with contextlib.suppress(TimeoutError):
        while sent < 64 * 1024 * 1024:
            sent += sock.send(block[sent % len(message) :])
    return sent


@pytest.mark.parametrize("kind", ANSWERS)
def test_requests_in_a_pipeline_wait_for_a_client_that_does_not_read(pair: Pair, kind: str) -> None:
    with connect(pair.proxy.port, receive_buffer=4096) as client:
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        before = resident_kib(pair.proxy.process.pid)
        sent = send_until_blocked(client.sock, ANSWERS[kind])
        grown = resident_kib(pair.proxy.process.pid) - before
        assert sent < 64 * 1024 * 1024, "the proxy never stopped reading"
        assert grown < BOUND_KIB, f"{grown} KiB more"
    assert pair.proxy.fetch("/local").status == 418


def test_a_tunnel_waits_for_a_client_that_does_not_read(pair: Pair) -> None:
    with connect(pair.proxy.port, receive_buffer=4096) as client:
        before = resident_kib(pair.proxy.process.pid)
        client.send(b"GET /tunnel HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
        send_until_blocked(client.sock, b"up" * 1000)
        assert resident_kib(pair.proxy.process.pid) - before < BOUND_KIB


@pytest.mark.parametrize("kind", ["hit", "parts", "local answer", "error", "post"])
@pytest.mark.parametrize("ends", [False, True], ids=["goes on", "shuts down"])
def test_every_request_of_a_pipeline_is_answered_in_the_end(pair: Pair, kind: str, ends: bool) -> None:
    """The client reads late; what waited meanwhile is neither lost nor answered twice, even if it has shut down."""
    count = 400
    message = ANSWERS[kind] * count

    with connect(pair.proxy.port, receive_buffer=4096) as client:

        def send() -> None:
            client.sock.sendall(message)
            if ends:
                client.sock.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        time.sleep(0.3)  # the proxy meets a full socket
        statuses = set()
        for _ in range(count):
            status, _, _ = client.response()
            statuses.add(status)
        sender.join(10)
        assert len(statuses) == 1
        if ends:
            assert client.sock.recv(1) == b""


def test_others_are_served_while_one_connection_brings_thousands_of_requests(pair: Pair) -> None:
    """A pass of the reactor serves a bounded number of requests of one connection."""
    stop = threading.Event()
    with connect(pair.proxy.port) as busy:

        def drain() -> None:
            with contextlib.suppress(OSError):
                while not stop.is_set() and busy.sock.recv(1 << 20):
                    pass

        def flood() -> None:
            with contextlib.suppress(OSError):
                while not stop.is_set():
                    busy.sock.sendall(ANSWERS["local answer"] * 1500)

        threads = [threading.Thread(target=drain, daemon=True), threading.Thread(target=flood, daemon=True)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(20):
                assert pair.proxy.fetch("/local").status == 418
        finally:
            stop.set()
            busy.sock.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(10)
