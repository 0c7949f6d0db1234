"""Random clients, origins, filters and stores, all of bad moods: nobody hangs, nothing is torn, then all is quiet."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path

import pytest

from tests.cache.coordinating import Running, proxied
from tests.cache.test_coordinator import Scripted
from tests.e2e_cache.support import FRESH, Arrival, ok
from tests.support.reactor import call
from twisted_wasmproxy.cache.entry import Selection
from twisted_wasmproxy.interfaces import IFilterStream

SECONDS = 4.0
CLIENTS = 10
SLOW = ("lookup", "write", "commit", "update", "purge", "read")
LIFETIMES = (
    *(FRESH, "Cache-Control: max-age=0", "Cache-Control: private"),
    "Cache-Control: max-age=1, stale-while-revalidate=60",
)


class Origin:
    """Answers with a body that says nothing but its version, in one of many ways."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.version = 0

    def __call__(self, arrival: Arrival) -> bytes | bool | None:
        dice, mood = self.dice, self.dice.random()
        self.version += 1
        body = b"%08d" % self.version * dice.choice([1, 10, 1000, 20_000, 100_000])
        lines = [dice.choice(LIFETIMES), f'ETag: "{self.version}"', "Vary: a"]
        time.sleep(dice.random() * 0.01)
        if arrival.field(b"if-none-match") and mood < 0.4:
            tag = (arrival.field(b"if-none-match") or b"").partition(b",")[0].decode()
            return ok(b"", lines[0], f"ETag: {tag}", status="304 x", length=False)
        if mood < 0.05:
            return False
        if mood < 0.1:
            return ok(b"error", status=dice.choice(["500 x", "503 x", "404 x"]))
        first, _, last = (arrival.field(b"range") or b"bytes=0-").removeprefix(b"bytes=").partition(b"-")
        start, stop = int(first), min(int(last or len(body)) + 1, len(body))
        if arrival.field(b"range") and start < stop and mood < 0.5:
            lines.append(f"Content-Range: bytes {start}-{stop - 1}/{len(body)}")
            return ok(body[start:stop], *lines, status="206 x")
        if arrival.method == b"HEAD" or mood > 0.8:
            return ok(body, *lines)
        half = len(body) // 2
        if mood < 0.6:
            arrival.send(ok(body, *lines)[: -len(body)] + body[:half])
            time.sleep(dice.random() * 0.02)
            if mood < 0.53:
                return False
            arrival.send(body[half:])
        else:
            arrival.send(ok(b"", *lines, "Transfer-Encoding: chunked", length=False))
            for piece in (body[:half], body[half:]):
                arrival.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            arrival.send(b"0\r\n\r\n")
        return None


def ask(running: Running, path: str, dice: random.Random) -> str:
    """Be a client once; return what was wrong with the answer."""
    method = dice.choices(["GET", "HEAD", "PUT", "POST", "PURGE"], [20, 3, 1, 1, 1])[0]
    lines = []
    if dice.random() < 0.3:
        lines.append(f"A: {dice.randrange(3)}")
    if dice.random() < 0.2:
        lines.append(f"Range: bytes={dice.choice([0, 8, 8000])}-{dice.choice(['', '20007'])}")
    if dice.random() < 0.1:
        lines.append(f"Cache-Control: {dice.choice(['no-cache', 'only-if-cached', 'no-store', 'max-stale'])}")
    with running.connect(receive_buffer=4096 if dice.random() < 0.1 else None) as client:
        body = b"x" if method in ("PUT", "POST") else b""
        client.say(f"{path}/{dice.randrange(3)}", *lines, method=method, body=body)
        if dice.random() < 0.2:
            time.sleep(dice.random() * 0.02)
            if dice.random() < 0.5:
                client.reset()
            return ""
        begun = time.monotonic()
        reply = client.reply(method)
        if time.monotonic() - begun > 9:
            return f"no answer to {method} {lines}: {reply.status}, {len(reply.body)} bytes"
        content = reply.body
        whole = method == "GET" and reply.complete and reply.status in (200, 206) and len(content) >= 8
        if whole and content != content[:8] * (len(content) // 8):
            return f"torn: {method} {lines} {reply.lines}"
    return ""


@pytest.mark.parametrize("seed", [1, 2])
def test_every_client_is_answered_and_nothing_is_torn(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)

    def act(stream: IFilterStream) -> None:
        mood = dice.random()
        if mood < 0.01:
            stream.reset()
        elif mood < 0.02:
            stream.send_local_response(418, [], b"tea")

    scripted = Scripted(act, lambda stream, size, end: act(stream), act)
    with proxied(tmp_path, capacity=3 * 1024 * 1024, largest=400_000, origin_filters=[scripted]) as running:
        site = running.site()
        site.answer(Origin(dice))
        ends = time.monotonic() + SECONDS
        wrong: list[str] = []

        def be_client(number: int) -> None:
            own = random.Random(seed * 100 + number)
            while time.monotonic() < ends:
                problem = ask(running, site.path, own)
                if problem:
                    wrong.append(problem)

        threads = [threading.Thread(target=be_client, args=(number,)) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        while time.monotonic() < ends:
            time.sleep(0.05)
            running.store.late = {name for name in SLOW if dice.random() < 0.5}
            running.store.failing = {name for name in (*SLOW[:4], "read", "create") if dice.random() < 0.05}
            if dice.random() < 0.2:
                call(lambda: running.cache.purge(Selection(), dice.random() < 0.5))
        running.store.failing = set()
        for thread in threads:
            thread.join()
        assert not wrong
        assert site.count > 100
