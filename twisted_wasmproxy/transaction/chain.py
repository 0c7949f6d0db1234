"""The filter chain: the filters of one phase in a row, on one stream.

Requests pass the gates of its one lane in configured order, responses those of the other in reverse (see `lanes`). What
has passed the last gate comes out at the chain's owner.

A filter may ask for anything from inside its callback; it is done when the callback has returned. A resume asked
for inside the callback wins over its PAUSE. A resume of a gate while the chain is at work elsewhere is done when
that work has ended.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from twisted.python.failure import Failure

from twisted_wasmproxy.http.deadlines import NEVER, shared_deadlines
from twisted_wasmproxy.http.headers import Headers
from twisted_wasmproxy.http.messages import Request, Response
from twisted_wasmproxy.interfaces import IFilterFactory
from twisted_wasmproxy.logs import Logger
from twisted_wasmproxy.transaction.lanes import CLOSED_GATE, CLOSED_LANE, Gate, Held, Lane, RequestLane, ResponseLane
from twisted_wasmproxy.transaction.local import LocalReply
from twisted_wasmproxy.transaction.site import Site
from twisted_wasmproxy.transaction.states import Hook

__all__ = ["Chain", "ChainOwner", "FilterSlot"]

_log = Logger()


class FilterSlot:
    """One configured filter: its factory and what to do when it fails."""

    __slots__ = ("factory", "fail_open", "name")

    def __init__(self, factory: IFilterFactory, name: str, fail_open: bool) -> None:
        self.factory = factory
        self.name = name
        self.fail_open = fail_open


class ChainOwner(Protocol):
    """Who has a chain: the transaction (client phase) or the fetch from an origin (origin phase)."""

    request: Request
    response: Response | None
    filter_state: dict[tuple[bytes, ...], bytes]

    def attribute(self, path: tuple[bytes, ...]) -> object: ...

    def request_head_passed(self, end_stream: bool) -> None: ...

    def request_data_passed(self, data: bytes, end_stream: bool) -> None: ...

    def request_end_passed(self, trailers: Headers | None) -> None: ...

    def response_head_passed(self, end_stream: bool) -> None: ...

    def response_data_passed(self, data: bytes, end_stream: bool) -> None: ...

    def response_end_passed(self, trailers: Headers | None) -> None: ...

    def request_waits(self, waiting: bool) -> None:
        """Bytes of the request pile up behind a held head (or no longer do)."""

    def response_waits(self, waiting: bool) -> None: ...

    def local_reply(self, reply: LocalReply) -> None:
        """A filter answers. Ignored where an answer is on its way already."""

    def reset(self) -> None:
        """A filter breaks the stream off."""

    def request_overflow(self, name: str) -> None:
        """The named filter holds more than `buffer_limit`."""

    def response_overflow(self, name: str) -> None: ...

    def progress(self) -> int:
        """Return a number that grows whenever the stream moves on."""

    def held_too_long(self) -> None:
        """A filter has held the stream for as long as it may, and nothing has moved."""

    def crashed(self, failure: Failure | None = None) -> None:
        """Called in an except clause, or with a `failure`, for an exception that nobody expected and that is not a
        filter's: end the stream. Raises nothing."""


class Chain:
    """The filters of one phase on one stream.

    `buffer_limit` is how many bytes one filter may hold in one direction, `hold_limit` for how many seconds it may
    hold a stream that does not move; 0 for ever.
    """

    __slots__ = (
        *("buffer_limit", "closed", "depth", "hooks", "owner", "request", "response", "resumes", "sites"),
        *("_hold_limit", "_progress", "_watched", "deadline"),
    )

    def __init__(
        self, owner: ChainOwner, slots: Sequence[FilterSlot], buffer_limit: int, hold_limit: float = 0.0
    ) -> None:
        self.owner = owner
        self.buffer_limit = buffer_limit
        self.deadline = NEVER
        self._hold_limit = hold_limit
        self._watched = False
        self._progress = 0
        self.depth = 0
        self.closed = False
        self.resumes: list[tuple[Lane, Gate]] = []
        self.request: Lane = RequestLane(self)
        self.response: Lane = ResponseLane(self)
        self.sites: list[Site] = []
        self.hooks: list[tuple[Site, Callable[[Hook], None]]] = []
        """The filters that want to be told of each hook."""
        self._build(slots)

    def _build(self, slots: Sequence[FilterSlot]) -> None:
        """Make the filters. What one asks for already now is done when its turn comes."""
        sites = self.sites
        request, response = self.request.gates, self.response.gates
        for slot in slots:
            site = Site(self, slot)
            index = len(request)
            try:
                made = slot.factory.create(site)
            except Exception:  # as in Lane
                site.failed()
                made = None
            if made is None:
                if site.asked is None:
                    continue
                site.request_gate = first = Gate(site, index, None, None, None)
                site.response_gate = second = Gate(site, index, None, None, None)
            else:
                site.filter = made
                hook = getattr(made, "hook", None)
                if hook is not None:
                    self.hooks.append((site, hook))
                on_body, on_trailers = made.request_body, made.request_trailers
                site.request_gate = first = Gate(site, index, made.request_headers, on_body, on_trailers)
                if on_body is not None or on_trailers is not None:
                    self.request.looks_beyond_heads(on_body is not None)
                on_body, on_trailers = made.response_body, made.response_trailers
                site.response_gate = second = Gate(site, index, made.response_headers, on_body, on_trailers)
                if on_body is not None or on_trailers is not None:
                    self.response.looks_beyond_heads(on_body is not None)
            sites.append(site)
            request.append(first)
            response.append(second)
        if len(response) > 1:
            response.reverse()
            for index, gate in enumerate(response):
                gate.index = index

    def do_resumes(self) -> None:
        """At the end of the outermost piece of work: do the resumes that were asked for meanwhile."""
        while self.resumes and not self.depth:
            lane, gate = self.resumes.pop(0)
            lane.resume(gate)

    def tell(self, hook: Hook) -> None:
        """Tell the filters that want to know it of a hook. The stream may have ended afterwards."""
        for site, told in self.hooks:
            if not site.broken:
                try:
                    told(hook)
                except Exception:  # as in Lane
                    site.failed()
                    site.do_asked()

    def watch(self) -> None:
        """A gate holds from now on, or has just been shown more."""
        if self._hold_limit:
            deadlines = shared_deadlines()
            self._progress = self.owner.progress()
            self.deadline = deadlines.now + self._hold_limit
            if not self._watched:
                self._watched = True
                deadlines.add(self)

    def _unwatch(self) -> None:
        if self._watched:
            self._watched = False
            shared_deadlines().remove(self)

    def deadline_passed(self) -> None:
        """See `Deadlines`."""
        holding = next((g for g in (*self.request.gates, *self.response.gates) if g.held is not Held.OPEN), None)
        if holding is None:
            self._unwatch()
        elif self._progress != self.owner.progress():
            self.watch()
        else:
            self._unwatch()
            limit, name = self._hold_limit, holding.site.slot.name
            _log.warn("filter {name} has held a stream for {limit} s: given up", name=name, limit=limit)
            try:
                self.owner.held_too_long()
            except Exception:
                self.owner.crashed()

    def close(self) -> None:
        """The stream has ended: tell every filter, once."""
        if self.closed:
            return
        self.closed = True
        if self._watched:
            self._unwatch()
        for lane in (self.request, self.response):
            lane.stopped = True
            lane.transparent = False
            lane.era += 1
            lane.gates = []
        for site in self.sites:
            site.request_gate = site.response_gate = CLOSED_GATE
            made, site.filter = site.filter, None
            if made is not None:
                try:
                    made.closed()
                except Exception:  # one filter's failure is not the next one's
                    _log.failure("filter {name} failed at its end", name=site.slot.name)
        # All of these know each other: taken apart, they go at once, and not when the collector comes.
        self.sites = []
        self.hooks = []
        self.request = self.response = CLOSED_LANE
