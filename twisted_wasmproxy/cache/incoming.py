"""`Incoming`: a response while it is being stored, or freshened: requests are answered from it already."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_wasmproxy.cache.answer import Parts
from twisted_wasmproxy.cache.delivery import Delivery, StoredContent
from twisted_wasmproxy.cache.entry import StoredHead
from twisted_wasmproxy.cache.growing import Growing
from twisted_wasmproxy.cache.status import CacheStatus
from twisted_wasmproxy.http.headers import Headers

if TYPE_CHECKING:
    from twisted_wasmproxy.cache.coordinator import Cache
    from twisted_wasmproxy.cache.lookup import Lookup
    from twisted_wasmproxy.interfaces import IStoredResponse

__all__ = ["Incoming"]

AHEAD = 1024 * 1024
"""Bytes that a range may begin behind what has come; who wants what comes later than that asks for it."""


class Incoming:
    """A head, and `content` as it comes or what is `stored` already, of which `parts` will be there in the end."""

    __slots__ = ("_cache", "_parts", "_stored", "content", "head")

    def __init__(
        self, cache: Cache, head: StoredHead, parts: Parts, content: Growing | None, stored: IStoredResponse | None
    ) -> None:
        self._cache = cache
        self.head = head
        self._parts = parts
        self.content = content
        self._stored = stored

    @property
    def is_whole(self) -> bool:
        """Whether it will be all of the representation."""
        return len(self._parts) == 1 and self._parts[0][0] == 0 and self._parts[0][1] in (None, self.head.length)

    @property
    def outgrown(self) -> bool:
        """Whether the store does not keep all of it."""
        return self.content is not None and self.content.outgrown

    def share(self, lookup: Lookup) -> bool:
        """Answer a request that did not ask the origin itself; return False if it may not have this, or needs more."""
        content = self.content
        if content is not None and content.length is not None:
            status = CacheStatus(hit=True)
        else:
            status = CacheStatus(fwd=lookup.fwd, collapsed=True)
        return self._cache.may_share(self.head, lookup) and self.answer(lookup, status)

    def answer(
        self, lookup: Lookup, status: CacheStatus, headers: Headers | None = None, validated: bool = False
    ) -> bool:
        """Answer; return False if it has not what is wanted. `headers`, `validated`: see `answer.answer`."""
        made = self._cache.answer(lookup, self.head, self._parts, status, headers, validated)
        if made is None:
            return False
        response, pieces = made
        client, content = lookup.client, self.content
        if not pieces:
            client.cache_status = status
            client.respond(response, True)
        elif content is None:
            assert self._stored is not None
            client.cache_status = status
            Delivery(client, StoredContent(self._stored), pieces).start(response)
        elif any(not isinstance(piece, bytes) and not content.reaches(piece[0] - AHEAD) for piece in pieces):
            return False
        else:
            client.cache_status = status
            content.deliver(client, response, pieces)
        return True
