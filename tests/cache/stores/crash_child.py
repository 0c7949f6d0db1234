"""A process that works on a disk store until it is killed: `python -m tests.cache.stores.crash_child PATH SIZE SEED`.

Content follows from the URL, so that whoever finds it can tell whether it is whole. It prints a line for each response
that is stored.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred, gatherResults

from tests.cache.support import head
from twisted_wasmproxy.cache.entry import Selection, StoredHead, StoreError
from twisted_wasmproxy.cache.stores.disk import DiskStore
from twisted_wasmproxy.config.model import DiskCacheConfig

SIZES = (0, 1, 700, 5_000, 65_000, 66_000, 200_000, 1_000_000)
URLS = 1500
AT_ONCE = 12


def content_of(url: bytes, version: int) -> bytes:
    """Return the content of a version of a URL."""
    random_ = random.Random(f"{url!r} {version}")
    return random_.randbytes(random_.choice(SIZES))


def head_of(url: bytes, version: int) -> StoredHead:
    length = len(content_of(url, version))
    return head(url, ((b"Version", b"%d" % version),), length=length, surrogate_keys=(b"tag%d" % (version % 7),))


def version_of(stored: Any) -> int:
    return int(stored.head.headers.get(b"Version"))


async def work(store: DiskStore, random_: random.Random) -> None:
    """Store, replace, update, remove and purge, for ever."""
    while True:
        url = b"http://host%d/%d" % (random_.randrange(5), random_.randrange(URLS))
        version = random_.randrange(1_000_000)
        found = await _of(store.lookup(url))
        action = random_.random()
        if action < 0.02:
            await _of(store.purge(Selection(surrogate_key=b"tag%d" % random_.randrange(7)), random_.random() < 0.5))
        elif action < 0.1 and found:
            store.remove(found[0])
        elif action < 0.2 and found:
            await _of(store.update(found[0], found[0].head.replaced(status=203)))
        else:
            writer = store.create(head_of(url, version), None, None, 0)
            if writer is None:
                continue
            content = content_of(url, version)
            try:
                for at in range(0, len(content), 50_000):
                    await _of(writer.write(content[at : at + 50_000]))
                if action > 0.95:
                    writer.abort()
                    continue
                await _of(writer.commit(head_of(url, version)))
            except StoreError as error:
                print("error", error, flush=True)
                raise
            print("stored", flush=True)


def _of(result: Any) -> Deferred[Any]:
    deferred: Deferred[Any] = Deferred()
    if isinstance(result, Deferred):
        return result
    deferred.callback(result)
    return deferred


def main() -> None:
    path, size, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    reactor: Any = installed
    store = DiskStore(DiskCacheConfig(path, size), reactor)

    async def run() -> None:
        await store.start()
        workers = [Deferred.fromCoroutine(work(store, random.Random(seed * 100 + i))) for i in range(AT_ONCE)]
        await gatherResults(workers)

    def failed(failure: Any) -> None:
        failure.printTraceback(file=sys.stdout)
        sys.stdout.flush()
        reactor.stop()

    reactor.callWhenRunning(lambda: Deferred.fromCoroutine(run()).addErrback(failed))
    reactor.run()


if __name__ == "__main__":
    main()
