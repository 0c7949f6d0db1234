"""Which fields may stand in a trailer section (RFC 9110 section 6.5.1): a recipient may take one for a header field."""

from __future__ import annotations

from typing import Final

from twisted_wasmproxy.http.headers import Headers

__all__ = ["allowed_trailers"]

_FORBIDDEN: Final = frozenset(
    name.encode()
    for name in (
        # Framing, routing, and what concerns one connection only (RFC 9110 section 6.5.1, RFC 9112 section 6).
        *("connection", "content-length", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"),
        *("forwarded", "via", "x-host", "x-real-ip", "x-client-ip", "x-cluster-client-ip", "true-client-ip"),
        *("cf-connecting-ip", "x-rewrite-url", "client-ip", "front-end-https"),
        # Request modifiers: controls and conditionals (RFC 9110 sections 7.6.2, 10.1, 13.1 and 14.2), and what
        # frameworks take for the method or the URL.
        *("cache-control", "expect", "max-forwards", "pragma", "range", "prefer", "priority", "early-data"),
        *("http2-settings", "x-http-method", "x-method-override", "origin", "referer", "from", "user-agent"),
        *("accept", "accept-charset", "accept-encoding", "accept-language", "accept-ranges"),
        # Authentication and cookies (RFC 9110 section 11, RFC 6265).
        *("authorization", "authentication-info", "www-authenticate", "cookie", "cookie2", "set-cookie", "set-cookie2"),
        # Response control data (RFC 9110 section 10.2, RFC 9111 section 5).
        *("age", "allow", "cdn-cache-control", "clear-site-data", "date", "expires", "link", "location", "refresh"),
        *("retry-after", "strict-transport-security", "surrogate-control", "surrogate-key", "vary", "warning"),
        # How the content is to be taken (RFC 9110 section 8.3 to 8.7 and 14.4).
        *("content-disposition", "content-encoding", "content-language", "content-location", "content-range"),
        *("content-security-policy", "content-security-policy-report-only", "content-type", "mime-version"),
        *("x-content-type-options", "x-frame-options", "x-xss-protection"),
    )
)
_FORBIDDEN_PREFIXES: Final = (
    *(b"access-control-", b"cross-origin-", b"if-", b"proxy-", b"sec-"),
    *(b"x-forwarded", b"x-http-method-", b"x-original-", b"x-envoy-"),
)


def allowed_trailers(trailers: Headers) -> Headers:
    """Return the trailer fields without those that may be none.

    Nor those with an underscore in the name, which some recipients do not tell from a hyphen.
    """
    allowed = Headers()
    allowed.lines = [line for line in trailers.lines if _is_allowed(line[0])]
    return allowed


def _is_allowed(name: bytes) -> bool:
    return name not in _FORBIDDEN and not name.startswith(_FORBIDDEN_PREFIXES) and b"_" not in name
