"""Large bodies through the running proxy: whole, in bounded memory, at the pace of the slower end.

WASMPROXY_TEST_STREAM_MIB sets the size (2048 for the full measure).
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.support import (
    Arrival,
    Client,
    ScriptedOrigin,
    connect,
    eventually,
    plugin_environment,
    resident_kib,
    reverse_config,
    scripted_origin,
)
from tests.support.proxy import Proxy, running_proxy

MIB = 1024 * 1024
SIZE = int(os.environ.get("WASMPROXY_TEST_STREAM_MIB", "128")) * MIB
MOST_GROWTH = 32 * MIB
HELD_BY_SOCKETS = 96 * MIB  # what the four buffers of a Linux host may take
EXAMPLES = Path(__file__).parents[2] / "examples"

FILTERS: dict[str, list[dict[str, Any]]] = {
    "no filter": [],
    "wasm headers": [
        {
            "configuration": "request set x-a: 1\nresponse set x-b: 1\n",
            "vm_config": {"code": {"local": {"filename": str(EXAMPLES / "c_headers" / "headers.wasm")}}},
        }
    ],
    "native bodies": [{"native": "passing"}],
    "native bodies at the origin": [{"native": "passing", "phase": "origin"}],
}


class Running:
    def __init__(self, proxy: Proxy, origin: ScriptedOrigin) -> None:
        self.proxy = proxy
        self.origin = origin

    def measure(self) -> None:
        """Begin to measure the growth of resident memory."""
        Path(f"/proc/{self.proxy.process.pid}/clear_refs").write_text("5")
        self.before = resident_kib(self.proxy.process.pid)

    def growth(self) -> int:
        """Return by how much memory was larger at its peak, in bytes."""
        status = Path(f"/proc/{self.proxy.process.pid}/status").read_text()
        peak = int(status.partition("VmHWM:")[2].split()[0])
        print(f"{peak - self.before} KiB more")
        return (peak - self.before) * 1024


@pytest.fixture(scope="module", params=FILTERS)
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("streaming")
    with scripted_origin() as origin:
        config = reverse_config(origin, filters=FILTERS[request.param])
        with running_proxy(config, folder, environment=plugin_environment(folder)) as proxy:
            with connect(proxy.port) as client:
                assert client.get()[0] == 200  # all that is loaded at the first request is
            yield Running(proxy, origin)
            assert "Traceback" not in proxy.log, proxy.log


def send_body(sock: socket.socket, size: int, chunked: bool, end: bool = True) -> None:
    piece = bytes(range(256)) * 4096
    head, tail = (b"%x\r\n" % len(piece), b"\r\n") if chunked else (b"", b"")
    whole = head + piece + tail
    for _ in range(size // len(piece)):
        sock.sendall(whole)
    if chunked and end:
        sock.sendall(b"0\r\n\r\n")


def read_body(peer: Any, size: int | None) -> int:
    """Read content of a known size, or chunked; return its size. Nothing of it is kept."""
    if size is not None:
        left = size - len(peer.buffer)
        peer.buffer = b""
        while left:
            got = peer.sock.recv(min(left, MIB))
            assert got, f"closed {left} bytes before the end"
            left -= len(got)
        return size
    total = 0
    buffer = bytearray(peer.buffer)
    peer.buffer = b""
    chunk = 0
    while True:
        if chunk:
            taken = min(chunk, len(buffer))
            del buffer[:taken]
            chunk -= taken
            total += taken
        while not chunk and (at := buffer.find(b"\r\n")) >= 0:
            if at == 0:  # behind a chunk
                del buffer[:2]
                continue
            chunk = int(buffer[:at], 16)
            del buffer[: at + 2]
            if not chunk:
                return total
        if not (chunk and buffer):
            got = peer.sock.recv(MIB)
            assert got, f"closed after {total} bytes"
            buffer += got


def framing(chunked: bool, size: int) -> str:
    return "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}"


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_a_large_answer_passes_in_little_memory(running: Running, chunked: bool) -> None:
    def script(arrival: Arrival) -> None:
        arrival.send(f"HTTP/1.1 200 OK\r\n{framing(chunked, SIZE)}\r\n\r\n".encode())
        send_body(arrival.sock, SIZE, chunked)

    running.origin.reset(script)
    with connect(running.proxy.port) as client:
        running.measure()
        client.request()
        assert client.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 200")
        assert read_body(client, None if chunked else SIZE) == SIZE
    assert running.growth() < MOST_GROWTH


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_a_large_request_passes_in_little_memory(running: Running, chunked: bool) -> None:
    got: list[int] = []

    def script(arrival: Arrival) -> None:
        assert arrival.field(b"content-length") == (None if chunked else b"%d" % SIZE)
        got.append(read_body(arrival, None if chunked else SIZE))
        arrival.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    running.origin.reset(script)
    with connect(running.proxy.port) as client:
        running.measure()
        client.request("/", "PUT", framing(chunked, SIZE))
        send_body(client.sock, SIZE, chunked)
        assert client.response()[0] == 200
    assert got == [SIZE]
    assert running.growth() < MOST_GROWTH


def test_both_directions_at_once(running: Running) -> None:
    def script(arrival: Arrival) -> None:
        arrival.send(f"HTTP/1.1 200 OK\r\n{framing(True, SIZE)}\r\n\r\n".encode())
        sender = threading.Thread(target=send_body, args=(arrival.sock, SIZE // 2, True), kwargs={"end": False})
        sender.start()
        got.append(read_body(arrival, SIZE // 2))
        sender.join()
        arrival.send(b"0\r\n\r\n")

    got: list[int] = []
    running.origin.reset(script)
    with connect(running.proxy.port) as client:
        running.measure()
        client.request("/", "PUT", framing(False, SIZE // 2))
        sender = threading.Thread(target=send_body, args=(client.sock, SIZE // 2, False))
        sender.start()
        client.read_until(b"\r\n\r\n")
        assert read_body(client, None) == SIZE // 2
        sender.join()
    assert got == [SIZE // 2]
    assert running.growth() < MOST_GROWTH


class Flood:
    """Sends without end, and counts."""

    def __init__(self, peer: Any, chunked: bool) -> None:
        self.peer = peer
        self.sent = 0
        self.limit = SIZE
        self.chunked = chunked

    def run(self) -> None:
        piece = b"x" * 65536
        whole = b"%x\r\n%b\r\n" % (len(piece), piece) if self.chunked else piece
        while self.sent < self.limit:
            self.peer.sock.sendall(whole)
            self.sent += len(piece)
        if self.chunked:
            self.peer.sock.sendall(b"0\r\n\r\n")

    def stalled(self) -> int:
        """Wait until nothing has been sent for a while; return how much has been."""
        before = -1
        while before != self.sent:
            before = self.sent
            time.sleep(0.4)
        return before


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_an_origin_is_held_back_by_a_client_that_does_not_read(running: Running, chunked: bool) -> None:
    floods: list[Flood] = []

    def script(arrival: Arrival) -> None:
        arrival.send(f"HTTP/1.1 200 OK\r\n{framing(chunked, SIZE)}\r\n\r\n".encode())
        arrival.sock.settimeout(60)
        floods.append(Flood(arrival, chunked))
        floods[0].run()

    running.origin.reset(script)
    with connect(running.proxy.port, receive_buffer=32 * 1024) as client:
        running.measure()
        client.request()
        eventually(lambda: floods)
        assert floods[0].stalled() < HELD_BY_SOCKETS
        assert running.growth() < 8 * MIB
        client.read_until(b"\r\n\r\n")
        assert read_body(client, None if chunked else SIZE) == SIZE
    assert running.growth() < MOST_GROWTH


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_a_client_is_held_back_by_an_origin_that_does_not_read(running: Running, chunked: bool) -> None:
    go = threading.Event()

    def script(arrival: Arrival) -> None:
        go.wait(30)
        assert read_body(arrival, None if chunked else SIZE) == SIZE
        arrival.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    running.origin.reset(script)
    with connect(running.proxy.port) as client:
        running.measure()
        client.request("/", "PUT", framing(chunked, SIZE))
        flood = Flood(client, chunked)
        client.sock.settimeout(60)
        thread = threading.Thread(target=flood.run)
        thread.start()
        assert flood.stalled() < HELD_BY_SOCKETS
        assert running.growth() < 8 * MIB
        go.set()
        thread.join()
        assert client.response()[0] == 200
    assert running.growth() < MOST_GROWTH


def test_many_small_pieces_of_a_slow_writer_come_one_by_one(running: Running) -> None:
    def script(arrival: Arrival) -> None:
        arrival.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for number in range(50):
            assert arrival.read_until(b"%d\r\n" % number)  # the client has got the one before
            arrival.send(b"5\r\n%05d\r\n" % number)
        arrival.read_until(b"0\r\n\r\n")
        arrival.send(b"0\r\n\r\n")

    running.origin.reset(script)
    with connect(running.proxy.port) as client:
        client.request("/", "POST", "Transfer-Encoding: chunked")
        for number in range(50):
            text = b"%d" % number
            client.send(b"%x\r\n%b\r\n" % (len(text), text))
            client.read_until(b"%05d\r\n" % number)
        client.send(b"0\r\n\r\n")
        client.read_until(b"0\r\n\r\n")
    assert running.origin.error is None


def test_a_client_that_leaves_stops_the_origin(running: Running) -> None:
    ended = threading.Event()

    def script(arrival: Arrival) -> bool:
        try:
            arrival.send(f"HTTP/1.1 200 OK\r\n{framing(False, 1 << 40)}\r\n\r\n".encode())
            flood = Flood(arrival, False)
            flood.limit = 1 << 40
            flood.run()
        except OSError:
            ended.set()
        return False

    running.origin.reset(script)
    client: Client
    with connect(running.proxy.port) as client:
        client.request()
        client.read(MIB)
        client.reset()
    assert ended.wait(10)
