"""What the cache and a transaction know of each other: the transaction as a `Client`, its answer's `Source`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from twisted_wasmproxy.http.messages import Request, Response

if TYPE_CHECKING:
    from twisted_wasmproxy.cache.status import CacheStatus
    from twisted_wasmproxy.http.headers import Headers
    from twisted_wasmproxy.transaction.fetch import Fetch, FetchConsumer

    class Client(FetchConsumer, Protocol):
        """A transaction that wants an answer: content by `fetch_data` and `fetch_end`, failures by `fetch_failed`."""

        request: Request
        """As the client made it, after the filters of the client phase."""
        fetch: Fetch | None
        cache_status: CacheStatus | None
        """What is said of it in Cache-Status and the log; set before the answer."""

        @property
        def closed(self) -> bool:
            """Whether it is over; nothing may be given to it any more."""

        def take(self, source: Source) -> None:
            """Its answer comes from `source` from now on, which is told of pauses and of its end."""

        def looked_up(self, status: CacheStatus | None) -> bool:
            """What is stored is known: run the hook; return whether an answer is still wanted."""

        def open_fetch(self, consumer: FetchConsumer, request: Request, background: bool) -> Fetch:
            """Make, not start, a fetch of `request`, which is its own or one like it, from the origin that it asks.

            `background`: not for its own answer.
            """

        def incoming(self, response: Response) -> None:
            """Do to an origin's response what a proxy does to it: Via, Date."""

        def respond(self, response: Response, end_stream: bool) -> None:
            """Take the head of the answer."""

        def not_cached(self, said: Headers) -> None:
            """Answer 504, with these fields: nothing is stored for only-if-cached (RFC 9111 section 5.2.1.7)."""


class Source(Protocol):
    """Where an answer comes from. Pauses may be repeated, and come when all is over."""

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def give_up(self) -> None:
        """The answer is no longer wanted."""
