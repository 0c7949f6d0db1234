"""What the rules of caching are asked, and what they answer: `Asked`, `Freshness`, `Reuse`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

__all__ = ["NOTHING_ASKED", "Asked", "Freshness", "Reuse"]


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
    not_for_cookies: bool = False
    """Its lifetime is guessed, and nobody knows whether it is the same for a request with Cookie: it is for those
    without."""
    latest: float = 0.0
    """When it came, or was purged softly, whatever was later: nobody knows how old it is at an earlier time."""


class Reuse(Enum):
    """How a stored response may answer a request."""

    FRESH = "fresh"
    STALE = "stale, as the request allows"
    REVALIDATE_BEHIND = "stale, while it is validated in the background"
    VALIDATE = "not without validation: it is stale, or no-cache"
    VALIDATE_FOR_CLIENT = "not without validation: the request wants so"
