"""What may be stored, and what of it: RFC 9111 section 3."""

import dataclasses

import pytest

from tests.cache.support import NOW, head, request
from twisted_wasmproxy.cache.dates import http_date, parse_http_date
from twisted_wasmproxy.cache.policy import (
    NOTHING_ASKED,
    Asked,
    asked,
    freshness,
    stored_headers,
    surrogate_keys,
    why_not_store,
)
from twisted_wasmproxy.config.model import CacheConfig, CacheKeyConfig, CacheRules
from twisted_wasmproxy.http.headers import Headers
from twisted_wasmproxy.http.messages import Response

CONFIG = CacheConfig()
RULES = CacheRules()
LAST_MODIFIED = (b"Last-Modified", b"Sun, 06 Nov 1994 08:49:37 GMT")
ETAG = (b"ETag", b'"a"')
COOKIE = (b"Set-Cookie", b"a=b")
UNDERSTOOD = (*range(200, 207), *range(300, 304), 305, 307, 308, *range(400, 407), *range(408, 412), 500, 501, 503, 505)


def cc(value):
    return (b"Cache-Control", value)


def why(status, *fields, request=request(), wants=NOTHING_ASKED, config=CONFIG, **rules):  # noqa: B008  # never changed
    return why_not_store(request, Response(status, Headers(fields)), wants, CacheRules(**rules), config)


def stored(*fields, config=CONFIG, **rules):
    return stored_headers(Response(200, Headers(fields)), CacheRules(**rules), config, NOW)


OLD = [b"%d" % 2**31]

# Statuses


@pytest.mark.parametrize("status", [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501])
def test_statuses_that_need_no_explicit_lifetime(status):
    rules = {"request_error_statuses": ()}
    assert not why(status, LAST_MODIFIED, **rules)
    assert not why(status, ETAG, **rules)
    assert why(status, **rules) == "no lifetime nor validator"


@pytest.mark.parametrize(
    "status", [201, 202, 205, 299, 302, 303, 307, 400, 401, 403, 408, 499, 500, 502, 503, 504, 599, 999]
)
def test_statuses_that_need_an_explicit_lifetime(status):
    rules = {"request_error_statuses": ()}
    assert why(status, LAST_MODIFIED, ETAG, **rules) == "no explicit lifetime"
    assert not why(status, cc(b"max-age=60"), **rules)
    assert not why(status, cc(b"public"), LAST_MODIFIED, **rules)
    assert why(status, cc(b"public=1"), LAST_MODIFIED, **rules)
    assert not why(status, (b"Expires", b"Thu, 18 Aug 2050 02:01:18 GMT"), **rules)


@pytest.mark.parametrize("status", [100, 101, 102, 103, 304, 407, 412, 416, 417])
def test_statuses_that_are_never_stored(status):
    assert why(status, cc(b"max-age=60, public"), ETAG) == "status"


@pytest.mark.parametrize("status", [400, 408, 411, 413, 414, 415, 421, 425, 426, 428, 429, 431, 511])
def test_statuses_that_speak_of_one_request_are_stored_only_where_the_rules_say_so(status):
    assert why(status, cc(b"max-age=60, s-maxage=60, public"), ETAG, LAST_MODIFIED) == "status"
    assert why(status, cc(b"max-age=60"), directives="ignore", ttl=60.0) == "status"
    assert not why(status, cc(b"max-age=60"), request_error_statuses=())
    assert not why(status, cc(b"max-age=60"), negative=((status, 5.0),))
    assert not why(status, negative=((status, 5.0),))


@pytest.mark.parametrize(
    ("fields", "rules", "reason"),
    [
        ([], {}, "Cookie"),
        ([ETAG], {}, "Cookie"),
        ([(b"Vary", b"Accept")], {}, "Cookie"),
        ([cc(b"no-transform")], {}, "Cookie"),
        ([(b"Vary", b"Accept, cookie")], {}, ""),
        ([cc(b"public")], {}, ""),
        ([cc(b"max-age=60")], {}, ""),
        ([(b"Expires", b"Thu, 18 Aug 2050 02:01:18 GMT")], {}, ""),
        ([], {"heuristic_with_cookie": True}, ""),
        ([], {"default_ttl": 5.0}, ""),
        ([], {"ttl": 5.0}, ""),
        ([], {"negative": ((200, 5.0),)}, ""),
        ([], {"key": CacheKeyConfig(cookies=("sid",))}, ""),
        ([], {"key": CacheKeyConfig(headers=("Cookie",))}, ""),
        ([], {"strip_unkeyed": ("COOKIE",)}, ""),
        ([], {"min_ttl": 5.0}, "Cookie"),
    ],
)
def test_heuristics_are_for_requests_without_cookies(fields, rules, reason):
    cookie = request(headers=[(b"Cookie", b"a=b")])
    assert why(200, LAST_MODIFIED, *fields, request=cookie, **rules) == reason
    assert why(200, LAST_MODIFIED, *fields, **rules) == ""
    found = freshness(head(headers=[LAST_MODIFIED, *fields]), CacheRules(**rules), CONFIG)
    assert found.not_for_cookies == (reason == "Cookie")


@pytest.mark.parametrize("status", [299, 499, 599, 999])
def test_must_understand_keeps_out_statuses_that_are_not_known(status):
    assert why(status, cc(b"max-age=60, must-understand")) == "must-understand"
    assert why(status, cc(b"max-age=60, must-understand, no-store")) == "must-understand"


@pytest.mark.parametrize("status", [200, 301, 302, 404, 503])
def test_must_understand_sets_no_store_aside_for_statuses_that_are_known(status):
    assert why(status, cc(b"max-age=60, no-store")) == "no-store"
    assert not why(status, cc(b"max-age=60, no-store, must-understand"))
    assert why(status, cc(b"max-age=60, no-store, must-understand=no")) == "no-store"


# Methods


def test_head_and_other_methods_are_not_stored():
    assert why(200, cc(b"max-age=60"), request=request(method=b"HEAD")) == "HEAD"
    for method in (b"PUT", b"DELETE", b"OPTIONS", b"get", b"M-SEARCH", b"\xff"):
        assert why(200, cc(b"max-age=60"), request=request(method=method)) == "method"
    assert why(200, cc(b"max-age=60"), methods=("HEAD",)) == "method"


@pytest.mark.parametrize(
    ("location", "ok"),
    [
        (b"http://h/a?b", True),
        (b"HTTP://H:80/a?b", True),
        (b"/a?b", True),
        (b"?b", True),
        (b"", True),
        (b"/a", False),
        (b"http://other/a?b", False),
        (b"https://h/a?b", False),
        (b"http://[/a?b", False),
        (None, False),
    ],
)
def test_a_post_is_stored_if_it_says_that_it_is_its_target(location, ok):
    post = request(b"http://h/a?b", method=b"POST")
    fields = [cc(b"max-age=60")] + ([] if location is None else [(b"Content-Location", location)])
    assert why(200, *fields, request=post) == ("" if ok else "POST")


def test_a_post_needs_an_explicit_lifetime():
    location = (b"Content-Location", b"http://h/")
    post = request(method=b"POST")
    assert why(200, location, LAST_MODIFIED, request=post) == "POST"
    assert why(200, location, location, cc(b"max-age=60"), request=post) == "POST"
    assert why(200, location, cc(b"max-age=60"), request=post, methods=("GET", "HEAD")) == "method"


# Directives


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"no-store", "no-store"),
        (b"No-StOrE, max-age=60", "no-store"),
        (b"no-store=1, max-age=60", "no-store"),
        (b"private, max-age=60", "private"),
        (b"max-age=60, private=", "private"),
        (b'max-age=60, private="a b"', "private"),
        (b'max-age=60, private="a"', ""),
        (b'max-age=60, x="', "no-store"),
        (b"max-age=60, no-cache", "no lifetime nor validator"),
        (b"max-age=0", "no lifetime nor validator"),
        (b"max-age=x", "no lifetime nor validator"),
        (b"max-age=0, stale-if-error=60", ""),
        (b"max-age=0, stale-while-revalidate=60", ""),
        (b"s-maxage=60", ""),
        (b"public", "no lifetime nor validator"),
    ],
)
def test_cache_control(value, reason):
    assert why(200, cc(value)) == reason


def test_no_cache_is_stored_where_it_can_be_validated():
    assert not why(200, cc(b"no-cache"), ETAG)
    assert not why(200, cc(b"no-cache, max-age=60"), LAST_MODIFIED)
    assert why(200, cc(b"no-cache"), (b"ETag", b"unquoted"))
    assert why(200, cc(b"no-cache"), (b"Last-Modified", b"yesterday"))


def test_expires_is_an_explicit_lifetime():
    assert not why(503, (b"Expires", b"Thu, 18 Aug 2050 02:01:18 GMT"))
    assert why(200, (b"Expires", b"0")) == "no lifetime nor validator"
    assert not why(200, (b"Expires", b"0"), ETAG)


def test_a_request_with_no_store_leaves_nothing():
    assert why(200, cc(b"max-age=60"), wants=Asked(no_store=True)) == "request no-store"


def test_directives_of_the_origin_can_be_ignored():
    for value in (b"no-store", b"private", b"no-cache"):
        assert why(200, cc(value), ttl=60.0)
        assert not why(200, cc(value), directives="ignore", ttl=60.0)


# Authorization: section 3.5


@pytest.mark.parametrize(
    ("value", "ok"),
    [
        (b"max-age=60", False),
        (b"max-age=60, public", True),
        (b"max-age=60, must-revalidate", True),
        (b"s-maxage=60", True),
        (b"s-maxage=x", False),
        (b"max-age=60, s-maxage", False),
        (b"max-age=60, proxy-revalidate", False),
    ],
)
def test_answers_to_who_has_authorization(value, ok):
    mine = request(headers=[(b"authorization", b"x")])
    assert why(200, cc(value), ETAG, request=mine) == ("" if ok else "Authorization")
    targeted = (b"CDN-Cache-Control", value)
    assert why(200, targeted, cc(b"max-age=60"), ETAG, request=mine) == ("" if ok else "Authorization")
    assert why(200, cc(value), ETAG, request=mine, directives="ignore", ttl=60.0) == "Authorization"


# Vary


@pytest.mark.parametrize(
    "values", [[b"*"], [b"*, *"], [b", *"], [b"", b"*"], [b"*, Foo"], [b"Foo, *"], [b"Foo Bar"], [b'"a"']]
)
def test_what_varies_by_everything_or_by_who_knows_what(values):
    assert why(200, cc(b"max-age=60"), *[(b"Vary", value) for value in values]) == "Vary: *"


def test_what_varies_by_some_fields_is_stored():
    assert not why(200, cc(b"max-age=60"), (b"Vary", b"Foo, , Bar"))


# Set-Cookie


def test_cookies_are_not_shared_unless_the_rules_say_so():
    fresh = cc(b"max-age=60")
    assert not why(200, fresh, COOKIE)
    assert why(200, LAST_MODIFIED, COOKIE) == "Set-Cookie"
    assert not why(200, LAST_MODIFIED, COOKIE, set_cookie="store")
    assert why(200, fresh, COOKIE, set_cookie="bypass") == "Set-Cookie"
    assert b"set-cookie" not in stored(fresh, COOKIE)
    assert stored(fresh, COOKIE, set_cookie="store").get(b"set-cookie") == b"a=b"
    assert b"set-cookie" not in stored(fresh, COOKIE, directives="ignore", ttl=60.0)


# Partial content: section 3.3


def test_a_part_whose_place_is_known_is_stored():
    fields = [cc(b"max-age=60"), (b"Content-Range", b"bytes 0-4/10")]
    assert not why(206, *fields, ETAG)
    assert why(206, *fields, (b"Content-Range", b"bytes 0-4/10")) == "status"
    assert why(206, *fields, (b"Content-Type", b"multipart/byteranges; boundary=x")) == "status"
    assert why(206, *fields, request=request(method=b"POST")) == "status"


@pytest.mark.parametrize("value", [None, b"", b"bytes */10", b"bytes 5-4/10", b"bytes 0-10/10", b"items 0-4/10", b"x"])
def test_a_part_whose_place_is_not_known_is_not_stored(value):
    fields = [] if value is None else [(b"Content-Range", value)]
    assert why(206, cc(b"max-age=60"), ETAG, *fields) == "status"


def test_content_range_means_nothing_in_other_answers():
    assert not why(200, cc(b"max-age=60"), (b"Content-Range", b"anything"))


# Rules


def test_negative_caching():
    negative = ((503, 10.0), (404, 5.0))
    assert not why(503, negative=negative)
    assert why(502, negative=negative)
    assert why(503, cc(b"no-store"), negative=negative) == "no-store"
    assert not why(503, cc(b"max-age=5"), negative=negative)


def test_a_ttl_does_not_store_what_is_forbidden():
    assert why(200, cc(b"no-store"), ttl=60.0) == "no-store"
    assert why(200, cc(b"private"), ttl=60.0) == "private"
    assert why(503, ttl=60.0) == "no explicit lifetime"
    assert not why(200, ttl=60.0)
    assert why(200, cc(b"no-cache"), ttl=60.0) == "no lifetime nor validator"


def test_a_default_ttl_is_for_what_heuristics_are_for():
    assert not why(200, default_ttl=60.0)
    assert why(302, default_ttl=60.0) == "no explicit lifetime"
    assert why(200, default_ttl=0.0)


# Targeted fields: RFC 9213


@pytest.mark.parametrize(
    ("targeted", "plain", "reason"),
    [
        (b"max-age=10000", b"no-store", ""),
        (b"no-store", b"max-age=10000", "no-store"),
        (b"private", b"max-age=10000", "private"),
        (b"max-age=10000, &&&&&", b"no-store", "no-store"),
        (b'max-age="10000"', b"no-store", "no-store"),
        (b"", b"no-store", "no-store"),
        (b"foo", b"max-age=60", "no lifetime nor validator"),
    ],
)
def test_a_targeted_field_stands_in_for_cache_control(targeted, plain, reason):
    expires = (b"Expires", b"Thu, 18 Aug 2050 02:01:18 GMT")
    assert why(200, (b"CDN-Cache-Control", targeted), cc(plain), expires) == reason


# What of it is stored


def test_fields_of_connections_and_proxies_are_not_stored():
    names = b"Connection Keep-Alive Proxy-Authenticate Proxy-Authentication-Info Proxy-Authorization Proxy-Connection"
    fields = [(name, b"x") for name in [*names.split(), b"TE", b"Transfer-Encoding", b"Upgrade"]]
    kept = stored(*fields, (b"Content-Range", b"x"), (b"Set-Cookie2", b"a=b"), (b"Other", b"x"))
    assert [name for name, _ in kept] == [b"Content-Range", b"Set-Cookie2", b"Other", b"Date"]


def test_fields_that_no_cache_and_private_name_are_not_stored():
    kept = stored(
        cc(b'no-cache="a, B", max-age=5'), cc(b'private="C"'), *[(name, b"x") for name in (b"A", b"b", b"c", b"d")]
    )
    assert [key for key, _, _ in kept.lines] == [b"cache-control", b"cache-control", b"d", b"date"]
    kept = stored(cc(b'private="a"'), (b"CDN-Cache-Control", b'no-cache="b"'), (b"a", b"1"), (b"b", b"2"))
    assert b"a" in kept
    assert b"b" not in kept


def test_a_targeted_field_that_counts_is_stored_whatever_is_said_of_it():
    kept = stored(cc(b"max-age=3600"), (b"CDN-Cache-Control", b'max-age=1, private="cdn-cache-control"'))
    assert freshness(head(headers=kept), RULES, CONFIG).lifetime == 1


@pytest.mark.parametrize("values", [[], [b"foo"], [b"foo", b"Sun, 06 Nov 1994 08:49:37 GMT"]])
def test_what_has_no_date_gets_the_time_it_came(values):
    kept = stored(cc(b"max-age=5"), *[(b"Date", value) for value in values])
    assert kept.get_all(b"date") == [http_date(NOW)]
    assert parse_http_date(stored_headers(Response(200, Headers()), RULES, CONFIG).get(b"date")) > NOW


def test_a_date_is_left_as_it_is():
    assert stored((b"dATE", b"Sunday, 06-Nov-94 08:49:37 GMT")).lines == [
        (b"date", b"dATE", b"Sunday, 06-Nov-94 08:49:37 GMT")
    ]


@pytest.mark.parametrize(
    ("values", "age"),
    [
        ([b"5"], [b"5"]),
        ([b" 5 "], [b"5"]),
        ([b"0,7200"], [b"0"]),
        ([b"99999999999"], OLD),
        ([b"5, 7"], OLD),
        ([b"5", b"7"], OLD),
        ([b"0", b"0"], OLD),
        ([b"x", b"7"], OLD),
        ([b"-1"], OLD),
        ([b"7200.0"], OLD),
        ([b"5;a=b"], OLD),
        ([b""], OLD),
        ([], []),
    ],
)
def test_an_age_that_is_not_one_number_can_make_a_response_old(values, age):
    headers = stored(*[(b"Age", value) for value in values], invalid_age="stale")
    assert headers.get_all(b"age") == age


@pytest.mark.parametrize(
    ("values", "age"),
    [
        ([b"5"], [b"5"]),
        ([b"5, 7"], [b"5"]),
        ([b"0,7200"], [b"0"]),
        ([b"5", b"7"], [b"5"]),
        ([b"x", b"7"], []),
        ([b"-1"], []),
        ([b"7200.0"], []),
        ([b""], []),
        ([b"99999999999"], OLD),
    ],
)
def test_an_invalid_age_is_ignored_and_of_several_the_first_counts(values, age):
    headers = stored(*[(b"Age", value) for value in values])
    assert headers.get_all(b"age") == age


def test_the_response_itself_is_left_alone():
    response = Response(200, Headers([(b"Age", b"5, 7"), (b"Connection", b"x")]))
    stored_headers(response, RULES, CONFIG, NOW)
    assert list(response.headers) == [(b"Age", b"5, 7"), (b"Connection", b"x")]


def test_surrogate_keys_are_those_of_the_response_and_of_the_rule():
    response = Response(200, Headers([(b"Surrogate-Key", b"a  b\ta"), (b"surrogate-key", b"c"), (b"X-Key", b"d")]))
    assert surrogate_keys(response, CacheRules(surrogate_keys=("r", "b")), CONFIG) == (b"a", b"b", b"c", b"r")
    own = dataclasses.replace(CONFIG, surrogate_key_header="X-Key")
    assert surrogate_keys(response, RULES, own) == (b"d",)
    assert surrogate_keys(response, RULES, dataclasses.replace(CONFIG, surrogate_key_header=None)) == ()
    assert b"surrogate-key" not in stored((b"Surrogate-Key", b"a"))
    assert b"surrogate-key" in stored((b"Surrogate-Key", b"a"), config=own)


def test_what_must_not_have_been_stored_is_validated():
    for value in (b"no-store, max-age=60", b"private, max-age=60"):
        one = head(headers=[cc(value)])
        assert freshness(one, RULES, CONFIG).must_validate
        assert not freshness(one, CacheRules(directives="ignore", ttl=5.0), CONFIG).must_validate


# What requests ask: section 5.2.1


@pytest.mark.parametrize(
    ("fields", "wants"),
    [
        ([], NOTHING_ASKED),
        ([(b"Accept", b"*/*")], NOTHING_ASKED),
        ([(b"Pragma", b"x-other")], NOTHING_ASKED),
        ([(b"Pragma", b"No-Cache")], Asked(no_cache=True)),
        ([(b"Pragma", b"x, no-cache")], Asked(no_cache=True)),
        ([(b"Pragma", b"no-cache"), cc(b"max-age=5")], Asked(max_age=5)),
        ([(b"Pragma", b"no-cache"), cc(b"")], NOTHING_ASKED),
        ([cc(b"no-cache, no-store")], Asked(no_cache=True, no_store=True)),
        ([cc(b"no-cache"), cc(b"no-store")], Asked(no_cache=True, no_store=True)),
        ([cc(b"max-age=0")], Asked(max_age=0)),
        ([cc(b"max-age=x")], Asked(max_age=0)),
        ([cc(b"max-age")], Asked(max_age=0)),
        ([cc(b"max-stale")], Asked(max_stale=float("inf"))),
        ([cc(b"max-stale=5")], Asked(max_stale=5)),
        ([cc(b"max-stale=x")], Asked()),
        ([cc(b"min-fresh=5")], Asked(min_fresh=5)),
        ([cc(b"min-fresh=x")], Asked(min_fresh=float("inf"))),
        ([cc(b"min-fresh")], Asked(min_fresh=float("inf"))),
        ([cc(b"only-if-cached")], Asked(only_if_cached=True)),
        ([cc(b"stale-if-error=5")], Asked(stale_if_error=5)),
        ([cc(b"stale-if-error")], Asked()),
    ],
)
def test_what_a_request_asks(fields, wants):
    found = asked(Headers(fields), RULES)
    assert found == wants
    deaf = asked(Headers(fields), CacheRules(client_directives="ignore"))
    assert deaf == Asked(only_if_cached=wants.only_if_cached)


def test_a_request_that_asks_nothing_costs_nothing():
    assert asked(Headers([(b"Accept", b"*/*")]), RULES) is NOTHING_ASKED
