"""Many clients and an origin of moods: whatever happens, every answer is one that the origin has given, and none is
older than what was changed before it was asked for."""

from __future__ import annotations

import hashlib
import random
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e_cache.support import Arrival, Conversation, Reply, Site, Stand, ok, serving

STORES: dict[str, dict[str, Any]] = {
    "memory": {"memory": "2MiB"},
    "disk": {"memory": 0, "disk": {"path": "store", "size": "4MiB"}},
    "both": {"memory": "1MiB", "disk": {"path": "store", "size": "16MiB"}},
}
RESOURCES = 6
CLIENTS = 8
REQUESTS = 300
PATIENCE = 8.0
"""Seconds in which every answer comes, or is broken off."""

LIFETIMES = [
    *("max-age=3600", "max-age=3600", "max-age=1", "max-age=0", "no-cache", "no-store", "private, max-age=9"),
    *("max-age=3600, must-revalidate", "max-age=0, stale-while-revalidate=60", "s-maxage=100", "x"),
]


def content(name: str, version: int) -> bytes:
    digest = hashlib.sha256(f"{name} {version}".encode()).digest()
    return digest * (1 + digest[0] * (40 if name.endswith("0") else 2))


class Moody:
    """The origin: resources with versions, and answers of every kind. Random by the number of the request."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.lock = threading.Lock()
        self.versions = [1] * RESOURCES
        self.changed = [1] * RESOURCES
        """Versions that a client has been told of by the answer to its PUT."""
        self.count = 0

    def __call__(self, arrival: Arrival) -> bytes | bool | None:
        with self.lock:
            self.count += 1
            dice = random.Random(self.seed + self.count)
            name = arrival.target.decode().rpartition("/")[2]
            number = int(name[1:])
            if arrival.method == b"PUT":
                self.versions[number] += 1
                return ok(b"%d" % self.versions[number])
            version = self.versions[number]
        tag = f'"{version}"'
        body = content(name, version)
        lines = [f"ETag: {tag}", f"Cache-Control: {dice.choice(LIFETIMES)}", f"X-Version: {version}"]
        if dice.random() < 0.3:
            lines.append("Vary: X-Variant")
        mood = dice.random()
        if mood < 0.05:
            return False
        if mood < 0.1:
            return ok(b"broken", status="503 x")
        if tag.encode() in (arrival.field(b"if-none-match") or b"") and dice.random() < 0.8:
            return ok(b"", *lines, status="304 Not Modified", length=False)
        response = self._response(arrival, dice, tag, body, lines)
        if mood < 0.2 and arrival.method == b"GET":
            arrival.send(response[: -1 - dice.randrange(len(body) // 2 + 1)])
            return False
        return response

    def _response(self, arrival: Arrival, dice: random.Random, tag: str, body: bytes, lines: list[str]) -> bytes:
        asked = re.fullmatch(rb"bytes=(\d+)-(\d*)", arrival.field(b"range") or b"")
        condition = arrival.field(b"if-range")
        if asked and condition in (None, tag.encode()) and int(asked[1]) < len(body) and dice.random() < 0.8:
            start = int(asked[1])
            stop = min(int(asked[2]) + 1, len(body)) if asked[2] else len(body)
            place = f"Content-Range: bytes {start}-{stop - 1}/{len(body)}"
            return ok(body[start:stop], place, *lines, status="206 Partial Content")
        if dice.random() < 0.3:
            chunks = [body[at : at + 1000] for at in range(0, len(body), 1000)]
            coded = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
            return ok(b"", *lines, "Transfer-Encoding: chunked", length=False) + coded + b"0\r\n\r\n"
        return ok(body, *lines)


def check(name: str, reply: Reply, at_least: int, mine: str) -> None:
    """Hold an answer against what the origin has."""
    assert reply.status in (0, 200, 206, 304, 416, 502, 503, 504), reply.status
    if reply.status not in (200, 206) or not reply.complete:
        return
    version = int((reply.field("etag") or "").strip('"'))
    assert version >= at_least, f"{name}: version {version} after {at_least}: {reply.lines}"
    assert reply.field("x-version") == str(version)
    body = content(name, version)
    if reply.status == 200:
        assert reply.body == body, f"{name} {version}: {len(reply.body)} of {len(body)} bytes, {reply.lines}"
    elif place := re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", reply.field("content-range") or ""):
        start, last, length = map(int, place.groups())
        assert length == len(body)
        assert reply.body == body[start : last + 1]


def client(site: Site, origin: Moody, seed: int) -> None:
    dice = random.Random(seed)
    connection: Conversation | None = None
    for _ in range(REQUESTS):
        connection = connection or site.stand.connect(timeout=PATIENCE)
        number = dice.randrange(RESOURCES)
        name = f"r{number}"
        kind = dice.random()
        at_least = origin.changed[number]
        lines = [f"X-Variant: {dice.randrange(3)}"]
        method = "GET"
        if kind < 0.06:
            method = "PUT"
        elif kind < 0.12:
            method = "HEAD"
        elif kind < 0.35:
            start = dice.randrange(64)
            lines.append(f"Range: bytes={start}-{dice.choice(['', start + dice.randrange(200)])}")
        elif kind < 0.45:
            lines.append(f'If-None-Match: "{max(1, at_least - dice.randrange(2))}"')
        elif kind < 0.5:
            lines.append("Cache-Control: no-cache")
        connection.say(f"{site.path}/{name}", *lines, method=method)
        if 0.5 < kind < 0.55:
            connection.reset()
            connection = None
            continue
        begun = time.monotonic()
        reply = connection.reply(method)
        assert time.monotonic() - begun < PATIENCE, f"{method} {name} {lines}: {reply.lines}, then nothing"
        if method == "PUT" and reply.status == 200:
            with origin.lock:
                origin.changed[number] = max(origin.changed[number], int(reply.body))
        elif method == "GET":
            check(name, reply, at_least, lines[0])
        if reply.status == 0 or not reply.complete or (reply.field("connection") or "") == "close":
            connection.sock.close()
            connection = None
    if connection is not None:
        connection.sock.close()


@pytest.fixture(params=STORES)
def stand(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stand]:
    with serving(tmp_path, STORES[request.param]) as running:
        yield running


@pytest.mark.parametrize("seed", [1000, 2000, 3000])
def test_no_answer_is_mixed_torn_or_older_than_a_change(stand: Stand, seed: int) -> None:
    site, origin = stand.site(), Moody(seed)
    site.answer(origin)
    failures: list[BaseException] = []

    def run(seed: int) -> None:
        try:
            client(site, origin, seed)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(seed * 100 + number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    asked = CLIENTS * REQUESTS
    assert origin.count < asked
