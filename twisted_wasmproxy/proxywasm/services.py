"""What the VMs of one worker have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from twisted.internet.interfaces import IReactorTime

from twisted_wasmproxy.proxywasm.abi import LogLevel
from twisted_wasmproxy.proxywasm.memory import HostMemory
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
    _memories: dict[str, HostMemory] = field(init=False)

    def __post_init__(self) -> None:
        self.queues = Queues(self.clock)
        self._memories = {}

    def host_memory(self, key: str, limit: int, name: str) -> HostMemory:
        """Return the budget of the VMs that share a key, `limit` bytes: the same one until the last of them is gone."""
        memory = self._memories.get(key)
        if memory is None:
            memory = self._memories[key] = HostMemory(limit, name)
        return memory

    def ended(self, key: str, vm_id: str, successor: str | None) -> None:
        """The last VM of `key` is gone. Drop what it leaves: its metrics, and the data and queues of its VM id.

        `successor` is the key of other VMs with the same id: data and queues are then theirs.
        """
        memory = self._memories.pop(key, None)
        if memory is not None:
            self.metrics.forget(memory)
        if successor is None:
            self.shared_data.forget(vm_id.encode())
            self.queues.forget_vm_id(vm_id.encode())
        elif memory is not None and successor in self._memories:
            memory.leave_to(self._memories[successor])
