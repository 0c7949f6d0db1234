"""`Fill`: one request to an origin, and what becomes of its answer: stored and shared, or passed on.

WAITING ──► STORING ──► COMMITTING ──► OVER     the answer is stored, while every client reads it at its own pace
   ├──► COMMITTING ───────────────────► OVER    a 304: the stored head gets what it says
   └──────────────────────────────────► OVER    it may not be stored, and goes to the one client that asked for it,
                                                     or there is none, and a stored one may stand in
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, DeferredList
from twisted.python.failure import Failure

from twisted_wasmproxy.cache import combining, policy, ranges
from twisted_wasmproxy.cache.answer import Parts
from twisted_wasmproxy.cache.arriving import arriving, complete
from twisted_wasmproxy.cache.backlog import Backlog
from twisted_wasmproxy.cache.delivery import Delivery, StoredContent
from twisted_wasmproxy.cache.entry import Selection, StoredHead
from twisted_wasmproxy.cache.growing import Growing
from twisted_wasmproxy.cache.lookup import Lookup
from twisted_wasmproxy.cache.question import as_get, asks_for_less, question
from twisted_wasmproxy.cache.selection import matches
from twisted_wasmproxy.cache.status import CacheStatus
from twisted_wasmproxy.http.headers import Headers
from twisted_wasmproxy.http.messages import Response
from twisted_wasmproxy.http.stream import ConnectionInfo, StreamError, StreamFault
from twisted_wasmproxy.interfaces import IStoredResponse
from twisted_wasmproxy.logs import Logger

if TYPE_CHECKING:
    from twisted_wasmproxy.cache.client import Client
    from twisted_wasmproxy.cache.coordinator import Cache
    from twisted_wasmproxy.transaction.fetch import Fetch
    from twisted_wasmproxy.transaction.local import LocalReply

__all__ = ["Fill"]

_log = Logger()


_SAFE = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE"})
"""RFC 9110 section 9.2.1; a method that is not known is none of them."""


_NOTHING: Mapping[bytes, IStoredResponse] = {}


class _State(Enum):
    WAITING = "for the head of the answer"
    STORING = "the content as it comes"
    COMMITTING = "all has come"
    OVER = "nothing more comes"


class Fill:
    """The consumer of a fetch (`FetchConsumer`) for all who want what it brings.

    `name` is what the cache knows it by; without one nobody else may join. `stale`: a stored response to validate, that
    may stand in if the origin fails. `gap`: `stale` is incomplete, and this part of it is wanted. `variants`: what is
    stored for other requests, by entity tag; the origin may choose one of them for this, too. `background`: no client
    waits for it.
    """

    def __init__(
        self,
        cache: Cache,
        lookup: Lookup,
        name: object = None,
        stale: IStoredResponse | None = None,
        gap: ranges.Part | None = None,
        variants: Mapping[bytes, IStoredResponse] = _NOTHING,
        background: bool = False,
    ) -> None:
        self._cache = cache
        self._asker = lookup
        """Whose request this is; its client may have gone."""
        self._leader = None if background else lookup
        self._background = background
        self._request = as_get(lookup.client.request) if background else lookup.client.request
        self._variants = variants
        self._waiting: list[Lookup] = []
        self._look_later: list[Lookup] = []
        self._name = name
        self._stale = stale
        self._gap = gap
        self._state = _State.WAITING
        self._fetch: Fetch | None = None
        self._request_time = self._response_time = time.time()
        self._doomed = False
        self._head: StoredHead | None = None
        self._parts: Parts = ()
        self._content: Growing | None = None
        self._stored: IStoredResponse | None = None
        self._stop: int | None = None
        """Where what comes ends, as announced."""
        self._received = 0
        self.filter_state = lookup.client.filter_state
        if not background:
            self._wait(lookup)

    @property
    def key(self) -> bytes:
        return self._asker.key

    def start(self, end_stream: bool = True) -> None:
        """Ask the origin. `end_stream`: the request has no content."""
        request = question(self._request, self._stale, self._gap, self._variants)
        fetch = self._fetch = self._asker.client.open_fetch(self, request, self._background)
        fetch.start(end_stream)

    # Those who want the answer

    def _wait(self, lookup: Lookup) -> None:
        lookup.fill = self
        self._waiting.append(lookup)
        lookup.client.take(lookup)

    def wait(self, lookup: Lookup) -> bool:
        """Let another request wait for the head; return whether it is still to come."""
        if self._state is not _State.WAITING:
            return False
        self._wait(lookup)
        return True

    def give(self, lookup: Lookup) -> bool:
        """Answer another request by what is coming in, if the head is here and it may have it; return whether so."""
        content = self._content
        if self._state is _State.OVER or self._head is None or (content is not None and content.outgrown):
            return False
        return self._share(lookup)

    def _share(self, lookup: Lookup) -> bool:
        """Give one that did not ask itself what comes, or has come; return whether it may have it."""
        head = self._head
        assert head is not None
        if self._state is _State.COMMITTING and self._content is not None:
            status = CacheStatus(hit=True)
        else:
            status = CacheStatus(fwd=lookup.fwd, collapsed=True)
        return self._cache.may_share(head, lookup) and self._answer(lookup, status)

    def _answer(self, lookup: Lookup, status: CacheStatus, headers: Headers | None = None) -> bool:
        """Answer from what is stored, or about to be; return False if it has not what is wanted."""
        head = self._head
        assert head is not None
        made = self._cache.answer(lookup, head, self._parts, status, headers, lookup is self._asker)
        if made is None:
            return False
        response, pieces = made
        client = lookup.client
        if not pieces:
            client.respond(response, True)
        elif self._stored is not None:
            Delivery(client, StoredContent(self._stored), pieces).start(response)
        else:
            assert self._content is not None
            self._content.deliver(client, response, pieces)
        return True

    def _take_waiting(self) -> list[Lookup]:
        """Return those who have waited; who asked comes first."""
        waiting, self._waiting = self._waiting, []
        for lookup in waiting:
            lookup.fill = None
            lookup.settle()
        return waiting

    def lookup_left(self, lookup: Lookup) -> None:
        """A client has gone that waited."""
        self._waiting.remove(lookup)
        lookup.settle()
        if lookup is self._leader:
            self._leader = None
        self._check_abandoned()

    def _check_abandoned(self) -> None:
        """End what nobody wants any more, if the rules say so or it could not be stored anyway."""
        if self._background or self._waiting or (self._content is not None and self._content.has_readers):
            return
        content = self._content
        finish = self._asker.caching.rules.finish_abandoned and not self._doomed
        if content is not None:
            if self._state is _State.STORING and content.length is None and (content.outgrown or not finish):
                content.abort()
                self._over()
        elif self._state is _State.WAITING and not (finish and self._name is not None):
            self._over()

    # Its end

    def look_later(self, lookup: Lookup) -> None:
        """What is being committed may be what this one looks for: let it look again when that is done."""
        lookup.client.take(lookup)
        self._look_later.append(lookup)

    def doom(self) -> int:
        """What is asked for has been invalidated: those who wait get it, but it is not kept, and nobody else joins.

        Return 1 if all has come and only the store has not taken it in yet, else 0.
        """
        self._doomed = True
        self._forget_name()
        return int(self._state is _State.COMMITTING and self._stale is None)

    def stop(self) -> None:
        """The proxy ends, or goes on with another store."""
        if self._content is not None and self._state is _State.STORING:
            self._content.abort()
        self._over()

    def is_selected(self, selection: Selection) -> bool:
        """Say whether a purge of this selection is about what comes. What it will be like is not known before its head:
        it may have been made before the purge, with any key."""
        head = self._head
        if head is None:
            selection = replace(selection, surrogate_key=None)
            head = StoredHead(self._asker.key, self._asker.url, 0, b"", Headers(), 0.0, 0.0)
        return matches(selection, head)

    def _forget_name(self) -> None:
        name, self._name = self._name, None
        if name is not None:
            self._cache.forget(name, self)

    def _over(self) -> None:
        self._state = _State.OVER
        self._forget_name()
        self._cache.ended(self)
        self._close_fetch()
        later, self._look_later = self._look_later, []
        for lookup in later:
            if not lookup.client.closed:
                self._cache.look(lookup)

    def _close_fetch(self) -> None:
        fetch, self._fetch = self._fetch, None
        if fetch is not None:
            fetch.close()
            if self._background or self._asker.client.closed:
                fetch.let_go()

    def _restart(self) -> None:
        """Ask again, and for the whole: what is stored turned out to be of no use."""
        self._stale = self._gap = None
        self._variants = _NOTHING
        self._close_fetch()
        self.start()

    # FetchConsumer: the request

    def attribute(self, path: tuple[bytes, ...]) -> object:
        return self._asker.client.attribute(path)

    def progress(self) -> int:
        return self._received

    def fetch_connecting(self) -> None:
        if self._leader is not None:
            self._leader.client.fetch_connecting()

    def fetch_sending(self, connection: ConnectionInfo) -> None:
        self._request_time = time.time()
        if self._leader is not None:
            self._leader.client.fetch_sending(connection)

    def fetch_answered(self) -> None:
        self._response_time = time.time()
        if self._leader is not None:
            self._leader.client.fetch_answered()

    def fetch_informational(self, response: Response) -> None:
        if self._leader is not None:
            self._leader.client.fetch_informational(response)

    def fetch_wants_pause(self, pause: bool) -> None:
        if self._leader is not None:
            self._leader.client.fetch_wants_pause(pause)

    # FetchConsumer: the head of the answer

    def fetch_response(self, response: Response, end_stream: bool) -> None:
        asker = self._asker
        asker.client.incoming(response)
        if self._request.method not in _SAFE:
            purges = self._cache.invalidate(asker, response)
            if purges:
                assert self._fetch is not None
                Backlog(
                    self._fetch, DeferredList(purges, consumeErrors=True), lambda: self._decide(response, end_stream)
                )
                return
        self._decide(response, end_stream)

    def _decide(self, response: Response, end_stream: bool) -> None:
        caching = self._asker.caching
        if response.status == 304 and self._variants:
            etag = response.headers.get(b"etag")
            if etag is None and len(self._variants) == 1:
                (etag,) = self._variants
            chosen = self._variants.get(etag) if etag is not None else None
            if chosen is None:
                self._restart()
            else:
                self._validated(chosen, response)
            return
        stale = self._stale
        if stale is not None:
            if self._request.method == b"HEAD":
                self._head_came(stale, response)
            elif response.status == 304 and self._gap is None and policy.validators(stale.head):
                self._validated(stale, response)
                return
            elif response.status in caching.rules.error_statuses and self._stand_in(stale, response.status):
                return
            elif response.status in (206, 416) and self._gap is not None and not self._fits(stale, response):
                self._restart()
                return
        why = self._why_not_store(response)
        if why or not self._store(response, end_stream):
            self._pass_on(response, end_stream, why or "not taken by the store")

    def _why_not_store(self, response: Response) -> str:
        if self._doomed:
            return "invalidated meanwhile"
        caching = self._asker.caching
        return policy.why_not_store(self._request, response, self._asker.wants, caching.rules, caching.config)

    def _head_came(self, stored: IStoredResponse, response: Response) -> None:
        """A HEAD was answered: what does that say of the stored response to GET (section 4.3.5)?"""
        if response.status != 200:
            return
        if policy.head_update(stored.head, response):
            self._cache.store.update(stored, self._freshened(stored, response))
        else:
            self._cache.store.remove(stored)

    def _freshened(self, stored: IStoredResponse, response: Response) -> StoredHead:
        caching = self._asker.caching
        times = self._request_time, self._response_time
        return policy.freshened(stored.head, response, *times, caching.rules, caching.config)

    def _validated(self, stored: IStoredResponse, response: Response) -> None:
        """A 304 to validators of ours (section 4.3.4). They are of one response, so it is valid; should the 304 name
        another representation, nothing of what it says is taken over but the time."""
        if not policy.same_representation(stored.head, response):
            response = Response(304, Headers((b"Date", value) for value in response.headers.get_all(b"date")))
        head = self._head = self._freshened(stored, response)
        self._parts = stored.parts
        self._stored = stored
        self._state = _State.COMMITTING
        self._close_fetch()
        updated = stored if self._doomed else self._cache.store.update(stored, head)
        if isinstance(updated, Deferred):
            updated.addCallbacks(self._committed, self._not_committed)
        else:
            self._committed(updated)
        if self._variants and not self._doomed:
            self._adopt(stored, head)
        for lookup in self._take_waiting():
            if lookup is self._asker:
                served = self._answer(lookup, CacheStatus(fwd=lookup.fwd, fwd_status=304))
            else:
                served = self._share(lookup)
            if not served:
                self._cache.ask_alone(lookup)

    def _adopt(self, stored: IStoredResponse, head: StoredHead) -> None:
        """The origin has chosen a variant of others for this request, too: store it for requests like this one, if it is
        at hand."""
        body = stored.body
        if body is not None:
            vary = policy.selecting([name for name, _ in head.vary], self._request.headers)
            writer = self._cache.store.create(head.replaced(vary=vary), len(body), None, 0)
            if writer is not None:
                content = Growing(writer, 0, lambda _: None, lambda: None)
                content.add(body, True)
                content.commit(writer.head, lambda _: None)

    def _fits(self, stored: IStoredResponse, response: Response) -> bool:
        """Say whether a 206 is the part that was asked for, of the same representation (section 3.4)."""
        got = ranges.content_range(response.headers.get(b"content-range"))
        return (
            got is not None
            and (got.start, got.stop) == self._gap
            and got.length == stored.head.length
            and combining.same_representation(stored.head.headers, response.headers)
        )

    def _stand_in(self, stale: IStoredResponse, status: int | None) -> bool:
        """Answer with the stale response, where that is allowed; return False if not even who asked may have it."""
        if self._leader is not None and not self._cache.may_stand_in(self._leader, stale):
            return False
        waiting = self._take_waiting()
        self._over()
        for lookup in waiting:
            if self._cache.may_stand_in(lookup, stale):
                self._cache.answer_stored(lookup, stale, CacheStatus(fwd="stale", fwd_status=status))
            else:
                self._cache.ask_alone(lookup)
        return True

    def _store(self, response: Response, end_stream: bool) -> bool:
        """Begin to store, and answer those who wait; return False if the store does not take it."""
        times = self._request_time, self._response_time
        came = arriving(self._asker, self._request, response, end_stream, *times)
        if came is None:
            return False
        head, start, stop = came
        base = self._base(response) if response.status == 206 else None
        writer = self._cache.store.create(head, stop - start if stop is not None else None, base, start)
        if writer is None:
            return False
        self._head = head
        if base is not None and stop is not None:
            self._parts = ranges.union(base.parts, (start, stop))
        else:
            self._parts = ((start, stop),)
        self._stop = stop
        self._content = Growing(writer, start, self._pause, self._check_abandoned)
        self._state = _State.STORING
        self._give_heads(response, end_stream)
        if end_stream:
            self._ended(None)
        return True

    def _base(self, response: Response) -> IStoredResponse | None:
        """Return the stored response that a 206 is combined with."""
        stored = self._stale or self._asker.incomplete
        if stored is None or not combining.same_representation(stored.head.headers, response.headers):
            return None
        return stored

    def _give_heads(self, response: Response, end_stream: bool) -> None:
        """Answer those who wait: who asked gets what came, the others what is stored."""
        content = self._content
        assert content is not None
        for lookup in self._take_waiting():
            if lookup is not self._asker:
                if not self._share(lookup):
                    self._cache.ask_alone(lookup)
                continue
            status = CacheStatus(fwd=lookup.fwd, stored=True)
            asked = self._stale is not None or self._variants
            if asked and asks_for_less(self._request.headers):
                # What the client asked for is not what the origin was asked for.
                status.fwd_status = response.status
                if self._answer(lookup, status, None if self._gap is not None else response.headers.copy()):
                    continue
            elif self._gap is not None and response.status == 206:
                status.fwd_status = response.status
                if self._answer(lookup, status):
                    continue
            self._cache.say(lookup, response.headers, self._head, status)
            if end_stream:
                lookup.client.respond(response, True)
            else:
                content.deliver(lookup.client, response, [(content.stop, None)])

    def _pass_on(self, response: Response, end_stream: bool, why: str) -> None:
        """Give the answer to who asked, and let the others ask for themselves."""
        leader, fetch = self._leader, self._fetch
        others = [lookup for lookup in self._take_waiting() if lookup is not leader]
        if leader is None or fetch is None:
            self._over()
        else:
            self._fetch = None
            self._over()
            client = leader.client
            self._cache.say(leader, response.headers, None, CacheStatus(fwd=leader.fwd, detail=why))
            fetch.consumer = client
            client.take(fetch)
            client.respond(response, end_stream)
        self._cache.not_shared(self._asker, others)

    # FetchConsumer: the content, and what goes wrong

    def _pause(self, pause: bool) -> None:
        if self._fetch is not None:
            if pause:
                self._fetch.pause_reading()
            else:
                self._fetch.resume_reading()

    def fetch_data(self, data: bytes, end_stream: bool) -> None:
        content = self._content
        if content is None or self._state is not _State.STORING:
            return
        self._received += len(data)
        content.add(data, end_stream)
        if end_stream:
            self._commit()
        elif content.outgrown:
            self._forget_name()
            self._check_abandoned()

    def fetch_end(self, trailers: Headers | None) -> None:
        if self._state is _State.STORING:
            self._ended(trailers)

    def _ended(self, trailers: Headers | None) -> None:
        assert self._content is not None
        self._content.end(trailers)
        self._commit()

    def _commit(self) -> None:
        """All has come: store it, if it is as much as was announced (a filter may have changed it)."""
        head, content = self._head, self._content
        if self._state is not _State.STORING:
            return
        assert head is not None
        assert content is not None
        self._close_fetch()
        if self._doomed or content.outgrown or self._stop not in (None, content.stop):
            self._over()  # who reads still has what the writer keeps
            return
        self._state = _State.COMMITTING
        self._cache.committing(self)
        content.commit(complete(head, content.stop, content.trailers), self._committed)

    def _committed(self, stored: IStoredResponse | None) -> None:
        if stored is not None:
            self._stored = stored
        self._over()

    def _not_committed(self, failure: Failure) -> None:
        _log.error("a response could not be stored: {reason}", reason=failure.getErrorMessage())
        self._over()

    def fetch_failed(self, error: StreamError) -> None:
        if self._state is _State.STORING:
            assert self._content is not None
            self._over()
            self._content.fail(error)
        elif self._state is _State.WAITING and not (self._stale is not None and self._stand_in(self._stale, None)):
            waiting = self._take_waiting()
            self._over()
            for lookup in waiting:
                lookup.client.fetch_failed(error)

    def fetch_reply(self, reply: LocalReply) -> None:
        self._broken_off(lambda client: client.fetch_reply(reply))

    def fetch_reset(self) -> None:
        self._broken_off(lambda client: client.fetch_reset())

    def _broken_off(self, tell: Callable[[Client], None]) -> None:
        """A filter of the origin phase answers itself, or breaks off: that is for who asked."""
        leader, content = self._leader, self._content
        others = [lookup for lookup in self._take_waiting() if lookup is not leader]
        if content is not None:
            content.abort()
        self._over()
        if leader is not None and not leader.client.closed:
            tell(leader.client)
        if content is not None:
            content.fail(StreamError(StreamFault.INCOMPLETE, "broken off by a filter"))
        self._cache.not_shared(self._asker, others)
