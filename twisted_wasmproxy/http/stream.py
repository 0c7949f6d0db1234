"""How a codec and the transaction above it talk: one request and its response, pushed both ways.

The codec of a client connection makes a `ServerStream` for each request, the codec of an origin connection a
`ClientStream`. Both push what they receive to a receiver and take what is to be sent. Nothing returns a Deferred,
and a call may be answered by a call in the same stack. Flow control is a pair of signals each way:

- a receiver that has had enough calls `pause_reading`, and later `resume_reading`;
- a stream whose buffer is over its high watermark calls `pause_writing` on its receiver, and under the low one
  `resume_writing`. What is sent in between is kept, so a sender may overshoot by what it already has at hand.

After an upgrade (a 101, or a 2xx to CONNECT) the same calls carry bytes instead of content: `send_data` is raw,
`send_end` half-closes, `end_received` says that the peer has half-closed.
"""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from twisted_wasmproxy.http.headers import Headers
from twisted_wasmproxy.http.messages import Request, Response

__all__ = [
    "ClientStream",
    "ConnectionInfo",
    "RequestReceiver",
    "ResponseReceiver",
    "ServerStream",
    "StreamError",
    "StreamFault",
]


class StreamFault(Enum):
    """Why a stream broke."""

    DISCONNECTED = "disconnected"
    """The peer went away, or reset the stream."""
    PROTOCOL = "protocol error"
    """What the peer sent is not HTTP, or is refused as ambiguous."""
    INCOMPLETE = "incomplete body"
    """The peer closed before the end of the body it had announced."""
    TIMEOUT = "timeout"
    CONNECT = "connect failed"
    """No connection could be made (refused, unreachable, name not found, TLS refused)."""
    DENIED = "destination denied"
    """The access rules let nobody through to the address."""
    OVERLOAD = "overload"
    """A configured limit was reached (connections, queue)."""
    INTERNAL = "internal error"
    """An exception that nobody expected; it is in the log."""


class StreamError(Exception):
    """A stream that broke: `fault` for the machine, the text for the operator.

    `status` is what the codec itself has answered the client with for it; 0 if nothing.
    """

    def __init__(self, fault: StreamFault, text: str, status: int = 0) -> None:
        super().__init__(text)
        self.fault = fault
        self.status = status


class ConnectionInfo(Protocol):
    """What is known of the connection that a stream runs on."""

    id: int
    """Unique in this process."""
    peer: tuple[str, int] | None
    """Address and port of the other end; None for a Unix socket."""
    local: tuple[str, int] | None
    secure: bool
    """Whether it is TLS."""
    transport: object
    """The Twisted transport, for TLS details."""


class _Stream(Protocol):
    @property
    def connection(self) -> ConnectionInfo: ...

    def send_data(self, data: bytes) -> None:
        """Send content (or, after an upgrade, raw bytes)."""

    def send_end(self, trailers: Headers | None = None) -> None:
        """End the message."""

    def abort(self) -> None:
        """Break the message off so that the peer can see that it is not complete."""

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class ServerStream(_Stream, Protocol):
    """One request from a client; takes its response. Ends when both messages have ended."""

    request: Request
    bytes_received: int
    """Bytes of the request on the wire so far, head included."""
    bytes_sent: int
    """Bytes of the response on the wire so far, head included."""
    head_received: int
    """Bytes of the request's head."""
    head_sent: int
    """Bytes of the response's head; 0 before it was sent."""
    reused: bool
    """Whether the connection had carried a request before this one."""

    def send_informational(self, response: Response) -> None:
        """Send a 1xx head (not 101); silently nothing to a client of HTTP/1.0."""

    def send_response(self, response: Response, end_stream: bool) -> None:
        """Send the head; `end_stream` says that neither content nor trailers follow.

        The codec frames the content: by Content-Length where `response.headers` has one (then exactly as many
        bytes must be sent: more or fewer abort the stream), else chunked, else by closing (HTTP/1.0).
        """


class RequestReceiver(Protocol):
    """What a `ServerStream` pushes a request to (the head was given when it was made)."""

    def data_received(self, data: bytes) -> None: ...

    def end_received(self, trailers: Headers | None) -> None: ...

    def stream_failed(self, error: StreamError) -> None:
        """The stream broke before both messages had ended. Called at most once; nothing follows."""

    def stream_finished(self) -> None:
        """Both messages have ended and the response has been handed to the transport. Nothing follows."""

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...


class ClientStream(_Stream, Protocol):
    """One request to an origin; gives its response. Ends when both messages have ended."""

    reused: bool
    """Whether the connection had served an exchange before this one."""
    bytes_received: int
    bytes_sent: int
    head_received: int
    """Bytes of the response's head, 1xx aside; 0 before it has come."""
    head_sent: int
    """Bytes of the request's head; 0 before it was sent."""

    def send_request(self, request: Request, end_stream: bool) -> None:
        """Send the head; framing as in `ServerStream.send_response`."""


class ResponseReceiver(Protocol):
    """What a `ClientStream` pushes a response to."""

    def informational_received(self, response: Response) -> None:
        """A 1xx other than 101 came."""

    def response_received(self, response: Response, end_stream: bool) -> None: ...

    def data_received(self, data: bytes) -> None: ...

    def end_received(self, trailers: Headers | None) -> None: ...

    def stream_failed(self, error: StreamError) -> None:
        """The exchange broke before the response had ended. Called at most once; nothing follows."""

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...
