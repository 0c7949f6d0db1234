"""The disk cache: warm after a restart, whole after kill -9, larger than memory, shared, and set aside when broken."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.support import eventually
from tests.e2e_cache.support import FRESH, STALE, Arrival, Reply, Site, Stand, ok, open_to, serving
from tests.e2e_cache.test_ranges import ranges
from tests.support.proxy import fetch, free_port, running_proxy

ONLY = "Cache-Control: only-if-cached"
MIB = 1024 * 1024


def disk(size: str = "256MiB", memory: object = 0, **more: Any) -> dict[str, Any]:
    return {"memory": memory, "disk": {"path": "store", "size": size}, **more}


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    return {"cache": disk(memory="4MiB")}


def content(name: str, size: int) -> bytes:
    """Return bytes that tell whether they are whole and whose they are."""
    block = hashlib.sha256(name.encode()).digest() * 1024
    return (block * (size // len(block) + 1))[:size]


def by_path(size: int) -> Any:
    def make(arrival: Arrival) -> bytes:
        return ok(content(arrival.target.decode(), size), FRESH)

    return make


def stored(site: Site, to: str = "") -> Reply:
    """Wait until something is in the cache."""
    reply = eventually(lambda: (found := site.get(ONLY, to=to)).status == 200 and found)
    assert isinstance(reply, Reply)
    return reply


def anonymous_kib(pid: int) -> int:
    """Return the memory of a process that no file backs: pages of the store's own file are the kernel's cache."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1])
    raise AssertionError("no RssAnon")


def test_a_restart_keeps_it_warm(tmp_path: Path) -> None:
    with serving(tmp_path, disk()) as stand:
        site = stand.site()
        site.answer(ok(b"body", FRESH, 'ETag: "v"', "Vary: a", "X-A: 1"), ok(b"other", FRESH, "Vary: a"))
        site.get("A: 1")
        site.get("A: 2")
        eventually(lambda: site.get(ONLY, "A: 2").status == 200)
        stand.restart()
        reply = site.get("A: 1")
        assert (reply.body, reply.hit, reply.field("x-a")) == (b"body", True, "1")
        assert site.get("A: 2").body == b"other"
        assert site.get("A: 1", 'If-None-Match: "v"').status == 304
        assert site.get("A: 3").body == b"other"
        assert site.count == 3


def test_age_goes_on_over_a_restart(tmp_path: Path) -> None:
    with serving(tmp_path, disk()) as stand:
        site = stand.site()
        site.answer(ok(b"body", FRESH, "Age: 100"), ok(b"new", FRESH))
        site.get()
        stored(site)
        stand.restart()
        assert (site.get().age or 0) >= 100


def test_what_is_stale_is_validated_after_a_restart(tmp_path: Path) -> None:
    with serving(tmp_path, disk()) as stand:
        site = stand.site()
        site.answer(ok(b"body", *STALE, 'ETag: "v"'), ok(b"", FRESH, status="304 Not Modified", length=False))
        site.get()
        eventually(lambda: site.get(ONLY + ", max-stale").status == 200)
        stand.restart()
        assert site.get().body == b"body"
        assert site.seen[1].field("if-none-match") == '"v"'
        stand.restart()
        assert site.get().hit


@pytest.mark.parametrize("memory", [0, "4MiB"])
def test_kill_in_the_middle_of_writes_leaves_nothing_torn(tmp_path: Path, memory: object) -> None:
    admin = free_port()
    with serving(tmp_path, disk(memory=memory), admin={"endpoint": f"tcp:{admin}:interface=127.0.0.1"}) as stand:
        site = stand.site()
        site.answer(by_path(150_000))
        early = [f"/early{number}" for number in range(10)]
        for to in early:
            site.get(to=to)
        query = f"/cache/entries?prefix=http://proxy.test{site.path}/early"
        eventually(lambda: len(fetch(admin, query).json()["entries"]) == len(early))
        late = [f"/late{number}" for number in range(400)]
        begun = threading.Event()

        def load(names: list[str]) -> None:
            try:
                for to in names:
                    site.get(to=to)
                    if to.endswith("3"):
                        begun.set()
            except OSError:
                pass

        threads = [threading.Thread(target=load, args=(late[start::8],)) for start in range(8)]
        for thread in threads:
            thread.start()
        assert begun.wait(10)
        stand.restart(kill=True, before=lambda: [thread.join() for thread in threads])
        if not memory:  # else they may have been in memory only
            for to in early:
                assert site.get(ONLY, to=to).body == content(site.path + to, 150_000)
        found = 0
        for to in late:
            reply = site.get(ONLY, to=to)
            assert reply.status in (200, 504)
            if reply.status == 200:
                found += 1
                assert reply.complete
                assert reply.body == content(site.path + to, 150_000)
        assert found < len(late)
        assert site.get(to="/new").body == content(site.path + "/new", 150_000)
        stored(site, "/new")


@pytest.fixture(scope="module")
def large(stand: Stand) -> Iterator[tuple[Site, bytes]]:
    """64 MiB on disk, where memory may hold 4."""
    site = stand.site()
    body = content("large", 64 * MIB)

    def send(arrival: Arrival) -> None:
        arrival.send(ok(b"", FRESH, 'ETag: "v"', f"Content-Length: {len(body)}", length=False))
        arrival.send(body)

    site.answer(send)
    assert site.get().body == body
    stored(site)
    yield site, body
    assert site.count == 1


def test_a_body_larger_than_memory_is_served_from_disk_in_bounded_memory(
    stand: Stand, large: tuple[Site, bytes]
) -> None:
    site, body = large
    before = anonymous_kib(stand.proxy.process.pid)
    slow = [stand.connect(receive_buffer=8192) for _ in range(5)]
    for client in slow:
        client.say(site.path)
        client.read_head()
    assert site.get().body == body
    grown = anonymous_kib(stand.proxy.process.pid) - before
    for client in slow:
        client.reset()
    assert grown < 30 * 1024, f"{grown} KiB more"


def test_ranges_of_a_body_on_disk(large: tuple[Site, bytes]) -> None:
    site, body = large
    for asked, start, stop in (("60000000-60000099", 60_000_000, 60_000_100), ("-10", len(body) - 10, len(body))):
        reply = site.get(f"Range: bytes={asked}")
        assert (reply.status, reply.body) == (206, body[start:stop])
    reply = site.get(f"Range: bytes=1000-{40 * MIB}")
    assert reply.body == body[1000 : 40 * MIB + 1]
    reply = site.get("Range: bytes=0-9,60000000-60000009")
    assert body[:10] in reply.body
    assert body[60_000_000:60_000_010] in reply.body


@pytest.mark.parametrize("memory", [0, "4MiB"])
@pytest.mark.parametrize("first", ["bytes=0-49", "bytes=0-199999", "bytes=1000000-1000099", "bytes=1900000-"])
def test_a_large_body_of_which_a_part_is_on_disk_is_completed(tmp_path: Path, first: str, memory: object) -> None:
    with serving(tmp_path, disk(memory=memory)) as stand:
        site = stand.site()
        body = content("large", 2_000_000)
        site.answer(ranges(FRESH, 'ETag: "v"', body=body))
        site.get(f"Range: {first}")
        eventually(lambda: site.get(ONLY, f"Range: {first}").status == 206)
        assert site.get("Range: bytes=13-").body == body[13:]
        for _ in range(2):
            assert site.get().body == body
        eventually(lambda: site.get(ONLY).hit)
        assert site.count <= 4


def test_a_client_that_goes_away_in_the_middle_holds_nothing(stand: Stand, large: tuple[Site, bytes]) -> None:
    site, body = large
    for _ in range(20):
        with stand.connect() as client:
            client.say(site.path)
            client.read_head()
            client.reset()
    assert site.get("Range: bytes=0-9").body == body[:10]


def test_what_is_larger_than_the_store_keeps_is_passed_on(tmp_path: Path) -> None:
    with serving(tmp_path, {"disk": {"path": "store", "size": "8MiB", "max_object": "1MiB"}, "memory": 0}) as stand:
        site = stand.site()
        body = content("x", 3 * MIB)
        site.answer(ok(body, FRESH))
        assert [site.get().body == body, site.get().body == body, site.count] == [True, True, 2]
        chunked = ok(b"", FRESH, "Transfer-Encoding: chunked", length=False) + b"%x\r\n%b\r\n0\r\n\r\n" % (
            len(body),
            body,
        )
        site.answer(chunked)
        assert [site.get(to="/c").body == body, site.get(to="/c").body == body] == [True, True]


def test_the_store_stays_within_its_size(tmp_path: Path) -> None:
    with serving(tmp_path, disk("8MiB")) as stand:
        site = stand.site()
        site.answer(by_path(200_000))
        with stand.connect() as client:
            for number in range(150):
                client.ask(f"{site.path}/{number}")
        assert site.get(to="/149").body == content(f"{site.path}/149", 200_000)
        used = sum(file.stat().st_blocks * 512 for file in (tmp_path / "store").rglob("*") if file.is_file())
        assert used < 24 * MIB


def test_two_processes_share_it(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    shared = {"memory": 0, "disk": {"path": str(tmp_path / "store"), "size": "64MiB"}}
    with serving(tmp_path, shared) as stand:
        other = {"cache": shared, "upstreams": {"origin": {"servers": [f"http://127.0.0.1:{stand.origin.port}"]}}}
        with running_proxy({**other, "remap": [{"upstream": "origin"}]}, tmp_path / "other") as second:
            site = stand.site()
            site.answer(ok(b"one", FRESH), ok(b"two", FRESH))
            site.get()
            stored(site)
            with open_to(second.port) as client:
                eventually(lambda: client.ask(site.path, ONLY).status == 200)
                assert client.ask(site.path).body == b"one"
                assert client.ask(site.path, method="DELETE").status == 200
            assert site.get().body == b"two"


@pytest.mark.parametrize("spoil", ["garbage", "cut"])
def test_a_store_that_is_broken_is_set_aside_and_all_is_served(tmp_path: Path, spoil: str) -> None:
    store = tmp_path / "store"

    def break_it() -> None:
        for file in store.rglob("*"):
            if file.is_file():
                file.write_bytes(b"\xff" * 100_000 if spoil == "garbage" else file.read_bytes()[:5000])

    with serving(tmp_path, disk(memory="4MiB")) as stand:
        site = stand.site()
        site.answer(ok(b"body", FRESH))
        site.get()
        stored(site)
        stand.restart(before=break_it)
        assert site.get().body == b"body"
        assert site.get().body == b"body"
        assert "store" in stand.proxy.log
