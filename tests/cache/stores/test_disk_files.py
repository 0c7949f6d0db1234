"""The files of the disk store: only plain ones of its own are opened, nobody else may read or plant them, and to cut
one while it is open ends no process."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cache.stores.contract import noise
from tests.cache.stores.driver import Driver, until
from tests.cache.stores.test_disk_faults import errors, filled, opened
from tests.cache.support import head
from tests.e2e.support import eventually
from tests.e2e_cache.support import FRESH, ok, serving
from tests.support.reactor import run, started_reactor
from twisted_wasmproxy.cache.entry import StoreError
from twisted_wasmproxy.cache.stores.disk import DiskStore
from twisted_wasmproxy.cache.stores.memory import MemoryStore
from twisted_wasmproxy.cache.stores.tiered import TieredStore
from twisted_wasmproxy.config.model import DiskCacheConfig

__all__ = ["errors", "filled"]

MIB = 1024 * 1024
FILES = ["changes", "data.mdb", "lock.mdb", "starting"]


@pytest.mark.parametrize("name", FILES)
def test_a_symbolic_link_is_neither_followed_nor_overwritten(tmp_path: Path, name: str) -> None:
    folder, victim = tmp_path / "cache", tmp_path / "victim"
    folder.mkdir(mode=0o700)
    victim.write_bytes(b"precious\n" * 1000)
    (folder / name).symlink_to(victim)
    with pytest.raises(StoreError, match=f"{name} is a symbolic link"):
        opened(folder)
    assert victim.read_bytes() == b"precious\n" * 1000


def test_a_link_to_nothing_makes_no_file(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    folder.mkdir(mode=0o700)
    (folder / "changes").symlink_to(tmp_path / "new")
    with pytest.raises(StoreError, match="changes is a symbolic link"):
        opened(folder)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", FILES)
def test_a_hard_link_to_another_file_is_left_alone(tmp_path: Path, name: str) -> None:
    folder, victim = tmp_path / "cache", tmp_path / "victim"
    folder.mkdir(mode=0o700)
    victim.write_bytes(b"precious\n" * 1000)
    (folder / name).hardlink_to(victim)
    with pytest.raises(StoreError, match=f"{name} has another name"):
        opened(folder)
    assert victim.read_bytes() == b"precious\n" * 1000


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", [os.mkfifo, os.mkdir], ids=["pipe", "folder"])
def test_what_is_no_file_is_refused_and_not_waited_for(
    tmp_path: Path, name: str, kind: Callable[[Path, int], None]
) -> None:
    kind(tmp_path / name, 0o700)
    with pytest.raises(StoreError, match=r"not a plain file|Is a directory"):
        opened(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("name", FILES)
def test_a_file_of_another_user_is_refused(filled: Path, name: str) -> None:
    os.chown(filled / name, 12345, -1)
    with pytest.raises(StoreError, match=f"{name} belongs to user 12345"):
        opened(filled)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give folders away")
def test_a_folder_of_another_user_is_refused(filled: Path) -> None:
    os.chown(filled, 12345, -1)
    with pytest.raises(StoreError, match="folder belongs to user 12345"):
        opened(filled)


def test_a_folder_that_anybody_may_write_to_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    with pytest.raises(StoreError, match="anybody may write to the folder"):
        opened(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_is_made_is_for_its_owner_alone_whatever_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    before = os.umask(0)
    try:
        store = opened(path)
        store.save(head(), b"body")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.iterdir()}
    assert len(modes) == 5
    assert set(modes.values()) == {0o600}, modes
    store.stop()


def test_a_link_to_the_folder_itself_may_be_followed(filled: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(filled)
    store = opened(tmp_path / "link")
    assert store.found(b"http://h/1")[0][1] == {0: noise(20_000, 1)}
    store.stop()


def test_planted_files_of_other_processes_are_passed_by(filled: Path, tmp_path: Path) -> None:
    os.mkfifo(filled / "process-77")
    (filled / "process-78").symlink_to("/dev/zero")
    store = opened(filled)
    assert run(store.store._folder.held) == set()
    until(lambda: not {"process-77", "process-78"} & set(os.listdir(filled)))  # as those of processes that are no more
    store.save(head(), b"works")
    store.stop()


# Cut while open


def at_rest(disk: DiskStore) -> None:
    """Return when no transaction is under way, and let none begin by itself: a cut within one is not promised to end
    well."""
    run(disk.stats)
    disk._thread._next_upkeep = disk._thread._next_free = time.monotonic() + 1000
    run(disk.stats)
    run(disk.stats)


def whole(store: Driver, number: int) -> bool:
    return bool(store.lookup(b"http://h/%d" % number))


@pytest.mark.parametrize("name", ["data.mdb", "lock.mdb", "changes"])
@pytest.mark.parametrize("size", [0, 5, 5000])
def test_a_file_cut_while_open_sets_the_disk_aside_and_memory_goes_on(
    filled: Path, errors: list[str], name: str, size: int
) -> None:
    disk = DiskStore(DiskCacheConfig(filled, 16 * MIB), started_reactor())
    store = Driver(TieredStore(MemoryStore(16 * MIB, MIB), disk, MIB), run, MIB)
    store.start()
    assert whole(store, 1)
    at_rest(disk)
    os.truncate(filled / name, size)
    for number in range(2, 40):
        whole(store, number)
    store.save(head(b"http://new/"), b"new")
    assert store.found(b"http://new/")[0][1] == {0: b"new"}
    if name != "changes" or size < 16:  # what is behind the counter of the change log is made up for
        until(lambda: "trouble" in run(lambda: disk.stats()))
        (line,) = errors
        assert f"{name}" in line
        assert "cut" in line
        assert str(filled) in line
    store.stop()


@pytest.mark.parametrize("name", ["data.mdb", "changes"])
def test_the_proxy_outlives_a_file_that_is_cut_and_starts_anew_next_time(tmp_path: Path, name: str) -> None:
    cache = {"memory": "1MiB", "disk": {"path": "store", "size": "64MiB"}}
    with serving(tmp_path, cache) as stand:
        site = stand.site()
        site.answer(ok(noise(300_000), FRESH))
        for number in range(20):
            site.get(to=f"/{number}")
        eventually(lambda: site.get("Cache-Control: only-if-cached", to="/19").status == 200)
        data = tmp_path / "store" / "data.mdb"
        eventually(lambda: time.time() - data.stat().st_mtime > 0.5)  # nothing is being written
        os.truncate(tmp_path / "store" / name, 0)
        for number in range(20):
            reply = site.get(to=f"/{number}")
            assert (reply.status, len(reply.body), reply.complete) == (200, 300_000, True)
        assert stand.proxy.process.poll() is None
        eventually(lambda: f"{name}" in stand.proxy.log and "cut" in stand.proxy.log)
        stand.restart()
        count = site.count
        site.get(to="/again")
        eventually(lambda: site.get(to="/again").hit)
        assert site.count == count + 1
