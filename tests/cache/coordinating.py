"""A proxy in this process, before an origin of scripts, with a store that can be slow and can fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import yaml
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.logger import globalLogPublisher
from zope.interface import implementer

from tests.e2e.support import eventually, reverse_config, scripted_origin
from tests.e2e_cache.support import Stand
from tests.support.proxy import free_port
from tests.support.reactor import call, run, started_reactor
from twisted_wasmproxy import service as services
from twisted_wasmproxy.cache.coordinator import Cache
from twisted_wasmproxy.cache.entry import Selection, StoredHead, StoreError
from twisted_wasmproxy.cache.stores.memory import MemoryResponse, MemoryStore, MemoryWriter
from twisted_wasmproxy.config import load
from twisted_wasmproxy.config.model import Phase
from twisted_wasmproxy.filters import FilterSet
from twisted_wasmproxy.interfaces import ICacheStore, IFilterFactory
from twisted_wasmproxy.service import ProxyService
from twisted_wasmproxy.transaction.chain import FilterSlot

__all__ = ["MoodyStore", "Running", "proxied"]

MIB = 1024 * 1024


@implementer(ICacheStore)
class MoodyStore:
    """Memory, whose results come `late` for what is named there, and that fails where `failing` says so."""

    def __init__(self, capacity: int = 64 * MIB, largest: int = 16 * MIB) -> None:
        self.memory = MemoryStore(capacity, largest)
        self.start = self.memory.start
        self.stop = self.memory.stop
        self.remove = self.memory.remove
        self.entries = self.memory.entries
        self.stats = self.memory.stats
        self.late: set[str] = set()
        self.failing: set[str] = set()
        self.gates: dict[str, list[Callable[[], None]]] = {}
        """What is held back, by name, for `open`; a name that is not there is not held back."""
        self.held = 0
        """Holds less releases."""

    def act(self, name: str, work: Callable[..., Any], *args: Any, may_fail: bool = True) -> Any:
        def outcome() -> Any:
            if may_fail and name in self.failing:
                raise StoreError(f"{name} fails")
            return work(*args)

        if name not in self.late:
            return outcome()
        result: Deferred[Any] = Deferred()

        def go_on() -> None:
            try:
                made = outcome()
            except StoreError as error:
                result.errback(error)
            else:
                result.callback(made)

        if name in self.gates:
            self.gates[name].append(go_on)
        else:
            reactor.callLater(0.001, go_on)  # type: ignore[attr-defined]  # the module stands for the reactor
        return result

    def open(self, name: str) -> None:
        """Let everything of this name through."""
        for go_on in self.gates.pop(name):
            go_on()

    def lookup(self, key: bytes) -> Any:
        return self.act("lookup", self.memory.lookup, key)

    def create(self, head: StoredHead, size: int | None, base: Any, start: int) -> Any:
        if "create" in self.failing:
            return None
        writer: Any = self.memory.create(head, size, base, start)
        return writer and MoodyWriter(self, writer)

    def update(self, stored: Any, head: StoredHead) -> Any:
        return self.act("update", self.memory.update, stored, head)

    def purge(self, selection: Selection, soft: bool) -> Any:
        return self.act("purge", self.memory.purge, selection, soft)


class MoodyWriter:
    def __init__(self, store: MoodyStore, writer: MemoryWriter) -> None:
        self._store = store
        self._writer = writer
        self.head = writer.head
        self.available = writer.available
        self.abort = writer.abort

    def write(self, data: bytes) -> Any:
        if "write" in self._store.failing:
            raise StoreError("write fails")
        self._writer.write(data)
        return self._store.act("write", lambda: None, may_fail=False) if "write" in self._store.late else None

    def read(self, start: int, size: int) -> Any:
        return self._store.act("read", self._writer.read, start, size)

    def commit(self, head: StoredHead) -> Any:
        return self._store.act("commit", self._writer.commit, head)


class Running(Stand):
    """As `Stand`, in this process."""

    service: ProxyService
    stores: list[MoodyStore]
    errors: list[str]

    @property
    def cache(self) -> Cache:
        cache = self.service.proxy.cache
        assert cache is not None
        return cache

    @property
    def store(self) -> MoodyStore:
        return self.stores[-1]

    def reload(self, **changes: Any) -> None:
        """Use another configuration: sections of the present one replaced; None leaves one out."""
        path = self.service.config.path
        assert path is not None
        config = yaml.safe_load(path.read_text()) | changes
        path.write_text(yaml.safe_dump({key: value for key, value in config.items() if value is not None}))
        run(self.service.reload, 30)

    def settle(self) -> None:
        """Return when the reactor has done what was to be done at once."""
        for _ in range(3):
            call(lambda: None)

    def under_way(self) -> dict[str, object]:
        """Return what is not quiet."""

        def look() -> dict[str, object]:
            cache = self.cache
            state = {
                "fills": cache.under_way,
                "writing": sum(int(store.stats()["writing"]) for store in self.stores),
                "held": sum(store.held for store in self.stores),
                "transactions": len(self.service.proxy.transactions),
            }
            return {name: value for name, value in state.items() if value}

        return call(look)

    def quiet(self) -> None:
        """Wait until nothing is under way, and nothing is held in the store."""
        try:
            eventually(lambda: not self.under_way())
        except AssertionError:
            raise AssertionError(self.under_way()) from None


@contextmanager
def proxied(
    folder: Path,
    cache: dict[str, Any] | None = None,
    origin_filters: Sequence[IFilterFactory] = (),
    capacity: int = 64 * MIB,
    largest: int = 16 * MIB,
    quiet: bool = True,
    **config: Any,
) -> Iterator[Running]:
    """Run a proxy; when it ends, nothing may be left under way, and nothing may have been logged as a failure."""
    started_reactor()
    port = free_port()
    stores: list[MoodyStore] = []
    errors: list[str] = []

    def make(config: Any, reactor: Any) -> MoodyStore:
        stores.append(MoodyStore(capacity, largest))
        return stores[-1]

    def slots(filters: FilterSet, phase: Phase) -> list[FilterSlot]:
        return [FilterSlot(factory, "test", False) for factory in origin_filters if phase is Phase.ORIGIN]

    def observe(event: Any) -> None:
        if event.get("log_failure") is not None or event.get("isError"):
            failure = event.get("log_failure")
            errors.append(failure.getTraceback() if failure is not None else str(event))

    def hold(response: MemoryResponse) -> None:
        stores[-1].held += 1

    def release(response: MemoryResponse) -> None:
        stores[-1].held -= 1

    with scripted_origin() as origin, ExitStack() as stack:
        whole = reverse_config(origin, cache=dict(cache or {"memory": "64MiB"}), **config)
        whole["listeners"] = [{"endpoint": f"tcp:{port}:interface=127.0.0.1:backlog=2000"}]
        whole["upstreams"]["origin"].setdefault("retries", 0)
        whole["upstreams"]["origin"].setdefault("health", {"max_failures": 10**6})
        path = folder / "proxy.yaml"
        path.write_text(yaml.safe_dump(whole))
        for target, name, value in (
            (services, "make_store", make),
            (MemoryResponse, "hold", hold),
            (MemoryResponse, "release", release),
            (FilterSet, "slots", slots),
        ):
            stack.enter_context(patch.object(target, name, value))
        globalLogPublisher.addObserver(observe)
        stack.callback(globalLogPublisher.removeObserver, observe)
        service = ProxyService(load(path), reactor)
        run(lambda: service.prepare().addCallback(lambda _: service.startService()), 30)
        running = Running(SimpleNamespace(port=port, log=""), origin, folder, stack)  # type: ignore[arg-type]  # of it only the port is used
        running.service, running.stores, running.errors = service, stores, errors
        origin.script = running.serve
        try:
            yield running
            if quiet:
                running.quiet()
        finally:
            run(service.stopService, 30)
        assert not errors, "\n".join(errors)
        assert origin.error is None, origin.error
