"""Filters on live HTTP: a proxy whose modules do what requests tell them, and an origin that does what paths say.

A request carries a script for each module (`modules/script.c`) in the header `x-NAME`, and in `x-tag` a tag, under
which the module logs its callbacks and the origin keeps what it has seen.
"""

from __future__ import annotations

import itertools
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.support.proxy import Proxy, running_proxy
from twisted_wasmproxy.runtimes import available

__all__ = [
    *("INTERRUPTIBLE", "MODULES", "PLUGINS", "SCRIPT", "Answer", "Origin", "Seen", "Stand"),
    *("module", "read_answer", "read_answers", "running_origin", "serving", "until"),
]

MODULES = Path(__file__).parent / "modules"
SCRIPT = MODULES / "script.wasm"
PLUGINS = Path(__file__).parent / "plugins"
"""On PYTHONPATH of the proxies: has the native filters of these tests."""

# Without making the engine: this is imported before pytest enables faulthandler, whose signal handlers would then come
# before wasmtime's, and end the process at the first trap of a test that runs a module in it.
INTERRUPTIBLE = available()[0] == "wasmtime"
"""Whether the engine that these proxies choose can stop an endless loop."""

_tags = (f"t{number:05}" for number in itertools.count(1))


def until(condition: Callable[[], Any], timeout: float = 10.0, what: Callable[[], object] = lambda: "") -> Any:
    """Poll what another process does until `condition` returns something true, and return that."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, what() or f"not within {timeout} s"
        time.sleep(0.01)


# The origin


@dataclass
class Seen:
    """A request as the origin saw it."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes
    trailers: list[tuple[str, str]]
    chunked: bool

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def header(self, name: str) -> str | None:
        """Return the only value of a header field, or None."""
        values = self.all(name)
        assert len(values) < 2, values
        return values[0] if values else None


@dataclass
class Origin:
    """Keeps what it sees by tag. Its answer by the first segment of the path:

    `/echo` the request's content; `/bytes/N` so many; `/chunks/a/b` these, chunked; `/trailers/a` with trailers after;
    `/status/N`; `/lie/N` declares so many and sends one less; `/hold` waits until `go` is set; `/` a short text.
    """

    port: int
    seen: dict[str, list[Seen]] = field(default_factory=dict)
    go: threading.Event = field(default_factory=threading.Event)
    pace: Callable[[str, int], None] = lambda tag, count: None
    """Waits until the proxy has handled so many pieces of an answer."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    origin: Origin

    def handle_one_request(self) -> None:
        try:
            self.raw_requestline = self.rfile.readline(65537)
            if not self.raw_requestline or not self.parse_request():
                self.close_connection = True
                return
            body, trailers, chunked = self._body()
            seen = Seen(self.command, self.path, list(self.headers.items()), body, trailers, chunked)
            self.origin.seen.setdefault(self.headers.get("x-tag", ""), []).append(seen)
            self._answer(seen)
        except OSError:
            self.close_connection = True

    def _answer(self, seen: Seen) -> None:
        parts = seen.target.partition("?")[0].split("/")[1:]
        kind, rest = parts[0], parts[1:]
        if kind == "hold":
            self.origin.go.wait(10)
        if kind in ("chunks", "trailers"):
            trailers = [("X-Trailer", "from-origin")] if kind == "trailers" else []
            self._head(200, [("Transfer-Encoding", "chunked")])
            for count, chunk in enumerate(rest, 1):
                self.wfile.write(b"%x\r\n%b\r\n" % (len(chunk), chunk.encode()))
                self.wfile.flush()
                self.origin.pace(self.headers.get("x-tag", ""), count)
            ending = "".join(f"{name}: {value}\r\n" for name, value in trailers)
            self.wfile.write(b"0\r\n" + ending.encode() + b"\r\n")
        elif kind == "status":
            length = [] if rest[0] in ("204", "304") else [("Content-Length", "0")]
            self._head(int(rest[0]), length)
        elif kind == "lie":
            size = int(rest[0])
            self._head(200, [("Content-Length", str(size))])
            self.wfile.write(b"x" * (size - 1))
            self.close_connection = True
        else:
            body = {"echo": seen.body, "bytes": b"x" * int(rest[0]) if kind == "bytes" else b""}.get(kind, b"hello\n")
            self._head(200, [("Content-Length", str(len(body)))])
            if seen.method != "HEAD":
                self.wfile.write(body)

    def _head(self, status: int, fields: Sequence[tuple[str, str]]) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/plain")
        for name, value in fields:
            self.send_header(name, value)
        self.end_headers()

    def _body(self) -> tuple[bytes, list[tuple[str, str]], bool]:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0))), [], False
        chunks, trailers = [], []
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        while line := self.rfile.readline().strip():
            name, _, value = line.decode().partition(":")
            trailers.append((name, value.strip()))
        return b"".join(chunks), trailers, True

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024


@contextmanager
def running_origin() -> Iterator[Origin]:
    """Serve on a free port of 127.0.0.1 until the block ends."""
    handler = type("Handler", (_Handler,), {})
    server = _Server(("127.0.0.1", 0), handler)
    origin = handler.origin = Origin(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield origin
    finally:
        origin.go.set()
        server.shutdown()
        server.server_close()
        thread.join()


# The client


@dataclass
class Answer:
    """What the client got. `complete`: the message ended as it said it would."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    trailers: list[tuple[str, str]]
    complete: bool
    tag: str = ""

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def header(self, name: str) -> str | None:
        """Return the only value of a header field, or None."""
        values = self.all(name)
        assert len(values) < 2, values
        return values[0] if values else None


BROKEN = Answer(0, [], b"", [], False)
"""A connection closed without an answer."""


def read_answer(sock: socket.socket, method: str = "GET") -> Answer:
    """Read one answer, strictly."""
    with sock.makefile("rb") as stream:
        return _read_answer(stream, method)


def read_answers(sock: socket.socket, count: int, first_method: str = "GET") -> list[Answer]:
    """Read the answers to pipelined requests."""
    with sock.makefile("rb") as stream:
        return [_read_answer(stream, "GET" if number else first_method) for number in range(count)]


def _read_answer(stream: Any, method: str) -> Answer:
    try:
        line = stream.readline()
        while line.startswith(b"HTTP/1.1 1"):
            while stream.readline().strip():
                pass
            line = stream.readline()
        if not line:
            return BROKEN
        answer = Answer(int(line.split()[1]), _fields(stream), b"", [], False)
        if method == "HEAD" or answer.status in (204, 304):
            answer.complete = True
        elif answer.header("transfer-encoding") == "chunked":
            while size := int(stream.readline() or b"-1", 16):
                if size < 0:
                    return answer
                data = stream.read(size)
                answer.body += data
                if len(data) < size or stream.readline() != b"\r\n":
                    return answer
            answer.trailers = _fields(stream)
            answer.complete = True
        elif (length := answer.header("content-length")) is not None:
            answer.body = stream.read(int(length))
            answer.complete = len(answer.body) == int(length)
        else:
            answer.body = stream.read()
            answer.complete = True
        return answer
    except ConnectionResetError:
        return BROKEN


def _fields(stream: Any) -> list[tuple[str, str]]:
    fields = []
    while line := stream.readline().strip():
        name, _, value = line.decode("latin-1").partition(": ")
        fields.append((name, value))
    return fields


# The proxy


def module(name: str, *, code: Path = SCRIPT, vm_id: str = "", **options: Any) -> dict[str, Any]:
    """Return the configuration of one scripted module."""
    vm = {"vm_id": vm_id, "code": {"local": {"filename": str(code)}}, **options.pop("vm_config", {})}
    return {"name": name, "root_id": name, "configuration": "", "vm_config": vm, **options}


@dataclass
class Stand:
    """A proxy before an origin."""

    proxy: Proxy
    origin: Origin

    def send(
        self,
        path: str = "/",
        *,
        method: str = "GET",
        headers: Sequence[tuple[str, str]] = (),
        body: bytes | Sequence[bytes] | None = None,
        trailers: Sequence[tuple[str, str]] = (),
        tag: str = "",
        port: int = 0,
        paced: bool = True,
        **scripts: str,
    ) -> tuple[socket.socket, str]:
        """Send a request; a list as the body is sent chunked. Return its socket and tag.

        `paced`: each chunk waits until the module `a` has been shown the one before, lest they be joined on the way.
        """
        tag = tag or next(_tags)
        lines = [f"{method} {path} HTTP/1.1", "Host: example.com", f"X-Tag: {tag}"]
        lines += [f"x-{name}: {script}" for name, script in scripts.items()]
        lines += [f"{name}: {value}" for name, value in headers]
        sock = socket.create_connection(("127.0.0.1", port or self.proxy.port), 20.0)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if isinstance(body, bytes):
            lines.append(f"Content-Length: {len(body)}")
        elif body is not None:
            lines.append("Transfer-Encoding: chunked")
        data = "\r\n".join(lines).encode() + b"\r\n\r\n"
        if isinstance(body, bytes):
            sock.sendall(data + body)
        elif body is None:
            sock.sendall(data)
        else:
            sock.sendall(data)
            try:
                for count, chunk in enumerate(body, 1):
                    sock.sendall(b"%x\r\n%b\r\n" % (len(chunk), chunk))
                    if paced:
                        self.pace(tag, count, "request_body")
                sock.sendall(b"0\r\n" + "".join(f"{n}: {v}\r\n" for n, v in trailers).encode() + b"\r\n")
            except OSError:
                pass  # broken off: what is there to read will tell
        return sock, tag

    def ask(self, path: str = "/", **options: Any) -> Answer:
        """Send a request and read the answer."""
        sock, tag = self.send(path, **options)
        with sock:
            answer = read_answer(sock, options.get("method", "GET"))
        return Answer(**{**answer.__dict__, "tag": tag})

    def seen(self, tag: str) -> list[Seen]:
        """Return the requests of a tag that reached the origin."""
        return self.origin.seen.get(tag, [])

    def lines(self, tag: str) -> list[str]:
        """Return what the modules have logged of a stream so far: `NAME EVENT ARGUMENTS`."""
        marked = f"{tag} "
        return [line.partition(marked)[2] for line in self.proxy.log.splitlines() if marked in line]

    def told(self, tag: str, *names: str) -> list[str]:
        """Wait until the stream contexts of the named modules are deleted, and return what was logged of them."""
        wanted = {f"{name} delete" for name in names}

        def over() -> list[str] | None:
            lines = self.lines(tag)
            return lines if wanted <= set(lines) else None

        found: list[str] = until(over, what=lambda: f"{wanted} not in {self.lines(tag)}")
        return found

    def pace(self, tag: str, count: int, event: str = "response_body", name: str = "a") -> None:
        """Wait, not for long, until a module has been shown so many pieces of a body."""
        deadline = time.monotonic() + 2.0
        start = f"{name} {event} "
        while sum(line.startswith(start) for line in self.lines(tag)) < count and time.monotonic() < deadline:
            time.sleep(0.005)

    def wait_line(self, tag: str, text: str) -> None:
        """Wait until a line of a stream (or, with the tag `-`, a plugin) is logged."""
        until(lambda: text in self.lines(tag), what=lambda: f"{text!r} not in {self.lines(tag)}")

    def wait_log(self, text: str, timeout: float = 10.0) -> None:
        until(lambda: text in self.proxy.log, timeout, what=lambda: f"{text!r} not in log:\n{self.proxy.log[-4000:]}")


@contextmanager
def serving(
    folder: Path,
    code_cache: Path,
    wasm: Sequence[Mapping[str, Any]],
    *,
    pacer: str = "o",
    environment: Any = None,
    port: int | None = None,
    **config: Any,
) -> Iterator[Stand]:
    """Run a proxy with these filters before an origin, which sends pieces as the module `pacer` has been shown them."""
    with ExitStack() as stack:
        origin = stack.enter_context(running_origin())
        whole = {
            "upstreams": {"origin": {"servers": [f"http://127.0.0.1:{origin.port}"]}},
            "remap": [{"upstream": "origin"}],
            "wasm": list(wasm),
            "code_cache": str(code_cache),
            "access_log": {"path": str(folder / "access.log"), "format": "json"},
            **config,
        }
        variables = {**os.environ, "PYTHONPATH": str(PLUGINS), **(environment or {})}
        proxy = stack.enter_context(running_proxy(whole, folder, port=port, environment=variables))
        stand = Stand(proxy, origin)
        origin.pace = lambda tag, count: stand.pace(tag, count, name=pacer)
        yield stand
