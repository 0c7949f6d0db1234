"""Metrics that guests define, kept in memory; names are common to all VMs of a worker."""

from __future__ import annotations

from collections.abc import Iterator

from twisted_wasmproxy.proxywasm.abi import MetricType, Status
from twisted_wasmproxy.proxywasm.contexts import Context

__all__ = ["Metric", "Metrics", "define", "get", "increment", "record"]

_MASK = (1 << 64) - 1


class Metric:
    """A counter or gauge with its value, or a histogram with the number and sum of its samples."""

    __slots__ = ("count", "kind", "name", "value")

    def __init__(self, kind: MetricType, name: bytes) -> None:
        self.kind = kind
        self.name = name
        self.value = 0
        """Of a histogram, the sum of its samples."""
        self.count = 0
        """Samples of a histogram."""


class Metrics:
    """All metrics of a worker."""

    def __init__(self) -> None:
        self._by_id: dict[int, Metric] = {}
        self._ids: dict[tuple[int, bytes], int] = {}

    def __iter__(self) -> Iterator[Metric]:
        return iter(list(self._by_id.values()))

    def define(self, kind: MetricType, name: bytes) -> int:
        """Return the id of a metric, the same one for the same kind and name. The kind is in its two low bits."""
        key = (kind, name)
        if key not in self._ids:
            self._ids[key] = token = (len(self._ids) + 1) << 2 | kind
            self._by_id[token] = Metric(kind, name)
        return self._ids[key]

    def find(self, token: int) -> Metric | None:
        """Return the metric of an id."""
        return self._by_id.get(token)


def define(context: Context, kind: int, name: bytes) -> tuple[int] | Status:
    if kind > max(MetricType):
        return Status.BAD_ARGUMENT
    return (context.vm.services.metrics.define(MetricType(kind), name),)


def record(context: Context, token: int, value: int) -> Status:
    """Set a gauge, add a sample to a histogram, add to a counter (the C++ SDK counts so)."""
    metric = context.vm.services.metrics.find(token)
    if metric is None:
        return Status.NOT_FOUND
    if metric.kind is MetricType.GAUGE:
        metric.value = value
    else:
        metric.value = (metric.value + value) & _MASK
        metric.count += 1
    return Status.OK


def increment(context: Context, token: int, delta: int) -> Status:
    metric = context.vm.services.metrics.find(token)
    if metric is None:
        return Status.NOT_FOUND
    if metric.kind is MetricType.HISTOGRAM or (metric.kind is MetricType.COUNTER and delta <= 0):
        return Status.BAD_ARGUMENT
    metric.value = (metric.value + delta) & _MASK
    return Status.OK


def get(context: Context, token: int) -> tuple[int] | Status:
    metric = context.vm.services.metrics.find(token)
    if metric is None:
        return Status.NOT_FOUND
    if metric.kind is MetricType.HISTOGRAM:
        return Status.BAD_ARGUMENT
    return (metric.value,)
