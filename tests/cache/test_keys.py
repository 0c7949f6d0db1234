"""Cache keys and URLs (RFC 9111 section 2, RFC 9110 section 4.2.3)."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_wasmproxy.cache.keys import KeyMaker, normalized_url, shown_key, split_url, url_host
from twisted_wasmproxy.config.model import CacheKeyConfig
from twisted_wasmproxy.http.headers import Headers
from twisted_wasmproxy.http.messages import Request


def request(
    path: bytes = b"/",
    *fields: tuple[bytes, bytes],
    authority: bytes = b"a.test",
    scheme: bytes = b"http",
    method: bytes = b"GET",
) -> Request:
    return Request(method, scheme, authority, path, Headers(fields))


def url_of(config: CacheKeyConfig, path: bytes) -> bytes:
    key, url = KeyMaker(config, b"").make(request(path))
    assert key.startswith(url + b"\0")
    return url.removeprefix(b"http://a.test")


def key_of(config: CacheKeyConfig, *fields: tuple[bytes, bytes]) -> bytes:
    return KeyMaker(config, b"space").make(request(b"/", *fields))[0]


# URLs


@pytest.mark.parametrize(
    ("scheme", "authority", "path", "url"),
    [
        (b"http", b"a.test", b"/x?y=z", b"http://a.test/x?y=z"),
        (b"HTTP", b"A.Test", b"/X?Y=Z", b"http://a.test/X?Y=Z"),
        (b"http", b"a.test:80", b"/", b"http://a.test/"),
        (b"http", b"a.test:443", b"/", b"http://a.test:443/"),
        (b"https", b"a.test:443", b"/", b"https://a.test/"),
        (b"https", b"a.test:80", b"/", b"https://a.test:80/"),
        (b"http", b"a.test:8080", b"/", b"http://a.test:8080/"),
        (b"http", b"a.test:", b"/", b"http://a.test/"),
        (b"http", b"[::AB]:80", b"/", b"http://[::ab]/"),
        (b"http", b"[::80]", b"/", b"http://[::80]/"),
        (b"http", b"[::1]:8080", b"/", b"http://[::1]:8080/"),
        (b"http", b"", b"/x", b"http:///x"),
        (b"http", b"a.test", b"", b"http://a.test/"),
        (b"http", b"a.test", b"?x", b"http://a.test/?x"),
        (b"http", b"a.test", b"/x#y?z", b"http://a.test/x"),
        (b"http", b"a.test", b"*", b"http://a.test"),
        (b"http", b"a.test", b"/%7e%7E/../%c3", b"http://a.test/%7e%7E/../%c3"),
        (b"http", b"a.test", b"/\xc3\xbc", b"http://a.test/\xc3\xbc"),
        (b"http", b"joe:secret@a.test", b"/", b"http://a.test/"),
        (b"http", b"a.test/b", b"/c", b"http://a.test%2Fb/c"),
        (b"http", b"a.test", b"x", b"http://a.test/x"),
        (b"http", b"a.test", b"/\0", b"http://a.test/%00"),
    ],
)
def test_normalized_url(scheme: bytes, authority: bytes, path: bytes, url: bytes) -> None:
    assert normalized_url(scheme, authority, path) == url
    keys = KeyMaker(CacheKeyConfig(), b"s")
    for _ in range(2):  # the second time, the origin is known
        assert keys.make(request(path, authority=authority, scheme=scheme)) == (url + b"\0s", url)


@pytest.mark.parametrize(
    ("url", "host"),
    [
        (b"http://a.test/", b"a.test"),
        (b"http://a.test:8080/x", b"a.test:8080"),
        (b"http://a.test", b"a.test"),
        (b"http://a.test?x@y", b"a.test"),
        (b"http://a.test#x@y", b"a.test"),
        (b"http://[::1]/", b"[::1]"),
        (b"http://[::1]:8080/", b"[::1]:8080"),
        (b"http://joe:secret@a.test/x@y", b"a.test"),
        (b"http://joe@x@a.test:1/", b"a.test:1"),
        (b"http://*/x", b"*"),
        (b"http:///x", b""),
        (b"/x", b""),
        (b"", b""),
    ],
)
def test_the_host_of_a_url(url: bytes, host: bytes) -> None:
    assert url_host(url) == host


@pytest.mark.parametrize(
    "url",
    [b"HTTP://A.test:80/x?y", b"http://joe@a.test/x?y", b"http://a.test/x?y#z"],
)
def test_the_key_for_a_url_is_that_of_a_request_for_it(url: bytes) -> None:
    keys = KeyMaker(CacheKeyConfig(headers=("Accept",)), b"s")
    asked = request(b"/other", (b"Accept", b"text/html"), authority=b"b.test", method=b"PUT")
    assert keys.make_for(url, asked) == keys.make(request(b"/x?y", (b"Accept", b"text/html")))


def test_a_url_without_path_is_one_with_a_slash() -> None:
    keys = KeyMaker(CacheKeyConfig(), b"")
    for url in (b"http://a.test", b"http://a.test/", b"http://a.test#x"):
        assert keys.make_for(url, request())[1] == b"http://a.test/"
    assert keys.make_for(b"http://a.test?x", request())[1] == b"http://a.test/?x"


# What counts by default


def test_the_method_does_not_count() -> None:
    keys = KeyMaker(CacheKeyConfig(), b"")
    assert keys.make(request(method=b"GET")) == keys.make(request(method=b"HEAD")) == keys.make(request(method=b"PUT"))


def test_scheme_host_path_query_and_space_count() -> None:
    keys = KeyMaker(CacheKeyConfig(), b"one")
    made = [
        keys.make(request()),
        keys.make(request(scheme=b"https")),
        keys.make(request(authority=b"b.test")),
        keys.make(request(authority=b"a.test:81")),
        keys.make(request(b"/x")),
        keys.make(request(b"/?")),
        keys.make(request(b"/?x")),
        KeyMaker(CacheKeyConfig(), b"two").make(request()),
        KeyMaker(CacheKeyConfig(), b"").make(request()),
    ]
    assert len({key for key, _ in made}) == len(made)


def test_fields_and_cookies_do_not_count_by_default() -> None:
    assert key_of(CacheKeyConfig()) == key_of(CacheKeyConfig(), (b"Accept", b"x"), (b"Cookie", b"a=b"))


def test_many_origins_do_not_change_the_keys() -> None:
    keys = KeyMaker(CacheKeyConfig(), b"")
    for number in range(3000):
        host = b"Host%d.test" % number
        assert keys.make(request(authority=host))[1] == b"http://host%d.test/" % number
    assert keys.make(request(authority=b"Host0.test"))[1] == b"http://host0.test/"
    assert keys.make(request(authority=b"X" * 5000))[1] == b"http://" + b"x" * 5000 + b"/"


# Query


@pytest.mark.parametrize(
    ("config", "path", "counts"),
    [
        (CacheKeyConfig(query="drop"), b"/x?a=b", b"/x"),
        (CacheKeyConfig(query="drop"), b"/x?", b"/x"),
        (CacheKeyConfig(query="sort"), b"/x?b=1&a=2", b"/x?a=2&b=1"),
        (CacheKeyConfig(query="sort"), b"/x?b=2&a=1&b=1&a", b"/x?a=1&a&b=2&b=1"),
        (CacheKeyConfig(query="sort"), b"/x?%62=1&a=2&b=0", b"/x?a=2&%62=1&b=0"),
        (CacheKeyConfig(query="sort"), b"/x?ab=1&a=2", b"/x?a=2&ab=1"),
        (CacheKeyConfig(query="sort"), b"/x?b=a?c&a", b"/x?a&b=a?c"),
        (CacheKeyConfig(query="sort"), b"/x", b"/x"),
        (CacheKeyConfig(query="sort"), b"/x?", b"/x?"),
        (CacheKeyConfig(query_only=("a", "b")), b"/x?c=1&b=2&a=3&b", b"/x?b=2&a=3&b"),
        (CacheKeyConfig(query_only=("a",)), b"/x?%61=%31", b"/x?%61=%31"),
        (CacheKeyConfig(query_only=("a",)), b"/x?b=a&A=1&aa=2", b"/x"),
        (CacheKeyConfig(query_only=("a_*",)), b"/x?a_b=1&a_=2&a=3", b"/x?a_b=1&a_=2"),
        (CacheKeyConfig(query_only=("ü",)), b"/x?%C3%BC=1&u=2", b"/x?%C3%BC=1"),
        (CacheKeyConfig(query_without=("utm_*", "fbclid")), b"/x?utm_a=1&b=2&fbclid=3&%75tm_c", b"/x?b=2"),
        (CacheKeyConfig(query_without=("utm_*",)), b"/x?utm_a=1", b"/x"),
        (CacheKeyConfig(query_without=("utm_*",)), b"/x?a=1&&b=2", b"/x?a=1&&b=2"),
        (CacheKeyConfig(query_without=("*",)), b"/x?a=1&b", b"/x"),
        (CacheKeyConfig(query="sort", query_without=("x",)), b"/x?b=1&x=2&a=3", b"/x?a=3&b=1"),
        (CacheKeyConfig(query_only=("a*",), query_without=("ab",)), b"/x?a=1&ab=2&ac=3", b"/x?a=1&ac=3"),
    ],
)
def test_which_of_the_query_counts(config: CacheKeyConfig, path: bytes, counts: bytes) -> None:
    assert url_of(config, path) == counts


# Host


def test_hosts_share_where_the_host_does_not_count() -> None:
    keys = KeyMaker(CacheKeyConfig(host=False), b"s")
    one = keys.make(request(b"/x?y", authority=b"a.test"))
    assert one == keys.make(request(b"/x?y", authority=b"[::1]:8080")) == keys.make_for(b"http://c/x?y", request())
    assert one[1] == b"http://*/x?y"
    assert one != keys.make(request(b"/x?y", scheme=b"https"))


# Fields and cookies


def test_fields_that_count() -> None:
    config = CacheKeyConfig(headers=("Accept", "X-Device"))
    made = [
        key_of(config),
        key_of(config, (b"Accept", b"")),
        key_of(config, (b"Accept", b"a")),
        key_of(config, (b"Accept", b"A")),
        key_of(config, (b"X-Device", b"a")),
        key_of(config, (b"Accept", b"a"), (b"X-Device", b"a")),
    ]
    assert len(set(made)) == len(made)


def test_lines_of_a_field_are_joined() -> None:
    config = CacheKeyConfig(headers=("accept",))
    assert key_of(config, (b"ACCEPT", b"a"), (b"Accept", b"b")) == key_of(config, (b"Accept", b"a, b"))


def test_cookies_that_count() -> None:
    config = CacheKeyConfig(cookies=("sid", "lang"))
    made = [
        key_of(config),
        key_of(config, (b"Cookie", b"sid=")),
        key_of(config, (b"Cookie", b"sid=a")),
        key_of(config, (b"Cookie", b"lang=a")),
        key_of(config, (b"Cookie", b"sid=a; lang=a")),
        key_of(config, (b"Cookie", b'sid="a"')),
        key_of(config, (b"Cookie", b"sid=a=b")),
    ]
    assert len(set(made)) == len(made)
    assert key_of(config, (b"Cookie", b"x=1; lang=a;sid=a ; sid=b")) == made[4]
    assert key_of(config, (b"Cookie", b"lang=a"), (b"Cookie", b"sid=a")) == made[4]
    assert key_of(config, (b"Cookie", b"sid; SID=a; xsid=b; x=sid=c;; =d")) == made[0]


def test_what_counts_is_told_apart_by_its_kind() -> None:
    header = key_of(CacheKeyConfig(headers=("sid",)), (b"sid", b"a"))
    cookie = key_of(CacheKeyConfig(cookies=("sid",)), (b"Cookie", b"sid=a"))
    both = key_of(CacheKeyConfig(headers=("cookie",)), (b"Cookie", b"sid=a"))
    assert len({header, cookie, both}) == 3


def test_no_value_passes_for_several() -> None:
    config = CacheKeyConfig(headers=("x", "y"), cookies=("a", "b"))
    made = [
        key_of(config, (b"X", b"1"), (b"Y", b"2"), (b"Cookie", b"a=3; b=4")),
        key_of(config, (b"X", b"1\0y: 2"), (b"Cookie", b"a=3; b=4")),
        key_of(config, (b"X", b"1"), (b"Y", b"2\0cookie a=3"), (b"Cookie", b"b=4")),
        key_of(config, (b"X", b"1"), (b"Y", b"2"), (b"Cookie", b"a=3\0cookie b=4")),
        key_of(config, (b"X", b"1"), (b"Y", b"2"), (b"Cookie", b"a=3\1\2cookie b=4")),
        KeyMaker(config, b"space\0x: 1").make(request(b"/", (b"X", b"2")))[0],
        KeyMaker(CacheKeyConfig(headers=("x",)), b"space").make(request(b"/", (b"X", b"1\0x: 2")))[0],
    ]
    assert len(set(made)) == len(made)
    for field in made:
        assert field.count(b"\0") <= 5
    assert KeyMaker(CacheKeyConfig(), b"a\0x").make(request()) != KeyMaker(CacheKeyConfig(headers=("x",)), b"a").make(
        request()
    )


# To read


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        (b"http://a.test/\0", b"http://a.test/"),
        (b"http://a.test/\0origin", b"http://a.test/ | origin"),
        (b"http://a.test/\0\0accept: a", b"http://a.test/ |  | accept: a"),
        (b"http://a.test/\xc3\xbc\x1f\x7f\0", b"http://a.test/%C3%BC%1F%7F"),
        (b"", b""),
    ],
)
def test_a_key_to_read(key: bytes, shown: bytes) -> None:
    assert shown_key(key) == shown


# Whatever comes

octets = st.one_of(st.binary(max_size=12), st.text("aA:@/?#%&=;, \0\1*.[]", max_size=12).map(str.encode))
configs = st.builds(
    CacheKeyConfig,
    query=st.sampled_from(["keep", "drop", "sort"]),
    query_only=st.sampled_from([(), ("a",), ("a*",), ("*",)]),
    query_without=st.sampled_from([(), ("a",), ("a*",), ("*",)]),
    host=st.booleans(),
    headers=st.sampled_from([(), ("x",), ("x", "y")]),
    cookies=st.sampled_from([(), ("a",), ("a", "b")]),
)


@given(configs, octets, octets, octets, octets, octets, octets)
def test_nothing_raises(
    config: CacheKeyConfig, space: bytes, scheme: bytes, authority: bytes, path: bytes, cookie: bytes, field: bytes
) -> None:
    asked = request(path, (b"Cookie", cookie), (b"X", field), authority=authority, scheme=scheme)
    keys = KeyMaker(config, space)
    for key, url in (keys.make(asked), keys.make(asked), keys.make_for(path, asked), keys.make_for(authority, asked)):
        assert key.startswith(url + b"\0")
        assert b"\0" not in url
        assert b"@" not in url_host(url)
        assert shown_key(key).isascii()


hosts = st.sampled_from([b"a", b"b", b"a:1", b"[::1]", b"[::1]:1", b"ab"])
paths = st.text("ab/%&=?", max_size=6).map(lambda text: b"/" + text.encode())
field_values = st.text("ab:= |\0\1", max_size=4).map(str.encode)
cookie_values = st.text("ab:= |\0\1", max_size=4).map(lambda text: text.strip(" ").encode())
inputs = st.tuples(
    field_values,
    st.sampled_from([b"http", b"https"]),
    hosts,
    paths,
    st.none() | field_values,
    st.none() | field_values,
    st.none() | cookie_values,
    st.none() | cookie_values,
)


@given(st.lists(inputs, min_size=2, max_size=8))
def test_different_inputs_have_different_keys(several: list[tuple[bytes, ...]]) -> None:
    config = CacheKeyConfig(headers=("x", "y"), cookies=("c", "d"))
    keys: dict[bytes, object] = {}
    for one in several:
        space, scheme, authority, path, x, y, c, d = one
        fields = [(name, value) for name, value in ((b"X", x), (b"Y", y)) if value is not None]
        cookies = [b"%b=%b" % pair for pair in ((b"c", c), (b"d", d)) if pair[1] is not None]
        fields += [(b"Cookie", b"; ".join(cookies))] if cookies else []
        key, _ = KeyMaker(config, space).make(request(path, *fields, authority=authority, scheme=scheme))
        assert keys.setdefault(key, one) == one


@given(st.text("ab%6&=", max_size=12).map(str.encode))
def test_sorting_only_sorts(query: bytes) -> None:
    config = CacheKeyConfig(query="sort")
    once = url_of(config, b"/?" + query)
    assert url_of(config, once) == once
    assert Counter(once.removeprefix(b"/?").split(b"&")) == Counter(query.split(b"&"))


@given(hosts, paths)
def test_a_normal_url_is_left_as_it_is(host: bytes, path: bytes) -> None:
    url = normalized_url(b"http", host, path)
    assert url == b"http://" + host + path
    assert normalized_url(*split_url(url)) == url
    assert url_host(url) == host
