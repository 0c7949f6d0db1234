"""The primary cache key of a request (RFC 9111 section 2), by the rules; and URLs as purges name them."""

from __future__ import annotations

from twisted_wasmproxy.config.model import CacheKeyConfig
from twisted_wasmproxy.http.messages import Request

__all__ = ["KeyMaker", "normalized_url"]


class KeyMaker:
    """Makes the keys of one rule; what can be worked out once is.

    `space` tells apart what must not be mixed: the upstream that a remap rule asks, or none (b"") for a forward
    proxy, which asks the origin that the URL names: who chooses a Host must not fill the cache of another.
    """

    def __init__(self, config: CacheKeyConfig, space: bytes) -> None:
        raise NotImplementedError

    def make(self, request: Request) -> tuple[bytes, bytes]:
        """Return (key, url) of a request as the client made it. Never raises."""
        raise NotImplementedError

    def make_for(self, url: bytes, request: Request) -> tuple[bytes, bytes]:
        """Return (key, url) for an absolute http(s) URL, with all else as in `request` (invalidation of Location)."""
        raise NotImplementedError


def normalized_url(scheme: bytes, authority: bytes, path: bytes) -> bytes:
    """Return `scheme://host[:port]/path?query`: scheme and host in lower case, the scheme's default port left out, no
    fragment (RFC 9110 section 4.2.3). Percent-encoding is left as it is."""
    raise NotImplementedError
