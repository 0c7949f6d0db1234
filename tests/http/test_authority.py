"""The one spelling of an authority."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twisted_wasmproxy.http.authority import normal_authority, without_default_port


@pytest.mark.parametrize(
    ("given_", "normal"),
    [
        (b"", b""),
        (b"a", b"a"),
        (b"A.Example", b"a.example"),
        (b"a.", b"a."),
        (b"a:", b"a"),
        (b"a:0", b"a:0"),
        (b"a:080", b"a:80"),
        (b"a:00080", b"a:80"),
        (b"a:65535", b"a:65535"),
        (b"[::1]", b"[::1]"),
        (b"[FE80::A]:0443", b"[fe80::a]:443"),
        (b"a%2Db", b"a%2db"),
        (b"a_b~c", b"a_b~c"),
        *(
            (bad, None)
            for bad in (
                *(
                    b":",
                    b":80",
                    b"a:65536",
                    b"a:000080",
                    b"a:b",
                    b"a:+1",
                    b"a:1:2",
                    b"a b",
                    b" a",
                    b"a\t",
                    b"a\n",
                    b"a\0",
                ),
                *(b"a\0", b"u@a", b"@", b"a,b", b"a/b", b"a?b", b"a#b", b"a\\b", b"a%", b"a%2", b"a%zz", b"\xc3\xbc"),
                *(
                    b"[",
                    b"[]",
                    b"[::1",
                    b"::1",
                    b"[::1]x",
                    b"[fe80::1%25eth0]",
                    b"[fe80::1%eth0]",
                    b"[v1.x]",
                    b"a\xad",
                    b"a\0",
                ),
            )
        ),
    ],
)
def test_an_authority_has_one_normal_form_or_is_none(given_: bytes, normal: bytes | None) -> None:
    for _ in range(2):  # the second answer is remembered
        assert normal_authority(given_) == normal


@given(st.binary(max_size=30))
@settings(deadline=None)
def test_the_normal_form_is_stable_and_harmless(value: bytes) -> None:
    normal = normal_authority(value)
    if normal is not None:
        assert normal_authority(normal) == normal
        assert not set(normal) & set(b"/?#@,\\ \t\r\n\0") or not normal
        assert without_default_port(normal, b"http").count(b":80") <= normal.count(b":80")


@pytest.mark.parametrize(
    ("scheme", "authority", "left"),
    [
        (b"http", b"a:80", b"a"),
        (b"https", b"a:443", b"a"),
        (b"http", b"a:443", b"a:443"),
        (b"https", b"a:80", b"a:80"),
        (b"http", b"a:8080", b"a:8080"),
        (b"http", b"[::80]", b"[::80]"),
        (b"http", b"[::1]:80", b"[::1]"),
        (b"", b"a:443", b"a:443"),
    ],
)
def test_a_port_goes_without_saying_for_its_scheme_only(scheme: bytes, authority: bytes, left: bytes) -> None:
    assert without_default_port(authority, scheme) == left
