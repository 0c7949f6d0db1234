"""How long requests wait for another's answer, and how far an answer is fetched that nobody waits for any more."""

from __future__ import annotations

import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

from tests.e2e.support import eventually
from tests.e2e_cache.support import FRESH, Arrival, Conversation, Site, Stand, ok

BIG = bytes(range(256)) * 4096 * 8
"""8 MiB."""


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    def rule(path: str, **cache: Any) -> dict[str, Any]:
        return {"match": {"path": path}, "upstream": "origin", "cache": cache}

    return {
        "cache": {"memory": {"size": "64MiB", "max_object": "32MiB"}, "collapse_timeout": "200ms"},
        "remap": [
            rule("/patient/", collapse_timeout=0),
            rule("/all/", finish_abandoned={"completed": 0, "timeout": 0}),
            rule("/soon/", finish_abandoned={"completed": 0, "timeout": "200ms"}),
            {"upstream": "origin"},
        ],
    }


class Slow:
    """The first `stuck` answers come when the test says so, the others at once."""

    def __init__(self, stuck: int, *lines: str) -> None:
        self.go = threading.Event()
        self._left = threading.Semaphore(stuck)
        self._lines = lines

    def __call__(self, arrival: Arrival) -> bytes:
        if self._left.acquire(blocking=False):
            self.go.wait(20)
            return ok(b"slow", *self._lines)
        return ok(b"quick", *self._lines)


@pytest.fixture
def stuck() -> Iterator[Callable[[Site, int], Slow]]:
    with ExitStack() as stack:

        def make(site: Site, count: int, *lines: str) -> Slow:
            slow = Slow(count, *(lines or (FRESH,)))
            stack.callback(slow.go.set)
            site.answer(slow)
            return slow

        yield make


def test_who_waits_too_long_for_a_head_asks_the_origin_itself(stand: Stand, stuck: Any) -> None:
    site = stand.site()
    slow = stuck(site, 1)
    with stand.connect() as leader:
        leader.say(site.path)
        site.wait(1)
        started = time.monotonic()
        assert site.get().body == b"quick"
        assert time.monotonic() - started > 0.2
        assert site.count == 2
        assert site.get().hit  # what it has brought serves the next
        slow.go.set()
        assert leader.reply().body == b"slow"
    assert site.count == 2


def test_without_a_time_out_they_wait_as_long_as_it_takes(stand: Stand, stuck: Any) -> None:
    site = stand.site("/patient")
    slow = stuck(site, 1)
    with stand.connect() as leader, stand.connect() as other:
        leader.say(site.path)
        site.wait(1)
        other.say(site.path)
        other.sock.settimeout(2)
        with pytest.raises(TimeoutError):
            other.sock.recv(1)
        slow.go.set()
        other.sock.settimeout(10)
        assert (leader.reply().body, other.reply().body) == (b"slow", b"slow")
    assert site.count == 1


def test_many_that_have_waited_too_long_do_not_ask_all_at_once(stand: Stand, stuck: Any) -> None:
    site = stand.site()
    slow = stuck(site, 1)
    with ThreadPoolExecutor(100) as pool:
        leader = pool.submit(site.get)
        site.wait(1)
        replies = list(pool.map(lambda _: site.get(), range(90)))
        assert {reply.body for reply in replies} == {b"quick"}
        assert site.count <= 1 + 40  # and not ninety: the answer to the first ones serves the rest
        slow.go.set()
        assert leader.result().body == b"slow"


def test_those_who_wait_get_their_turn_though_all_that_asked_are_stuck(stand: Stand, stuck: Any) -> None:
    site = stand.site()
    slow = stuck(site, 1000)
    with ExitStack() as stack:
        clients = [stack.enter_context(stand.connect()) for _ in range(50)]
        for client in clients:
            client.say(site.path)
        site.wait(17)
        eventually(lambda: site.count == 50)
        slow.go.set()
        assert {client.reply().body for client in clients} == {b"slow"}


def test_the_head_that_comes_at_last_serves_those_who_have_not_had_their_turn(stand: Stand, stuck: Any) -> None:
    site = stand.site()
    first = stuck(site, 1)
    with ExitStack() as stack:
        clients = [stack.enter_context(stand.connect()) for _ in range(200)]
        clients[0].say(site.path)
        site.wait(1)
        later = stuck(site, 1000)
        for client in clients[1:]:
            client.say(site.path)
        site.wait(17)
        first.go.set()
        bodies = [client.reply().body for client in (clients[0], clients[-1])]
        assert bodies == [b"slow", b"slow"]
        later.go.set()
        assert {client.reply().body for client in clients[1:-1]} == {b"slow"}
        assert site.count < 150


def test_who_has_waited_may_go(stand: Stand, stuck: Any) -> None:
    site = stand.site()
    slow = stuck(site, 1000)
    with ExitStack() as stack:
        clients = [stack.enter_context(stand.connect()) for _ in range(40)]
        for client in clients:
            client.say(site.path)
        site.wait(17)
    slow.go.set()
    eventually(lambda: site.get().hit)


def test_what_drips_is_not_joined_by_those_who_come_late(stand: Stand) -> None:
    site = stand.site()
    go = threading.Event()

    def drip(arrival: Arrival) -> None:
        arrival.send(ok(b"", FRESH, "Content-Length: 10", length=False) + b"d")
        go.wait(20)
        arrival.send(b"ripping..")

    site.answer(drip, ok(b"at once..."))
    try:
        with stand.connect() as first, stand.connect() as second:
            first.say(site.path)
            assert first.read_head()[0] == 200
            second.say(site.path)  # soon enough to read along
            assert second.read_head()[0] == 200
            assert site.count == 1
            time.sleep(0.3)
            assert site.get().body == b"at once..."
            go.set()
            assert (first.read(10), second.read(10)) == (b"dripping..", b"dripping..")
    finally:
        go.set()


# Nobody waits any more


class Endless:
    """Sends `before` bytes of `body`, then waits for the test, then the rest; notices when the proxy hangs up."""

    def __init__(self, body: bytes, before: int, chunked: bool = False) -> None:
        self.body, self.before, self.chunked = body, before, chunked
        self.go, self.gone, self.sent = threading.Event(), threading.Event(), threading.Event()
        self.count = 0

    def __call__(self, arrival: Arrival) -> bool | None:
        self.count += 1
        length = "Transfer-Encoding: chunked" if self.chunked else f"Content-Length: {len(self.body)}"
        arrival.send(ok(b"", FRESH, length, length=False))
        try:
            self.send(arrival, self.body[: self.before])
            while not self.go.wait(0.01):
                if select.select([arrival.sock], [], [], 0)[0]:
                    self.gone.set()
                    return False
            for at in range(self.before, len(self.body), 65536):
                self.send(arrival, self.body[at : at + 65536])
            if self.chunked:
                arrival.send(b"0\r\n\r\n")
        except OSError:
            self.gone.set()
            return False
        self.sent.set()
        return None

    def send(self, arrival: Arrival, data: bytes) -> None:
        arrival.send(b"%x\r\n%s\r\n" % (len(data), data) if self.chunked else data)


def leave_after(stand: Stand, site: Site, size: int) -> None:
    with stand.connect() as client:
        client.say(site.path)
        client.read_head()
        client.read(size)
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset


def is_stored(site: Site) -> bool:
    return site.get("Cache-Control: only-if-cached").status == 200


def test_a_client_that_leaves_after_a_kilobyte_does_not_cost_the_origin_the_whole_body(stand: Stand) -> None:
    site = stand.site()
    origin = Endless(BIG, 1024)
    site.answer(origin)
    leave_after(stand, site, 1024)
    assert origin.gone.wait(10)
    assert not is_stored(site)


@pytest.mark.parametrize(
    ("body", "before"), [(BIG[: 1 << 20], 1024), (BIG, len(BIG) // 2 + 1)], ids=["small", "half of it has come"]
)
def test_what_is_nearly_done_is_fetched_to_its_end(stand: Stand, body: bytes, before: int) -> None:
    site = stand.site()
    origin = Endless(body, before)
    site.answer(origin)
    leave_after(stand, site, before)
    assert not origin.gone.wait(0.3)
    origin.go.set()
    eventually(lambda: is_stored(site))
    assert site.get().body == body
    assert origin.count == 1


@pytest.mark.parametrize(("size", "stored"), [(1 << 19, True), (len(BIG), False)], ids=["little", "much"])
def test_of_unknown_length_a_little_is_fetched(stand: Stand, size: int, stored: bool) -> None:
    site = stand.site()
    origin = Endless(BIG[:size], 1024, chunked=True)
    site.answer(origin)
    with stand.connect() as client:
        client.say(site.path)
        client.read_head()
        client.read_until(BIG[1000:1024])
    assert not origin.gone.wait(0.3)
    origin.go.set()
    if stored:
        eventually(lambda: is_stored(site))
    else:
        assert origin.gone.wait(10)
        assert not is_stored(site)


def test_everything_is_fetched_if_the_rules_say_so(stand: Stand) -> None:
    site = stand.site("/all")
    origin = Endless(BIG, 1024)
    site.answer(origin)
    leave_after(stand, site, 1024)
    assert not origin.gone.wait(0.3)
    origin.go.set()
    eventually(lambda: is_stored(site))


def test_it_takes_no_longer_than_the_rules_say(stand: Stand) -> None:
    site = stand.site("/soon")
    origin = Endless(BIG, len(BIG) - 1)
    site.answer(origin)
    leave_after(stand, site, 1024)
    assert origin.gone.wait(10)
    assert not is_stored(site)


def test_a_client_that_comes_in_time_has_it_fetched_after_all(stand: Stand) -> None:
    site = stand.site("/soon")
    origin = Endless(BIG, len(BIG) - 1)
    site.answer(origin)
    with stand.connect() as first:
        first.say(site.path)
        first.read_head()
        second: Conversation = stand.connect()
        second.say(site.path)
        second.read_head()
        first.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with second:
        assert not origin.gone.wait(1.5)
        origin.go.set()
        assert second.read(len(BIG)) == BIG
    eventually(lambda: is_stored(site))
