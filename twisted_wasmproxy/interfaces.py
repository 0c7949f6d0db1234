"""The contracts that others may implement: filters in Python, and what a filter may do to its stream.

A *filter* sees one HTTP stream pass and may change, hold, answer or break it. A Wasm module is a filter
(`twisted_wasmproxy.proxywasm`); so is a Python object found through `twisted.plugin`. Both get exactly the
powers below, and both obey the same rules, which are those of the Proxy-Wasm ABI 0.2.1 (stream flow).
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted_wasmproxy.http.headers import Headers
    from twisted_wasmproxy.http.messages import Request, Response
    from twisted_wasmproxy.transaction.states import Hook

__all__ = ["Action", "IBody", "IFilter", "IFilterFactory", "IFilterStream", "Phase"]


class Action(IntEnum):
    """What a filter callback asks of the chain."""

    CONTINUE = 0
    """Pass on what was shown, and whatever this filter holds back in this direction."""
    PAUSE = 1
    """Hold. From headers: no body callback until resumed. From a body: keep the bytes, go on showing more."""
    PAUSE_HEADERS = 2
    """From headers only: hold the headers, but show the body as it comes; CONTINUE from there releases both."""
    PAUSE_AND_DISCARD = 3
    """From a body only: hold, and drop the bytes that were shown (the filter has taken them)."""


class Phase(IntEnum):
    """Where in a transaction a filter sits (see docs/architecture.md)."""

    CLIENT = 0
    ORIGIN = 1


class IBody(Interface):
    """The bytes of one direction that a filter may see and change now."""

    def __len__() -> int:
        """Return how many bytes are held."""

    def read(start: int, size: int) -> bytes:
        """Return `[start:start + size]`, cut at the end; empty past the end."""

    def replace(start: int, size: int, data: bytes) -> None:
        """Put `data` in the place of `[start:start + size]`; a start past the end appends."""


class IFilterStream(Interface):
    """One HTTP stream, as one filter of its chain sees it. Given to the filter when it is made.

    Methods may be called at any time until `IFilter.closed`, from inside a callback too: their effect then
    comes after the callback has returned. After the stream has ended they do nothing.
    """

    request: Request = Attribute("The request. Its head may be changed until it has been passed on.")
    response: Response | None = Attribute("The response, once there is one.")
    request_trailers: Headers | None = Attribute("Trailer fields, in and after the last body callback.")
    response_trailers: Headers | None = Attribute("Trailer fields, in and after the last body callback.")
    request_headers_writable: bool = Attribute("False once this filter's request head has been passed on.")
    response_headers_writable: bool = Attribute("False once this filter's response head has been passed on.")
    request_body: object = Attribute("`IBody` while this filter is shown or holds request bytes, else None.")
    response_body: object = Attribute("`IBody` while this filter is shown or holds response bytes, else None.")
    filter_state: dict[tuple[bytes, ...], bytes] = Attribute("Scratch values shared by the filters of a stream.")

    def resume_request() -> None:
        """Let a held request go on; nothing if it is not held."""

    def resume_response() -> None:
        """Let a held response go on; nothing if it is not held."""

    def send_local_response(
        status: int,
        headers: Sequence[tuple[bytes, bytes]] = (),
        body: bytes = b"",
        details: bytes = b"",
        grpc_status: int = -1,
    ) -> None:
        """Answer the client from here; the first answer wins, and none can follow a response head.

        `details` goes to the access log. A `grpc_status` of 0 or more on a gRPC request makes a
        trailers-only gRPC answer whose message is `body`.
        """

    def reset() -> None:
        """Break the stream off: the client sees an aborted connection or stream."""

    def attribute(path: tuple[bytes, ...]) -> object:
        """Return a well-known value by Envoy's attribute path (`(b"source", b"address")`), or None.

        Types: bytes, bool, int (times and durations in nanoseconds), float, `Headers`, or a dict or list of these.
        """

    def add_trailers(request: bool) -> Headers:
        """Return the trailers of a direction, made if there are none; for the last body callback."""


class IFilter(Interface):
    """One filter on one stream. Any method may be left out by setting its attribute to None.

    Order of calls: request_headers, request_body*, request_trailers?, response_headers, response_body*,
    response_trailers?, closed. `end_stream` is true on the last call of a direction unless trailers follow.
    An exception fails the filter: it is skipped from then on, or the client gets 500 (`fail_open`).
    """

    def request_headers(end_stream: bool) -> Action:
        """See the request head (`stream.request`)."""

    def request_body(size: int, end_stream: bool) -> Action:
        """See `size` bytes, all that is held (`stream.request_body`)."""

    def request_trailers() -> Action:
        """See `stream.request_trailers`."""

    def response_headers(end_stream: bool) -> Action:
        """See the response head (`stream.response`)."""

    def response_body(size: int, end_stream: bool) -> Action:
        """See `size` bytes, all that is held (`stream.response_body`)."""

    def response_trailers() -> Action:
        """See `stream.response_trailers`."""

    def hook(hook: Hook) -> None:
        """Be told of each hook (`transaction.states.Hook`) of the transaction, in Traffic Server's order. Optional."""

    def closed() -> None:
        """The stream has ended, well or not; called once, last."""


class IFilterFactory(Interface):
    """What makes filters: one per configured filter, for the life of a configuration.

    Provide this from a module in `twisted/plugins/` (see examples/native_filter) and name it in the
    configuration as `native: NAME`.
    """

    name: str = Attribute("The name by which the configuration refers to it.")

    def configured(configuration: object) -> IFilterFactory:
        """Return a factory for this configuration (the YAML value, or None).

        Raises ValueError with a text for the operator where the configuration is wrong.
        """

    def create(stream: IFilterStream) -> IFilter | None:
        """Make the filter for one stream, before its first callback; None to stay out of it."""
