"""A disk that fills: nothing more is stored, and whoever is reading gets all of it."""

from __future__ import annotations

import os
import queue
import resource
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from twisted.internet.defer import Deferred

from tests.cache.stores.contract import noise
from tests.cache.stores.driver import until
from tests.cache.stores.test_disk_faults import KEY, opened
from tests.cache.support import head
from tests.e2e.support import eventually
from tests.e2e_cache.support import FRESH, Arrival, Stand, ok, open_to, serving
from tests.support.reactor import run
from twisted_wasmproxy.cache.entry import StoreError
from twisted_wasmproxy.cache.stores.disk_index import Change
from twisted_wasmproxy.cache.stores.disk_layout import CHUNK
from twisted_wasmproxy.cache.stores.disk_response import DiskResponse

MIB = 1024 * 1024


def test_what_was_found_stays_readable_though_room_is_made_before_it_is_held(tmp_path: Path) -> None:
    store = opened(tmp_path / "cache", 32 * MIB)
    disk = store.store
    body = noise(2 * MIB)
    store.save(head(), body)
    (stored,) = store.lookup(KEY)
    steps: queue.Queue[bool] = queue.Queue()

    def make_room(change: Change) -> None:
        steps.put(change.free(disk._folder.held(), 10**6, True))

    in_thread = disk._in_thread

    def wait_for_it(function: Callable[[], object]) -> Deferred[object]:
        done = threading.Event()
        result = in_thread(lambda: (function(), done.set())[0])
        assert done.wait(10)
        return result

    def find() -> Deferred[DiskResponse]:
        """Look up, and have it removed and room made before this, in the reactor's thread, can see what was found."""
        disk._in_thread = wait_for_it
        looked = disk.lookup(KEY)
        disk._in_thread = in_thread
        disk.submit(lambda change: change.remove(stored.entry), 4 * MIB)  # which ends the transaction
        disk.submit(make_room)
        steps.get(timeout=10)
        return looked.addCallback(lambda found: found[0].hold() or found[0])

    found = run(find)
    assert store.read_all(found, 0, len(body)) == body
    store.release(found)
    until(lambda: store.stats()["waiting_to_be_freed"] == 0)
    store.stop()


def test_what_was_sent_before_a_failure_is_read_from_memory_though_the_disk_works_again(tmp_path: Path) -> None:
    store = opened(tmp_path / "cache", 64 * MIB)
    body = noise(10 * MIB)
    writer = store.create(head())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    length = (tmp_path / "cache" / "data.mdb").stat().st_size
    batch = 4 * MIB  # bytes; with more than that, a transaction ends
    written = threading.Event()

    def write() -> None:
        store.store.submit(lambda change: written.wait(10), batch)
        resource.setrlimit(resource.RLIMIT_FSIZE, (length, limits[1]))
        writer.write(body[: batch + MIB])
        store.store.submit(lambda change: resource.setrlimit(resource.RLIMIT_FSIZE, limits), batch)
        writer.write(body[batch + MIB :])
        written.set()

    try:
        store.call(write)
        until(lambda: store.call(lambda: writer._failure is not None and store.store._thread.queued == 0))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert store.read_all(writer, 0, len(body)) == body
    with pytest.raises(StoreError):
        store.write(writer, b"more")
    assert store.read_all(writer, 3 * CHUNK, len(body)) == body[3 * CHUNK :]
    store.abort(writer)
    store.stop()


# With a real file system that is full


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system of 24 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m,mode=0700", "none", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def proxy_on(folder: Path, disk: Path) -> object:
    return serving(
        folder, {"memory": 0, "disk": {"path": str(disk / "store"), "size": "256MiB", "max_object": "64MiB"}}
    )


def use_up(disk: Path) -> None:
    with (disk / "filler").open("wb", buffering=0) as file:
        for size in (1 << 20, 4096):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                pass


def numbered(arrival: Arrival) -> bytes:
    return ok(noise(3 * MIB, int(arrival.target.decode().rpartition("/")[2])), FRESH)


def test_what_comes_while_a_real_disk_fills_reaches_every_client_whole(tmp_path: Path, small_disk: Path) -> None:
    with proxy_on(tmp_path, small_disk) as stand:
        assert isinstance(stand, Stand)
        site = stand.site()
        site.answer(numbered)

        bodies = [noise(3 * MIB, number) for number in range(20)]

        def ask(number: int) -> tuple[int, int, bool, bool]:
            with open_to(stand.proxy.port, timeout=60) as client:  # the machine may be busy
                reply = client.ask(f"{site.path}/{number % 20}")
            return reply.status, len(reply.body), reply.complete, reply.body == bodies[number % 20]

        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(ask, range(80))) == {(200, 3 * MIB, True, True)}, stand.proxy.log[-3000:]
        assert "nothing is stored there for now" in stand.proxy.log


def test_a_hit_on_a_full_disk_is_read_to_its_end_though_it_is_purged_meanwhile(
    tmp_path: Path, small_disk: Path
) -> None:
    with proxy_on(tmp_path, small_disk) as stand:
        assert isinstance(stand, Stand)
        site = stand.site()
        body = noise(8 * MIB, 1)
        site.answer(ok(body, FRESH))
        site.get()
        eventually(lambda: site.get("Cache-Control: only-if-cached").hit)
        use_up(small_disk)
        with stand.connect(receive_buffer=4096) as slow:
            slow.say(site.path)
            status, lines = slow.read_head()
            assert (status, dict(lines)["Content-Length"]) == (200, str(len(body)))
            (small_disk / "filler").unlink()
            assert site.get(method="PURGE").status == 200
            deadline = time.monotonic() + 5  # what nobody holds is freed after two seconds, and once a second
            number = 0
            while time.monotonic() < deadline:
                number += 1
                site.get(to=f"/{number}")
            assert slow.read(len(body)) == body
