"""Which stored responses a purge means."""

from __future__ import annotations

import pytest

from twisted_wasmproxy.cache.entry import Selection, StoredHead
from twisted_wasmproxy.cache.selection import host_name, matches
from twisted_wasmproxy.http.headers import Headers


def stored(url: bytes, *keys: bytes) -> StoredHead:
    return StoredHead(url + b"\0s", url, 200, b"OK", Headers(), 0.0, 0.0, surrogate_keys=keys)


def test_nothing_said_is_everything() -> None:
    assert matches(Selection(), stored(b"http://a.test/x"))


@pytest.mark.parametrize(
    ("selection", "selected"),
    [
        (Selection(url=b"http://a.test/x?y"), True),
        (Selection(url=b"http://a.test/x"), False),
        (Selection(url=b"http://a.test/x?y\0s"), False),
        (Selection(prefix=b"http://a.test/x"), True),
        (Selection(prefix=b"http://a.test/x?y"), True),
        (Selection(prefix=b""), True),
        (Selection(prefix=b"http://a.test/x?yz"), False),
        (Selection(prefix=b"https://a.test/"), False),
        (Selection(host=b"a.test"), True),
        (Selection(host=b"b.test"), False),
        (Selection(host=b"test"), False),
        (Selection(host=b""), False),
        (Selection(surrogate_key=b"one"), True),
        (Selection(surrogate_key=b"two"), True),
        (Selection(surrogate_key=b"on"), False),
        (Selection(host=b"a.test", surrogate_key=b"one"), True),
        (Selection(host=b"a.test", surrogate_key=b"none"), False),
        (Selection(host=b"b.test", surrogate_key=b"one"), False),
        (Selection(url=b"http://a.test/x?y", prefix=b"http://b"), False),
    ],
)
def test_all_that_is_said_must_hold(selection: Selection, selected: bool) -> None:
    assert matches(selection, stored(b"http://a.test/x?y", b"one", b"two")) is selected


@pytest.mark.parametrize(
    ("host", "url", "selected"),
    [
        (b"a.test", b"http://a.test:8080/", True),
        (b"a.test", b"https://a.test/", True),
        (b"a.test:8080", b"http://a.test:8080/", True),
        (b"a.test:8080", b"http://a.test/", False),
        (b"a.test:8080", b"http://a.test:80/", False),
        (b"a.test:80", b"http://a.test/", True),
        (b"a.test:80", b"https://a.test/", False),
        (b"a.test:443", b"https://a.test/", True),
        (b"a.test:", b"http://a.test:8080/", True),
        (b"[::1]", b"http://[::1]/", True),
        (b"[::1]", b"http://[::1]:8080/", True),
        (b"[::1]:8080", b"http://[::1]:8080/", True),
        (b"[::1]:8080", b"http://[::1]/", False),
        (b"[::1]", b"http://[::]/", False),
        (b"*", b"http://*/x", True),
        (b"a.test", b"http://*/a.test", False),
        (b"a.test", b"http:///a.test", False),
    ],
)
def test_a_host_is_meant_on_any_port_unless_one_is_named(host: bytes, url: bytes, selected: bool) -> None:
    assert matches(Selection(host=host), stored(url)) is selected


@pytest.mark.parametrize(
    ("host", "name"),
    [
        (b"a.test", b"a.test"),
        (b"a.test:80", b"a.test"),
        (b"[::1]", b"[::1]"),
        (b"[::1]:80", b"[::1]"),
        (b"", b""),
    ],
)
def test_the_name_of_a_host_is_without_its_port(host: bytes, name: bytes) -> None:
    assert host_name(host) == name
