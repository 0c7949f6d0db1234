"""Load for one server: wrk for the busy connections, plain sockets for the idle ones."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from servers import BODY, SPARE_CORE, OriginRequests, Server

CONNECTIONS = 32


def request(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()


class WrongAnswer(Exception):
    """A server answered, but not what it should: its speed means nothing."""


@dataclass
class Result:
    requests_per_second: float
    latency: str
    """Median, as wrk prints it."""
    cpu: float
    """Microseconds of processor time that the server spent on one request."""


def exchange(connection: socket.socket, path: str = "/") -> tuple[bytes, bytes]:
    """Send one GET, read the whole answer (which has a Content-Length or is chunked), return head and body."""
    connection.sendall(request(path))
    data = b""
    while b"\r\n\r\n" not in data:
        data += _receive(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\ncontent-length: *(\d+)", head)
    while len(body) < int(length[1]) if length else not body.endswith(b"0\r\n\r\n"):
        body += _receive(connection)
    return head, body


def _receive(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise WrongAnswer("the connection was closed in the middle of an answer")
    return data


def check(server: Server, *, filtered: bool) -> None:
    """Raise WrongAnswer unless `server` passes on the origin's answer, filtered or not."""
    with socket.create_connection(("127.0.0.1", server.port), 10.0) as connection:
        head, body = exchange(connection)
    lowered = head.lower()
    if not head.startswith(b"HTTP/1.1 200") or BODY not in body:
        raise WrongAnswer(f"{server.name}: {head.decode('latin-1')}")
    if filtered != (b"\nserver: wasm\r" in lowered + b"\r") or filtered != (b"\nx-seen: 1" in lowered):
        raise WrongAnswer(f"{server.name} did not run the filter, or ran one: {head.decode('latin-1')}")


def check_hits(server: Server, path: str, body: bytes, origin: OriginRequests) -> None:
    """Raise WrongAnswer unless `server` answers `path` with `body`, and soon without asking the origin."""
    with socket.create_connection(("127.0.0.1", server.port), 10.0) as connection:
        for number in range(20):
            head, received = exchange(connection, path)
            if not head.startswith(b"HTTP/1.1 200") or received != body:
                raise WrongAnswer(f"{server.name}, answer {number} of {path}: {head.decode('latin-1')}")
            if number == 9:
                origin.new()
    check_no_misses(server, origin)


def check_no_misses(server: Server, origin: OriginRequests) -> None:
    if misses := origin.new():
        raise WrongAnswer(f"{server.name} asked the origin {misses} times for what it should have had")


def wrk(server: Server, seconds: int, path: str = "/") -> Result:
    """Ask `server` for `path` as fast as it answers."""
    url = f"http://127.0.0.1:{server.port}{path}"
    command = ["wrk", "--latency", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", url]
    cpu_before = server.cpu_time()
    output = subprocess.run(
        ["taskset", "-c", str(SPARE_CORE), *command], check=True, capture_output=True, text=True, timeout=seconds + 60
    ).stdout
    cpu = server.cpu_time() - cpu_before
    errors = re.search(r"Non-2xx.*|Socket errors.*", output)
    if errors:
        raise WrongAnswer(f"{server.name}: {errors[0]}")
    rate = re.search(r"Requests/sec: *([\d.]+)", output)
    median = re.search(r"50% *(\S+)", output)
    count = re.search(r"(\d+) requests in", output)
    if rate is None or median is None or count is None:
        raise WrongAnswer(f"{server.name}: wrk said {output!r}")
    return Result(float(rate[1]), median[1], 1e6 * cpu / int(count[1]))


@contextmanager
def idle_connections(server: Server, count: int) -> Iterator[None]:
    """Hold `count` keep-alive connections that have had one answer each; at the end all must still work."""
    held: list[socket.socket] = []
    try:
        for _ in range(count):
            connection = socket.create_connection(("127.0.0.1", server.port), 10.0)
            held.append(connection)
            exchange(connection)
        yield
        for connection in held:
            exchange(connection)
    finally:
        for connection in held:
            connection.close()
