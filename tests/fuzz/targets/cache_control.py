"""Cache-Control, targeted fields, and the rules of caching by them. Each line of the input is a field of a response,
and of a request."""

from __future__ import annotations

from math import isfinite

from tests.cache.support import NOW, head, request
from twisted_wasmproxy.cache import policy
from twisted_wasmproxy.cache.directives import MAX_DELTA, Directives, cache_control, delta_seconds, targeted
from twisted_wasmproxy.cache.entry import StoredHead
from twisted_wasmproxy.config.model import CacheConfig, CacheRules
from twisted_wasmproxy.http.headers import Headers
from twisted_wasmproxy.http.messages import Request, Response

__all__ = ["WORDS", "run"]

WORDS = [
    *(b"\n", b",", b"=", b'"', b"\\", b'\\"', b" ", b"\t", b"\xff", b"\0", b"?0", b"?1", b":", b";", b"(", b"1.5"),
    *(b"Cache-Control: ", b"CDN-Cache-Control: ", b"Surrogate-Control: ", b"Pragma: no-cache", b"Age: ", b"Date: "),
    *(b"Expires: 0", b"Last-Modified: Tue, 15 Nov 1994 12:45:26 GMT", b'ETag: "a"', b"Vary: *", b"Set-Cookie: a=b"),
    *(b"max-age=60", b"max-age", b"s-maxage=1", b"no-store", b"no-cache", b'no-cache="set-cookie"', b'private="a, b"'),
    *(
        b"public",
        b"must-revalidate",
        b"must-understand",
        b"immutable",
        b"stale-if-error=9",
        b"min-fresh=",
        b"max-stale",
    ),
    *(b"only-if-cached", b"stale-while-revalidate=5", b"9" * 30, b"0" * 5000, b"-1", b"1e9"),
    *(b"Content-Range: bytes 0-9/*", b"Content-Length: 10", b"Content-Location: /", b"Location: //x/y", b"a," * 30),
]

CONFIG = CacheConfig(targeted=("CDN-Cache-Control", "Surrogate-Control"), surrogate_key_header="Surrogate-Key")
RULES = [
    CacheRules(),
    CacheRules(ttl=5.0, min_ttl=1.0, max_ttl=10.0, invalid_age="ignore", client_directives="ignore"),
    CacheRules(directives="ignore", default_ttl=3.0, set_cookie="store", negative=((404, 9.0),)),
]
STATUSES = (200, 206, 301, 304, 404, 500, 599)


def run(data: bytes) -> None:
    fields = []
    for line in data.split(b"\n"):
        name, _, value = line.partition(b":")
        fields.append((name.strip() or b"Cache-Control", value.strip(b" \t")))
        _check_value(value.strip(b" \t"))
    headers = Headers(fields)
    status = STATUSES[len(data) % len(STATUSES)]
    for rules in RULES:
        _check_policy(headers, status, rules)


def _check_value(value: bytes) -> None:
    seconds = delta_seconds(value)
    assert seconds is None or 0 <= seconds <= MAX_DELTA
    directives = cache_control([value])
    _check(directives)
    if b'"' not in value:
        plain = [member.strip(b" \t").lower() for member in value.split(b",")]
        assert (b"no-store" in directives) >= (b"no-store" in plain)
        assert directives.unqualified(b"private") >= (b"private" in plain)
    found = targeted([value])
    if found is not None:
        _check(found)


def _check(directives: Directives) -> None:
    for name in directives.arguments:
        seconds = directives.seconds(name)
        assert seconds is not None
        assert 0 <= seconds <= MAX_DELTA
        fields = directives.fields(name)
        assert all(field and field == field.lower() for field in fields)
        assert directives.unqualified(name) == (not fields)


def _check_policy(headers: Headers, status: int, rules: CacheRules) -> None:
    asking = request(headers=list(headers))
    wants = policy.asked(asking.headers, rules)
    response = Response(status, headers.copy())
    why = policy.why_not_store(asking, response, wants, rules, CONFIG)
    kept = policy.stored_headers(response, rules, CONFIG, NOW)
    assert policy.date(kept, b"date") is not None, "what is stored has a date"
    assert len(kept.get_all(b"age")) <= 1
    assert b"connection" not in kept
    stored = head(headers=list(kept), status=status, vary=policy.selecting(policy.vary_names(headers) or (), headers))
    _check_freshness(stored, rules, wants)
    if not why:
        assert policy.vary_names(headers) is not None
    later = policy.freshened(stored, Response(304, headers.copy()), NOW, NOW, rules, CONFIG)
    _check_freshness(later, rules, wants)
    policy.same_representation(stored, response)
    policy.head_update(stored, response)
    policy.surrogate_keys(response, rules, CONFIG)
    post = Request(b"POST", b"http", b"h", b"/", headers.copy())
    for uri in policy.invalidated(post, b"http://h/", response):
        assert uri.startswith(b"http://h"), uri


def _check_freshness(stored: StoredHead, rules: CacheRules, wants: policy.Asked) -> None:
    fresh = policy.freshness(stored, rules, CONFIG)
    assert fresh.lifetime >= 0
    assert fresh.initial_age >= 0
    assert isfinite(fresh.fresh_until)
    assert policy.current_age(fresh, NOW - 100) >= 0
    for now in (NOW, NOW + 1e9):
        policy.reuse(fresh, wants, now)
        policy.may_serve_on_error(fresh, wants, now)
