"""The calls about the cache: purge, statistics, and what is stored."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

from twisted_wasmproxy.admin.api import ApiError, Call, Members
from twisted_wasmproxy.admin.control import CacheControl
from twisted_wasmproxy.cache.clock import CLOCK, Clock
from twisted_wasmproxy.cache.entry import Selection, StoreError
from twisted_wasmproxy.cache.keys import ANY_HOST, normalized_url, shown_key
from twisted_wasmproxy.cache.policy import Freshness, current_age, remaining
from twisted_wasmproxy.http.headers import Headers
from twisted_wasmproxy.interfaces import IStoredResponse

__all__ = ["CacheCalls", "selected_url"]

DEFAULT_LIMIT, MAX_LIMIT = 100, 1_000
"""How many stored responses `GET /cache/entries` shows. A thousand hold the reactor up for some 40 ms."""

_URL = re.compile(r"(https?)://([^/?#]*)([^#]*)(?:#.*)?", re.IGNORECASE | re.DOTALL | re.ASCII)
_AUTHORITY = re.compile(r"(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_NOT_IN_URLS = re.compile(r"[^!-~]+")
_CRITERIA = ("url", "prefix", "host", "key")


class CacheCalls:
    """Serves `/cache/...` by the cache in use."""

    def __init__(self, clock: Clock = CLOCK) -> None:
        self._clock = clock
        self.control: CacheControl | None = None
        """None: the configuration has no cache."""

    def calls(self) -> Mapping[str, Mapping[str, Call]]:
        """Return the calls by path and method, for an `Api`."""
        return {
            "/cache/purge": {"POST": self.purge},
            "/cache/stats": {"GET": self.stats},
            "/cache/entries": {"GET": self.entries},
            "/cache/entry": {"GET": self.entry},
        }

    def purge(self, members: Members) -> Deferred[Mapping[str, object]]:
        """`{"url" | "prefix" | "host" | "key": text, "soft": bool}` or `{"all": true}` -> `{"purged": number}`.

        Several criteria select what meets them all.
        """
        _known(members, (*_CRITERIA, "all", "soft"))
        for name in ("all", "soft"):
            if not isinstance(members.get(name, False), bool):
                raise ApiError(400, f"{name!r} must be true or false")
        selection = _selection(members)
        if members.get("all", False) == (selection != Selection()):
            raise ApiError(400, 'say what to purge: "url", "prefix", "host", "key", or nothing but "all": true')
        soft = members.get("soft", False) is True
        return self._ask(lambda cache: cache.purge(selection, soft), lambda _, purged: {"purged": purged})

    def stats(self, members: Members) -> Deferred[Mapping[str, object]]:
        """Return the figures of the cache."""
        _known(members, ())
        return self._ask(lambda cache: cache.stats(), lambda _, figures: dict(figures))

    def entries(self, members: Members) -> Deferred[Mapping[str, object]]:
        """`?url=&prefix=&host=&key=&limit=` -> `{"entries": [...], "more": whether there are more than the limit}`."""
        _known(members, (*_CRITERIA, "limit"))
        selection = _selection(members)
        limit = _limit(members.get("limit", str(DEFAULT_LIMIT)))

        def listed(cache: CacheControl, found: Sequence[IStoredResponse]) -> dict[str, object]:
            now = self._clock.now()
            entries = [_summary(stored, cache.freshness_of(stored), now) for stored in found[:limit]]
            return {"entries": entries, "more": len(found) > limit}

        return self._ask(lambda cache: cache.entries(selection, limit + 1), listed)

    def entry(self, members: Members) -> Deferred[Mapping[str, object]]:
        """`?url=` -> `{"url": normalised, "variants": [...]}`, 404 if nothing is stored."""
        _known(members, ("url",))
        if "url" not in members:
            raise ApiError(400, "say which 'url'")
        url = selected_url("url", members["url"])

        def shown(cache: CacheControl, found: Sequence[IStoredResponse]) -> dict[str, object]:
            if not found:
                raise ApiError(404, f"nothing is stored for {_text(url)}")
            now = self._clock.now()
            return {
                "url": _text(url),
                "variants": [_whole(stored, cache.freshness_of(stored), now) for stored in found],
            }

        return self._ask(lambda cache: cache.entries(Selection(url=url), MAX_LIMIT), shown)

    def _ask(
        self, question: Callable[[CacheControl], Any], answer: Callable[[CacheControl, Any], Mapping[str, object]]
    ) -> Deferred[Mapping[str, object]]:
        cache = self.control
        if cache is None:
            raise ApiError(503, "there is no cache: the configuration has no 'cache' section")

        def failed(failure: Failure) -> Any:
            failure.trap(StoreError)
            raise ApiError(503, f"the cache store cannot do this: {failure.getErrorMessage()}")

        return maybeDeferred(question, cache).addErrback(failed).addCallback(lambda result: answer(cache, result))


# What is asked


def _known(members: Members, names: Sequence[str]) -> None:
    for name in members:
        if name not in names:
            raise ApiError(400, f"unknown: {name!r}; known: {', '.join(names) or 'nothing'}")


def _selection(members: Members) -> Selection:
    return Selection(
        url=selected_url("url", members["url"]) if "url" in members else None,
        prefix=selected_url("prefix", members["prefix"]) if "prefix" in members else None,
        host=_host(members["host"]) if "host" in members else None,
        surrogate_key=_surrogate_key(members["key"]) if "key" in members else None,
    )


def selected_url(name: str, value: object) -> bytes:
    """Return a URL that somebody wrote as it is stored: normalised, what cannot be in a URL percent-encoded.

    Raises ApiError (400) if it is not an absolute http or https URL.
    """
    match = _URL.fullmatch(_given_text(name, value))
    if match is None or not (_AUTHORITY.fullmatch(match[2]) or match[2] == ANY_HOST.decode()):
        raise ApiError(400, f"{name!r} must be a whole URL as https://example.com/path")
    scheme, authority, rest = match.groups()
    target = _NOT_IN_URLS.sub(lambda part: quote(part[0]), rest)
    return normalized_url(scheme.encode(), authority.encode(), target.encode())


def _host(value: object) -> bytes:
    host = _given_text("host", value)
    if not _AUTHORITY.fullmatch(host):
        raise ApiError(400, "'host' must be a host name or address, with or without a port")
    return host.lower().encode()


def _surrogate_key(value: object) -> bytes:
    key = _given_text("key", value)
    if not key.isascii() or " " in key:
        raise ApiError(400, "'key' must be one surrogate key: ASCII without spaces")
    return key.encode()


def _given_text(name: str, value: object) -> str:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise ApiError(400, f"{name!r} must be printable text")
    return value


def _limit(value: object) -> int:
    text = str(value)
    if not re.fullmatch(r"[0-9]{1,6}", text) or not 1 <= int(text) <= MAX_LIMIT:
        raise ApiError(400, f"'limit' must be a whole number from 1 to {MAX_LIMIT}")
    return int(text)


# What is answered


def _text(data: bytes) -> str:
    return data.decode("latin-1")


def _summary(stored: IStoredResponse, fresh: Freshness, now: float) -> dict[str, object]:
    head = stored.head
    return {
        "url": _text(head.url),
        "status": head.status,
        "state": _state(fresh, now),
        "age": round(current_age(fresh, now), 3),
        "ttl": round(remaining(fresh, now), 3),
        "size": stored.size,
        "length": head.length,
        "vary": {_text(name): None if value is None else _text(value) for name, value in head.vary},
    }


def _state(fresh: Freshness, now: float) -> str:
    if fresh.must_validate:
        return "no-cache"
    return "fresh" if remaining(fresh, now) > 0 else "stale"


def _whole(stored: IStoredResponse, fresh: Freshness, now: float) -> dict[str, object]:
    head = stored.head
    return {
        **_summary(stored, fresh, now),
        "key": _text(shown_key(head.key)),
        "reason": _text(head.reason),
        "version": _text(head.version),
        "request_time": head.request_time + head.wall_ahead,
        "response_time": head.received,
        "lifetime": fresh.lifetime,
        "stale_while_revalidate": fresh.stale_while_revalidate,
        "stale_if_error": fresh.stale_if_error,
        "never_stale": fresh.never_stale,
        "immutable": fresh.immutable,
        "purged": head.purged or None,
        "authorized": head.authorized,
        "complete": stored.parts == ((0, head.length),) or head.length == 0,
        "parts": [list(part) for part in stored.parts],
        "surrogate_keys": [_text(key) for key in head.surrogate_keys],
        "fields": _fields(head.headers),
        "trailers": _fields(head.trailers) if head.trailers else [],
    }


def _fields(headers: Headers) -> list[list[str]]:
    return [[_text(name), _text(value)] for name, value in headers]
