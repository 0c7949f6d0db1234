"""Stale responses: in the background (RFC 5861 3), on errors (RFC 5861 4), never where forbidden (RFC 9111 4.2.4)."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.support import eventually
from tests.e2e_cache.support import FRESH, STALE, Arrival, Site, Stand, ok, serving

CC = "Cache-Control: "
OLD = "Age: 20"
BEHIND = (CC + "max-age=10, stale-while-revalidate=600", OLD)


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    return {
        "remap": [
            {"match": {"path": "/behind/"}, "upstream": "origin", "cache": {"stale_while_revalidate": 600}},
            {"match": {"path": "/strict/"}, "upstream": "origin", "cache": {"stale_if_error": 0}},
            {"match": {"path": "/brief/"}, "upstream": "origin", "cache": {"stale_if_error": 30}},
            {"match": {"path": "/418/"}, "upstream": "origin", "cache": {"error_statuses": [418]}},
            {"upstream": "origin"},
        ]
    }


def close(arrival: Arrival) -> bool:
    return False


# stale-while-revalidate


def test_a_stale_response_is_served_at_once_and_refreshed_behind(site: Site) -> None:
    go = threading.Event()

    def slow(arrival: Arrival) -> bytes:
        go.wait(10)
        return ok(b"new", FRESH)

    site.answer(ok(b"old", *BEHIND, 'ETag: "v"'), slow)
    site.get()
    reply = site.get()
    assert reply.body == b"old"
    assert reply.hit
    assert reply.cache["ttl"] < 0
    assert (reply.age or 0) >= 20
    site.wait(2)
    assert site.seen[1].field("if-none-match") == '"v"'
    assert site.get().body == b"old"
    go.set()
    eventually(lambda: site.get().body == b"new")
    assert site.count == 2


def test_a_refresh_behind_may_be_a_304(site: Site) -> None:
    site.answer(ok(b"old", *BEHIND, 'ETag: "v"'), ok(b"", FRESH, 'ETag: "v"', status="304 Not Modified", length=False))
    site.get()
    site.get()
    site.wait(2)
    eventually(lambda: site.get().cache.get("ttl", 0) > 0)
    assert (site.get().body, site.count) == (b"old", 2)


def test_a_crowd_makes_one_refresh(site: Site) -> None:
    go = threading.Event()

    def slow(arrival: Arrival) -> bytes:
        go.wait(10)
        return ok(b"new", FRESH)

    site.answer(ok(b"old", *BEHIND), slow)
    site.get()
    assert {site.get().body for _ in range(20)} == {b"old"}
    site.wait(2)
    go.set()
    eventually(lambda: site.get().body == b"new")
    assert site.count == 2


def test_outside_the_window_the_origin_is_waited_for(site: Site) -> None:
    site.answer(ok(b"old", CC + "max-age=10, stale-while-revalidate=5", OLD), ok(b"new", FRESH))
    site.get()
    assert site.get().body == b"new"


@pytest.mark.parametrize("forbids", ["must-revalidate", "proxy-revalidate", "no-cache", "s-maxage=10"])
def test_what_forbids_stale_responses_forbids_these(site: Site, forbids: str) -> None:
    site.answer(ok(b"old", CC + f"max-age=10, {forbids}, stale-while-revalidate=600", OLD), ok(b"new", FRESH))
    site.get()
    assert site.get().body == b"new"


def test_a_refresh_behind_that_fails_is_tried_again_by_the_next(site: Site) -> None:
    site.answer(ok(b"old", *BEHIND), ok(b"broken", status="500 x"), close, ok(b"new", FRESH))
    site.get()
    bodies = set()
    eventually(lambda: bodies.add(body := site.get().body) or body == b"new")
    assert (bodies, site.count) == ({b"old", b"new"}, 4)


def test_the_rule_gives_a_window_where_the_origin_gives_none(stand: Stand) -> None:
    site = stand.site("/behind")
    site.answer(ok(b"old", *STALE), ok(b"new", FRESH))
    site.get()
    assert site.get().body == b"old"
    eventually(lambda: site.get().body == b"new")
    site = stand.site("/behind")
    site.answer(ok(b"old", CC + "max-age=10, stale-while-revalidate=5", OLD), ok(b"new", FRESH))
    site.get()
    assert site.get().body == b"new"


def test_head_and_ranges_are_served_stale_too(site: Site) -> None:
    site.answer(ok(b"0123456789", *BEHIND, 'ETag: "v"'), ok(b"0123456789", FRESH, 'ETag: "v"'))
    site.get()
    assert site.head().field("content-length") == "10"
    assert site.get("Range: bytes=2-3").body == b"23"
    site.wait(2)
    assert [asked.method for asked in site.seen] == ["GET", "GET"]
    assert site.seen[1].field("range") is None


def test_a_refresh_behind_has_nothing_of_the_client_that_caused_it(site: Site) -> None:
    site.answer(ok(b"old", *BEHIND, 'ETag: "v"'), ok(b"new", FRESH))
    site.get()
    site.get('If-None-Match: "mine"', "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT")
    site.wait(2)
    assert "mine" not in (site.seen[1].field("if-none-match") or "")


# stale-if-error, and an origin that is not there


FAILURES: dict[str, Any] = {
    "closes": close,
    **{str(status): ok(b"broken", status=f"{status} x") for status in (500, 502, 503, 504)},
    "closes in the head": lambda arrival: arrival.send(b"HTTP/1.1 200 OK\r\nContent-") or False,
    "no HTTP": lambda arrival: arrival.send(b"\x00\x01\x02 nonsense\r\n\r\n") or False,
}


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("cc", ["max-age=10", "max-age=10, stale-if-error=600"])
def test_a_stale_response_is_served_when_the_origin_fails(site: Site, failure: str, cc: str) -> None:
    site.answer(ok(b"old", CC + cc, OLD), FAILURES[failure])
    site.get()
    reply = site.get()
    assert (reply.status, reply.body) == (200, b"old")
    assert site.count == 2
    assert (reply.age or 0) >= 20
    assert reply.cache["ttl"] < 0


@pytest.mark.parametrize("failure", ["closes", "503"])
@pytest.mark.parametrize(
    "cc",
    [
        "max-age=10, must-revalidate",
        "max-age=10, proxy-revalidate",
        "max-age=10, no-cache",
        "s-maxage=10",
        "max-age=10, must-revalidate, stale-if-error=600",
    ],
)
def test_no_stale_response_is_served_where_that_is_forbidden(site: Site, failure: str, cc: str) -> None:
    site.answer(ok(b"old", CC + cc, OLD, 'ETag: "v"'), FAILURES[failure])
    site.get()
    reply = site.get()
    assert reply.status in (502, 503, 504)
    assert reply.body != b"old"


@pytest.mark.parametrize("failure", ["closes", "503"])
def test_the_window_of_the_response_counts(site: Site, failure: str) -> None:
    site.answer(ok(b"old", CC + "max-age=10, stale-if-error=5", OLD), FAILURES[failure])
    site.get()
    assert site.get().status in (502, 503, 504)


def test_the_window_of_the_rule_counts(stand: Stand) -> None:
    for prefix, age, status in (("/brief", 20, 200), ("/brief", 100, 503), ("/strict", 20, 503)):
        site = stand.site(prefix)
        site.answer(ok(b"old", CC + "max-age=10", f"Age: {age}"), FAILURES["503"])
        site.get()
        assert site.get().status == status, prefix


def test_only_what_is_configured_is_an_error(stand: Stand) -> None:
    site = stand.site("/418")
    site.answer(ok(b"old", *STALE), FAILURES["503"], ok(b"", status="418 x"))
    site.get()
    assert site.get().status == 503
    assert site.get().body == b"old"


def test_an_error_does_not_take_the_place_of_what_is_stored(site: Site) -> None:
    site.answer(ok(b"old", *STALE), ok(b"broken", CC + "max-age=60", status="503 x"), ok(b"new", FRESH))
    site.get()
    assert site.get().body == b"old"
    assert site.get().body in (b"old", b"new")
    assert site.get().body == b"new"


def test_errors_of_the_client_are_passed_on(site: Site) -> None:
    site.answer(ok(b"old", *STALE), ok(b"gone", status="404 Not Found"))
    site.get()
    assert site.get().status == 404


def test_a_client_that_insists_gets_the_error(site: Site) -> None:
    site.answer(ok(b"old", FRESH), FAILURES["503"])
    site.get()
    assert site.get(CC + "no-cache").status == 503


def test_the_request_may_ask_for_stale_if_error(stand: Stand) -> None:
    site = stand.site("/strict")
    site.answer(ok(b"old", *STALE), FAILURES["503"])
    site.get()
    assert site.get(CC + "stale-if-error=600").body == b"old"


def test_an_origin_that_cannot_be_reached(tmp_path: Path) -> None:
    with serving(tmp_path) as stand:
        site = stand.site()
        site.answer(ok(b"old", *STALE))
        site.get()
        other = stand.site()
        other.answer(ok(b"strict", CC + "max-age=10, must-revalidate", OLD))
        other.get()
        stand.lose_origin()
        assert (site.get().body, site.get().status) == (b"old", 200)
        assert other.get().status in (502, 503, 504)
