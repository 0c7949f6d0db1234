"""Metrics that guests define, kept in memory; names are common to all VMs of a worker."""

from __future__ import annotations

from collections.abc import Iterator

from twisted_wasmproxy.proxywasm.abi import MetricType, Status
from twisted_wasmproxy.proxywasm.contexts import Context
from twisted_wasmproxy.proxywasm.memory import ENTRY, HostMemory

__all__ = ["Metric", "Metrics", "define", "get", "increment", "record"]

_MASK = (1 << 64) - 1


class Metric:
    """A counter or gauge with its value, or a histogram with the number and sum of its samples."""

    __slots__ = ("count", "definers", "kind", "name", "value")

    def __init__(self, kind: MetricType, name: bytes) -> None:
        self.kind = kind
        self.name = name
        self.value = 0
        """Of a histogram, the sum of its samples."""
        self.count = 0
        """Samples of a histogram."""
        self.definers: tuple[HostMemory, ...] = ()
        """The budgets in which it is counted; it goes with the last."""

    @property
    def size(self) -> int:
        """Bytes that it is counted with."""
        return 2 * ENTRY + len(self.name)


class Metrics:
    """All metrics of a worker."""

    def __init__(self) -> None:
        self._by_id: dict[int, Metric] = {}
        self._ids: dict[tuple[int, bytes], int] = {}
        self._last = 0

    def __iter__(self) -> Iterator[Metric]:
        return iter(list(self._by_id.values()))

    def define(self, kind: MetricType, name: bytes, memory: HostMemory) -> int | None:
        """Return the id of a metric, the same one for the same kind and name; None where `memory` has no room for it.

        The kind is in the two low bits.
        """
        token = self._ids.get((kind, name))
        metric = Metric(kind, name) if token is None else self._by_id[token]
        if memory not in metric.definers:
            if not memory.take(metric.size):
                return None
            metric.definers += (memory,)
        if token is None:
            self._last += 1
            self._ids[kind, name] = token = self._last << 2 | kind
            self._by_id[token] = metric
        return token

    def forget(self, memory: HostMemory) -> None:
        """Drop the metrics that only the VMs of this budget, which are gone, have defined."""
        for token, metric in list(self._by_id.items()):
            if memory in metric.definers:
                memory.give(metric.size)
                metric.definers = tuple(other for other in metric.definers if other is not memory)
                if not metric.definers:
                    del self._by_id[token], self._ids[metric.kind, metric.name]

    def find(self, token: int) -> Metric | None:
        """Return the metric of an id."""
        return self._by_id.get(token)


def define(context: Context, kind: int, name: bytes) -> tuple[int] | Status:
    if kind > max(MetricType):
        return Status.BAD_ARGUMENT
    vm = context.vm
    token = vm.services.metrics.define(MetricType(kind), name, vm.memory)
    return Status.INTERNAL_FAILURE if token is None else (token,)


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
