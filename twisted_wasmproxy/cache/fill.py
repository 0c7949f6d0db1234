"""`Fill`: one request to an origin, and what becomes of its answer: stored and shared, or passed on.

WAITING ──► STORING ──► COMMITTING ──► OVER     the answer is stored, while every client reads it at its own pace
   ├──► COMMITTING ───────────────────► OVER    a 304: the stored head gets what it says
   └──────────────────────────────────► OVER    it may not be stored, and goes to the one client that asked for it,
                                                     or there is none, and a stored one may stand in
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING

from twisted.python.failure import Failure

from twisted_wasmproxy.cache import combining, policy, ranges
from twisted_wasmproxy.cache.arriving import arriving, complete
from twisted_wasmproxy.cache.backlog import Backlog
from twisted_wasmproxy.cache.crowd import Crowd
from twisted_wasmproxy.cache.entry import Selection, StoredHead
from twisted_wasmproxy.cache.freshening import Freshening
from twisted_wasmproxy.cache.growing import Growing
from twisted_wasmproxy.cache.incoming import Incoming
from twisted_wasmproxy.cache.lookup import Lookup
from twisted_wasmproxy.cache.question import as_get, asks_for_less, question, without
from twisted_wasmproxy.cache.selection import matches
from twisted_wasmproxy.cache.status import CacheStatus
from twisted_wasmproxy.cache.turns import Turns
from twisted_wasmproxy.http.deadlines import NEVER, shared_deadlines
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

__all__ = ["Fill", "Name"]

_log = Logger()

Name = tuple[object, object]
"""What requests have in common that one answer can serve: the values of the selecting fields, and the part that is
wanted (None: the whole)."""

SLOW = 1024
"""Bytes a second; content that comes more slowly is not shared with those who come late."""

_GONE = frozenset({404, 410})
_NOTHING: Mapping[bytes, IStoredResponse] = {}


class _State(Enum):
    WAITING = "for the head of the answer"
    STORING = "the content as it comes"
    COMMITTING = "all has come"
    OVER = "nothing more comes"


class Fill:
    """The consumer of a fetch (`FetchConsumer`) for all who want what it brings.

    `name`: who asks for the same may wait for the head; without one nobody may. `stale`: a stored response to validate,
    that may stand in if the origin fails. `gap`: `stale` is incomplete, and this part of it is wanted. `variants`: what
    is stored for other requests, by entity tag; the origin may choose one of them for this, too. `background`: no
    client waits for it.
    """

    def __init__(
        self,
        cache: Cache,
        lookup: Lookup,
        name: Name | None = None,
        stale: IStoredResponse | None = None,
        gap: ranges.Part | None = None,
        variants: Mapping[bytes, IStoredResponse] = _NOTHING,
        background: bool = False,
    ) -> None:
        self._cache = cache
        self._asker = lookup
        """Whose request this is; its client may have gone."""
        self._crowd = Crowd()
        self.background = background
        self._request = as_get(lookup.client.request) if background else lookup.client.request
        self._variants = variants
        self._look_later: list[Lookup] = []
        self.name = name
        self._stale = stale
        self._gap = gap
        self._has_content = False
        self._rewritten = False
        """Whether the origin is asked for something else than the client has asked for."""
        self._state = _State.WAITING
        self._fetch: Fetch | None = None
        self._request_time = self._response_time = cache.clock.now()
        self._wall_ahead = 0.0
        self._doomed = False
        self._incoming: Incoming | None = None
        self._stop: int | None = None
        """Where what comes ends, as announced."""
        self._announced: int | None = None
        """Bytes that come, as announced."""
        self._received = 0
        self.deadline = NEVER
        """When somebody has waited for too long, or it has been fetched for nobody for too long (`Expiring`)."""
        self._impatient: list[Turns] = []
        """Those who have waited for too long, and ask by themselves."""
        self._abandoned: tuple[float, int] | None = None
        """When the last who wanted it went, and what had come then; None as long as somebody wants it."""
        self._stored_since = 0.0
        self.filter_state = lookup.client.filter_state
        self._held = [one for one in (stale, lookup.incomplete, *variants.values()) if one is not None]
        for one in self._held:
            one.hold()
        if not background:
            self._crowd.leader = lookup
            self._crowd.add(lookup, self, 0.0)

    @property
    def key(self) -> bytes:
        return self._asker.key

    @property
    def head(self) -> StoredHead | None:
        """The head that is stored; None as long as it has not come."""
        return self._incoming.head if self._incoming is not None else None

    def start(self, end_stream: bool = True, whole: bool = False) -> None:
        """Ask the origin. `end_stream`: the request has no content. `whole`: see `question`."""
        client = self._asker.client
        request = question(self._request, self._stale, self._gap, self._variants, whole)
        self._rewritten = request is not self._request
        request = without(request, self._asker.caching.strip)
        self._has_content = not end_stream
        fetch = self._fetch = client.open_fetch(self, request, self.background or client.closed)
        fetch.start(end_stream)

    # Those who want the answer

    def wait(self, lookup: Lookup, name: Name) -> bool:
        """Let another request wait for the head; return whether it is still to come, and what `name` says."""
        if self._state is not _State.WAITING or self.name != name:
            return False
        self._crowd.add(lookup, self, shared_deadlines().now)
        lookup.settle()
        self._abandoned = None
        self._watch()
        return True

    def give(self, lookup: Lookup) -> bool:
        """Answer another request by what is coming in, if the head is here and it may have it; return whether so."""
        incoming = self._incoming
        if incoming is None or self._doomed or self._state is _State.OVER or incoming.outgrown or self._drips():
            return False
        if not incoming.share(lookup):
            return False
        if self._abandoned is not None:
            self._abandoned = None
            self._watch()
        return True

    def _drips(self) -> bool:
        """Whether the content has come so slowly, and for so long, that nobody else should have to wait for it."""
        patience = self._asker.caching.rules.collapse_timeout
        took = time.monotonic() - self._stored_since
        return self._state is _State.STORING and 0 < patience < took and self._received < took * SLOW

    def look_later(self, lookup: Lookup) -> bool:
        """Let a request look again when all that has come is stored, if that may be what it looks for; return whether
        so."""
        head = self.head
        if self._state is not _State.COMMITTING or self._doomed or head is None:
            return False
        if not lookup.selects(head):
            return False
        lookup.client.take(lookup)
        lookup.settle()
        self._look_later.append(lookup)
        return True

    def lookup_left(self, lookup: Lookup) -> None:
        """A client has gone that waited."""
        self._crowd.release(lookup)
        self._check_abandoned()

    def _check_abandoned(self) -> None:
        """End what nobody wants any more, if the rules say so or it could not be stored anyway."""
        content = self._incoming.content if self._incoming is not None else None
        if self._crowd or (content is not None and content.has_readers):
            return
        if self._state is not _State.WAITING and (content is None or content.length is not None):
            return  # all has come
        if self._abandoned is None:
            self._abandoned = shared_deadlines().now, self._received
            self._watch()
        finish = self._may_finish() and not self._doomed
        if self._state is _State.STORING:
            assert content is not None
            if content.outgrown or not finish:
                content.abort()
                self._over()
        elif self._state is _State.WAITING and not (finish and self.name is not None):
            self._over()

    def _may_finish(self) -> bool:
        """Whether what is missing may be fetched though nobody waits for it."""
        rules = self._asker.caching.rules.finish_abandoned
        if self.background:
            return True
        if rules is None:
            return False
        if self._state is not _State.STORING or rules.completed == 0.0:
            return True
        assert self._abandoned is not None
        if self._announced is None:
            return self._received - self._abandoned[1] <= rules.remaining
        missing = self._announced - self._received
        return missing <= rules.remaining or self._received >= rules.completed * self._announced

    # Time

    def _watch(self) -> None:
        """See to it that `deadline_passed` is called when it should be."""
        rules = self._asker.caching.rules
        deadlines = [NEVER]
        if self._state is _State.WAITING and rules.collapse_timeout:
            since = self._crowd.waiting_since()
            if since is not None:
                deadlines.append(since + rules.collapse_timeout)
            if self._impatient:
                deadlines.append(shared_deadlines().now + rules.collapse_timeout)
        finish = rules.finish_abandoned
        if self._abandoned is not None and not self.background and finish is not None and finish.timeout:
            deadlines.append(self._abandoned[0] + finish.timeout)
        self.deadline = min(deadlines)
        if self.deadline == NEVER or self._state is _State.OVER:
            shared_deadlines().remove(self)
        else:
            shared_deadlines().add(self)

    def deadline_passed(self) -> None:
        """See `Deadlines`."""
        try:
            self._expired()
        except Exception:
            self.crashed()

    def _expired(self) -> None:
        """Somebody has waited for too long, or nobody has wanted it for too long."""
        rules = self._asker.caching.rules
        now = shared_deadlines().now
        finish = rules.finish_abandoned
        if self._abandoned is not None and finish and finish.timeout and now >= self._abandoned[0] + finish.timeout:
            content = self._incoming.content if self._incoming is not None else None
            wanted = self._crowd or (content is not None and content.has_readers)
            if not wanted and self._state in (_State.WAITING, _State.STORING):
                if content is not None:
                    content.abort()
                self._over()
                return
            self._abandoned = None  # somebody wants it, or all has come
        if self._state is _State.WAITING and rules.collapse_timeout:
            for turns in self._impatient:
                turns.widen()
            impatient = self._crowd.release_since(now - rules.collapse_timeout)
            if impatient:
                self._impatient.append(self._cache.ask_by_turns(impatient, alone=True))
            self._impatient = [turns for turns in self._impatient if not turns.is_done]
            self._check_abandoned()
        self._watch()

    # Its end

    def doom(self) -> int:
        """What is asked for has been invalidated: nobody else gets it, and it is not kept.

        Return 1 if all has come and only the store has not taken it in yet, else 0.
        """
        self._doomed = True
        self.name = None
        arrived = self._state is _State.COMMITTING and self._stale is None
        self._check_abandoned()
        return int(arrived)

    def is_part_of(self, head: StoredHead) -> bool:
        """Say whether it stores a part of what is selected by the same requests."""
        incoming = self._incoming
        return incoming is not None and not incoming.is_whole and incoming.head.vary == head.vary

    def stop(self) -> None:
        """The store is closed: whoever still wants something is told."""
        content = self._incoming.content if self._state is _State.STORING and self._incoming is not None else None
        self._break(StreamError(StreamFault.OVERLOAD, "the cache is closed"), content)

    def crashed(self, failure: Failure | None = None) -> None:
        """See `FetchConsumer`."""
        _log.failure("a request of the cache to an origin failed", failure)
        content = self._incoming.content if self._incoming is not None else None
        try:
            self._break(StreamError(StreamFault.INTERNAL, "internal error"), content)
        except Exception:
            _log.failure("a request of the cache to an origin could not be ended in order")
            self._state = _State.OVER
            self._cache.ended(self)

    def _break(self, error: StreamError, content: Growing | None) -> None:
        """End it, whatever it does, and fail all who wait for it or read `content`."""
        later, self._look_later = self._look_later, []
        waiting = [*self._crowd.release_all(), *later]
        self._over()
        _fail_all(waiting, error)
        if content is not None:
            content.fail(error)

    def is_selected(self, selection: Selection) -> bool:
        """Say whether a purge of this selection is about what comes. What it will be like is not known before its head:
        it may have been made before the purge, with any key."""
        head = self.head
        if head is None:
            selection = replace(selection, surrogate_key=None)
            head = StoredHead(self._asker.key, self._asker.url, 0, b"", Headers(), 0.0, 0.0)
        return matches(selection, head)

    def _over(self) -> None:
        if self._state is _State.OVER:
            return
        self._state = _State.OVER
        self._incoming = None  # its content knows this fill
        self._cache.ended(self)
        held, self._held = self._held, []
        try:
            self._close_fetch()
            for one in held:
                one.release()
            if self.deadline != NEVER:
                shared_deadlines().remove(self)
        except Exception:  # it is over all the same
            _log.failure("a request of the cache to an origin did not end in order")
        later, self._look_later = self._look_later, []
        for lookup in later:
            if not lookup.gone:
                try:
                    self._cache.look(lookup)
                except Exception:
                    lookup.crashed()

    def _close_fetch(self) -> None:
        fetch, self._fetch = self._fetch, None
        if fetch is not None:
            fetch.close()
            if self.background or self._asker.client.closed:
                fetch.let_go()

    def _restart(self) -> None:
        """Ask again, and for the whole: what is stored turned out to be of no use."""
        whole = self.name is not None and self._gap is None
        self._stale = self._gap = None
        self._variants = _NOTHING
        self._close_fetch()
        self.start(whole=whole)

    # FetchConsumer: the request

    def attribute(self, path: tuple[bytes, ...]) -> object:
        return self._asker.client.attribute(path)

    def progress(self) -> int:
        leader = self._crowd.leader
        return self._received + (leader.client.progress() if leader is not None else 0)

    def fetch_connecting(self) -> None:
        if self._crowd.leader is not None:
            self._crowd.leader.client.fetch_connecting()

    def fetch_sending(self, connection: ConnectionInfo) -> None:
        self._request_time = self._cache.clock.now()
        if self._crowd.leader is not None:
            self._crowd.leader.client.fetch_sending(connection)

    def fetch_answered(self) -> None:
        clock = self._cache.clock
        self._response_time = clock.now()
        self._wall_ahead = clock.ahead()
        if self._crowd.leader is not None:
            self._crowd.leader.client.fetch_answered()

    def fetch_informational(self, response: Response) -> None:
        if self._crowd.leader is not None:
            self._crowd.leader.client.fetch_informational(response)

    def fetch_wants_pause(self, pause: bool) -> None:
        if self._crowd.leader is not None:
            self._crowd.leader.client.fetch_wants_pause(pause)

    # FetchConsumer: the head of the answer

    def fetch_response(self, response: Response, end_stream: bool) -> None:
        self._asker.client.incoming(response)
        stale = self._stale
        if stale is not None and self._request.method == b"HEAD":
            work = self._freshening().by_head(stale, response) if not self._doomed else None
        else:
            work = self._cache.invalidate(self, self._asker, response)
        if work is not None:
            # Who has this answer and asks again does not find what was stored before.
            assert self._fetch is not None
            Backlog(self._fetch, work, lambda: self._decide(response, end_stream))
        else:
            self._decide(response, end_stream)

    def _decide(self, response: Response, end_stream: bool) -> None:
        if self._state is not _State.WAITING:  # given up while invalidations were waited for
            return
        if response.status not in self._asker.caching.rules.error_statuses:
            self._cache.succeeded(self.key)
        if self._concerns_stored(response):
            return
        why = self._why_not_store(response)
        if not why and self._store(response, end_stream):
            return
        if self._gap is not None and response.status in (206, 416):
            self._restart()  # that was part of an answer, but not what the client has asked for
            return
        stale = self._stale
        if stale is not None and self._gap is None and self._is_news(response):
            self._cache.store.remove(stale)
        self._pass_on(response, end_stream, why or "not taken by the store")

    def _is_news(self, response: Response) -> bool:
        """Whether it says that what is stored is no longer so (section 4.3.3), though it is not stored itself."""
        status = response.status
        return self._request.method == b"GET" and ((status < 400 and status != 304) or status in _GONE)

    def _concerns_stored(self, response: Response) -> bool:
        """See what the answer says of what is stored; return True if that was all there is to do."""
        stale, status = self._stale, response.status
        if status == 304 and self._variants:
            chosen = self._chosen(response)
            if chosen is None:
                self._restart()
            else:
                self._validated(chosen, response)
            return True
        if status in self._asker.caching.rules.error_statuses:
            if self.background:
                self._cache.refresh_failed(self.key)
            if not self._stand_in(status):
                return False
            self._over()
            return True
        if stale is None:
            return False
        if self._gap is None:
            if status == 304 and self._rewritten:
                self._validated(stale, response)
                return True
        elif status in (206, 416) and not combining.fits(stale.head, self._gap, response):
            self._restart()
            return True
        return False

    def _chosen(self, response: Response) -> IStoredResponse | None:
        """Return which of the variants a 304 has chosen (section 4.3.4); one that names none chooses the only one."""
        etag = response.headers.get(b"etag")
        if etag is None:
            return next(iter(self._variants.values())) if len(self._variants) == 1 else None
        return self._variants.get(etag)

    def _freshening(self) -> Freshening:
        return Freshening(self._asker.caching, self._request_time, self._response_time, self._wall_ahead)

    def _why_not_store(self, response: Response) -> str:
        if self._doomed:
            return "invalidated meanwhile"
        if self._has_content and self._request.method == b"GET":
            return "request content"  # which is not in the key, and may have been what was answered
        if response.status == 206 and self._gap is None and b"range" not in self._request.headers:
            return "status"  # a part that nobody has asked for
        caching = self._asker.caching
        received = self._response_time + self._wall_ahead
        return policy.why_not_store(self._request, response, self._asker.wants, caching.rules, caching.config, received)

    def _validated(self, stored: IStoredResponse, response: Response) -> None:
        """A 304 to validators of ours (section 4.3.4)."""
        freshening = self._freshening()
        head = freshening.freshened(stored, response)
        incoming = self._incoming = Incoming(self._cache, head, stored.parts, None, stored)
        self._state = _State.COMMITTING
        self._close_fetch()
        updated = None
        if not self._doomed:
            updated = freshening.update(stored, head)
            if self._variants:
                freshening.adopt(stored, head, self._request)
        others = []
        for lookup in self._crowd.in_turn():
            try:
                if lookup is self._asker:
                    served = incoming.answer(lookup, CacheStatus(fwd=lookup.fwd, fwd_status=304), validated=True)
                else:
                    served = incoming.share(lookup)
            except Exception:
                lookup.crashed()
                continue
            if not served:
                others.append(lookup)
        if updated is None:
            self._over()
        else:
            updated.addCallback(lambda _: self._over())
            updated.addErrback(self.crashed)
        if others:
            self._cache.ask_by_turns(others, alone=True)

    def _stand_in(self, status: int | None) -> bool:
        """Give what is stored, though stale, to those who may have it; `status` is that of the origin's error, None if
        it does not answer (section 4.2.4). Return whether something is stored, and nobody waits any more."""
        stored = self._stale or self._asker.incomplete
        if stored is None:
            return False
        for lookup in self._crowd:
            if (give := self._cache.stand_in(lookup, stored, status)) is not None:
                self._crowd.release(lookup)
                try:
                    give()
                except Exception:
                    lookup.crashed()
        return not self._crowd

    def _store(self, response: Response, end_stream: bool) -> bool:
        """Begin to store, and answer those who wait; return False if the store does not take it."""
        times = self._request_time, self._response_time, self._wall_ahead
        came = arriving(self._asker, self._request, response, end_stream, *times)
        if came is None:
            return False
        head, start, stop = came
        base = self._base(response, head.length) if response.status == 206 else None
        writer = self._cache.store.create(head, stop - start if stop is not None else None, base, start)
        if writer is None:
            return False
        content = Growing(writer, start, self._pause, self._check_abandoned)
        parts = ranges.union(base.parts, (start, stop)) if base is not None and stop is not None else ((start, stop),)
        self._incoming = Incoming(self._cache, head, parts, content, None)
        self._stop = stop
        self._announced = stop - start if stop is not None else None
        self._state = _State.STORING
        self._stored_since = time.monotonic()
        self._give_heads(self._incoming, content, response, end_stream)
        impatient, self._impatient = self._impatient, []
        for turns in impatient:
            turns.all_at_once()
        if end_stream:
            self.fetch_end(None)
        else:
            self._check_abandoned()
        return True

    def _base(self, response: Response, length: int | None) -> IStoredResponse | None:
        """Return the stored response that a 206 of a representation of `length` bytes is combined with."""
        stored = self._stale or self._asker.incomplete
        if stored is None or stored.head.length != length:
            return None
        return stored if combining.same_representation(stored.head.headers, response.headers) else None

    def _give_heads(self, incoming: Incoming, content: Growing, response: Response, end_stream: bool) -> None:
        """Answer those who wait: who asked gets what came, the others what is stored."""
        others = []
        for lookup in self._crowd.in_turn():
            try:
                if lookup is self._asker:
                    self._give_asker(incoming, content, response, end_stream)
                elif not incoming.share(lookup):
                    others.append(lookup)
            except Exception:
                lookup.crashed()
        if others:
            self._cache.ask_by_turns(others)

    def _give_asker(self, incoming: Incoming, content: Growing, response: Response, end_stream: bool) -> None:
        lookup = self._asker
        status = CacheStatus(fwd=lookup.fwd, stored=True)
        headers = None if self._gap is not None else response.headers.copy()
        less = asks_for_less(self._request.headers)
        if (self._rewritten and less) or (self._gap is not None and response.status == 206):
            # What the client asked for is not what the origin was asked for.
            status.fwd_status = response.status
            if incoming.answer(lookup, status, headers, validated=True):
                return
        self._cache.say(lookup, response.headers, incoming.head, status)
        if end_stream:
            lookup.client.respond(response, True)
        else:
            content.deliver(lookup.client, response, [(content.stop, None)])

    def _pass_on(self, response: Response, end_stream: bool, why: str) -> None:
        """Give the answer to who asked, and let the others ask for themselves."""
        leader, fetch = self._crowd.leader, self._fetch
        others = [lookup for lookup in self._crowd.release_all() if lookup is not leader]
        if leader is not None:
            self._fetch = None
        doomed = self._doomed
        try:
            self._over()
            if leader is not None:
                assert fetch is not None
                client = leader.client
                self._cache.say(leader, response.headers, None, CacheStatus(fwd=leader.fwd, detail=why))
                fetch.consumer = client
                client.take(fetch)
                client.respond(response, end_stream)
        except Exception:
            self._asker.crashed()
            if fetch is not None:
                fetch.give_up()
        if not doomed and response.status < 500:  # an error says nothing of what the resource is like
            self._cache.not_shared(self._asker)
        if others:
            self._cache.ask_by_turns(others, alone=True)

    # FetchConsumer: the content, and what goes wrong

    def _pause(self, pause: bool) -> None:
        if self._fetch is not None:
            if pause:
                self._fetch.pause_reading()
            else:
                self._fetch.resume_reading()

    def fetch_data(self, data: bytes, end_stream: bool) -> None:
        incoming = self._incoming
        if incoming is None or self._state is not _State.STORING:
            return
        content = incoming.content
        assert content is not None
        self._received += len(data)
        content.add(data, end_stream)
        if end_stream:
            self._commit(incoming, content)
        elif content.outgrown or self._abandoned is not None:
            self._check_abandoned()

    def fetch_end(self, trailers: Headers | None) -> None:
        incoming = self._incoming
        if incoming is None or self._state is not _State.STORING:
            return
        content = incoming.content
        assert content is not None
        content.end(trailers)
        self._commit(incoming, content)

    def _commit(self, incoming: Incoming, content: Growing) -> None:
        """All has come: store it, if it is as much as was announced (a filter may have changed it)."""
        if self._state is not _State.STORING:
            return
        self._close_fetch()
        if self._doomed or content.outgrown or self._stop not in (None, content.stop):
            self._over()
            content.drop()
            return
        self._state = _State.COMMITTING
        if incoming.is_whole:
            self._cache.whole_came(self)
        head = complete(incoming.head, content.stop, content.trailers)
        content.commit(head, lambda _: self._over(), self.crashed)

    def fetch_failed(self, error: StreamError) -> None:
        if self._state is _State.STORING:
            assert self._incoming is not None
            content = self._incoming.content
            assert content is not None
            self._over()
            content.fail(error)
        elif self._state is _State.WAITING:
            if self._stale is not None or self._asker.incomplete is not None:
                self._cache.unanswered(self.key)
                self._stand_in(None)
            waiting = self._crowd.release_all()
            self._over()
            _fail_all(waiting, error)

    def fetch_reply(self, reply: LocalReply) -> None:
        self._broken_off(lambda client: client.fetch_reply(reply))

    def fetch_reset(self) -> None:
        self._broken_off(lambda client: client.fetch_reset())

    def _broken_off(self, tell: Callable[[Client], None]) -> None:
        """A filter of the origin phase answers itself, or breaks off: that is for who asked."""
        asker = self._asker
        content = self._incoming.content if self._incoming is not None else None
        others = [lookup for lookup in self._crowd.release_all() if lookup is not asker]
        if content is not None:
            content.abort()
        self._over()
        if not (self.background or asker.gone or asker.client.closed):
            tell(asker.client)
        if content is not None:
            content.fail(StreamError(StreamFault.INCOMPLETE, "broken off by a filter"))
        if others:
            self._cache.ask_by_turns(others, alone=True)


def _fail_all(lookups: Iterable[Lookup], error: StreamError) -> None:
    """Tell requests that no answer comes."""
    for lookup in lookups:
        if not lookup.gone:
            try:
                lookup.client.fetch_failed(error)
            except Exception:
                lookup.crashed()
