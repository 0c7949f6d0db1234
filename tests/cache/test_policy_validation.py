"""Validation, freshening and invalidation: RFC 9111 sections 3.2, 4.3 and 4.4."""

import pytest

from tests.cache.support import NOW, head, request
from twisted_wasmproxy.cache.dates import http_date
from twisted_wasmproxy.cache.policy import (
    NOTHING_ASKED,
    Reuse,
    freshened,
    freshness,
    head_update,
    invalidated,
    reuse,
    same_representation,
    selects,
    validators,
)
from twisted_wasmproxy.config.model import CacheConfig, CacheRules
from twisted_wasmproxy.http.headers import Headers
from twisted_wasmproxy.http.messages import Response

CONFIG = CacheConfig()
RULES = CacheRules()
ONE = b"Sun, 06 Nov 1994 08:49:37 GMT"
SAME = b"Sunday, 06-Nov-94 08:49:37 GMT"
OTHER = b"Mon, 07 Nov 1994 08:49:37 GMT"


def stored(*fields, **attributes):
    return head(headers=fields, **attributes)


def answer(status, *fields):
    return Response(status, Headers(fields))


def etag(value):
    return (b"ETag", value)


def modified(value):
    return (b"Last-Modified", value)


# Validators: section 4.3.1


@pytest.mark.parametrize(
    ("fields", "lines"),
    [
        ([], []),
        ([etag(b'"a"')], [(b"If-None-Match", b'"a"')]),
        ([etag(b'W/"a"')], [(b"If-None-Match", b'W/"a"')]),
        ([etag(b'""')], [(b"If-None-Match", b'""')]),
        ([etag(b'"\xfc"')], [(b"If-None-Match", b'"\xfc"')]),
        ([modified(ONE)], [(b"If-Modified-Since", ONE)]),
        ([modified(SAME), etag(b'"a"')], [(b"If-None-Match", b'"a"'), (b"If-Modified-Since", SAME)]),
        ([modified(b"yesterday")], []),
        *[([etag(value)], []) for value in (b"a", b'"a', b'w/"a"', b'W"a"', b'"', b'"a"b"', b'"a b"', b'"a\x7f"', b"")],
        ([etag(b'"a"'), etag(b'"a"')], [(b"If-None-Match", b'"a"')]),
        ([etag(b'"a"'), etag(b'"b"')], []),
    ],
)
def test_validators(fields, lines):
    assert validators(stored(*fields)) == lines


# Which response a 304 is about: section 4.3.4


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        ([etag(b'"a"')], [etag(b'"a"')], True),
        ([etag(b'"a"')], [etag(b'"b"')], False),
        ([etag(b'"a"'), modified(ONE)], [etag(b'"b"'), modified(ONE)], False),
        ([etag(b'W/"a"')], [etag(b'W/"a"')], True),
        ([etag(b'W/"a"')], [etag(b'W/"b"')], False),
        ([etag(b'"a"')], [etag(b'W/"a"')], True),
        # A strong validator must be that of the stored response.
        ([etag(b'W/"a"')], [etag(b'"a"')], False),
        ([modified(ONE)], [etag(b'"a"')], False),
        ([modified(ONE)], [etag(b'W/"a"'), modified(ONE)], True),
        ([modified(ONE)], [etag(b'W/"a"')], False),
        ([modified(ONE)], [modified(ONE)], True),
        ([modified(ONE)], [modified(SAME)], True),
        ([modified(ONE)], [modified(OTHER)], False),
        ([etag(b'"a"'), modified(ONE)], [modified(ONE)], True),
        ([etag(b'"a"')], [modified(ONE)], False),
        ([etag(b'"a"')], [], True),
        ([modified(ONE)], [], True),
        ([modified(ONE)], [modified(b"x")], True),
        ([], [], True),
    ],
)
def test_which_response_a_304_is_about(before, after, same):
    assert same_representation(stored(*before), answer(304, *after)) is same


# Freshening: section 3.2


def updated(before, *after, rules=RULES, **attributes):
    return freshened(stored(*before, **attributes), answer(304, *after), NOW + 99, NOW + 100, rules, CONFIG)


@pytest.mark.parametrize(
    "name",
    [
        *(b"Test-Header", b"X-Test-Header", b"Content-Foo", b"X-Content-Foo", b"Cache-Control", b"Content-Location"),
        *(
            b"Content-Security-Policy",
            b"Content-Type",
            b"Clear-Site-Data",
            b"Expires",
            b"Set-Cookie2",
            b"X-Frame-Options",
        ),
        b"Last-Modified",
    ],
)
def test_a_304_replaces_the_fields_that_it_has(name):
    found = updated([(name, b"a"), (b"Other", b"x"), (name, b"b")], (name.upper(), b"c"), (name, b"d"))
    assert found.headers.get_all(name) == [b"c", b"d"]
    assert found.headers.get(b"other") == b"x"


@pytest.mark.parametrize("name", [b"Content-Length", b"Content-Encoding", b"Content-Range", b"Content-MD5", b"ETag"])
def test_a_304_does_not_change_what_is_said_of_the_stored_content(name):
    assert updated([(name, b"a")], (name, b"b")).headers.get_all(name) == [b"a"]
    assert (name in updated([], (name, b"b")).headers) is (name == b"ETag")


def test_a_304_brings_no_fields_that_are_not_stored():
    found = updated(
        [(b"A", b"1"), (b"B", b"1")],
        (b"Connection", b"x"),
        (b"Set-Cookie", b"a=b"),
        (b"Cache-Control", b'no-cache="a"'),
        (b"A", b"2"),
    )
    assert [key for key, _, _ in found.headers.lines] == [b"b", b"cache-control", b"date"]


def test_a_304_may_name_fields_that_were_stored():
    assert b"a" not in updated([(b"A", b"1")], (b"Cache-Control", b'private="a"')).headers


def test_cookies_in_a_304_are_as_the_rules_say():
    cookies = [(b"Set-Cookie", b"a=c")]
    assert updated([(b"Set-Cookie", b"a=b")], *cookies, rules=CacheRules(set_cookie="store")).headers.get_all(
        b"set-cookie"
    ) == [b"a=c"]
    assert b"set-cookie" not in updated([], *cookies).headers


def test_a_304_makes_the_response_as_young_as_it_is_itself():
    before = [(b"Cache-Control", b"max-age=60"), (b"Date", http_date(NOW - 50)), (b"Age", b"50"), etag(b'"a"')]
    found = updated(before, purged=NOW + 1)
    assert (found.request_time, found.response_time, found.purged) == (NOW + 99, NOW + 100, 0)
    assert found.headers.get_all(b"date") == [http_date(NOW + 100)]
    assert b"age" not in found.headers
    assert reuse(freshness(found, RULES, CONFIG), NOTHING_ASKED, NOW + 158) is Reuse.FRESH
    found = updated(before, (b"Date", http_date(NOW + 95)), (b"Age", b"7"))
    assert found.headers.get_all(b"date") == [http_date(NOW + 95)]
    assert freshness(found, RULES, CONFIG).initial_age == 8


def test_a_304_changes_nothing_else():
    before = stored(
        etag(b'"a"'), authorized=True, length=5, trailers=Headers([(b"T", b"x")]), status=203, vary=((b"a", None),)
    )
    found = freshened(before, answer(304, etag(b'"a"')), NOW, NOW, RULES, CONFIG)
    for name in ("key", "url", "status", "reason", "authorized", "length", "trailers", "vary", "version"):
        assert getattr(found, name) == getattr(before, name)
    assert list(before.headers) == [etag(b'"a"')]


def test_a_304_that_forbids_storing_makes_the_response_be_validated():
    for value in (b"no-store", b"private", b"no-cache"):
        found = updated([(b"Cache-Control", b"max-age=60")], (b"Cache-Control", value + b", max-age=60"))
        assert freshness(found, RULES, CONFIG).must_validate


def test_a_304_with_surrogate_keys_changes_them():
    before = [(b"Cache-Control", b"max-age=60")]
    assert updated(before, surrogate_keys=(b"a",)).surrogate_keys == (b"a",)
    assert updated(before, (b"Surrogate-Key", b"b c"), surrogate_keys=(b"a",)).surrogate_keys == (b"b", b"c")


def test_a_304_that_varies_by_more_is_not_selected_again():
    before = {"vary": ((b"foo", b"1"),)}
    asks = Headers([(b"Foo", b"1")])
    found = updated([(b"Vary", b"Foo")], (b"Vary", b"Foo"), **before)
    assert selects(found, asks)
    found = updated([(b"Vary", b"Foo")], (b"Vary", b"Bar"), **before)
    assert not selects(found, asks)
    assert not selects(found, Headers([(b"Foo", b"1"), (b"Bar", b"1")]))
    assert not selects(updated([(b"Vary", b"Foo")], (b"Vary", b""), **before), Headers())
    assert freshness(updated([(b"Vary", b"Foo")], (b"Vary", b"*"), **before), RULES, CONFIG).must_validate


# HEAD: section 4.3.5


@pytest.mark.parametrize(
    ("before", "length", "after", "same"),
    [
        ([], 5, [], True),
        ([etag(b'"a"'), modified(ONE)], 5, [], True),
        ([etag(b'"a"')], 5, [etag(b'"a"')], True),
        ([etag(b'"a"')], 5, [etag(b'"b"')], False),
        ([etag(b'"a"')], 5, [etag(b'W/"a"')], False),
        ([], 5, [etag(b'"a"')], False),
        ([modified(ONE)], 5, [modified(ONE)], True),
        ([modified(ONE)], 5, [modified(OTHER)], False),
        ([], 5, [(b"Content-Length", b"5")], True),
        ([], 5, [(b"Content-Length", b"6")], False),
        ([], 5, [(b"Content-Length", b"5"), (b"Content-Length", b"6")], False),
        ([], 5, [(b"Content-Length", b"+5")], False),
        ([], 5, [(b"Content-Length", b"9" * 10000)], False),
        ([], None, [(b"Content-Length", b"5")], False),
        ([(b"Content-Length", b"5")], None, [(b"Content-Length", b"5")], True),
    ],
)
def test_head_updates(before, length, after, same):
    assert head_update(stored(*before, length=length), answer(200, *after)) is same


# Invalidation: section 4.4

HERE = b"http://h/a/b?c"


def dead(*fields, method=b"POST", status=200, url=HERE):
    return invalidated(request(url, method=method), url, answer(status, *fields))


@pytest.mark.parametrize("method", [b"POST", b"PUT", b"DELETE", b"PATCH", b"M-SEARCH", b"PURGE", b"get", b"Unknown"])
def test_methods_that_may_change_something_invalidate(method):
    assert dead(method=method) == [HERE]


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PROPFIND", b"SEARCH"])
def test_safe_methods_do_not_invalidate(method):
    assert dead((b"Location", b"x"), method=method) == []


@pytest.mark.parametrize(
    ("status", "invalid"), [(200, 1), (204, 1), (299, 1), (303, 1), (399, 1), (400, 0), (500, 0), (101, 0)]
)
def test_errors_do_not_invalidate(status, invalid):
    assert len(dead(status=status)) == invalid


@pytest.mark.parametrize(
    ("reference", "uri"),
    [
        (b"http://h/x", b"http://h/x"),
        (b"HTTP://H:80/x?y#z", b"http://h/x?y"),
        (b"/x", b"http://h/x"),
        (b"x", b"http://h/a/x"),
        (b"../x", b"http://h/x"),
        (b"?x", b"http://h/a/b?x"),
        (b"//h/x", b"http://h/x"),
        (b"/\xe4", b"http://h/\xe4"),
        (b"http://h", b"http://h/"),
        (b"", None),
        (b"#x", None),
        (b"http://other/x", None),
        (b"https://h/x", None),
        (b"http://h:81/x", None),
        (b"//other/x", None),
        (b"mailto:h", None),
        (b"http://[h/x", None),
        (b"http://h:x/", None),
    ],
)
def test_location_and_content_location_of_the_same_origin_are_invalidated(reference, uri):
    expected = [HERE] if uri is None else [HERE, uri]
    assert dead((b"Location", reference)) == expected
    assert dead((b"content-location", reference)) == expected


def test_each_is_named_once():
    assert dead((b"Location", b"/x"), (b"Content-Location", b"/x"), (b"Content-Location", b"/y")) == [
        HERE,
        b"http://h/x",
        b"http://h/y",
    ]
