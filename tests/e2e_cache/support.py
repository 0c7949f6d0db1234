"""A caching proxy before an origin whose answers a test writes down for the URLs that are its own."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from typing import Any

import http_sf

from tests.e2e.support import Arrival, ScriptedOrigin, reverse_config, scripted_origin
from tests.support.http1 import Peer
from tests.support.proxy import Proxy, running_proxy

__all__ = [
    *("FRESH", "STALE", "Asked", "Conversation", "Reply", "Site", "Stand"),
    *("date", "ok", "open_to", "serving", "validating"),
]

FRESH = "Cache-Control: max-age=3600"
STALE = ("Cache-Control: max-age=10", "Age: 20")
"""A response that is stale when it comes, so that no test has to wait for that."""

_numbers = itertools.count(1)


def date(seconds: float = 0.0) -> str:
    """Return the HTTP date so many seconds from now."""
    return formatdate(time.time() + seconds, usegmt=True)


def ok(body: bytes = b"ok", *lines: str, status: str = "200 OK", length: bool = True) -> bytes:
    """Return a response; `length`: with Content-Length."""
    fields = [*lines, f"Content-Length: {len(body)}"] if length else lines
    head = f"HTTP/1.1 {status}\r\n" + "".join(f"{line}\r\n" for line in fields) + "\r\n"
    return head.encode("latin-1") + body


# The client


@dataclass
class Reply:
    """What a client got."""

    status: int
    lines: list[tuple[str, str]]
    body: bytes = b""
    complete: bool = True
    """The message ended as it said it would."""
    interim: list[tuple[int, list[tuple[str, str]]]] = field(default_factory=list)
    trailers: list[tuple[str, str]] = field(default_factory=list)

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.lines if key.lower() == name.lower()]

    def field(self, name: str) -> str | None:
        """Return the only value of a field, or None."""
        values = self.all(name)
        assert len(values) < 2, values
        return values[0] if values else None

    @property
    def cache(self) -> dict[str, Any]:
        """Parameters of the proxy's own member of Cache-Status, tokens as text; empty without one."""
        members = http_sf.parse(", ".join(self.all("cache-status")).encode(), tltype="list") if self.lines else []
        own = [parameters for name, parameters in members if str(name) == "wasmproxy"]
        assert len(own) < 2, own
        return (
            {key: str(value) if isinstance(value, http_sf.Token) else value for key, value in own[0].items()}
            if own
            else {}
        )

    @property
    def hit(self) -> bool:
        return self.cache.get("hit") is True

    @property
    def age(self) -> int | None:
        value = self.field("age")
        return None if value is None else int(value)


def _lines(block: bytes) -> list[tuple[str, str]]:
    parts = (line.partition(b":") for line in block.split(b"\r\n") if line)
    return [(name.decode("latin-1"), value.decode("latin-1").strip()) for name, _, value in parts]


class Conversation(Peer):
    """A client's connection, for as many requests as it likes."""

    def say(self, target: str, *lines: str, method: str = "GET", body: bytes = b"", version: str = "1.1") -> None:
        fields = list(lines)
        names = {line.partition(":")[0].lower() for line in lines}
        if "host" not in names and version == "1.1":
            fields.insert(0, "Host: proxy.test")
        if body and "transfer-encoding" not in names:
            fields.append(f"Content-Length: {len(body)}")
        head = f"{method} {target} HTTP/{version}\r\n" + "".join(f"{line}\r\n" for line in fields) + "\r\n"
        self.send(head.encode("latin-1") + body)

    def read(self, size: int) -> bytes:
        """Return exactly `size` bytes, of which there may be very many."""
        data = bytearray(self.buffer)
        while len(data) < size:
            more = self.sock.recv(1 << 20)
            if not more:
                self.buffer = bytes(data)
                raise AssertionError(f"closed after {len(data)} of {size} bytes")
            data += more
        self.buffer = bytes(data[size:])
        return bytes(data[:size])

    def read_head(self) -> tuple[int, list[tuple[str, str]]]:
        """Read the head of a response, be it an interim one."""
        start, _, rest = self.read_until(b"\r\n\r\n").partition(b"\r\n")
        return int(start.split(b" ")[1]), _lines(rest)

    def reply(self, method: str = "GET") -> Reply:
        """Read one response; one that is broken off is not `complete`; status 0: there was none at all."""
        interim = []
        try:
            status, lines = self.read_head()
            while 100 <= status < 200 and status != 101:
                interim.append((status, lines))
                status, lines = self.read_head()
        except (AssertionError, OSError):
            return Reply(0, [], complete=False, interim=interim)
        reply = Reply(status, lines, interim=interim)
        if method != "HEAD" and status not in (204, 304):
            self._content(reply)
        return reply

    def _content(self, reply: Reply) -> None:
        try:
            if (reply.field("transfer-encoding") or "").lower() == "chunked":
                while size := int(self.read_until(b"\r\n").partition(b";")[0], 16):
                    reply.body += self.read(size)
                    assert self.read(2) == b"\r\n"
                while (line := self.read_until(b"\r\n")) != b"\r\n":
                    reply.trailers += _lines(line)
            elif (length := reply.field("content-length")) is not None:
                reply.body = self.read(int(length))
            else:
                reply.body = self.read_all()
        except (AssertionError, OSError):
            reply.body += self.buffer
            reply.complete = False

    def ask(self, target: str, *lines: str, method: str = "GET", **options: Any) -> Reply:
        self.say(target, *lines, method=method, **options)
        return self.reply(method)


def open_to(port: int, receive_buffer: int | None = None, timeout: float = 10.0) -> Conversation:
    """Connect to a port of 127.0.0.1."""
    sock = socket.socket()
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.connect(("127.0.0.1", port))
    conversation = Conversation(sock)
    sock.settimeout(timeout)
    return conversation


# The origin


@dataclass(frozen=True)
class Asked:
    """A request as the origin got it."""

    method: str
    target: str
    lines: list[tuple[str, str]]
    body: bytes = b""

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.lines if key == name.lower()]

    def field(self, name: str) -> str | None:
        """Return the only value of a field, or None."""
        values = self.all(name)
        assert len(values) < 2, values
        return values[0] if values else None


Answer = bytes | Callable[[Arrival], "bytes | bool | None"]
"""A whole response; or what makes one, or sends it itself and returns None, or False to have the connection closed."""


def validating(etag: str, body: bytes, *lines: str, also: str = "") -> Answer:
    """Return an answer that validates by entity-tag: 304 (with the line `also`) or 200."""

    def make(arrival: Arrival) -> bytes:
        more = [also] if also else []
        known = b", ".join(arrival.all(b"if-none-match"))
        if etag.encode() in known:
            return ok(b"", f"ETag: {etag}", *lines, *more, status="304 Not Modified", length=False)
        return ok(body, f"ETag: {etag}", *lines)

    return make


@dataclass
class Site:
    """URLs below a path of its own, the answers that the origin gives there, and what it has been asked."""

    stand: Stand
    path: str
    answers: list[Answer] = field(default_factory=lambda: [ok()])
    seen: list[Asked] = field(default_factory=list)
    given: int = 0
    changed: threading.Condition = field(default_factory=threading.Condition)

    def answer(self, *answers: Answer) -> None:
        """Answer these from now on, one after the other, and the last one ever after."""
        with self.changed:
            self.answers = list(answers)
            self.given = 0

    def get(self, *lines: str, to: str = "", **options: Any) -> Reply:
        """Send one request on a connection of its own."""
        with self.stand.connect() as client:
            return client.ask(self.path + to, *lines, **options)

    def head(self, *lines: str, **options: Any) -> Reply:
        return self.get(*lines, method="HEAD", **options)

    @property
    def count(self) -> int:
        """How many requests have come."""
        return len(self.seen)

    def wait(self, count: int, timeout: float = 10.0) -> None:
        """Wait until so many requests have come."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.seen) >= count, timeout), self.seen

    def serve(self, arrival: Arrival) -> bool | None:
        body = arrival.content()
        asked = Asked(
            arrival.method.decode("latin-1"),
            arrival.target.decode("latin-1"),
            [(name.decode("latin-1"), value.decode("latin-1")) for name, value in arrival.lines],
            body,
        )
        with self.changed:
            self.seen.append(asked)
            answer = self.answers[min(self.given, len(self.answers) - 1)]
            self.given += 1
            self.changed.notify_all()
        result = answer(arrival) if callable(answer) else answer
        if isinstance(result, bytes):
            arrival.send(result.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if asked.method == "HEAD" else result)
            return None
        return result


@dataclass
class Stand:
    proxy: Proxy
    origin: ScriptedOrigin
    folder: Path
    running: ExitStack
    sites: dict[str, Site] = field(default_factory=dict)

    def site(self, prefix: str = "") -> Site:
        """Return URLs that nobody has asked for; `prefix` is that of a remap rule."""
        path = f"{prefix}/s{next(_numbers)}"
        site = self.sites[path] = Site(self, path)
        return site

    def connect(self, **options: Any) -> Conversation:
        return open_to(self.proxy.port, **options)

    def restart(self, kill: bool = False, before: Callable[[], object] = lambda: None) -> None:
        """Stop the proxy, or kill it, do something, and start it again with its configuration."""
        if kill:
            self.proxy.process.kill()
            self.proxy.process.wait()
        else:
            self.proxy.stop()
        before()
        self.running.close()
        self.proxy = self.running.enter_context(running_proxy(self.proxy.config, self.folder, port=self.proxy.port))

    def lose_origin(self) -> None:
        """Let the origin be gone: nobody listens, and all its connections are closed."""
        listener = self.origin._listener
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for arrival in self.origin.raw:
            arrival.reset()

    def serve(self, arrival: Arrival) -> bool | None:
        target = arrival.target.decode("latin-1")
        path = target.partition("?")[0]
        while path and path not in self.sites:
            path = path.rpartition("/")[0]
        assert path, f"nobody answers {target}"
        return self.sites[path].serve(arrival)


@contextmanager
def serving(folder: Path, cache: Mapping[str, Any] | None = None, **config: Any) -> Iterator[Stand]:
    """Run a proxy with this `cache` section; the other sections are given as they are, over those of one upstream."""
    options = {key: config.pop(key) for key in ("environment", "port") if key in config}
    with scripted_origin() as origin, ExitStack() as running:
        whole = reverse_config(origin, cache=dict(cache or {"memory": "16MiB"}), **config)
        whole["upstreams"]["origin"].setdefault("retries", 0)
        whole["upstreams"]["origin"].setdefault("health", {"max_failures": 10**6})
        proxy = running.enter_context(running_proxy(whole, folder, **options))
        stand = Stand(proxy, origin, folder, running)
        origin.script = stand.serve
        yield stand
        assert "Traceback" not in stand.proxy.log, stand.proxy.log
        assert origin.error is None, origin.error
