"""Another process with memory before the same disk, told what to do: `python -m tests.cache.stores.other_process PATH`.

A line of standard input is a JSON list, the name of a function below and its arguments; the result is printed as one.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred

from tests.cache.stores.driver import Driver
from tests.cache.support import head
from tests.support.reactor import call, run, started_reactor
from twisted_wasmproxy.cache.entry import Selection, StoreError
from twisted_wasmproxy.cache.stores.disk import DiskStore
from twisted_wasmproxy.cache.stores.memory import MemoryStore
from twisted_wasmproxy.cache.stores.tiered import TieredStore
from twisted_wasmproxy.config.model import DiskCacheConfig

MIB = 1024 * 1024


def opened(path: Path) -> Driver:
    disk = DiskStore(DiskCacheConfig(path, 32 * MIB, 8 * MIB), started_reactor())
    driver = Driver(TieredStore(MemoryStore(4 * MIB, MIB), disk, MIB), run, 8 * MIB)
    driver.start()
    return driver


class Worker:
    """What one process does; `save` and `get` wait until the disk has it all."""

    def __init__(self, path: Path) -> None:
        self.store = opened(path)
        self.writer: Any = None
        self.held: Any = None

    def save(self, url: str, content: str, times: int = 1, tag: str = "tag") -> None:
        data = content.encode() * times
        self.store.save(head(url.encode(), surrogate_keys=(tag.encode(),)), data)
        self.store.stats()

    def get(self, url: str) -> list[Any]:
        """Return the content (its first 20 bytes), None if there is none, and whether it was there at once."""
        (result,) = call(lambda: (self.store.store.lookup(url.encode()),))
        at_once = not isinstance(result, Deferred)
        found = result if at_once else run(lambda: result)
        if not found:
            return [None, at_once]
        self.store.used(found[0])
        return [self.store.content(found[0]).get(0, b"")[:20].decode(), at_once]

    def purged(self, url: str) -> float:
        return float(self.store.lookup(url.encode())[0].head.purged)

    def purge(self, tag: str, soft: bool = False) -> int:
        return self.store.purge(Selection(surrogate_key=tag.encode()), soft)

    def remove(self, url: str) -> None:
        self.store.remove(self.store.lookup(url.encode())[0])
        self.store.stats()

    def update(self, url: str, status: int) -> None:
        stored = self.store.lookup(url.encode())[0]
        self.store.update(stored, stored.head.replaced(status=status))
        self.store.stats()

    def status(self, url: str) -> int:
        return int(self.store.lookup(url.encode())[0].head.status)

    def begin(self, url: str, times: int) -> None:
        self.writer = self.store.create(head(url.encode(), surrogate_keys=(b"tag",)))
        self.store.write(self.writer, b"begun before" * times)

    def commit(self, url: str, times: int) -> None:
        self.store.commit(self.writer, head(url.encode(), surrogate_keys=(b"tag",), length=12 * times))
        self.store.stats()

    def hold(self, url: str) -> None:
        (self.held,) = self.store.lookup(url.encode())
        self.store.hold(self.held)

    def read_held(self) -> int:
        """Return how much of what is held can be read."""
        try:
            return len(self.store.read_all(self.held, 0, self.held.size))
        except StoreError:
            return -1

    def release(self) -> None:
        self.store.release(self.held)

    def stop(self) -> None:
        self.store.stop()


class Other:
    """A `Worker` in a process of its own."""

    def __init__(self, path: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.cache.stores.other_process", str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __getattr__(self, name: str) -> Any:
        def ask(*arguments: Any) -> Any:
            assert self.process.stdin is not None
            assert self.process.stdout is not None
            self.process.stdin.write(json.dumps([name, *arguments]) + "\n")
            self.process.stdin.flush()
            return json.loads(self.process.stdout.readline())

        return ask

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


def main() -> None:
    worker = Worker(Path(sys.argv[1]))
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        print(json.dumps(getattr(worker, name)(*arguments)), flush=True)


if __name__ == "__main__":
    main()
