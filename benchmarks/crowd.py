"""Many clients ask at once for one large object that a server does not have yet, and that comes slowly."""

from __future__ import annotations

import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path

import servers
from clients import ask
from servers import BODIES, MIB, SLOWLY, OriginRequests, Start

CLIENTS = 1000
PATH = "/10m/"


def crowd(starts: list[Start], *, rounds: int) -> None:
    """Print how often the origin was asked, how much memory it took and how long, for each server."""
    size = len(BODIES[PATH]) // MIB
    print(f"\n{CLIENTS:,} clients ask at once for {size} MiB that come at {SLOWLY // MIB} MiB/s", flush=True)
    print(f"  {'server':24}{'origin requests':>16}{'MiB at peak':>13}{'seconds':>9}{'CPU s':>7}{'MiB/s':>8}")
    measured: dict[str, list[tuple[int, float, float, float]]] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        origin = stack.enter_context(servers.origin(folder))
        requests = OriginRequests(origin)
        for round_number in range(rounds):
            home = folder / str(round_number)
            home.mkdir()
            for start in starts:
                # A fresh process: what an earlier crowd has left behind would hide what this one takes.
                with start(home, origin.port) as server:
                    ask(server, ["/1k/"] * 100, BODIES["/1k/"], 10)
                    requests.new()
                    server.forget_peak()
                    before, cpu = server.resident(), server.cpu_time()
                    answered = ask(server, [PATH] * CLIENTS, BODIES[PATH], CLIENTS)
                    grown = (server.peak_resident() - before) / MIB
                    row = requests.new(), grown, answered.seconds, server.cpu_time() - cpu
                measured.setdefault(server.name, []).append(row)
    for name, rows in measured.items():
        asked, grown, seconds, cpu = (statistics.median(column) for column in zip(*rows, strict=True))
        rate = CLIENTS * size / seconds
        print(f"  {name:24}{asked:>16,.0f}{grown:>13,.1f}{seconds:>9.2f}{cpu:>7.2f}{rate:>8,.0f}")
