"""A stream for one filter: enough of a proxy to show it a message and to do what it asks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zope.interface import implementer

from twisted_wasmproxy.http.headers import Headers
from twisted_wasmproxy.http.messages import Request, Response
from twisted_wasmproxy.interfaces import Action, IBody, IFilterStream


@implementer(IBody)
class Body:
    """Bytes held for a filter."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def read(self, start: int, size: int) -> bytes:
        return self.data[start : start + size]

    def replace(self, start: int, size: int, data: bytes) -> None:
        start = min(start, len(self.data))
        self.data = self.data[:start] + data + self.data[start + size :]


@implementer(IFilterStream)
class Stream:
    """Takes a filter's wishes in `events`, and drives it in the order in which a chain would."""

    def __init__(
        self, request: Request | None = None, attributes: dict[tuple[bytes, ...], object] | None = None
    ) -> None:
        self.request = request or Request(b"GET", b"http", b"example.com", b"/", Headers())
        self.response: Response | None = None
        self.request_trailers: Headers | None = None
        self.response_trailers: Headers | None = None
        self.request_headers_writable = True
        self.response_headers_writable = True
        self.request_body: Body | None = None
        self.response_body: Body | None = None
        self.buffer_limit = 1024 * 1024
        self.filter_state: dict[tuple[bytes, ...], bytes] = {}
        self.attributes = attributes or {}
        self.events: list[Any] = []
        self.filter: Any = None

    def resume_request(self) -> None:
        self.events.append("resume_request")

    def resume_response(self) -> None:
        self.events.append("resume_response")

    def send_local_response(
        self,
        status: int,
        headers: Sequence[tuple[bytes, bytes]] = (),
        body: bytes = b"",
        details: bytes = b"",
        grpc_status: int = -1,
    ) -> None:
        self.events.append(("response", status, list(headers), body, details, grpc_status))

    def reset(self) -> None:
        self.events.append("reset")

    def attribute(self, path: tuple[bytes, ...]) -> object:
        return self.attributes.get(path)

    def add_trailers(self, request: bool) -> Headers:
        trailers = Headers()
        if request:
            self.request_trailers = trailers
        else:
            self.response_trailers = trailers
        return trailers

    # Driving

    def request_head(self, end_stream: bool = True) -> Action:
        if self.filter.request_headers is None:
            return Action.CONTINUE
        action: Action = self.filter.request_headers(end_stream)
        if action is Action.CONTINUE:
            self.request_headers_writable = False
        return action

    def response_head(self, end_stream: bool = True, status: int = 200, headers: Headers | None = None) -> Action:
        self.response = self.response or Response(status, headers or Headers())
        if self.filter.response_headers is None:
            return Action.CONTINUE
        action: Action = self.filter.response_headers(end_stream)
        if action is Action.CONTINUE:
            self.response_headers_writable = False
        return action

    def request_data(self, data: bytes, end_stream: bool = False) -> Action:
        self.request_body = Body((self.request_body.data if self.request_body else b"") + data)
        action: Action = self.filter.request_body(len(self.request_body), end_stream)
        return action

    def response_data(self, data: bytes, end_stream: bool = False) -> Action:
        self.response_body = Body((self.response_body.data if self.response_body else b"") + data)
        action: Action = self.filter.response_body(len(self.response_body), end_stream)
        return action

    def close(self) -> None:
        self.filter.closed()
