"""`WasmProxyResource`: the proxy as a `twisted.web` resource, to mount beside others in somebody's `Site`.

Everything after the listener is the same as under `twistd wasmproxy`: rules, filters, upstreams; and a request head is
judged by the reader of a listener, so what that refuses is refused here. twisted.web decides what reaches it: a request
body is complete (and wherever twisted.web keeps it) before the transaction starts, a folded line is one line, request
trailers are not seen, and 1xx answers, response trailers and upgrades cannot be sent. Of the file's limits and times
those hold that are not about connections: those of the head, `body` and `buffer`, `idle` for origins, `drain`.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from twisted.web.server import Request as WebRequest
from zope.interface import implementer

from twisted_wasmproxy.config.model import ListenerConfig
from twisted_wasmproxy.http.headers import Headers
from twisted_wasmproxy.http.http1.head import RequestHead, RequestLimits
from twisted_wasmproxy.http.http1.syntax import MessageError
from twisted_wasmproxy.http.messages import Request, Response
from twisted_wasmproxy.http.stream import RequestReceiver, ServerStream, StreamError, StreamFault
from twisted_wasmproxy.logs import Logger

if TYPE_CHECKING:
    from twisted_wasmproxy.service import ProxyService
    from twisted_wasmproxy.transaction.proxy import Proxy

__all__ = ["WasmProxyResource"]

_log = Logger()

_ids = count(1)

_MET = frozenset([b"expect", b"transfer-encoding", b"upgrade"])
"""What twisted.web has met already, or cannot meet."""

_PIECE = 64 * 1024


class WasmProxyResource(Resource):
    """A leaf that hands every request to a proxy.

    `service` is a running `ProxyService`; its configuration may have no listeners of its own. The path is matched and
    forwarded as the client sent it, with the segments that led here.
    """

    isLeaf = True

    def __init__(self, service: ProxyService) -> None:
        Resource.__init__(self)
        self._service = service
        self._proxy: Proxy | None = None
        self._listener = ListenerConfig(endpoint="")

    def render(self, request: WebRequest) -> int:
        """Start a transaction; it ends the request when it has an answer."""
        proxy = self._service.proxy
        if proxy is not self._proxy:  # the first request, or the first after a reload
            self._proxy = proxy
            self._listener = ListenerConfig(endpoint="", limits=proxy.config.limits, timeouts=proxy.config.timeouts)
        connection = _Connection(request)
        try:
            stream = _WebStream(request, connection, self._listener.limits)
            if 0 < self._listener.limits.body < stream.bytes_received:
                raise MessageError(413, "the request content is too long")
        except MessageError as error:
            proxy.refused(connection, error.status, str(error))
            request.setResponseCode(error.status)
            request.write(str(error).encode() + b"\n")
            request.finish()
        else:
            stream.start(proxy.handler(self._listener))
        return NOT_DONE_YET


class _Connection:
    """`ConnectionInfo` of a request in a `Site`."""

    def __init__(self, request: WebRequest) -> None:
        self.id = next(_ids)
        self.secure = bool(request.isSecure())
        self.transport: object = request.transport
        self.peer = _address(request.getClientAddress())
        self.local = _address(request.getHost())


def _address(address: object) -> tuple[str, int] | None:
    host, port = getattr(address, "host", None), getattr(address, "port", None)
    return (host, port) if isinstance(host, str) and isinstance(port, int) else None


def _read_head(web: WebRequest, secure: bool, size: int, limits: RequestLimits) -> Request:
    """Return the head of a request whose content has `size` bytes, as a listener reads it. Raises MessageError."""
    version = web.clientproto
    later = not version.startswith(b"HTTP/1.")
    if later and web.uri[:1] not in (b"/", b"*"):  # RFC 9113 section 8.3.1
        raise MessageError(400, "invalid request target")
    lines = [web.method + b" " + web.uri + b" " + (b"HTTP/1.1" if later else version)]
    for name, values in web.requestHeaders.getAllRawHeaders():
        if name.lower() not in _MET:
            lines += [name + b": " + value for value in values]
    if size and not web.requestHeaders.hasHeader(b"content-length"):  # it came chunked; its length is known now
        lines.append(b"Content-Length: %d" % size)
    head = RequestHead(limits, secure)
    data = b"\r\n".join([*lines, b"", b""])
    if head.feed(data) != len(data):
        raise MessageError(400, "invalid request head")
    if later:
        head.request.version = version.removeprefix(b"HTTP/")
    return head.request


@implementer(IPushProducer)
class _WebStream:
    """`ServerStream` on a twisted.web request, and the producer of its answer."""

    def __init__(self, request: WebRequest, connection: _Connection, limits: RequestLimits) -> None:
        """Raises MessageError for a head that a listener refuses too."""
        self.connection = connection
        content = request.content
        assert content is not None
        self._content = content
        self.bytes_received = content.seek(0, 2)
        content.seek(0)
        self.bytes_sent = 0
        self.head_received = self.head_sent = 0  # not told by twisted.web
        self.reused = False
        self._receiver: RequestReceiver | None = None
        self._web = request
        self._over = False
        self._paused = False
        self._fed = False
        self._length: int | None = None
        request.defaultContentType = None  # an answer has the type that its origin gave it, or none
        self.request = _read_head(request, connection.secure, self.bytes_received, limits)

    def start(self, handler: Callable[[ServerStream, bool], RequestReceiver]) -> None:
        """Hand over the request, and then its body."""
        receiver = self._receiver = handler(self, self.bytes_received == 0)
        if self._over:  # answered at once
            receiver.stream_finished()
            return
        self._web.notifyFinish().addErrback(self.client_lost)
        self._feed(receiver)

    def _feed(self, receiver: RequestReceiver) -> None:
        try:
            while not self._fed and not self._paused and not self._over:
                data = self._content.read(_PIECE)
                if data:
                    receiver.data_received(data)
                else:
                    self._fed = True
                    if self.bytes_received:
                        receiver.end_received(None)
        except Exception:
            self._crashed()

    def _crashed(self) -> None:
        """Called in an except clause, for an exception that nobody expected: log it, and break the exchange off."""
        _log.failure("a request of a Site failed")
        self.abort()
        if self._receiver is not None:
            self._receiver.stream_failed(StreamError(StreamFault.INTERNAL, "internal error"))

    def client_lost(self, reason: Failure) -> None:
        """The client went away before the answer was complete."""
        if not self._over:
            self._over = True
            assert self._receiver is not None
            self._receiver.stream_failed(StreamError(StreamFault.DISCONNECTED, reason.getErrorMessage()))

    # ServerStream

    def send_informational(self, response: Response) -> None:
        """twisted.web has no way to send it."""

    def send_response(self, response: Response, end_stream: bool) -> None:
        if self._over:
            return
        web = self._web
        web.setResponseCode(response.status, response.reason)
        web.responseHeaders = type(web.responseHeaders)()
        for name, value in response.headers:
            web.responseHeaders.addRawHeader(name, value)
        declared = response.headers.get(b"content-length")
        bodiless = self.request.method == b"HEAD" or response.status in (204, 304)
        self._length = int(declared) if declared is not None and not bodiless else None
        if end_stream:
            self._finish()
        else:
            web.registerProducer(self, True)

    def send_data(self, data: bytes) -> None:
        if self._over:
            return
        self.bytes_sent += len(data)
        if self._length is not None and self.bytes_sent > self._length:
            self._break("more content than its Content-Length says")
            return
        self._web.write(data)

    def send_end(self, trailers: Headers | None = None) -> None:
        if self._over:
            return
        if self._length is not None and self.bytes_sent != self._length:
            self._break("less content than its Content-Length says")
            return
        self._web.unregisterProducer()
        self._finish()

    def _finish(self) -> None:
        self._over = True
        self._web.finish()
        if self._receiver is not None:
            self._receiver.stream_finished()

    def _break(self, text: str) -> None:
        self.abort()
        if self._receiver is not None:
            self._receiver.stream_failed(StreamError(StreamFault.PROTOCOL, text))

    def abort(self) -> None:
        """Close the connection without ending the message."""
        if self._over:
            return
        self._over = True
        self._web.unregisterProducer()
        # An orderly close could look like the end of the content. A stream of HTTP/2 is aborted by its channel.
        channel: Any = self._web.channel
        (channel if hasattr(channel, "abortConnection") else channel.transport).abortConnection()

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        self._paused = False
        if self._receiver is not None:
            self._feed(self._receiver)

    # IPushProducer, for the transport

    def pauseProducing(self) -> None:
        if self._receiver is not None:
            try:
                self._receiver.pause_writing()
            except Exception:
                self._crashed()

    def resumeProducing(self) -> None:
        if self._receiver is not None:
            try:
                self._receiver.resume_writing()
            except Exception:
                self._crashed()

    def stopProducing(self) -> None:
        """The loss of the client is told through `client_lost`."""
