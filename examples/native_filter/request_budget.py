"""A filter in Python with the powers of a Wasm module: at most so many requests at once for each client address.

A request over the budget is held, and goes on when one before it has ended; one that has waited for too long is
answered 429. Both happen outside of the filter's callbacks: whatever a filter may do, it may do later.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from twisted.internet import reactor
from twisted.plugin import IPlugin
from zope.interface import implementer

from twisted_wasmproxy.interfaces import Action, IFilter, IFilterFactory, IFilterStream


@implementer(IPlugin, IFilterFactory)
class RequestBudget:
    """Configuration: `{at_once: 2, wait: 5.0}` (requests of one client, seconds)."""

    name = "request-budget"

    def __init__(self, at_once: int = 2, wait: float = 5.0) -> None:
        self.at_once = at_once
        self.wait = wait
        self.running: dict[bytes, int] = {}
        self.waiting: dict[bytes, deque[BudgetedRequest]] = {}

    def configured(self, configuration: Any) -> RequestBudget:
        if not isinstance(configuration, dict):
            raise ValueError("the configuration is a mapping with 'at_once' and 'wait'")
        unknown = set(configuration) - {"at_once", "wait"}
        if unknown:
            raise ValueError(f"unknown key {sorted(unknown)[0]!r}")
        at_once, wait = configuration.get("at_once", 2), configuration.get("wait", 5.0)
        if not isinstance(at_once, int) or at_once < 1 or not isinstance(wait, int | float):
            raise ValueError("'at_once' is a number of requests from 1 up, 'wait' a number of seconds")
        return RequestBudget(at_once, wait)

    def create(self, stream: IFilterStream) -> BudgetedRequest:
        return BudgetedRequest(self, stream)


@implementer(IFilter)
class BudgetedRequest:
    """One request. Callbacks that a filter has no use for are None: then it costs nothing there."""

    request_body = request_trailers = response_body = response_trailers = None

    def __init__(self, budget: RequestBudget, stream: IFilterStream) -> None:
        self.budget = budget
        self.stream = stream
        address = stream.attribute((b"source", b"address"))
        self.client = address.rpartition(b":")[0] if isinstance(address, bytes) else b""
        self.counted = False
        self.timer: Any = None

    def request_headers(self, end_stream: bool) -> Action:
        running = self.budget.running.get(self.client, 0)
        if running < self.budget.at_once:
            self._count(running)
            return Action.CONTINUE
        self.budget.waiting.setdefault(self.client, deque()).append(self)
        self.timer = reactor.callLater(self.budget.wait, self._too_late)
        return Action.PAUSE

    def response_headers(self, end_stream: bool) -> Action:
        assert self.stream.response is not None
        self.stream.response.headers.set(b"x-budget", b"%d" % self.budget.at_once)
        return Action.CONTINUE

    def closed(self) -> None:
        if self.timer is not None and self.timer.active():
            self.timer.cancel()
        waiting = self.budget.waiting.get(self.client)
        if waiting and self in waiting:
            waiting.remove(self)
        if self.counted:
            self.budget.running[self.client] -= 1
            if waiting:
                waiting.popleft().go_on()
        if not waiting:
            self.budget.waiting.pop(self.client, None)
        if not self.budget.running.get(self.client):
            self.budget.running.pop(self.client, None)

    def go_on(self) -> None:
        self.timer.cancel()
        self._count(self.budget.running.get(self.client, 0))
        self.stream.resume_request()

    def _count(self, running: int) -> None:
        self.counted = True
        self.budget.running[self.client] = running + 1

    def _too_late(self) -> None:
        self.stream.send_local_response(429, [(b"Retry-After", b"1")], b"too many requests at once\n", b"budget")
