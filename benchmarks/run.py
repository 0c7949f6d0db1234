"""Compare the proxy with Envoy, nginx and twisted.web on this machine.

Every server under test has one core to itself; load and origin share another. The servers of a case are measured in
turn, several rounds of it, and the medians are printed with their spread and as ratios: those mean something on
another machine too, the requests a second do not.
"""

from __future__ import annotations

import argparse
import os
import resource
import signal
import statistics
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import hit_ratio
import servers
from crowd import crowd
from disk import from_disk
from load import WrongAnswer, check, check_hits, check_no_misses, idle_connections, wrk
from servers import BODIES, MODULE, SPARE_CORE, CannotStart, OriginRequests, Start
from tables import Table

IDLE = 5000

WASMPROXY = partial(servers.wasmproxy, cache={})
ENVOY = partial(servers.envoy, cache="cache")
ENVOY_V2 = partial(servers.envoy, cache="cache_v2")
NGINX = partial(servers.nginx, cached=True)

PROXIES: list[Start] = [servers.wasmproxy, servers.envoy, servers.reverse_proxy_resource, servers.nginx]
FILTERED: list[Start] = [partial(servers.wasmproxy, module=MODULE), partial(servers.envoy, module=MODULE)]
HOLDING: list[Start] = [servers.wasmproxy, servers.envoy, servers.nginx]
CACHES: list[Start] = [WASMPROXY, ENVOY, ENVOY_V2, NGINX]


def proxied(title: str, starts: list[Start], *, filtered: bool, rounds: int, seconds: int) -> None:
    """What goes to the origin each time."""
    print(f"\n{title}", flush=True)
    table = Table()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        origin = stack.enter_context(servers.origin(folder))
        running = [stack.enter_context(start(folder, origin.port)) for start in starts]
        for server in running:
            check(server, filtered=filtered)
            wrk(server, 1)
        for _ in range(rounds):
            for server in running:
                table.add(server.name, wrk(server, seconds))
    table.print()


def hits(title: str, starts: list[Start], path: str, *, unit: str = "req/s", rounds: int, seconds: int) -> None:
    """What the server has in memory already, one of BODIES."""
    print(f"\n{title}", flush=True)
    table = Table(unit)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        origin = stack.enter_context(servers.origin(folder))
        requests = OriginRequests(origin)
        running = [stack.enter_context(start(folder, origin.port)) for start in starts]
        for server in running:
            check_hits(server, path, BODIES[path], requests)
            wrk(server, 1, path)
        for _ in range(rounds):
            for server in running:
                table.add(server.name, wrk(server, seconds, path))
                check_no_misses(server, requests)
    table.print()


def idle(title: str, starts: list[Start], *, rounds: int, seconds: int) -> None:
    print(f"\n{title}", flush=True)
    print(f"  {'server':28}{'KiB each':>9}{'alone req/s':>14}{'with idle':>12}   with / alone")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        origin = stack.enter_context(servers.origin(folder))
        measured: dict[str, list[tuple[float, float, float]]] = {}
        for round_number in range(rounds):
            for start in starts:
                home = folder / f"{round_number}-{len(measured)}-{starts.index(start)}"
                home.mkdir()
                # Memory is counted from a fresh process: what a load has left behind would hide the connections.
                with start(home, origin.port) as server:
                    check(server, filtered=False)
                    before = server.resident()
                    with idle_connections(server, IDLE):
                        each = (server.resident() - before) / IDLE / 1024
                        wrk(server, 1)
                        together = wrk(server, seconds).requests_per_second
                    wrk(server, 1)
                    alone = wrk(server, seconds).requests_per_second
                measured.setdefault(server.name, []).append((each, alone, together))
    for name, rows in measured.items():
        each, alone, together = (statistics.median(column) for column in zip(*rows, strict=True))
        ratio = statistics.median(row[2] / row[1] for row in rows)
        print(f"  {name:28}{each:>9.1f}{alone:>14,.0f}{together:>12,.0f}   {ratio:.2f}")


def _ratio() -> None:
    print()
    hit_ratio.main([])


def _open_many_files() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2 * IDLE + 1000:
        print(f"warning: the limit of open files is {hard}: the case of {IDLE} idle connections will fail")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _cases(rounds: int, seconds: int) -> dict[str, Callable[[], object]]:
    proxying = partial(proxied, rounds=rounds, seconds=seconds)
    hitting = partial(hits, rounds=rounds, seconds=seconds)
    return {
        "get": partial(proxying, "A proxied GET of 1 KiB", PROXIES, filtered=False),
        "wasm": partial(proxying, "The same through the same small Wasm filter", FILTERED, filtered=True),
        "hit": partial(hitting, "A hit in memory, 1 KiB", [*CACHES, servers.constant_resource], "/1k/"),
        "hit-large": partial(hitting, "A hit in memory, 1 MiB", CACHES, "/1m/", unit="MiB/s"),
        "disk": partial(from_disk, rounds=rounds),
        "crowd": partial(crowd, [WASMPROXY, ENVOY_V2, NGINX], rounds=rounds),
        "ratio": _ratio,
        "idle": partial(idle, f"{IDLE:,} idle keep-alive connections", HOLDING, rounds=rounds, seconds=seconds),
    }


def main() -> int:
    names = list(_cases(0, 0))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each server (default 3)")
    parser.add_argument("--seconds", type=int, default=5, help="length of one measurement (default 5)")
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"{', '.join(names)} (default: all)")
    options = parser.parse_args()
    if unknown := set(options.cases).difference(names):
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    if len(os.sched_getaffinity(0)) < 2:
        parser.error("two cores are needed: one for the server under test, one for everything else")

    _open_many_files()
    os.sched_setaffinity(0, {SPARE_CORE})
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        for name, case in _cases(options.rounds, options.seconds).items():
            if not options.cases or name in options.cases:
                case()
    except (CannotStart, WrongAnswer) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
