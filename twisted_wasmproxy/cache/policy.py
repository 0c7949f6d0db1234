"""What may be stored, reused, validated and invalidated: RFC 9111 as pure functions of messages, heads and the time.

Nothing here does I/O, keeps state, or raises for what a peer has sent: what cannot be read takes the safe reading.
Times are seconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from twisted_wasmproxy.cache.entry import StoredHead
from twisted_wasmproxy.config.model import CacheConfig, CacheRules
from twisted_wasmproxy.http.headers import Headers
from twisted_wasmproxy.http.messages import Request, Response

__all__ = [
    "NOTHING_ASKED",
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


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks of a cache (RFC 9111 section 5.2.1), Pragma included (section 5.4)."""

    no_cache: bool = False
    no_store: bool = False
    max_age: float | None = None
    min_fresh: float = 0.0
    max_stale: float | None = None
    """Seconds; infinite for `max-stale` without a value; None: no stale response, please, but by the other rules."""
    only_if_cached: bool = False
    stale_if_error: float | None = None
    """RFC 5861 section 4."""


NOTHING_ASKED = Asked()


@dataclass(frozen=True, slots=True)
class Freshness:
    """What follows from a stored head and the rules for how long it may be used."""

    lifetime: float
    """RFC 9111 section 4.2.1; 0 if there is none."""
    initial_age: float
    """`corrected_initial_age` of section 4.2.3, at `response_time`."""
    response_time: float
    fresh_until: float
    """`response_time - initial_age + lifetime`, or when a soft purge came, if that was earlier."""
    must_validate: bool
    """Never without validation: no-cache, or `Vary: *`."""
    never_stale: bool
    """must-revalidate, proxy-revalidate, s-maxage: never served stale, whatever else says so (section 4.2.4)."""
    stale_while_revalidate: float
    """Seconds after `fresh_until`; 0 where it is not allowed (RFC 5861 section 3)."""
    stale_if_error: float
    """The same (RFC 5861 section 4)."""
    immutable: bool
    """RFC 8246: a reload by the client (max-age=0, no-cache) does not make a fresh response be validated."""


class Reuse(Enum):
    """How a stored response may answer a request."""

    FRESH = "fresh"
    STALE = "stale, as the request allows"
    REVALIDATE_BEHIND = "stale, while it is validated in the background"
    VALIDATE = "not without validation: it is stale, or no-cache"
    VALIDATE_FOR_CLIENT = "not without validation: the request wants so"


def asked(headers: Headers, rules: CacheRules) -> Asked:
    """Return what the request asks; `NOTHING_ASKED` itself in the usual case of neither Cache-Control nor Pragma."""
    raise NotImplementedError


def why_not_store(request: Request, response: Response, wants: Asked, rules: CacheRules, config: CacheConfig) -> str:
    """Return why the response must not be stored, in a few words for Cache-Status and the log; empty if it may be.

    RFC 9111 section 3 (methods, statuses, no-store, private, must-understand), 3.5 (Authorization), 3.3 and
    RFC 9110 section 15.3.7 (206: only one with a single valid Content-Range, and a strong validator), `Vary: *`
    (section 4.1), Set-Cookie and negative caching by `rules`, RFC 9213. What has neither a lifetime nor a validator is
    not worth storing. `request` is the one that the client made.
    """
    raise NotImplementedError


def stored_headers(response: Response, rules: CacheRules, config: CacheConfig) -> Headers:
    """Return the fields to store (RFC 9111 section 3.1): without Age, without what no-cache="..." and private="..."
    name, without what the rules take out (Set-Cookie), with a Date (RFC 9110 section 6.6.1: there must be one)."""
    raise NotImplementedError


def surrogate_keys(response: Response, rules: CacheRules, config: CacheConfig) -> tuple[bytes, ...]:
    """Return the keys of the response and those that the rules give it, each once."""
    raise NotImplementedError


def freshness(head: StoredHead, rules: CacheRules, config: CacheConfig) -> Freshness:
    """Work out how long a stored response may be used (RFC 9111 section 4.2, RFC 9213 section 2.2, rules)."""
    raise NotImplementedError


def current_age(fresh: Freshness, now: float) -> float:
    """Return `current_age` (RFC 9111 section 4.2.3), never negative."""
    raise NotImplementedError


def reuse(fresh: Freshness, wants: Asked, now: float) -> Reuse:
    """Say how the stored response may answer a request that it is selected for (RFC 9111 section 4)."""
    raise NotImplementedError


def may_serve_on_error(fresh: Freshness, wants: Asked, now: float) -> bool:
    """Say whether the response may be served when the origin cannot be asked, or fails (section 4.2.4, RFC 5861)."""
    raise NotImplementedError


def vary_names(headers: Headers) -> tuple[bytes, ...] | None:
    """Return the lower-case names in Vary, sorted, each once; None if there is a `*` (or it cannot be read)."""
    raise NotImplementedError


def selecting(names: Sequence[bytes], request: Headers) -> tuple[tuple[bytes, bytes | None], ...]:
    """Return the selecting fields of a request, normalised (RFC 9111 section 4.1): lines joined, white space and, where
    the field's own definition allows it (Accept, Accept-Encoding, Accept-Language...), case and order made alike."""
    raise NotImplementedError


def selects(head: StoredHead, request: Headers) -> bool:
    """Say whether the request has the selecting fields of the stored response (RFC 9111 section 4.1)."""
    raise NotImplementedError


def validators(head: StoredHead) -> list[tuple[bytes, bytes]]:
    """Return the If-None-Match and If-Modified-Since lines that validate a stored response (section 4.3.1)."""
    raise NotImplementedError


def freshened(
    head: StoredHead,
    response: Response,
    request_time: float,
    response_time: float,
    rules: CacheRules,
    config: CacheConfig,
) -> StoredHead:
    """Return the head updated by a 304, or by the 200 to a HEAD (RFC 9111 sections 3.2, 4.3.4, 4.3.5)."""
    raise NotImplementedError


def same_representation(head: StoredHead, response: Response) -> bool:
    """Say whether a 304 (section 4.3.4) speaks of the stored response; one without any validator of its own does if it
    answers a validation of just that response."""
    raise NotImplementedError


def head_update(head: StoredHead, response: Response) -> bool:
    """Say whether the 200 to a HEAD freshens the stored response to GET (True), or shows that it is outdated
    (section 4.3.5: another validator or Content-Length)."""
    raise NotImplementedError


def invalidated(request: Request, url: bytes, response: Response) -> list[bytes]:
    """Return the URIs that are no longer valid after a method that is not safe (RFC 9111 section 4.4): `url`, the target
    URI, and those of Location and Content-Location if they have the same origin; none if the response is an error."""
    raise NotImplementedError
