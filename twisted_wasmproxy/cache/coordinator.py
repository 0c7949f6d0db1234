"""`Cache`: answers requests from its store, and sees to it that an origin is asked once for what many want.

lookup ─► fresh ──────────────► answer from the store
       ─► stale, allowed ─────► answer, and validate behind the client's back
       ─► stale or incomplete ► fill: validate or complete it   ┐ those who ask for the same meanwhile
       ─► nothing ────────────► fill: fetch it                  ┘ join the fill that is under way
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.python.failure import Failure

from twisted_wasmproxy.cache import answer as answers
from twisted_wasmproxy.cache import conditional, policy, ranges
from twisted_wasmproxy.cache.answer import Parts
from twisted_wasmproxy.cache.delivery import Delivery, Piece, StoredContent
from twisted_wasmproxy.cache.entry import Selection, StoredHead
from twisted_wasmproxy.cache.fill import Fill
from twisted_wasmproxy.cache.lookup import Caching, Lookup
from twisted_wasmproxy.cache.policy import Freshness, Reuse
from twisted_wasmproxy.cache.question import asks_for_less
from twisted_wasmproxy.cache.status import CacheStatus, add_status
from twisted_wasmproxy.config.model import CacheConfig
from twisted_wasmproxy.http.headers import Headers
from twisted_wasmproxy.http.messages import Response, SharedResponse
from twisted_wasmproxy.interfaces import ICacheStore, IStoredResponse
from twisted_wasmproxy.logs import Logger

if TYPE_CHECKING:
    from twisted_wasmproxy.cache.client import Client

__all__ = ["Cache"]

_log = Logger()

NOT_SHARED_FOR = 10.0
"""Seconds for which requests for something that turned out not to be shareable do not wait for each other."""

NOT_SHARED_LIMIT = 10_000

AT_ONCE = 16
"""How many of those that waited in vain ask the origin at a time."""

AT_A_TIME = 256 * 1024
"""Bytes of a body that are given to a client without asking whether it keeps up."""

_HIT = CacheStatus(hit=True)
_USABLE = frozenset({Reuse.FRESH, Reuse.STALE, Reuse.REVALIDATE_BEHIND})


class Cache:
    """A store and all that is under way for it. It outlives reloads that leave the store as it was."""

    def __init__(self, store: ICacheStore, config: CacheConfig) -> None:
        self.store = store
        self.config = config
        """The latest; those who ask bring theirs."""
        self._fills: dict[object, Fill] = {}
        self._committing: dict[bytes, list[Fill]] = {}
        self._opening: list[Callable[[], None]] | None = None
        """What waits for the store to be open; None when it is."""
        self._broken = False
        self._running: set[Fill] = set()
        self._not_shared: OrderedDict[bytes, float] = OrderedDict()

    def open(self) -> None:
        """Open the store; what comes before that is done waits. A store that cannot be opened is not used."""
        self._opening = []
        started = maybeDeferred(self.store.start)
        started.addErrback(self._not_opened)
        started.addCallback(self._opened)

    def _not_opened(self, failure: Failure) -> None:
        _log.error("no cache: {reason}", reason=failure.getErrorMessage())
        self._broken = True

    def _opened(self, _: object) -> None:
        waiting, self._opening = self._opening, None
        for go_on in waiting or ():
            try:
                go_on()
            except Exception:  # the others must go on all the same
                _log.failure("a request that waited for the store failed")

    # A request comes

    def serve(self, client: Client, caching: Caching, end_stream: bool) -> None:
        """Answer a request, from the store or by asking for it. `end_stream`: it has no content."""
        if self._opening is not None:
            client.take(Lookup(caching, client))
            self._opening.append(lambda: None if client.closed else self.serve(client, caching, end_stream))
            return
        if self._broken:
            fetch = client.open_fetch(client, client.request, False)
            client.take(fetch)
            fetch.start(end_stream)
            return
        lookup = Lookup(caching, client)
        request = client.request
        method = request.method
        if method not in (b"GET", b"HEAD") or method not in caching.methods:
            lookup.fwd = "method"
            self._forward(lookup, end_stream)
        elif not end_stream or (not lookup.plain and conditional.needs_origin(request.headers)):
            lookup.fwd = "bypass"
            self._forward(lookup, end_stream)
        else:
            self.look(lookup)

    def _forward(self, lookup: Lookup, end_stream: bool) -> None:
        if lookup.tell(CacheStatus(fwd=lookup.fwd)):
            Fill(self, lookup).start(end_stream)

    def ask_alone(self, lookup: Lookup) -> None:
        """Serve one that has waited for an answer that it cannot have; it waits for no other."""
        if not lookup.client.closed:
            lookup.alone = True
            self.look(lookup)

    def look(self, lookup: Lookup) -> None:
        """Look for what is stored, and go on by that."""
        found = self.store.lookup(lookup.key)
        if isinstance(found, Deferred):
            lookup.client.take(lookup)
            found.addCallback(self._found, lookup)
            found.addErrback(lambda failure: _log.failure("a lookup failed", failure))
        else:
            self._found(found, lookup)

    def _found(self, found: Sequence[IStoredResponse], lookup: Lookup) -> None:
        client = lookup.client
        if client.closed:
            lookup.settle()
            return
        now = time.time()
        stored = self._select(found, lookup)
        if stored is None:
            lookup.fwd = "vary-miss" if found else "uri-miss"
            self._ask(lookup, None, None, found)
            return
        memo = self._memo(stored, lookup.caching)
        fresh = memo.fresh
        verdict = policy.reuse(fresh, lookup.wants, now)
        if verdict is Reuse.FRESH and lookup.plain and stored.body and self._repeat(lookup, stored, memo, now):
            return
        if verdict in _USABLE:
            status = CacheStatus(hit=True)
            made = answers.answer(lookup, stored.head, stored.parts, fresh, status, now, None, False)
            if made is not None:
                lookup.settle()
                if lookup.tell(status):
                    self._give(client, stored, *made)
                    if verdict is Reuse.REVALIDATE_BEHIND:
                        self._refresh(lookup, stored)
                return
            lookup.fwd = "partial"
            lookup.incomplete = stored
            wanted = answers.wanted_part(lookup, stored.head)
            gaps = ranges.missing(stored.parts, wanted) if wanted is not None else ()
            self._ask(lookup, stored, gaps[0] if len(gaps) == 1 else None, found)
            return
        lookup.fwd = "stale" if verdict is Reuse.VALIDATE else "request"
        if stored.parts != ((0, stored.head.length),):
            lookup.incomplete = stored
            stored = None
        self._ask(lookup, stored, None, found)

    def _repeat(self, lookup: Lookup, stored: IStoredResponse, memo: _Memo, now: float) -> bool:
        """Answer as another request was answered within the same second: with no condition and no range, only Age and
        ttl can differ. Return False if the answer is not simply all of the body."""
        fresh, body = memo.fresh, stored.body
        assert body is not None
        second = int(policy.current_age(fresh, now)), round(fresh.fresh_until - now)
        if memo.second != second:
            status = CacheStatus(hit=True)
            made = answers.answer(lookup, stored.head, stored.parts, fresh, status, now, None, False)
            if made is None or made[1] != [(0, len(body))] or stored.head.trailers is not None:
                return False
            memo.second, memo.status = second, status
            memo.response = SharedResponse.of(made[0])
        assert memo.response is not None
        lookup.settle()
        if lookup.tell(memo.status):
            stored.used()
            lookup.client.respond(memo.response, False)
            if len(body) <= AT_A_TIME:
                lookup.client.fetch_data(body, True)
            else:
                Delivery(lookup.client, StoredContent(stored), [(0, len(body))]).go_on()
        return True

    def _select(self, found: Sequence[IStoredResponse], lookup: Lookup) -> IStoredResponse | None:
        """Return the latest stored response whose selecting fields are those of the request (section 4.1)."""
        headers = lookup.client.request.headers
        for stored in found:
            if policy.selects(stored.head, headers):
                return stored
        return None

    # Asking an origin

    def _ask(
        self,
        lookup: Lookup,
        stored: IStoredResponse | None,
        gap: ranges.Part | None,
        found: Sequence[IStoredResponse],
    ) -> None:
        client = lookup.client
        if not lookup.tell(CacheStatus(fwd=lookup.fwd)):
            return
        if lookup.fwd == "partial" and gap is None:
            stored = None
        headers = client.request.headers
        names = [name for name, _ in found[0].head.vary] if found else ()
        base = (lookup.key, policy.selecting(names, headers) if names else ())
        fill = self._fills.get((*base, None))
        if fill is not None and fill.give(lookup):
            return
        committing = self._committing.get(lookup.key)
        if committing:
            committing[-1].look_later(lookup)
            return
        if lookup.wants.only_if_cached:
            client.not_cached()
            return
        name = None
        if not lookup.alone and self._may_be_shared(lookup, stored):
            name = (*base, _part(headers, stored, gap))
        if name is not None and lookup.fwd != "request":
            fill = self._fills.get(name)
            if fill is not None and fill.wait(lookup):
                return
        variants = _by_entity_tag(found) if lookup.fwd == "vary-miss" and not asks_for_less(headers) else {}
        fill = Fill(self, lookup, name, stored, gap, variants)
        if name is not None:
            self._fills[name] = fill
        self._running.add(fill)
        fill.start()

    def _may_be_shared(self, lookup: Lookup, stored: IStoredResponse | None) -> bool:
        """Say whether others may wait for what this request asks for: it is not known to be for this client alone."""
        request = lookup.client.request
        return (
            request.method == b"GET"
            and lookup.caching.rules.collapse
            and not lookup.wants.no_store
            and b"authorization" not in request.headers
            and (stored is not None or not conditional.is_conditional(request.headers))
            and not self._is_not_shared(lookup.key)
        )

    def _refresh(self, lookup: Lookup, stored: IStoredResponse) -> None:
        """Validate in the background (RFC 5861 section 3), unless that is under way."""
        name = (lookup.key, stored.head.vary, "refresh")
        if name not in self._fills and not lookup.client.closed:
            fill = self._fills[name] = Fill(self, lookup, name, stored, background=True)
            self._running.add(fill)
            fill.start()

    def forget(self, name: object, fill: Fill) -> None:
        """Nobody may join this fill under its name any more."""
        if self._fills.get(name) is fill:
            del self._fills[name]

    def committing(self, fill: Fill) -> None:
        """All has come, and the store is taking it in: who does not find it yet looks again when it has."""
        self._committing.setdefault(fill.key, []).append(fill)

    def ended(self, fill: Fill) -> None:
        """A fill is over."""
        self._running.discard(fill)
        committing = self._committing.get(fill.key)
        if committing is not None and fill in committing:
            committing.remove(fill)
            if not committing:
                del self._committing[fill.key]

    # What was waited for cannot be shared

    def _is_not_shared(self, key: bytes) -> bool:
        until = self._not_shared.get(key)
        if until is None:
            return False
        if until < time.monotonic():
            del self._not_shared[key]
            return False
        return True

    def not_shared(self, lookup: Lookup, others: Sequence[Lookup]) -> None:
        """What this one asked for cannot be shared: for a while nobody waits for it. The `others` that did ask for
        themselves now, a few at a time, and get what is stored meanwhile if one of them brings what can be shared."""
        if lookup.client.request.method == b"GET":
            self._not_shared[lookup.key] = time.monotonic() + NOT_SHARED_FOR
            self._not_shared.move_to_end(lookup.key)
            if len(self._not_shared) > NOT_SHARED_LIMIT:
                self._not_shared.popitem(last=False)
        if others:
            _Queue(self, others)

    # Answers from what is stored

    def _memo(self, stored: IStoredResponse, caching: Caching) -> _Memo:
        memo = stored.memo
        if not isinstance(memo, _Memo) or memo.caching is not caching:
            memo = stored.memo = _Memo(caching, policy.freshness(stored.head, caching.rules, caching.config))
        return memo

    def _fresh(self, stored: IStoredResponse, caching: Caching) -> Freshness:
        """As `policy.freshness`, worked out once for a stored response and a rule."""
        return self._memo(stored, caching).fresh

    def may_share(self, head: StoredHead, lookup: Lookup) -> bool:
        """Say whether a request may be answered by what another has brought (section 4)."""
        if not policy.selects(head, lookup.client.request.headers):
            return False
        fresh = policy.freshness(head, lookup.caching.rules, lookup.caching.config)
        return policy.reuse(fresh, lookup.wants, time.time()) in _USABLE

    def may_stand_in(self, lookup: Lookup, stored: IStoredResponse) -> bool:
        """Say whether a stale response may be given because the origin fails."""
        return policy.may_serve_on_error(self._fresh(stored, lookup.caching), lookup.wants, time.time())

    def answer(
        self,
        lookup: Lookup,
        head: StoredHead,
        parts: Parts,
        status: CacheStatus,
        headers: Headers | None,
        validated: bool,
    ) -> tuple[Response, list[Piece]] | None:
        """As `answer.answer`, for what has just come."""
        fresh = policy.freshness(head, lookup.caching.rules, lookup.caching.config)
        made = answers.answer(lookup, head, parts, fresh, status, time.time(), headers, validated)
        if made is not None:
            lookup.client.cache_status = status
        return made

    def answer_stored(self, lookup: Lookup, stored: IStoredResponse, status: CacheStatus) -> None:
        """Answer from the store, whatever the age."""
        fresh = self._fresh(stored, lookup.caching)
        made = answers.answer(lookup, stored.head, stored.parts, fresh, status, time.time(), None, False)
        if made is None:
            self.ask_alone(lookup)
        else:
            lookup.client.cache_status = status
            self._give(lookup.client, stored, *made)

    def _give(self, client: Client, stored: IStoredResponse, response: Response, pieces: list[Piece]) -> None:
        stored.used()
        if not pieces:
            client.respond(response, True)
        else:
            Delivery(client, StoredContent(stored), pieces).start(response)

    def say(self, lookup: Lookup, headers: Headers, head: StoredHead | None, status: CacheStatus) -> None:
        """Make the fields of an answer that goes on as it came fit for the client."""
        caching = lookup.caching
        if head is not None:
            fresh = policy.freshness(head, caching.rules, caching.config)
            status.ttl = round(fresh.fresh_until - time.time())
        if caching.config.surrogate_key_header is not None:
            headers.remove(caching.config.surrogate_key_header.encode())
        lookup.client.cache_status = status
        add_status(headers, status, lookup.key, caching.config)

    # Invalidation and control

    def invalidate(self, lookup: Lookup, response: Response) -> list[Deferred[int]]:
        """Forget what an unsafe request has made invalid (section 4.4); return what has to be waited for."""
        waits = []
        request = lookup.client.request
        for url in policy.invalidated(request, lookup.url, response):
            _, found = lookup.caching.keys.make_for(url, request)
            purged = self.purge(Selection(url=found), False)
            if isinstance(purged, Deferred):
                waits.append(purged)
        return waits

    def purge(self, selection: Selection, soft: bool) -> int | Deferred[int]:
        """Forget what is selected, or make it stale if `soft`; return how many stored responses there were."""
        if self._opening is not None:
            opened: Deferred[None] = Deferred()
            self._opening.append(lambda: opened.callback(None))
            return opened.addCallback(lambda _: self.purge(selection, soft))
        arrived = 0
        for fill in list(self._running):
            if fill.is_selected(selection):
                arrived += fill.doom()
        purged = self.store.purge(selection, soft)
        if isinstance(purged, Deferred):
            return purged.addCallback(arrived.__add__)
        return arrived + purged

    def entries(
        self, selection: Selection, limit: int
    ) -> Sequence[IStoredResponse] | Deferred[Sequence[IStoredResponse]]:
        """Return stored responses for people to look at."""
        return self.store.entries(selection, limit)

    def close(self) -> Deferred[None]:
        """End what is under way, and close the store."""
        for fill in list(self._running):
            fill.stop()
        return self.store.stop() or succeed(None)

    def freshness_of(self, stored: IStoredResponse) -> Freshness:
        """Return how long a stored response may be used, by the rules that it was used by last."""
        if isinstance(stored.memo, _Memo):
            return stored.memo.fresh
        return policy.freshness(stored.head, self.config.rules, self.config)

    def stats(self) -> Mapping[str, object] | Deferred[Any]:
        """Return the figures of the store."""
        return self.store.stats()


def _part(headers: Headers, stored: IStoredResponse | None, gap: ranges.Part | None) -> object:
    """Return what tells requests for different parts of the same apart; None for the whole."""
    if gap is not None or stored is not None or b"range" not in headers:
        return gap
    return headers.get(b"range"), headers.get(b"if-range")


def _by_entity_tag(found: Sequence[IStoredResponse]) -> dict[bytes, IStoredResponse]:
    """Return the complete ones that have an entity tag, to be named in If-None-Match (section 4.1)."""
    tagged: dict[bytes, IStoredResponse] = {}
    for stored in found:
        etag = stored.head.headers.get(b"etag")
        if etag is not None and etag.endswith(b'"') and stored.parts == ((0, stored.head.length),):
            tagged.setdefault(etag, stored)
    return tagged


class _Memo:
    """What has been worked out of a stored response for one rule, and the answer that was given last."""

    __slots__ = ("caching", "fresh", "response", "second", "status")

    def __init__(self, caching: Caching, fresh: Freshness) -> None:
        self.caching = caching
        self.fresh = fresh
        self.second: tuple[int, int] | None = None
        """Age and ttl of the answer."""
        self.status = _HIT
        self.response: SharedResponse | None = None


class _Queue:
    """Requests that waited in vain: as one has its answer, the next one asks."""

    def __init__(self, cache: Cache, lookups: Sequence[Lookup]) -> None:
        self._cache = cache
        self._lookups = deque(lookups)
        self._asking = 0
        self._busy = False
        self._go_on()

    def _go_on(self) -> None:
        if self._busy:
            return
        self._busy = True
        while self._lookups and self._asking < AT_ONCE:
            lookup = self._lookups.popleft()
            if not lookup.client.closed:
                self._asking += 1
                lookup.on_settled = self._settled
                self._cache.ask_alone(lookup)
        self._busy = False

    def _settled(self) -> None:
        self._asking -= 1
        self._go_on()
