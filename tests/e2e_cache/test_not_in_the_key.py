"""What an answer may depend on and its key does not have: errors about one request, cookies, and unkeyed fields."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from tests.e2e_cache.support import FRESH, Arrival, Site, Stand, date, ok

OLD = f"Last-Modified: {date(-1_000_000)}"


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    def rule(path: str, **cache: Any) -> dict[str, Any]:
        return {"match": {"path": path}, "upstream": "origin", "cache": cache}

    return {
        "remap": [
            rule("/errors/", request_error_statuses=[]),
            rule("/cookies/", heuristic_with_cookie=True),
            rule("/strip/", strip_unkeyed=True, key={"headers": ["X-Host"]}),
            rule("/strip-some/", strip_unkeyed=["Cookie", "X-A"]),
            {"upstream": "origin"},
        ]
    }


def refusing(status: str):
    """Return an origin that refuses a request with a field that it does not like."""

    def make(arrival: Arrival) -> bytes:
        if arrival.field(b"x-bad") is not None:
            return ok(b"no", FRESH, status=status)
        return ok(b"page", FRESH)

    return make


REFUSALS = ["400 x", "408 x", "411 x", "413 x", "414 x", "415 x", "421 x", "426 x", "428 x", "429 x", "431 x"]


@pytest.mark.parametrize("status", REFUSALS)
def test_a_refusal_of_one_request_is_not_for_others(site: Site, status: str) -> None:
    site.answer(refusing(status))
    assert site.get("X-Bad: x").status == int(status[:3])
    assert site.get().body == b"page"
    assert site.get("X-Bad: x").hit


@pytest.mark.parametrize("status", ["400 x", "431 x"])
def test_a_refusal_leaves_what_is_stored(site: Site, status: str) -> None:
    site.answer(ok(b"page", "Cache-Control: max-age=10", "Age: 20", 'ETag: "a"'))
    site.get()
    site.answer(ok(b"no", FRESH, status=status))
    assert site.get().status == int(status[:3])
    site.answer(ok(b"", FRESH, 'ETag: "a"', status="304 Not Modified", length=False))
    assert site.get().body == b"page"


@pytest.mark.parametrize("status", ["400 x", "431 x"])
def test_a_refusal_is_stored_where_the_rule_says_so(stand: Stand, status: str) -> None:
    site = stand.site("/errors")
    site.answer(refusing(status))
    site.get("X-Bad: x")
    assert site.get().status == int(status[:3])


def personal(*lines: str):
    return lambda arrival: ok(arrival.field(b"cookie") or b"nobody", OLD, *lines)


def test_a_page_without_lifetime_is_not_shared_by_those_with_cookies(site: Site) -> None:
    site.answer(personal())
    assert [site.get(f"Cookie: a={i}").body for i in range(3)] == [b"a=0", b"a=1", b"a=2"]
    assert [site.get().body, site.get().body] == [b"nobody", b"nobody"]
    assert site.count == 4
    assert site.get("Cookie: a=4").body == b"a=4"
    # And that one has not made it forgotten.
    assert site.get().hit


def test_heuristics_can_be_for_those_with_cookies_too(stand: Stand) -> None:
    site = stand.site("/cookies")
    site.answer(personal())
    assert [site.get(f"Cookie: a={i}").body for i in range(2)] == [b"a=0", b"a=0"]


@pytest.mark.parametrize(
    "line", [FRESH, "Cache-Control: public", f"Expires: {date(3600)}"], ids=["age", "public", "date"]
)
def test_what_says_that_it_is_for_all_is_for_those_with_cookies(site: Site, line: str) -> None:
    site.answer(personal(line))
    assert [site.get(f"Cookie: a={i}").body for i in range(2)] == [b"a=0", b"a=0"]


def test_what_varies_by_cookie_is_kept_for_each(site: Site) -> None:
    site.answer(personal("Vary: Cookie"))
    assert [site.get(f"Cookie: a={i}").body for i in (0, 1, 0)] == [b"a=0", b"a=1", b"a=0"]
    assert site.count == 2


UNKEYED = [
    *("Forwarded: host=evil", "X-Forwarded-Scheme: http", "X-Original-URL: /admin", "X-Rewrite-Url: /x"),
    *("x-http-method-override: POST", "X-Original-Host: evil", "X-FORWARDED-PREFIX: /x"),
]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("line", UNKEYED)
def test_what_is_not_in_the_key_can_be_kept_from_origins(stand: Stand, line: str, method: str) -> None:
    site = stand.site("/strip")
    name = line.partition(":")[0].lower()
    site.get(line, "X-Other: a", method=method)
    assert site.seen[0].all(name) == []
    assert site.seen[0].field("x-other") == "a"


def test_x_forwarded_host_is_the_proxys_own(stand: Stand) -> None:
    site = stand.site("/strip")
    site.get("X-Forwarded-Host: evil")
    assert site.seen[0].field("x-forwarded-host") == "proxy.test"


def test_a_field_of_the_key_goes_on(stand: Stand) -> None:
    site = stand.site("/strip")
    site.get("X-Host: a")
    assert site.seen[0].field("x-host") == "a"


def test_what_is_not_cached_keeps_its_fields(stand: Stand) -> None:
    site = stand.site("/strip")
    site.get("X-HTTP-Method-Override: DELETE", method="POST", body=b"x")
    assert site.seen[0].field("x-http-method-override") == "DELETE"


def test_by_default_all_fields_go_on(site: Site) -> None:
    site.get("X-Original-URL: /admin")
    assert site.seen[0].field("x-original-url") == "/admin"


def test_cookies_that_origins_do_not_see_are_no_reason(stand: Stand) -> None:
    site = stand.site("/strip-some")
    site.answer(personal())
    assert [site.get(f"Cookie: a={i}", "X-A: b").body for i in range(2)] == [b"nobody", b"nobody"]
    assert (site.count, site.seen[0].all("x-a")) == (1, [])


def test_validations_are_without_them_too(stand: Stand) -> None:
    site = stand.site("/strip")
    site.answer(ok(b"x", "Cache-Control: max-age=10", "Age: 20", 'ETag: "a"'))
    site.get()
    site.get("X-Original-URL: /admin")
    assert (site.seen[1].field("if-none-match"), site.seen[1].all("x-original-url")) == ('"a"', [])


def test_who_waits_with_a_cookie_does_not_get_a_guess(site: Site) -> None:
    go_on = threading.Event()

    def slowly(arrival: Arrival) -> bytes:
        if arrival.field(b"cookie") is None:
            assert go_on.wait(10)
        return personal()(arrival)

    site.answer(slowly)
    with site.stand.connect() as anonymous, site.stand.connect() as other, site.stand.connect() as known:
        anonymous.say(site.path)
        site.wait(1)
        other.say(site.path)
        known.say(site.path, "Cookie: a=1")
        go_on.set()
        assert [anonymous.reply().body, other.reply().body, known.reply().body] == [b"nobody", b"nobody", b"a=1"]


def test_a_stale_guess_does_not_stand_in_for_those_with_cookies(site: Site) -> None:
    site.answer(ok(b"nobody", OLD, "Age: 90000"))
    site.get()
    site.answer(ok(b"no", status="503 x"))
    assert site.get("Cookie: a=1").status == 503
    assert site.get().body == b"nobody"
