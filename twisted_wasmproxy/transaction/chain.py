"""The filter chain: filters in a row, each with its own pause state and its own held bytes in each direction.

A `Chain` has two `Lane`s of `Gate`s: requests pass the gates in configured order, responses in reverse. What has
passed the last gate comes out at the chain's owner. A gate shows what arrives to its filter and then, by the
filter's answer (`Action`), lets it through or holds it:

    held       what it means                                       what arrives meanwhile
    ---------  --------------------------------------------------  -----------------------------------------
    OPEN       nothing is held                                     is shown, and passes
    HEAD       the head; nothing more is shown (Action.PAUSE)      waits unseen; the source is slowed
    HEAD_BODY  the head; the body is shown (PAUSE_HEADERS)         is shown; CONTINUE releases head and body
    BODY       bytes that were shown (PAUSE from a body)           is added, and all of it shown
    TRAILERS   the trailers, and what was held before them         -

Resuming a gate lets what was shown pass without showing it again, and shows what waited unseen.

A filter may ask for anything from inside its callback; it is done when the callback has returned. A resume asked
for inside the callback wins over its PAUSE. A resume of a gate while the chain is at work elsewhere is done when
that work has ended. A local answer or a reset stops what is going on: every loop here remembers the lane's `era`
and gives up when it has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Protocol

from zope.interface import implementer

from twisted_wasmproxy.http.deadlines import NEVER, shared_deadlines
from twisted_wasmproxy.http.headers import Headers
from twisted_wasmproxy.http.messages import Request, Response
from twisted_wasmproxy.interfaces import Action, IFilter, IFilterFactory, IFilterStream
from twisted_wasmproxy.logs import Logger
from twisted_wasmproxy.transaction.body import Body
from twisted_wasmproxy.transaction.states import Hook

__all__ = ["Chain", "ChainOwner", "FilterSlot", "LocalReply"]

_log = Logger()

WAIT_HIGH = 64 * 1024
"""Bytes that may wait unseen behind a held head before the source is asked to stop."""


class LocalReply:
    """An answer made by a filter or by the proxy itself."""

    __slots__ = ("body", "details", "filter", "grpc_status", "headers", "replaces", "status")

    def __init__(
        self,
        status: int,
        headers: Sequence[tuple[bytes, bytes]] = (),
        body: bytes = b"",
        details: bytes = b"",
        grpc_status: int = -1,
        filter: str = "",
    ) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.details = details
        """Why, for the log."""
        self.grpc_status = grpc_status
        """0 or more: answer a gRPC request with this."""
        self.filter = filter
        """Name of the filter that answers; empty for the proxy itself."""
        self.replaces = False
        """Whether the filter says it of a response head that it is shown, which may be a local answer itself."""


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


class Held(Enum):
    OPEN = 0
    HEAD = 1
    HEAD_BODY = 2
    BODY = 3
    TRAILERS = 4


_OPEN, _HEAD, _HEAD_BODY, _BODY, _TRAILERS = Held.OPEN, Held.HEAD, Held.HEAD_BODY, Held.BODY, Held.TRAILERS
_CONTINUE, _PAUSE_HEADERS, _DISCARD = Action.CONTINUE, Action.PAUSE_HEADERS, Action.PAUSE_AND_DISCARD


class Gate:
    """One filter in one direction."""

    __slots__ = (
        "body",
        "end",
        "head_end",
        "held",
        "index",
        "on_body",
        "on_headers",
        "on_trailers",
        "passed",
        "resume",
        "running",
        "seen",
        "shows_body",
        "site",
        "trailers_wait",
        "waiting",
        "waiting_size",
    )

    def __init__(
        self,
        site: Site,
        index: int,
        on_headers: Callable[[bool], Action] | None,
        on_body: Callable[[int, bool], Action] | None,
        on_trailers: Callable[[], Action] | None,
    ) -> None:
        self.site = site
        self.index = index
        self.on_headers = on_headers
        self.on_body = on_body
        self.on_trailers = on_trailers
        self.held = _OPEN
        self.seen = False
        """Whether the head has been shown."""
        self.passed = False
        """Whether the head has been let through."""
        self.head_end = False
        self.end = False
        """Whether the end of the message came with what is held."""
        self.body = Body()
        self.shows_body = False
        """Whether the filter may look at `body` now."""
        self.waiting: list[bytes] = []
        self.waiting_size = 0
        self.trailers_wait = False
        self.running = False
        self.resume = False
        """Asked for from inside the callback that is running."""

    def clear(self) -> None:
        """Forget everything held."""
        if self.held is _OPEN and not self.shows_body:
            return
        self.held = _OPEN
        self.body = Body()
        self.shows_body = False
        self.waiting = []
        self.waiting_size = 0
        self.trailers_wait = False


class Lane:
    """The gates of one direction, and the way out, which the two directions fill in."""

    __slots__ = (
        "chain",
        "era",
        "gates",
        "modified",
        "owner",
        "shows_bodies",
        "started",
        "stopped",
        "trailers",
        "transparent",
    )

    era: int
    modified: bool
    shows_bodies: bool
    started: bool
    stopped: bool
    transparent: bool

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self.owner = chain.owner
        self.gates: list[Gate] = []
        self.trailers: Headers | None = None
        self.started = False
        self.stopped = False
        self.modified = False
        """Whether a filter has changed, added or dropped content."""
        self.era = 0
        self.shows_bodies = False
        """Whether any filter looks at content."""
        self.transparent = True
        """Whether content goes straight to the way out: nobody looks at it, and nothing has been held so far."""

    def _head_out(self, end_stream: bool) -> None:
        raise NotImplementedError

    def _data_out(self, data: bytes, end_stream: bool) -> None:
        raise NotImplementedError

    def _end_out(self, trailers: Headers | None) -> None:
        raise NotImplementedError

    def _waits(self, waiting: bool) -> None:
        raise NotImplementedError

    def _overflow(self, name: str) -> None:
        raise NotImplementedError

    def looks_beyond_heads(self, at_bodies: bool) -> None:
        """Note that a filter looks at content, or only at trailers."""
        self.transparent = False
        if at_bodies:
            self.shows_bodies = True

    # What comes in

    def headers(self, end_stream: bool) -> None:
        """Start with the head that is the owner's `request` or `response` now."""
        self.started = True
        chain = self.chain
        chain.depth += 1
        try:
            self._headers(0, end_stream)
        finally:
            chain.leave()

    def data(self, data: bytes, end_stream: bool) -> None:
        """Content; the last of it if `end_stream` (then no trailers follow)."""
        if self.transparent:
            self._data_out(data, end_stream)
            return
        if self.stopped:
            return
        chain = self.chain
        chain.depth += 1
        try:
            self._data(0, data, end_stream)
        finally:
            chain.leave()

    def end(self, trailers: Headers | None) -> None:
        """The end after the last content, with trailers if there are any."""
        if self.stopped:
            return
        if trailers is None and self.trailers is None:
            self.data(b"", True)
            return
        if self.trailers is None:
            self.trailers = trailers
        elif trailers is not None:
            for name, value in trailers:
                self.trailers.add(name, value)
        chain = self.chain
        chain.depth += 1
        try:
            self._trailers(0)
        finally:
            chain.leave()

    def stop(self) -> None:
        """Nothing more comes in or out; held bytes are dropped."""
        self.stopped = True
        self.transparent = False
        self.era += 1
        for gate in self.gates:
            gate.clear()

    def restart(self, end_stream: bool) -> None:
        """Begin again with another head (a local answer): filters that have seen the first are passed by."""
        self.stop()
        self.stopped = False
        self.started = True
        self.trailers = None
        self.modified = False
        chain = self.chain
        chain.depth += 1
        try:
            for gate in self.gates:
                if gate.seen:
                    gate.on_headers = gate.on_body = gate.on_trailers = None
                    gate.passed = False
            self._headers(0, end_stream)
        finally:
            chain.leave()

    def resume(self, gate: Gate) -> None:
        if gate.running:
            gate.resume = True
        elif gate.held is not _OPEN and not self.stopped:
            chain = self.chain
            if chain.depth:
                chain.resumes.append((self, gate))
                return
            chain.depth += 1
            try:
                self._release(gate)
            finally:
                chain.leave()

    # The walk along the gates. Each of these begins at gate `i` and ends at a gate that holds, or at the way out.

    def _headers(self, i: int, end_stream: bool) -> None:
        gates = self.gates
        era = self.era
        while i < len(gates):
            gate = gates[i]
            gate.seen = True
            if gate.site.asked is not None:  # when the filter was made
                gate.site.do_asked()
                if self.era != era:
                    return
            on_headers = gate.on_headers
            if on_headers is not None:
                gate.running = True
                try:
                    action = on_headers(end_stream)
                except Exception:  # whatever a filter in Python raises is that filter's failure
                    action = gate.site.failed()
                gate.running = False
                if gate.site.asked is not None:
                    gate.site.do_asked()
                if self.era != era:
                    return
                if gate.resume:
                    gate.resume = False
                elif action != _CONTINUE:
                    self.transparent = False
                    gate.held = _HEAD_BODY if action == _PAUSE_HEADERS and not end_stream else _HEAD
                    gate.head_end = end_stream
                    self.chain.watch()
                    return
            gate.passed = True
            i += 1
        self._head_out(end_stream)

    def _data(self, i: int, data: bytes, end_stream: bool) -> None:
        gates = self.gates
        era = self.era
        while i < len(gates):
            gate = gates[i]
            on_body = gate.on_body
            held = gate.held
            if held is _HEAD:
                self._wait(gate, data, end_stream)
                return
            if on_body is None:
                if held is _OPEN:
                    i += 1
                    continue
                # Held by a filter that looks at no body: what comes is kept for when it resumes.
                gate.body.append(data)
                gate.end = end_stream
                self._check_limit(gate)
                return
            body = gate.body
            body.append(data)
            gate.shows_body = gate.running = True
            gate.end = end_stream
            try:
                action = on_body(len(body), end_stream)
            except Exception:  # as above
                action = gate.site.failed()
            gate.running = False
            if gate.site.asked is not None:
                gate.site.do_asked()
            if self.era != era:
                return
            if gate.resume:
                gate.resume = False
                action = _CONTINUE
            if action != _CONTINUE:
                if action == _DISCARD:
                    body.discard()
                    self.modified = True
                if held is _OPEN:
                    gate.held = _BODY
                self.chain.watch()
                self._check_limit(gate)
                return
            gate.shows_body = False
            if body.modified:
                self.modified = True
            data = body.take()
            gate.held = _OPEN
            if not gate.passed:
                gate.passed = True
                self._headers(i + 1, False)
                if self.era != era:
                    return
            i += 1
            if end_stream and self.trailers is not None:
                # Made by the filter in its last body callback: they are the end now.
                if data:
                    self._data(i, data, False)
                if self.era == era:
                    self._trailers(i)
                return
            if not data and not end_stream:
                return
        self._data_out(data, end_stream)

    def _trailers(self, i: int) -> None:
        gates = self.gates
        era = self.era
        while i < len(gates):
            gate = gates[i]
            if gate.held is _HEAD:
                gate.trailers_wait = True
                return
            on_trailers = gate.on_trailers
            if on_trailers is not None:
                gate.running = True
                try:
                    action = on_trailers()
                except Exception:  # as above
                    action = gate.site.failed()
                gate.running = False
                if gate.site.asked is not None:
                    gate.site.do_asked()
                if self.era != era:
                    return
                if gate.resume:
                    gate.resume = False
                elif action != _CONTINUE:
                    gate.held = _TRAILERS
                    self.chain.watch()
                    return
            self._pass_held(gate)
            if self.era != era:
                return
            i += 1
        self._end_out(self.trailers)

    def _wait(self, gate: Gate, data: bytes, end_stream: bool) -> None:
        gate.end = end_stream
        if data:
            gate.waiting.append(data)
            before = gate.waiting_size
            gate.waiting_size = before + len(data)
            if before <= WAIT_HIGH < gate.waiting_size:
                self._waits(True)

    def _check_limit(self, gate: Gate) -> None:
        limit = self.chain.buffer_limit
        if len(gate.body) > limit:
            name = gate.site.slot.name
            _log.warn("filter {name} holds more of a body than {limit} bytes: given up", name=name, limit=limit)
            self._overflow(name)

    def _pass_held(self, gate: Gate) -> None:
        """Let the head and the shown bytes of a gate through; not the end."""
        era = self.era
        gate.held = _OPEN
        gate.shows_body = False
        if not gate.passed:
            gate.passed = True
            self._headers(gate.index + 1, False)
            if self.era != era:
                return
        if gate.body.modified:
            self.modified = True
        data = gate.body.take()
        if data:
            self._data(gate.index + 1, data, False)

    def _release(self, gate: Gate) -> None:
        held = gate.held
        i = gate.index
        era = self.era
        if held is _HEAD:
            gate.held = _OPEN
            gate.passed = True
            waiting = gate.waiting
            if gate.head_end:
                self._headers(i + 1, True)
                return
            self._headers(i + 1, False)
            if self.era != era:
                return
            if gate.waiting_size > WAIT_HIGH:
                self._waits(False)
            gate.waiting = []
            gate.waiting_size = 0
            if waiting or gate.end:
                self._data(i, b"".join(waiting), gate.end)
                if self.era != era:
                    return
            if gate.trailers_wait:
                gate.trailers_wait = False
                self._trailers(i)
        elif held is _TRAILERS:
            self._pass_held(gate)
            if self.era == era:
                self._trailers(i + 1)
        elif held is not _OPEN:
            if not gate.end:
                self._pass_held(gate)
            elif self.trailers is not None:
                self._pass_held(gate)
                if self.era == era:
                    self._trailers(i + 1)
            else:
                gate.held = _OPEN
                gate.shows_body = False
                if not gate.passed:
                    gate.passed = True
                    self._headers(i + 1, False)
                    if self.era != era:
                        return
                if gate.body.modified:
                    self.modified = True
                self._data(i + 1, gate.body.take(), True)


@implementer(IFilterStream)
class Site:
    """The place of one filter in a chain: its two gates, and what it may do (`IFilterStream`)."""

    __slots__ = (
        *("asked", "broken", "chain", "filter", "filter_state", "owner", "request", "request_gate", "response_gate"),
        "slot",
    )

    request_gate: Gate
    response_gate: Gate

    def __init__(self, chain: Chain, slot: FilterSlot) -> None:
        self.chain = chain
        self.owner = owner = chain.owner
        self.slot = slot
        self.request = owner.request
        self.filter_state = owner.filter_state
        self.request_gate = self.response_gate = _GATE_OF_ONE_BEING_MADE
        self.filter: IFilter | None = None
        self.asked: Callable[[], None] | None = None
        """What the filter asked for inside its callback."""
        self.broken = False

    # IFilterStream

    @property
    def response(self) -> Response | None:
        return self.owner.response

    @property
    def request_trailers(self) -> Headers | None:
        return self.chain.request.trailers

    @property
    def response_trailers(self) -> Headers | None:
        return self.chain.response.trailers

    @property
    def request_headers_writable(self) -> bool:
        return not self.request_gate.passed and not self.chain.closed

    @property
    def response_headers_writable(self) -> bool:
        return not self.response_gate.passed and not self.chain.closed

    @property
    def request_body(self) -> Body | None:
        gate = self.request_gate
        return gate.body if gate.shows_body else None

    @property
    def response_body(self) -> Body | None:
        gate = self.response_gate
        return gate.body if gate.shows_body else None

    def resume_request(self) -> None:
        if not self.chain.closed:
            self.chain.request.resume(self.request_gate)

    def resume_response(self) -> None:
        if not self.chain.closed:
            self.chain.response.resume(self.response_gate)

    def send_local_response(
        self,
        status: int,
        headers: Sequence[tuple[bytes, bytes]] = (),
        body: bytes = b"",
        details: bytes = b"",
        grpc_status: int = -1,
    ) -> None:
        reply = LocalReply(status, list(headers), body, details, grpc_status, self.slot.name)
        reply.replaces = self._sees_response_head()
        self._ask(lambda: self.owner.local_reply(reply))

    def reset(self) -> None:
        self._ask(self.owner.reset)

    def attribute(self, path: tuple[bytes, ...]) -> object:
        return self.owner.attribute(path)

    def add_trailers(self, request: bool) -> Headers:
        lane = self.chain.request if request else self.chain.response
        if lane.trailers is None:
            lane.trailers = Headers()
        return lane.trailers

    # For the chain

    def _ask(self, what: Callable[[], None]) -> None:
        if self.chain.closed:
            return
        if self.request_gate.running or self.response_gate.running:
            if self.asked is None:
                self.asked = what
        else:
            what()

    def _sees_response_head(self) -> bool:
        gate = self.response_gate
        return not self.chain.closed and gate.seen and not gate.passed

    def do_asked(self) -> None:
        asked, self.asked = self.asked, None
        if asked is not None and not self.chain.closed:
            asked()

    def failed(self) -> Action:
        """Called in an except clause: put the filter out of action and say how its callback is to be read."""
        _log.failure("filter {name} failed", name=self.slot.name)
        self.broken = True
        for gate in (self.request_gate, self.response_gate):
            gate.on_headers = gate.on_body = gate.on_trailers = None
        if not self.slot.fail_open:
            reply = LocalReply(500, details=b"filter_failed", filter=self.slot.name)
            reply.replaces = self._sees_response_head()
            self.asked = lambda: self.owner.local_reply(reply)
        return _CONTINUE


class _RequestLane(Lane):
    __slots__ = ()

    def _head_out(self, end_stream: bool) -> None:
        self.owner.request_head_passed(end_stream)

    def _data_out(self, data: bytes, end_stream: bool) -> None:
        self.owner.request_data_passed(data, end_stream)

    def _end_out(self, trailers: Headers | None) -> None:
        self.owner.request_end_passed(trailers)

    def _waits(self, waiting: bool) -> None:
        self.owner.request_waits(waiting)

    def _overflow(self, name: str) -> None:
        self.owner.request_overflow(name)


class _ResponseLane(Lane):
    __slots__ = ()

    def _head_out(self, end_stream: bool) -> None:
        self.owner.response_head_passed(end_stream)

    def _data_out(self, data: bytes, end_stream: bool) -> None:
        self.owner.response_data_passed(data, end_stream)

    def _end_out(self, trailers: Headers | None) -> None:
        self.owner.response_end_passed(trailers)

    def _waits(self, waiting: bool) -> None:
        self.owner.response_waits(waiting)

    def _overflow(self, name: str) -> None:
        self.owner.response_overflow(name)


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
        self.request: Lane = _RequestLane(self)
        self.response: Lane = _ResponseLane(self)
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

    def leave(self) -> None:
        """End a piece of work; at the end of the outermost one, do the resumes that were asked for meanwhile."""
        self.depth -= 1
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
        holding = next((g for g in (*self.request.gates, *self.response.gates) if g.held is not _OPEN), None)
        if holding is None:
            self._unwatch()
        elif self._progress != self.owner.progress():
            self.watch()
        else:
            self._unwatch()
            limit, name = self._hold_limit, holding.site.slot.name
            _log.warn("filter {name} has held a stream for {limit} s: given up", name=name, limit=limit)
            self.owner.held_too_long()

    def close(self) -> None:
        """The stream has ended: tell every filter, once."""
        if self.closed:
            return
        self.closed = True
        self._unwatch()
        self.request.stop()
        self.response.stop()
        for site in self.sites:
            if site.filter is not None:
                try:
                    site.filter.closed()
                except Exception:  # one filter's failure is not the next one's
                    _log.failure("filter {name} failed at its end", name=site.slot.name)
                site.filter = None
            site.request_gate = site.response_gate = _CLOSED_GATE
        # All of these know each other: taken apart, they go at once, and not when the collector comes.
        self.sites = []
        self.hooks = []
        self.request.gates = []
        self.response.gates = []
        self.request = self.response = _CLOSED_LANE


def _no_gate(*, running: bool, passed: bool) -> Gate:
    """Return what stands in the place of a gate that does not exist yet, or any more."""
    gate = Gate.__new__(Gate)
    gate.on_headers = gate.on_body = gate.on_trailers = None
    gate.held = _OPEN
    gate.running = running
    gate.passed = passed
    gate.seen = gate.resume = gate.shows_body = False
    return gate


_GATE_OF_ONE_BEING_MADE = _no_gate(running=True, passed=False)
"""What a filter asks for while it is made is done later, as if from inside a callback."""

_CLOSED_GATE = _no_gate(running=False, passed=True)
"""What a filter that outlives its stream still sees of its gates."""

_CLOSED_LANE = Lane.__new__(Lane)
_CLOSED_LANE.gates = []
_CLOSED_LANE.trailers = None
_CLOSED_LANE.era = 0
_CLOSED_LANE.started = _CLOSED_LANE.stopped = True
_CLOSED_LANE.modified = _CLOSED_LANE.transparent = _CLOSED_LANE.shows_bodies = False
