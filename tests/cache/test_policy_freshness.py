"""How long a stored response may be used: RFC 9111 section 4.2, RFC 9213, and the rules."""

import pytest

from tests.cache.support import NOW, head
from twisted_wasmproxy.cache.dates import http_date
from twisted_wasmproxy.cache.policy import current_age, freshness
from twisted_wasmproxy.config.model import CacheConfig, CacheRules

CONFIG = CacheConfig()
DAY = 86400
MAX = 2**31


def cc(value):
    return (b"Cache-Control", value)


def at(name, seconds):
    return (name, http_date(NOW + seconds))


def fresh(*fields, rules=None, config=CONFIG, **attributes):
    return freshness(head(headers=fields, **attributes), CacheRules(**(rules or {})), config)


# Lifetime: section 4.2.1


@pytest.mark.parametrize(
    ("fields", "lifetime"),
    [
        ([cc(b"max-age=60")], 60),
        ([cc(b"max-age=60, s-maxage=30")], 30),
        ([cc(b"s-maxage=90"), cc(b"max-age=60")], 90),
        ([cc(b"max-age=0, s-maxage=90"), at(b"Expires", -10)], 90),
        ([cc(b"max-age=60"), at(b"Expires", -7200), at(b"Date", 0)], 60),
        ([cc(b"max-age=60"), (b"Expires", b"0")], 60),
        ([cc(b"max-age=0"), at(b"Expires", 7200)], 0),
        ([cc(b"max-age=x"), at(b"Expires", 7200)], 0),
        ([cc(b"s-maxage=x, max-age=60")], 0),
        ([cc(b"max-age=2147483648")], MAX),
        ([cc(b"max-age=99999999999")], MAX),
        # Expires less Date, by whatever clock both are.
        ([at(b"Expires", 7200), at(b"Date", 0)], 7200),
        ([at(b"Expires", 300), at(b"Date", 400)], 0),
        ([at(b"Expires", 20), at(b"Date", 10)], 10),
        ([at(b"Expires", 10), at(b"Date", -10)], 20),
        ([at(b"Expires", 10)], 10),
        ([at(b"Expires", 10), (b"Date", b"foo")], 10),
        ([at(b"Expires", 0), at(b"Date", 0)], 0),
        ([(b"Expires", b"0"), at(b"Date", -10)], 0),
        ([(b"Expires", b"-1")], 0),
        ([(b"Expires", b"")], 0),
        ([(b"Expires", http_date(NOW + 60)[:-3] + b"UTC")], 0),
        ([at(b"Expires", 60), at(b"Expires", 60)], 60),
        ([at(b"Expires", 60), at(b"Expires", 90)], 0),
        ([at(b"Expires", 60), (b"Expires", b"0")], 0),
        # An invalid Expires leaves no room for heuristics.
        ([(b"Expires", b"0"), at(b"Last-Modified", -10 * DAY)], 0),
        ([], 0),
    ],
)
def test_lifetime(fields, lifetime):
    assert fresh(*fields).lifetime == lifetime


@pytest.mark.parametrize(
    ("status", "fields", "lifetime"),
    [
        (200, [at(b"Last-Modified", -1000)], 100),
        (200, [at(b"Last-Modified", -1000), at(b"Date", 500)], 150),
        (200, [at(b"Last-Modified", -1000), (b"Date", b"x")], 100),
        (200, [at(b"Last-Modified", -100 * DAY)], DAY),
        (200, [at(b"Last-Modified", 1000)], 0),
        (200, [(b"Last-Modified", b"yesterday")], 0),
        (404, [at(b"Last-Modified", -1000)], 100),
        (302, [at(b"Last-Modified", -1000)], 0),
        (302, [at(b"Last-Modified", -1000), cc(b"public")], 100),
        (599, [at(b"Last-Modified", -1000), cc(b"public")], 100),
    ],
)
def test_heuristic_lifetime(status, fields, lifetime):
    assert fresh(*fields, status=status).lifetime == lifetime


def test_heuristics_are_as_the_rules_say():
    fields = [at(b"Last-Modified", -1000)]
    assert fresh(*fields, rules={"heuristic_fraction": 0.5}).lifetime == 500
    assert fresh(*fields, rules={"heuristic_fraction": 0.5, "heuristic_max": 7.0}).lifetime == 7
    assert fresh(*fields, rules={"default_ttl": 5.0}).lifetime == 5
    assert fresh(rules={"default_ttl": 5.0}).lifetime == 5
    assert fresh(cc(b"max-age=60"), rules={"default_ttl": 5.0}).lifetime == 60
    assert fresh(status=302, rules={"default_ttl": 5.0}).lifetime == 0


@pytest.mark.parametrize(
    ("status", "value", "rules", "lifetime"),
    [
        (200, b"max-age=60", {"ttl": 5.0}, 5),
        (200, b"x", {"ttl": 5.0}, 5),
        (503, b"x", {"ttl": 5.0}, 0),
        (503, b"max-age=60", {"ttl": 5.0}, 5),
        (200, b"max-age=60", {"min_ttl": 90.0}, 90),
        (200, b"x", {"min_ttl": 90.0}, 90),
        (503, b"x", {"min_ttl": 90.0}, 0),
        (200, b"max-age=60, no-cache", {"min_ttl": 90.0}, 60),
        (200, b"max-age=60", {"max_ttl": 30.0}, 30),
        (200, b"max-age=60", {"max_ttl": 0.0}, 0),
        (200, b"max-age=1", {"min_ttl": 5.0, "max_ttl": 30.0}, 5),
        (200, b"max-age=60", {"directives": "ignore"}, 0),
        (200, b"max-age=60", {"directives": "ignore", "ttl": 5.0}, 5),
        (200, b"max-age=60", {"directives": "ignore", "default_ttl": 6.0}, 6),
        (404, b"x", {"negative": ((404, 7.0),)}, 7),
        (404, b"max-age=60", {"negative": ((404, 7.0),)}, 60),
        (404, b"x", {"negative": ((404, 7.0),), "ttl": 90.0}, 7),
        (503, b"x", {"negative": ((404, 7.0), (503, 8.0))}, 8),
        (503, b"max-age=60", {"negative": ((503, 8.0),), "directives": "ignore"}, 8),
    ],
)
def test_lifetime_by_the_rules(status, value, rules, lifetime):
    assert fresh(cc(value), status=status, rules=rules).lifetime == lifetime


# Age: section 4.2.3


@pytest.mark.parametrize(
    ("fields", "attributes", "age"),
    [
        ([], {}, 0),
        ([], {"request_time": NOW - 3}, 3),
        ([], {"request_time": NOW + 3}, 0),
        ([(b"Age", b"30")], {}, 30),
        ([(b"Age", b"30")], {"request_time": NOW - 3}, 33),
        ([at(b"Date", -10)], {}, 10),
        ([at(b"Date", -10), (b"Age", b"8")], {"request_time": NOW - 3}, 11),
        ([at(b"Date", -10), (b"Age", b"6")], {"request_time": NOW - 3}, 10),
        ([at(b"Date", 10)], {}, 0),
        ([(b"Date", b"x")], {}, 0),
        ([(b"Age", b"7200, 0")], {}, 7200),
        ([(b"Age", b"0,7200")], {}, 0),
        ([(b"Age", b"7200"), (b"Age", b"0")], {}, 7200),
        ([(b"Age", b"0"), (b"Age", b"7200")], {}, 0),
        *[([(b"Age", value)], {}, 0) for value in (b"x", b"-7200", b"7200.0", b"7200;foo=111", b"")],
        ([(b"Age", b"2147483647")], {}, MAX - 1),
        ([(b"Age", b"2147483648")], {}, MAX),
        ([(b"Age", b"99999999999")], {}, MAX),
    ],
)
def test_initial_age(fields, attributes, age):
    found = fresh(cc(b"max-age=60"), *fields, **attributes)
    assert found.initial_age == age
    assert found.fresh_until == NOW - age + 60
    assert current_age(found, NOW) == age
    assert current_age(found, NOW + 5) == age + 5
    assert current_age(found, NOW - 5) == age


def test_a_soft_purge_ends_freshness():
    assert fresh(cc(b"max-age=60"), purged=NOW + 5).fresh_until == NOW + 5
    assert fresh(cc(b"max-age=60"), purged=NOW + 90).fresh_until == NOW + 60


# What else follows


@pytest.mark.parametrize(
    ("fields", "must_validate"),
    [
        ([cc(b"no-cache")], True),
        ([cc(b"No-CaChE, max-age=5")], True),
        ([cc(b'no-cache="a"')], False),
        ([cc(b'no-cache=""')], True),
        ([cc(b'no-cache="a", no-cache')], True),
        ([(b"Vary", b"*")], True),
        ([(b"Vary", b"a, *")], True),
        ([(b"Vary", b"a")], False),
        ([(b"Pragma", b"no-cache")], False),
        ([(b"CDN-Cache-Control", b"no-cache"), cc(b"max-age=60")], True),
        ([(b"CDN-Cache-Control", b"max-age=60"), cc(b"no-cache")], False),
    ],
)
def test_what_must_be_validated_each_time(fields, must_validate):
    assert fresh(*fields).must_validate is must_validate


@pytest.mark.parametrize(
    ("value", "never"),
    [
        (b"must-revalidate", True),
        (b"proxy-revalidate", True),
        (b"s-maxage=2", True),
        (b"s-maxage=x", True),
        (b"Must-Revalidate=1", True),
        (b"stale-if-error=9, s-maxage=2", True),
        (b"max-age=2", False),
    ],
)
def test_what_is_never_served_stale(value, never):
    found = fresh(cc(value), rules={"stale_while_revalidate": 5.0})
    assert found.never_stale is never
    assert (found.stale_if_error, found.stale_while_revalidate) == ((0, 0) if never else (DAY, 5))
    assert not fresh(cc(value), rules={"directives": "ignore"}).never_stale


@pytest.mark.parametrize(
    ("value", "behind", "on_error"),
    [
        (b"max-age=1", 3, 4),
        (b"max-age=1, stale-while-revalidate=10", 10, 4),
        (b"max-age=1, stale-if-error=20", 3, 20),
        (b"max-age=1, stale-while-revalidate=0, stale-if-error=0", 0, 0),
        (b"max-age=1, stale-while-revalidate=x, stale-if-error=-1", 0, 0),
        (b"max-age=1, stale-while-revalidate, stale-if-error", 0, 0),
        (b"no-cache, stale-while-revalidate=10, stale-if-error=20", 0, 0),
        (b"must-revalidate, stale-while-revalidate=10, stale-if-error=20", 0, 0),
        # RFC 9111 section 5.2.2.10 against RFC 5861: the more restrictive one.
        (b"s-maxage=1, stale-while-revalidate=10, stale-if-error=20", 0, 0),
    ],
)
def test_windows_of_what_is_stale(value, behind, on_error):
    rules = {"stale_while_revalidate": 3.0, "stale_if_error": 4.0}
    found = fresh(cc(value), rules=rules)
    assert (found.stale_while_revalidate, found.stale_if_error) == (behind, on_error)
    found = fresh(cc(value), rules={**rules, "directives": "ignore"})
    assert (found.stale_while_revalidate, found.stale_if_error) == (3, 4)


@pytest.mark.parametrize(
    ("fields", "immutable"),
    [
        ([cc(b"immutable, max-age=5")], True),
        ([cc(b"immutable=x, max-age=5")], True),
        ([cc(b"immutable"), at(b"Expires", 5)], True),
        ([cc(b"immutable"), at(b"Last-Modified", -1000)], False),
        ([cc(b"immutable")], False),
        ([cc(b"max-age=5")], False),
    ],
)
def test_what_is_immutable_has_an_explicit_lifetime(fields, immutable):
    assert fresh(*fields).immutable is immutable


# RFC 9213


@pytest.mark.parametrize(
    ("targeted", "lifetime"),
    [
        (b"max-age=3600", 3600),
        (b"max-age=2147483648", MAX),
        (b"max-age=99999999999", MAX),
        (b"max-age=0", 0),
        (b"max-age=-5", 0),
        (b"foobar, max-age=3600", 3600),
        (b"max-age=3600;x=1", 3600),
        (b"foo", 0),
        # Not valid, and so not there.
        (b"MaX-aGe=3600", 10),
        (b"max-age =100", 10),
        (b"max-age= 100", 10),
        (b'max-age="3600"', 10),
        (b"", 10),
    ],
)
def test_a_targeted_field_puts_cache_control_and_expires_out_of_force(targeted, lifetime):
    fields = [(b"CDN-Cache-Control", targeted)]
    assert fresh(*fields, cc(b"max-age=10")).lifetime == lifetime
    assert fresh(*fields, at(b"Expires", 10)).lifetime == lifetime
    assert fresh(*fields, cc(b"max-age=10"), config=CacheConfig(targeted=())).lifetime == 10


def test_targeted_fields_count_in_the_order_of_the_configuration():
    fields = [(b"CDN-Cache-Control", b"max-age=1"), (b"Our-Cache-Control", b"max-age=2")]
    assert fresh(*fields, config=CacheConfig(targeted=("Our-Cache-Control", "CDN-Cache-Control"))).lifetime == 2
    assert fresh(*fields, config=CacheConfig(targeted=("CDN-Cache-Control", "Our-Cache-Control"))).lifetime == 1
