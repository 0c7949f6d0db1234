"""Heads and selections as bytes: all of them come back, and nothing else is taken for one."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cache.support import head
from twisted_wasmproxy.cache.entry import Selection, StoredHead
from twisted_wasmproxy.cache.stores.codec import decode_head, decode_selection, encode_head, encode_selection
from twisted_wasmproxy.http.headers import Headers

texts = st.binary(max_size=30)
fields = st.builds(Headers, st.lists(st.tuples(texts, texts), max_size=5))
times = st.floats(allow_nan=False, allow_infinity=False)
heads = st.builds(
    StoredHead,
    key=texts,
    url=texts,
    status=st.integers(0, 0xFFFF),
    reason=texts,
    headers=fields,
    request_time=times,
    response_time=times,
    version=texts,
    vary=st.lists(st.tuples(texts, st.none() | texts), max_size=3).map(tuple),
    authorized=st.booleans(),
    length=st.none() | st.integers(0, 2**62),
    surrogate_keys=st.lists(texts, max_size=3).map(tuple),
    trailers=st.none() | fields,
    purged=times,
)
selections = st.builds(Selection, *[st.none() | texts] * 4)
EXAMPLE = encode_head(
    head(vary=((b"accept", None), (b"cookie", b"x")), surrogate_keys=(b"a", b"b"), trailers=Headers([(b"D", b"1")]))
)


@given(heads)
def test_a_head_comes_back_as_it_was(given_head: StoredHead) -> None:
    back = decode_head(encode_head(given_head))
    assert back == given_head
    assert back.headers.lines == given_head.headers.lines


@given(selections)
def test_a_selection_comes_back_as_it_was(selection: Selection) -> None:
    assert decode_selection(encode_selection(selection)) == selection


@pytest.mark.parametrize("stop", range(len(EXAMPLE)))
def test_a_head_cut_short_is_none(stop: int) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode_head(EXAMPLE[:stop])


def test_a_head_with_something_behind_it_is_none() -> None:
    with pytest.raises(ValueError, match="something follows"):
        decode_head(EXAMPLE + b"\0")


@pytest.mark.parametrize("version", [0, 1, 0x80, 0xFF])
def test_another_version_is_none(version: int) -> None:
    with pytest.raises(ValueError, match="format"):
        decode_head(bytes((version,)) + EXAMPLE[1:])
    with pytest.raises(ValueError, match="format"):
        decode_selection(bytes((version,)) + encode_selection(Selection())[1:])


@given(st.binary(max_size=200))
def test_bytes_of_any_kind_are_a_value_or_an_error(data: bytes) -> None:
    for decode in (decode_head, decode_selection):
        for version in (b"", b"\1"):
            with contextlib.suppress(ValueError):
                decode(version + data)


@given(st.integers(0, len(EXAMPLE) - 1), st.integers(0, 255))
def test_a_damaged_head_is_a_value_or_an_error(at: int, byte: int) -> None:
    damaged = bytearray(EXAMPLE)
    damaged[at] = byte
    with contextlib.suppress(ValueError):
        assert isinstance(decode_head(bytes(damaged)), StoredHead)


def test_huge_counts_are_refused_before_anything_is_made_of_them() -> None:
    at = EXAMPLE.index(b"\0\0\0\1" + b"\0\0\0\x0dCache-Control")
    with pytest.raises(ValueError, match="announced"):
        decode_head(EXAMPLE[:at] + b"\xff\xff\xff\xfe" + EXAMPLE[at + 4 :])
