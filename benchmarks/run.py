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
from pathlib import Path

import servers
from load import Result, WrongAnswer, check, idle_connections, wrk
from servers import MODULE, CannotStart, Running

IDLE = 5000
Start = Callable[[Path, int], Running]


def _with_module(start: Callable[..., Running]) -> Start:
    return lambda folder, origin_port: start(folder, origin_port, module=MODULE)


PROXIES: list[Start] = [servers.wasmproxy, servers.envoy, servers.reverse_proxy_resource, servers.nginx]
FILTERED: list[Start] = [_with_module(servers.wasmproxy), _with_module(servers.envoy)]
HOLDING: list[Start] = [servers.wasmproxy, servers.envoy, servers.nginx]


class Table:
    """What was measured of each server, in the order of the first measurement."""

    def __init__(self) -> None:
        self.results: dict[str, list[Result]] = {}

    def add(self, name: str, result: Result) -> None:
        self.results.setdefault(name, []).append(result)

    def print(self) -> None:
        """Print medians, the spread of req/s, and our part of each server's req/s and of its processor time."""
        print(f"  {'server':24}{'req/s':>9}{'spread':>18}{'p50':>10}{'CPU us/req':>12}   ours: req/s   CPU")
        ours: Result | None = None
        for name, results in self.results.items():
            middle = sorted(results, key=lambda result: result.requests_per_second)[len(results) // 2]
            rate, cpu = middle.requests_per_second, statistics.median(result.cpu for result in results)
            ours = ours or Result(rate, middle.latency, cpu)
            rates = [result.requests_per_second for result in results]
            spread = f"{min(rates):,.0f}-{max(rates):,.0f}"
            ratios = f"{ours.requests_per_second / rate:>9.2f} x{ours.cpu / cpu:>6.2f}"
            print(f"  {name:24}{rate:>9,.0f}{spread:>18}{middle.latency:>10}{cpu:>12.1f}   {ratios}")


def throughput(title: str, starts: list[Start], *, filtered: bool, rounds: int, seconds: int) -> None:
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


def _open_many_files() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2 * IDLE + 1000:
        print(f"warning: the limit of open files is {hard}: the case of {IDLE} idle connections will fail")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each server (default 3)")
    parser.add_argument("--seconds", type=int, default=5, help="length of one measurement (default 5)")
    parser.add_argument("cases", nargs="*", metavar="CASE", help="get, wasm, idle (default: all)")
    options = parser.parse_args()
    cases = options.cases or ["get", "wasm", "idle"]
    if unknown := set(cases) - {"get", "wasm", "idle"}:
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    if len(os.sched_getaffinity(0)) < 2:
        parser.error("two cores are needed: one for the server under test, one for everything else")

    _open_many_files()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    length = {"rounds": options.rounds, "seconds": options.seconds}
    try:
        if "get" in cases:
            throughput("A proxied GET of 1 KiB", PROXIES, filtered=False, **length)
        if "wasm" in cases:
            throughput("The same through the same small Wasm filter", FILTERED, filtered=True, **length)
        if "idle" in cases:
            idle(f"{IDLE:,} idle keep-alive connections", HOLDING, **length)
    except (CannotStart, WrongAnswer) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
