"""The byte formats between host and guest."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_wasmproxy.proxywasm.abi import MAP_SIZE
from twisted_wasmproxy.proxywasm.wire import (
    MAX_PAIRS,
    Unserializable,
    decode_pairs,
    encode_pairs,
    encode_value,
    split_path,
)

pairs = st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=20)), max_size=20)


def test_the_format():
    expected = bytes.fromhex("02000000 01000000 01000000 01000000 02000000 61 00 31 00 62 00 32 32 00")
    assert encode_pairs([(b"a", b"1"), (b"b", b"22")]) == expected


@given(pairs)
def test_H01_round_trip(given_pairs):
    assert decode_pairs(encode_pairs(given_pairs)) == given_pairs


@pytest.mark.parametrize("count", [0, 1, MAX_PAIRS])
def test_H01_as_many_as_are_allowed(count):
    many = [(b"k\0%d" % n, b"") for n in range(count)]
    assert decode_pairs(encode_pairs(many)) == many


@pytest.mark.parametrize("empty", [b"", b"\0", b"\0\0\0\0"])
def test_every_form_of_an_empty_map(empty):
    assert decode_pairs(empty) == []


@given(pairs.filter(len), st.data())
def test_H09_what_is_cut_or_changed_in_length_is_no_map(given_pairs, data):
    encoded = encode_pairs(given_pairs)
    cut = data.draw(st.integers(2, len(encoded) - 1))
    with pytest.raises(ValueError, match="a map"):
        decode_pairs(encoded[:cut])
    with pytest.raises(ValueError, match="a map"):
        decode_pairs(encoded + b"\0")


@given(st.binary(max_size=200))
def test_any_bytes_are_a_map_or_a_value_error(data):
    try:
        decoded = decode_pairs(data)
    except ValueError:
        return
    assert encode_pairs(decoded) == data or not decoded


def test_what_is_too_large_is_refused():
    with pytest.raises(ValueError, match=str(MAX_PAIRS)):
        decode_pairs(encode_pairs([(b"", b"")] * (MAX_PAIRS + 1)))
    with pytest.raises(ValueError, match=str(MAP_SIZE)):
        decode_pairs(encode_pairs([(b"a", b"x" * MAP_SIZE)]))
    with pytest.raises(ValueError, match="pairs"):
        decode_pairs(b"\xff\xff\xff\xff")


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        (b"a", (b"a",)),
        (b"a\0b", (b"a", b"b")),
        (b"a\0b\0", (b"a", b"b")),
        (b"a\0b\0\0", (b"a", b"b", b"")),
        (b"a.b\0c", (b"a.b", b"c")),
        (b"", (b"",)),
        (b"\0", (b"",)),
    ],
)
def test_paths(path, parts):
    assert split_path(path) == parts


def test_what_has_no_encoding():
    with pytest.raises(Unserializable):
        encode_value(object())
    with pytest.raises(Unserializable):
        encode_value(-(2**63) - 1)
