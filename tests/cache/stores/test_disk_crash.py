"""Processes that are killed while they write: what is found afterwards is whole, and the books are right."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cache.stores.crash_child import content_of, version_of
from tests.cache.stores.disk_audit import audit
from tests.cache.stores.driver import Driver, until
from tests.support.reactor import run, started_reactor
from twisted_wasmproxy.cache.stores.disk import DiskStore
from twisted_wasmproxy.config.model import DiskCacheConfig

MIB = 1024 * 1024
SIZE = 48 * MIB
MAP = 200 * MIB


def child(path: Path, seed: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.cache.stores.crash_child", str(path), str(SIZE), str(seed)],
        stdout=subprocess.PIPE,
        text=True,
    )


def opened(path: Path) -> Driver:
    store = Driver(DiskStore(DiskCacheConfig(path, SIZE), started_reactor()), run, SIZE // 4)
    store.start()
    return store


def check_all(store: Driver) -> int:
    """See that all there is is whole; return how much that is."""
    entries = store.entries(limit=100_000)
    for entry in entries:
        (stored,) = store.lookup(entry.head.key)
        content = content_of(entry.head.url, version_of(stored))
        assert stored.head.length == len(content)
        assert stored.parts == ((0, len(content)),)
        assert store.content(stored)[0] == content if content else True
    return len(entries)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_kill_at_any_moment_leaves_no_torn_content_and_no_broken_store(tmp_path: Path, processes: int) -> None:
    path = tmp_path / "cache"
    random_ = random.Random(processes)
    stored = 0
    for round_ in range(3):
        children = [child(path, round_ * 10 + number) for number in range(processes)]
        wanted = random_.randrange(1, 150)
        for one in children:
            assert one.stdout is not None
            for _ in range(wanted):
                line = one.stdout.readline()
                assert line == "stored\n", line + one.stdout.read()
                stored += 1
        for one in children:
            one.kill()
            one.communicate()
        audit(path, MAP)
        store = opened(path)
        assert check_all(store) > 0 or wanted < 50
        # What the dead were writing is found and freed.
        until(lambda store=store: store.stats()["being_written"] == 0)  # type: ignore[misc]
        store.stop()
        totals = audit(path, MAP)
        assert totals.pending == 0
        assert [file.name for file in path.glob("process-*")] == []
    assert stored > 20
