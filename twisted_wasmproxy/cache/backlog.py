"""`Backlog`: keeps what an origin sends while something has to be done before anybody may see it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from twisted_wasmproxy.http.headers import Headers
from twisted_wasmproxy.http.stream import StreamError

if TYPE_CHECKING:
    from twisted_wasmproxy.transaction.fetch import Fetch, FetchConsumer
    from twisted_wasmproxy.transaction.local import LocalReply

__all__ = ["Backlog"]


class Backlog:
    """Stands in as the consumer of a fetch until `work` is done; then `go_on` is called, and whoever consumes the fetch
    after that gets what has come meanwhile. Everything but the answer goes to the present consumer all the while."""

    def __init__(self, fetch: Fetch, work: Deferred[Any], go_on: Callable[[], None]) -> None:
        self._fetch = fetch
        self._consumer = fetch.consumer
        self._calls: list[Callable[[FetchConsumer], None]] = []
        fetch.consumer = self
        fetch.pause_reading()
        work.addBoth(self._done, go_on)
        work.addErrback(fetch.crashed)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)

    def _done(self, _: object, go_on: Callable[[], None]) -> None:
        fetch = self._fetch
        fetch.resume_reading()  # first: whoever consumes the fetch from now on may pause it
        fetch.consumer = self._consumer
        go_on()
        for call in self._calls:
            call(fetch.consumer)

    def fetch_data(self, data: bytes, end_stream: bool) -> None:
        self._calls.append(lambda consumer: consumer.fetch_data(data, end_stream))

    def fetch_end(self, trailers: Headers | None) -> None:
        self._calls.append(lambda consumer: consumer.fetch_end(trailers))

    def fetch_failed(self, error: StreamError) -> None:
        self._calls.append(lambda consumer: consumer.fetch_failed(error))

    def fetch_reply(self, reply: LocalReply) -> None:
        self._calls.append(lambda consumer: consumer.fetch_reply(reply))

    def fetch_reset(self) -> None:
        self._calls.append(lambda consumer: consumer.fetch_reset())
