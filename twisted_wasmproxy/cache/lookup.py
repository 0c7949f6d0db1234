"""`Caching`: the cache as one remap rule uses it; `Lookup`: one request that wants an answer from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted_wasmproxy.cache.keys import KeyMaker
from twisted_wasmproxy.cache.policy import Asked, asked
from twisted_wasmproxy.config.model import CacheConfig, CacheRules

if TYPE_CHECKING:
    from twisted_wasmproxy.cache.client import Client
    from twisted_wasmproxy.cache.coordinator import Cache
    from twisted_wasmproxy.cache.fill import Fill
    from twisted_wasmproxy.cache.status import Forward
    from twisted_wasmproxy.interfaces import IStoredResponse

__all__ = ["Caching", "Lookup"]


class Caching:
    """A cache with the rules of one remap rule. `space`: see `KeyMaker`."""

    __slots__ = ("cache", "config", "keys", "methods", "rules")

    def __init__(self, cache: Cache, rules: CacheRules, config: CacheConfig, space: bytes) -> None:
        self.cache = cache
        self.rules = rules
        self.config = config
        self.keys = KeyMaker(rules.key, space)
        self.methods = frozenset(method.encode() for method in rules.methods)


class Lookup:
    """A request on its way through the cache; while it waits for another's answer, it is its client's `Source`."""

    __slots__ = ("caching", "client", "fill", "fwd", "incomplete", "key", "on_settled", "url", "wants")

    def __init__(self, caching: Caching, client: Client) -> None:
        self.caching = caching
        self.client = client
        self.key, self.url = caching.keys.make(client.request)
        self.wants: Asked = asked(client.request.headers, caching.rules)
        self.fwd: Forward = "miss"
        """Why an origin must be asked (RFC 9211 section 2.2)."""
        self.fill: Fill | None = None
        """What it waits for."""
        self.incomplete: IStoredResponse | None = None
        """A stored response that has not all of what is wanted."""
        self.on_settled: Callable[[], None] | None = None
        """Called once it has an answer, asks again, or has gone."""

    def settle(self) -> None:
        """It waits no longer."""
        settled, self.on_settled = self.on_settled, None
        if settled is not None:
            settled()

    # Source

    def pause_reading(self) -> None:
        """There is nothing yet."""

    def resume_reading(self) -> None:
        """As above."""

    def give_up(self) -> None:
        fill, self.fill = self.fill, None
        if fill is not None:
            fill.lookup_left(self)
