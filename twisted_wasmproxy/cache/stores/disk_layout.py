"""How the disk store lies in LMDB: tables, keys and records; functions of values, without LMDB.

| table     | key                                | value                                                     |
|-----------|------------------------------------|-----------------------------------------------------------|
| `meta`    | `magic`, `totals`                  | `MAGIC`, `Totals`                                         |
| `entries` | hash of the cache key, entry id    | checksum, stamp, segments, the head (`codec`)              |
| `order`   | entry id, which is its age         | used since the hand passed (one byte), hash               |
| `urls`    | host, NUL, URL (cut), entry id     | hash                                                      |
| `tags`    | hash of a surrogate key, entry id  | hash                                                      |
| `blobs`   | blob id                            | `Blob`                                                    |
| `chunks`  | blob id, number of the chunk       | checksum, content                                         |
| `pending` | blob id                            | nothing: it is being written                              |
| `doomed`  | when (ms of `ticks`), blob id      | nothing: in no entry any more, to be freed                |

Content lies in *blobs*, written once from one position on, in chunks of `CHUNK` bytes. An entry has *segments*:
stretches of blobs. So a response that completes a partial one takes over its blobs without a copy, and a freshened one
its own. A blob id begins with the number of the process that wrote it, so that what a dead one left can be found.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from struct import Struct
from zlib import crc32

from twisted_wasmproxy.cache.entry import Selection, StoredHead
from twisted_wasmproxy.cache.keys import url_host
from twisted_wasmproxy.cache.selection import host_name
from twisted_wasmproxy.cache.stores.codec import decode_head, encode_head

__all__ = [
    "CHUNK",
    "ID",
    "MAGIC",
    "TABLES",
    "Blob",
    "Entry",
    "Segment",
    "Totals",
    "blob_id",
    "chunk_key",
    "cost",
    "hashed",
    "index_range",
    "overlay",
    "parts_of",
    "process_of",
    "sum_of",
    "tag_key",
    "url_key",
]

MAGIC = b"twisted-wasmproxy cache 2"
"""Changes with anything in this file or in `codec`."""

TABLES = (b"meta", b"entries", b"order", b"urls", b"tags", b"blobs", b"chunks", b"pending", b"doomed")

PAGE = 4096
CHUNK = 16 * PAGE - 64
"""Content bytes of a chunk: with its checksum and LMDB's page header 16 pages. Measured: 64 KiB write and read faster
than 128 and 256, as their pages are found sooner."""

ID = Struct(">Q")
_HASH = 16
_URL_KEY = 480
"""LMDB takes keys of 511 bytes."""


def hashed(key: bytes) -> bytes:
    """Return what stands for a cache key or a surrogate key."""
    return blake2b(key, digest_size=_HASH).digest()


def cost(size: int) -> int:
    """Return the bytes that a value of `size` takes on the disk: LMDB gives larger ones pages of their own."""
    return size + 48 if size < PAGE // 2 - 64 else -(-(size + 48) // PAGE) * PAGE


def blob_id(process: int, number: int) -> int:
    return process << 40 | number


def process_of(blob: int) -> int:
    """Return the number of the process that wrote a blob."""
    return blob >> 40


_CHUNK_KEY = Struct(">QI")


def chunk_key(blob: int, number: int) -> bytes:
    return _CHUNK_KEY.pack(blob, number)


def sum_of(key: bytes, data: bytes | memoryview) -> int:
    """Return the checksum of a value under its key, so that it counts nowhere else."""
    return crc32(data, crc32(key))


_SUM = Struct(">I")
_TOTALS = Struct(">9Q")


@dataclass(slots=True)
class Totals:
    """What is counted; read and written with every transaction that changes it."""

    next_id: int = 1
    next_process: int = 1
    entries: int = 0
    live: int = 0
    """Bytes (`cost`) of entries and of the blobs that they have or that are being written."""
    doomed: int = 0
    """Bytes of blobs that wait to be freed."""
    pending: int = 0
    """Bytes of `live` that are being written."""
    evictions: int = 0
    hand: int = 0
    """Entry id at which to look for what to evict next (SIEVE)."""
    position: int = 0
    """Of the change log (`disk_changes`), with all before it done."""

    def pack(self) -> bytes:
        return _TOTALS.pack(
            self.next_id,
            self.next_process,
            self.entries,
            self.live,
            self.doomed,
            self.pending,
            self.evictions,
            self.hand,
            self.position,
        )

    @classmethod
    def unpack(cls, data: bytes) -> Totals:
        return cls(*_TOTALS.unpack(data))


_BLOB = Struct(">IQQIQ")


@dataclass(slots=True)
class Blob:
    """What is known of a blob."""

    references: int = 0
    """Entries that have it."""
    length: int = 0
    cost: int = 0
    chunks: int = 0
    doomed: int = 0
    """When it was doomed (its key in `doomed`); 0 if it is not."""

    def pack(self) -> bytes:
        return _BLOB.pack(self.references, self.length, self.cost, self.chunks, self.doomed)

    @classmethod
    def unpack(cls, data: bytes) -> Blob:
        return cls(*_BLOB.unpack(data))


_SEGMENT = Struct(">QQQQ")


@dataclass(frozen=True, slots=True)
class Segment:
    """`[start, stop)` of a representation, in a blob whose first byte is the representation's at `origin`."""

    start: int
    stop: int
    blob: int
    origin: int


def overlay(segments: Iterable[Segment], new: Segment | None) -> tuple[Segment, ...]:
    """Return segments in order, with `new` in the place of what it overlaps."""
    if new is None or new.start == new.stop:
        return tuple(segments)
    result = [new]
    for old in segments:
        if old.start < new.start:
            result.append(Segment(old.start, min(old.stop, new.start), old.blob, old.origin))
        if old.stop > new.stop:
            result.append(Segment(max(old.start, new.stop), old.stop, old.blob, old.origin))
    return tuple(sorted(result, key=lambda segment: segment.start))


def parts_of(segments: Iterable[Segment]) -> tuple[tuple[int, int], ...]:
    """Return (start, stop) of what segments in order cover without a gap."""
    parts: list[tuple[int, int]] = []
    for segment in segments:
        if parts and parts[-1][1] == segment.start:
            parts[-1] = (parts[-1][0], segment.stop)
        else:
            parts.append((segment.start, segment.stop))
    return tuple(parts)


_ENTRY_KEY = Struct(f">{_HASH}sQ")
_ENTRY = Struct(">IQH")
"""checksum of what follows it, stamp, number of segments"""


@dataclass(frozen=True, slots=True)
class Entry:
    """A stored response, as it lies in `entries`."""

    id: int
    stamp: int
    """Of the last time that it was stored or updated: the higher, the later."""
    head: StoredHead
    segments: tuple[Segment, ...]

    @property
    def hash(self) -> bytes:
        return hashed(self.head.key)

    @property
    def key(self) -> bytes:
        return _ENTRY_KEY.pack(self.hash, self.id)

    @property
    def is_complete(self) -> bool:
        """Whether its segments cover the representation, whose length is known, without a gap."""
        stop = 0
        for segment in self.segments:
            if segment.start != stop:
                return False
            stop = segment.stop
        return stop == self.head.length

    @property
    def blobs(self) -> frozenset[int]:
        return frozenset(segment.blob for segment in self.segments)

    def pack(self) -> bytes:
        parts = [_ENTRY.pack(0, self.stamp, len(self.segments))]
        parts += [_SEGMENT.pack(s.start, s.stop, s.blob, s.origin) for s in self.segments]
        parts.append(encode_head(self.head))
        data = b"".join(parts)
        return _SUM.pack(sum_of(self.key, data[_SUM.size :])) + data[_SUM.size :]

    @classmethod
    def unpack(cls, key: bytes, data: bytes) -> Entry:
        """Return the entry under a key. ValueError if this is not what was written there."""
        if len(data) < _ENTRY.size or len(key) != _ENTRY_KEY.size:
            raise ValueError("an entry cut short")
        checksum, stamp, count = _ENTRY.unpack_from(data)
        if sum_of(key, memoryview(data)[_SUM.size :]) != checksum:
            raise ValueError("an entry with a wrong checksum")
        stop = _ENTRY.size + count * _SEGMENT.size
        segments = tuple(Segment(*values) for values in _SEGMENT.iter_unpack(data[_ENTRY.size : stop]))
        return cls(_ENTRY_KEY.unpack(key)[1], stamp, decode_head(data[stop:]), segments)


def tag_key(tag: bytes, entry: int) -> bytes:
    return hashed(tag) + ID.pack(entry)


def url_key(url: bytes, entry: int) -> bytes:
    """Return the key in `urls`: those of one host stand together, and of one path below it too."""
    return _url_prefix(_host_of(url), url) + ID.pack(entry)


def index_range(selection: Selection) -> tuple[bytes, bytes]:
    """Return (table, prefix of its keys) of the smallest range with all that a selection selects, and maybe more."""
    if selection.surrogate_key is not None:
        return b"tags", hashed(selection.surrogate_key)
    url = selection.url if selection.url is not None else selection.prefix
    if url is not None:
        _, slashes, rest = url.partition(b"://")
        if selection.url is not None or b"/" in rest:
            return b"urls", _url_prefix(_host_of(url), url)
        if slashes and not rest.startswith(b"["):
            return b"urls", rest.partition(b":")[0]
    if selection.host is not None:
        return b"urls", host_name(selection.host) + b"\0"
    return b"order", b""


def _url_prefix(host: bytes, url: bytes) -> bytes:
    return (host + b"\0" + url)[:_URL_KEY]


def _host_of(url: bytes) -> bytes:
    return host_name(url_host(url))
