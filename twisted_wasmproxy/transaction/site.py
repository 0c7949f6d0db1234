"""`Site`: the place of one filter in a chain, and what the filter may do there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from zope.interface import implementer

from twisted_wasmproxy.http.headers import Headers
from twisted_wasmproxy.http.messages import Response
from twisted_wasmproxy.interfaces import Action, IFilter, IFilterStream
from twisted_wasmproxy.logs import Logger
from twisted_wasmproxy.transaction.body import Body
from twisted_wasmproxy.transaction.lanes import GATE_OF_ONE_BEING_MADE, Gate
from twisted_wasmproxy.transaction.local import LocalReply

if TYPE_CHECKING:
    from twisted_wasmproxy.transaction.chain import Chain, FilterSlot

__all__ = ["Site"]

_log = Logger()


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
        self.request_gate = self.response_gate = GATE_OF_ONE_BEING_MADE
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
        return not self.request_gate.passed

    @property
    def response_headers_writable(self) -> bool:
        return not self.response_gate.passed

    @property
    def buffer_limit(self) -> int:
        return self.chain.buffer_limit

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
            try:
                what()
            except Exception:
                self.owner.crashed()

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
        return Action.CONTINUE
