"""`Fetch`: asking an origin: filters of the origin phase, a connection, the request, its answer, one more try.

A fetch belongs to whoever consumes its answer (`FetchConsumer`: the transaction, or the cache, which may hand it over
to the transaction when it sees the head). Its chain sits on the origin's side: its request gates see the outgoing
head just before it is sent, its response gates the answer just after it has come.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from twisted.python.failure import Failure

from twisted_wasmproxy.http.headers import Headers
from twisted_wasmproxy.http.messages import Request, Response
from twisted_wasmproxy.http.stream import ConnectionInfo, StreamError, StreamFault
from twisted_wasmproxy.logs import Logger
from twisted_wasmproxy.transaction import local
from twisted_wasmproxy.transaction.chain import Chain, FilterSlot
from twisted_wasmproxy.transaction.framing import settle_length
from twisted_wasmproxy.transaction.local import LocalReply

if TYPE_CHECKING:
    from twisted_wasmproxy.upstream.server import Server
    from twisted_wasmproxy.upstream.stream import Acquisition, OriginStream, Ready

__all__ = ["IDEMPOTENT_METHODS", "Fetch", "FetchConsumer", "Origin", "starts_tunnel"]

_log = Logger()

IDEMPOTENT_METHODS = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"})
"""RFC 9110 section 9.2.2; CONNECT is never tried again."""

BACKLOG_HIGH = 64 * 1024
"""Bytes of a request body kept while there is no connection, before the client is asked to wait."""


class Origin(Protocol):
    """Where a fetch gets its connection: a cluster, or the opening of a tunnel."""

    preserve_host: bool
    """Whether the request keeps its authority; else it gets the server's."""
    retries: int
    """How many further attempts there may be."""

    def acquire(self, ready: Ready, receiver: Fetch, exclude: Server | None) -> Acquisition:
        """As `Cluster.acquire`."""


def starts_tunnel(request: Request, response: Response) -> bool:
    """Return whether the connection leaves HTTP with this answer (RFC 9110 sections 9.3.6 and 15.2.2)."""
    return response.status == 101 or (request.method == b"CONNECT" and 200 <= response.status < 300)


class FetchConsumer(Protocol):
    """Who wants the answer."""

    filter_state: dict[tuple[bytes, ...], bytes]

    def attribute(self, path: tuple[bytes, ...]) -> object: ...

    def fetch_connecting(self) -> None:
        """An attempt begins."""

    def fetch_sending(self, connection: ConnectionInfo) -> None:
        """There is a connection; the head is sent next."""

    def fetch_answered(self) -> None:
        """The head of the answer has come; no filter has seen it."""

    def fetch_informational(self, response: Response) -> None: ...

    def fetch_response(self, response: Response, end_stream: bool) -> None: ...

    def fetch_data(self, data: bytes, end_stream: bool) -> None: ...

    def fetch_end(self, trailers: Headers | None) -> None: ...

    def fetch_failed(self, error: StreamError) -> None:
        """There is no answer, or no more of it."""

    def fetch_wants_pause(self, pause: bool) -> None:
        """The request comes faster than it can be sent (or no longer)."""

    def fetch_reply(self, reply: LocalReply) -> None:
        """A filter of the origin phase answers itself."""

    def fetch_reset(self) -> None: ...

    def crashed(self, failure: Failure | None = None) -> None:
        """As `ChainOwner.crashed`: there is no answer, or no more of it. Raises nothing."""

    def progress(self) -> int:
        """As `ChainOwner.progress`."""


class Fetch:
    """One request to an origin, from choosing the connection to the end of the answer.

    `length_may_change`: a filter may change the content, so a head with a Content-Length is kept back until the
    first content is known (see `framing`). `idle_timeout`: seconds that the origin may be silent.
    """

    __slots__ = (
        "_acquisition",
        "_backlog",
        "_backlog_end",
        "_backlog_full",
        "_backlog_trailers",
        "_head_end",
        "_head_kept",
        "_head_out",
        "_idle_timeout",
        "_length_may_change",
        "_origin",
        "_pauses",
        "_response_kept",
        "_retries",
        "chain",
        "closed",
        "consumer",
        "ended",
        "filter_state",
        "request",
        "request_modified",
        "response",
        "server",
        "stream",
        "tunnel",
    )

    def __init__(
        self,
        consumer: FetchConsumer,
        request: Request,
        origin: Origin,
        slots: Sequence[FilterSlot],
        buffer_limit: int,
        length_may_change: bool,
        idle_timeout: float,
    ) -> None:
        self.consumer = consumer
        self.filter_state = consumer.filter_state
        self.request = request
        self.response: Response | None = None
        self.stream: OriginStream | None = None
        self.server: Server | None = None
        """The server asked last."""
        self.tunnel = False
        self.closed = False
        """Whether `close` was called."""
        self.ended = False
        """Nothing more comes from here: the answer is complete, or it failed, or it was given up."""
        self.request_modified = False
        """Whether a filter of the client phase has changed the content that is handed in."""
        self._origin = origin
        self._idle_timeout = idle_timeout
        self._acquisition: Acquisition | None = None
        self._retries = origin.retries
        self._head_end = False
        self._head_kept = False
        self._head_out = False
        self._backlog: list[bytes] = []
        self._backlog_end = False
        self._backlog_full = False
        self._backlog_trailers: Headers | None = None
        self._pauses = 0
        self._response_kept = False
        self.chain = Chain(self, slots, buffer_limit, idle_timeout) if slots else None
        self._length_may_change = length_may_change or (self.chain is not None and self.chain.request.shows_bodies)

    # What the consumer asks

    def start(self, end_stream: bool) -> None:
        """Begin. `end_stream`: the request has neither content nor trailers."""
        if self.chain is not None:
            self.chain.request.headers(end_stream)
        else:
            self.request_head_passed(end_stream)

    def send_data(self, data: bytes, end_stream: bool) -> None:
        if self.tunnel:
            assert self.stream is not None
            if data:
                self.stream.send_data(data)
            if end_stream:
                self.stream.send_end()
        elif self.ended:
            return
        elif self.chain is not None:
            self.chain.request.data(data, end_stream)
        else:
            self.request_data_passed(data, end_stream)

    def send_end(self, trailers: Headers | None) -> None:
        if self.ended:
            return
        if self.chain is not None:
            self.chain.request.end(trailers)
        else:
            self.request_end_passed(trailers)

    def pause_reading(self) -> None:
        self._pause(1)

    def resume_reading(self) -> None:
        self._unpause(1)

    def give_up(self) -> None:
        """Nobody wants the answer any more."""
        if not self.ended:
            self.ended = True
            if self._acquisition is not None:
                self._acquisition.cancel()
                self._acquisition = None
            if self.stream is not None:
                self.stream.abort()
        elif self.tunnel and self.stream is not None:
            self.stream.abort()
            self.tunnel = False

    def crashed(self, failure: Failure | None = None) -> None:
        """Called in an except clause, or with a `failure`, for an exception that nobody expected: give up, and let the
        consumer end what it wanted the answer for."""
        try:
            self.give_up()
        except Exception:
            _log.failure("a request to an origin could not be given up in order")
        self.consumer.crashed(failure)

    def close(self) -> None:
        """The stream that this fetch was for has ended."""
        self.closed = True
        self.give_up()
        if self.chain is not None:
            self.chain.close()

    def let_go(self) -> None:
        """After `close`, and when nobody asks any more how it went: forget what knows this fetch."""
        self.stream = None
        self.chain = None

    # ChainOwner: what comes out of the request gates

    def attribute(self, path: tuple[bytes, ...]) -> object:
        return self.consumer.attribute(path)

    def request_head_passed(self, end_stream: bool) -> None:
        self._head_end = end_stream
        self._connect(None)

    def request_data_passed(self, data: bytes, end_stream: bool) -> None:
        if self.ended:
            return
        if self._head_kept:
            self._head_kept = False
            modified = self.request_modified or (self.chain is not None and self.chain.request.modified)
            settle_length(self.request.headers, len(data) if end_stream else None, modified)
            self._send_head(False)
        if not self._head_out:
            if data:
                self._backlog.append(data)
            self._backlog_end = end_stream
            if not self._backlog_full and sum(map(len, self._backlog)) > BACKLOG_HIGH:
                self._backlog_full = True
                self.consumer.fetch_wants_pause(True)
            return
        stream = self.stream
        assert stream is not None
        if data:
            stream.send_data(data)
        if end_stream:
            stream.send_end()

    def request_end_passed(self, trailers: Headers | None) -> None:
        if self.ended:
            return
        if self._head_kept:
            self._head_kept = False
            self.request.headers.remove(b"content-length")
            self._send_head(False)
        if not self._head_out:
            self._backlog_end = True
            self._backlog_trailers = trailers
            return
        assert self.stream is not None
        self.stream.send_end(trailers)

    def request_waits(self, waiting: bool) -> None:
        self.consumer.fetch_wants_pause(waiting)

    def response_waits(self, waiting: bool) -> None:
        if waiting:
            self._pause(2)
        else:
            self._unpause(2)

    def local_reply(self, reply: LocalReply) -> None:
        if not self.ended or self.response is not None:
            self.give_up()
            if self.chain is not None:
                self.chain.request.stop()
                self.chain.response.stop()
            self.consumer.fetch_reply(reply)

    def reset(self) -> None:
        self.give_up()
        self.consumer.fetch_reset()

    def request_overflow(self, name: str) -> None:
        self.local_reply(local.overflow(413, "request"))

    def response_overflow(self, name: str) -> None:
        self.local_reply(local.overflow(502, "response"))

    def progress(self) -> int:
        return self.consumer.progress()

    def held_too_long(self) -> None:
        self.local_reply(local.held_too_long())

    def response_head_passed(self, end_stream: bool) -> None:
        response, chain = self.response, self.chain
        assert response is not None
        assert chain is not None
        if (
            chain.response.shows_bodies
            and not end_stream
            and self.request.method != b"HEAD"
            and b"content-length" in response.headers
        ):
            self._response_kept = True
            return
        self.consumer.fetch_response(response, end_stream)

    def response_data_passed(self, data: bytes, end_stream: bool) -> None:
        if self._response_kept:
            self._give_response(len(data) if end_stream else None)
        self.consumer.fetch_data(data, end_stream)

    def response_end_passed(self, trailers: Headers | None) -> None:
        if self._response_kept:
            assert self.response is not None
            self.response.headers.remove(b"content-length")
            self._give_response(None)
        self.consumer.fetch_end(trailers)

    def _give_response(self, total: int | None) -> None:
        """Let out the head that waited for its content; `total` bytes of that, if it is known."""
        self._response_kept = False
        response, chain = self.response, self.chain
        assert response is not None
        assert chain is not None
        settle_length(response.headers, total, chain.response.modified)
        self.consumer.fetch_response(response, False)

    # The connection

    def _connect(self, exclude: Server | None) -> None:
        self.consumer.fetch_connecting()
        acquisition = self._origin.acquire(self._ready, self, exclude)
        # `_ready` may have been called already, and all of this may be over.
        if self.stream is None and not self.ended:
            self._acquisition = acquisition

    def _ready(self, made: OriginStream | StreamError) -> None:
        self._acquisition = None
        try:
            if isinstance(made, StreamError):
                self._fail(made)
            elif self.ended:
                made.abort()
            else:
                self.stream = made
                self._connected(made)
        except Exception:
            self.crashed()

    def _connected(self, made: OriginStream) -> None:
        """Send the head, and what has come of the content."""
        self.server = made.server
        made.idle_timeout = self._idle_timeout
        if self._pauses:
            made.pause_reading()
        end = self._head_end
        if not end and not self._backlog_end and not self._backlog:
            if self._length_may_change and b"content-length" in self.request.headers and not self._head_out:
                self._head_kept = True
                return
            self._send_head(False)
            return
        backlog, trailers = self._backlog, self._backlog_trailers
        self._backlog = []
        if not end and self._length_may_change and trailers is None:
            modified = self.request_modified or (self.chain is not None and self.chain.request.modified)
            total = sum(map(len, backlog)) if self._backlog_end else None
            settle_length(self.request.headers, total, modified)
        self._send_head(end)
        if not end and not self.ended:
            if backlog:
                made.send_data(b"".join(backlog) if len(backlog) > 1 else backlog[0])
            if self._backlog_end and not self.ended:
                made.send_end(trailers)
        if self._backlog_full:
            self._backlog_full = False
            self.consumer.fetch_wants_pause(False)

    def _send_head(self, end_stream: bool) -> None:
        stream = self.stream
        assert stream is not None
        self._head_out = True
        if not self._origin.preserve_host:
            self.request.authority = stream.authority
        self.consumer.fetch_sending(stream.connection)
        if self.ended:  # a filter that was told of the hook has answered
            return
        try:
            stream.send_request(self.request, end_stream)
        except ValueError as invalid:  # a filter has made the head one that cannot be sent
            stream.abort()
            self._fail(StreamError(StreamFault.PROTOCOL, f"invalid request head from a filter: {invalid}"))

    def _fail(self, error: StreamError) -> None:
        self.ended = True
        self.stream = None
        self.consumer.fetch_failed(error)

    def _may_retry(self, error: StreamError) -> bool:
        """RFC 9110 section 9.2.2: a proxy repeats a request only if its method is idempotent; and here only if
        the connection went away without a byte of an answer, and no content would have to be sent again."""
        stream = self.stream
        return (
            self._retries > 0
            and stream is not None
            and error.fault is StreamFault.DISCONNECTED
            and self.request.method in IDEMPOTENT_METHODS
            and self._head_end
            and self.response is None
            and stream.bytes_received == 0
            and self.request.upgrade is None
        )

    # ResponseReceiver: what comes from the origin

    def informational_received(self, response: Response) -> None:
        try:
            if not self.ended:
                self.consumer.fetch_informational(response)
        except Exception:
            self.crashed()

    def response_received(self, response: Response, end_stream: bool) -> None:
        try:
            if self.ended:
                return
            assert self.stream is not None
            self.stream.server.succeeded()
            self.response = response
            self.tunnel = starts_tunnel(self.request, response)
            self.consumer.fetch_answered()
            if self.ended:
                return
            if end_stream and not self.tunnel:
                self.ended = True
            if self.chain is not None and not self.tunnel:
                self.chain.response.headers(end_stream)
            else:
                self.consumer.fetch_response(response, end_stream)
        except Exception:
            self.crashed()

    def data_received(self, data: bytes) -> None:
        try:
            if self.tunnel:
                self.consumer.fetch_data(data, False)
            elif self.ended:
                return
            elif self.chain is not None:
                self.chain.response.data(data, False)
            else:
                self.consumer.fetch_data(data, False)
        except Exception:
            self.crashed()

    def end_received(self, trailers: Headers | None) -> None:
        try:
            if self.tunnel:
                self.consumer.fetch_end(None)
                return
            if self.ended:
                return
            self.ended = True
            if self.chain is not None:
                self.chain.response.end(trailers)
            else:
                self.consumer.fetch_end(trailers)
        except Exception:
            self.crashed()

    def stream_failed(self, error: StreamError) -> None:
        try:
            if self.tunnel:
                self.tunnel = False
                self._fail(error)
            elif not self.ended:
                failed = self.stream
                assert failed is not None
                # A connection that had been idle may just have reached the origin's time limit: no sign of ill health.
                if self.response is None and not (failed.reused and error.fault is StreamFault.DISCONNECTED):
                    failed.server.failed()
                if self._may_retry(error):
                    self._retries -= 1
                    self.stream = None
                    self._head_out = False
                    self._connect(failed.server)
                else:
                    self._fail(error)
        except Exception:
            self.crashed()

    def pause_writing(self) -> None:
        try:
            if not self.ended or self.tunnel:
                self.consumer.fetch_wants_pause(True)
        except Exception:
            self.crashed()

    def resume_writing(self) -> None:
        try:
            if not self.ended or self.tunnel:
                self.consumer.fetch_wants_pause(False)
        except Exception:
            self.crashed()

    def _pause(self, reason: int) -> None:
        before = self._pauses
        self._pauses = before | reason
        if not before and self.stream is not None and (not self.ended or self.tunnel):
            self.stream.pause_reading()

    def _unpause(self, reason: int) -> None:
        before = self._pauses
        self._pauses = before & ~reason
        if before and not self._pauses and self.stream is not None and (not self.ended or self.tunnel):
            self.stream.resume_reading()
