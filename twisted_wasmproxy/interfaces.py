"""The contracts that others may implement: filters in Python, and what a filter may do to its stream; cache stores.

A *filter* sees one HTTP stream pass and may change, hold, answer or break it. A Wasm module is a filter
(`twisted_wasmproxy.proxywasm`); so is a Python object found through `twisted.plugin`. Both get exactly the
powers below, and both obey the same rules, which are those of the Proxy-Wasm ABI 0.2.1 (stream flow).

A *cache store* keeps responses; what may be stored and reused is not its business.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from twisted.internet.defer import Deferred

    from twisted_wasmproxy.cache.entry import Selection, StoredHead
    from twisted_wasmproxy.http.headers import Headers
    from twisted_wasmproxy.http.messages import Request, Response
    from twisted_wasmproxy.transaction.states import Hook

__all__ = [
    "Action",
    "IBody",
    "ICacheStore",
    "ICacheStoreFactory",
    "IFilter",
    "IFilterFactory",
    "IFilterStream",
    "IStoreWriter",
    "IStoredResponse",
    "Phase",
]


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
    buffer_limit: int = Attribute("How many bytes of a body this filter may hold in one direction.")
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


class IStoredResponse(Interface):
    """One stored response: its head, and access to its content.

    Content may be incomplete (a stored 206): positions are those of the complete representation.
    """

    head: StoredHead = Attribute("The head; never changed.")
    parts: tuple[tuple[int, int], ...] = Attribute(
        "What is there, as (start, stop) in order; `((0, length),)` if all is."
    )
    size: int = Attribute("Bytes of content that are there.")
    body: bytes | None = Attribute("All content in one piece, where it is complete and at hand in memory; else None.")
    memo: object = Attribute("For the cache to remember what it has worked out of the head; None at first.")

    def read(start: int, size: int) -> bytes | Deferred[bytes]:
        """Return at least one and at most `size` bytes from `start` on, which lies in a part.

        A Deferred if that takes a while. Raises, or fails with, `StoreError` if the content is no longer there.
        """

    def used() -> None:
        """It answers a request now: for the choice of what to evict. Cheap."""

    def hold() -> None:
        """Keep the content readable, even if the response is removed or replaced, until `release`."""

    def release() -> None:
        """End one `hold`."""


class IStoreWriter(Interface):
    """A response that is being stored. Nobody finds it until `commit`; it is gone without a trace after `abort`."""

    head: StoredHead = Attribute("The head as it was given.")

    def write(data: bytes) -> Deferred[None] | None:
        """Append content. A Deferred asks the caller to write no more until it fires (it never fails).

        Raises `StoreFull`, or another `StoreError`, if it cannot be kept; then only `available`, `read` and `abort`
        follow, and everything but this `data` can still be read.
        """

    def available(start: int) -> int:
        """Return how many bytes can be read from `start` on without a gap: written now, or had before."""

    def read(start: int, size: int) -> bytes | Deferred[bytes]:
        """As `IStoredResponse.read`, for what is available."""

    def commit(head: StoredHead) -> IStoredResponse | Deferred[IStoredResponse]:
        """All content has been written; `head` (now with `length`) takes the place of the first one.

        From the moment of the result it is found under `head.key`, in the place of what was stored there with the same
        `head.vary`. It survives a crash or is not there. Raises, or fails with, `StoreError`. Until then what was
        written can be read from here.
        """

    def abort() -> None:
        """Forget it. Nothing happens after `commit` or another `abort`."""


class ICacheStore(Interface):
    """Keeps responses under keys, several variants (by `StoredHead.vary`) to a key.

    Every method is called in the reactor's thread and must not hold it up: what takes longer than a few microseconds
    of memory access goes to a thread, and the result comes as a Deferred. Where a method may return a value or a
    Deferred of it, one that has it at hand returns it: an answer from memory is written in the stack that asked.
    """

    def start() -> Deferred[None] | None:
        """Open. Raises, or fails with, `StoreError` with a text for the operator."""

    def stop() -> Deferred[None] | None:
        """Close; writers that are open are aborted."""

    def lookup(key: bytes) -> Sequence[IStoredResponse] | Deferred[Sequence[IStoredResponse]]:
        """Return what is stored under a key, the latest first; empty if nothing is (or it cannot be read)."""

    def create(head: StoredHead, size: int | None, base: IStoredResponse | None, start: int) -> IStoreWriter | None:
        """Begin to store a response of `size` bytes, None if not known; return None if it would not be kept.

        Content is written from position `start` of the representation on. `base`: an incomplete stored response of the
        same representation, whose parts the new one has, too; what is written replaces what overlaps.
        """

    def update(stored: IStoredResponse, head: StoredHead) -> IStoredResponse | Deferred[IStoredResponse]:
        """Give a stored response another head with the same key and `vary` (a validation); its content stays.

        If it has been removed meanwhile, the result is good for this one answer only.
        """

    def remove(stored: IStoredResponse) -> None:
        """Forget one stored response, as soon as can be."""

    def purge(selection: Selection, soft: bool) -> int | Deferred[int]:
        """Remove all that is selected, or if `soft` set `purged` of its head to now (`cache.clock.CLOCK.now()`); return
        how many there were.

        When the result is there no lookup finds what was purged, in any process that shares the store. What is being
        written meanwhile is not stored, if it was begun before.
        """

    def entries(selection: Selection, limit: int) -> Sequence[IStoredResponse] | Deferred[Sequence[IStoredResponse]]:
        """Return up to `limit` stored responses of a selection, for people to look at."""

    def stats() -> Mapping[str, int | float | str] | Deferred[Mapping[str, int | float | str]]:
        """Return figures for people and monitoring; among them `entries`, `bytes`, `capacity` (bytes), `evictions`."""


class ICacheStoreFactory(Interface):
    """What makes a store for a configuration. Provide it from a module in `twisted/plugins/`."""

    name: str = Attribute("The name by which the configuration refers to it (`cache: {store: {name: ...}}`).")

    def make(configuration: object, reactor: object) -> ICacheStore:
        """Return a store, not started. Raises ValueError with a text for the operator."""
