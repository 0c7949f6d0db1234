"""Messages that come, or are read, slower than `limits.min_rate`, and interim responses without end."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.support import Arrival, Client, Pair, answer, eventually, reverse_config, scripted_origin
from tests.support.proxy import running_proxy

IDLE = 1.0
RATE = 2000


def script(arrival: Arrival) -> bool:
    target = arrival.target
    if target == b"/hints":
        with contextlib.suppress(OSError):
            for _ in range(5000):
                arrival.send(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
        arrival.send(answer(b"hints"))
        return True
    if target in (b"/extension", b"/trailers"):
        start = b"5\r\nhello\r\n5;x=" if target == b"/extension" else b"5\r\nhello\r\n0\r\nX-T: "
        arrival.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + start)
        with contextlib.suppress(OSError):
            for _ in range(200):
                arrival.send(b"y")
                time.sleep(0.1)
        return False
    content = arrival.content()
    if target == b"/large":
        arrival.send(answer(b"z" * 16 * 1024 * 1024))
    else:
        arrival.send(answer(b"%d" % len(content)))
    return True


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("slow")
    with scripted_origin() as origin:
        origin.script = script
        config = reverse_config(origin, timeouts={"idle": IDLE, "keep_alive": 30}, limits={"min_rate": RATE})
        config["access_log"] = {"path": str(folder / "log"), "format": "json"}
        with running_proxy(config, folder) as proxy:
            yield Pair(proxy, origin, folder / "log")
            assert "Traceback" not in proxy.log


@contextlib.contextmanager
def dripping(client: Client, piece: bytes, seconds: float) -> Iterator[None]:
    """Send `piece` every `seconds`, beside the block."""
    over = threading.Event()

    def drip() -> None:
        with contextlib.suppress(OSError):
            while not over.wait(seconds):
                client.send(piece)

    thread = threading.Thread(target=drip, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


HEAD = b"POST / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (HEAD + b"Content-Length: 100000\r\n\r\n", b"x"),
        (CHUNKED, b"1\r\nx\r\n"),
        (CHUNKED + b"5;ext=", b"y"),
        (CHUNKED + b"5\r\nhello\r\n0\r\nX-Trailer: ", b"y"),
    ],
    ids=["length", "chunks", "extension", "trailer"],
)
def test_a_body_that_drips_is_refused(pair: Pair, start: bytes, piece: bytes) -> None:
    with pair.connect() as client:
        client.send(start)
        with dripping(client, piece, 0.1):
            client.sock.settimeout(20)
            assert client.response()[0] == 408


def test_a_body_that_comes_steadily_may_take_long(pair: Pair) -> None:
    """Three times `idle` at somewhat more than the rate."""
    with pair.connect() as client:
        client.send(HEAD + b"Content-Length: 30000\r\n\r\n")
        for _ in range(30):
            time.sleep(IDLE / 10)
            client.send(b"x" * 1000)
        assert client.response()[::2] == (200, b"30000")


def test_a_client_that_reads_too_slowly_is_given_up(pair: Pair) -> None:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", pair.proxy.port))
        sock.sendall(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
        over = threading.Event()

        def read() -> None:
            with contextlib.suppress(OSError):
                while not over.wait(0.2) and sock.recv(50):
                    pass

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        try:
            eventually(lambda: '"ERR_READ_TIMEOUT' in Path(pair.log).read_text(), 30)
        finally:
            over.set()
            reader.join()


@pytest.mark.parametrize("target", ["/extension", "/trailers"])
def test_framing_without_content_from_an_origin_is_silence(pair: Pair, target: str) -> None:
    with pair.connect() as client:
        client.request(target)
        client.sock.settimeout(15)
        assert not client.read_all().endswith(b"0\r\n\r\n")


def test_interim_responses_without_end_are_refused(pair: Pair) -> None:
    with pair.connect() as client:
        client.request("/hints")
        statuses = []
        while not statuses or statuses[-1] == 103:
            start = client.read_until(b"\r\n\r\n")
            statuses.append(int(start.split(b" ", 2)[1]))
        assert statuses == [103] * 100 + [502]
