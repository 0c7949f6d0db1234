"""Hits on what a server wrote to disk before it was restarted: each object is asked for once, the origin never."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import servers
from clients import ask
from load import CONNECTIONS, Result, WrongAnswer, check_no_misses
from servers import BODIES, OriginRequests, Server, Start
from tables import Table

SIZE = 4 * 1024**3
STARTS: list[Start] = [
    partial(servers.wasmproxy, cache={"disk": {"path": "disk", "size": SIZE}}),
    partial(servers.nginx, cached=True),
]
OBJECTS = {"/1k/": 20_000, "/1m/": 500}
FILLS = 10
UNITS = {"/1k/": "req/s", "/1m/": "MiB/s"}


def _forget_pages(folder: Path) -> None:
    """Have the kernel drop what it keeps in memory of the files below `folder`."""
    os.sync()
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)


def _ask_each(server: Server, path: str) -> Result:
    cpu_before = server.cpu_time()
    answered = ask(server, (f"{path}{number}" for number in range(OBJECTS[path])), BODIES[path], CONNECTIONS)
    cpu = server.cpu_time() - cpu_before
    return Result(answered.count / answered.seconds, answered.latency(), 1e6 * cpu / answered.count)


def _fill(start: Start, folder: Path, origin: Server, requests: OriginRequests, path: str) -> None:
    """Ask until everything is on disk: a cache may keep what comes faster than it can write in memory only."""
    for number in range(FILLS):
        with start(folder, origin.port) as server:
            _ask_each(server, path)
        missing = requests.new()
        if not missing:
            return
        if number:
            print(f"  ({server.name} did not have {missing:,} of them after restart {number})", flush=True)
    raise WrongAnswer(f"{server.name} has not stored everything after {FILLS} tries")


def _restarted(path: str, before: Callable[[Path], None], *, rounds: int) -> Table:
    table = Table(UNITS[path])
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        origin = stack.enter_context(servers.origin(folder))
        requests = OriginRequests(origin)
        for start in STARTS:
            _fill(start, folder, origin, requests, path)
        for _ in range(rounds):
            for start in STARTS:
                before(folder)
                with start(folder, origin.port) as server:
                    table.add(server.name, _ask_each(server, path))
                    check_no_misses(server, requests)
    return table


def from_disk(*, rounds: int) -> None:
    for path, size in {"/1k/": "1 KiB", "/1m/": "1 MiB"}.items():
        count = f"{OBJECTS[path]:,} objects of {size}, after a restart"
        print(f"\n{count}, in the kernel's page cache", flush=True)
        _restarted(path, lambda folder: None, rounds=rounds).print()
        print(f"\n{count}, on disk only", flush=True)
        _restarted(path, _forget_pages, rounds=rounds).print()
