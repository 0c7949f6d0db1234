"""Lanes and gates: what a filter's answers do to head, content and trailers in one direction.

A lane has a gate for each filter. A gate shows what arrives to its filter and then, by the filter's answer (`Action`),
lets it through or holds it:

    held       what it means                                       what arrives meanwhile
    ---------  --------------------------------------------------  -----------------------------------------
    OPEN       nothing is held                                     is shown, and passes
    HEAD       the head; nothing more is shown (Action.PAUSE)      waits unseen; the source is slowed
    HEAD_BODY  the head; the body is shown (PAUSE_HEADERS)         is shown; CONTINUE releases head and body
    BODY       bytes that were shown (PAUSE from a body)           is added, and all of it shown
    TRAILERS   the trailers, and what was held before them         -

Resuming a gate lets what was shown pass without showing it again, and shows what waited unseen.

A local answer or a reset stops what is going on: every loop here remembers the lane's `era` and gives up when it has
changed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING

from twisted_wasmproxy.http.headers import Headers
from twisted_wasmproxy.interfaces import Action
from twisted_wasmproxy.logs import Logger
from twisted_wasmproxy.transaction.body import Body

if TYPE_CHECKING:
    from twisted_wasmproxy.transaction.chain import Chain
    from twisted_wasmproxy.transaction.site import Site

__all__ = [
    "CLOSED_GATE",
    "CLOSED_LANE",
    "GATE_OF_ONE_BEING_MADE",
    "Gate",
    "Held",
    "Lane",
    "RequestLane",
    "ResponseLane",
]

_log = Logger()

WAIT_HIGH = 64 * 1024
"""Bytes that may wait unseen behind a held head before the source is asked to stop."""


class Held(Enum):
    OPEN = 0
    HEAD = 1
    HEAD_BODY = 2
    BODY = 3
    TRAILERS = 4


_OPEN, _HEAD, _HEAD_BODY, _BODY, _TRAILERS = Held.OPEN, Held.HEAD, Held.HEAD_BODY, Held.BODY, Held.TRAILERS
_CONTINUE, _PAUSE_HEADERS, _DISCARD = Action.CONTINUE, Action.PAUSE_HEADERS, Action.PAUSE_AND_DISCARD


_NOTHING: list[bytes] = []
"""Stands for every list that nothing was put into; never changed."""


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
        self.body: Body | None = None
        """What was shown and is held; made when it is needed first."""
        self.shows_body = False
        """Whether the filter may look at `body` now."""
        self.waiting: list[bytes] = _NOTHING
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
        self.body = None
        self.shows_body = False
        self.waiting = _NOTHING
        self.waiting_size = 0
        self.trailers_wait = False

    def hold(self, data: bytes) -> Body:
        """Add to what is held, and return all of it."""
        body = self.body
        if body is None:
            body = self.body = Body()
        body.append(data)
        return body


class Lane(ABC):
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

    @abstractmethod
    def _head_out(self, end_stream: bool) -> None: ...

    @abstractmethod
    def _data_out(self, data: bytes, end_stream: bool) -> None: ...

    @abstractmethod
    def _end_out(self, trailers: Headers | None) -> None: ...

    @abstractmethod
    def _waits(self, waiting: bool) -> None: ...

    @abstractmethod
    def _overflow(self, name: str) -> None: ...

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
            chain.depth -= 1
            if chain.resumes:
                chain.do_resumes()

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
            chain.depth -= 1
            if chain.resumes:
                chain.do_resumes()

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
            chain.depth -= 1
            if chain.resumes:
                chain.do_resumes()

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
            chain.depth -= 1
            if chain.resumes:
                chain.do_resumes()

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
            except Exception:
                self.owner.crashed()
            finally:
                chain.depth -= 1
                if chain.resumes:
                    chain.do_resumes()

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
                self._check_limit(gate, gate.hold(data))
                gate.end = end_stream
                return
            body = gate.hold(data)
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
                self._check_limit(gate, body)
                return
            gate.shows_body = False
            data = self._take(gate)
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
            if gate.waiting is _NOTHING:
                gate.waiting = [data]
            else:
                gate.waiting.append(data)
            before = gate.waiting_size
            gate.waiting_size = before + len(data)
            if before <= WAIT_HIGH < gate.waiting_size:
                self._waits(True)

    def _check_limit(self, gate: Gate, body: Body) -> None:
        limit = self.chain.buffer_limit
        if len(body) > limit:
            name = gate.site.slot.name
            _log.warn("filter {name} holds more of a body than {limit} bytes: given up", name=name, limit=limit)
            self._overflow(name)

    def _take(self, gate: Gate) -> bytes:
        """Return what a gate holds, and note whether its filter has changed it."""
        body = gate.body
        if body is None:
            return b""
        if body.modified:
            self.modified = True
        return body.take()

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
        data = self._take(gate)
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
            gate.waiting = _NOTHING
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
                self._data(i + 1, self._take(gate), True)


class RequestLane(Lane):
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


class ResponseLane(Lane):
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


def _no_gate(*, running: bool, passed: bool) -> Gate:
    """Return what stands in the place of a gate that does not exist yet, or any more."""
    gate = Gate.__new__(Gate)
    gate.on_headers = gate.on_body = gate.on_trailers = None
    gate.held = _OPEN
    gate.running = running
    gate.passed = passed
    gate.seen = gate.resume = gate.shows_body = False
    return gate


GATE_OF_ONE_BEING_MADE = _no_gate(running=True, passed=False)
"""What a filter asks for while it is made is done later, as if from inside a callback."""

CLOSED_GATE = _no_gate(running=False, passed=True)
"""What a filter that outlives its stream still sees of its gates."""

CLOSED_LANE = ResponseLane.__new__(ResponseLane)
CLOSED_LANE.gates = []
CLOSED_LANE.trailers = None
CLOSED_LANE.era = 0
CLOSED_LANE.started = CLOSED_LANE.stopped = True
CLOSED_LANE.modified = CLOSED_LANE.transparent = CLOSED_LANE.shows_bodies = False
