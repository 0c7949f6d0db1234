"""What a client asks of the cache (RFC 9111 sections 5.2.1, 5.4; RFC 8246)."""

from __future__ import annotations

import pytest

from tests.e2e_cache.support import FRESH, Site, ok
from tests.e2e_cache.support import validating as validates

CC = "Cache-Control: "


def stored(site: Site, *lines: str) -> None:
    """Have a response stored, so that the origin would answer another one now."""
    site.answer(ok(b"stored", *lines), ok(b"new", FRESH))
    assert site.get().body == b"stored"


ASKS_ORIGIN = {
    "no-cache": (FRESH, "", CC + "no-cache"),
    "Pragma": (FRESH, "", "Pragma: no-cache"),
    "max-age=0": (FRESH, "", CC + "max-age=0"),
    "max-age": (FRESH, "Age: 100", CC + "max-age=50"),
    "max-age that is none": (FRESH, "", CC + "max-age=x"),
    "min-fresh": (FRESH, "", CC + "min-fresh=4000"),
    "min-fresh and Age": (FRESH, "Age: 3000", CC + "min-fresh=1000"),
    "max-stale too small": (CC + "max-age=10", "Age: 200", CC + "max-stale=100"),
    "max-stale and must-revalidate": (CC + "max-age=10, must-revalidate", "Age: 20", CC + "max-stale"),
    "max-stale and proxy-revalidate": (CC + "max-age=10, proxy-revalidate", "Age: 20", CC + "max-stale=100"),
    "max-stale and s-maxage": (CC + "s-maxage=10", "Age: 20", CC + "max-stale=100"),
    "max-stale and no-cache": (CC + "max-age=100, no-cache", "Age: 20", CC + "max-stale=100"),
    "max-age and max-stale": (CC + "max-age=10", "Age: 60", CC + "max-age=20, max-stale=30"),
    "in capitals": (FRESH, "", CC + "No-Cache"),
    "in the second line": (FRESH, "", CC + "x\r\n" + CC + "no-cache"),
}

ANSWERED_FROM_THE_CACHE = {
    "nothing": (FRESH, "", "X: y"),
    "no-store": (FRESH, "", CC + "no-store"),
    "Pragma beside Cache-Control": (FRESH, "", "Pragma: no-cache\r\n" + CC + "x"),
    "Pragma: other": (FRESH, "", "Pragma: other"),
    "max-age": (FRESH, "Age: 100", CC + "max-age=200"),
    "min-fresh": (FRESH, "Age: 100", CC + "min-fresh=3000"),
    "max-stale": (CC + "max-age=10", "Age: 100", CC + "max-stale"),
    "max-stale enough": (CC + "max-age=10", "Age: 100", CC + "max-stale=1000"),
    "only-if-cached": (FRESH, "", CC + "only-if-cached"),
    "unknown": (FRESH, "", CC + "nothing-to-see-here"),
    "a quoted one": (FRESH, "", CC + 'x="no-cache"'),
    "immutable and max-age=0": (CC + "max-age=3600, immutable", "", CC + "max-age=0"),
}


@pytest.mark.parametrize(("cc", "age", "asked"), ASKS_ORIGIN.values(), ids=ASKS_ORIGIN)
def test_the_origin_is_asked(site: Site, cc: str, age: str, asked: str) -> None:
    stored(site, *filter(None, [cc, age]))
    reply = site.get(asked)
    assert (reply.body, site.count) == (b"new", 2)
    assert not reply.hit


@pytest.mark.parametrize(("cc", "age", "asked"), ANSWERED_FROM_THE_CACHE.values(), ids=ANSWERED_FROM_THE_CACHE)
def test_the_cache_answers(site: Site, cc: str, age: str, asked: str) -> None:
    stored(site, *filter(None, [cc, age]))
    reply = site.get(asked)
    assert (reply.body, site.count) == (b"stored", 1)
    assert reply.hit


@pytest.mark.parametrize("asked", ["no-cache", "max-age=0", "min-fresh=9999"])
def test_the_origin_is_asked_by_validation(site: Site, asked: str) -> None:
    site.answer(validates('"v"', b"body", FRESH))
    site.get()
    reply = site.get(CC + asked)
    assert reply.body == b"body"
    assert site.seen[1].field("if-none-match") == '"v"'
    assert reply.cache["fwd"] == "request"
    assert reply.cache["fwd-status"] == 304


def test_what_no_cache_fetched_is_stored(site: Site) -> None:
    stored(site, FRESH)
    site.get(CC + "no-cache")
    assert site.get().body == b"new"
    assert site.count == 2


def test_no_store_keeps_the_answer_out(site: Site) -> None:
    site.answer(ok(b"one", FRESH), ok(b"two", FRESH))
    reply = site.get(CC + "no-store")
    assert not reply.cache.get("stored")
    assert site.get().body == b"two"
    assert site.get().body == b"two"


def test_only_if_cached_does_not_ask_the_origin(site: Site) -> None:
    reply = site.get(CC + "only-if-cached")
    assert (reply.status, site.count) == (504, 0)
    stored(site, CC + "max-age=10", "Age: 20")
    assert site.get(CC + "only-if-cached").status == 504
    assert site.get(CC + "only-if-cached, max-stale=100").body == b"stored"
    assert site.count == 1


def test_directives_reach_the_origin(site: Site) -> None:
    site.get(CC + "no-cache, foo=bar", "Pragma: x")
    assert site.seen[0].field("cache-control") == "no-cache, foo=bar"
    assert site.seen[0].field("pragma") == "x"


@pytest.mark.parametrize("asked", ["max-age=99999999999999999999", "min-fresh=-5", "max-stale=", "max-age=1.5", "=,;"])
def test_odd_values_raise_nothing(site: Site, asked: str) -> None:
    stored(site, FRESH)
    assert site.get(CC + asked).body in (b"stored", b"new")
