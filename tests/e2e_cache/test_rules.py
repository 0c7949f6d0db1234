"""What a remap rule says about the cache: lifetimes, negative caching, directives, methods, keys, surrogate keys."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e_cache.support import FRESH, STALE, Site, Stand, date, ok

CC = "Cache-Control: "
OLD = "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT"

RULES: dict[str, Any] = {
    "off": False,
    "ttl": {"ttl": 1000},
    "min": {"min_ttl": 100},
    "max": {"max_ttl": 100},
    "default": {"default_ttl": 1000},
    "noheuristics": {"heuristic_fraction": 0},
    "heuristics": {"heuristic_fraction": 0.5, "heuristic_max": 50},
    "ignore": {"directives": "ignore", "default_ttl": 1000},
    "ignoreclient": {"client_directives": "ignore"},
    "negative": {"negative": {"ttl": 1000, "statuses": [404, 503]}},
    "negatives": {"negative": [{"ttl": 1000, "statuses": [404]}, {"ttl": 10, "statuses": [410]}]},
    "getonly": {"methods": ["GET"]},
    "nopost": {"methods": ["GET", "HEAD"]},
    "drop": {"key": {"query": "drop"}},
    "sort": {"key": {"query": "sort"}},
    "only": {"key": {"query_only": ["id", "page_*"]}},
    "without": {"key": {"query_without": ["utm_*", "fbclid"]}},
    "headers": {"key": {"headers": ["X-Tenant"]}},
    "cookies": {"key": {"cookies": ["lang"]}},
    "keys": {"surrogate_keys": ["all-of-it"]},
}


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    remap = [{"match": {"path": f"/{name}/"}, "upstream": "origin", "cache": rule} for name, rule in RULES.items()]
    return {"remap": [*remap, {"upstream": "origin"}]}


def ttl(stand: Stand, rule: str, *lines: str, status: int = 200) -> float | None:
    """Return the time to live of what was stored; None if it is not reused."""
    site = stand.site(f"/{rule}")
    site.answer(ok(b"one", *lines, status=f"{status} x"), ok(b"two", *lines, status=f"{status} x"))
    site.get()
    reply = site.get()
    assert reply.body == (b"one" if reply.hit else b"two")
    return reply.cache["ttl"] if reply.hit else None


CASES = {
    "off": ("off", [FRESH], None),
    "ttl over max-age": ("ttl", [CC + "max-age=5"], 1000),
    "ttl over a longer max-age": ("ttl", [CC + "max-age=5000"], 1000),
    "ttl over nothing": ("ttl", [], 1000),
    "ttl not over no-store": ("ttl", [CC + "no-store"], None),
    "ttl not over private": ("ttl", [CC + "private"], None),
    "ttl not over no-cache": ("ttl", [CC + "no-cache", OLD], None),
    "min over less": ("min", [CC + "max-age=5"], 100),
    "min over max-age=0": ("min", [CC + "max-age=0"], 100),
    "min under more": ("min", [CC + "max-age=500"], 500),
    "min not over no-cache": ("min", [CC + "no-cache, max-age=5"], None),
    "min not over no-store": ("min", [CC + "no-store"], None),
    "max over less": ("max", [CC + "max-age=50"], 50),
    "max under more": ("max", [CC + "max-age=500"], 100),
    "max and heuristics": ("max", [OLD], 100),
    "default": ("default", [], 1000),
    "default in the place of heuristics": ("default", [OLD], 1000),
    "default not over max-age": ("default", [CC + "max-age=50"], 50),
    "default not over a bad max-age": ("default", [CC + "max-age=x"], None),
    "default not over no-store": ("default", [CC + "no-store"], None),
    "heuristics off": ("noheuristics", [OLD], None),
    "heuristics at most": ("heuristics", [OLD], 50),
    "no-store ignored": ("ignore", [CC + "no-store"], 1000),
    "private ignored": ("ignore", [CC + "private, max-age=5"], 1000),
    "Expires ignored": ("ignore", [f"Expires: {date(-1000)}"], 1000),
    "Vary: * not ignored": ("ignore", [CC + "no-store", "Vary: *"], None),
}


@pytest.mark.parametrize(("rule", "lines", "expected"), CASES.values(), ids=CASES)
def test_lifetimes(stand: Stand, rule: str, lines: list[str], expected: float | None) -> None:
    found = ttl(stand, rule, *lines)
    assert found == expected or (found is not None and expected is not None and expected - 2 <= found <= expected)


@pytest.mark.parametrize(
    ("rule", "status", "lines", "expected"),
    [
        ("negative", 404, [], 1000),
        ("negative", 503, [], 1000),
        ("negative", 500, [], None),
        ("negative", 404, [CC + "no-store"], None),
        ("negative", 404, [CC + "max-age=50"], 50),
        ("negatives", 404, [], 1000),
        ("negatives", 410, [], 10),
        ("max", 404, [], None),
    ],
)
def test_negative_caching(stand: Stand, rule: str, status: int, lines: list[str], expected: float | None) -> None:
    found = ttl(stand, rule, *lines, status=status)
    assert found == expected or (found is not None and expected is not None and expected - 2 <= found <= expected)


def test_a_cache_that_is_off_says_so(stand: Stand) -> None:
    site = stand.site("/off")
    site.answer(ok(b"x", FRESH))
    reply = site.get()
    assert reply.cache.get("fwd") in (None, "bypass")
    assert not reply.cache.get("stored")


@pytest.mark.parametrize("asked", ["no-cache", "max-age=0", "min-fresh=9999", "no-store"])
def test_clients_that_are_not_heeded(stand: Stand, asked: str) -> None:
    site = stand.site("/ignoreclient")
    site.answer(ok(b"one", FRESH), ok(b"two", FRESH))
    site.get()
    assert site.get(CC + asked).body == b"one"
    assert site.get("Pragma: no-cache").body == b"one"
    assert site.get(CC + "only-if-cached", to="/other").status == 504


def test_methods(stand: Stand) -> None:
    site = stand.site("/getonly")
    site.answer(ok(b"x", FRESH))
    site.head()
    site.head()
    assert site.count == 2
    site = stand.site("/nopost")
    site.answer(ok(b"post", FRESH, f"Content-Location: {site.path}"), ok(b"get", FRESH))
    site.get(method="POST")
    assert site.get().body == b"get"


ALIKE = {
    "drop": ["?a=1", "?b", ""],
    "sort": ["?a=1&b=2", "?b=2&a=1"],
    "only": ["?id=1&page_x=2&z=3", "?id=1&page_x=2", "?z&id=1&page_x=2"],
    "without": ["?a=1", "?a=1&utm_source=x", "?fbclid=9&a=1"],
}
DIFFERENT = {
    "sort": ["?a=1&b=2", "?a=2&b=1", "?a=1&a=2", "?a=2&a=1", "?a=1"],
    "only": ["?id=1", "?id=2", "?page_x=1", ""],
    "without": ["?a=1", "?a=2", "", "?utm=1"],
}


@pytest.mark.parametrize("rule", ALIKE)
def test_queries_that_are_alike(stand: Stand, rule: str) -> None:
    site = stand.site(f"/{rule}")
    site.answer(ok(b"x", FRESH))
    assert [site.get(to=to).hit for to in ALIKE[rule]] == [False] + [True] * (len(ALIKE[rule]) - 1)
    assert site.seen[0].target == site.path + ALIKE[rule][0]


@pytest.mark.parametrize("rule", DIFFERENT)
def test_queries_that_differ(stand: Stand, rule: str) -> None:
    site = stand.site(f"/{rule}")
    site.answer(ok(b"x", FRESH))
    assert not any(site.get(to=to).hit for to in DIFFERENT[rule])
    assert all(site.get(to=to).hit for to in DIFFERENT[rule])


def test_fields_in_the_key(stand: Stand) -> None:
    site = stand.site("/headers")
    site.answer(ok(b"1", FRESH), ok(b"2", FRESH), ok(b"3", FRESH))
    asked = [["X-Tenant: a"], ["x-tenant: b"], [], ["X-Tenant: a", "Other: 1"]]
    assert [site.get(*lines).body for lines in asked] == [b"1", b"2", b"3", b"1"]


def test_cookies_in_the_key(stand: Stand) -> None:
    site = stand.site("/cookies")
    site.answer(ok(b"1", FRESH), ok(b"2", FRESH), ok(b"3", FRESH))
    asked = [["Cookie: lang=en; id=1"], ["Cookie: id=2; lang=de"], ["Cookie: id=3"], ["Cookie: id=4; lang=en"]]
    assert [site.get(*lines).body for lines in asked] == [b"1", b"2", b"3", b"1"]


def test_the_key_of_a_rule_is_used_for_invalidation(stand: Stand) -> None:
    site = stand.site("/drop")
    site.answer(ok(b"old", FRESH), ok(b""), ok(b"new", FRESH))
    site.get(to="?a=1")
    site.get(to="?b=2", method="PUT")
    assert site.get(to="?c=3").body == b"new"


def test_surrogate_keys_are_not_passed_on(site: Site) -> None:
    site.answer(ok(b"x", FRESH, "Surrogate-Key: a b"))
    assert [site.get().field("surrogate-key"), site.get().field("surrogate-key")] == [None, None]


def test_rules_apply_to_validation_too(stand: Stand) -> None:
    site = stand.site("/max")
    fresh = ok(b"", CC + "max-age=5000", 'ETag: "v"', status="304 Not Modified", length=False)
    site.answer(ok(b"x", 'ETag: "v"', *STALE), fresh)
    site.get()
    site.get()
    assert 98 <= site.get().cache["ttl"] <= 100
