"""How a stored response may answer: RFC 9111 sections 4, 4.2.4 and 5.2.1, RFC 5861, RFC 8246."""

import pytest

from tests.cache.support import NOW, head
from twisted_wasmproxy.cache.policy import NOTHING_ASKED, Asked, Reuse, freshness, may_serve_on_error, reuse
from twisted_wasmproxy.config.model import CacheConfig, CacheRules

CONFIG = CacheConfig()
RULES = CacheRules(stale_if_error=0.0)
ENDLESS = float("inf")


def fresh(value, rules=RULES, **attributes):
    return freshness(head(headers=[(b"Cache-Control", value)], **attributes), rules, CONFIG)


@pytest.mark.parametrize(
    ("value", "wants", "after", "found"),
    [
        (b"max-age=60", NOTHING_ASKED, 0, Reuse.FRESH),
        (b"max-age=60", NOTHING_ASKED, 59.9, Reuse.FRESH),
        (b"max-age=60", NOTHING_ASKED, 60, Reuse.VALIDATE),
        (b"max-age=0", NOTHING_ASKED, 0, Reuse.VALIDATE),
        (b"max-age=60, no-cache", NOTHING_ASKED, 1, Reuse.VALIDATE),
        (b"max-age=60, must-revalidate", NOTHING_ASKED, 1, Reuse.FRESH),
        # What came later than now: the clocks of two processes are a little apart, or nobody knows how old it is.
        (b"max-age=0", NOTHING_ASKED, -1, Reuse.VALIDATE),
        (b"max-age=60", NOTHING_ASKED, -1, Reuse.FRESH),
        (b"max-age=60", NOTHING_ASKED, -100, Reuse.VALIDATE),
        (b"max-age=60, stale-while-revalidate=9999", NOTHING_ASKED, -100, Reuse.VALIDATE),
        (b"max-age=60", Asked(max_stale=9999), -100, Reuse.VALIDATE),
        (b"max-age=60", Asked(max_stale=ENDLESS), -100, Reuse.STALE),
        # no-cache
        (b"max-age=60", Asked(no_cache=True), 1, Reuse.VALIDATE_FOR_CLIENT),
        (b"max-age=60", Asked(no_cache=True), 61, Reuse.VALIDATE),
        (b"max-age=60, no-cache", Asked(no_cache=True), 1, Reuse.VALIDATE),
        # no-store is about storing
        (b"max-age=60", Asked(no_store=True), 1, Reuse.FRESH),
        # max-age
        (b"max-age=60", Asked(max_age=0), 0, Reuse.FRESH),
        (b"max-age=60", Asked(max_age=0), 0.1, Reuse.VALIDATE_FOR_CLIENT),
        (b"max-age=60", Asked(max_age=10), 10, Reuse.FRESH),
        (b"max-age=60", Asked(max_age=10), 11, Reuse.VALIDATE_FOR_CLIENT),
        (b"max-age=60", Asked(max_age=100), 61, Reuse.VALIDATE),
        (b"max-age=60", Asked(max_age=100, max_stale=10), 65, Reuse.STALE),
        (b"max-age=60", Asked(max_age=63, max_stale=10), 65, Reuse.VALIDATE),
        # min-fresh
        (b"max-age=60", Asked(min_fresh=10), 50, Reuse.FRESH),
        (b"max-age=60", Asked(min_fresh=10), 50.1, Reuse.VALIDATE_FOR_CLIENT),
        (b"max-age=60", Asked(min_fresh=10, max_stale=100), 70, Reuse.VALIDATE),
        (b"max-age=60", Asked(min_fresh=ENDLESS), 0, Reuse.VALIDATE_FOR_CLIENT),
        # max-stale
        (b"max-age=60", Asked(max_stale=10), 70, Reuse.STALE),
        (b"max-age=60", Asked(max_stale=10), 70.1, Reuse.VALIDATE),
        (b"max-age=60", Asked(max_stale=ENDLESS), 1e9, Reuse.STALE),
        (b"max-age=60, must-revalidate", Asked(max_stale=ENDLESS), 61, Reuse.VALIDATE),
        (b"max-age=60, proxy-revalidate", Asked(max_stale=ENDLESS), 61, Reuse.VALIDATE),
        (b"s-maxage=60", Asked(max_stale=ENDLESS), 61, Reuse.VALIDATE),
        (b"no-cache", Asked(max_stale=ENDLESS), 61, Reuse.VALIDATE),
        (b"max-age=60", Asked(max_stale=10, no_cache=True), 61, Reuse.VALIDATE),
        # stale-while-revalidate
        (b"max-age=60, stale-while-revalidate=10", NOTHING_ASKED, 59, Reuse.FRESH),
        (b"max-age=60, stale-while-revalidate=10", NOTHING_ASKED, 60, Reuse.REVALIDATE_BEHIND),
        (b"max-age=60, stale-while-revalidate=10", NOTHING_ASKED, 69.9, Reuse.REVALIDATE_BEHIND),
        (b"max-age=60, stale-while-revalidate=10", NOTHING_ASKED, 70, Reuse.VALIDATE),
        (b"max-age=60, stale-while-revalidate=0", NOTHING_ASKED, 60, Reuse.VALIDATE),
        (b"max-age=60, stale-while-revalidate=10", Asked(max_age=90), 61, Reuse.VALIDATE),
        (b"max-age=60, stale-while-revalidate=10", Asked(min_fresh=1), 61, Reuse.VALIDATE),
        (b"max-age=60, stale-while-revalidate=10", Asked(no_cache=True), 61, Reuse.VALIDATE),
        (b"max-age=60, stale-while-revalidate=10", Asked(max_stale=5), 69, Reuse.REVALIDATE_BEHIND),
        # immutable
        (b"max-age=60, immutable", Asked(max_age=0), 10, Reuse.FRESH),
        (b"max-age=60, immutable", Asked(no_cache=True), 10, Reuse.FRESH),
        (b"max-age=60, immutable", Asked(min_fresh=55), 10, Reuse.VALIDATE_FOR_CLIENT),
        (b"max-age=60, immutable", Asked(no_cache=True), 60, Reuse.VALIDATE),
        (b"max-age=60, immutable, no-cache", NOTHING_ASKED, 10, Reuse.VALIDATE),
    ],
)
def test_reuse(value, wants, after, found):
    assert reuse(fresh(value), wants, NOW + after) is found


def test_the_age_that_a_response_came_with_counts():
    one = head(headers=[(b"Cache-Control", b"max-age=60"), (b"Age", b"50")])
    found = freshness(one, RULES, CONFIG)
    assert reuse(found, NOTHING_ASKED, NOW + 9) is Reuse.FRESH
    assert reuse(found, NOTHING_ASKED, NOW + 10) is Reuse.VALIDATE
    assert reuse(found, Asked(max_age=30), NOW) is Reuse.VALIDATE_FOR_CLIENT
    assert reuse(found, Asked(min_fresh=20), NOW) is Reuse.VALIDATE_FOR_CLIENT
    assert reuse(found, Asked(max_stale=5), NOW + 14) is Reuse.STALE


def test_what_was_purged_softly_is_stale():
    found = fresh(b"max-age=60, stale-while-revalidate=10, stale-if-error=20", purged=NOW + 5)
    assert reuse(found, NOTHING_ASKED, NOW + 5) is Reuse.REVALIDATE_BEHIND
    assert reuse(found, NOTHING_ASKED, NOW + 15) is Reuse.VALIDATE
    assert may_serve_on_error(found, NOTHING_ASKED, NOW + 24)
    assert not may_serve_on_error(found, NOTHING_ASKED, NOW + 25)


@pytest.mark.parametrize(
    ("value", "wants", "after", "may"),
    [
        (b"max-age=60", NOTHING_ASKED, 61, False),
        (b"max-age=60, stale-if-error=10", NOTHING_ASKED, 69, True),
        (b"max-age=60, stale-if-error=10", NOTHING_ASKED, 70, False),
        (b"max-age=60, stale-if-error=10", Asked(stale_if_error=20), 75, True),
        (b"max-age=60", Asked(stale_if_error=20), 75, True),
        (b"max-age=60", Asked(stale_if_error=20), 80, False),
        (b"max-age=60, stale-if-error=10", Asked(stale_if_error=0), 65, True),
        (b"max-age=60, stale-if-error=10", Asked(no_cache=True), 61, False),
        (b"max-age=60, stale-if-error=10", Asked(no_cache=True), 1, False),
        # What is fresh, and was to be validated for the client only.
        (b"max-age=60", Asked(max_age=0), 1, True),
        (b"max-age=60, must-revalidate", Asked(max_age=0), 1, True),
        *[
            (b"max-age=60, stale-if-error=10, " + forbids, Asked(stale_if_error=20), 61, False)
            for forbids in (b"must-revalidate", b"proxy-revalidate", b"s-maxage=60", b"no-cache")
        ],
        (b"max-age=60, no-cache", NOTHING_ASKED, 1, False),
    ],
)
def test_serving_when_the_origin_fails(value, wants, after, may):
    assert may_serve_on_error(fresh(value), wants, NOW + after) is may


def test_the_rules_say_how_long_what_says_nothing_is_served_on_errors():
    found = fresh(b"max-age=60", rules=CacheRules(stale_if_error=30.0))
    assert may_serve_on_error(found, NOTHING_ASKED, NOW + 89)
    assert not may_serve_on_error(found, NOTHING_ASKED, NOW + 90)
