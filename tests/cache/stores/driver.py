"""`Driver`: any `ICacheStore` as plain calls, each made in the store's thread, its result waited for."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred

from twisted_wasmproxy.cache.entry import Selection, StoredHead

TIMEOUT = 10.0


class Driver:
    """A store under test. `call` calls a function in the reactor's thread and returns the result, also of a Deferred
    (`tests.support.reactor.run`); `largest` is the most content that the store keeps of one response."""

    def __init__(self, store: Any, call: Callable[[Callable[[], Any]], Any], largest: int) -> None:
        self.store = store
        self.call = call
        self.largest = largest

    def start(self) -> None:
        self.call(self.store.start)

    def stop(self) -> None:
        self.call(self.store.stop)

    def lookup(self, key: bytes) -> Sequence[Any]:
        return self.call(lambda: self.store.lookup(key))

    def create(self, head: StoredHead, size: int | None = None, base: Any = None, start: int = 0) -> Any:
        return self.call(lambda: self.store.create(head, size, base, start))

    def update(self, stored: Any, head: StoredHead) -> Any:
        return self.call(lambda: self.store.update(stored, head))

    def purge(self, selection: Selection, soft: bool = False) -> int:
        return self.call(lambda: self.store.purge(selection, soft))

    def entries(self, selection: Selection = Selection(), limit: int = 1000) -> Sequence[Any]:  # noqa: B008  # frozen
        return self.call(lambda: self.store.entries(selection, limit))

    def stats(self) -> Mapping[str, Any]:
        return self.call(lambda: self.store.stats())

    def remove(self, stored: Any) -> None:
        """Remove, and wait until it is found no more: a store may take its time."""
        key, vary = stored.head.key, stored.head.vary
        self.call(lambda: self.store.remove(stored))
        until(lambda: all(other.head.vary != vary for other in self.lookup(key)))

    def used(self, stored: Any) -> None:
        self.call(stored.used)

    def hold(self, stored: Any) -> None:
        self.call(stored.hold)

    def release(self, stored: Any) -> None:
        self.call(stored.release)

    def write(self, writer: Any, data: bytes) -> None:
        self.call(lambda: writer.write(data))

    def available(self, writer: Any, start: int) -> int:
        return self.call(lambda: writer.available(start))

    def read(self, source: Any, start: int, size: int) -> bytes:
        """Read once from a stored response or a writer; what the contract says of the amount holds."""
        data = self.call(lambda: source.read(start, size))
        assert isinstance(data, bytes)
        assert 1 <= len(data) <= size
        return data

    def commit(self, writer: Any, head: StoredHead) -> Any:
        return self.call(lambda: writer.commit(head))

    def abort(self, writer: Any) -> None:
        self.call(writer.abort)

    def save(self, head: StoredHead, content: bytes = b"content", base: Any = None, start: int = 0) -> Any:
        """Store a response in one go. Where the head has no length it gets that of the content."""
        writer = self.create(head, len(content), base, start)
        assert writer is not None
        if content:
            self.write(writer, content)
        return self.commit(writer, head if head.length is not None else head.replaced(length=len(content)))

    def read_all(self, source: Any, start: int, stop: int, size: int = 1 << 16) -> bytes:
        """Return `[start:stop]`, read `size` bytes at a time."""
        pieces = []
        while start < stop:
            pieces.append(self.read(source, start, min(size, stop - start)))
            start += len(pieces[-1])
        return b"".join(pieces)

    def content(self, stored: Any) -> dict[int, bytes]:
        """Return the content of a stored response: bytes by the start of each part."""
        self.hold(stored)
        content = {start: self.read_all(stored, start, stop) for start, stop in stored.parts}
        self.release(stored)
        assert stored.size == sum(map(len, content.values()))
        if stored.body is not None:
            assert stored.parts == ((0, stored.head.length),)
            assert content[0] == stored.body
        return content

    def found(self, key: bytes) -> list[tuple[StoredHead, dict[int, bytes]]]:
        """Look up, and return heads and contents, the latest first. As the cache does, hold what is found at once."""

        def hold(found: Sequence[Any]) -> Sequence[Any]:
            for stored in found:
                stored.hold()
            return found

        def look() -> Any:
            found = self.store.lookup(key)
            return found.addCallback(hold) if isinstance(found, Deferred) else hold(found)

        found = self.call(look)
        try:
            return [(stored.head, self.content(stored)) for stored in found]
        finally:
            for stored in found:
                self.release(stored)


def until(condition: Callable[[], bool]) -> None:
    """Ask again and again until it holds; fail if it does not in time."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)
