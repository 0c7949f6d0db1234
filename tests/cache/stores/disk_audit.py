"""What must be true of a disk store's tables at any moment, looked at without the store."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import lmdb

from twisted_wasmproxy.cache.stores.disk_index import Index
from twisted_wasmproxy.cache.stores.disk_layout import (
    ID,
    Blob,
    Entry,
    Totals,
    chunk_key,
    cost,
    sum_of,
    tag_key,
    url_key,
)

INDEX_COST = 256


def audit(path: Path, map_size: int) -> Totals:
    """Check every row of a store that no process has open against all others, and return the totals."""
    with lmdb.open(str(path), map_size=map_size, max_dbs=16) as environment:
        return audit_open(environment)


def audit_open(environment: lmdb.Environment) -> Totals:
    index = Index(environment)
    with environment.begin() as txn:

        def rows(table: object) -> list[tuple[bytes, bytes]]:
            return list(txn.cursor(table))

        totals = index.totals(txn)
        entries = [Entry.unpack(key, data) for key, data in rows(index.entries)]
        live = sum(cost(len(data)) + INDEX_COST for _, data in rows(index.entries))
        assert totals.entries == len(entries)
        hashes = {entry.id: entry.hash for entry in entries}
        assert len(hashes) == len(entries)
        assert {ID.unpack(key)[0]: value[1:] for key, value in rows(index.order)} == hashes
        assert dict(rows(index.urls)) == {url_key(e.head.url, e.id): e.hash for e in entries}
        assert dict(rows(index.tags)) == {tag_key(t, e.id): e.hash for e in entries for t in e.head.surrogate_keys}
        same = Counter((entry.head.key, entry.head.vary) for entry in entries)
        assert not [one for one, count in same.items() if count > 1]

        blobs = {ID.unpack(key)[0]: Blob.unpack(data) for key, data in rows(index.blobs)}
        references = Counter(blob for entry in entries for blob in entry.blobs)
        pending = {ID.unpack(key)[0] for key, _ in rows(index.pending)}
        doomed = {ID.unpack(key[8:])[0]: ID.unpack(key[:8])[0] for key, _ in rows(index.doomed)}
        assert {number for number, blob in blobs.items() if blob.references} == set(references)
        assert {number for number, blob in blobs.items() if blob.doomed} == set(doomed)
        chunks = dict(rows(index.chunks))
        expected = set()
        for number, blob in blobs.items():
            assert blob.references == references[number]
            assert blob.doomed == doomed.get(number, 0)
            assert (number in references) + (number in pending) + (number in doomed) == 1
            keys = {chunk_key(number, i) for i in range(blob.chunks)}
            assert sum(cost(len(chunks[key])) for key in keys) == blob.cost
            expected |= keys
        assert set(chunks) == expected
        for key, data in chunks.items():
            if ID.unpack(key[:8])[0] not in doomed:
                assert int.from_bytes(data[:4], "big") == sum_of(key, data[4:])
        live += sum(blob.cost for blob in blobs.values() if not blob.doomed)
        assert totals.live == live
        assert totals.pending == sum(blobs[number].cost for number in pending)
        assert totals.doomed == sum(blob.cost for blob in blobs.values() if blob.doomed)
        return totals
