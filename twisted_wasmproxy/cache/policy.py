"""What may be stored, reused, validated and invalidated: RFC 9111 as pure functions of messages, heads and the time.

Nothing here does I/O, keeps state, or raises for what a peer has sent: what cannot be read takes the safe reading.
Times are seconds since the epoch.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import lru_cache
from math import inf
from typing import NamedTuple

from twisted_wasmproxy.cache.dates import http_date, parse_http_date
from twisted_wasmproxy.cache.decisions import NOTHING_ASKED, Asked, Freshness, Reuse
from twisted_wasmproxy.cache.directives import (
    MAX_DELTA,
    NO_DIRECTIVES,
    Directives,
    cache_control,
    delta_seconds,
    response_directives,
)
from twisted_wasmproxy.cache.entry import StoredHead
from twisted_wasmproxy.cache.fields import age, content_length, date, entity_tag, same_origin_uri
from twisted_wasmproxy.cache.keys import normalized_url
from twisted_wasmproxy.cache.ranges import content_range
from twisted_wasmproxy.cache.vary import selecting, selects, vary_names
from twisted_wasmproxy.config.model import CacheConfig, CacheRules
from twisted_wasmproxy.http.headers import Headers
from twisted_wasmproxy.http.messages import Request, Response

__all__ = [
    "NOTHING_ASKED",
    "NO_NAME",
    "Asked",
    "Freshness",
    "Reuse",
    "asked",
    "current_age",
    "freshened",
    "freshness",
    "head_update",
    "invalidated",
    "may_serve_on_error",
    "remaining",
    "reuse",
    "same_representation",
    "selecting",
    "selects",
    "stored_headers",
    "surrogate_keys",
    "validators",
    "vary_names",
    "why_not_store",
]


_UNDERSTOOD = frozenset(
    {*range(200, 207), *range(300, 306), 307, 308, *range(400, 418), 421, 422, 426, *range(500, 506)}
)
"""Final statuses whose caching requirements are met here: those of RFC 9110 section 15."""
_HEURISTIC = frozenset({200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 501})
"""RFC 9110 section 15.1: may be stored and reused without explicit lifetime."""
_OF_REQUEST = frozenset({304, 407, 412, 416, 417})
"""Final statuses that answer what one request asked by its fields, and nobody else."""
_SAFE = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PROPFIND", b"REPORT", b"SEARCH", b"QUERY"})
"""Methods known to be safe (RFC 9110 section 9.2.1 and the registry)."""
_NOT_STORED = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authentication-info",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""RFC 9111 section 3.1."""
_LONGEST_AGE = 1024
"""Bytes of an Age, all lines together, beyond which it is not one number."""
_MOST_SURROGATE_KEYS = 1000
_LONGEST_SURROGATE_KEYS = 16 * 1024
"""Bytes of them in one response."""
_MOST_LOCATIONS = 4
"""Lines of Location and Content-Location whose URIs an unsafe request invalidates."""
NO_NAME = b"\0"
"""Name of a selecting field that no Vary has: what has it in `vary` is for no other request either."""
_NO_VALUE = b"\0"
"""Value of a selecting field that no request has: what has it in `vary` is not selected any more."""
_CLOCKS_APART = 2.0
"""Seconds that the clocks of processes which share a store may differ by."""
_OF_CONTENT = frozenset({b"content-encoding", b"content-length", b"content-md5", b"content-range"})
"""What is said of the stored bytes themselves: a 304 has none that it could be true of (RFC 9111 section 3.2)."""


def asked(headers: Headers, rules: CacheRules) -> Asked:
    """Return what the request asks; `NOTHING_ASKED` itself in the usual case of neither Cache-Control nor Pragma."""
    values = None
    pragmas: list[bytes] = []
    for key, _, value in headers.lines:
        if key == b"cache-control":
            if values is None:
                values = [value]
            else:
                values.append(value)
        elif key == b"pragma":
            pragmas.append(value)
    honor = rules.client_directives == "honor"
    if values is None:
        # RFC 9111 section 5.4: Pragma counts only where there is no Cache-Control.
        return Asked(no_cache=True) if pragmas and honor and b"no-cache" in cache_control(pragmas) else NOTHING_ASKED
    given = cache_control(values)
    if not honor:
        return Asked(only_if_cached=True) if b"only-if-cached" in given else NOTHING_ASKED
    min_fresh = delta_seconds(given.arguments.get(b"min-fresh", b"0"))
    return Asked(
        no_cache=b"no-cache" in given,
        no_store=b"no-store" in given,
        max_age=given.seconds(b"max-age"),
        min_fresh=inf if min_fresh is None else min_fresh,
        max_stale=inf if given.bare(b"max-stale") else delta_seconds(given.arguments.get(b"max-stale")),
        only_if_cached=b"only-if-cached" in given,
        stale_if_error=delta_seconds(given.arguments.get(b"stale-if-error")),
    )


# Storing: RFC 9111 section 3


def why_not_store(
    request: Request,
    response: Response,
    wants: Asked,
    rules: CacheRules,
    config: CacheConfig,
    received: float | None = None,
) -> str:
    """Return why the response must not be stored, in a few words for Cache-Status and the log; empty if it may be.

    RFC 9111 section 3 (methods, statuses, no-store, private, must-understand), 3.5 (Authorization), 3.3 and
    RFC 9110 section 15.3.7 (206: only one with a single valid Content-Range that tells the complete length; whether it
    may be combined with others is another question, section 3.4), `Vary: *` (section 4.1), Set-Cookie and negative
    caching by `rules`, RFC 9213. What has neither a lifetime nor a validator is not worth storing. `request` is the one
    that the client made; the answer came when the machine's clock said `received`, or now.
    """
    method, status, headers = request.method, response.status, response.headers
    if method == b"HEAD":
        return "HEAD"
    if method not in (b"GET", b"POST") or method.decode("latin-1") not in rules.methods:
        return "method"
    if wants.no_store:
        return "request no-store"
    if status < 200 or status in _OF_REQUEST or (status == 206 and not _storable_part(request, headers)):
        return "status"
    if status in rules.request_error_statuses and status not in dict(rules.negative):
        return "status"
    if status != 206 and _says_it_is_a_part(headers):
        return "Content-Range"
    if vary_names(headers) is None:
        return "Vary: *"
    if _surrogate_key_lines(response, config) is None:
        return "too many surrogate keys"
    said = _said(headers, rules, config)
    why = _forbidden(status, said.directives)
    if why:
        return why
    if b"authorization" in request.headers and not _shared_despite_authorization(said.directives):
        return "Authorization"
    life = _lifetime(status, headers, said, rules, time.time() if received is None else received)
    if b"set-cookie" in headers and not _storable_with_cookie(life, rules):
        return "Set-Cookie"
    if method == b"POST" and not (life is not None and life.explicit and _says_it_is_the_target(request, headers)):
        return "POST"
    if life is None and not _heuristic(status, said.directives):
        return "no explicit lifetime"
    if b"cookie" in request.headers and _not_for_cookies(life, headers, said, rules):
        return "Cookie"
    validator = entity_tag(headers) is not None or date(headers, b"last-modified") is not None
    if not validator and (life is None or not _worth_keeping(life.seconds, said.directives)):
        return "no lifetime nor validator"
    return ""


def _storable_part(request: Request, headers: Headers) -> bool:
    """RFC 9110 section 15.3.7: a single part whose place is known, in a representation whose length is. What is said to
    be a part of one of unknown length (`*`) could never be told from the whole."""
    ranges = headers.get_all(b"content-range")
    part = content_range(ranges[0]) if len(ranges) == 1 else None
    if request.method != b"GET" or part is None or part.length is None:
        return False
    types = headers.get_all(b"content-type")
    return not any(value.lower().startswith(b"multipart/byteranges") for value in types)


def _says_it_is_a_part(headers: Headers) -> bool:
    """Whether there is a Content-Range of less than all. It has no meaning but in a 206 and a 416 (RFC 9110 section
    14.4), but who sends it has hardly sent the whole."""
    parts = [content_range(value) for value in headers.get_all(b"content-range")]
    return any(part is not None and (part.start, part.stop) != (0, part.length) for part in parts)


def _storable_with_cookie(life: _Lifetime | None, rules: CacheRules) -> bool:
    """`CacheRules.set_cookie`."""
    explicit = life is not None and life.explicit
    return rules.set_cookie == "store" or (rules.set_cookie == "strip" and explicit)


def _forbidden(status: int, directives: Directives) -> str:
    """RFC 9111 sections 5.2.2.3, 5.2.2.5, 5.2.2.7: must-understand, no-store, private."""
    must_understand = directives.bare(b"must-understand")
    if b"must-understand" in directives and status not in _UNDERSTOOD:
        return "must-understand"
    if b"no-store" in directives and not must_understand:
        return "no-store"
    return "private" if directives.unqualified(b"private") else ""


def _shared_despite_authorization(directives: Directives) -> bool:
    """RFC 9111 section 3.5."""
    return (
        directives.bare(b"public")
        or directives.bare(b"must-revalidate")
        or (delta_seconds(directives.arguments.get(b"s-maxage")) is not None)
    )


def _heuristic(status: int, directives: Directives) -> bool:
    """RFC 9111 section 4.2.2: by its status, or marked as explicitly cacheable."""
    return status in _HEURISTIC or directives.bare(b"public")


def _not_for_cookies(life: _Lifetime | None, headers: Headers, said: _Said, rules: CacheRules) -> bool:
    """`CacheRules.heuristic_with_cookie`."""
    if life is None or not life.guessed or rules.heuristic_with_cookie or said.directives.bare(b"public"):
        return False
    if rules.key.cookies or b"cookie" in _lower((*rules.key.headers, *rules.strip_unkeyed)):
        return False
    return b"cookie" not in (vary_names(headers) or ())


def _says_it_is_the_target(request: Request, headers: Headers) -> bool:
    """RFC 9110 section 9.3.3: a POST is answered by the representation that a GET would have."""
    target = normalized_url(request.scheme, request.authority, request.path)
    locations = headers.get_all(b"content-location")
    return len(locations) == 1 and same_origin_uri(target, locations[0]) == target


def _worth_keeping(lifetime: float, directives: Directives) -> bool:
    """Whether a response without validator can ever be used again, as far as it says itself."""
    if directives.unqualified(b"no-cache"):
        return False
    return lifetime > 0 or bool(directives.seconds(b"stale-while-revalidate") or directives.seconds(b"stale-if-error"))


def stored_headers(
    response: Response, rules: CacheRules, config: CacheConfig, received: float | None = None
) -> Headers:
    """Return the fields to store (RFC 9111 section 3.1): without what no-cache="..." and private="..." name, without
    what the rules take out (Set-Cookie) and the surrogate keys, with one valid Date (RFC 9110 section 6.6.1: what the
    machine's clock said, `received`, or now, if there is none), and with one valid Age or none: `freshness` goes by it,
    an answer has its own."""
    headers = Headers()
    headers.lines = _kept(response.headers, rules, config)
    if date(headers, b"date") is None:
        headers.set(b"Date", http_date(time.time() if received is None else received))
    return headers


def _kept(headers: Headers, rules: CacheRules, config: CacheConfig) -> list[tuple[bytes, bytes, bytes]]:
    directives = _said(headers, rules, config).directives
    named = {*directives.fields(b"no-cache"), *directives.fields(b"private")}
    # Without a targeted field that counts, the rest would mean something else.
    without = _NOT_STORED | named.difference(_lower(config.targeted))
    if rules.set_cookie != "store":
        without |= {b"set-cookie"}
    if config.surrogate_key_header is not None:
        without |= {config.surrogate_key_header.lower().encode()}
    kept = []
    dated = False
    for line in headers.lines:
        key = line[0]
        if key == b"date":
            if not dated:
                kept.append(line)
            dated = True
        elif key != b"age" and key not in without:
            kept.append(line)
    seconds = _age(headers.get_all(b"age"), rules)
    if seconds is not None:
        kept.append((b"age", b"Age", b"%d" % seconds))
    return kept


def _age(values: list[bytes], rules: CacheRules) -> int | None:
    """Return the seconds that Age says (RFC 9111 section 5.1), None if it says nothing.

    `invalid_age: ignore` is what that section recommends: the first member counts, and nothing if it is not a number.
    Else what is not one number is taken for very old; but for a list in one line, whose first member counts. Members
    joined by a comma and a space may have been lines.
    """
    if not values:
        return None
    if rules.invalid_age == "ignore":
        return age(values[0])
    if sum(map(len, values)) + len(values) > _LONGEST_AGE:
        return MAX_DELTA
    joined = b", ".join([value.strip(b" \t") for value in values])
    return age(joined) if all(member.isdigit() for member in joined.split(b",")) else MAX_DELTA


def surrogate_keys(response: Response, rules: CacheRules, config: CacheConfig) -> tuple[bytes, ...]:
    """Return the keys of the response, if they are not too many, and those that the rules give it, each once."""
    keys: dict[bytes, None] = {}
    for value in _surrogate_key_lines(response, config) or ():
        keys.update(dict.fromkeys(value.split()))
    keys.update(dict.fromkeys(key.encode() for key in rules.surrogate_keys))
    return tuple(keys)


def _surrogate_key_lines(response: Response, config: CacheConfig) -> list[bytes] | None:
    """Return the values with surrogate keys; None for more of them than are kept."""
    if config.surrogate_key_header is None:
        return []
    values = response.headers.get_all(config.surrogate_key_header.encode())
    if not values:
        return values
    if sum(map(len, values)) > _LONGEST_SURROGATE_KEYS:
        return None
    return values if sum([len(value.split()) for value in values]) <= _MOST_SURROGATE_KEYS else None


# Freshness: RFC 9111 section 4.2


class _Said(NamedTuple):
    """What a response says that counts here."""

    directives: Directives
    expires: bool
    """Whether Expires counts."""


class _Lifetime(NamedTuple):
    seconds: float
    explicit: bool
    """Said by the response or set by the rule, not guessed."""
    guessed: bool = False
    """By Last-Modified; what is neither is by `default_ttl` or `min_ttl`."""


@lru_cache(maxsize=64)
def _lower(names: tuple[str, ...]) -> tuple[bytes, ...]:
    return tuple(name.lower().encode() for name in names)


def _said(headers: Headers, rules: CacheRules, config: CacheConfig) -> _Said:
    """RFC 9213 section 2.2, and `CacheRules.directives`."""
    if rules.directives == "ignore":
        return _Said(NO_DIRECTIVES, expires=False)
    directives, targeted = response_directives(headers, _lower(config.targeted))
    return _Said(directives, expires=not targeted)


def _lifetime(status: int, headers: Headers, said: _Said, rules: CacheRules, response_time: float) -> _Lifetime | None:
    """Return the lifetime (RFC 9111 section 4.2.1), as the rules have it; None if nothing gives one."""
    heuristic = _heuristic(status, said.directives)
    life = _explicit(headers, said, response_time)
    if life is None and (negative := dict(rules.negative).get(status)) is not None:
        life = _Lifetime(negative, explicit=True)
    elif rules.ttl is not None and (life is not None or heuristic):
        life = _Lifetime(rules.ttl, explicit=True)
    elif life is None and heuristic:
        life = _guessed(headers, rules, response_time)
        if life is None and rules.min_ttl:
            life = _Lifetime(0, explicit=False)
    if life is None:
        return None
    seconds = life.seconds
    if not said.directives.unqualified(b"no-cache"):
        seconds = max(seconds, rules.min_ttl)
    if rules.max_ttl is not None:
        seconds = min(seconds, rules.max_ttl)
    return _Lifetime(seconds, life.explicit, life.guessed)


def _explicit(headers: Headers, said: _Said, response_time: float) -> _Lifetime | None:
    """RFC 9111 section 4.2.1: s-maxage, max-age, Expires less Date, the first that is there."""
    for name in (b"s-maxage", b"max-age"):
        seconds = said.directives.seconds(name)
        if seconds is not None:
            return _Lifetime(seconds, explicit=True)
    if not said.expires or not (values := headers.get_all(b"expires")):
        return None
    # Section 5.3: one that is no date has passed. Several that differ are no date either.
    expires = parse_http_date(values[0], response_time) if values.count(values[0]) == len(values) else None
    if expires is None:
        return _Lifetime(0, explicit=True)
    sent = date(headers, b"date", response_time)
    return _Lifetime(max(0.0, expires - (response_time if sent is None else sent)), explicit=True)


def _guessed(headers: Headers, rules: CacheRules, response_time: float) -> _Lifetime | None:
    """RFC 9111 section 4.2.2."""
    if rules.default_ttl is not None:
        return _Lifetime(rules.default_ttl, explicit=False)
    modified = date(headers, b"last-modified", response_time)
    if modified is None:
        return None
    sent = date(headers, b"date", response_time)
    since = (response_time if sent is None else sent) - modified
    seconds = min(max(0.0, since * rules.heuristic_fraction), rules.heuristic_max)
    return _Lifetime(seconds, explicit=False, guessed=True)


def freshness(head: StoredHead, rules: CacheRules, config: CacheConfig) -> Freshness:
    """Work out how long a stored response may be used (RFC 9111 section 4.2, RFC 9213 section 2.2, rules)."""
    headers = head.headers
    said = _said(headers, rules, config)
    directives = said.directives
    life = _lifetime(head.status, headers, said, rules, head.received)
    lifetime = 0.0 if life is None else life.seconds
    initial_age = _initial_age(head)
    fresh_until = head.response_time - initial_age + lifetime
    if head.purged:
        fresh_until = min(fresh_until, head.purged)
    # no-store and private came with a 304, or counted for nothing when this was stored.
    must_validate = (
        directives.unqualified(b"no-cache") or bool(_forbidden(head.status, directives)) or vary_names(headers) is None
    )
    # Section 5.2.2.10: s-maxage has the semantics of proxy-revalidate, and nothing in RFC 5861 takes that back; where
    # directives conflict, the most restrictive one is honoured (section 4.2.1).
    never_stale = b"must-revalidate" in directives or b"proxy-revalidate" in directives or b"s-maxage" in directives
    may_be_stale = not must_validate and not never_stale
    return Freshness(
        lifetime=lifetime,
        initial_age=initial_age,
        response_time=head.response_time,
        fresh_until=fresh_until,
        must_validate=must_validate,
        never_stale=never_stale,
        stale_while_revalidate=(
            _window(directives, b"stale-while-revalidate", rules.stale_while_revalidate) if may_be_stale else 0
        ),
        stale_if_error=_window(directives, b"stale-if-error", rules.stale_if_error) if may_be_stale else 0,
        immutable=b"immutable" in directives and life is not None and life.explicit,
        not_for_cookies=_not_for_cookies(life, headers, said, rules),
        latest=max(head.response_time, head.purged),
    )


def _initial_age(head: StoredHead) -> float:
    """RFC 9111 section 4.2.3: `corrected_initial_age`."""
    age_value = age(head.headers.get(b"age")) or 0
    sent = date(head.headers, b"date", head.received)
    apparent_age = 0.0 if sent is None else max(0.0, head.received - sent)
    response_delay = max(0.0, head.response_time - head.request_time)
    return max(apparent_age, age_value + response_delay)


def _window(directives: Directives, name: bytes, default: float) -> float:
    """RFC 5861 sections 3 and 4."""
    seconds = directives.seconds(name)
    return default if seconds is None else seconds


def current_age(fresh: Freshness, now: float) -> float:
    """Return `current_age` (RFC 9111 section 4.2.3), never negative."""
    return fresh.initial_age + max(0.0, now - fresh.response_time)


def _staleness(fresh: Freshness, now: float) -> float:
    """Return how long it is stale, negative while it is fresh; infinite for what came later than now, by another clock:
    nobody knows how old it is."""
    if now < fresh.latest:
        if fresh.latest - now > _CLOCKS_APART:
            return inf
        now = fresh.latest
    return now - fresh.fresh_until


def remaining(fresh: Freshness, now: float) -> float:
    """Return how long it is fresh for, negative if it is stale; 0 for what is stale since nobody knows when."""
    left = fresh.fresh_until - now
    return min(left, 0.0) if fresh.latest - now > _CLOCKS_APART else left


# Reuse: RFC 9111 section 4


def reuse(fresh: Freshness, wants: Asked, now: float) -> Reuse:
    """Say how the stored response may answer a request that it is selected for (RFC 9111 section 4)."""
    if fresh.must_validate:
        return Reuse.VALIDATE
    staleness = _staleness(fresh, now)
    if staleness < 0:
        return Reuse.FRESH if wants is NOTHING_ASKED or _fresh_enough(fresh, wants, now) else Reuse.VALIDATE_FOR_CLIENT
    if fresh.never_stale or wants.no_cache or wants.min_fresh:
        return Reuse.VALIDATE
    if wants.max_age is not None and (wants.max_stale is None or current_age(fresh, now) > wants.max_age):
        return Reuse.VALIDATE
    # The end of the window is outside of it, so that a window of 0 is none.
    if staleness < fresh.stale_while_revalidate:
        return Reuse.REVALIDATE_BEHIND
    return Reuse.STALE if wants.max_stale is not None and staleness <= wants.max_stale else Reuse.VALIDATE


def _fresh_enough(fresh: Freshness, wants: Asked, now: float) -> bool:
    """RFC 9111 section 5.2.1, and RFC 8246 section 2: who reloads gets what is immutable from here."""
    if -_staleness(fresh, now) < wants.min_fresh:
        return False
    if fresh.immutable:
        return True
    return not wants.no_cache and (wants.max_age is None or current_age(fresh, now) <= wants.max_age)


def may_serve_on_error(fresh: Freshness, wants: Asked, now: float) -> bool:
    """Say whether the response may be served when the origin cannot be asked, or fails (section 4.2.4, RFC 5861)."""
    if fresh.must_validate or wants.no_cache:
        return False
    staleness = _staleness(fresh, now)
    if staleness < 0:
        return True
    if fresh.never_stale:
        return False
    return staleness < fresh.stale_if_error or staleness < (wants.stale_if_error or 0)


# Validation: RFC 9111 section 4.3


def validators(head: StoredHead) -> list[tuple[bytes, bytes]]:
    """Return the If-None-Match and If-Modified-Since lines that validate a stored response (section 4.3.1)."""
    lines = []
    etag = entity_tag(head.headers)
    if etag is not None:
        lines.append((b"If-None-Match", etag))
    modified = head.headers.get(b"last-modified")
    if modified is not None and parse_http_date(modified) is not None:
        lines.append((b"If-Modified-Since", modified))
    return lines


def same_representation(head: StoredHead, response: Response) -> bool:
    """Say whether a 304 (section 4.3.4) speaks of the stored response; one without any validator of its own does if it
    answers a validation of just that response."""
    etag, stored = entity_tag(response.headers), entity_tag(head.headers)
    if etag is not None and not etag.startswith(b"W/"):
        return etag == stored
    if etag is not None and stored is not None:
        return etag.removeprefix(b"W/") == stored.removeprefix(b"W/")
    modified = date(response.headers, b"last-modified", head.response_time)
    if modified is None:
        return etag is None
    return modified == date(head.headers, b"last-modified", head.response_time)


def head_update(head: StoredHead, response: Response) -> bool:
    """Say whether the 200 to a HEAD freshens the stored response to GET (True), or shows that it is outdated
    (section 4.3.5: another validator or Content-Length)."""
    for name in (b"etag", b"last-modified"):
        received = response.headers.get_all(name)
        if received and received != head.headers.get_all(name):
            return False
    lengths = response.headers.get_all(b"content-length")
    if not lengths:
        return True
    length = head.length
    if length is None:
        length = content_length(head.headers.get(b"content-length"))
    return length is not None and all(content_length(value) == length for value in lengths)


def freshened(
    head: StoredHead,
    response: Response,
    request_time: float,
    response_time: float,
    rules: CacheRules,
    config: CacheConfig,
    wall_ahead: float = 0.0,
) -> StoredHead:
    """Return the head updated by a 304, or by the 200 to a HEAD (RFC 9111 sections 3.2, 4.3.4, 4.3.5).

    Times and `wall_ahead`: as in `StoredHead`.
    """
    update = stored_headers(response, rules, config, response_time + wall_ahead)
    # An entity-tag that got here is that of the stored response, but perhaps weaker said.
    kept = _OF_CONTENT | {b"etag"} if b"etag" in head.headers else _OF_CONTENT
    new = [line for line in update.lines if line[0] not in kept]
    replaced = {line[0] for line in new} | {b"age"}
    merged = Headers()
    merged.lines = [line for line in head.headers.lines if line[0] not in replaced] + new
    # What the new Cache-Control names is not to be kept of the old fields either.
    merged.lines = _kept(merged, rules, config)
    key_lines = _surrogate_key_lines(response, config)
    return head.replaced(
        headers=merged,
        # No purge by too many keys would find it.
        vary=_varied(head, vary_names(merged) or () if key_lines is not None else (NO_NAME,)),
        request_time=request_time,
        response_time=response_time,
        surrogate_keys=surrogate_keys(response, rules, config) if key_lines else head.surrogate_keys,
        purged=0.0,
        wall_ahead=wall_ahead,
    )


def _varied(head: StoredHead, names: Iterable[bytes]) -> tuple[tuple[bytes, bytes | None], ...]:
    """Return the selecting fields when Vary has these `names`. What the request had of one that is there only now is
    not known any more: no field has the value that stands for it, so the response is not selected again."""
    known = {name for name, _ in head.vary}
    if _NO_VALUE in [value for _, value in head.vary]:
        return head.vary
    return head.vary + tuple((name, _NO_VALUE) for name in names if name not in known)


# Invalidation: RFC 9111 section 4.4


def invalidated(request: Request, url: bytes, response: Response) -> list[bytes]:
    """Return the URIs that are no longer valid after a method that is not safe (RFC 9111 section 4.4): `url`, the
    target URI, and those of Location and Content-Location if they have its origin; none if the response is an error."""
    if request.method in _SAFE or not 200 <= response.status < 400:
        return []
    target = normalized_url(request.scheme, request.authority, request.path)
    uris: dict[bytes, None] = {url: None}
    seen = 0
    for key, _, value in response.headers.lines:
        if key in (b"location", b"content-location"):
            seen += 1
            if seen > _MOST_LOCATIONS:
                break
            uri = same_origin_uri(target, value)
            if uri is not None:
                uris[uri] = None
    return list(uris)
