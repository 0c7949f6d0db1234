"""One lookup in the disk store: what a reading thread finds under a key, with the content of what is small."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import lmdb

from twisted_wasmproxy.cache.stores.disk_folder import Folder
from twisted_wasmproxy.cache.stores.disk_index import Damaged
from twisted_wasmproxy.cache.stores.disk_layout import CHUNK, Entry, Segment

if TYPE_CHECKING:
    Transaction = lmdb.Transaction[bytes]  # generic only in its stubs

__all__ = ["Lookup"]

AT_HAND = CHUNK
"""Bytes of the largest body that is brought along."""
AT_HAND_TOTAL = 4 * CHUNK
"""Bytes of all the bodies that are."""


class Lookup:
    """Made by the reactor's thread; `run` is called once, in one that reads, and the reactor's has the result."""

    def __init__(self, folder: Folder, key: bytes, hold: Callable[[tuple[Segment, ...]], None]) -> None:
        """`hold` keeps content from being freed (`DiskStore.hold`)."""
        self._folder = folder
        self._key = key
        self._hold = hold
        self.found: list[tuple[Entry, bytes | None]] = []
        """The latest first; with the body, if that is brought along."""
        self.position = 0
        """Of the change log: with all changes before it."""
        self.damaged: list[bytes] = []
        """Rows of entries that are."""
        self.held: list[tuple[Segment, ...]] = []
        """What is held, for the caller to release."""

    def run(self) -> Lookup:
        index = self._folder.index
        with self._folder.begin() as txn:
            large = False
            left = AT_HAND_TOTAL
            for entry in index.find(txn, self._key, self.damaged.append):
                size = entry.head.length
                body = None
                if size and size <= AT_HAND and size <= left and entry.is_complete:
                    left -= size
                    try:
                        body = b"".join(index.content(txn, entry.segments, 0, size))
                    except Damaged:
                        self.damaged.append(entry.key)
                        continue
                elif entry.segments:
                    large = True
                self.found.append((entry, body))
            self.position = index.totals(txn).position
        if large:
            self._hold_large()
        return self

    def _hold_large(self) -> None:
        # Held before anybody knows of it: to make room, its content could be freed at once. What had been doomed
        # before it was held may be going now, and is as good as gone.
        large = [entry for entry, body in self.found if body is None and entry.segments]
        for entry in large:
            self._hold(entry.segments)
            self.held.append(entry.segments)
        with self._folder.begin() as txn:
            gone = {entry.id for entry in large if not self._folder.index.is_there(txn, entry.segments)}
        self.found = [(entry, body) for entry, body in self.found if entry.id not in gone]
