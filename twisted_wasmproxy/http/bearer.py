"""Who may give commands to the proxy: whoever knows a token (RFC 6750), or has come without a proxy in between."""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Sequence

__all__ = ["CHALLENGE", "bears", "came_through_a_proxy"]

CHALLENGE = (b"WWW-Authenticate", b'Bearer realm="wasmproxy"')
"""Field of a 401 (RFC 6750 section 3)."""

_OF_PROXIES = frozenset(
    {
        *(b"forwarded", b"via", b"cdn-loop"),
        *(b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-forwarded-port", b"x-forwarded-server"),
        *(b"x-forwarded", b"x-real-ip", b"x-client-ip", b"x-cluster-client-ip", b"true-client-ip", b"cf-connecting-ip"),
    }
)


def bears(authorization: Sequence[bytes], token: str) -> bool:
    """Whether the Authorization field, given by its lines, has this token. Takes the same time for any wrong one."""
    if len(authorization) != 1:
        return False
    scheme, _, given = authorization[0].partition(b" ")
    return hmac.compare_digest(given.strip(b" "), token.encode()) and scheme.lower() == b"bearer"


def came_through_a_proxy(names: Iterable[bytes]) -> bool:
    """Whether field names, in lower case, say that a proxy has passed on the request: then the peer is not the one
    whose request it is. That they do not say so proves nothing."""
    return not _OF_PROXIES.isdisjoint(names)
