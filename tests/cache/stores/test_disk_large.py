"""Large responses and large stores: what takes memory or time whatever their size."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from tests.cache.stores.test_disk import opened
from tests.cache.support import head
from twisted_wasmproxy.cache.stores.disk_folder import Folder
from twisted_wasmproxy.cache.stores.disk_index import Change
from twisted_wasmproxy.cache.stores.disk_layout import Segment, blob_id

MIB = 1024 * 1024

LARGE = """
import sys
from pathlib import Path
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from tests.cache.support import head
from twisted_wasmproxy.cache.stores.disk import DiskStore
from twisted_wasmproxy.cache.stores.memory import MemoryStore
from twisted_wasmproxy.cache.stores.tiered import TieredStore
from twisted_wasmproxy.config.model import DiskCacheConfig

MIB = 1024 * 1024
SIZE = 192

def memory():
    for line in open("/proc/self/status"):
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) // 1024

async def of(result):
    return await result if isinstance(result, Deferred) else result

async def read(source, step, peak):
    position = 0
    while position < SIZE * MIB:
        if not source.available(position) if hasattr(source, "available") else False:
            pause = Deferred()
            reactor.callLater(0, pause.callback, None)
            await pause
            continue
        data = await of(source.read(position, step))
        assert data[0] == position // MIB
        assert data[-1] == (position + len(data) - 1) // MIB
        position += len(data)
        peak.append(memory())

async def main():
    disk = DiskStore(DiskCacheConfig(Path(sys.argv[1]), 1024 * MIB), reactor)
    store = TieredStore(MemoryStore(16 * MIB, 2 * MIB), disk, 2 * MIB)
    await store.start()
    before = memory()
    peak = [before]
    url = b"http://h/large"
    writer = store.create(head(url), None, None, 0)
    readers = [Deferred.fromCoroutine(read(writer, step, peak)) for step in (65536, 250_000)]
    for i in range(SIZE):
        for _ in range(16):
            await of(writer.write(bytes((i,)) * (MIB // 16)))
        peak.append(memory())
    await gatherResults(readers)
    stored = await of(writer.commit(head(url, length=SIZE * MIB)))
    assert stored.body is None
    stored.hold()
    await gatherResults([Deferred.fromCoroutine(read(stored, step, peak)) for step in (65536, 1_000_000)])
    stored.release()
    await store.stop()
    print(max(peak) - before)
    reactor.stop()

def failed(failure):
    failure.printTraceback(file=sys.stdout)
    reactor.stop()

reactor.callWhenRunning(lambda: Deferred.fromCoroutine(main()).addErrback(failed))
reactor.run()
"""


def test_a_large_response_is_written_and_read_in_little_memory(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LARGE, str(tmp_path)], capture_output=True, text=True, timeout=60)
    grown = int(done.stdout)
    print("grown by", grown, "MiB")
    assert grown < 40


def test_a_store_of_many_entries_opens_at_once(tmp_path: Path) -> None:
    map_size = 20 * 1024 * MIB
    folder = Folder(tmp_path, map_size)
    for start in range(0, 20_000, 2000):
        with folder.environment.begin(write=True) as txn:
            change = Change(folder.index, txn)
            for i in range(start + 1, start + 2001):
                blob = blob_id(folder.process, i)
                change.append(blob, 0, (b"x",))
                change.insert(head(b"http://h/%d" % i, length=1), (), Segment(0, 1, blob, 0))
            change.finish()
    folder.close()
    (tmp_path / "data.mdb").open("r+b").truncate(10 * 1024 * MIB)  # as if the pages behind were in use

    started = time.perf_counter()
    store = opened(tmp_path, 16 * 1024 * MIB)
    took = time.perf_counter() - started
    print("opened in", took, "s")
    assert took < 1
    assert store.stats()["entries"] == 20_000
    assert len(store.lookup(b"http://h/777")) == 1
    store.stop()
