"""One fetch for all who wait: collapsed forwarding, each client at its own pace, and who goes away."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.support import eventually, resident_kib
from tests.e2e_cache.support import FRESH, STALE, Arrival, Conversation, Site, Stand, ok

BIG = bytes(range(256)) * 4096 * 4
"""4 MiB."""


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    return {
        "cache": {"memory": {"size": "64MiB", "max_object": "32MiB"}},
        "remap": [
            {"match": {"path": "/alone/"}, "upstream": "origin", "cache": {"collapse": False}},
            {"match": {"path": "/cancel/"}, "upstream": "origin", "cache": {"finish_abandoned": False}},
            {"upstream": "origin"},
        ],
    }


class Gate:
    """An answer whose head, and whose content, come when the test says so."""

    def __init__(self, body: bytes, *lines: str, status: str = "200 OK") -> None:
        self.body, self.lines, self.status = body, lines, status
        self.head, self.rest = threading.Event(), threading.Event()
        self.gone = threading.Event()

    def __call__(self, arrival: Arrival) -> bool | None:
        self.head.wait(10)
        half = len(self.body) // 2
        try:
            arrival.send(ok(self.body, *self.lines, status=self.status)[: -len(self.body)] + self.body[:half])
            if not self._wait_for_rest(arrival):
                self.gone.set()
                return False
            arrival.send(self.body[half:])
        except OSError:
            self.gone.set()
            return False
        return None

    def _wait_for_rest(self, arrival: Arrival) -> bool:
        """Wait; say whether the proxy is still there."""
        import select

        while not self.rest.wait(0.01):
            if select.select([arrival.sock], [], [], 0)[0]:
                return False
        return True


def crowd(site: Site, size: int, *lines: str) -> list[Conversation]:
    clients = [site.stand.connect() for _ in range(size)]
    for client in clients:
        client.say(site.path, *lines)
    return clients


def settle(stand: Stand) -> None:
    """Return when the proxy has read what was sent before: it answers another connection in the same thread."""
    other = stand.site()
    other.answer(ok(b"x", "Cache-Control: no-store"))
    for _ in range(2):
        other.get()


def test_a_crowd_is_served_by_one_request(site: Site) -> None:
    gate = Gate(b"x" * 1000, FRESH)
    site.answer(gate)
    clients = crowd(site, 50)
    site.wait(1)
    settle(site.stand)
    gate.head.set()
    gate.rest.set()
    replies = [client.reply() for client in clients]
    assert {reply.body for reply in replies} == {b"x" * 1000}
    assert site.count == 1
    collapsed = [reply for reply in replies if reply.cache.get("collapsed")]
    assert len(collapsed) == 49
    assert sum(reply.cache.get("fwd") is not None for reply in replies) == 50


def test_late_comers_get_what_is_there_already_and_then_the_rest(site: Site) -> None:
    gate = Gate(BIG, FRESH)
    gate.head.set()
    site.answer(gate)
    (first,) = crowd(site, 1)
    first.read_head()
    assert first.read(len(BIG) // 4) == BIG[: len(BIG) // 4]
    (late,) = crowd(site, 1)
    late.read_head()
    assert late.read(len(BIG) // 4) == BIG[: len(BIG) // 4]
    gate.rest.set()
    for client in (late, first):
        assert client.read(len(BIG) - len(BIG) // 4) == BIG[len(BIG) // 4 :]
    assert site.count == 1


def test_a_slow_reader_does_not_hold_up_the_others(stand: Stand, site: Site) -> None:
    gate = Gate(BIG, FRESH)
    gate.head.set()
    gate.rest.set()
    site.answer(gate)
    slow = stand.connect(receive_buffer=4096)
    slow.say(site.path)
    site.wait(1)
    assert site.get().body == BIG
    assert slow.reply().body == BIG
    assert site.count == 1


@pytest.mark.parametrize("reset", [False, True])
def test_the_first_client_may_go_away(site: Site, reset: bool) -> None:
    gate = Gate(BIG, FRESH)
    site.answer(gate)
    (first,) = crowd(site, 1)
    site.wait(1)
    others = crowd(site, 5)
    settle(site.stand)
    if reset:
        first.reset()
    else:
        first.sock.close()
    settle(site.stand)
    gate.head.set()
    gate.rest.set()
    assert [client.reply().body for client in others] == [BIG] * 5
    assert site.count == 1


def test_the_first_client_may_go_away_in_the_middle_of_the_body(site: Site) -> None:
    gate = Gate(BIG, FRESH)
    gate.head.set()
    site.answer(gate)
    (first,) = crowd(site, 1)
    first.read_head()
    others = crowd(site, 3)
    for client in others:
        client.read_head()
    first.reset()
    settle(site.stand)
    gate.rest.set()
    for client in others:
        assert client.read(len(BIG)) == BIG
    assert site.count == 1
    assert site.get().hit


@pytest.mark.parametrize(
    "lines",
    [["Cache-Control: no-store"], ["Cache-Control: private"], [FRESH, "Vary: *"], []],
    ids=["no-store", "private", "vary star", "nothing"],
)
def test_who_waits_for_what_cannot_be_shared_goes_alone_and_not_one_after_the_other(
    site: Site, lines: list[str]
) -> None:
    first = Gate(b"first", *lines)
    together = threading.Barrier(10)

    def each(arrival: Arrival) -> bytes:
        together.wait(10)  # all nine others, and the test, are here at once
        return ok(b"own", *lines)

    site.answer(first, *[each] * 9)
    clients = crowd(site, 10)
    site.wait(1)
    settle(site.stand)
    first.head.set()
    first.rest.set()
    together.wait(10)
    assert sorted(client.reply().body for client in clients) == [b"first"] + [b"own"] * 9
    assert site.count == 10


def test_what_was_learnt_of_a_resource_that_is_not_shared_is_used(site: Site) -> None:
    """Once it was seen that answers are not shared, clients are not made to wait for each other."""
    site.answer(ok(b"x", "Cache-Control: no-store"))
    site.get()
    together = threading.Barrier(5)

    def each(arrival: Arrival) -> bytes:
        together.wait(10)
        return ok(b"own", "Cache-Control: no-store")

    site.answer(each)
    clients = crowd(site, 4)
    together.wait(10)
    assert [client.reply().body for client in clients] == [b"own"] * 4


def test_variants_are_not_mixed(site: Site) -> None:
    gates = {value: Gate(value.encode() * 100, FRESH, "Vary: a") for value in "12"}
    for gate in gates.values():
        gate.rest.set()

    def by_field(arrival: Arrival) -> bool | None:
        return gates[(arrival.field(b"a") or b"").decode()](arrival)

    site.answer(by_field)
    clients = {value: crowd(site, 5, f"A: {value}") for value in "12"}
    site.wait(1)
    settle(site.stand)
    for gate in gates.values():
        gate.head.set()
    for value, some in clients.items():
        assert [client.reply().body for client in some] == [value.encode() * 100] * 5
    assert site.count == 2 or site.count <= 6


def test_an_origin_that_fails_fails_all_who_wait_without_a_stampede(site: Site) -> None:
    go = threading.Event()

    def fail(arrival: Arrival) -> bool:
        go.wait(10)
        return False

    site.answer(fail)
    clients = crowd(site, 10)
    site.wait(1)
    settle(site.stand)
    go.set()
    assert {client.reply().status for client in clients} <= {502, 503, 504}
    assert site.count <= 10


def test_a_fetch_that_breaks_off_breaks_off_all_who_read_it(site: Site) -> None:
    def die(arrival: Arrival) -> bool:
        arrival.send(ok(BIG, FRESH)[: len(BIG) // 2])
        return False

    site.answer(die, ok(b"whole", FRESH))
    clients = crowd(site, 3)
    for reply in [client.reply() for client in clients]:
        assert not reply.complete or reply.body == b"whole"
    assert site.get().body == b"whole"


def test_a_crowd_validates_once(site: Site) -> None:
    go = threading.Event()

    def slow(arrival: Arrival) -> bytes:
        go.wait(10)
        return ok(b"", FRESH, 'ETag: "v"', status="304 Not Modified", length=False)

    site.answer(ok(b"body", *STALE, 'ETag: "v"'), slow)
    site.get()
    clients = crowd(site, 10)
    site.wait(2)
    settle(site.stand)
    go.set()
    assert [client.reply().body for client in clients] == [b"body"] * 10
    assert site.count == 2


def test_head_waits_for_get_but_get_not_for_head(site: Site) -> None:
    gate = Gate(b"0123456789", FRESH)
    site.answer(gate)
    (getter,) = crowd(site, 1)
    site.wait(1)
    with site.stand.connect() as header:
        header.say(site.path, method="HEAD")
        settle(site.stand)
        gate.head.set()
        gate.rest.set()
        assert header.reply("HEAD").field("content-length") == "10"
    assert getter.reply().body == b"0123456789"


def test_ranges_of_what_is_being_fetched(site: Site) -> None:
    gate = Gate(BIG, FRESH, 'ETag: "v"')
    gate.head.set()
    site.answer(gate)
    (first,) = crowd(site, 1)
    first.read_head()
    with site.stand.connect() as part:
        part.say(site.path, "Range: bytes=10-19")
        settle(site.stand)
        gate.rest.set()
        reply = part.reply()
        assert (reply.status, reply.body) in ((206, BIG[10:20]), (200, BIG))
    assert first.read(len(BIG)) == BIG


def test_rules_may_forbid_to_wait(stand: Stand) -> None:
    site = stand.site("/alone")
    together = threading.Barrier(5)

    def each(arrival: Arrival) -> bytes:
        together.wait(10)
        return ok(b"own", FRESH)

    site.answer(each)
    clients = crowd(site, 4)
    together.wait(10)
    assert [client.reply().body for client in clients] == [b"own"] * 4


def test_a_fetch_that_nobody_waits_for_is_finished_and_stored(site: Site) -> None:
    body = BIG[: 1024 * 1024]  # so that no more than the default of `finish_abandoned` is missing
    gate = Gate(body, FRESH)
    gate.head.set()
    site.answer(gate)
    (only,) = crowd(site, 1)
    only.read_head()
    only.reset()
    settle(site.stand)
    gate.rest.set()
    eventually(lambda: site.get("Cache-Control: only-if-cached").status == 200)
    assert site.get().body == body
    assert site.count == 1


def test_a_fetch_that_nobody_waits_for_is_cancelled_where_the_rule_says_so(stand: Stand) -> None:
    site = stand.site("/cancel")
    gate = Gate(BIG, FRESH)
    gate.head.set()
    site.answer(gate, ok(b"again", FRESH))
    (only,) = crowd(site, 1)
    only.read_head()
    only.reset()
    assert gate.gone.wait(10)
    assert site.get().body == b"again"


def _drain_slowly(client: Conversation, seconds: float) -> Callable[[], bytes]:
    got: list[bytes] = []

    def read() -> None:
        client.read_head()
        for start in range(0, len(BIG), len(BIG) // 16):
            got.append(client.read(len(BIG[start : start + len(BIG) // 16])))
            time.sleep(seconds / 16)

    thread = threading.Thread(target=read)
    thread.start()

    def result() -> bytes:
        thread.join()
        return b"".join(got)

    return result


def test_readers_of_every_pace_get_every_byte(stand: Stand, site: Site) -> None:
    gate = Gate(BIG, FRESH)
    gate.head.set()
    gate.rest.set()
    site.answer(gate)
    results = []
    for number in range(6):
        client = stand.connect(receive_buffer=8192)
        client.say(site.path)
        results.append(_drain_slowly(client, number * 0.1))
    assert all(result() == BIG for result in results)
    assert site.count == 1


def test_a_large_crowd_is_one_request_and_little_memory(stand: Stand, site: Site) -> None:
    gate = Gate(BIG, FRESH)
    site.answer(gate)
    pid = stand.proxy.process.pid
    before = resident_kib(pid)
    clients = crowd(site, 80)
    site.wait(1)
    gate.head.set()
    gate.rest.set()
    for client in clients:
        assert client.reply().body == BIG
    assert site.count == 1
    assert resident_kib(pid) - before < 80 * 1024


NOT_MODIFIED = "304 Not Modified"
OLD = ok(b"old", *STALE, 'ETag: "v"')
STRICT = ok(b"old", "Cache-Control: max-age=1, must-revalidate", "Age: 5", 'ETag: "v"')
VARIANT = ok(b"old", FRESH, 'ETag: "v"', "Vary: a")
NEXT = ok(b"next", FRESH)
BROKEN = ok(b"broken", status="503 x")

LEFT_BEHIND = {
    "a miss that is shared": ([], ok(b"new", FRESH), b"new", 1),
    "a miss that is not": ([], ok(b"new", "Cache-Control: no-store"), b"next", 2),
    "a validation: 304": ([OLD], ok(b"", FRESH, status=NOT_MODIFIED, length=False), b"old", 2),
    "a validation: 200": ([OLD], ok(b"new", FRESH), b"new", 2),
    "a validation: not shared": ([OLD], ok(b"new", "Cache-Control: private"), b"next", 3),
    "a validation: 503": ([OLD], BROKEN, b"old", 2),
    "a strict validation: 503": ([STRICT], BROKEN, b"next", 3),
    "a variant: known": ([VARIANT], ok(b"", FRESH, 'ETag: "v"', status=NOT_MODIFIED, length=False), b"old", 2),
    "a variant: unknown": ([VARIANT], ok(b"", 'ETag: "w"', status=NOT_MODIFIED, length=False), b"next", 3),
}


@pytest.mark.parametrize(("before", "answer", "body", "count"), LEFT_BEHIND.values(), ids=LEFT_BEHIND)
def test_whatever_comes_for_a_client_that_has_gone_serves_who_waited_behind_it(
    site: Site, before: list[bytes], answer: bytes, body: bytes, count: int
) -> None:
    go = threading.Event()

    def slow(arrival: Arrival) -> bytes:
        go.wait(10)
        return answer

    site.answer(*before, slow, NEXT)
    for _ in before:
        site.get("A: 1")
    first, behind = site.stand.connect(), site.stand.connect()
    first.say(site.path, "A: 2")
    site.wait(len(before) + 1)
    behind.say(site.path, "A: 2")
    settle(site.stand)
    first.reset()
    settle(site.stand)
    go.set()
    assert behind.reply().body == body
    assert site.count == count
