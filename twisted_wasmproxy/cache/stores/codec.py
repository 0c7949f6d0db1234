"""What stores write of a response's head and of a purge: `StoredHead` and `Selection` as bytes, and back.

Numbers are big-endian; a string is its length in four bytes and itself. The first byte is the version of the format.
Reading trusts nothing: whatever the bytes are, the result is a value or ValueError.

A head has the times of the clock (`cache.clock`) of the process that wrote it, which no step of the machine's clock
changes for that process. Others, and itself after a restart, read them by the machine's clock.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable
from struct import Struct

from twisted_wasmproxy.cache.clock import CLOCK, Clock
from twisted_wasmproxy.cache.entry import Selection, StoredHead
from twisted_wasmproxy.http.headers import Headers

__all__ = ["decode_head", "decode_selection", "encode_head", "encode_selection", "encode_vary"]

VERSION = 2

_FIXED = Struct(">BBHddqddd")
"""version, flags, status, request_time, response_time, length or -1, purged, wall_ahead, origin of the clock"""
_LENGTH = Struct(">I")
_ABSENT = 0xFFFFFFFF
"""In the place of a length: there is no string."""

_AUTHORIZED = 1
_TRAILERS = 2


def encode_head(head: StoredHead, clock: Clock = CLOCK) -> bytes:
    """Return a head, with times of `clock`, as bytes."""
    flags = (_AUTHORIZED if head.authorized else 0) | (_TRAILERS if head.trailers is not None else 0)
    length = -1 if head.length is None else head.length
    times = head.request_time, head.response_time, length, head.purged, head.wall_ahead, clock.origin
    out = [_FIXED.pack(VERSION, flags, head.status, *times)]
    _put_strings(out, (head.key, head.url, head.reason, head.version))
    _put_pairs(out, [(name, value) for _, name, value in head.headers.lines])
    _put_pairs(out, head.vary)
    _put_count(out, len(head.surrogate_keys))
    _put_strings(out, head.surrogate_keys)
    if head.trailers is not None:
        _put_pairs(out, [(name, value) for _, name, value in head.trailers.lines])
    return b"".join(out)


def decode_head(data: bytes, clock: Clock = CLOCK) -> StoredHead:
    """Return the head that `encode_head` wrote, with times of `clock`. ValueError for anything else."""
    reader = _Reader(data)
    try:
        return _head(reader, clock)
    except struct.error as error:
        raise ValueError("a head cut short") from error


def _head(reader: _Reader, clock: Clock) -> StoredHead:
    flags, status, request_time, response_time, length, purged, wall_ahead, origin = reader.fixed()
    if wall_ahead and origin != clock.origin:
        request_time += wall_ahead
        response_time += wall_ahead
        purged = purged and purged + wall_ahead
        wall_ahead = 0.0
    key, url, reason, version = reader.string(), reader.string(), reader.string(), reader.string()
    headers = Headers(reader.lines())
    vary = tuple(reader.pairs())
    surrogate_keys = tuple(reader.string() for _ in range(reader.count()))
    trailers = Headers(reader.lines()) if flags & _TRAILERS else None
    reader.end()
    return StoredHead(
        key=key,
        url=url,
        status=status,
        reason=reason,
        headers=headers,
        request_time=request_time,
        response_time=response_time,
        version=version,
        vary=vary,
        authorized=bool(flags & _AUTHORIZED),
        length=None if length < 0 else length,
        surrogate_keys=surrogate_keys,
        trailers=trailers,
        purged=purged,
        wall_ahead=wall_ahead,
    )


def encode_vary(vary: tuple[tuple[bytes, bytes | None], ...]) -> bytes:
    """Return `StoredHead.vary` as bytes that are equal where it is."""
    out: list[bytes] = []
    _put_pairs(out, vary)
    return b"".join(out)


def encode_selection(selection: Selection) -> bytes:
    """Return a selection as bytes."""
    out = [bytes((VERSION,))]
    for value in (selection.url, selection.prefix, selection.host, selection.surrogate_key):
        _put_optional(out, value)
    return b"".join(out)


def decode_selection(data: bytes) -> Selection:
    """Return the selection that `encode_selection` wrote. ValueError for anything else."""
    if data[:1] != bytes((VERSION,)):
        raise ValueError("not a selection in this format")
    reader = _Reader(data, 1)
    try:
        values = [reader.optional() for _ in range(4)]
    except struct.error as error:
        raise ValueError("a selection cut short") from error
    reader.end()
    return Selection(*values)


def _put_count(out: list[bytes], count: int) -> None:
    out.append(_LENGTH.pack(count))


def _put_strings(out: list[bytes], values: Iterable[bytes]) -> None:
    for value in values:
        out.append(_LENGTH.pack(len(value)))
        out.append(value)


def _put_optional(out: list[bytes], value: bytes | None) -> None:
    if value is None:
        _put_count(out, _ABSENT)
    else:
        _put_strings(out, (value,))


def _put_pairs(out: list[bytes], pairs: list[tuple[bytes, bytes]] | tuple[tuple[bytes, bytes | None], ...]) -> None:
    _put_count(out, len(pairs))
    for name, value in pairs:
        _put_strings(out, (name,))
        _put_optional(out, value)


class _Reader:
    """Takes values from bytes, one after the other. Raises ValueError; struct.error where the bytes end too early."""

    def __init__(self, data: bytes, position: int = 0) -> None:
        self._data = data
        self._at = position

    def fixed(self) -> tuple[int, int, float, float, int, float, float, float]:
        """Return what stands first in a head, but for the version."""
        values = _FIXED.unpack_from(self._data)
        version, flags, status, request_time, response_time, length, purged, wall_ahead, origin = values
        if version != VERSION or flags & ~(_AUTHORIZED | _TRAILERS) or length < -1:
            raise ValueError("not a head in this format")
        if not all(map(math.isfinite, values[3:])):
            raise ValueError("times that are none")
        self._at = _FIXED.size
        return flags, status, request_time, response_time, length, purged, wall_ahead, origin

    def count(self) -> int:
        """Return a number of things that follow, each of which takes at least a length."""
        (count,) = _LENGTH.unpack_from(self._data, self._at)
        self._at += _LENGTH.size
        if count > (len(self._data) - self._at) // _LENGTH.size:
            raise ValueError("more announced than there is")
        return int(count)

    def string(self) -> bytes:
        (length,) = _LENGTH.unpack_from(self._data, self._at)
        start = self._at + _LENGTH.size
        self._at = stop = start + length
        if stop > len(self._data):
            raise ValueError("a value missing or cut short")
        return self._data[start:stop]

    def optional(self) -> bytes | None:
        (length,) = _LENGTH.unpack_from(self._data, self._at)
        if length != _ABSENT:
            return self.string()
        self._at += _LENGTH.size
        return None

    def pairs(self) -> list[tuple[bytes, bytes | None]]:
        return [(self.string(), self.optional()) for _ in range(self.count())]

    def lines(self) -> list[tuple[bytes, bytes]]:
        return [(self.string(), self.string()) for _ in range(self.count())]

    def end(self) -> None:
        if self._at != len(self._data):
            raise ValueError("something follows")
