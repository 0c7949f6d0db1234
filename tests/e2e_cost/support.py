"""A proxy with all that looks at messages switched on, and a meter of the CPU time that it takes for a request."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.e2e.support import Arrival, ScriptedOrigin, reverse_config, scripted_origin
from tests.e2e_cache.support import Conversation, ok, open_to
from tests.support.proxy import Proxy, running_proxy

__all__ = ["LIMIT", "Bench", "Cost", "bench"]

LIMIT = 20.0
"""How many times the CPU time of an ordinary request another one may take."""
_SUSPICIOUS = LIMIT / 2
_LEAST = 0.1
"""Milliseconds that an ordinary request takes at the least."""
_PATIENCE = 10.0
"""Seconds to wait for an answer."""
_AGAIN = 5
"""Further measurements of what seems to cost much: the least of them counts, since a busy machine only adds."""

FRESH = b"Cache-Control: max-age=3600\r\n"
Cost = Callable[[int], float]
"""Measures one of many requests of a kind; numbered, since none may profit from one before."""


class Bench:
    """One proxy and its origin."""

    def __init__(self, proxy: Proxy, origin: ScriptedOrigin) -> None:
        self.proxy = proxy
        self.origin = origin
        self.answers: dict[str, bytes | Callable[[Arrival], bytes]] = {}
        """What the origin says to a path; `ok`, fresh for an hour, for all others."""
        origin.script = self._answer
        self._clock = (~proxy.process.pid << 3) | 2  # clock_getcpuclockid
        self._fence = open_to(proxy.port, timeout=_PATIENCE)
        self._number = 0

    def _answer(self, arrival: Arrival) -> bool:
        content = arrival.content()
        assert content is not None
        self.origin.seen.clear()
        arrival.raw = b""
        answer = self.answers.get(arrival.target.decode("latin-1"), None)
        if callable(answer):
            answer = answer(arrival)
        if answer is None:
            answer = ok(b"ok", "Cache-Control: max-age=3600")
        arrival.send(answer)
        return b"\r\nContent-Length: " in answer  # else only the end of the connection may end it

    def fresh_path(self, start: str = "/") -> str:
        """Return a path that nobody has asked for."""
        self._number += 1
        return f"{start}{self._number}"

    def _cpu(self) -> int:
        """Return the nanoseconds of CPU time that the proxy has taken, once it has nothing left to do."""
        self._fence.say("/fence")
        assert self._fence.reply().status == 204
        return time.clock_gettime_ns(self._clock)

    def cost(self, message: bytes, client: Callable[[Conversation], object] | None = None) -> float:
        """Return the milliseconds of CPU time for a connection with one request: `message`, or what `client` does."""
        before = self._cpu()
        conversation = open_to(self.proxy.port, timeout=_PATIENCE)
        try:
            if client is not None:
                client(conversation)
            else:
                conversation.sock.sendall(message)
                conversation.reply()
        except (OSError, AssertionError):  # refused before it was all there
            pass
        finally:
            conversation.sock.close()
        return (self._cpu() - before) / 1e6

    def get(self, path: str, fields: bytes = b"", method: str = "GET", body: bytes = b"") -> bytes:
        """Return a request; a Host among the fields takes the place of its own."""
        host = b"" if fields[:5].lower() == b"host:" else b"Host: proxy.test\r\n"
        return f"{method} {path} HTTP/1.1\r\n".encode() + host + fields + b"\r\n" + body

    def ask(self, path: str, fields: bytes = b"") -> int:
        """Ask for something and return the status."""
        conversation = open_to(self.proxy.port, timeout=_PATIENCE)
        try:
            conversation.send(self.get(path, fields))
            return conversation.reply().status
        finally:
            conversation.sock.close()


def too_dear(ordinary: Cost, awkward: dict[str, Cost]) -> dict[str, str]:
    """Return those that take more than `LIMIT` times the CPU time of an ordinary one, and how much."""
    # The system may account for time in steps: what takes less than one counts as a part of one.
    usual = max(statistics.median(ordinary(number) for number in range(9)), _LEAST)
    found = {}
    for name, cost in awkward.items():
        least = cost(0)
        for number in range(1, _AGAIN):
            if least < _SUSPICIOUS * usual:
                break
            least = min(least, cost(number))
        if least > LIMIT * usual:
            found[name] = f"{least:.1f} ms, {least / usual:.0f} times {usual:.2f} ms"
    return found


def _config(folder: Path, origin: ScriptedOrigin, **limits: Any) -> dict[str, Any]:
    fields = (
        "{Cookie}cqh",
        "{Range}cqh",
        "{X-Other}pqh",
        "{Vary}psh",
        "{Set-Cookie}ssh",
        "{Via}ecqh",
        "cquuc",
        "pquc",
        "caun",
    )
    log = " ".join(f"%<{field}>" for field in fields)
    config = reverse_config(
        origin,
        limits={"header_bytes": "128KiB", "request_line": "128KiB", **limits},
        headers={"forwarded": True},
        cache={
            "memory": "64MiB",
            "targeted": ["CDN-Cache-Control"],
            "surrogate_key_header": "Surrogate-Key",
            "purge": ["127.0.0.0/8"],
        },
        access_log=[
            {"path": str(folder / "access.json"), "format": "json"},
            {"path": str(folder / "access.log"), "format": log},
        ],
    )
    config["upstreams"]["origin"].update({"retries": 0, "health": {"max_failures": 10**6}})
    config["remap"] = [
        {"match": {"path": "/fence"}, "respond": 204},
        {"match": {"regex": "/moved/([^/]*)/?(.*)"}, "redirect": {"to": "https://$host$path?$query"}},
        {
            "match": {"path": "/keyed/"},
            "rewrite": "/",
            "upstream": "origin",
            "cache": {
                "key": {
                    "query": "sort",
                    "query_without": ["utm_*", "fbclid"],
                    "headers": ["X-Other", "Accept-Language"],
                    "cookies": ["sid", "lang"],
                }
            },
        },
        {"upstream": "origin"},
    ]
    return config


@contextmanager
def bench(folder: Path, **limits: Any) -> Iterator[Bench]:
    """Run a proxy until the block ends; `limits` are those of its listener."""
    with scripted_origin() as origin, ExitStack() as running:
        proxy = running.enter_context(running_proxy(_config(folder, origin, **limits), folder))
        yield Bench(proxy, origin)
        assert "Traceback" not in proxy.log, proxy.log
        assert origin.error is None, origin.error
