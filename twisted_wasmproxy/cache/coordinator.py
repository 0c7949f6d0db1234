"""`Cache`: answers requests from its store, and sees to it that an origin is asked once for what many want.

lookup ─► fresh ──────────────► answer from the store
       ─► stale, allowed ─────► answer, and validate behind the client's back
       ─► stale or incomplete ► fill: validate or complete it   ┐ those who ask for the same meanwhile
       ─► nothing ────────────► fill: fetch it                  ┘ join the fill that is under way
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, DeferredList, fail, maybeDeferred
from twisted.python.failure import Failure

from twisted_wasmproxy.cache import answer as answers
from twisted_wasmproxy.cache import conditional, policy, ranges
from twisted_wasmproxy.cache.answer import Parts
from twisted_wasmproxy.cache.clock import CLOCK, Clock
from twisted_wasmproxy.cache.delivery import Delivery, Piece, StoredContent
from twisted_wasmproxy.cache.entry import Selection, StoredHead, StoreError
from twisted_wasmproxy.cache.fields import entity_tag
from twisted_wasmproxy.cache.fill import Fill
from twisted_wasmproxy.cache.lookup import Caching, Lookup
from twisted_wasmproxy.cache.policy import Freshness, Reuse
from twisted_wasmproxy.cache.question import asks_for_less
from twisted_wasmproxy.cache.recently import Recently
from twisted_wasmproxy.cache.status import CacheStatus, add_status
from twisted_wasmproxy.cache.turns import Turns
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

UNANSWERED_FOR = 60.0
"""Seconds for which what may stand in for an origin that did not answer does so at once, while it is asked again in the
background: nobody waits for the same time-out twice."""

REFRESH_PAUSE = 1.0
"""Seconds from a validation in the background that failed to the next one."""

TAGS_ASKED = 2048
"""Bytes of entity tags of other variants that an origin is asked about."""

AT_A_TIME = 256 * 1024
"""Bytes of a body that are given to a client without asking whether it keeps up."""

_HIT = CacheStatus(hit=True)
_USABLE = frozenset({Reuse.FRESH, Reuse.STALE, Reuse.REVALIDATE_BEHIND})


class Cache:
    """A store and all that is under way for it. It outlives reloads that leave the store as it was."""

    def __init__(self, store: ICacheStore, config: CacheConfig, clock: Clock = CLOCK) -> None:
        """`clock` must be the one by which the store notes when it was purged."""
        self.store = store
        self.clock = clock
        self.config = config
        """The latest; those who ask bring theirs."""
        self.cachings: dict[bytes, Caching] = {}
        """The latest rules, by the second field of the keys."""
        self._fills: dict[bytes, tuple[Fill, ...]] = {}
        """All that are under way, by key; the latest is the last."""
        self._opening: list[Callable[[], None]] | None = None
        """What waits for the store to be open; None when it is."""
        self._broken = False
        self._not_shared = Recently(NOT_SHARED_FOR)
        self._unanswered = Recently(UNANSWERED_FOR)
        self._refresh_failed = Recently(REFRESH_PAUSE)

    @property
    def under_way(self) -> int:
        """How many requests to origins are under way for it, those in the background too."""
        return sum(map(len, self._fills.values()))

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
            go_on()

    # A request comes

    def serve(self, client: Client, caching: Caching, end_stream: bool) -> None:
        """Answer a request, from the store or by asking for it. `end_stream`: it has no content."""
        if self._opening is not None:
            waiting = Lookup(caching, client)
            client.take(waiting)
            self._opening.append(lambda: self._serve_later(waiting, end_stream))
            return
        if self._broken:
            if client.looked_up(None):
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

    def _serve_later(self, waiting: Lookup, end_stream: bool) -> None:
        """Answer a request that has waited for the store."""
        if not waiting.gone:
            try:
                self.serve(waiting.client, waiting.caching, end_stream)
            except Exception:
                waiting.crashed()

    def _forward(self, lookup: Lookup, end_stream: bool) -> None:
        if lookup.tell(CacheStatus(fwd=lookup.fwd)):
            self._begin(Fill(self, lookup), end_stream)

    def look(self, lookup: Lookup) -> None:
        """Look for what is stored, and go on by that; a store that fails has nothing."""
        try:
            found = self.store.lookup(lookup.key)
        except StoreError as error:
            found = _nothing_found(error)
        if isinstance(found, Deferred):
            lookup.client.take(lookup)
            found.addErrback(lambda failure: _nothing_found(failure.value))
            found.addCallback(self._found_later, lookup, self._fills.get(lookup.key, ()))
            found.addErrback(lookup.crashed)
        else:
            self._found(found, lookup)

    def _found_later(self, found: Sequence[IStoredResponse], lookup: Lookup, fills: tuple[Fill, ...]) -> None:
        """Go on, unless one of the `fills` that were under way when it began to look has ended meanwhile: what that has
        stored may not have been seen."""
        now = self._fills.get(lookup.key, ())
        if all(fill in now for fill in fills):
            self._found(found, lookup)
        elif not lookup.gone:
            self.look(lookup)

    def _found(self, found: Sequence[IStoredResponse], lookup: Lookup) -> None:
        if lookup.gone:
            return
        client = lookup.client
        lookup.incomplete = None
        clock = self.clock
        now = clock.origin + clock.ticks()  # as `now`, without a call: for every hit
        stored = self._select(found, lookup)
        if stored is None:
            lookup.fwd = "vary-miss" if found else "uri-miss"
            self._ask(lookup, None, None, found)
            return
        memo = self._memo(stored, lookup.caching)
        fresh = memo.fresh
        if fresh.not_for_cookies and not lookup.may_have(fresh):
            lookup.fwd = "request"
            self._ask(lookup, None, None, found)
            return
        verdict = policy.reuse(fresh, lookup.wants, now)
        if verdict is Reuse.FRESH and lookup.plain and stored.body and self._repeat(lookup, stored, memo, now):
            return
        behind = verdict is Reuse.REVALIDATE_BEHIND
        if verdict is Reuse.VALIDATE and lookup.key in self._unanswered:
            behind = policy.may_serve_on_error(fresh, lookup.wants, now)
        usable = verdict in _USABLE
        if usable or behind:
            status = CacheStatus(hit=True)
            made = answers.answer(lookup, stored.head, stored.parts, fresh, status, now, None, False)
            if made is not None:
                lookup.settle()
                if lookup.tell(status):
                    if behind:  # first: the answer may end the transaction, whose request this is
                        self._refresh(lookup, stored)
                    self._give(client, stored, *made)
                return
        complete = stored.parts == ((0, stored.head.length),)
        if not complete:
            lookup.incomplete = stored
        if usable:
            lookup.fwd = "partial"
            wanted = answers.wanted_part(lookup, stored.head)
            gaps = ranges.missing(stored.parts, wanted) if wanted is not None else ()
            if len(gaps) == 1:
                self._ask(lookup, stored, gaps[0], found)
            else:
                self._ask(lookup, None, None, found)
        else:
            lookup.fwd = "stale" if verdict is Reuse.VALIDATE else "request"
            self._ask(lookup, stored if complete else None, None, found)

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
        for stored in found:
            if lookup.selects(stored.head):
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
            lookup.settle()
            return
        headers = client.request.headers
        fills = self._fills.get(lookup.key, ())
        for fill in fills:
            if fill.give(lookup):
                lookup.settle()
                return
        for fill in reversed(fills):
            if fill.look_later(lookup):
                return
        if lookup.wants.only_if_cached:
            lookup.settle()
            said = Headers()
            add_status(said, CacheStatus(detail="only-if-cached"), lookup.key, lookup.caching.config)
            client.not_cached(said)
            return
        name = None
        if self._may_be_shared(lookup, stored):
            heads = [stored.head for stored in found] or [fill.head for fill in fills if fill.head is not None]
            selecting = policy.selecting([name for name, _ in heads[0].vary], headers) if heads else ()
            name = selecting, _part(headers, stored, gap)
            if lookup.fwd != "request":
                for fill in fills:
                    if fill.wait(lookup, name):
                        return
            if client.request.method != b"GET":
                name = None
        variants = _by_entity_tag(found) if lookup.fwd == "vary-miss" and not asks_for_less(headers) else {}
        self._begin(Fill(self, lookup, name, stored, gap, variants), True)

    def _begin(self, fill: Fill, end_stream: bool) -> None:
        self._fills[fill.key] = (*self._fills.get(fill.key, ()), fill)
        try:
            fill.start(end_stream)
        except Exception:
            fill.crashed()

    def _may_be_shared(self, lookup: Lookup, stored: IStoredResponse | None) -> bool:
        """Say whether one answer may serve this request and others: it is not known to be for this client alone."""
        headers = lookup.client.request.headers
        return (
            not lookup.alone
            and lookup.caching.rules.collapse
            and not lookup.wants.no_store
            and b"authorization" not in headers
            and (stored is not None or not conditional.is_conditional(headers))
            and lookup.key not in self._not_shared
        )

    def _refresh(self, lookup: Lookup, stored: IStoredResponse) -> None:
        """Validate in the background (RFC 5861 section 3), unless that is under way, or has just failed."""
        name = stored.head.vary, "refresh"
        if lookup.key in self._refresh_failed:
            return
        if not any(fill.background and fill.name == name for fill in self._fills.get(lookup.key, ())):
            self._begin(Fill(self, lookup, name, stored, background=True), True)

    def ended(self, fill: Fill) -> None:
        """A fill is over."""
        left = tuple([other for other in self._fills.get(fill.key, ()) if other is not fill])
        if left:
            self._fills[fill.key] = left
        else:
            self._fills.pop(fill.key, None)

    def whole_came(self, fill: Fill) -> None:
        """All of a representation is about to be stored: no part that comes later takes its place."""
        head = fill.head
        assert head is not None
        for other in self._fills.get(fill.key, ()):
            if other is not fill and other.is_part_of(head):
                other.doom()

    # What was learnt of origins

    def not_shared(self, lookup: Lookup) -> None:
        """What this one asked for cannot be shared: for a while nobody waits for it."""
        if lookup.client.request.method == b"GET":
            self._not_shared.note(lookup.key)

    def unanswered(self, key: bytes) -> None:
        """The origin did not answer."""
        self._unanswered.note(key)
        self._refresh_failed.note(key)

    def refresh_failed(self, key: bytes) -> None:
        """A validation in the background was answered by an error."""
        self._refresh_failed.note(key)

    def succeeded(self, key: bytes) -> None:
        """The origin has given an answer that is no error."""
        self._unanswered.forget(key)
        self._refresh_failed.forget(key)

    def ask_by_turns(self, lookups: Sequence[Lookup], alone: bool = False) -> Turns:
        """Let those who waited in vain ask for themselves, a few at a time: they get what is stored meanwhile if one of
        them brings what can be shared. `alone`: they wait for no other; else once more, for one that is like them."""
        for lookup in lookups:
            lookup.alone = alone or lookup.again
            lookup.again = True
        return Turns(lookups, self.look)

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
        if not lookup.selects(head):
            return False
        fresh = policy.freshness(head, lookup.caching.rules, lookup.caching.config)
        return lookup.may_have(fresh) and policy.reuse(fresh, lookup.wants, self.clock.now()) in _USABLE

    def stand_in(self, lookup: Lookup, stored: IStoredResponse, status: int | None) -> Callable[[], None] | None:
        """Return what gives a stale response because the origin fails, by an answer of this `status` or none; None if
        this request may not have it, or wants what is not there."""
        now = self.clock.now()
        fresh = self._fresh(stored, lookup.caching)
        if not (lookup.may_have(fresh) and policy.may_serve_on_error(fresh, lookup.wants, now)):
            return None
        said = CacheStatus(fwd=lookup.fwd, fwd_status=status)
        made = answers.answer(lookup, stored.head, stored.parts, fresh, said, now, None, False)
        if made is None:
            return None

        def give() -> None:
            lookup.client.cache_status = said
            self._give(lookup.client, stored, *made)

        return give

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
        return answers.answer(lookup, head, parts, fresh, status, self.clock.now(), headers, validated)

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
            status.ttl = round(policy.remaining(fresh, self.clock.now()))
        if caching.config.surrogate_key_header is not None:
            headers.remove(caching.config.surrogate_key_header.encode())
        lookup.client.cache_status = status
        add_status(headers, status, lookup.key, caching.config)

    # Invalidation and control

    def invalidate(self, fill: Fill, asker: Lookup, response: Response) -> Deferred[Any] | None:
        """Forget what the answer to an unsafe request, which `fill` has brought, makes invalid (section 4.4); return
        what has to be waited for."""
        request = asker.client.request
        waits = []
        for url in policy.invalidated(request, asker.url, response):
            _, found = asker.caching.keys.make_for(url, request)
            purged = self.purge(Selection(url=found), False, fill)
            if isinstance(purged, Deferred):
                waits.append(purged.addErrback(_not_invalidated))
        return DeferredList(waits) if waits else None

    def purge(self, selection: Selection, soft: bool, but: Fill | None = None) -> int | Deferred[int]:
        """Forget what is selected, or make it stale if `soft`; return how many stored responses there were.

        What is on its way is not stored then, `but` for this one, which has caused the purge.
        """
        if self._broken:
            return 0
        if self._opening is not None:
            opened: Deferred[None] = Deferred()
            self._opening.append(lambda: opened.callback(None))
            return opened.addCallback(lambda _: self.purge(selection, soft, but))
        arrived = 0
        for fill in [fill for fills in self._fills.values() for fill in fills]:
            if fill is not but and fill.is_selected(selection):
                arrived += fill.doom()
        try:
            purged = self.store.purge(selection, soft)
        except StoreError:
            return fail()
        if isinstance(purged, Deferred):
            return purged.addCallback(arrived.__add__)
        return arrived + purged

    def entries(
        self, selection: Selection, limit: int
    ) -> Sequence[IStoredResponse] | Deferred[Sequence[IStoredResponse]]:
        """Return stored responses for people to look at."""
        if self._broken or self._opening is not None:
            return ()
        return self.store.entries(selection, limit)

    def close(self) -> Deferred[None]:
        """End what is under way, and close the store."""
        for fill in [fill for fills in self._fills.values() for fill in fills]:
            fill.stop()
        stopped: Deferred[None] = maybeDeferred(self.store.stop)  # type: ignore[call-overload]  # a Deferred or None
        return stopped

    def freshness_of(self, stored: IStoredResponse) -> Freshness:
        """Return how long a stored response may be used, by the rules that it was used by last, or will be."""
        if isinstance(stored.memo, _Memo):
            return stored.memo.fresh
        caching = self.cachings.get(stored.head.key.split(b"\0", 2)[1])
        if caching is None:
            return policy.freshness(stored.head, self.config.rules, self.config)
        return policy.freshness(stored.head, caching.rules, caching.config)

    def stats(self) -> Mapping[str, object] | Deferred[Any]:
        """Return the figures of the store; none while it is not open."""
        if self._broken or self._opening is not None:
            return {}
        return self.store.stats()


def _part(headers: Headers, stored: IStoredResponse | None, gap: ranges.Part | None) -> object:
    """Return what tells requests for different parts of the same apart; None for the whole."""
    if gap is not None or stored is not None or b"range" not in headers:
        return gap
    return headers.get(b"range"), headers.get(b"if-range")


def _by_entity_tag(found: Sequence[IStoredResponse]) -> dict[bytes, IStoredResponse]:
    """Return the latest complete ones that have an entity tag, to be named in If-None-Match (section 4.1)."""
    tagged: dict[bytes, IStoredResponse] = {}
    size = 0
    for stored in found:
        etag = entity_tag(stored.head.headers)
        if etag is not None and stored.parts == ((0, stored.head.length),) and etag not in tagged:
            size += len(etag)
            if size > TAGS_ASKED:
                break
            tagged[etag] = stored
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


def _nothing_found(reason: object) -> Sequence[IStoredResponse]:
    _log.error("what is stored cannot be read: {reason}", reason=reason)
    return ()


def _not_invalidated(failure: Failure) -> None:
    _log.error("what was changed may still be stored: {reason}", reason=failure.getErrorMessage())
