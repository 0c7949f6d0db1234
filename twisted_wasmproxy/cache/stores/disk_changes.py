"""The change log of a disk store: what each process tells the others that share it, in a ring in a file beside it.

Who changes what others may have in memory writes a record before the commit, with LMDB's write lock, so there is one
order of all records. Readers compare a counter in the file with the position they have come to, which is one system
call, and read the records between. (Mapped into memory it would cost less; but to look at a page of a file that
somebody has cut ends the process.) A reader that is too far behind is told so, and forgets all it has.

The file is a page with `MAGIC` and the counter, and the ring. A record is its length (4 bytes), the number of the
process that wrote it (4), its kind (1), and what it says. After a crash between record and commit there is a record of
something that did not happen; it does no harm.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from struct import Struct

from twisted_wasmproxy.cache.entry import Selection, StoredHead
from twisted_wasmproxy.cache.selection import matches
from twisted_wasmproxy.cache.stores.codec import decode_selection, encode_selection, encode_vary
from twisted_wasmproxy.cache.stores.disk_calls import WordReader
from twisted_wasmproxy.cache.stores.disk_files import open_file
from twisted_wasmproxy.cache.stores.disk_layout import hashed

__all__ = ["ChangeLog", "Changed", "Cut", "Purged", "TooFarBehind"]

MAGIC = b"wpcache1"
_COUNTER = Struct("=Q")
_COUNTER_AT = 8
_RING_AT = 4096
RING = 1024 * 1024
"""Bytes of records; half of it is how far behind a reader may be."""

_HEAD = Struct("=IIB")
_CHANGED, _PURGED = 1, 2
_SOFT = Struct("=d")


class Cut(Exception):
    """A file is shorter than it was, which only somebody else can have done."""


class TooFarBehind(Exception):
    """Records that were to be read have been overwritten."""


@dataclass(frozen=True, slots=True)
class Changed:
    """What was stored under this key for this `vary` is not any more, or has been replaced."""

    process: int
    key: bytes
    vary: bytes
    """`vary_of` of the head."""

    def concerns(self, head: StoredHead) -> bool:
        return head.key == self.key and vary_of(head) == self.vary

    def pack(self) -> bytes:
        return _HEAD.pack(_HEAD.size + len(self.vary) + len(self.key), self.process, _CHANGED) + self.vary + self.key


@dataclass(frozen=True, slots=True)
class Purged:
    """A purge; `soft` is its time, or 0."""

    process: int
    selection: Selection
    soft: float

    def concerns(self, head: StoredHead) -> bool:
        return matches(self.selection, head)

    def pack(self) -> bytes:
        data = _SOFT.pack(self.soft) + encode_selection(self.selection)
        return _HEAD.pack(_HEAD.size + len(data), self.process, _PURGED) + data


def vary_of(head: StoredHead) -> bytes:
    """Return 16 bytes that stand for `head.vary`."""
    return hashed(encode_vary(head.vary))


class ChangeLog:
    """The file, open. `counter` may be read in any thread; `publish` needs LMDB's write lock."""

    def __init__(self, path: Path) -> None:
        """Open the file, made if it is not there or is none; nobody else may be doing so.

        Raises OSError, and StoreError where it is not a file of our own.
        """
        self._file = open_file(path, os.O_RDWR | os.O_CREAT)
        try:
            if os.fstat(self._file).st_size != _RING_AT + RING or os.pread(self._file, len(MAGIC), 0) != MAGIC:
                os.ftruncate(self._file, 0)
                # Written, not left as a hole: a full disk must not show first when a page of it is touched.
                _write(self._file, bytes(_RING_AT + RING), 0)
                _write(self._file, MAGIC, 0)
        except BaseException:  # whatever went wrong, nothing stays open
            os.close(self._file)
            raise
        self.shown: Callable[[], bytes] = WordReader(self._file, _COUNTER_AT).read
        """Reads `counter`, for the reactor's thread: as `packed` has it, nothing if the file has been cut."""

    def close(self) -> None:
        os.close(self._file)

    @staticmethod
    def packed(position: int) -> bytes:
        """Return a position as it stands in the file."""
        return _COUNTER.pack(position)

    @staticmethod
    def is_one(path: Path) -> bool:
        """Whether there is such a file: what is beside it is ours then. Raises StoreError if it is not our own."""
        try:
            file = open_file(path)
        except OSError:
            return False
        try:
            return os.read(file, len(MAGIC)) == MAGIC
        finally:
            os.close(file)

    @property
    def counter(self) -> int:
        """Where the last record ends. Raises Cut."""
        shown = os.pread(self._file, _COUNTER.size, _COUNTER_AT)
        if len(shown) != _COUNTER.size:
            raise Cut("the file 'changes' has been cut")
        return int.from_bytes(shown, sys.byteorder)

    def publish(self, records: list[bytes]) -> int:
        """Append records, and return where they end. Raises OSError and Cut."""
        data = b"".join(records)
        position = self.counter
        if len(data) > RING // 4:
            data = b""
            position += RING  # nobody can read what is between: all are told that they are too far behind
        at = position % RING
        _write(self._file, data[: RING - at], _RING_AT + at)
        if at + len(data) > RING:
            _write(self._file, data[RING - at :], _RING_AT)
        position += len(data)
        _write(self._file, _COUNTER.pack(position), _COUNTER_AT)
        return position

    def read(self, since: int) -> tuple[list[Changed | Purged], int]:
        """Return (the records since a position, the position after them). Raises `TooFarBehind` and `Cut`."""
        counter = self.counter
        if not 0 <= counter - since <= RING // 2:
            raise TooFarBehind
        at, size = since % RING, counter - since
        data = os.pread(self._file, min(size, RING - at), _RING_AT + at)
        if at + size > RING:
            data += os.pread(self._file, at + size - RING, _RING_AT)
        if not 0 <= self.counter - since <= RING - RING // 4 or len(data) != size:
            raise TooFarBehind  # part of it may have been overwritten while it was read
        try:
            return list(_records(data)), counter
        except ValueError:
            raise TooFarBehind from None


def _records(data: bytes) -> list[Changed | Purged]:
    records: list[Changed | Purged] = []
    at = 0
    while at < len(data):
        if len(data) - at < _HEAD.size:
            raise ValueError("a record cut short")
        size, process, kind = _HEAD.unpack_from(data, at)
        body = data[at + _HEAD.size : at + size]
        if size < _HEAD.size + 16 * (kind == _CHANGED) + _SOFT.size * (kind == _PURGED) or at + size > len(data):
            raise ValueError("a record cut short")
        if kind == _CHANGED:
            records.append(Changed(process, body[16:], body[:16]))
        elif kind == _PURGED:
            records.append(Purged(process, decode_selection(body[_SOFT.size :]), _SOFT.unpack_from(body)[0]))
        else:
            raise ValueError("a record of no known kind")
        at += size
    return records


def _write(file: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, offset)
        view = view[written:]
        offset += written
