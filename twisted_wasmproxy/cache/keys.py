"""The primary cache key of a request (RFC 9111 section 2), by the rules; and URLs as purges name them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from urllib.parse import unquote_to_bytes

from twisted_wasmproxy.config.model import CacheKeyConfig
from twisted_wasmproxy.http.authority import normal_authority, without_default_port
from twisted_wasmproxy.http.headers import Headers
from twisted_wasmproxy.http.messages import Request

__all__ = ["ANY_HOST", "KeyMaker", "normalized_url", "shown_key", "split_url", "url_host"]

ANY_HOST = b"*"
"""Stands for the host in the URLs of a rule whose key has none: `http://*/path` is what a purge names."""

_MOST_ORIGINS = 256
_MOST_PAIRS = 256
"""Parameters of a query, and cookies of a request, that are looked at; of more, all counts as it is."""
_MOST_ENCODED = 1024
"""Percent-encoded octets in the names of parameters; a query with more counts as it is."""

_AUTHORITY_END = re.compile(rb"[/?#]")
_PRINTABLE = bytes(range(0x20, 0x7F))
_UNPRINTABLE = re.compile(rb"[^\x20-\x7e]")


class KeyMaker:
    """Makes the keys of one rule; what can be worked out once is.

    `space` tells apart what must not be mixed: the upstream that a remap rule asks, or none (b"") for a forward
    proxy, which asks the origin that the URL names: who chooses a Host must not fill the cache of another.

    A key is fields with a NUL between them: the URL, the space, and one for each header field and cookie that counts
    (`accept: text/html`, `cookie sid=1`; without value where the request has none).
    """

    def __init__(self, config: CacheKeyConfig, space: bytes) -> None:
        self.space = _escaped(space)
        """The second field of the keys that are made."""
        self._tail = b"\0" + self.space
        self._query = _query_maker(config)
        self._host = config.host
        # Field names are compared without case, cookies' are not.
        self._headers = [(b"\0" + name.lower().encode(), name.lower().encode()) for name in config.headers]
        self._cookies = [(b"\0cookie " + name.encode(), name.encode()) for name in config.cookies]
        self._plain = self._query is None and config.host and not self._headers and not self._cookies
        self._origins: dict[tuple[bytes, bytes], bytes] = {}

    def make(self, request: Request) -> tuple[bytes, bytes]:
        """Return (key, url) of a request as the client made it. Never raises."""
        path = request.path
        origin = self._origins.get((request.scheme, request.authority))
        if origin is None or path[:1] != b"/" or b"#" in path or b"\0" in path:
            url = self._unusual(request.scheme, request.authority, path)
        else:
            url = origin + path
        if self._plain:
            return url + self._tail, url
        return self._made(url, request.headers)

    def make_for(self, url: bytes, request: Request) -> tuple[bytes, bytes]:
        """Return (key, url) for an absolute http(s) URL, with all else as in `request` (invalidation of Location)."""
        url = normalized_url(*split_url(url))
        if self._plain:
            return url + self._tail, url
        return self._made(url, request.headers)

    def _unusual(self, scheme: bytes, authority: bytes, path: bytes) -> bytes:
        if len(authority) <= 255:
            if len(self._origins) >= _MOST_ORIGINS:
                self._origins.clear()
            self._origins[scheme, authority] = normalized_url(scheme, authority, b"*")
        return normalized_url(scheme, authority, path)

    def _made(self, url: bytes, headers: Headers) -> tuple[bytes, bytes]:
        if self._query is not None:
            base, mark, query = url.partition(b"?")
            if mark:
                url = base + self._query(query)
        if not self._host:
            scheme, _, path = split_url(url)
            url = scheme + b"://" + ANY_HOST + path
        key = [url, self._tail]
        for prefix, name in self._headers:
            values = headers.get_all(name)
            key.append(prefix + b": " + _escaped(b", ".join(values)) if values else prefix)
        if self._cookies:
            lines = headers.get_all(b"cookie")
            cookies = _cookies(lines)
            for prefix, name in self._cookies:
                value = b"; ".join(lines) if cookies is None else cookies.get(name)
                key.append(prefix if value is None else prefix + b"=" + _escaped(value))
        return b"".join(key), url


def normalized_url(scheme: bytes, authority: bytes, path: bytes) -> bytes:
    """Return `scheme://host[:port]/path?query`: scheme and host in lower case, the scheme's default port left out, no
    fragment (RFC 9110 section 4.2.3). Percent-encoding is left as it is.

    No user information either. The path `*` of OPTIONS is none at all (RFC 9112 section 3.3). What only a filter can
    have put there is percent-encoded: NUL, and in the authority what would end it.
    """
    if not scheme.islower():
        scheme = scheme.lower()
    normal = normal_authority(authority)
    authority = _unusual_authority(authority) if normal is None else normal
    authority = without_default_port(authority, scheme)
    if path[:1] != b"/":
        path = b"" if path == b"*" else b"/" + path
    if b"#" in path:
        path = path.partition(b"#")[0]
    url = scheme + b"://" + authority + path
    return url.replace(b"\0", b"%00") if b"\0" in url else url


def _unusual_authority(authority: bytes) -> bytes:
    authority = authority.lower().rpartition(b"@")[2]
    if _AUTHORITY_END.search(authority):
        authority = _AUTHORITY_END.sub(_percent_encoded, authority)
    return authority.removesuffix(b":")


def split_url(url: bytes) -> tuple[bytes, bytes, bytes]:
    """Take an absolute URL apart: (scheme, authority, all the rest), as `normalized_url` takes them. Never raises."""
    scheme, mark, rest = url.partition(b"://")
    if not mark:
        return b"", b"", url
    match = _AUTHORITY_END.search(rest)
    end = len(rest) if match is None else match.start()
    return scheme, rest[:end], rest[end:]


def url_host(url: bytes) -> bytes:
    """Return `host[:port]` of an absolute URL, without user information; an IPv6 address in its brackets. Never raises;
    empty if there is none."""
    return split_url(url)[1].rpartition(b"@")[2]


def shown_key(key: bytes) -> bytes:
    """Return a key for people to read, in printable ASCII: ` | ` between its fields, without empty ones at its end."""
    shown = key.rstrip(b"\0").replace(b"\0", b" | ")
    if shown.translate(None, _PRINTABLE):
        shown = _UNPRINTABLE.sub(_percent_encoded, shown)
    return shown


def _percent_encoded(match: re.Match[bytes]) -> bytes:
    return b"%%%02X" % match[0][0]


def _escaped(value: bytes) -> bytes:
    """Return the value without NUL; two values never become one."""
    if b"\0" in value or b"\1" in value:
        return value.replace(b"\1", b"\1\1").replace(b"\0", b"\1\2")
    return value


def _cookies(lines: list[bytes]) -> dict[bytes, bytes] | None:
    """Return the first value of each cookie of a request (RFC 6265 section 4.2.1); None for too many of them."""
    if len(lines) + sum([line.count(b";") for line in lines]) > _MOST_PAIRS:
        return None
    cookies: dict[bytes, bytes] = {}
    for line in lines:
        for pair in line.split(b";"):
            name, mark, value = pair.partition(b"=")
            if mark:
                cookies.setdefault(name.strip(b" \t"), value.strip(b" \t"))
    return cookies


def _query_maker(config: CacheKeyConfig) -> Callable[[bytes], bytes] | None:
    """Return what makes `?query`, or nothing, of a query; None if all of it counts as it is."""
    if config.query == "drop":
        return lambda query: b""
    only = _named(config.query_only)
    without = _named(config.query_without)
    in_order = config.query == "sort"
    if not (config.query_only or config.query_without or in_order):
        return None

    def make(query: bytes) -> bytes:
        parameters = query.split(b"&", _MOST_PAIRS)
        if len(parameters) > _MOST_PAIRS:
            return b"?" + query
        names = [parameter.partition(b"=")[0] for parameter in parameters]
        encoded = sum([name.count(b"%") for name in names])
        if encoded > _MOST_ENCODED:
            return b"?" + query
        if encoded:
            names = [unquote_to_bytes(name) for name in names]
        named = list(zip(names, parameters, strict=True))
        if config.query_only:
            named = [parameter for parameter in named if only(parameter[0])]
        if config.query_without:
            named = [parameter for parameter in named if not without(parameter[0])]
        if in_order:
            named.sort(key=_first)
        return b"?" + b"&".join([parameter for _, parameter in named]) if named else b""

    return make


def _named(patterns: Iterable[str]) -> Callable[[bytes], bool]:
    """Return what says whether a name, percent-decoded, is among the patterns; `utm_*`: all that begin so."""
    exact = frozenset(pattern.encode() for pattern in patterns if not pattern.endswith("*"))
    prefixes = tuple(pattern[:-1].encode() for pattern in patterns if pattern.endswith("*"))
    return lambda name: name in exact or name.startswith(prefixes)


def _first(pair: tuple[bytes, bytes]) -> bytes:
    return pair[0]
