"""`Pieces`: content in memory, whole or with gaps, readable at any position while it grows."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

from twisted_wasmproxy.cache.entry import StoreError

__all__ = ["BLOCK", "Pieces", "merged"]

BLOCK = 256 * 1024
"""Neighbouring pieces of together so many bytes are joined."""
TINY = 4 * 1024
"""Pieces from so many bytes on are kept as they come, until they are joined."""


class Pieces:
    """Bytes at positions of a representation, appended in order and without overlap.

    However they come, what is kept beside them is small: tiny pieces are gathered first, and pieces joined to blocks.
    """

    __slots__ = ("_joined", "_pieces", "_settled", "_starts", "_tail", "size")

    def __init__(self, start: int = 0) -> None:
        self._starts: list[int] = []
        self._pieces: list[bytes] = []
        self._joined = 0
        """So many pieces have been joined, and stay as they are."""
        self._settled = start
        """Position after the last piece."""
        self._tail = bytearray()
        """What follows there: less than `TINY`."""
        self.size = 0
        """Bytes there are."""

    def __len__(self) -> int:
        """How many pieces there are."""
        return len(self._pieces) + bool(self._tail)

    @property
    def stop(self) -> int:
        """Position after the last byte, where the next one goes."""
        return self._settled + len(self._tail)

    def append(self, data: bytes) -> None:
        """Add bytes at `stop`."""
        self.size += len(data)
        if len(data) < TINY:
            self._tail += data
            if len(self._tail) >= TINY:
                self._settle()
        else:
            self._settle()
            self._add(data)

    def skip(self, start: int) -> None:
        """Go on at a later position."""
        self.finish()
        self._settled = start

    def finish(self) -> None:
        """Join all that can be: nothing more comes, or not here."""
        self._settle()
        self._join()

    def _settle(self) -> None:
        """Make a piece of the tail."""
        if self._tail:
            self._add(bytes(self._tail))
            self._tail.clear()

    def _add(self, piece: bytes) -> None:
        self._starts.append(self._settled)
        self._pieces.append(piece)
        self._settled += len(piece)
        if self._settled - self._starts[self._joined] >= BLOCK:
            self._join()

    def _join(self) -> None:
        first = self._joined
        if len(self._pieces) > first + 1:
            self._pieces[first:] = [b"".join(self._pieces[first:])]
            del self._starts[first + 1 :]
        self._joined = len(self._pieces)

    def read(self, start: int, size: int) -> bytes:
        """Return at least one and at most `size` bytes from `start` on; a whole block is not copied.

        Raises `StoreError` where there is nothing.
        """
        data = b""
        i = bisect_right(self._starts, start) - 1
        if start >= self._settled:
            offset = start - self._settled
            data = bytes(self._tail[offset : offset + size])
        elif i >= 0:
            offset = start - self._starts[i]
            data = self._pieces[i][offset : offset + size]
        if not data:
            raise StoreError(f"there is no content at {start}")
        return data

    def parts(self) -> tuple[tuple[int, int], ...]:
        """Return what is there, as (start, stop) in order."""
        parts: list[tuple[int, int]] = []
        for start, piece in self:
            stop = start + len(piece)
            if parts and parts[-1][1] == start:
                start, _ = parts.pop()
            parts.append((start, stop))
        return tuple(parts)

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """Yield (start, piece) in order."""
        yield from zip(self._starts, self._pieces, strict=True)
        if self._tail:
            yield self._settled, bytes(self._tail)

    def whole(self) -> bytes:
        """Return all there is in one piece."""
        return b"".join([piece for _, piece in self])


def merged(old: Pieces, new: Pieces) -> Pieces:
    """Return what is in either; where both have something, what is in `new`, which has no gap."""
    start, stop = new.stop - new.size, new.stop
    before = [(at, piece[: max(start - at, 0)]) for at, piece in old]
    after = [(max(at, stop), piece[max(stop - at, 0) :]) for at, piece in old]
    result = Pieces()
    for at, piece in [*before, *new, *after]:
        if piece:
            if at != result.stop:
                result.skip(at)
            result.append(piece)
    result.finish()
    return result
