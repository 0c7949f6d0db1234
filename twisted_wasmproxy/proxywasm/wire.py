"""Byte formats that cross between host and guest: maps, property paths and property values (ABI, serialization)."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence

from twisted_wasmproxy.proxywasm.abi import MAP_SIZE

__all__ = ["MAX_PAIRS", "Unserializable", "decode_pairs", "encode_pairs", "encode_value", "encoded_size", "split_path"]

MAX_PAIRS = 1024
"""Pairs of a map that a guest may send."""

_EMPTY = (b"", b"\0", b"\0\0\0\0")


class Unserializable(ValueError):
    """A value of a type that has no encoding."""


def encode_pairs(pairs: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Return the map format of `pairs`; nothing at all for an empty map, as guests expect."""
    if not pairs:
        return b""
    flat: list[bytes] = []
    sizes = [len(pairs)]
    for name, value in pairs:
        flat += (name, value)
        sizes += (len(name), len(value))
    flat.append(b"")
    return struct.pack(f"<{len(sizes)}I", *sizes) + b"\0".join(flat)


def encoded_size(pairs: Sequence[tuple[bytes, bytes]]) -> int:
    """Return how many bytes `encode_pairs` makes."""
    return 4 + sum(len(name) + len(value) + 10 for name, value in pairs) if pairs else 0


def decode_pairs(data: bytes) -> list[tuple[bytes, bytes]]:
    """Return the pairs of a map in its format. Raises ValueError unless every byte is accounted for."""
    if data in _EMPTY:
        return []
    if len(data) > MAP_SIZE:
        raise ValueError(f"a map of {len(data)} bytes; {MAP_SIZE} are allowed")
    if len(data) < 4:
        raise ValueError("a map cut short")
    (count,) = struct.unpack_from("<I", data)
    if count > MAX_PAIRS:
        raise ValueError(f"a map of {count} pairs; {MAX_PAIRS} are allowed")
    position = 4 + 8 * count
    if position > len(data):
        raise ValueError("a map cut short")
    sizes = struct.unpack_from(f"<{2 * count}I", data, 4)
    texts = []
    for size in sizes:
        end = position + size
        if data[end : end + 1] != b"\0":
            raise ValueError("a map cut short, or without its terminators")
        texts.append(data[position:end])
        position = end + 1
    if position != len(data):
        raise ValueError("a map with bytes after its end")
    return list(zip(texts[::2], texts[1::2], strict=True))


def split_path(path: bytes) -> tuple[bytes, ...]:
    """Return the segments of a property path; one NUL after the last (the C++ SDK writes it) is dropped."""
    parts = path.split(b"\0")
    if len(parts) > 1 and not parts[-1]:
        parts.pop()
    return tuple(parts)


def encode_value(value: object) -> bytes:
    """Return a property value as Envoy encodes it. Raises Unserializable.

    bytes and str as they are, bool in one byte, int (so times and durations, in nanoseconds) and float in eight,
    little-endian; mappings in the map format with encoded values, other iterables as a map from element to nothing.
    """
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    if isinstance(value, bool):
        return b"\1" if value else b"\0"
    if isinstance(value, int):
        try:
            return value.to_bytes(8, "little", signed=value < 0)
        except OverflowError:
            raise Unserializable(f"{value} does not fit in 64 bits") from None
    if isinstance(value, float):
        return struct.pack("<d", value)
    if isinstance(value, Mapping):
        return encode_pairs([(encode_value(key), encode_value(item)) for key, item in value.items()])
    if isinstance(value, Iterable):
        return encode_pairs([_pair(item) for item in value])
    raise Unserializable(f"{type(value).__name__} has no encoding")


def _pair(item: object) -> tuple[bytes, bytes]:
    # `Headers` gives (name, value); a list gives its elements.
    if isinstance(item, tuple) and len(item) == 2:
        return encode_value(item[0]), encode_value(item[1])
    return encode_value(item), b""
