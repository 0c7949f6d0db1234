"""What is stored and for how long it is used (RFC 9111 sections 3, 4.2, 5.1, 5.2.2, 5.3; RFC 9211; RFC 9213)."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.e2e_cache.support import FRESH, STALE, Site, Stand, date, ok
from tests.e2e_cache.support import validating as validates

CC = "Cache-Control: "
CDN = "CDN-Cache-Control: "
OLD = f"Last-Modified: {date(-100_000)}"

FRESH_ONES = {
    "max-age": [FRESH],
    "s-maxage": [CC + "s-maxage=3600"],
    "s-maxage beats max-age": [CC + "max-age=1, s-maxage=3600", "Age: 10"],
    "max-age beats Expires": [FRESH, f"Expires: {date(-10_000)}"],
    "max-age beats a bad Expires": [FRESH, "Expires: 0"],
    "Expires": [f"Expires: {date(3600)}"],
    "2^31": [CC + "max-age=2147483648"],
    "more than 2^64": [CC + "max-age=99999999999999999999999"],
    "names have no case": [CC + "MaX-aGe=3600"],
    "quoted": [CC + 'max-age="3600"'],
    "leading zeros": [CC + "max-age=003600"],
    "unknown directives": [CC + "foo, bar=baz, max-age=3600, x"],
    "empty members": [CC + ",, max-age=3600,,"],
    "in any of several lines": [CC + "foo", FRESH],
    "Age is less": [FRESH, "Age: 1800"],
    "immutable": [CC + "max-age=3600, immutable"],
    "heuristics": [OLD],
    "public and heuristics": [OLD, CC + "public"],
    "a name in no-store's neighbour": [CC + 'ext="no-store, private", max-age=3600'],
    "Pragma of a response": [FRESH, "Pragma: no-cache"],
    "must-understand and a status that is known": [CC + "max-age=3600, must-understand, no-store"],
    "targeted": [CDN + "max-age=3600"],
    "targeted beats max-age": [CDN + "max-age=3600", CC + "max-age=1", "Age: 10"],
    "targeted beats Expires": [CDN + "max-age=3600", f"Expires: {date(-10_000)}"],
    "targeted beats no-store": [CDN + "max-age=3600", CC + "no-store"],
    "targeted beats private": [CDN + "max-age=3600", CC + "private"],
    "targeted: 2^31": [CDN + "max-age=2147483648"],
    "targeted: 11 digits": [CDN + "max-age=99999999999"],
    "targeted: unknown members": [CDN + "foobar, max-age=3600;a=b"],
    "a targeted one that is no structured field does not count": [CDN + "max-age=3600, &&&&", FRESH],
    "a targeted one that is empty does not count": ["CDN-Cache-Control:", FRESH],
}

NOT_REUSED = {
    "nothing": [],
    "no-store": [CC + "no-store, max-age=3600"],
    "no-store in another line": [FRESH, CC + "no-store"],
    "NO-STORE": [CC + "max-age=3600, NO-STORE"],
    "private": [CC + "private, max-age=3600"],
    "private with fields": [CC + 'private="a", max-age=3600, no-store'],
    "max-age=0": [CC + "max-age=0"],
    "s-maxage=0": [CC + "max-age=3600, s-maxage=0"],
    "Age is as much": [FRESH, "Age: 3600"],
    "Age is more": [FRESH, "Age: 7200"],
    "Age is 2^31": [FRESH, "Age: 2147483648"],
    "Age is more than 2^64": [FRESH, "Age: 99999999999999999999999"],
    "Expires is past": [f"Expires: {date(-60)}"],
    "Expires is Date": [f"Date: {date()}", f"Expires: {date()}"],
    "Expires is before a Date to come": [f"Date: {date(7200)}", f"Expires: {date(3600)}"],
    "Expires: 0": ["Expires: 0", OLD],
    "Date is long ago": [f"Date: {date(-7200)}", FRESH],
    "not a number": [CC + "max-age=abc", OLD],
    "no number": [CC + "max-age", OLD],
    "negative": [CC + "max-age=-1", OLD],
    "a fraction": [CC + "max-age=3600.5"],
    "Vary: *": [FRESH, "Vary: *"],
    "Vary: * among others": [FRESH, "Vary: a", "Vary: b, *"],
    "targeted: Age": [CDN + "max-age=3600", "Age: 7200"],
    "targeted: max-age=0": [CDN + "max-age=0", FRESH, f"Expires: {date(3600)}"],
    "targeted: private": [CDN + "private", FRESH],
    "targeted: no-store": [CDN + "no-store", FRESH],
    "targeted: no-cache": [CDN + "no-cache", FRESH],
    "targeted: short": [CDN + "max-age=1", FRESH, "Age: 10"],
    "a targeted one of the wrong type does not count": [CDN + 'max-age="3600"', CC + "no-store"],
    "a targeted one that is no structured field does not overrule": [CDN + "max-age=3600, &&&&", CC + "no-store"],
}


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    stale = {"match": {"path": "/stale/"}, "upstream": "origin", "cache": {"invalid_age": "stale"}}
    errors = {"match": {"path": "/errors/"}, "upstream": "origin", "cache": {"request_error_statuses": []}}
    return {"remap": [stale, errors, {"upstream": "origin"}]}


@pytest.mark.parametrize("lines", FRESH_ONES.values(), ids=FRESH_ONES)
def test_fresh(site: Site, lines: list[str]) -> None:
    site.answer(ok(b"one", *lines), ok(b"two", *lines))
    first, second = site.get(), site.get()
    assert (first.body, second.body, site.count) == (b"one", b"one", 1)
    assert not first.hit
    assert first.cache["stored"]
    assert second.hit
    assert second.cache["ttl"] > 0


@pytest.mark.parametrize("lines", NOT_REUSED.values(), ids=NOT_REUSED)
def test_not_reused(site: Site, lines: list[str]) -> None:
    site.answer(ok(b"one", *lines), ok(b"two", *lines))
    assert [site.get().body, site.get().body] == [b"one", b"two"]
    assert site.count == 2


@pytest.mark.parametrize("status", [200, 203, 204, 404, 405, 410, 414, 501])
def test_heuristics_are_for_these_statuses(stand: Stand, status: int) -> None:
    site = stand.site("/errors")
    site.answer(ok(b"", OLD, status=f"{status} x", length=status != 204))
    assert [site.get().status, site.get().status] == [status, status]
    assert site.count == 1


@pytest.mark.parametrize("status", [201, 202, 307, 400, 403, 500, 502, 503, 599, 999])
def test_heuristics_are_not_for_others(site: Site, status: int) -> None:
    site.answer(ok(b"", OLD, status=f"{status} x", length=status != 204))
    assert [site.get().status, site.get().status] == [status, status]
    assert site.count == 2


@pytest.mark.parametrize("status", [200, 201, 299, 302, 307, 400, 404, 418, 431, 499, 503, 599])
def test_any_status_with_a_lifetime_of_its_own_can_be_stored(stand: Stand, status: int) -> None:
    site = stand.site("/errors")
    site.answer(ok(b"x", FRESH, status=f"{status} x"))
    assert [site.get().status, site.get().status] == [status, status]
    assert site.count == 1


@pytest.mark.parametrize("status", [206, 304])
def test_parts_and_304_are_not_stored_as_a_whole(site: Site, status: int) -> None:
    body = b"" if status == 304 else b"x"
    site.answer(ok(body, FRESH, status=f"{status} x", length=status != 304), ok(b"whole", FRESH))
    site.get()
    assert site.get().body == b"whole"


def test_must_understand_and_a_status_that_is_not_known(site: Site) -> None:
    site.answer(ok(b"x", CC + "max-age=3600, must-understand", status="299 x"))
    assert [site.get().status, site.get().status] == [299, 299]
    assert site.count == 2


def test_no_cache_is_stored_and_validated_each_time(site: Site) -> None:
    site.answer(validates('"v"', b"body", CC + "no-cache, max-age=3600"))
    assert [site.get().body for _ in range(3)] == [b"body"] * 3
    assert [asked.field("if-none-match") for asked in site.seen] == [None, '"v"', '"v"']


def test_fields_that_no_cache_and_private_name_are_not_reused(site: Site) -> None:
    site.answer(ok(b"x", CC + 'max-age=3600, no-cache="a, B", private="c"', "A: 1", "b: 2", "C: 3", "D: 4"))
    first, second = site.get(), site.get()
    assert second.hit
    assert [first.field(name) for name in "abcd"] == ["1", "2", "3", "4"]
    assert [second.field(name) for name in "abcd"] == [None, None, None, "4"]


def test_age_grows_from_what_the_origin_said_and_date_stays(site: Site) -> None:
    then = date(-30)
    site.answer(ok(b"x", FRESH, "Age: 100", f"Date: {then}", f"Expires: {date(1000)}"))
    first, second = site.get(), site.get()
    assert (first.age, first.field("date")) == (100, then)
    assert second.age in (100, 101)
    assert second.field("date") == then
    assert second.field("expires") == first.field("expires")
    assert second.cache["ttl"] in (3499, 3500)


def test_age_is_that_of_date_where_nothing_else_says(site: Site) -> None:
    site.answer(ok(b"x", FRESH, f"Date: {date(-100)}"))
    site.get()
    assert 99 <= (site.get().age or 0) <= 102


def test_a_date_is_added_to_what_has_none(site: Site) -> None:
    site.answer(ok(b"x", FRESH))
    site.get()
    value = site.get().field("date")
    assert value
    assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", value)


INVALID_AGES = ["abc", "-7200", "7200.0", '"72"', "", "72;a=b", "0, 0", "10, 7200"]


@pytest.mark.parametrize("age", INVALID_AGES)
def test_an_age_that_is_not_one_number_may_be_taken_for_old(stand: Stand, age: str) -> None:
    site = stand.site("/stale")
    site.answer(ok(b"one", FRESH, f"Age: {age}"), ok(b"two", FRESH))
    assert [site.get().body, site.get().body] == [b"one", b"two"]


@pytest.mark.parametrize("age", INVALID_AGES)
def test_an_age_that_is_not_one_number_is_read_as_rfc_9111_recommends(site: Site, age: str) -> None:
    site.answer(ok(b"x", FRESH, f"Age: {age}"))
    site.get()
    reply = site.get()
    first = int(age.partition(",")[0]) if age[0:1].isdigit() and "," in age else 0
    assert (site.count, reply.age) in ((1, first), (1, first + 1))


def test_of_two_lines_of_age_the_first_counts(site: Site) -> None:
    site.answer(ok(b"x", FRESH, "Age: 0", "Age: 7200"))
    site.get()
    assert site.get().hit


HOP_BY_HOP = [
    "Keep-Alive: timeout=5",
    "Proxy-Connection: x",
    "Proxy-Authentication-Info: x",
    "TE: x",
    "Connection: x-named",
    "X-Named: 1",
]
END_TO_END = [
    *("Content-Type: text/x", "Content-Language: en", "X-Test: 1", 'ETag: "v"', "Link: <a>", "Link: <b>"),
    *("Content-Security-Policy: x", "Strict-Transport-Security: x", "Proxy-Status: x", "Warning: 299 - x"),
]


def test_end_to_end_fields_are_stored_and_no_others(site: Site) -> None:
    site.answer(ok(b"x", FRESH, *END_TO_END, *HOP_BY_HOP))
    first, second = site.get(), site.get()
    assert second.hit
    for name in {line.partition(":")[0] for line in END_TO_END}:
        assert second.all(name) == first.all(name) != [], name
    for name in ("keep-alive", "proxy-connection", "proxy-authentication-info", "te", "x-named"):
        assert second.all(name) == [], name
    assert "x-named" not in (second.field("connection") or "")


def test_head_is_answered_by_what_get_stored(site: Site) -> None:
    site.answer(ok(b"12345", FRESH, "X-A: 1"))
    site.get()
    reply = site.head()
    assert (reply.status, reply.body, reply.field("content-length"), reply.field("x-a")) == (200, b"", "5", "1")
    assert site.count == 1


def test_head_does_not_answer_get(site: Site) -> None:
    site.answer(ok(b"12345", FRESH))
    site.head()
    assert site.get().body == b"12345"
    assert [asked.method for asked in site.seen] == ["HEAD", "GET"]


def test_queries_tell_resources_apart(site: Site) -> None:
    site.answer(ok(b"1", FRESH), ok(b"2", FRESH), ok(b"3", FRESH))
    assert [site.get(to=to).body for to in ("?a=1", "?a=2", "", "?a=1", "?a=2", "")] == [b"1", b"2", b"3"] * 2
    assert site.count == 3


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "M-SEARCH", "POST"])
def test_answers_to_other_methods_are_not_reused(site: Site, method: str) -> None:
    site.answer(ok(b"1", FRESH), ok(b"2", FRESH))
    assert site.get(method=method).body == b"1"
    assert site.get(method=method).body == b"2"


def test_empty_and_chunked_bodies_are_stored(site: Site) -> None:
    chunked = b"HTTP/1.1 200 OK\r\n" + FRESH.encode() + b"\r\nTransfer-Encoding: chunked\r\n\r\n"
    site.answer(chunked + b"3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n")
    assert [site.get().body, site.get().body, site.count] == [b"abcdefg", b"abcdefg", 1]
    second = site.get()
    assert second.field("content-length") == "7"
    site.answer(ok(b"", FRESH))
    assert [site.get(to="/empty").body, site.get(to="/empty").hit] == [b"", True]


def test_trailers_are_stored_with_it(site: Site) -> None:
    chunked = b"HTTP/1.1 200 OK\r\n" + FRESH.encode() + b"\r\nTransfer-Encoding: chunked\r\n\r\n"
    site.answer(chunked + b"3\r\nabc\r\n0\r\nX-Sum: 9\r\n\r\n")
    first, second = site.get("TE: trailers"), site.get("TE: trailers")
    assert first.trailers == [("X-Sum", "9")]
    assert (second.body, second.hit) == (b"abc", True)


# Cache-Status


def test_a_miss_and_a_hit_say_so(site: Site) -> None:
    site.answer(ok(b"x", FRESH))
    first, second = site.get(), site.get()
    assert first.cache["fwd"] in ("uri-miss", "miss")
    assert "hit" not in first.cache
    assert first.cache["stored"] is True
    assert second.cache["hit"] is True
    assert "fwd" not in second.cache
    assert 3598 <= second.cache["ttl"] <= 3600
    assert site.path in str(second.cache["key"])


def test_stale_and_validated_ones_say_so(site: Site) -> None:
    site.answer(validates('"v"', b"x", *STALE))
    site.get()
    second = site.get()
    assert second.cache["fwd"] == "stale"
    assert second.cache["fwd-status"] == 304


def test_a_method_that_is_not_cached_says_so(site: Site) -> None:
    assert site.get(method="PUT").cache["fwd"] == "method"


def test_members_of_caches_nearer_to_the_origin_stay_in_front(site: Site) -> None:
    site.answer(ok(b"x", FRESH, "Cache-Status: Origin; hit; ttl=9"))
    first, second = site.get(), site.get()
    for reply in (first, second):
        members = ", ".join(reply.all("cache-status")).split(", ")
        assert members[0].startswith("Origin")
        assert members[-1].startswith("wasmproxy")
        assert len(members) == 2


def test_what_is_not_stored_does_not_say_that_it_is(site: Site) -> None:
    site.answer(ok(b"x", CC + "no-store"))
    assert not site.get().cache.get("stored")


def test_targeted_fields_are_passed_on(site: Site) -> None:
    site.answer(ok(b"x", CDN + "max-age=3600", CC + "no-store"))
    assert [site.get().field("cdn-cache-control"), site.get().field("cache-control")] == ["max-age=3600", "no-store"]


def test_many_clients_on_one_connection_get_hits_in_order(stand: Stand) -> None:
    sites = [stand.site() for _ in range(5)]
    for number, site in enumerate(sites):
        site.answer(ok(b"%d" % number, FRESH))
        site.get()
    with stand.connect() as client:
        for site in sites * 3:
            client.say(site.path)
        assert [client.reply().body for _ in range(15)] == [b"0", b"1", b"2", b"3", b"4"] * 3
