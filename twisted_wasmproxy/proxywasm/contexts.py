"""Contexts: what a guest's ids stand for. The VM's own (0), one for each plugin (root), one for each stream.

Host calls act on the effective context of their VM: the one that was entered, until the guest chooses another.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any

from zope.interface import implementer

from twisted_wasmproxy.interfaces import Action, IFilter
from twisted_wasmproxy.proxywasm.errors import PluginError, VMFailed

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

    from twisted_wasmproxy.proxywasm.plugin import Plugin
    from twisted_wasmproxy.proxywasm.vm import VM, Callbacks

__all__ = ["Context", "Refusal", "RootContext", "StreamContext", "refuse", "stream_context"]

_CONTINUE, _PAUSE = Action.CONTINUE, Action.PAUSE

HEADERS_ACTIONS = (_CONTINUE, _PAUSE, _CONTINUE)
"""By the result of a headers callback: StopIteration holds everything, as in Envoy; what is beyond pauses too."""
HEADERS_ACTIONS_LITERAL = (_CONTINUE, Action.PAUSE_HEADERS, _CONTINUE)
"""The same where StopIteration means what it says (0.2.100, or `allow_on_headers_stop_iteration`)."""
BODY_ACTIONS = (_CONTINUE, _PAUSE, _PAUSE)
"""By the result of a body callback; what is beyond pauses and drops the bytes (StopIterationNoBuffer)."""


class Context:
    """Something with an id that a guest knows; as it stands, the VM's own context, on which nothing hangs."""

    __slots__ = ("awaiting_done", "id", "root", "stream", "vm")

    def __init__(self, vm: VM, root: RootContext | None = None, stream: Any = None) -> None:
        self.id = 0
        """0 until the guest knows of it, and for the VM's own."""
        self.vm = vm
        self.root = root
        """The context of the plugin; its own for that one; None for the VM's own."""
        self.stream: Any = stream
        """The `IFilterStream` of a stream context, else None."""
        self.awaiting_done = False
        """Whether `proxy_on_done` returned false and `proxy_done` is to come."""

    def done_called(self) -> None:
        """The guest has called `proxy_done` for this context."""


class RootContext(Context):
    """The context of one plugin in one VM."""

    __slots__ = (
        *("_arming", "_done_timer", "_finished", "_period", "_queues", "_timer"),
        *("configuring", "plugin", "streams"),
    )

    def __init__(self, vm: VM, plugin: Plugin) -> None:
        super().__init__(vm)
        self.root = self
        self.plugin = plugin
        self.streams = 0
        """Live stream contexts."""
        self.configuring = False
        """Whether the guest is being told of its plugin configuration (0.1.0 asks for "the" configuration then)."""
        self._period = 0
        self._arming = False
        self._queues: set[int] = set()
        """Those that it is told of when its VM, a spare, enters service."""
        self._timer: IDelayedCall | None = None
        self._done_timer: IDelayedCall | None = None
        self._finished: Callable[[], None] | None = None

    def start(self) -> None:
        """Create the context in the guest, start and configure it. Raises PluginError."""
        vm, calls, plugin = self.vm, self.vm.calls, self.plugin
        self.id = vm.new_id(self)
        self.configuring = True
        if calls.on_context_create is not None:
            vm.call_at_start(self, calls.on_context_create, self.id, 0)
        self.configuring = False
        if calls.on_vm_start is not None and not vm.call_at_start(
            self, calls.on_vm_start, self.id, len(vm.configuration)
        ):
            raise PluginError(vm.file, "proxy_on_vm_start returned false: the module does not start")
        self.configuring = True
        if calls.on_configure is not None and not vm.call_at_start(
            self, calls.on_configure, self.id, len(plugin.configuration)
        ):
            raise PluginError(vm.file, "proxy_on_configure returned false: it refuses its configuration")
        self.configuring = False

    def set_tick(self, period: int) -> None:
        """Tick every `period` milliseconds from now on, in a spare VM once it serves; 0 for no more."""
        self._period = period
        if not self._arming:
            self._arming = True  # once for a call: a timer that is cancelled stays in the reactor's list for a while
            self.vm.defer(self._arm)

    def _arm(self) -> None:
        self._arming = False
        self._cancel_timer()
        if self._period and self.vm.failed is None and not self.vm.standing_by:
            self._timer = self.vm.services.clock.callLater(self._period / 1000, self._tick)

    def _tick(self) -> None:
        self._timer = None
        on_tick = self.vm.calls.on_tick
        if on_tick is not None:
            try:
                self.vm.call(self, on_tick, self.id)
            except VMFailed:
                return
        if self._timer is None and self._period and self.id in self.vm.contexts:
            self._timer = self.vm.services.clock.callLater(self._period / 1000, self._tick)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def queue_registered(self, token: int) -> None:
        """The guest wants to be told of the items of a queue."""
        if self.vm.standing_by:
            self._queues.add(token)
        else:
            self.vm.services.queues.own(token, self)

    def enter_service(self) -> None:
        """Its VM serves from now on: start the timer, and be told of queues."""
        self.set_tick(self._period)
        for token in self._queues:
            self.vm.services.queues.own(token, self)
        self._queues.clear()

    def queue_ready(self, token: int) -> None:
        """Tell the guest that an item lies in a queue that it has registered."""
        on_queue_ready = self.vm.calls.on_queue_ready
        if on_queue_ready is not None and self.id in self.vm.contexts and self.vm.failed is None:
            try:
                self.vm.call(self, on_queue_ready, self.id, token)
            except VMFailed:
                return

    def finish(self, limit: float, finished: Callable[[], None]) -> None:
        """Tell the guest that the plugin ends, wait up to `limit` seconds until it has done, and delete the context.

        `finished` is called once, at once where there is nothing to wait for.
        """
        self._finished = finished
        on_done = self.vm.calls.on_done
        try:
            if on_done is None or self.vm.call(self, on_done, self.id):
                self._delete()
            else:
                self.awaiting_done = True
                self._done_timer = self.vm.services.clock.callLater(limit, self._delete)
        except VMFailed:
            self.drop()

    def done_called(self) -> None:
        self._delete()

    def _delete(self) -> None:
        if self.id in self.vm.contexts and self.vm.failed is None:
            on_delete = self.vm.calls.on_delete
            if on_delete is not None:
                with suppress(VMFailed):  # reported by the VM; the context is dropped all the same
                    self.vm.call(self, on_delete, self.id)
        self.drop()

    def drop(self) -> None:
        """Let go of everything without a word to the guest."""
        self.awaiting_done = False
        self._period = 0
        self._cancel_timer()
        if self._done_timer is not None and self._done_timer.active():
            self._done_timer.cancel()
        self._done_timer = None
        self.vm.contexts.pop(self.id, None)
        self.vm.services.queues.forget(self)
        finished, self._finished = self._finished, None
        if finished is not None:
            finished()

    def stream_gone(self) -> None:
        """One of the stream contexts has ended."""
        self.streams -= 1
        if not self.streams:
            self.plugin.idle(self)


@implementer(IFilter)
class StreamContext(Context):
    """The context of one stream: a filter of its chain.

    The guest hears of it with its first callback. Callbacks that the module does not export are None in the subclasses
    that `stream_context` makes, so that the chain does not call them.
    """

    __slots__ = (
        "_answered",
        "_done_timer",
        "_forgotten",
        "_refused",
        "_request_held",
        "_responded",
        "_response_held",
        "_resumed",
        "charged",
        "ended",
        "open_trailers",
        "shown_request",
        "shown_response",
        "written",
    )

    hook = None

    def __init__(self, root: RootContext, stream: Any) -> None:
        # What Context does, written out: there is one of these for each stream.
        self.id = 0
        self.vm = root.vm
        self.root = root
        self.stream = stream
        self.awaiting_done = False
        self.ended = False
        """Whether the stream is over: from on_done on, nothing can be done to it."""
        self.open_trailers = 0
        """Which trailers may be written now: 1 for the request's, 2 for the response's."""
        self.charged = 0
        """Bytes that the module has made the host keep for the stream."""
        self.shown_request = 0
        """Bytes of the body that the last callback was shown, before it changed anything; likewise:"""
        self.shown_response = 0
        self.written = 0
        """Bytes among them of header fields."""
        self._answered = False
        self._resumed = False
        self._responded = False
        self._refused = False
        self._forgotten = False
        self._request_held = False
        self._response_held = False
        self._done_timer: IDelayedCall | None = None
        root.streams += 1

    def request_headers(self, end_stream: bool) -> Action:
        request = self.stream.request
        size = len(request.headers.lines) + bool(request.method) + bool(request.path)
        size += bool(request.authority) + bool(request.scheme)
        try:
            self._answered = self._resumed = False
            if not self.id:
                self._create()
            vm = self.vm
            result = vm.call(self, vm.calls.on_request_headers, self.id, size, end_stream)
        except VMFailed:
            return self._failed()
        if not result and not self._answered:
            return _CONTINUE
        action = self._headers_action(result)
        self._request_held = action is not _CONTINUE and not self._resumed
        return action

    def request_body(self, size: int, end_stream: bool) -> Action:
        self.open_trailers = 1 if end_stream else 0
        self.shown_request = size
        try:
            result = self._enter(self.vm.calls.on_request_body, size, end_stream)
        except VMFailed:
            return self._failed()
        action = self._body_action(result)
        self._request_held = action is not _CONTINUE and not self._resumed
        self.open_trailers = 0
        return action

    def request_trailers(self) -> Action:
        self.open_trailers = 1
        trailers = self.stream.request_trailers
        try:
            result = self._enter(self.vm.calls.on_request_trailers, len(trailers.lines) if trailers else 0)
        except VMFailed:
            return self._failed()
        action = _CONTINUE if result == 0 and not self._answered else _PAUSE
        self._request_held = action is not _CONTINUE and not self._resumed
        self.open_trailers = 1 if self._request_held else 0
        return action

    def response_headers(self, end_stream: bool) -> Action:
        self._responded = False  # it may be shown what it has answered itself, and replace that
        try:
            self._answered = self._resumed = False
            if not self.id:
                self._create()
            vm = self.vm
            size = len(self.stream.response.headers.lines) + 1
            result = vm.call(self, vm.calls.on_response_headers, self.id, size, end_stream)
        except VMFailed:
            return self._failed()
        if not result and not self._answered:
            return _CONTINUE
        action = self._headers_action(result)
        self._response_held = action is not _CONTINUE and not self._resumed
        return action

    def response_body(self, size: int, end_stream: bool) -> Action:
        self.open_trailers = 2 if end_stream else 0
        self.shown_response = size
        try:
            result = self._enter(self.vm.calls.on_response_body, size, end_stream)
        except VMFailed:
            return self._failed()
        action = self._body_action(result)
        self._response_held = action is not _CONTINUE and not self._resumed
        self.open_trailers = 0
        return action

    def response_trailers(self) -> Action:
        self.open_trailers = 2
        trailers = self.stream.response_trailers
        try:
            result = self._enter(self.vm.calls.on_response_trailers, len(trailers.lines) if trailers else 0)
        except VMFailed:
            return self._failed()
        action = _CONTINUE if result == 0 and not self._answered else _PAUSE
        self._response_held = action is not _CONTINUE and not self._resumed
        self.open_trailers = 2 if self._response_held else 0
        return action

    def closed(self) -> None:
        if self.vm.entered is not None:
            self.vm.defer(self.closed)
            return
        self.ended = True
        self._request_held = self._response_held = False
        try:
            if not self.id:
                self._create()
            vm = self.vm
            on_done = vm.calls.on_done
            if on_done is None and vm.calls.on_log is None and vm.calls.on_delete is None:
                self._forget()
            elif on_done is None or vm.call(self, on_done, self.id):
                self._delete()
            else:
                self.awaiting_done = True
                self._done_timer = vm.services.clock.callLater(vm.services.drain, self._delete)
        except VMFailed:
            self._forget()

    def done_called(self) -> None:
        self._delete()

    def resume_request(self) -> None:
        """Let the request go on, as the guest asks."""
        if not self.ended:
            self._resumed = True
            self._request_held = False
            if self.vm.entered is not self:
                self.open_trailers = 0
            self._act(self.stream.resume_request)

    def resume_response(self) -> None:
        """Let the response go on, as the guest asks."""
        if not self.ended:
            self._resumed = True
            self._response_held = False
            if self.vm.entered is not self:
                self.open_trailers = 0
            self._act(self.stream.resume_response)

    def reset(self) -> None:
        """Break the stream off, as the guest asks."""
        if not self.ended:
            self._answered = True
            self._request_held = self._response_held = False
            self._act(self.stream.reset)

    def respond(
        self, status: int, headers: list[tuple[bytes, bytes]], body: bytes, details: bytes, grpc_status: int
    ) -> None:
        """Answer from here, as the guest asks; the first answer counts. After a response head, break the stream off."""
        if self.ended:
            return
        self._answered = True
        self._request_held = self._response_held = False
        if self._responded:
            return
        self._responded = True
        stream = self.stream

        def send() -> None:
            if stream.response is not None and not stream.response_headers_writable:
                stream.reset()
            else:
                stream.send_local_response(status, headers, body, details, grpc_status)

        self._act(send)

    def vm_failed(self) -> None:
        """The VM is gone: nothing that it holds may stay held."""
        if self._done_timer is not None:
            self._done_timer.cancel()
            self._done_timer = None
        if self.ended:
            self._forget()
        elif self._request_held or self._response_held:
            if self._fail_open():
                self.stream.resume_request()
                self.stream.resume_response()
            else:
                self._refuse()
            self._request_held = self._response_held = False

    def _enter(self, function: Any, *args: int) -> int:
        self._answered = self._resumed = False
        if not self.id:
            self._create()
        result: int = self.vm.call(self, function, self.id, *args)
        return result

    def _create(self) -> None:
        if self.vm.failed is not None:
            self._move()
        vm = self.vm
        assert self.root is not None
        self.id = vm.new_id(self)
        if vm.calls.on_context_create is not None:
            vm.call(self, vm.calls.on_context_create, self.id, self.root.id)

    def _move(self) -> None:
        """Go over to the VM that has taken the place of the failed one, which has not been shown the stream yet.

        Raises VMFailed where there is none.
        """
        left = self.root
        assert left is not None
        root = left.plugin.root
        if root is None or root.vm.failed is not None:
            raise VMFailed
        self.root, self.vm = root, root.vm
        root.streams += 1
        left.stream_gone()

    def _headers_action(self, result: int) -> Action:
        if self._answered:
            return _PAUSE
        assert self.root is not None
        actions = self.root.plugin.headers_actions
        return actions[result] if result < len(actions) else _PAUSE

    def _body_action(self, result: int) -> Action:
        if self._answered:
            return _PAUSE
        return BODY_ACTIONS[result] if result < len(BODY_ACTIONS) else Action.PAUSE_AND_DISCARD

    def _act(self, action: Callable[[], None]) -> None:
        # Inside a callback of its own stream the chain waits for its end; any other stream might call back at once.
        if self.vm.entered is self:
            action()
        else:
            self.vm.defer_asked(action)

    def _failed(self) -> Action:
        if self._refused or self._fail_open():
            return _CONTINUE
        self._refuse()
        return _PAUSE

    def _fail_open(self) -> bool:
        assert self.root is not None
        return self.root.plugin.fail_open

    def _refuse(self) -> None:
        self._refused = True
        refuse(self.stream)

    def _delete(self) -> None:
        vm = self.vm
        if self._done_timer is not None and self._done_timer.active():
            self._done_timer.cancel()
        self.awaiting_done = False
        try:
            if vm.calls.on_log is not None:
                vm.call(self, vm.calls.on_log, self.id)
            if vm.calls.on_delete is not None:
                vm.call(self, vm.calls.on_delete, self.id)
        except VMFailed:
            pass  # reported by the VM; the context is forgotten all the same
        self._forget()

    def _forget(self) -> None:
        if self._forgotten:
            return
        self._forgotten = True
        self.vm.contexts.pop(self.id, None)
        self.vm.memory.give(self.charged)
        self.charged = 0
        assert self.root is not None
        self.root.stream_gone()

    def charge(self, size: int) -> bool:
        """Count bytes that the host keeps until the stream ends; False where the VM's budget has no room for them."""
        if self._forgotten or not self.vm.memory.take(size):
            return False
        self.charged += size
        return True


@implementer(IFilter)
class Refusal:
    """The filter of a plugin that has no VM at present and is not to be skipped: answers 503."""

    __slots__ = ("_refused", "_stream")

    hook = request_body = request_trailers = response_body = response_trailers = None

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._refused = False

    def request_headers(self, end_stream: bool) -> Action:
        return self._refuse()

    def response_headers(self, end_stream: bool) -> Action:
        return self._refuse()

    def closed(self) -> None:
        """Nothing is held."""

    def _refuse(self) -> Action:
        if self._refused:
            return _CONTINUE
        self._refused = True
        refuse(self._stream)
        return _PAUSE


_GRPC_UNAVAILABLE = 14


def refuse(stream: Any) -> None:
    """Fail a stream whose filter cannot do its work: 503, or, after the response head, break it off."""
    if stream.response is not None and not stream.response_headers_writable:
        stream.reset()
    else:
        stream.send_local_response(503, (), b"", b"wasm_fail_stream", _GRPC_UNAVAILABLE)


_STREAM_CALLBACKS = (
    "request_headers",
    "request_body",
    "request_trailers",
    "response_headers",
    "response_body",
    "response_trailers",
)


def stream_context(calls: Callbacks) -> type[StreamContext]:
    """Return the class of stream contexts for a module that exports `calls`."""
    return _without(frozenset(name for name in _STREAM_CALLBACKS if getattr(calls, f"on_{name}") is None))


@cache
def _without(missing: frozenset[str]) -> type[StreamContext]:
    return type("StreamContext", (StreamContext,), {"__slots__": ()} | dict.fromkeys(missing))
