"""A CONNECT tunnel (RFC 9110 section 9.3.6): a TCP connection that is used as a `ClientStream`."""

from __future__ import annotations

from twisted.python.failure import Failure

from twisted_wasmproxy.config.model import HealthConfig, ServerConfig
from twisted_wasmproxy.http.deadlines import shared_deadlines
from twisted_wasmproxy.http.headers import Headers
from twisted_wasmproxy.http.http1.wire import LINGER, Wire
from twisted_wasmproxy.http.messages import Request, Response
from twisted_wasmproxy.http.stream import ResponseReceiver, StreamError, StreamFault
from twisted_wasmproxy.upstream.access import Access
from twisted_wasmproxy.upstream.dial import Dial, Transport, attach
from twisted_wasmproxy.upstream.reactor import Reactor
from twisted_wasmproxy.upstream.resolve import Resolver
from twisted_wasmproxy.upstream.server import Server
from twisted_wasmproxy.upstream.stream import Acquisition, Ready

__all__ = ["TunnelStream", "open_tunnel"]


def open_tunnel(
    host: str,
    port: int,
    reactor: Reactor,
    timeout: float,
    access: Access | None,
    receiver: ResponseReceiver,
    ready: Ready,
    resolver: Resolver | None = None,
) -> Acquisition:
    """Connect to a host, within `timeout` seconds, and give `ready` a `TunnelStream`, or an error:
    CONNECT, DENIED or TIMEOUT.

    `access` judges the addresses that the host resolves to; whether the client, the host and the port are allowed is
    for the caller to ask first. `resolver` is shared by those who ask for the same names; None for one of its own.
    """

    def done(result: Transport | StreamError) -> None:
        if isinstance(result, StreamError):
            ready(result)
            return
        server = Server(ServerConfig(host, port), HealthConfig(), reactor.seconds)
        stream = TunnelStream(server, receiver)
        attach(result, stream)
        ready(stream)

    return Dial(reactor, resolver or Resolver(reactor), host, port, timeout, done, access=access)


class TunnelStream(Wire):
    """Bytes both ways, each of which ends by itself; the request is answered here, and only opens the tunnel.

    Nothing is read before the request is "sent", so no byte overtakes the answer to it.
    """

    reused = False

    def __init__(self, server: Server, receiver: ResponseReceiver) -> None:
        super().__init__(shared_deadlines())
        self.server = server
        self.authority = server.authority
        self.idle_timeout = 0.0  # the time of a tunnel is measured at the client's side
        self.bytes_received = 0
        self.bytes_sent = 0
        self.head_received = 0
        self.head_sent = 0
        self._receiver = receiver
        self._opened = False
        self._paused = False
        self._sent_all = False
        self._over = False

    # ClientStream

    def send_request(self, request: Request, end_stream: bool) -> None:
        """Open the tunnel; the request itself is not for the other end, and has no content that could end."""
        self._opened = True
        if not self._paused:
            super().resume_reading()
        self._receiver.response_received(Response(200, Headers(), b"Connection Established"), False)

    def send_data(self, data: bytes) -> None:
        if not self._sent_all and not self._over:
            self.bytes_sent += self.write(data)

    def send_end(self, trailers: Headers | None = None) -> None:
        """Half-close, when all that was sent before has gone out."""
        if self._sent_all or self._over:
            return
        self._sent_all = True
        if self.read_closed:
            self._over = True
            self.close()
        else:
            self.close_writing()

    def abort(self) -> None:
        """Reset the connection; where both directions have ended it closes by itself, when all has gone out."""
        if not self._over:
            self._over = True
            super().abort()

    def pause_reading(self) -> None:
        self._paused = True
        super().pause_reading()

    def resume_reading(self) -> None:
        self._paused = False
        if self._opened:
            super().resume_reading()

    # Wire

    def connectionMade(self) -> None:
        super().pause_reading()

    def _consume(self, data: bytes) -> None:
        self.bytes_received += len(data)
        self._receiver.data_received(data)

    def read_ended(self) -> None:
        if self._over:
            return
        if self._sent_all:
            self._over = True
            self.close()
        self._receiver.end_received(None)

    def connection_lost(self, reason: Failure) -> None:
        if not self._over:
            self._over = True
            self._receiver.stream_failed(StreamError(StreamFault.DISCONNECTED, reason.getErrorMessage()))

    def writing_paused(self) -> None:
        if not self._over:
            self._receiver.pause_writing()

    def writing_resumed(self) -> None:
        if not self._over:
            self._receiver.resume_writing()

    def break_exchange(self, error: StreamError) -> None:
        over, self._over = self._over, True
        super().abort()
        if not over:
            self._receiver.stream_failed(error)

    def expired(self) -> None:
        if self.made_progress():
            self.deadline = self._deadlines.now + LINGER
        else:
            super().abort()
