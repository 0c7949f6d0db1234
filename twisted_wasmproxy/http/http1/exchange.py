"""`Exchange`: one request on a server's connection and its response, for those above (`ServerStream`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_wasmproxy.http.http1.encode import Framing, encode_informational, encode_response
from twisted_wasmproxy.http.http1.head import RequestHead
from twisted_wasmproxy.http.http1.wire import WireStream
from twisted_wasmproxy.http.messages import Request, Response, SharedResponse
from twisted_wasmproxy.http.stream import RequestReceiver, StreamError

if TYPE_CHECKING:
    from twisted_wasmproxy.http.http1.server import ServerProtocol

__all__ = ["Exchange"]

# An attribute of an Enum costs ten times a global.
_FRAMING_CLOSE = Framing.CLOSE
_FRAMING_TUNNEL = Framing.TUNNEL


class Exchange(WireStream):
    """One request and its response."""

    __slots__ = (
        "failure",
        "finished",
        "method",
        "receiver",
        "request",
        "response_started",
        "reused",
        "tunnel_ended",
        "waits_for_continue",
    )

    _wire: ServerProtocol

    def __init__(self, wire: ServerProtocol, head: RequestHead, reused: bool) -> None:
        super().__init__(wire)
        self.request: Request = head.request
        self.method = head.request.method
        """As the client sent it: filters may change the request's."""
        self.bytes_received = self.head_received = head.size
        self.reused = reused
        self.receiver: RequestReceiver | None = None
        self.response_started = False
        self.finished = False
        self.failure: StreamError | None = None
        self.tunnel_ended = False
        self.waits_for_continue = head.expects_continue and (head.chunked or bool(head.content_length))

    @property
    def tunnelled(self) -> bool:
        """Whether the response has left HTTP."""
        return self._framing is _FRAMING_TUNNEL

    @property
    def ends_with_connection(self) -> bool:
        """Whether only the end of the connection ends the response."""
        return self._framing is _FRAMING_CLOSE or self._framing is _FRAMING_TUNNEL

    # -- ServerStream

    def send_informational(self, response: Response) -> None:
        """Send a 1xx head. Raises ValueError if it has control bytes."""
        if self.response_started or self._wire.stream is not self or self.request.version == b"1.0":
            return
        if response.status == 100:
            self.waits_for_continue = False
        self.bytes_sent += self._wire.write(encode_informational(response))

    def send_response(self, response: Response, end_stream: bool) -> None:
        """Send the head. Raises ValueError, and sends nothing, if it would not be one valid head."""
        wire = self._wire
        if self.response_started or wire.stream is not self:
            return
        keep_alive = wire.will_keep_alive(self)
        usual = keep_alive and not end_stream and self.method == b"GET" and self.request.version == b"1.1"
        if usual and type(response) is SharedResponse:
            if response.encoded is None:
                response.encoded = encode_response(response, self.request, False, True, b"GET")
            head, self._framing, self._to_send = response.encoded
        else:
            head, self._framing, self._to_send = encode_response(
                response, self.request, end_stream, keep_alive, self.method
            )
        self.response_started = True
        self.sending = True
        if self._framing is _FRAMING_CLOSE:
            keep_alive = False
        if not keep_alive:
            wire.forbid_keep_alive()
        self.head_sent = wire.write(head)
        self.bytes_sent += self.head_sent
        if self._framing is _FRAMING_TUNNEL:
            wire.begin_tunnel()
        elif end_stream:
            self.send_end()

    def abort(self) -> None:
        """Break the response off; nothing is called after this."""
        if self._wire.stream is self:
            self._wire.break_off(self)

    def pause_reading(self) -> None:
        wire = self._wire
        if wire.stream is self:
            wire.pause_reading()
            wire.arm()

    def resume_reading(self) -> None:
        wire = self._wire
        if wire.stream is self:
            wire.resume_reading()
            wire.arm()

    # -- from the wire

    def _sent(self) -> None:
        if self._framing is not _FRAMING_TUNNEL:
            self._wire.response_ended(self)
        elif self.tunnel_ended:
            self._wire.tunnel_over(self)
        else:
            self._wire.close_writing()

    def _break(self, error: StreamError) -> None:
        self._wire.break_off(self)
        self.failed(error)

    def failed(self, error: StreamError) -> None:
        """Tell the receiver; where the handler is still at work, when it has returned one."""
        receiver, self.receiver = self.receiver, None
        if receiver is None:
            self.failure = error
        else:
            receiver.stream_failed(error)

    def tell_finished(self) -> None:
        """Both messages have ended; where the handler is still at work, its receiver is told when it has returned one.

        Exchange and receiver know each other; letting go here spares the collector a cycle for each exchange.
        """
        receiver, self.receiver = self.receiver, None
        if receiver is not None:
            receiver.stream_finished()

    def _tunnelled(self) -> None:
        self._wire.arm()

    def tunnel_read(self, data: bytes) -> None:
        """Bytes came out of the tunnel."""
        self.bytes_received += len(data)
        self._wire.arm()
        if self.receiver is not None:
            self.receiver.data_received(data)

    def tunnel_read_ended(self) -> None:
        """The client has half-closed the tunnel."""
        if self.tunnel_ended:
            return
        self.tunnel_ended = True
        if self.receiver is not None:
            self.receiver.end_received(None)
        if not self.sending:
            self._wire.tunnel_over(self)
