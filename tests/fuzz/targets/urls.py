"""Request targets, authorities, cache keys, remap rules and the URLs that purges name. The first line is a method and a
target, the second the Host, the third a reference as Location may have it."""

from __future__ import annotations

import contextlib
import re

from twisted_wasmproxy.admin.api import ApiError
from twisted_wasmproxy.admin.cache import selected_url
from twisted_wasmproxy.cache.fields import same_origin_uri
from twisted_wasmproxy.cache.keys import KeyMaker, normalized_url, shown_key, split_url, url_host
from twisted_wasmproxy.config.model import CacheKeyConfig, RedirectConfig, RemapConfig
from twisted_wasmproxy.http.authority import normal_authority
from twisted_wasmproxy.http.headers import Headers
from twisted_wasmproxy.http.http1.syntax import REQUEST_LINE, MessageError, split_target
from twisted_wasmproxy.http.messages import Request
from twisted_wasmproxy.transaction.remap import RemapTable, host_of
from twisted_wasmproxy.transaction.route import _host_and_port

__all__ = ["WORDS", "run"]

WORDS = [
    *(
        b"\n",
        b"/",
        b"//",
        b"?",
        b"#",
        b"@",
        b":",
        b"%",
        b"%00",
        b"%2f",
        b"%61",
        b"\\",
        b"\0",
        b"\xff",
        b"&",
        b"=",
        b";",
    ),
    *(b"GET ", b"CONNECT ", b"OPTIONS *", b"http://", b"HTTPS://", b"ftp://", b"h:80", b"h:443", b"h:99999", b"[::1]"),
    *(
        b"[::1]:80",
        b"[fe80::1%25eth0]",
        b"a.",
        b"a..b",
        b"*",
        b"..",
        b"/../",
        b"/./",
        b"a=1&a=2",
        b"?utm_a=1",
        b"[",
        b"]",
    ),
    *(b"xn--", b"%e2%82%ac", b"/api/x", b"/old/1/2", b"x.below.example", b"0x7f.1", b"127.1", b" ", b"\t", b"\r"),
]

KEYS = [
    KeyMaker(CacheKeyConfig(), b"space"),
    KeyMaker(CacheKeyConfig(query="sort", query_without=("utm_*",), host=False), b""),
    KeyMaker(CacheKeyConfig(query="drop", headers=("X-A",), cookies=("sid",)), b"\0\1"),
    KeyMaker(CacheKeyConfig(query_only=("a", "b")), b""),
]
REMAP = RemapTable(
    [
        RemapConfig(host="*.below.example", path="/api", rewrite="/v1", upstream="u"),
        RemapConfig(path="/old/", regex=re.compile(rb"/old/([^/]*)/(.*)"), redirect=RedirectConfig("$path/$1?$query")),
        RemapConfig(host="h", redirect=RedirectConfig("$scheme://$host$path?$query", 301)),
        RemapConfig(rewrite="/base/", upstream="u"),
    ]
)
_ACCEPTED = re.compile(rb"[!-~\x80-\xff]*")


def run(data: bytes) -> None:
    line, _, rest = data.partition(b"\n")
    host, _, reference = rest.partition(b"\n")
    method, _, target = line.partition(b" ")
    _check_urls(reference)
    _check_authority(host)
    if REQUEST_LINE.fullmatch(method + b" " + target + b" HTTP/1.1\r\n") is None:
        return
    try:
        scheme, authority, path = split_target(method, target, False)
    except MessageError:
        return
    if authority is None:
        authority = normal_authority(host)
        if authority is None:
            return
    assert normal_authority(authority) == authority
    if method == b"CONNECT":
        return
    assert path == b"*" or path.startswith(b"/")
    assert b"#" not in path
    headers = Headers([(b"X-A", reference), (b"Cookie", reference)])
    request = Request(method, scheme, authority, path, headers, target=target)
    _check_keys(request, reference)
    _check_remap(request)


def _check_authority(host: bytes) -> None:
    if normal_authority(host) is None:
        return
    assert _ACCEPTED.fullmatch(host)
    for octet in b"@,/?#\\":
        assert octet not in host
    host_of(host)
    address = _host_and_port(host, 80)
    if address is not None:
        name, port = address
        assert 0 < port < 65536
        assert name
        assert name.isascii()


def _check_urls(url: bytes) -> None:
    scheme, authority, rest = split_url(url)
    if scheme:
        assert scheme + b"://" + authority + rest == url
    normal = normalized_url(scheme, authority, rest)
    assert b"\0" not in normal
    if scheme.lower() in (b"http", b"https"):
        assert b"#" not in normal
        if normal_authority(authority) is not None and rest != b"*":
            assert normalized_url(*split_url(normal)) == normal, "what is normal is not changed"
    url_host(url)
    with contextlib.suppress(ApiError):
        chosen = selected_url("url", url.decode("utf-8", "replace"))
        assert normalized_url(*split_url(chosen)) == chosen
        assert re.fullmatch(rb"https?://[!-~]*", chosen), chosen


def _check_keys(request: Request, reference: bytes) -> None:
    for maker in KEYS:
        key, url = maker.make(request)
        assert key == maker.make(request)[0]
        assert key.startswith(url + b"\0" + maker.space)
        assert b"\0" not in url
        assert request.path == b"*" or normalized_url(*split_url(url)) == url
        shown_key(key).decode("ascii")
        maker.make_for(reference, request)
    target = normalized_url(request.scheme, request.authority, request.path)
    same = same_origin_uri(target, reference)
    if same is not None:
        assert split_url(same)[:2] == split_url(target)[:2]
        assert normalized_url(*split_url(same)) == same
    # Two hosts or schemes never share a key.
    scheme = b"http" if request.scheme == b"https" else b"https"
    other = Request(request.method, scheme, request.authority, request.path, request.headers)
    assert KEYS[0].make(other)[0] != KEYS[0].make(request)[0]


def _check_remap(request: Request) -> None:
    match = REMAP.match(request)
    assert match is not None
    if match.redirect is not None:
        _, location = match.redirect
        assert re.fullmatch(rb"[!-~]*", location), location
        assert b'"' not in location
        if location[:1] == b"/":
            assert location[1:2] != b"/", "a redirect to another host"
        else:
            assert location.startswith(request.scheme + b"://")
            assert split_url(location)[1] == host_of(request.authority), location
    else:
        assert match.path == b"*" or match.path[:1] == b"/"
        assert not set(match.path) & {*range(0x21), 0x7F}
