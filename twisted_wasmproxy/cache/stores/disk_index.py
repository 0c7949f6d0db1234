"""The disk store's tables in use: `Index` reads in a transaction, `Change` is a write transaction with its accounting.

Nothing here knows of threads or of the reactor. What is evicted is chosen by SIEVE: a hand goes through the entries
from the oldest to the latest and takes those that were not used since it came by last; nothing moves when it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import lmdb

from twisted_wasmproxy.cache.clock import ticks
from twisted_wasmproxy.cache.entry import Selection, StoredHead, StoreError
from twisted_wasmproxy.cache.selection import matches
from twisted_wasmproxy.cache.stores.disk_layout import (
    CHUNK,
    ID,
    MAGIC,
    TABLES,
    Blob,
    Entry,
    Segment,
    Totals,
    blob_id,
    chunk_key,
    cost,
    hashed,
    index_range,
    overlay,
    process_of,
    sum_of,
    tag_key,
    url_key,
)

if TYPE_CHECKING:
    # Classes of the extension, generic only in its stubs.
    ReadTransaction = lmdb.Transaction[bytes]
    WriteTransaction = lmdb.Transaction[bytes]
    AnyTransaction = lmdb.Transaction[bytes] | lmdb.Transaction[memoryview]

__all__ = ["Change", "Damaged", "Index"]

VARIANTS = 100
"""Responses under one key; the oldest goes for another one."""

GRACE = 2.0
"""Seconds that a blob stays after it was doomed, so that who has just found it has time to hold it."""

_INDEX_COST = 256
"""Bytes that the rows of an entry in the other tables take, about."""

_SUM_SIZE = 4

_UNUSED, _USED = b"\0", b"\1"


class Damaged(StoreError):
    """What lies on the disk is not what was written there."""


class Index:
    """The tables of an open environment."""

    def __init__(self, environment: lmdb.Environment) -> None:
        """Make what is not there. Raises `StoreError` if it is somebody else's, `Damaged` if another version's."""
        self.environment = environment
        with environment.begin() as txn, txn.cursor() as cursor:
            names = set(cursor.iternext(values=False))
        if names and b"meta" not in names:
            raise StoreError("data.mdb is another program's")
        for name in TABLES:
            setattr(self, name.decode(), environment.open_db(name))
        with environment.begin(write=True) as txn:
            magic = txn.get(b"magic", db=self.meta)
            if magic is None:
                txn.put(b"magic", MAGIC, db=self.meta)
                txn.put(b"totals", Totals().pack(), db=self.meta)
            elif magic != MAGIC:
                raise Damaged(f"it has the format {magic!r}, not {MAGIC!r}")

    meta: lmdb._Database
    entries: lmdb._Database
    order: lmdb._Database
    urls: lmdb._Database
    tags: lmdb._Database
    blobs: lmdb._Database
    chunks: lmdb._Database
    pending: lmdb._Database
    doomed: lmdb._Database

    def totals(self, txn: ReadTransaction) -> Totals:
        data = txn.get(b"totals", db=self.meta)
        if data is None:
            raise Damaged("the totals are missing")
        return Totals.unpack(data)

    def find(self, txn: ReadTransaction, key: bytes, damaged: Callable[[bytes], None]) -> list[Entry]:
        """Return the entries under a cache key, the latest first; `damaged` gets the table key of one that is."""
        found: list[Entry] = []
        for row, data in self._rows(txn, self.entries, hashed(key)):
            try:
                entry = Entry.unpack(row, data)
            except ValueError:
                damaged(row)
                continue
            if entry.head.key == key:
                found.append(entry)
        found.sort(key=lambda entry: entry.stamp, reverse=True)
        return found

    def chunk(self, txn: AnyTransaction, blob: int, number: int) -> memoryview | bytes:
        """Return the content of a chunk, for as long as the transaction lasts. Raises `StoreError`."""
        key = chunk_key(blob, number)
        data = txn.get(key, db=self.chunks)
        if data is None:
            raise StoreError("the content has been removed")
        content = data[_SUM_SIZE:]
        if sum_of(key, content) != int.from_bytes(data[:_SUM_SIZE], "big"):
            raise Damaged("stored content has a wrong checksum")
        return content

    def content(self, txn: AnyTransaction, segments: Iterable[Segment], start: int, size: int) -> list[bytes]:
        """Return up to `size` bytes from `start` on, as far as they are there without a gap. Raises `StoreError`."""
        pieces = []
        stop = start + size
        for segment in segments:
            while segment.start <= start < min(segment.stop, stop):
                number, offset = divmod(start - segment.origin, CHUNK)
                data = self.chunk(txn, segment.blob, number)
                piece = bytes(data[offset : offset + min(segment.stop, stop) - start])
                if not piece:
                    raise Damaged("stored content is shorter than it was")
                pieces.append(piece)
                start += len(piece)
        return pieces

    def is_there(self, txn: ReadTransaction, segments: Iterable[Segment]) -> bool:
        """Whether all content of an entry is there, and none of it waits to be freed."""
        for blob in {segment.blob for segment in segments}:
            data = txn.get(ID.pack(blob), db=self.blobs)
            if data is None or Blob.unpack(data).doomed:
                return False
        return True

    def scan(
        self, txn: ReadTransaction, selection: Selection, after: bytes, limit: int, below: int
    ) -> tuple[list[Entry], bytes | None]:
        """Return (entries selected, where to go on) from `after` on, looking at `limit` rows; None if that was all.

        Entries of an id from `below` on are left out.
        """
        name, prefix = index_range(selection)
        found: list[Entry] = []
        looked = 0
        for row, value in self._rows(txn, getattr(self, name.decode()), prefix, after):
            if looked == limit:
                return found, row
            looked += 1
            number = row[-ID.size :]
            if ID.unpack(number)[0] >= below:
                continue
            key = (value[1:] if name == b"order" else value) + number
            data = txn.get(key, db=self.entries)
            if data is None:
                continue
            try:
                entry = Entry.unpack(key, data)
            except ValueError:
                continue  # found out, and removed, when it is looked up or evicted
            if matches(selection, entry.head):
                found.append(entry)
        return found, None

    def unmarked(self, txn: ReadTransaction, used: Iterable[int | bytes]) -> list[bytes]:
        """Return the rows in `order` that do not say yet that these have been used: entries by id, or all of a key."""
        rows: set[bytes] = set()
        for what in used:
            if isinstance(what, int):
                rows.add(ID.pack(what))
            else:
                rows.update(row[-ID.size :] for row, _ in self._rows(txn, self.entries, hashed(what)))
        return [row for row in sorted(rows) if txn.get(row, b"", db=self.order)[:1] == _UNUSED]

    def writers(self, txn: ReadTransaction) -> set[int]:
        """Return the numbers of all processes that are, or were, writing something."""
        found: set[int] = set()
        with txn.cursor(self.pending) as cursor:
            more = cursor.first()
            while more:
                process = process_of(ID.unpack(cursor.key())[0])
                found.add(process)
                more = cursor.set_range(ID.pack(blob_id(process + 1, 0)))
        return found

    @staticmethod
    def _rows(
        txn: ReadTransaction, table: lmdb._Database, prefix: bytes, after: bytes = b""
    ) -> Iterator[tuple[bytes, bytes]]:
        with txn.cursor(table) as cursor:
            more = cursor.set_range(max(prefix, after))
            while more:
                row, value = cursor.item()
                if not row.startswith(prefix):
                    return
                yield row, value
                more = cursor.next()


class Change:
    """One write transaction; `finish` writes the totals, before the commit."""

    def __init__(self, index: Index, txn: WriteTransaction) -> None:
        self.index = index
        self.txn = txn
        self.totals = index.totals(txn)
        self._before = replace(self.totals)
        self.notices: list[bytes] = []
        """Records for the change log, to be published before the commit."""
        self.most_doomed: int | None = None
        """Bytes that may wait to be freed while something is added."""
        self.first = self.totals.next_id
        """Entries from this id on are new in this transaction."""

    def finish(self, always: bool = False) -> None:
        if always or self.totals != self._before:
            self.txn.put(b"totals", self.totals.pack(), db=self.index.meta)

    def new_process(self) -> int:
        """Return a number that no process had before."""
        number = self.totals.next_process
        self.totals.next_process += 1
        return number

    # blobs

    def append(self, blob: int, number: int, contents: Iterable[bytes]) -> None:
        """Write chunks of a blob from `number` on, all but the last of the blob full.

        Raises `StoreError`, with nothing changed, if there is no room as too much of what is gone is still being read.
        """
        if self.most_doomed is not None and self.totals.doomed > self.most_doomed:
            raise StoreError("disk cache: no room, too much of what has been removed is still being read")
        record = self._blob(blob) or Blob()
        added = 0
        for content in contents:
            key = chunk_key(blob, number)
            data = sum_of(key, content).to_bytes(_SUM_SIZE, "big") + content
            self.txn.put(key, data, db=self.index.chunks)
            added += cost(len(data))
            record.length += len(content)
            number += 1
        record.chunks = number
        record.cost += added
        self.totals.live += added
        self.txn.put(ID.pack(blob), b"-", db=self.index.pending)
        self.totals.pending += added
        self._put_blob(blob, record)

    def abandon(self, blob: int) -> None:
        """Doom a blob that was being written."""
        if self._settle(blob):
            self._doom(blob, self._blob(blob) or Blob())

    def abandon_all(self, process: int, limit: int) -> bool:
        """Doom up to `limit` blobs that a process was writing; return whether that was all."""
        found: list[int] = []
        with self.txn.cursor(self.index.pending) as cursor:
            more = cursor.set_range(ID.pack(blob_id(process, 0)))
            while more and len(found) < limit:
                (blob,) = ID.unpack(cursor.key())
                if process_of(blob) != process:
                    break
                found.append(blob)
                more = cursor.next()
        for blob in found:
            self.abandon(blob)
        return len(found) < limit

    def free(self, held: Collection[int], budget: int, pressure: bool) -> bool:
        """Free up to `budget` chunks of doomed blobs that nobody holds; return whether there is more to free now.

        With `pressure` those whose grace has not passed go too.
        """
        due = None if pressure else int((ticks() - GRACE) * 1000)
        rows: list[tuple[bytes, int]] = []
        with self.txn.cursor(self.index.doomed) as cursor:
            more = cursor.first()
            while more and len(rows) < budget:
                row = cursor.key()
                when, blob = ID.unpack(row[: ID.size])[0], ID.unpack(row[ID.size :])[0]
                # What is much later was doomed before the machine started.
                if due is not None and due < when <= due + 10 * GRACE * 1000:
                    break
                if blob not in held:
                    rows.append((row, blob))
                more = cursor.next()
        for row, blob in rows:
            record = self._blob(blob) or Blob()
            while record.chunks and budget:
                record.chunks -= 1
                budget -= 1
                self.txn.delete(chunk_key(blob, record.chunks), db=self.index.chunks)
                freed = cost(_SUM_SIZE + min(CHUNK, record.length - record.chunks * CHUNK))
                record.cost -= freed
                self.totals.doomed -= min(freed, self.totals.doomed)
            if record.chunks:
                self._put_blob(blob, record)
                return True
            self.totals.doomed -= min(record.cost, self.totals.doomed)
            self.txn.delete(ID.pack(blob), db=self.index.blobs)
            self.txn.delete(row, db=self.index.doomed)
        return bool(rows)

    # entries

    def insert(self, head: StoredHead, base: tuple[Segment, ...], new: Segment | None) -> Entry:
        """Store a response in the place of the one with the same key and `vary`, and return it.

        Raises `StoreError`, with nothing changed, if content of the base is gone.
        """
        entry = Entry(self.totals.next_id, self.totals.next_id, head, overlay(base, new))
        for blob in entry.blobs:
            if self._blob(blob) is None:
                raise StoreError("content that was to be completed has been removed")
        self.totals.next_id += 1
        for blob in entry.blobs:
            self._refer(blob)
        if new is not None and new.blob not in entry.blobs:
            self.abandon(new.blob)
        damaged: list[bytes] = []
        siblings = self.index.find(self.txn, head.key, damaged.append)
        for row in damaged:
            self.remove_damaged(row)
        replaced = [sibling for sibling in siblings if sibling.head.vary == head.vary]
        for sibling in replaced or siblings[VARIANTS - 1 :]:
            self.remove(sibling)
        self._put_entry(entry)
        self.txn.put(ID.pack(entry.id), _UNUSED + entry.hash, db=self.index.order)
        self.totals.entries += 1
        return entry

    def update(self, old: Entry, head: StoredHead) -> Entry | None:
        """Give an entry another head with the same key; return it, None if it is not there any more as it was."""
        found = self.get(old.key)
        if found is None or found.stamp != old.stamp:
            return None
        entry = replace(found, head=head, stamp=self.totals.next_id)
        self.totals.next_id += 1
        self._drop_rows(found)
        self._put_entry(entry)
        return entry

    def get(self, key: bytes) -> Entry | None:
        """Return the entry under a table key, None if there is none or it is damaged."""
        data = self.txn.get(key, db=self.index.entries)
        try:
            return None if data is None else Entry.unpack(key, data)
        except ValueError:
            return None

    def remove(self, entry: Entry) -> bool:
        """Remove an entry; return whether it was there."""
        found = self.get(entry.key)
        if found is None:
            return False
        self._drop_rows(found)
        self.txn.delete(entry.key, db=self.index.entries)
        self.txn.delete(ID.pack(entry.id), db=self.index.order)
        self.totals.entries -= 1
        for blob in found.blobs:
            self._unrefer(blob)
        return True

    def remove_damaged(self, key: bytes) -> None:
        """Remove the row of an entry that cannot be read. Which blobs were its own nobody knows any more: they stay."""
        data = self.txn.get(key, db=self.index.entries)
        if data is not None:
            self.totals.live -= min(self.totals.live, cost(len(data)) + _INDEX_COST)
            self.totals.entries -= 1
            self.txn.delete(key, db=self.index.entries)
            self.txn.delete(key[-ID.size :], db=self.index.order)

    def use(self, entries: Iterable[bytes]) -> None:
        """Note that entries have been used: rows in `order`, as `Index.unmarked` returns them."""
        for row in entries:
            value = self.txn.get(row, db=self.index.order)
            if value is not None and value[:1] == _UNUSED:
                self.txn.put(row, _USED + value[1:], db=self.index.order)

    def evict(self, target: int, steps: int) -> bool:
        """Move the hand up to `steps` entries on, until `live` is at most `target`; return whether it is.

        What this transaction stored stays.
        """
        with self.txn.cursor(self.index.order) as cursor:
            while self.totals.live > target:
                if not steps:
                    return False
                steps -= 1
                if not cursor.set_range(ID.pack(self.totals.hand)) or ID.unpack(cursor.key())[0] >= self.first:
                    self.totals.hand = 0
                    if not cursor.first() or ID.unpack(cursor.key())[0] >= self.first:
                        return True
                number, value = cursor.item()
                self.totals.hand = ID.unpack(number)[0] + 1
                if value[:1] == _USED:
                    self.txn.put(number, _UNUSED + value[1:], db=self.index.order)
                    continue
                self.totals.evictions += 1
                entry = self.get(value[1:] + number)
                if entry is not None:
                    self.remove(entry)
                elif self.txn.get(value[1:] + number, db=self.index.entries) is not None:
                    self.remove_damaged(value[1:] + number)
                else:
                    self.txn.delete(number, db=self.index.order)
        return True

    def _put_entry(self, entry: Entry) -> None:
        data = entry.pack()
        self.txn.put(entry.key, data, db=self.index.entries)
        self.totals.live += cost(len(data)) + _INDEX_COST
        self.txn.put(url_key(entry.head.url, entry.id), entry.hash, db=self.index.urls)
        for tag in entry.head.surrogate_keys:
            self.txn.put(tag_key(tag, entry.id), entry.hash, db=self.index.tags)

    def _drop_rows(self, entry: Entry) -> None:
        """Take away what `_put_entry` put, but for the entry's own row."""
        size = len(self.txn.get(entry.key, b"", db=self.index.entries))
        self.totals.live -= min(self.totals.live, cost(size) + _INDEX_COST)
        self.txn.delete(url_key(entry.head.url, entry.id), db=self.index.urls)
        for tag in entry.head.surrogate_keys:
            self.txn.delete(tag_key(tag, entry.id), db=self.index.tags)

    def _blob(self, blob: int) -> Blob | None:
        data = self.txn.get(ID.pack(blob), db=self.index.blobs)
        return None if data is None else Blob.unpack(data)

    def _put_blob(self, blob: int, record: Blob) -> None:
        self.txn.put(ID.pack(blob), record.pack(), db=self.index.blobs)

    def _settle(self, blob: int) -> bool:
        """Count a blob as written; return whether it was being written."""
        if not self.txn.delete(ID.pack(blob), db=self.index.pending):
            return False
        record = self._blob(blob) or Blob()
        self.totals.pending -= min(record.cost, self.totals.pending)
        return True

    def _refer(self, blob: int) -> None:
        self._settle(blob)
        record = self._blob(blob) or Blob()
        if record.doomed:
            self.txn.delete(ID.pack(record.doomed) + ID.pack(blob), db=self.index.doomed)
            self.totals.doomed -= min(record.cost, self.totals.doomed)
            self.totals.live += record.cost
            record.doomed = 0
        record.references += 1
        self._put_blob(blob, record)

    def _unrefer(self, blob: int) -> None:
        record = self._blob(blob)
        if record is None:
            return
        record.references -= 1
        if record.references:
            self._put_blob(blob, record)
        else:
            self._doom(blob, record)

    def _doom(self, blob: int, record: Blob) -> None:
        record.doomed = max(1, int(ticks() * 1000))
        self.txn.put(ID.pack(record.doomed) + ID.pack(blob), b"-", db=self.index.doomed)
        self.totals.live -= min(record.cost, self.totals.live)
        self.totals.doomed += record.cost
        self._put_blob(blob, record)
