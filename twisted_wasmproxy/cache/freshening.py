"""`Freshening`: what a 304, or the answer to a HEAD, says of a stored response is stored (RFC 9111 section 4.3)."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from twisted_wasmproxy.cache import policy
from twisted_wasmproxy.cache.entry import StoredHead, StoreError
from twisted_wasmproxy.cache.lookup import Caching
from twisted_wasmproxy.http.headers import Headers
from twisted_wasmproxy.http.messages import Request, Response
from twisted_wasmproxy.interfaces import ICacheStore, IStoredResponse
from twisted_wasmproxy.logs import Logger

__all__ = ["Freshening"]

_log = Logger()


class Freshening:
    """By an answer that was asked for at `request_time` and came at `response_time` (`wall_ahead`: see `StoredHead`).

    Methods return what has to be waited for until it is stored; it never fails: then what is stored stays as it is.
    """

    __slots__ = ("_caching", "_request_time", "_response_time", "_wall_ahead")

    def __init__(self, caching: Caching, request_time: float, response_time: float, wall_ahead: float) -> None:
        self._caching = caching
        self._request_time = request_time
        self._response_time = response_time
        self._wall_ahead = wall_ahead

    @property
    def _store(self) -> ICacheStore:
        return self._caching.cache.store

    def freshened(self, stored: IStoredResponse, response: Response) -> StoredHead:
        """Return the head that a 304 makes (section 4.3.4). Our validators were of one response, so it is valid; should
        the 304 name another representation, nothing of what it says is taken over but the time."""
        if not policy.same_representation(stored.head, response):
            response = Response(304, Headers((b"Date", value) for value in response.headers.get_all(b"date")))
        return self._updated(stored, response)

    def _updated(self, stored: IStoredResponse, response: Response) -> StoredHead:
        caching = self._caching
        times = self._request_time, self._response_time
        return policy.freshened(stored.head, response, *times, caching.rules, caching.config, self._wall_ahead)

    def update(self, stored: IStoredResponse, head: StoredHead) -> Deferred[Any] | None:
        """Give a stored response another head."""
        try:
            updated = self._store.update(stored, head)
        except StoreError as error:
            _not_stored(error)
            return None
        return updated.addErrback(_not_stored) if isinstance(updated, Deferred) else None

    def by_head(self, stored: IStoredResponse, response: Response) -> Deferred[Any] | None:
        """Do to a stored response to GET what the answer to a HEAD says of it (section 4.3.5)."""
        if response.status != 200:
            return None
        if not policy.head_update(stored.head, response):
            self._store.remove(stored)
            return None
        return self.update(stored, self._updated(stored, response))

    def adopt(self, stored: IStoredResponse, head: StoredHead, request: Request) -> None:
        """Store a variant of others for requests like this one, for which the origin has chosen it, too (section 4.1);
        only if it is at hand."""
        body = stored.body
        names = [name for name, _ in head.vary]
        if body is None or policy.NO_NAME in names:
            return
        vary = policy.selecting(names, request.headers)
        writer = self._store.create(head.replaced(vary=vary), len(body), None, 0)
        if writer is None:
            return

        def failed(error: StoreError | Failure) -> None:
            writer.abort()
            _not_stored(error)

        try:
            if body:
                writer.write(body)
            made = writer.commit(writer.head)
        except StoreError as error:
            failed(error)
        else:
            if isinstance(made, Deferred):
                made.addErrback(failed)


def _not_stored(error: StoreError | Failure) -> None:
    reason = error.value if isinstance(error, Failure) else error
    _log.error("what a validation says could not be stored: {reason}", reason=reason)
