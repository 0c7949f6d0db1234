"""The fields that the proxy looks at, in requests and in responses: `test_tables` finds those that are missing here."""

from __future__ import annotations

__all__ = ["NOT_FIELDS", "REQUEST_FIELDS", "RESPONSE_FIELDS"]

_BOTH = (
    *("Age", "Cache-Control", "Cache-Status", "Connection", "Content-Encoding", "Content-Length", "Content-Location"),
    *("Content-MD5", "Content-Range", "Content-Type", "Date", "ETag", "Expires", "Keep-Alive", "Last-Modified"),
    *("Location", "Pragma", "Proxy-Connection", "Trailer", "Transfer-Encoding", "Upgrade", "Vary", "Via", "X-Other"),
)

REQUEST_FIELDS = (
    *_BOTH,
    *("Accept", "Accept-Charset", "Accept-Encoding", "Accept-Language", "Authorization", "Cookie", "Expect"),
    *("Forwarded", "Host", "If-Match", "If-Modified-Since", "If-None-Match", "If-Range", "If-Unmodified-Since"),
    *("Max-Forwards", "Proxy-Authorization", "Range", "Referer", "TE", "User-Agent", "X-Forwarded-For"),
    *("X-Forwarded-Host", "X-Forwarded-Proto", "X-Request-Id"),
    # Whether a PURGE or a call of the control API has come through a proxy, or from a web page
    *("CDN-Loop", "CF-Connecting-IP", "Origin", "Sec-Fetch-Site", "True-Client-IP", "X-Client-IP"),
    *("X-Cluster-Client-IP", "X-Forwarded", "X-Forwarded-Port", "X-Forwarded-Server", "X-Real-IP"),
)

RESPONSE_FIELDS = (
    *_BOTH,
    *("Allow", "grpc-message", "grpc-status", "Proxy-Authenticate", "Proxy-Authentication-Info", "Retry-After"),
    *("Server", "Set-Cookie", "WWW-Authenticate"),
    # Those that the configuration of these tests names.
    *("CDN-Cache-Control", "Surrogate-Key"),
)

NOT_FIELDS = frozenset(
    {
        # Codings, options, units, schemes, protocols
        *(
            "bearer",
            "bytes",
            "chunked",
            "close",
            "compress",
            "deflate",
            "gzip",
            "h2",
            "h2c",
            "http",
            "https",
            "uncompress",
        ),
        *("x-compress", "x-gzip"),
        # Cache directives
        *("immutable", "max-age", "max-stale", "min-fresh", "must-revalidate", "must-understand", "no-cache"),
        *("no-store", "only-if-cached", "private", "proxy-revalidate", "public", "s-maxage", "stale-if-error"),
        "stale-while-revalidate",
        # Details, for the log
        *(
            "connect",
            "denied",
            "none",
            "options",
            "purge",
            "redirect",
            "rule",
            "stopped",
            "timeout",
            "trace",
            "unknown",
        ),
    }
)
"""Words in the sources that are written as field names are, and are none."""
