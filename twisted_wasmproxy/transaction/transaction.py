"""`Transaction`: one request from a client and its answer, from the first hook to the last.

It sits between the client's codec (`ServerStream`), the filters of the client phase (`Chain`), the rules
(`RemapTable`) and the origin (`Fetch`), and owns the state (see `states`). Content is pushed through:

    client -> data_received -> chain.request -> request_data_passed -> fetch -> origin
    client <- stream.send_data <- response_data_passed <- chain.response <- fetch_data <- fetch <- origin

Where there is no filter, no gate and no buffer lies between two of these calls.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from twisted.python.failure import Failure

from twisted_wasmproxy.config.model import ListenerConfig
from twisted_wasmproxy.http.headers import Headers
from twisted_wasmproxy.http.messages import Request, Response, SharedResponse
from twisted_wasmproxy.http.stream import ConnectionInfo, ServerStream, StreamError, StreamFault
from twisted_wasmproxy.logs import Logger
from twisted_wasmproxy.transaction import local
from twisted_wasmproxy.transaction.attributes import attribute
from twisted_wasmproxy.transaction.chain import Chain
from twisted_wasmproxy.transaction.fetch import Fetch, FetchConsumer, starts_tunnel
from twisted_wasmproxy.transaction.framing import settle_length
from twisted_wasmproxy.transaction.local import LocalReply
from twisted_wasmproxy.transaction.purge import hide_token, purge
from twisted_wasmproxy.transaction.route import Route, TunnelRoute, route
from twisted_wasmproxy.transaction.states import TRANSITIONS, Hook, State
from twisted_wasmproxy.transaction.target import normalized

if TYPE_CHECKING:
    from twisted_wasmproxy.cache.client import Source
    from twisted_wasmproxy.cache.status import CacheStatus
    from twisted_wasmproxy.transaction.proxy import Proxy

__all__ = ["Transaction"]

_log = Logger()

# An attribute of an Enum costs ten times a global.
_READ_REQUEST = State.READ_REQUEST
_SEND_REQUEST = State.SEND_REQUEST
_READ_RESPONSE = State.READ_RESPONSE
_SEND_RESPONSE = State.SEND_RESPONSE
_TUNNEL = State.TUNNEL
_CLOSED = State.CLOSED

_CLIENT, _FILTERS, _ORIGIN = 1, 2, 4
"""Reasons why a direction is paused; each is set and cleared on its own."""


class Transaction:
    """Made by the listener when a request head is in; `start` runs it."""

    __slots__ = (
        "_head_kept",
        "_length_may_change",
        "_request_pauses",
        "_response_pauses",
        "_response_started",
        "_route",
        "_watched",
        "answered_by",
        "attempts",
        "cache_status",
        "chain",
        "details",
        "fetch",
        "filter_state",
        "finished",
        "first_response_byte",
        "forward",
        "hierarchy",
        "listener",
        "outgoing",
        "proxy",
        "replied",
        "request",
        "request_bytes",
        "request_ended",
        "request_sent",
        "response",
        "response_bytes",
        "response_ended",
        "rule_name",
        "source",
        "started",
        "state",
        "stream",
        "termination",
        "tunnel",
        "upstream_connection",
        "upstream_failure",
        "upstream_name",
    )

    proxy: Proxy
    stream: ServerStream
    request: Request
    response: Response | None
    chain: Chain | None
    started: float
    finished: float
    request_bytes: int
    response_bytes: int
    attempts: int
    details: bytes
    termination: bytes
    upstream_name: bytes
    rule_name: bytes
    upstream_failure: bytes
    upstream_connection: ConnectionInfo | None

    def __init__(self, proxy: Proxy, listener: ListenerConfig, stream: ServerStream, end_stream: bool) -> None:
        self.proxy = proxy
        self.listener = listener
        self.stream = stream
        self.request = stream.request
        self.response = None
        self.outgoing: Request | None = None
        self.fetch: Fetch | None = None
        """What was asked of an origin for this transaction; the answer may come from elsewhere."""
        self.source: Source | None = None
        """Where the answer comes from."""
        self.cache_status: CacheStatus | None = None
        """What the cache says of it; None where it was not asked."""
        self._route: Route | TunnelRoute | None = None
        self.state = _READ_REQUEST
        self.forward = False
        """Whether the client used this as a forward proxy."""
        self.request_ended = end_stream
        self.tunnel = False
        self.filter_state: dict[tuple[bytes, ...], bytes] = {}
        self.replied = False
        """Whether the answer is made here (by a filter or because of an error)."""
        self.response_ended = False
        self._response_started = False
        self._head_kept = False
        self._request_pauses = 0
        self._response_pauses = 0
        self._watched = False
        """Whether anybody wants to be told of hooks."""
        # What the log and the attributes tell; times by the monotonic clock.
        self.started = time.monotonic()
        self.finished = 0.0
        self.request_sent = 0.0
        self.first_response_byte = 0.0
        self.request_bytes = 0
        self.response_bytes = 0
        self.attempts = 0
        self.details = b""
        self.answered_by = ""
        self.termination = b""
        self.upstream_name = b""
        self.rule_name = b""
        self.upstream_failure = b""
        self.upstream_connection = None
        self.hierarchy = b"NONE"
        slots = proxy.client_filters
        self._length_may_change = False
        self.chain = Chain(self, slots, listener.limits.buffer, listener.timeouts.idle) if slots else None

    def start(self, refusal: LocalReply | None = None) -> None:
        """Begin with the request head; or answer a client that may not ask anything, and whose request no filter is
        shown, with a `refusal`."""
        proxy = self.proxy
        proxy.transactions.add(self)
        chain = self.chain
        try:
            if refusal is not None:
                self.local_reply(refusal)
                return
            self._watched = proxy.traced or (chain is not None and bool(chain.hooks))
            if self._watched:
                self._hook(Hook.TXN_START)
                self._hook(Hook.READ_REQUEST_HDR)
                if self._settled:
                    return
            end = self.request_ended
            if not end and b"expect" in self.request.headers and not self._accept_expectation():
                return
            if chain is not None:
                chain.request.headers(end)
            else:
                self.request_head_passed(end)
        except Exception:
            self.crashed()

    def _accept_expectation(self) -> bool:
        """RFC 9110 section 10.1.1: pass the expectation on, unless a filter must see the content first."""
        expect = self.request.headers.get(b"expect")
        if expect is not None and expect.lower() != b"100-continue":
            self.local_reply(local.error(417, "only 100-continue can be met", b"expectation_failed"))
            return False
        if self.proxy.filters_read_requests(self.chain):
            self.request.headers.remove(b"expect")
            self.stream.send_informational(Response(100, Headers()))
        return True

    # States and hooks

    @property
    def _settled(self) -> bool:
        """Whether a filter that was told of a hook has answered, or has broken the stream off."""
        return self.replied or self.state is _CLOSED

    def _move(self, state: State) -> None:
        present = self.state
        if state is not present:
            assert state in TRANSITIONS[present], f"{present} -> {state}"
            self.state = state

    def _hook(self, hook: Hook) -> None:
        if self.proxy.traced:
            _log.debug(
                "txn {id} {hook} {method} {target}",
                id=id(self),
                hook=hook.value,
                method=self.request.method,
                target=self.request.target,
            )
        if self.chain is not None:
            self.chain.tell(hook)
        if self.fetch is not None and self.fetch.chain is not None:
            self.fetch.chain.tell(hook)

    # RequestReceiver: what comes from the client

    def data_received(self, data: bytes) -> None:
        if self.tunnel:
            assert self.fetch is not None
            self.request_bytes += len(data)
            self.fetch.send_data(data, False)
            return
        self.request_bytes += len(data)
        if self.replied or self.response_ended:
            return
        if self.chain is not None:
            self.chain.request.data(data, False)
        elif self.fetch is not None:
            self.fetch.send_data(data, False)

    def end_received(self, trailers: Headers | None) -> None:
        self.request_ended = True
        if self.tunnel:
            assert self.fetch is not None
            self.fetch.send_data(b"", True)
        elif self.replied or self.response_ended:
            return
        elif self.chain is not None:
            self.chain.request.end(trailers)
        else:
            self.request_end_passed(trailers)

    def stream_failed(self, error: StreamError) -> None:
        """The client's stream broke; the codec may have answered with `error.status`."""
        if self.state is not _CLOSED:
            self.termination = str(error).encode()
            self._close(error)

    def stream_finished(self) -> None:
        if self.state is not _CLOSED:
            self._close(None)

    def pause_writing(self) -> None:
        self._pause_response(_CLIENT)

    def resume_writing(self) -> None:
        self._resume_response(_CLIENT)

    # ChainOwner: what comes out of the request gates

    def attribute(self, path: tuple[bytes, ...]) -> object:
        return attribute(self, path)

    def request_head_passed(self, end_stream: bool) -> None:
        if self._watched:
            self._hook(Hook.PRE_REMAP)
            if self._settled:
                return
        if self.chain is not None and not normalized(self.request):
            self.local_reply(local.error(500, "a filter has made a URI that is none", b"invalid_request_head"))
            return
        found = route(self)
        if self._watched:
            self._hook(Hook.POST_REMAP)
            if self._settled:
                return
        if isinstance(found, LocalReply):
            if self._watched:
                self._hook(Hook.CACHE_LOOKUP_COMPLETE)
            self.local_reply(found)
            return
        self._route = found
        self.upstream_name = found.name
        caching = found.caching
        if caching is not None and self.request.upgrade is None:
            if self.request.method == b"PURGE":
                purge(self, caching)
            else:
                caching.cache.serve(self, caching, end_stream)
        elif self.looked_up(None):
            if self.request.method == b"PURGE":
                hide_token(self)
            fetch = self.open_fetch(self, self.request, False)
            self.source = fetch
            fetch.start(end_stream)

    def looked_up(self, status: CacheStatus | None) -> bool:
        """See `Client`; `status` None: there is no cache for it."""
        self.cache_status = status
        if self._watched:
            self._hook(Hook.CACHE_LOOKUP_COMPLETE)
            return not self._settled
        return True

    def open_fetch(self, consumer: FetchConsumer, request: Request, background: bool) -> Fetch:
        """See `Client`."""
        found = self._route
        assert found is not None
        proxy = self.proxy
        peer = self.stream.connection.peer
        outgoing = proxy.forwarder.outgoing(request, found.path, peer[0] if peer is not None else None, self.forward)
        fetch = Fetch(
            consumer,
            outgoing,
            found,
            proxy.origin_filters,
            self.listener.limits.buffer,
            self.chain is not None and self.chain.request.shows_bodies,
            self.listener.timeouts.idle,
        )
        if not background:
            before = self.fetch
            if before is not None and before.closed:
                before.let_go()
            self.hierarchy = b"DIRECT"
            self.outgoing = outgoing
            self.fetch = fetch
            if fetch.chain is not None and fetch.chain.hooks:
                self._watched = True
        return fetch

    @property
    def closed(self) -> bool:
        """Whether it is over."""
        return self.state is _CLOSED

    def take(self, source: Source) -> None:
        """See `Client`."""
        self.source = source
        if self._response_pauses:
            source.pause_reading()

    def not_cached(self, said: Headers) -> None:
        """See `Client`."""
        reply = local.error(504, "it is not stored, and only-if-cached was asked for", b"only_if_cached")
        reply.headers = [*reply.headers, *said]
        self.local_reply(reply)

    def request_data_passed(self, data: bytes, end_stream: bool) -> None:
        fetch = self.fetch
        if fetch is not None and not self.replied:
            if self.chain is not None:
                fetch.request_modified = self.chain.request.modified
            fetch.send_data(data, end_stream)

    def request_end_passed(self, trailers: Headers | None) -> None:
        if self.fetch is not None and not self.replied:
            self.fetch.send_end(trailers)

    def request_waits(self, waiting: bool) -> None:
        self._pause_request(_FILTERS) if waiting else self._resume_request(_FILTERS)

    def response_waits(self, waiting: bool) -> None:
        self._pause_response(_FILTERS) if waiting else self._resume_response(_FILTERS)

    # FetchConsumer: what comes from the origin

    def fetch_connecting(self) -> None:
        self._move(_SEND_REQUEST)

    def fetch_sending(self, connection: ConnectionInfo) -> None:
        self.attempts += 1
        self.upstream_connection = connection
        self.request_sent = time.monotonic()
        if self._watched:
            self._hook(Hook.SEND_REQUEST_HDR)
            if self._settled:
                return
        self._move(_READ_RESPONSE)

    def fetch_answered(self) -> None:
        self.first_response_byte = time.monotonic()
        if self._watched and self.request.method != b"CONNECT":
            self._hook(Hook.READ_RESPONSE_HDR)

    def fetch_informational(self, response: Response) -> None:
        self.stream.send_informational(response)

    def fetch_response(self, response: Response, end_stream: bool) -> None:
        if not self.replied:
            self.incoming(response)
            self.respond(response, end_stream)

    def incoming(self, response: Response) -> None:
        """See `Client`."""
        if response.upgrade is None:
            self.proxy.forwarder.incoming(response, time.time())

    def respond(self, response: Response, end_stream: bool) -> None:
        """Take the head of the answer, from an origin or the cache."""
        if self._settled:
            return
        if type(response) is SharedResponse and (self.chain is not None or self._watched):
            response = response.copy()
        self.response = response
        self._move(_SEND_RESPONSE)
        if self._watched:
            self._hook(Hook.SEND_RESPONSE_HDR)
            if self._settled:
                return
        chain = self.chain
        if chain is not None:
            self._length_may_change = chain.response.shows_bodies and not (self.fetch is not None and self.fetch.tunnel)
            chain.response.headers(end_stream)
        else:
            self.response_head_passed(end_stream)

    def fetch_data(self, data: bytes, end_stream: bool) -> None:
        if self.tunnel:
            self.response_bytes += len(data)
            self.stream.send_data(data)
        elif not self.replied:
            chain = self.chain
            if chain is None or chain.response.transparent:
                self.response_data_passed(data, end_stream)
            else:
                chain.response.data(data, end_stream)

    def fetch_end(self, trailers: Headers | None) -> None:
        if self.tunnel:
            self.stream.send_end()
        elif not self.replied:
            chain = self.chain
            if chain is None or (chain.response.transparent and trailers is None):
                self.response_end_passed(trailers)
            else:
                chain.response.end(trailers)

    def fetch_failed(self, error: StreamError) -> None:
        self.upstream_failure = str(error).encode()
        if self.state is _CLOSED or self.response_ended:
            return
        if self._response_started:
            self.break_off(b"upstream:" + error.fault.name.lower().encode())
        else:
            cause = str(error)
            if error.fault is StreamFault.DENIED:
                cause = "this destination may not be reached"  # its addresses are for the log
            elif not self.forward:
                cause = self.proxy.upstreams.cluster(self.upstream_name.decode()).without_servers(cause)
            self.local_reply(local.from_fault(error, cause))

    def fetch_wants_pause(self, pause: bool) -> None:
        self._pause_request(_ORIGIN) if pause else self._resume_request(_ORIGIN)

    def fetch_reply(self, reply: LocalReply) -> None:
        reply.replaces = False  # if there is a local answer, it is not what filters at the origin's side see
        self.local_reply(reply)

    def fetch_reset(self) -> None:
        self.reset()

    # ChainOwner: what comes out of the response gates, to the client

    def response_head_passed(self, end_stream: bool) -> None:
        response = self.response
        assert response is not None
        if (
            self._length_may_change
            and not end_stream
            and self.request.method != b"HEAD"
            and b"content-length" in response.headers
        ):
            self._head_kept = True
            return
        self._send_head(end_stream)

    def _send_head(self, end_stream: bool) -> None:
        response = self.response
        assert response is not None
        self._response_started = True
        fetch = self.fetch
        tunnel = fetch is not None and fetch.tunnel and starts_tunnel(self.request, response)
        self.response_ended = end_stream and not tunnel
        try:
            if response.status < 200 and not tunnel:
                raise ValueError("a 1xx where nobody has asked for an upgrade")
            self.tunnel = tunnel
            self.stream.send_response(response, self.response_ended)
            if tunnel and self.state is _SEND_RESPONSE:
                self._move(_TUNNEL)
        except ValueError as invalid:  # a filter has made the head one that cannot be sent
            _log.error("a filter has made a response head that cannot be sent: {reason}", reason=invalid)
            self._send_bare_error(b"invalid_response_head")

    def _send_bare_error(self, details: bytes) -> None:
        """Answer 500 past all filters: they have had their turn."""
        self._response_started = True
        self.tunnel = False
        self.replied = True
        self.details = details
        if self.chain is not None:
            self.chain.request.stop()
            self.chain.response.stop()
        if self.source is not None:
            self.source.give_up()
        self.response, _ = local.build(LocalReply(500), self.request)
        self.response_ended = True
        self._move(_SEND_RESPONSE)
        self.stream.send_response(self.response, True)

    def response_data_passed(self, data: bytes, end_stream: bool) -> None:
        if self._head_kept:
            self._head_kept = False
            assert self.response is not None
            modified = self.chain is not None and self.chain.response.modified
            settle_length(self.response.headers, len(data) if end_stream else None, modified)
            self._send_head(False)
        self.response_bytes += len(data)
        stream = self.stream
        if data:
            stream.send_data(data)
        if end_stream:
            self.response_ended = True
            stream.send_end()

    def response_end_passed(self, trailers: Headers | None) -> None:
        if self._head_kept:
            self._head_kept = False
            assert self.response is not None
            self.response.headers.remove(b"content-length")
            self._send_head(False)
        self.response_ended = True
        self.stream.send_end(trailers)

    # Answers made here

    def local_reply(self, reply: LocalReply) -> None:
        """Answer the client from here, if there is still room for an answer; else break the stream off.

        The first answer counts, unless a filter that is shown it gives another. The answer goes through the response
        gates of the client phase whose filters have not seen another head.
        """
        if (self.replied and not reply.replaces) or self.response_ended or self.state is _CLOSED or self.tunnel:
            return
        self.details = reply.details
        self.answered_by = reply.filter
        if self._response_started:
            self.break_off(reply.details)
            return
        self.replied = True
        self._head_kept = False
        self._length_may_change = False
        if self.source is not None:
            self.source.give_up()
        response, body = local.build(reply, self.request)
        self.proxy.forwarder.own(response, time.time())
        self.response = response
        self._move(_SEND_RESPONSE)
        chain = self.chain
        if chain is not None:
            chain.request.stop()
            if self._watched:
                self._hook(Hook.SEND_RESPONSE_HDR)
            self._length_may_change = bool(body) and chain.response.shows_bodies
            chain.response.restart(not body)
            if body and self.response is response:  # no filter has replaced it
                chain.response.data(body, True)
            return
        self.response_head_passed(not body)
        if body:
            self.response_data_passed(body, True)

    def reset(self) -> None:
        """A filter breaks the stream off."""
        if not self.response_ended:
            self.break_off(self.details or b"reset_by_filter")

    def request_overflow(self, name: str) -> None:
        self.local_reply(local.overflow(413, "request"))

    def response_overflow(self, name: str) -> None:
        self.local_reply(local.overflow(502, "response"))

    def progress(self) -> int:
        return self.request_bytes + self.response_bytes

    def held_too_long(self) -> None:
        if self.replied:
            self.break_off(b"filter_timeout")
        else:
            self.local_reply(local.held_too_long())

    def break_off(self, why: bytes) -> None:
        """Close, so that the client sees a message that is not complete; `why` goes to the log."""
        if self.state is _CLOSED:
            return
        self.termination = self.termination or why
        self.response_ended = True
        self.stream.abort()
        self._close(None)

    def crashed(self, failure: Failure | None = None) -> None:
        """Called in an except clause, or with a `failure`, for an exception that nobody expected.

        Log it, and end with a 500, or by breaking off an answer that has begun.
        """
        _log.failure("a transaction failed", failure)
        if self.state is _CLOSED:
            return
        try:
            if self._response_started:
                self.break_off(b"internal_error")
            else:
                self._send_bare_error(b"internal_error")
        except Exception:
            _log.failure("a transaction failed, and could not be ended in order")
            self.response_ended = True
            try:
                self.stream.abort()
            finally:
                if self.state is not _CLOSED:
                    self._close(None)

    # Flow control

    def _pause_request(self, reason: int) -> None:
        before = self._request_pauses
        self._request_pauses = before | reason
        if not before and self.state is not _CLOSED:
            self.stream.pause_reading()

    def _resume_request(self, reason: int) -> None:
        before = self._request_pauses
        self._request_pauses = before & ~reason
        if before and not self._request_pauses and self.state is not _CLOSED:
            self.stream.resume_reading()

    def _pause_response(self, reason: int) -> None:
        before = self._response_pauses
        self._response_pauses = before | reason
        if not before and self.source is not None:
            self.source.pause_reading()

    def _resume_response(self, reason: int) -> None:
        before = self._response_pauses
        self._response_pauses = before & ~reason
        if before and not self._response_pauses and self.source is not None:
            self.source.resume_reading()

    # The end

    def _close(self, error: StreamError | None) -> None:
        self.state = _CLOSED
        self.finished = time.monotonic()
        source, chain, fetch = self.source, self.chain, self.fetch
        try:
            if source is not None:
                source.give_up()
            if self._watched:
                self._hook(Hook.TXN_CLOSE)
        except Exception:  # whatever becomes of these, the transaction has ended
            _log.failure("a transaction did not end in order")
        try:
            if chain is not None:
                chain.close()
            if fetch is not None and fetch is source:
                fetch.close()
        except Exception:
            _log.failure("a transaction did not end in order")
        self.proxy.ended(self, error)
        # These know this transaction: without them it goes at once, and not when the collector comes.
        self.chain = None
        self.source = None
        self.fetch = None
        if fetch is not None and fetch.closed:  # else the cache goes on with it
            fetch.let_go()

    # For attributes and the log

    def start_date(self) -> float:
        """Return when it began, in seconds since the epoch, by the system's clock as it stands now."""
        return time.time() - (time.monotonic() - self.started)

    def duration_ns(self) -> int | None:
        """Return how long the transaction took, once it has ended."""
        return int((self.finished - self.started) * 1e9) if self.finished else None

    def backend_latency_ns(self) -> int | None:
        """Return the time from the request's head going out to the answer's coming in."""
        if not self.first_response_byte:
            return None
        return int((self.first_response_byte - self.request_sent) * 1e9)

    def grpc_status(self) -> int | None:
        """Return grpc-status of a gRPC answer, from its trailers or its head."""
        places = []
        if self.chain is not None and self.chain.response.trailers is not None:
            places.append(self.chain.response.trailers)
        if self.response is not None:
            places.append(self.response.headers)
        for headers in places:
            value = headers.get(b"grpc-status")
            if value is not None and value.isdigit() and len(value) <= 9:
                return int(value)
        return None
