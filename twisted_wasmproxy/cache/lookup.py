"""`Caching`: the cache as one remap rule uses it; `Lookup`: one request that wants an answer from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.python.failure import Failure

from twisted_wasmproxy.cache.keys import KeyMaker
from twisted_wasmproxy.cache.policy import NOTHING_ASKED, Asked, asked
from twisted_wasmproxy.cache.vary import SelectingFields
from twisted_wasmproxy.config.model import CacheConfig, CacheRules

if TYPE_CHECKING:
    from twisted_wasmproxy.cache.client import Client
    from twisted_wasmproxy.cache.coordinator import Cache
    from twisted_wasmproxy.cache.decisions import Freshness
    from twisted_wasmproxy.cache.entry import StoredHead
    from twisted_wasmproxy.cache.fill import Fill
    from twisted_wasmproxy.cache.status import CacheStatus, Forward
    from twisted_wasmproxy.interfaces import IStoredResponse

__all__ = ["Caching", "Lookup"]


_SPECIAL = frozenset(
    {
        *(b"cache-control", b"pragma", b"range"),
        *(b"if-range", b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since"),
    }
)


class Caching:
    """A cache with the rules of one remap rule. `space`: see `KeyMaker`."""

    __slots__ = ("cache", "config", "keys", "methods", "rules", "strip")

    def __init__(self, cache: Cache, rules: CacheRules, config: CacheConfig, space: bytes) -> None:
        self.cache = cache
        self.rules = rules
        self.config = config
        self.keys = KeyMaker(rules.key, space)
        self.methods = frozenset(method.encode() for method in rules.methods)
        keyed = {name.lower() for name in rules.key.headers}
        self.strip = frozenset(name.lower().encode() for name in rules.strip_unkeyed if name.lower() not in keyed)
        """Request fields that origins do not get to see."""


class Lookup:
    """A request on its way through the cache; while it waits for another's answer, it is its client's `Source`."""

    __slots__ = (
        *("_selecting", "_told", "again", "alone", "caching", "client", "fill", "fwd", "gone", "incomplete", "key"),
        "on_settled",
        *("plain", "url", "wants"),
    )

    def __init__(self, caching: Caching, client: Client) -> None:
        self.caching = caching
        self.client = client
        self.key, self.url = caching.keys.make(client.request)
        request = client.request
        self.plain = request.method == b"GET" and _SPECIAL.isdisjoint([line[0] for line in request.headers.lines])
        """Whether it is a GET with nothing that a cache has to look into."""
        self.wants: Asked = NOTHING_ASKED if self.plain else asked(request.headers, caching.rules)
        self.fwd: Forward = "miss"
        """Why an origin must be asked (RFC 9211 section 2.2)."""
        self.fill: Fill | None = None
        """What it waits for."""
        self.incomplete: IStoredResponse | None = None
        """A stored response that has not all of what is wanted."""
        self.again = False
        """Whether it has waited for what was only for requests with other fields (Vary)."""
        self.alone = False
        """Whether it has waited in vain, and waits for no other."""
        self.gone = False
        """Whether its client wants no answer from here any more."""
        self._selecting: SelectingFields | None = None
        self._told = False
        self.on_settled: Callable[[], None] | None = None
        """Called once, when it has an answer, waits for another's, or has gone."""

    def selects(self, head: StoredHead) -> bool:
        """Say whether the request has the selecting fields of a stored response (RFC 9111 section 4.1)."""
        if not head.vary:
            return True
        if self._selecting is None:
            self._selecting = SelectingFields(self.client.request.headers)
        return self._selecting.selects(head)

    def may_have(self, fresh: Freshness) -> bool:
        """Say whether a response with this freshness is for requests like this one."""
        return not (fresh.not_for_cookies and b"cookie" in self.client.request.headers)

    def tell(self, status: CacheStatus) -> bool:
        """Tell the transaction, once, what is stored; return whether it still wants an answer."""
        if self._told:
            return not self.gone
        self._told = True
        return self.client.looked_up(status)

    def settle(self) -> None:
        """It has nothing of its own under way any more."""
        settled, self.on_settled = self.on_settled, None
        if settled is not None:
            settled()

    def crashed(self, failure: Failure | None = None) -> None:
        """Called in an except clause, or with a `failure`, for an exception that nobody expected: its client gets no
        answer from here."""
        self.client.crashed(failure)

    # Source

    def pause_reading(self) -> None:
        """There is nothing yet."""

    def resume_reading(self) -> None:
        """As above."""

    def give_up(self) -> None:
        self.gone = True
        self.settle()
        fill, self.fill = self.fill, None
        if fill is not None:
            try:
                fill.lookup_left(self)
            except Exception:  # not the failure of the transaction that leaves
                fill.crashed()
