"""What the VMs of one worker have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from twisted.internet.interfaces import IReactorTime

from twisted_wasmproxy.proxywasm.abi import LogLevel
from twisted_wasmproxy.proxywasm.metrics import Metrics
from twisted_wasmproxy.proxywasm.shared import Queues, SharedData

__all__ = ["Services"]


def _info(namespace: str) -> LogLevel:
    return LogLevel.INFO


@dataclass
class Services:
    """Given to every VM; outlives them."""

    clock: IReactorTime
    node: Mapping[str, object] = field(default_factory=dict)
    """The property `node`."""
    log_level: Callable[[str], LogLevel] = _info
    """The lowest level that is logged, by logger namespace."""
    drain: float = 30.0
    """Seconds that a context may take from `proxy_on_done` to `proxy_done`."""
    shared_data: SharedData = field(default_factory=SharedData)
    queues: Queues = field(init=False)
    metrics: Metrics = field(default_factory=Metrics)

    def __post_init__(self) -> None:
        self.queues = Queues(self.clock)
