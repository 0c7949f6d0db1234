"""Whatever happens, and in whatever order: every client is answered, and nothing is left under way."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from zope.interface import implementer

from tests.cache.coordinating import Running, proxied
from tests.e2e.support import eventually
from tests.e2e_cache.support import FRESH, STALE, Arrival, Conversation, Site, ok, validating
from tests.support.reactor import call
from twisted_wasmproxy.interfaces import Action, IFilter, IFilterFactory, IFilterStream

BODY = bytes(range(256)) * 1024
"""256 KiB."""


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    with proxied(tmp_path) as running:
        yield running


@pytest.fixture
def site(running: Running) -> Site:
    return running.site()


class Gate:
    """An answer whose head, and the second half of whose content, come when the test says so."""

    def __init__(self, body: bytes, *lines: str, status: str = "200 OK", chunked: bool = False) -> None:
        self.body, self.lines, self.status, self.chunked = body, lines, status, chunked
        self.head, self.rest = threading.Event(), threading.Event()
        self.broken = False

    def __call__(self, arrival: Arrival) -> bool | None:
        assert self.head.wait(20)
        half = len(self.body) // 2
        if self.chunked:
            arrival.send(ok(b"", *self.lines, "Transfer-Encoding: chunked", status=self.status, length=False))
            arrival.send(b"%x\r\n%b\r\n" % (half, self.body[:half]))
        else:
            arrival.send(ok(self.body, *self.lines, status=self.status)[: -len(self.body)] + self.body[:half])
        assert self.rest.wait(20)
        if self.broken:
            return False
        arrival.send(self.body[half:] if not self.chunked else b"%x\r\n%b\r\n0\r\n\r\n" % (half, self.body[half:]))
        return None


def crowd(site: Site, size: int, *lines: str, method: str = "GET") -> list[Conversation]:
    clients = [site.stand.connect() for _ in range(size)]
    for client in clients:
        client.say(site.path, *lines, method=method)
    return clients


def close(arrival: Arrival) -> bool:
    return False


# An origin that fails


def test_what_is_incomplete_does_not_stand_in_for_what_the_origin_cannot_be_asked_for(site: Site) -> None:
    part = ok(b"0123456789", FRESH, 'ETag: "v"', "Content-Range: bytes 0-9/100", status="206 Partial Content")
    site.answer(part, close)
    site.get("Range: bytes=0-9")
    assert site.get().status == 502
    assert site.get("Range: bytes=0-9").body == b"0123456789"
    assert site.count == 2


def test_a_part_that_is_not_to_be_stored_is_no_answer_to_who_wants_the_whole(site: Site) -> None:
    def part(arrival: Arrival) -> bytes:
        if arrival.field(b"range") == b"bytes=0-9":
            return ok(BODY[:10], FRESH, 'ETag: "v"', f"Content-Range: bytes 0-9/{len(BODY)}", status="206 x")
        if arrival.field(b"range") is not None:
            last = len(BODY) - 1
            lines = ("Cache-Control: no-store", 'ETag: "v"', f"Content-Range: bytes 10-{last}/{len(BODY)}")
            return ok(BODY[10:], *lines, status="206 x")
        return ok(BODY, "Cache-Control: no-store", 'ETag: "v"')

    site.answer(part)
    site.get("Range: bytes=0-9")
    reply = site.get()
    assert (reply.status, reply.body) == (200, BODY)


def test_who_may_not_have_a_stale_response_fails_with_the_origin_and_the_others_have_it(running: Running) -> None:
    go = threading.Event()

    def fail(arrival: Arrival) -> bool:
        go.wait(10)
        return False

    for first, second in (("no-cache", "max-age=1000"), ("max-age=1000", "no-cache")):
        site = running.site()
        site.answer(ok(b"old", *STALE), fail)
        site.get()
        go.clear()
        (one,) = crowd(site, 1, f"Cache-Control: {first}")
        site.wait(2)
        (other,) = crowd(site, 1, f"Cache-Control: {second}")
        settle(site)
        go.set()
        statuses = {first: one.reply().status, second: other.reply().status}
        assert statuses == {"no-cache": 502, "max-age=1000": 200}


def test_head_is_answered_by_a_stale_response_when_the_origin_has_an_error(site: Site) -> None:
    site.answer(ok(b"old", *STALE), ok(b"", status="503 x"))
    site.get()
    assert site.head().status == 200


def test_an_origin_that_is_known_not_to_answer_is_not_waited_for(site: Site) -> None:
    answers = threading.Event()

    def silent(arrival: Arrival) -> bool:
        answers.wait(10)
        return False

    site.answer(ok(b"old", *STALE), close, silent)
    site.get()
    assert site.get().body == b"old"
    for _ in range(10):
        assert site.get().body == b"old"
    assert site.count <= 3
    answers.set()
    site.answer(ok(b"new", FRESH))
    eventually(lambda: site.get().body == b"new")


def test_a_refresh_that_fails_is_not_tried_again_with_each_request(site: Site) -> None:
    site.answer(ok(b"old", "Cache-Control: max-age=1, stale-while-revalidate=600", "Age: 20"), close)
    for _ in range(50):
        assert site.get().body == b"old"
    assert site.count <= 4


def test_what_a_refresh_shows_to_be_gone_is_forgotten(site: Site) -> None:
    site.answer(
        ok(b"old", "Cache-Control: max-age=1, stale-while-revalidate=600", "Age: 20"), ok(b"gone", status="404 x")
    )
    site.get()
    assert site.get().body == b"old"
    eventually(lambda: site.get().status == 404)


def test_what_the_origin_has_changed_does_not_stand_in_though_the_change_is_not_stored(site: Site) -> None:
    site.answer(ok(b"old", *STALE, 'ETag: "v"'), ok(b"new", "Cache-Control: no-store"), close)
    site.get()
    assert site.get().body == b"new"
    assert site.get().status == 502


def test_a_304_to_a_condition_of_the_client_leaves_what_is_stored(site: Site) -> None:
    site.answer(ok(b"old", *STALE), ok(b"", 'ETag: "mine"', status="304 x", length=False), close)
    site.get()
    assert site.get('If-None-Match: "mine"').status == 304
    assert site.get().body == b"old"


def test_an_error_of_the_origin_does_not_end_collapsing(site: Site) -> None:
    gate = Gate(b"content", FRESH)
    site.answer(ok(b"", status="503 x"), gate)
    assert site.get().status == 503
    clients = crowd(site, 10)
    site.wait(2)
    settle(site)
    gate.head.set()
    gate.rest.set()
    assert {client.reply().body for client in clients} == {b"content"}
    assert site.count == 2


def test_parts_are_completed_though_the_origin_has_failed_before(site: Site) -> None:
    whole = b"0123456789" * 10

    def part(arrival: Arrival) -> bytes:
        asked = (arrival.field(b"range") or b"bytes=0-99").removeprefix(b"bytes=").partition(b"-")
        first, last = int(asked[0]), int(asked[2] or 99)
        line = f"Content-Range: bytes {first}-{last}/100"
        return ok(whole[first : last + 1], *STALE, 'ETag: "v"', line, status="206 x")

    site.answer(part, close)
    site.get("Range: bytes=0-9")
    assert site.get("Range: bytes=2-3").body == b"23"
    assert site.get().status == 502
    site.answer(lambda arrival: part(arrival) if arrival.field(b"range") else ok(whole, FRESH, 'ETag: "v"'))
    assert site.get().body == whole


def test_a_refresh_of_what_has_grown_too_large_for_the_store_is_ended(small: Running) -> None:
    site = small.site()
    behind = "Cache-Control: max-age=1, stale-while-revalidate=600"
    ended = threading.Event()

    def endless(arrival: Arrival) -> bool:
        arrival.send(ok(b"", FRESH, "Transfer-Encoding: chunked", length=False))
        try:
            while True:
                arrival.send(b"%x\r\n%b\r\n" % (len(BODY), BODY))
        except OSError:
            ended.set()
            return False

    site.answer(ok(b"old", behind, "Age: 20"), endless)
    site.get()
    assert site.get().body == b"old"
    assert ended.wait(10)


# Clients that wait


def settle(site: Site) -> None:
    """Return when the proxy has read what was sent before."""
    other = site.stand.site()
    other.answer(ok(b"x", "Cache-Control: no-store"))
    for _ in range(2):
        other.get()


def test_variants_are_fetched_once_each(site: Site) -> None:
    first = Gate(b"1", FRESH, "Vary: a")
    go = threading.Event()

    def own(arrival: Arrival) -> bytes:
        go.wait(10)
        return ok(arrival.field(b"a") or b"", FRESH, "Vary: a")

    site.answer(first, own)
    first.rest.set()
    clients = crowd(site, 1, "A: 1")
    site.wait(1)
    clients += [client for value in "123" for client in crowd(site, 20, f"A: {value}")]
    settle(site)
    first.head.set()
    site.wait(3)
    settle(site)
    go.set()
    bodies = [client.reply().body for client in clients]
    assert bodies == [b"1"] * 21 + [b"2"] * 20 + [b"3"] * 20
    assert site.count == 3


def test_head_waits_for_get(site: Site) -> None:
    gate = Gate(BODY, FRESH)
    site.answer(gate)
    (getter,) = crowd(site, 1)
    site.wait(1)
    (header,) = crowd(site, 1, method="HEAD")
    settle(site)
    gate.head.set()
    reply = header.reply("HEAD")
    assert (reply.status, reply.field("content-length")) == (200, str(len(BODY)))
    gate.rest.set()
    assert getter.reply().body == BODY
    assert site.count == 1


def test_who_wants_the_end_of_what_has_just_begun_asks_for_it(site: Site) -> None:
    big = BODY * 20
    gate = Gate(big, FRESH, 'ETag: "v"')
    gate.head.set()

    def part(arrival: Arrival) -> bytes:
        start, end = len(big) - 10, len(big) - 1
        return ok(big[start:], FRESH, 'ETag: "v"', f"Content-Range: bytes {start}-{end}/{len(big)}", status="206 x")

    site.answer(gate, part)
    (whole,) = crowd(site, 1)
    whole.read_head()
    reply = site.get("Range: bytes=-10")
    assert (reply.status, reply.body) == (206, big[-10:])
    gate.rest.set()
    assert whole.read(len(big)) == big
    assert site.get().hit


def test_a_part_that_comes_late_does_not_take_the_place_of_the_whole(site: Site) -> None:
    big = BODY * 20
    whole = Gate(big, FRESH, 'ETag: "v"')
    whole.head.set()
    line = f"Content-Range: bytes {len(big) - 10}-{len(big) - 1}/{len(big)}"
    part = Gate(big[-10:], FRESH, 'ETag: "v"', line, status="206 x")
    part.head.set()
    site.answer(whole, part)
    (one,) = crowd(site, 1)
    one.read_head()
    (other,) = crowd(site, 1, "Range: bytes=-10")
    other.read_head()
    whole.rest.set()
    assert one.read(len(big)) == big
    assert site.get().hit
    part.rest.set()
    assert other.read(10) == big[-10:]
    site.stand.quiet()  # type: ignore[attr-defined]  # it is a `Running`
    reply = site.get()
    assert (reply.hit, reply.body == big) == (True, True)


@pytest.mark.parametrize("count", [1, 40])
def test_clients_that_go_away_while_others_ask_in_turn_hold_nobody_up(running: Running, count: int) -> None:
    """Many wait in vain, half of them go away, and the rest is served all the same."""
    site = running.site()
    gate = Gate(b"own", "Cache-Control: private")
    gate.rest.set()
    slow = threading.Event()

    def later(arrival: Arrival) -> bytes:
        slow.wait(10)
        return ok(b"own", "Cache-Control: private")

    site.answer(gate, later)
    first = crowd(site, 1)
    site.wait(1)
    going, staying = crowd(site, count), crowd(site, count)
    settle(site)
    gate.head.set()
    site.wait(2)
    for client in going:
        client.reset()
    settle(site)
    slow.set()
    assert [client.reply().body for client in first + staying] == [b"own"] * (1 + count)


def test_a_large_crowd_for_what_cannot_be_shared_is_let_go_faster_and_faster(site: Site) -> None:
    """The origin takes a tenth of a second each time: sixteen at a time would take longer than a second."""
    gate = Gate(b"own", "Cache-Control: private")
    gate.rest.set()
    at_once = [0, 0]
    lock = threading.Lock()

    def own(arrival: Arrival) -> bytes:
        with lock:
            at_once[0] += 1
            at_once[1] = max(at_once)
        threading.Event().wait(0.1)
        with lock:
            at_once[0] -= 1
        return ok(b"own", "Cache-Control: private")

    site.answer(gate, own)
    clients = crowd(site, 1)
    site.wait(1)
    clients += crowd(site, 150)
    settle(site)
    gate.head.set()
    assert {client.reply().body for client in clients} == {b"own"}
    assert site.count == 151
    assert 20 < at_once[1] < 120


def test_who_waits_for_a_commit_and_goes_away_holds_nobody_up(running: Running) -> None:
    running.store.late = {"commit"}
    running.store.gates["commit"] = []
    site = running.site()
    site.answer(ok(b"content", FRESH, "Vary: a"))
    assert site.get("A: 1").body == b"content"
    clients = crowd(site, 40, "A: 2")
    settle(site)
    for client in clients[:20]:
        client.reset()
    settle(site)
    call(running.store.open, "commit")
    assert {client.reply().body for client in clients[20:]} == {b"content"}


def test_the_first_of_a_crowd_may_be_reset_by_a_filter_though_nothing_is_finished_for_nobody(tmp_path: Path) -> None:
    with proxied(tmp_path, {"memory": "64MiB", "finish_abandoned": False}) as running:
        site = running.site()
        gate = Gate(BODY, FRESH)
        site.answer(gate)
        (first,) = crowd(site, 1)
        site.wait(1)
        others = crowd(site, 3)
        settle(site)
        first.reset()
        settle(site)
        gate.head.set()
        gate.rest.set()
        assert [client.reply().body for client in others] == [BODY] * 3


def test_a_post_counts_as_moving_while_its_content_comes(tmp_path: Path) -> None:
    """A filter of the origin phase that reads all of a slow request does not hold it for too long."""
    with proxied(tmp_path, origin_filters=[Collecting()], timeouts={"idle": 1}, limits={"min_rate": 0}) as running:
        site = running.site()
        client = running.connect()
        client.send(b"POST %b HTTP/1.1\r\nHost: proxy.test\r\nContent-Length: 8\r\n\r\n" % site.path.encode())
        for _ in range(8):
            threading.Event().wait(0.4)
            client.send(b"x")
        assert client.reply().status == 200


def test_an_answer_to_a_get_with_content_is_not_given_to_others(site: Site) -> None:
    site.answer(ok(b"poison", FRESH), ok(b"content", FRESH))
    assert site.get(body=b"x").body == b"poison"
    reply = site.get()
    assert (reply.body, reply.hit) == (b"content", False)
    assert site.get(body=b"x").body == b"content"
    assert site.get().body == b"content"


def test_what_is_not_stored_and_only_that_was_wanted_says_so(site: Site) -> None:
    reply = site.get("Cache-Control: only-if-cached")
    assert (reply.status, site.count) == (504, 0)
    assert reply.cache.keys() == {"detail", "key"}


# Filters of the origin phase


class _Factory:
    name = "test"

    def configured(self, configuration: object) -> Any:
        return self


@implementer(IFilter)
class _Filter:
    request_headers = request_body = request_trailers = None
    response_headers = response_body = response_trailers = None
    hook: Any = None

    def __init__(self, stream: IFilterStream) -> None:
        self.stream = stream

    def closed(self) -> None:
        pass


@implementer(IFilterFactory)
class Collecting(_Factory):
    def create(self, stream: IFilterStream) -> Any:
        made = _Filter(stream)
        made.request_headers = lambda end: Action.CONTINUE if end else Action.PAUSE_HEADERS  # type: ignore[assignment]
        made.request_body = lambda size, end: Action.CONTINUE if end else Action.PAUSE  # type: ignore[assignment]
        return made


@implementer(IFilterFactory)
class Scripted(_Factory):
    """Does to each response what the test says."""

    def __init__(
        self,
        head: Callable[[IFilterStream], Action | None] = lambda stream: None,
        body: Callable[[IFilterStream, int, bool], Action | None] | None = None,
        request: Callable[[IFilterStream], Action | None] = lambda stream: None,
    ) -> None:
        self.head, self.body, self.request = head, body, request

    def create(self, stream: IFilterStream) -> Any:
        made = _Filter(stream)
        body = self.body
        made.request_headers = lambda end: self.request(stream) or Action.CONTINUE  # type: ignore[assignment]
        made.response_headers = lambda end: self.head(stream) or Action.CONTINUE  # type: ignore[assignment]
        if body is not None:
            made.response_body = lambda size, end: body(stream, size, end) or Action.CONTINUE  # type: ignore[assignment]
        return made


@pytest.mark.parametrize("more", [-1, 1])
def test_content_that_is_not_as_long_as_declared_is_not_stored_and_breaks_off_for_everybody(
    tmp_path: Path, more: int
) -> None:
    passed: set[IFilterStream] = set()

    def lie(stream: IFilterStream, size: int, end: bool) -> None:
        if stream in passed and size:
            body: Any = stream.response_body
            body.replace(0, size, b"x" * (size + more * 5))
        passed.add(stream)  # the first part has passed untouched, and the declared length with it

    with proxied(tmp_path, origin_filters=[Scripted(body=lie)]) as running:
        site = running.site()
        gate = Gate(b"0123456789" * 4, FRESH)
        gate.head.set()
        site.answer(gate)
        clients = crowd(site, 1)
        clients[0].read_head()
        clients += crowd(site, 3)
        for client in clients[1:]:
            client.read_head()
        gate.rest.set()
        assert len(clients[0].read_all()) <= 40
        for client in clients[1:]:
            if more < 0:
                assert len(client.read_all()) < 40
            else:
                assert len(client.read(40)) == 40
        assert not site.get().hit
        assert site.count == 2


@pytest.mark.parametrize(
    "change",
    [
        lambda response: setattr(response, "status", 204),
        lambda response: setattr(response, "status", 304),
        lambda response: setattr(response, "status", 206),
        lambda response: setattr(response, "status", 99),
        lambda response: setattr(response, "status", 12345),
        lambda response: setattr(response, "status", -1),
        lambda response: setattr(response, "reason", b"a\r\nb: c"),
        lambda response: response.headers.set(b"content-length", b"9" * 5000),
        lambda response: response.headers.set(b"content-length", b"-5"),
        lambda response: response.headers.add(b"content-length", b"3"),
        lambda response: response.headers.set(b"content-range", b"bytes 0-4/3"),
        lambda response: response.headers.add(b"x\r\ny", b"z"),
        lambda response: response.headers.add(b"x", b"y\r\nz: a"),
        lambda response: response.headers.add(b"transfer-encoding", b"chunked"),
        lambda response: response.headers.add(b"vary", b"\xff, ,\0"),
        lambda response: response.headers.add(b"cache-control", b"max-age=" + b"9" * 5000),
        lambda response: response.headers.set(b"age", b"9" * 5000),
        lambda response: response.headers.lines.clear(),
    ],
)
def test_heads_that_a_filter_of_the_origin_phase_has_spoilt(tmp_path: Path, change: Callable[[Any], object]) -> None:
    spoilt = [True]

    def spoil(stream: IFilterStream) -> None:
        if spoilt[0]:
            change(stream.response)

    with proxied(tmp_path, origin_filters=[Scripted(spoil)]) as running:
        site = running.site()
        site.answer(ok(b"0123456789", FRESH))
        clients = crowd(site, 3)
        replies = [client.reply() for client in clients]
        spoilt[0] = False
        for reply in [*replies, site.get(), site.get()]:
            if reply.complete and reply.status == 200:
                assert reply.body in (b"0123456789", b"")
        site.answer(ok(b"0123456789", FRESH))
        site.get(method="PUT")
        assert site.get().body == b"0123456789"


@pytest.mark.parametrize("when", ["request", "head", "body"])
@pytest.mark.parametrize("what", ["reply", "reset"])
@pytest.mark.parametrize("stale", [False, True])
def test_a_filter_of_the_origin_phase_that_answers_itself_does_so_for_who_asked(
    tmp_path: Path, when: str, what: str, stale: bool
) -> None:
    armed = threading.Event()

    def act(stream: IFilterStream) -> None:
        if armed.is_set():
            armed.clear()
            if what == "reply":
                stream.send_local_response(418, [], b"tea")
            else:
                stream.reset()

    scripted = {
        "request": Scripted(request=act),
        "head": Scripted(act),
        "body": Scripted(body=lambda stream, size, end: act(stream)),
    }[when]
    with proxied(tmp_path, origin_filters=[scripted]) as running:
        site = running.site()
        if stale:
            site.answer(ok(b"old", *STALE, 'ETag: "v"'))
            site.get()
        gate = Gate(b"content", FRESH)
        gate.rest.set()
        site.answer(gate)
        before = site.count
        armed.set()
        (first,) = crowd(site, 1)
        if when != "request":
            site.wait(before + 1)
        others = crowd(site, 5)
        settle_all(running)
        gate.head.set()
        reply = first.reply()
        assert (reply.status, reply.complete) == ((418, True) if what == "reply" else (0, False))
        for client in others:
            got = client.reply()
            assert got.body in (b"content", b"old")


def settle_all(running: Running) -> None:
    for _ in range(20):
        running.settle()


# A store that fails, or takes its time


SLOW = ("lookup", "write", "commit", "update", "purge", "read")


@pytest.mark.parametrize("late", [(), SLOW], ids=["at once", "later"])
@pytest.mark.parametrize("failing", ["", "lookup", "create", "write", "commit", "update", "purge", "read"])
def test_a_store_of_any_mood_spoils_no_answer(tmp_path: Path, late: tuple[str, ...], failing: str) -> None:
    with proxied(tmp_path) as running:
        running.store.late = set(late)
        running.store.failing = {failing} - {""}
        site = running.site()
        for answers in (
            [ok(BODY, FRESH, 'ETag: "v"')],
            [validating('"v"', BODY, *STALE)],
            [validating('"v"', BODY, "Cache-Control: max-age=1, stale-while-revalidate=60", "Age: 20")],
            [ok(BODY, *STALE), close],
        ):
            site.answer(*answers)
            for _ in range(3):
                replies = [client.reply() for client in crowd(site, 3)]
                for reply in replies:
                    if reply.complete and reply.status == 200:
                        assert reply.body == BODY
                    else:
                        assert failing or answers[-1] is close, reply.status
                assert site.head().status in (200, 502)
                part = site.get("Range: bytes=10-19")
                assert part.status in (200, 206, 502) or failing == "read"
            site.answer(ok(b"put"))
            assert site.get(method="PUT").body == b"put"
            if failing != "purge":
                assert site.get(method="PURGE").status in (200, 404)
        if not failing:
            site.answer(ok(BODY, FRESH))
            site.get()
            running.quiet()
            assert site.get().hit


@pytest.mark.parametrize("late", [(), SLOW], ids=["at once", "later"])
@pytest.mark.parametrize("failing", ["create", "write", "commit"])
def test_a_variant_that_is_chosen_again_and_cannot_be_stored(
    running: Running, late: tuple[str, ...], failing: str
) -> None:
    site = running.site()
    site.answer(validating('"v"', BODY, FRESH, "Vary: a"))
    site.get("A: 1")
    running.store.late, running.store.failing = set(late), {failing}
    for _ in range(2):
        assert site.get("A: 2").body == BODY
    running.quiet()


def test_a_slow_invalidation_does_not_lose_flow_control(tmp_path: Path) -> None:
    """The answer to a POST waits for what it invalidates; a client that does not read holds the origin up after it."""
    big = b"x" * (64 * 1024 * 1024)
    with proxied(tmp_path) as running:
        running.store.late = {"purge"}
        site = running.site()
        sent = [0]
        done = threading.Event()

        def pour(arrival: Arrival) -> bool | None:
            arrival.send(ok(big)[: -len(big)])
            try:
                for start in range(0, len(big), 1 << 16):
                    arrival.send(big[start : start + (1 << 16)])
                    sent[0] = start
            except OSError:
                return False
            finally:
                done.set()
            return None

        site.answer(pour)
        client = running.connect(receive_buffer=4096)
        client.say(site.path, method="POST", body=b"x")
        assert not done.wait(1.5), "all of it was read though the client reads nothing"
        assert sent[0] < 32 * 1024 * 1024
        client.reset()


def test_a_client_may_go_while_an_invalidation_is_under_way(running: Running) -> None:
    site = running.site()
    running.store.late = {"purge"}
    running.store.gates["purge"] = []
    location = f"Content-Location: {site.path}"
    site.answer(ok(b"content", FRESH, location))
    (client,) = crowd(site, 1, method="POST")
    eventually(lambda: running.store.gates["purge"])
    client.reset()
    settle_all(running)
    call(running.store.open, "purge")
    running.quiet()


# Purges and invalidations


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("when", ["head", "body", "commit"])
def test_what_was_asked_for_before_a_purge_is_not_found_after_it(running: Running, when: str, soft: bool) -> None:
    from twisted_wasmproxy.cache.entry import Selection

    site = running.site()
    gate = Gate(BODY, FRESH)
    site.answer(gate, ok(b"new", FRESH))
    if when == "commit":
        running.store.late = {"commit"}
        running.store.gates["commit"] = []
    clients = crowd(site, 1)
    site.wait(1)
    if when == "head":
        clients += crowd(site, 5)
        settle_all(running)
    else:
        gate.head.set()
        clients[0].read_head()
    if when == "commit":
        gate.rest.set()
        assert clients.pop().read(len(BODY)) == BODY
        eventually(lambda: running.store.gates["commit"])
    call(lambda: running.cache.purge(Selection(), soft))
    gate.head.set()
    gate.rest.set()
    if when == "commit":
        call(running.store.open, "commit")
    after = site.get()
    assert after.body == b"new"
    if when == "head":
        assert {client.reply().body for client in clients} <= {BODY, b"new"}
    elif when == "body":
        assert clients[0].read(len(BODY)) == BODY
    running.quiet()
    assert site.get().body == b"new"


# Reload and stop


def test_a_cache_is_closed_when_the_last_transaction_that_uses_it_has_ended(running: Running) -> None:
    """Two configurations share a cache, a third has another: who waits on the first one still gets an answer."""
    site = running.site()
    gate = Gate(BODY, FRESH)
    site.answer(gate)
    (first,) = crowd(site, 1)
    site.wait(1)
    others = crowd(site, 3)
    settle(site)
    running.reload(node={"id": "second"})
    assert len(running.stores) == 1
    running.reload(cache={"memory": "32MiB"})
    assert len(running.stores) == 2
    gate.head.set()
    gate.rest.set()
    assert [client.reply().body for client in [first, *others]] == [BODY] * 4


def test_a_reload_that_takes_the_cache_away_leaves_nobody_without_an_answer(running: Running) -> None:
    site = running.site()
    gate = Gate(BODY, FRESH)
    gate.head.set()
    site.answer(gate)
    clients = crowd(site, 1)
    clients[0].read_head()
    clients += crowd(site, 3)
    for client in clients[1:]:
        client.read_head()
    running.reload(cache={"memory": "32MiB"})
    gate.rest.set()
    assert [client.read(len(BODY)) for client in clients] == [BODY] * 4


def test_a_cache_that_is_closed_leaves_nobody_waiting(running: Running) -> None:
    """Whoever closes it too early: those who wait or read are told."""
    site = running.site()
    waits, reads = Gate(BODY, FRESH), Gate(BODY, FRESH)
    reads.head.set()
    site.answer(reads)
    readers = crowd(site, 1)
    readers[0].read_head()
    readers += crowd(site, 2)
    for client in readers[1:]:
        client.read_head()
    other = running.site()
    other.answer(waits)
    waiters = crowd(other, 3)
    other.wait(1)
    settle(site)
    call(running.cache.close)
    for client in waiters:
        assert client.reply().status in (502, 503)
    for client in readers:
        client.read_all()  # to the end of the connection
    for gate in (waits, reads):
        gate.head.set()
        gate.rest.set()


# Content that the store does not keep


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Running]:
    with proxied(tmp_path, capacity=4 * 1024 * 1024, largest=256 * 1024) as running:
        yield running


def test_more_than_the_store_keeps_is_read_by_all_at_the_pace_of_the_slowest(small: Running) -> None:
    big = BODY * 64
    site = small.site()
    gate = Gate(big, FRESH, chunked=True)
    site.answer(gate)
    clients = crowd(site, 1)
    site.wait(1)
    clients += crowd(site, 3)
    settle(site)
    gate.head.set()
    gate.rest.set()
    bodies: dict[int, bytes] = {}
    threads = [
        threading.Thread(target=lambda n=n, c=c: bodies.__setitem__(n, c.reply().body)) for n, c in enumerate(clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert [bodies.get(number) == big for number in range(4)] == [True] * 4
    assert site.count == 1


@pytest.mark.parametrize("goes", [True, False])
def test_the_slowest_that_never_reads_and_goes_away_holds_nobody_up(small: Running, goes: bool) -> None:
    big = BODY * 64
    site = small.site()
    gate = Gate(big, FRESH, chunked=True)
    site.answer(gate)
    (reader,) = crowd(site, 1)
    site.wait(1)
    stuck = small.connect(receive_buffer=4096)
    stuck.say(site.path)
    settle(site)
    gate.head.set()
    gate.rest.set()
    reader.read_head()
    got = reader.read_until(b"\r\n")
    assert got
    if goes:
        threading.Timer(0.3, stuck.reset).start()
    else:
        threading.Timer(0.3, lambda: threading.Thread(target=stuck.reply).start()).start()
    size, total = int(got, 16), 0
    while size:
        total += len(reader.read(size + 2)) - 2
        size = int(reader.read_until(b"\r\n"), 16)
    assert total == len(big)


def test_parts_out_of_order_of_what_is_more_than_the_store_keeps(small: Running) -> None:
    """The store gives up in the middle, though the length was known: nobody waits for what has been let go."""
    big = BODY * 8
    site = small.site()
    small.store.memory._largest = len(big) + 1
    gate = Gate(big, FRESH, 'ETag: "v"')
    gate.head.set()
    site.answer(gate, gate)
    (whole,) = crowd(site, 1)
    whole.read_head()
    (parts,) = crowd(site, 1, f"Range: bytes={len(BODY)}-{len(BODY) + 9},{len(BODY) * 6}-{len(BODY) * 6 + 9},0-9")
    parts.read_head()
    small.store.memory._largest = 0
    gate.rest.set()
    assert whole.read(len(big)) == big
    rest = parts.buffer
    while rest.count(big[:10]) < 3:
        more = parts.sock.recv(65536)
        assert more, rest
        rest += more
