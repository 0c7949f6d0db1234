"""Remap rules: which rule matches, and what becomes of the path."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_wasmproxy.config.model import Location, RedirectConfig, RemapConfig
from twisted_wasmproxy.http.headers import Headers
from twisted_wasmproxy.http.messages import Request
from twisted_wasmproxy.transaction.remap import Match, RemapTable


def request(
    path: bytes = b"/", host: bytes = b"example.com", method: bytes = b"GET", scheme: bytes = b"http"
) -> Request:
    return Request(method, scheme, host, path, Headers())


def rule(**keys: object) -> RemapConfig:
    if "redirect" not in keys and "respond" not in keys:
        keys.setdefault("upstream", "origin")
    if isinstance(keys.get("regex"), bytes):
        keys["regex"] = re.compile(keys["regex"])
    return RemapConfig(**keys)  # type: ignore[arg-type]


def matched(rules: list[RemapConfig], asked: Request) -> Match:
    match = RemapTable(rules).match(asked)
    assert match is not None
    return match


def rewritten(sent: bytes, **keys: object) -> bytes:
    return matched([rule(**keys)], request(sent)).path


def location(to: str, asked: Request, **keys: object) -> bytes:
    match = matched([rule(redirect=RedirectConfig(to, 301), **keys)], asked)
    assert match.redirect is not None
    assert match.redirect[0] == 301
    return match.redirect[1]


def test_the_first_rule_whose_conditions_all_hold_wins():
    rules = [
        rule(host="a.example", path="/x/", upstream="1"),
        rule(path="/x/", methods=("POST", "PUT"), upstream="2"),
        rule(host="a.example", upstream="3"),
        rule(regex=rb"/(\d+)\?q=", upstream="4"),
        rule(upstream="5"),
    ]
    table = RemapTable(rules)
    wanted = {
        (b"a.example", b"/x/1", b"GET"): "1",
        (b"b.example", b"/x/1", b"POST"): "2",
        (b"b.example", b"/x/1", b"GET"): "5",
        (b"a.example", b"/y", b"GET"): "3",
        (b"b.example", b"/12?q=1", b"GET"): "4",
        (b"b.example", b"/a/12?q=1", b"GET"): "5",
    }
    for (host, path, method), upstream in wanted.items():
        match = table.match(request(path, host, method))
        assert match is not None
        assert match.upstream == upstream, (host, path, method)
        assert match.rule is rules[int(upstream) - 1]


def test_no_rule_matches():
    assert RemapTable([rule(host="a.example")]).match(request(host=b"b.example")) is None
    assert RemapTable([]).match(request()) is None


@pytest.mark.parametrize(
    ("pattern", "authority"),
    [
        ("example.com", b"example.com"),
        ("example.com", b"EXAMPLE.com:8080"),
        ("Example.COM", b"example.com."),
        ("example.com.", b"example.com.:80"),
        ("example.com", b"user@example.com:80"),
        ("*.example.com", b"a.example.com"),
        ("*.example.com", b"a.b.Example.com:443"),
        ("::1", b"[::1]:8080"),
        ("[::1]", b"[::1]"),
        ("[2001:db8::1]", b"[2001:DB8:0:0:0:0:0:1]"),
        ("192.0.2.1", b"192.0.2.1:1"),
        ("*", b"anything"),
        ("*", b""),
    ],
)
def test_a_host_matches(pattern: str, authority: bytes):
    assert RemapTable([rule(host=pattern)]).match(request(host=authority)) is not None


@pytest.mark.parametrize(
    ("pattern", "authority"),
    [
        ("example.com", b"a.example.com"),
        ("example.com", b"example.com.evil"),
        ("example.com", b""),
        ("*.example.com", b"example.com"),
        ("*.example.com", b"badexample.com"),
        ("[::1]", b"[::2]"),
        ("::1", b"::1"),
        ("example.com", b"[example.com"),
    ],
)
def test_a_host_does_not_match(pattern: str, authority: bytes):
    assert RemapTable([rule(host=pattern)]).match(request(host=authority)) is None


def test_order_holds_between_exact_wildcard_and_open_hosts():
    table = RemapTable(
        [
            rule(host="*.example.com", path="/first", upstream="wild"),
            rule(host="a.example.com", upstream="exact"),
            rule(host="*.example.com", upstream="wild again"),
            rule(upstream="open"),
        ]
    )

    def upstream(host: bytes, path: bytes) -> str | None:
        match = table.match(request(path, host))
        return match.upstream if match else None

    assert upstream(b"a.example.com", b"/first") == "wild"
    assert upstream(b"a.example.com", b"/") == "exact"
    assert upstream(b"b.example.com", b"/") == "wild again"
    assert upstream(b"example.com", b"/first") == "open"


@pytest.mark.parametrize(
    ("prefix", "path", "matches"),
    [
        ("/api", b"/api", True),
        ("/api", b"/api/x", True),
        ("/api", b"/apiary", True),
        ("/api/", b"/api", False),
        ("/api/", b"/api/?x", True),
        ("/api/", b"/%61pi/", False),
        ("/api/", b"/API/", False),
        ("/static/", b"/static/../admin", True),
        ("/", b"*", False),
    ],
)
def test_a_path_is_a_literal_prefix_of_what_was_sent(prefix: str, path: bytes, matches: bool):
    match = RemapTable([rule(path=prefix)]).match(request(path))
    assert (match is not None) == matches
    if match is not None:
        assert match.path == path


@pytest.mark.parametrize(
    ("keys", "path", "outcome"),
    [
        ({"path": "/api/", "rewrite": "/"}, b"/api/x?q=1", b"/x?q=1"),
        ({"path": "/api", "rewrite": "/"}, b"/api/x", b"/x"),
        ({"path": "/api", "rewrite": "/"}, b"/api", b"/"),
        ({"path": "/api", "rewrite": "/"}, b"/api?q", b"/?q"),
        ({"path": "/api/", "rewrite": ""}, b"/api/x", b"/x"),
        ({"path": "/api/", "rewrite": "/v2/"}, b"/api/x/../y%2f", b"/v2/x/../y%2f"),
        ({"rewrite": "/base"}, b"/x?q", b"/base/x?q"),
        ({"rewrite": "/base/"}, b"/x", b"/base/x"),
        ({"path": "/", "rewrite": "/$$1/"}, b"/x", b"/$1/x"),
        ({"regex": rb"/u/(\d+)/(\w+)", "rewrite": "/$2?id=$1"}, b"/u/7/edit", b"/edit?id=7"),
        ({"regex": rb"/u/(\d+)", "rewrite": "/users/${1}0"}, b"/u/7?x=1", b"/users/70?x=1"),
        ({"regex": rb"/(a)?(b)", "rewrite": "/[$1][$2]"}, b"/b", b"/[][b]"),
        ({"regex": rb"/(.*)", "rewrite": "$1"}, b"//evil.example/", b"/evil.example/"),
        ({"rewrite": "/base"}, b"*", b"*"),
        ({"rewrite": "/$host/$scheme"}, b"/x", b"/example.com/http/x"),
    ],
)
def test_rewriting(keys: dict[str, object], path: bytes, outcome: bytes):
    assert rewritten(path, **keys) == outcome


@pytest.mark.parametrize(
    ("to", "path", "host", "outcome"),
    [
        ("https://$host$path?$query", b"/a/b?x=1", b"Example.com:80", b"https://example.com/a/b?x=1"),
        ("https://$host$path?$query", b"/a/b", b"example.com.", b"https://example.com/a/b"),
        ("https://new.example/", b"/a/b?x", b"h", b"https://new.example/"),
        ("$scheme://www.$host$path", b"/a", b"h", b"http://www.h/a"),
        ("${scheme}://[$host]", b"/", b"h", b"http://[h]"),
        ("https://$host/", b"/", b"[::1]:80", b"https://[::1]/"),
        ("/moved$path", b"/a", b"h", b"/moved/a"),
        ("moved", b"/a", b"h", b"/moved"),
        ("$path", b"//evil.example/x", b"h", b"/evil.example/x"),
        ("$path", b"/\\evil.example/x", b"h", b"/%5Cevil.example/x"),
        ("/x?$$=$query", b"/?a", b"h", b"/x?$=a"),
        ("https://$host/", b"/", b"evil.example/path", b"https://evil.example%2Fpath/"),
        ("//other.example/", b"/", b"h", b"//other.example/"),
        ("/\u00e9", b"/", b"h", b"/%C3%A9"),
    ],
)
def test_redirects(to: str, path: bytes, host: bytes, outcome: bytes):
    assert location(to, request(path, host)) == outcome


def test_groups_in_redirects():
    asked = request(b"/old/a%20b?x")
    assert location("https://h/new/$1", asked, regex=rb"/old/([^?]*)") == b"https://h/new/a%20b"


def test_respond_and_preserve_host():
    match = matched([rule(respond=404)], request())
    assert (match.respond, match.upstream, match.redirect) == (404, None, None)
    assert match.preserve_host
    assert not matched([rule(preserve_host=False)], request()).preserve_host


@pytest.mark.parametrize(
    "keys",
    [
        {"rewrite": "/$1"},
        {"rewrite": "/$2", "regex": rb"/(x)"},
        {"rewrite": "/$unknown"},
        {"rewrite": "/a$"},
        {"redirect": RedirectConfig("/${nope}")},
    ],
)
def test_a_template_that_cannot_be_filled_in_is_an_error_with_its_place(keys: dict[str, object]):
    with pytest.raises(ValueError, match=r"^proxy\.yaml:7: remap\[0\]: \$"):
        RemapTable([rule(location=Location("proxy.yaml", 7, "remap[0]"), **keys)])


CONTROL = re.compile(rb"[\x00-\x20\x7f]")
TABLE = RemapTable(
    [
        rule(path="/r/", redirect=RedirectConfig("$path?$query")),
        rule(path="/s/", redirect=RedirectConfig("https://$host/$path?$query")),
        rule(regex=rb"(?s)/g/(.*)", redirect=RedirectConfig("$1")),
        rule(host="*.below", rewrite="$host$path"),
        rule(regex=rb"(?s)/p(.*)", rewrite="$1"),
        rule(path="/q", rewrite=""),
    ]
)


@given(
    st.binary(), st.sampled_from([b"", b"/r/", b"/s/", b"/g/", b"/p", b"/q", b"/"]), st.binary(), st.binary(max_size=8)
)
def test_nothing_raises_and_no_control_byte_gets_through(path: bytes, start: bytes, authority: bytes, method: bytes):
    for host in (authority, authority + b".below"):
        match = TABLE.match(request(start + path, host, method))
        if match is None:
            continue
        if match.redirect is not None:
            where = match.redirect[1]
            assert not CONTROL.search(where)
            assert where.isascii()
            assert where.startswith((b"/", b"https://"))
            assert not where.startswith((b"//", b"/\\"))
        elif match.path != b"*":
            assert not CONTROL.search(match.path)
            assert match.path.startswith(b"/")
            assert not match.path.startswith(b"//")
