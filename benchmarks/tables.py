"""What was measured, as lines of text."""

from __future__ import annotations

import statistics

from load import Result


class Table:
    """What was measured of each server, in the order of the first measurement: ours comes first."""

    def __init__(self, unit: str = "req/s") -> None:
        self.unit = unit
        """What one request a second is."""
        self.results: dict[str, list[Result]] = {}

    def add(self, name: str, result: Result) -> None:
        self.results.setdefault(name, []).append(result)

    def print(self) -> None:
        """Print medians, the spread of the rate, and our part of each server's rate and of its processor time."""
        print(f"  {'server':24}{self.unit:>9}{'spread':>18}{'p50':>10}{'CPU us/req':>12}   ours: {self.unit:5}   CPU")
        ours: Result | None = None
        for name, results in self.results.items():
            middle = sorted(results, key=lambda result: result.requests_per_second)[len(results) // 2]
            rate, cpu = middle.requests_per_second, statistics.median(result.cpu for result in results)
            ours = ours or Result(rate, middle.latency, cpu)
            rates = [result.requests_per_second for result in results]
            spread = f"{min(rates):,.0f}-{max(rates):,.0f}"
            ratios = f"{ours.requests_per_second / rate:>9.2f} x{ours.cpu / cpu:>6.2f}"
            print(f"  {name:24}{rate:>9,.0f}{spread:>18}{middle.latency:>10}{cpu:>12.1f}   {ratios}")
