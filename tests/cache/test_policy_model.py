"""The rules against a small model, written down from RFC 9111 section 4.2, and against bytes of any kind."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.cache.support import NOW, head, request
from twisted_wasmproxy.cache.dates import http_date, parse_http_date
from twisted_wasmproxy.cache.policy import (
    Asked,
    Reuse,
    asked,
    current_age,
    freshened,
    freshness,
    head_update,
    invalidated,
    may_serve_on_error,
    reuse,
    same_representation,
    selecting,
    selects,
    stored_headers,
    surrogate_keys,
    validators,
    vary_names,
    why_not_store,
)
from twisted_wasmproxy.config.model import CacheConfig, CacheRules
from twisted_wasmproxy.http.headers import Headers
from twisted_wasmproxy.http.messages import Response

CONFIG = CacheConfig()
# An eighth: all times here are exact as floats.
RULES = CacheRules(stale_while_revalidate=7.0, stale_if_error=50.0, heuristic_fraction=0.125)
INVALID = "invalid"

# Few values and close together, so that every order of them comes up.
small = st.integers(0, 120)
seconds = st.none() | small | st.just(INVALID)
offset = st.none() | st.integers(-120, 120)


@dataclass(frozen=True)
class Case:
    """A stored response and a request, by what they mean; times are relative to when the response came."""

    status: int
    max_age: int | str | None
    s_maxage: int | str | None
    swr: int | str | None
    sie: int | str | None
    flags: frozenset[str]
    expires: int | str | None
    date: int | None
    age: int | str | None
    last_modified: int | None
    delay: int
    purged: int | None
    wants: Asked
    after: int

    def headers(self):
        directives = sorted(self.flags)
        for name in ("max_age", "s_maxage", "swr", "sie"):
            value = getattr(self, name)
            if value is not None:
                spelled = {"max_age": "Max-Age", "s_maxage": "s-maxage", "swr": "stale-while-revalidate"}.get(
                    name, "stale-if-error"
                )
                directives.append(f"{spelled}={'1.5' if value == INVALID else value}")
        fields = [(b"Cache-Control", directive.encode()) for directive in directives]
        if self.age is not None:
            fields.append((b"Age", b"old" if self.age == INVALID else b"%d" % self.age))
        for name, value in ((b"Expires", self.expires), (b"Date", self.date), (b"Last-Modified", self.last_modified)):
            if value is not None:
                fields.append((name, b"0" if value == INVALID else http_date(NOW + value)))
        return fields


cases = st.builds(
    Case,
    status=st.sampled_from([200, 404, 302, 503, 599]),
    max_age=seconds,
    s_maxage=st.none() | st.none() | seconds,
    swr=st.none() | seconds,
    sie=st.none() | seconds,
    flags=st.frozensets(
        st.sampled_from(["no-cache", "must-revalidate", "proxy-revalidate", "public", "immutable", 'no-cache="x"']),
        max_size=2,
    ),
    expires=st.none() | offset | st.just(INVALID),
    date=offset,
    age=seconds,
    last_modified=st.none() | st.integers(-1200, 20),
    delay=st.integers(0, 5),
    purged=st.none() | st.none() | st.integers(1, 120),
    wants=st.just(Asked())
    | st.builds(
        Asked,
        no_cache=st.booleans(),
        max_age=st.none() | small,
        min_fresh=st.just(0) | small,
        max_stale=st.none() | small | st.just(float("inf")),
        stale_if_error=st.none() | small,
    ),
    after=st.integers(0, 240),
)


def lifetime(case):
    """Section 4.2.1, with 5.2.2, 5.3 and 4.2.2."""
    explicit = [value for value in (case.s_maxage, case.max_age) if value is not None]
    if explicit:
        return 0 if explicit[0] == INVALID else explicit[0]
    date_value = 0 if case.date is None else case.date
    if case.expires == INVALID:
        return 0
    if case.expires is not None:
        return max(0, case.expires - date_value)
    if case.last_modified is not None and (case.status in (200, 404) or "public" in case.flags):
        return min(86400, max(0, (date_value - case.last_modified) / 8))
    return 0


def age(case):
    """Section 4.2.3, at `after`."""
    age_value = case.age if isinstance(case.age, int) else 0
    apparent_age = max(0, -case.date) if case.date is not None else 0
    corrected_age_value = age_value + case.delay
    return max(apparent_age, corrected_age_value) + case.after


def stale_for(case):
    """How long it has not been fresh, or None if it is."""
    since = [age(case) - lifetime(case)]
    if case.purged is not None:
        since.append(case.after - case.purged)
    worst = max(since)
    return None if worst < 0 else worst


def never_stale(case):
    """Sections 4.2.4, 5.2.2.2, 5.2.2.8 and 5.2.2.10."""
    return bool(case.flags & {"must-revalidate", "proxy-revalidate"}) or case.s_maxage is not None


def window(case, said, default):
    if never_stale(case):
        return 0
    return default if said is None else 0 if said == INVALID else said


def served_unvalidated(case):
    """Sections 4 and 5.2.1: how it may be served at once; None: not at all."""
    wants, old, stale = case.wants, age(case), stale_for(case)
    if "no-cache" in case.flags:
        return None
    explicit = any(value is not None for value in (case.max_age, case.s_maxage, case.expires))
    reload_matters = not ("immutable" in case.flags and explicit and stale is None)
    if reload_matters and (wants.no_cache or (wants.max_age is not None and old > wants.max_age)):
        return None
    if stale is None:
        left = lifetime(case) - old
        if case.purged is not None:
            left = min(left, case.purged - case.after)
        return Reuse.FRESH if left >= wants.min_fresh else None
    if never_stale(case) or wants.min_fresh > 0 or (wants.max_age is not None and wants.max_stale is None):
        return None
    if stale < window(case, case.swr, 7):
        return Reuse.REVALIDATE_BEHIND
    if wants.max_stale is not None and stale <= wants.max_stale:
        return Reuse.STALE
    return None


def served_on_error(case):
    """Section 4.2.4 and RFC 5861 section 4."""
    if "no-cache" in case.flags or case.wants.no_cache:
        return False
    stale = stale_for(case)
    if stale is None:
        return True
    by_request = 0 if never_stale(case) else case.wants.stale_if_error or 0
    return stale < max(window(case, case.sie, 50), by_request)


@settings(max_examples=1500, deadline=None)
@given(cases)
def test_the_rules_and_the_model_agree(case):
    one = head(
        headers=case.headers(),
        status=case.status,
        request_time=NOW - case.delay,
        purged=0.0 if case.purged is None else NOW + case.purged,
    )
    fresh = freshness(one, RULES, CONFIG)
    assume(case.purged is None or case.purged <= case.after)
    now = NOW + case.after
    assert fresh.lifetime == lifetime(case)
    assert current_age(fresh, now) == age(case)
    found = reuse(fresh, case.wants, now)
    assert (None if found in (Reuse.VALIDATE, Reuse.VALIDATE_FOR_CLIENT) else found) is served_unvalidated(case)
    if found is Reuse.VALIDATE_FOR_CLIENT:
        assert stale_for(case) is None
    assert may_serve_on_error(fresh, case.wants, now) is served_on_error(case)


# Bytes of any kind

NAMES = [
    *(
        b"Cache-Control",
        b"CDN-Cache-Control",
        b"Expires",
        b"Date",
        b"Age",
        b"Last-Modified",
        b"ETag",
        b"Vary",
        b"Pragma",
    ),
    *(b"Content-Length", b"Content-Range", b"Content-Location", b"Location", b"Set-Cookie", b"Surrogate-Key"),
    *(b"Content-Type", b"Accept", b"Accept-Encoding", b"Foo"),
]
WORDS = [
    *(b"max-age", b"s-maxage", b"no-cache", b"private", b"no-store", b"public", b"must-understand", b"immutable", b"="),
    *(
        b'"',
        b"\\",
        b",",
        b" ",
        b";",
        b"60",
        b"99999999999999999999",
        b"-1",
        b"?1",
        b"*",
        b'"a"',
        b"W/",
        b"\x00",
        b"\xff",
    ),
    *(
        http_date(NOW),
        http_date(NOW + 500),
        b"GMT",
        b"http://h/",
        b"//[",
        b"bytes 0-4/10",
        b"stale-if-error=5",
        b"q=0.5",
    ),
]
anything = st.binary(max_size=20) | st.lists(st.sampled_from(WORDS), max_size=8).map(b"".join)
fields = st.lists(st.tuples(st.sampled_from(NAMES), anything), max_size=6)


@settings(max_examples=600, deadline=None)
@given(
    fields,
    fields,
    fields,
    st.sampled_from([b"GET", b"POST", b"PUT", b"HEAD"]),
    st.integers(100, 999) | st.sampled_from([200, 206]),
    st.sampled_from([RULES, CacheRules(directives="ignore", ttl=5.0), CacheRules(set_cookie="store")]),
)
def test_nothing_that_a_peer_sends_raises(asking, first, second, method, status, rules):
    ask = request(b"http://h/", asking, method)
    response = Response(status, Headers(first))
    wants = asked(ask.headers, rules)
    why_not_store(ask, response, wants, rules, CONFIG)
    names = vary_names(response.headers) or ()
    one = head(
        headers=stored_headers(response, rules, CONFIG, NOW),
        status=status,
        vary=selecting(names, ask.headers),
        surrogate_keys=surrogate_keys(response, rules, CONFIG),
    )
    assert selects(one, ask.headers)
    answer = Response(304, Headers(second))
    for stored in (one, freshened(one, answer, NOW, NOW, rules, CONFIG)):
        fresh = freshness(stored, rules, CONFIG)
        assert 0 <= fresh.lifetime <= max(2**31, (parse_http_date(stored.headers.get(b"expires") or b"") or 0))
        reuse(fresh, wants, NOW)
        may_serve_on_error(fresh, wants, NOW)
        validators(stored)
        assert parse_http_date(stored.headers.get(b"date")) is not None
    same_representation(one, answer)
    head_update(one, answer)
    for uri in invalidated(ask, b"http://h/", response):
        assert uri.startswith(b"http://h")


edit = st.tuples(
    st.integers(0, 60), st.integers(0, 2), st.integers(0, 255).filter(lambda octet: not 0x30 <= octet <= 0x39)
)
edits = st.lists(edit, max_size=3)


def broken(value, changes):
    """Return the value with octets, which are no digits, put in, replaced, or taken out."""
    data = bytearray(value)
    for position, kind, octet in changes:
        at = position % (len(data) + 1)
        data[at : at + (kind > 0)] = bytes([octet]) if kind < 2 else b""
    return bytes(data)


@given(edit)
def test_what_is_quoted_does_not_count_for_one_octet_out_of_place(change):
    value = broken(b'extension="max-age=3600", max-age=60, x', [change])
    assert freshness(head(headers=[(b"Cache-Control", value)]), RULES, CONFIG).lifetime <= 60


@given(edits, st.sampled_from([b"max-age=60", b"public, max-age=60", b's-maxage="60"']))
def test_a_broken_lifetime_is_never_longer(changes, value):
    found = freshness(head(headers=[(b"Cache-Control", broken(value, changes))]), RULES, CONFIG)
    assert found.lifetime <= 60


@given(anything, anything)
def test_what_follows_a_lifetime_never_makes_it_longer(before, after):
    if b"s-maxage" in after.lower():
        return
    value = [(b"Cache-Control", b"max-age=60"), (b"Cache-Control", after), (b"Expires", before)]
    assert freshness(head(headers=value), RULES, CONFIG).lifetime in (0, 60)


@given(anything)
def test_an_expires_that_is_no_date_is_in_the_past(value):
    for fields in ([(b"Expires", value)], [(b"Expires", http_date(NOW + 60)), (b"Expires", value)]):
        lifetime = freshness(head(headers=[*fields, (b"Last-Modified", http_date(NOW - 900))]), RULES, CONFIG).lifetime
        assert lifetime == 0 or parse_http_date(value, NOW) is not None
