"""The calls of the control API: purge, statistics, entries, over a socket and a real memory store."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import LogEvent, globalLogPublisher

from tests.admin.support import Admin, StoredInMemory, serving
from tests.support.reactor import call, run, started_reactor
from twisted_wasmproxy.cache.entry import Selection, StoreError


@pytest.fixture
def admin() -> Iterator[Admin]:
    with serving() as found:
        yield found


def urls(admin: Admin, query: str = "") -> list[str]:
    status, answer = admin.get(f"/cache/entries{query}")
    assert status == 200
    return sorted(entry["url"] for entry in answer["entries"])


def fill(admin: Admin) -> None:
    for url in (
        b"http://a.example/",
        b"http://a.example/img/1?x=1",
        b"http://a.example:8080/img/2",
        b"https://b.example/",
    ):
        admin.put(url, surrogate_keys=(b"pics",) if b"img" in url else ())


# Purge


def test_a_url_is_purged_with_all_its_variants_and_nothing_else(admin: Admin) -> None:
    fill(admin)
    for value in (b"gzip", None):
        admin.put(b"https://b.example/v", vary=((b"accept-encoding", value),))
    assert admin.purge(url="https://b.example/v") == (200, {"purged": 2})
    assert admin.purge(url="https://b.example/v") == (200, {"purged": 0})
    assert len(urls(admin)) == 4


@pytest.mark.parametrize(
    ("members", "left"),
    [
        ({"prefix": "http://a.example/img"}, 3),
        ({"prefix": "http://a.example"}, 2),
        ({"host": "a.example"}, 1),
        ({"host": "A.Example:8080"}, 3),
        ({"host": "b.example:443"}, 3),
        ({"key": "pics"}, 2),
        ({"host": "a.example", "key": "pics"}, 2),
        ({"prefix": "http://a.example/", "key": "pics"}, 3),
        ({"all": True}, 0),
        ({"host": "c.example"}, 4),
    ],
)
def test_purges_select_what_meets_all_that_is_said(admin: Admin, members: dict[str, object], left: int) -> None:
    fill(admin)
    assert admin.purge(**members) == (200, {"purged": 4 - left})
    assert len(urls(admin)) == left


@pytest.mark.parametrize(
    "spelling",
    [
        "HTTP://A.Example/p?q=%7e",
        "http://a.example:80/p?q=%7e",
        "http://a.example/p?q=%7e#fragment",
    ],
)
def test_urls_are_normalised_before_they_are_looked_for(admin: Admin, spelling: str) -> None:
    admin.put(b"http://a.example/p?q=%7e")
    assert admin.purge(url=spelling) == (200, {"purged": 1})


def test_what_cannot_be_in_a_url_is_percent_encoded(admin: Admin) -> None:
    admin.put(b"http://a.example/caf%C3%A9%20noir|")
    assert admin.purge(url="http://a.example/café noir|") == (200, {"purged": 1})


def test_urls_of_a_key_without_host_can_be_named(admin: Admin) -> None:
    admin.put(b"http://*/p")
    assert admin.purge(url="http://*/p") == (200, {"purged": 1})


def test_a_soft_purge_makes_stale_and_keeps(admin: Admin) -> None:
    admin.put(b"http://a.example/")
    assert admin.purge(url="http://a.example/", soft=True) == (200, {"purged": 1})
    _, answer = admin.get("/cache/entry?url=http://a.example/")
    (variant,) = answer["variants"]
    assert variant["state"] == "stale"
    assert variant["ttl"] <= 0
    assert variant["purged"] == pytest.approx(variant["response_time"], abs=30)


@pytest.mark.parametrize(
    ("members", "text"),
    [
        ({}, "say what to purge"),
        ({"soft": True}, "say what to purge"),
        ({"all": False}, "say what to purge"),
        ({"all": True, "host": "a"}, "say what to purge"),
        ({"all": 1}, "'all' must be true or false"),
        ({"host": "a", "soft": "yes"}, "'soft' must be true or false"),
        ({"uri": "http://a/"}, "unknown: 'uri'; known: url, prefix, host, key, all, soft"),
        ({"url": "a.example/"}, "must be a whole URL"),
        ({"url": "ftp://a/"}, "must be a whole URL"),
        ({"url": "http:///x"}, "must be a whole URL"),
        ({"url": "http\u017f://a/"}, "must be a whole URL"),
        ({"url": "http://a:\u0661/"}, "must be a whole URL"),
        ({"url": "http://u:p@a/"}, "must be a whole URL"),
        ({"url": "http://a b/"}, "must be a whole URL"),
        ({"url": 5}, "'url' must be printable text"),
        ({"url": "http://a/\r\n"}, "'url' must be printable text"),
        ({"url": None}, "'url' must be printable text"),
        ({"prefix": ["http://a/"]}, "'prefix' must be printable text"),
        ({"host": ""}, "'host' must be printable text"),
        ({"host": "http://a"}, "must be a host name or address"),
        ({"key": "a b"}, "must be one surrogate key"),
        ({"key": "é"}, "must be one surrogate key"),
    ],
)
def test_a_purge_that_does_not_say_what_purges_nothing(admin: Admin, members: dict[str, object], text: str) -> None:
    fill(admin)
    status, answer = admin.purge(**members)
    assert status == 400
    assert text in answer["error"]
    assert len(urls(admin)) == 4


# Looking


def test_entries_say_how_each_stands(admin: Admin) -> None:
    admin.put(b"http://a.example/", age=100, vary=((b"accept", b"*/*"), (b"accept-language", None)))
    admin.put(b"http://a.example/n", ((b"Cache-Control", b"no-cache"),), body=b"")
    _, answer = admin.get("/cache/entries?host=a.example")
    by_url = {entry["url"]: entry for entry in answer["entries"]}
    stale, no_cache = by_url["http://a.example/"], by_url["http://a.example/n"]
    assert (stale["status"], stale["state"], stale["size"], stale["length"]) == (200, "stale", 7, 7)
    assert stale["age"] == pytest.approx(100, abs=10)
    assert stale["ttl"] == pytest.approx(-40, abs=10)
    assert stale["vary"] == {"accept": "*/*", "accept-language": None}
    assert (no_cache["state"], no_cache["size"]) == ("no-cache", 0)
    assert answer["more"] is False


def test_entries_are_limited_and_say_if_there_are_more(admin: Admin) -> None:
    fill(admin)
    for limit, more in ((3, True), (4, False)):
        _, answer = admin.get(f"/cache/entries?limit={limit}")
        assert (len(answer["entries"]), answer["more"]) == (limit, more)


@pytest.mark.parametrize("limit", ["0", "-1", "1001", "x", "", "99999999"])
def test_a_limit_out_of_bounds_is_refused(admin: Admin, limit: str) -> None:
    status, answer = admin.get(f"/cache/entries?limit={limit}")
    assert (status, answer) == (400, {"error": "'limit' must be a whole number from 1 to 1000"})


@pytest.mark.parametrize(
    ("query", "count"),
    [("", 4), ("?prefix=http://a.example/img/", 1), ("?host=a.example", 3), ("?key=pics", 2), ("?key=other", 0)],
)
def test_entries_can_be_selected(admin: Admin, query: str, count: int) -> None:
    fill(admin)
    assert len(urls(admin, query)) == count


def test_an_entry_shows_everything_about_each_variant(admin: Admin) -> None:
    fields = ((b"Cache-Control", b"max-age=60, immutable"), (b"X-Odd", b"\xe9"), (b"X-Odd", b"2"))
    admin.put(
        b"http://a.example/v",
        fields,
        key=b"http://a.example/v\0origin",
        surrogate_keys=(b"one", b"two"),
        authorized=True,
        vary=((b"accept-encoding", b"gzip"),),
    )
    admin.put(b"http://a.example/v", body=b"part", start=10, length=100)
    status, answer = admin.get("/cache/entry?url=HTTP://a.example/v")
    assert (status, answer["url"]) == (200, "http://a.example/v")
    whole, part = sorted(answer["variants"], key=lambda variant: not variant["complete"])
    assert whole["fields"] == [["Cache-Control", "max-age=60, immutable"], ["X-Odd", "é"], ["X-Odd", "2"]]
    assert (whole["state"], whole["lifetime"], whole["immutable"]) == ("fresh", 60.0, True)
    assert whole["surrogate_keys"] == ["one", "two"]
    assert (whole["authorized"], whole["purged"], whole["parts"]) == (True, None, [[0, 7]])
    assert whole["key"] == "http://a.example/v | origin"
    assert (part["complete"], part["parts"], part["size"], part["length"]) == (False, [[10, 14]], 4, 100)


def test_what_is_not_stored_is_not_found(admin: Admin) -> None:
    status, answer = admin.get("/cache/entry?url=http://a.example/x")
    assert (status, answer) == (404, {"error": "nothing is stored for http://a.example/x"})


@pytest.mark.parametrize(
    "target",
    [
        *("/cache/entry", "/cache/entry?url=x", "/cache/entry?url=http://a/&url=http://b/", "/cache/entry?url=%ff"),
        *("/cache/entry?url=http://a/&soft=1", "/cache/stats?x=1", "/cache/entries?prefix=a", "/cache/entries?host="),
    ],
)
def test_a_question_that_is_not_understood_is_refused(admin: Admin, target: str) -> None:
    assert admin.get(target)[0] == 400


def test_stats_are_the_figures_of_the_cache(admin: Admin) -> None:
    admin.put(b"http://a.example/")
    status, answer = admin.get("/cache/stats")
    assert (status, answer["hits"], answer["hit_ratio"]) == (200, 7, 0.875)
    assert answer["memory"]["entries"] == 1


# Caches that take their time, fail, or are not there


class Slow(StoredInMemory):
    """Answers a little later."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Selection] = []
        self.answer: Deferred[int] = Deferred()

    def purge(self, selection: Selection, soft: bool) -> Deferred[int]:  # type: ignore[override]  # either is allowed
        self.asked.append(selection)
        started_reactor().callLater(0.01, self.answer.callback, 12)
        return self.answer


def test_an_answer_may_take_its_time() -> None:
    with serving(call(Slow)) as admin:
        assert admin.purge(url="http://a.example") == (200, {"purged": 12})
        assert admin.cache.asked == [Selection(url=b"http://a.example/")]


def test_a_caller_that_goes_away_leaves_nothing_behind() -> None:
    logged: list[LogEvent] = []
    with serving(call(Waiting)) as admin:
        globalLogPublisher.addObserver(logged.append)
        try:
            with socket.create_connection(("127.0.0.1", admin.port)) as caller:
                caller.sendall(
                    b"POST /cache/purge HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                    b'Content-Length: 13\r\n\r\n{"all": true}'
                )
                run(lambda: admin.cache.asked)
                caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # with a reset
            admin.get("/cache/stats")
            call(admin.cache.answer.callback, 12)
            assert admin.get("/cache/stats")[0] == 200
        finally:
            globalLogPublisher.removeObserver(logged.append)
    assert not [event for event in logged if "log_failure" in event]


class Waiting(StoredInMemory):
    """Answers a purge when told to; `asked` fires when one has come."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: Deferred[None] = Deferred()
        self.answer: Deferred[int] = Deferred()

    def purge(self, selection: Selection, soft: bool) -> Deferred[int]:  # type: ignore[override]  # either is allowed
        self.asked.callback(None)
        return self.answer


class Broken(StoredInMemory):
    def purge(self, selection: Selection, soft: bool) -> int:
        raise StoreError("the disk is on fire")

    def stats(self) -> dict[str, object]:
        raise ZeroDivisionError("not for outsiders")


def test_a_store_out_of_order_is_told_and_other_faults_are_logged() -> None:
    with serving(call(Broken)) as admin:
        assert admin.purge(all=True) == (503, {"error": "the cache store cannot do this: the disk is on fire"})
        assert admin.get("/cache/stats") == (500, {"error": "this call failed; the log says why"})
        assert admin.get("/cache/entries") == (200, {"entries": [], "more": False})


def test_without_a_cache_every_call_says_so_and_a_reload_may_bring_one(admin: Admin) -> None:
    call(admin.server.use, None)
    for status, answer in (
        admin.purge(all=True),
        admin.get("/cache/stats"),
        admin.get("/cache/entries"),
        admin.get("/cache/entry?url=http://a/"),
    ):
        assert status == 503
        assert "no 'cache' section" in answer["error"]
    call(admin.server.use, admin.cache)
    assert admin.get("/cache/stats")[0] == 200


# Modules


class Modules:
    def figures(self) -> list[dict[str, object]]:
        return [{"module": "a.wasm", "traps": 3, "last_failure": "\x1b\u202e"}]


def test_the_vms_of_modules_are_told(admin: Admin) -> None:
    assert admin.get("/wasm/vms") == (200, {"vms": []})
    call(lambda: admin.server.use(None, Modules()))
    assert admin.get("/wasm/vms") == (200, {"vms": Modules().figures()})
    _, body = admin.raw("GET", "/wasm/vms")
    assert body.strip().isascii()
    assert body.strip().decode().isprintable()
    assert admin.get("/wasm/vms?x=1")[0] == 400
    assert admin.post("/wasm/vms", {})[0] == 405
