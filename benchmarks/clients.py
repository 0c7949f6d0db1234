"""Clients in this process: each answer is compared byte by byte and dropped, so any number of them needs no memory."""

from __future__ import annotations

import re
import select
import socket
import statistics
import time
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass

from load import WrongAnswer, request
from servers import Server

SILENCE = 60.0
"""Seconds without a byte to anybody after which a server is given up."""
_BUFFER = bytearray(256 * 1024)
_VIEW = memoryview(_BUFFER)


@dataclass
class Answered:
    count: int
    seconds: float
    """From the first request sent to the last byte of the last answer."""
    latencies: list[float]
    """Seconds from each request sent to the last byte of its answer."""

    def latency(self) -> str:
        return f"{statistics.median(self.latencies) * 1e3:.2f}ms"


class _Client:
    """One connection, which asks for one path after another and expects `body` from each."""

    def __init__(self, connection: socket.socket, name: str, body: bytes) -> None:
        self.connection = connection
        self._name = name
        self._body = memoryview(body)
        self._head = b""
        self._read: int | None = None
        """Bytes of the body that have come; None before it begins."""
        self.asked = 0.0

    def ask(self, path: str) -> None:
        self._head, self._read = b"", None
        self.asked = time.perf_counter()
        self.connection.sendall(request(path))

    def receive(self) -> bool:
        """Read what there is; return whether the answer is complete."""
        count = self.connection.recv_into(_BUFFER)
        if not count:
            place = "the head" if self._read is None else f"the body, after {self._read} bytes"
            raise WrongAnswer(f"{self._name} closed in the middle of an answer, in {place}")
        start = 0
        if self._read is None:
            self._head, begun = self._head + bytes(_VIEW[:count]), len(self._head)
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return False
            start = end + 4 - begun
            self._check_head()
            self._read = 0
        expected = self._body[self._read : self._read + count - start]
        self._read += count - start
        if len(expected) != count - start or not _BUFFER.startswith(expected, start):
            raise WrongAnswer(f"{self._name}: a wrong byte before byte {self._read} of the body")
        return self._read == len(self._body)

    def _check_head(self) -> None:
        length = re.search(rb"(?i)\ncontent-length: *(\d+)\r", self._head)
        if not self._head.startswith(b"HTTP/1.1 200") or length is None or int(length[1]) != len(self._body):
            head, _, _ = self._head.partition(b"\r\n\r\n")
            raise WrongAnswer(f"{self._name}: {head.decode('latin-1')}")


def ask(server: Server, paths: Iterable[str], body: bytes, connections: int) -> Answered:
    """Ask `server` for each path once, over up to `connections` at a time, all of which are open before the first asks.

    Raises WrongAnswer if an answer is not 200 with `body`, byte by byte, and a Content-Length.
    """
    waiting = iter(paths)
    latencies: list[float] = []
    clients: dict[int, _Client] = {}
    with ExitStack() as stack:
        events = stack.enter_context(select.epoll())
        for _ in range(connections):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), SILENCE))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            events.register(connection, select.EPOLLIN)
            clients[connection.fileno()] = _Client(connection, server.name, body)
        started = time.perf_counter()
        busy = 0
        for client, path in zip(clients.values(), waiting, strict=False):
            client.ask(path)
            busy += 1
        while busy:
            ready = events.poll(SILENCE)
            if not ready:
                raise WrongAnswer(f"{server.name} was silent for {SILENCE:.0f} s with {busy} answers to come")
            for descriptor, _ in ready:
                client = clients[descriptor]
                if client.receive():
                    latencies.append(time.perf_counter() - client.asked)
                    following = next(waiting, None)
                    if following is None:
                        busy -= 1
                    else:
                        client.ask(following)
        return Answered(len(latencies), time.perf_counter() - started, latencies)
