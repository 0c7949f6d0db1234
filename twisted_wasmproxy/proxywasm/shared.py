"""Shared data and shared queues, and the host calls on them. They belong to a VM id and survive the failure of a VM."""

from __future__ import annotations

from collections import deque
from functools import partial
from time import monotonic
from typing import NamedTuple

from twisted.internet.interfaces import IReactorTime

from twisted_wasmproxy.proxywasm.abi import Status
from twisted_wasmproxy.proxywasm.contexts import Context, RootContext
from twisted_wasmproxy.proxywasm.memory import ENTRY, HostMemory

__all__ = [
    "Queues",
    "SharedData",
    "dequeue",
    "enqueue",
    "get_data",
    "register_queue",
    "resolve_queue",
    "set_data",
]

_LAST = 0xFFFFFFFF
_QUEUE = 4 * ENTRY
"""Bytes counted for a queue beside its name."""
_ITEM = ENTRY // 2
"""Bytes counted for an item of a queue beside its own."""
_TURN = 0.01
"""Seconds; then others get theirs before the owner of a queue is told of more items."""


class SharedData:
    """Values by VM id and key, each with a number that changes with it (compare and swap)."""

    def __init__(self) -> None:
        self._values: dict[bytes, dict[bytes, _Value]] = {}
        self._last = 0

    def get(self, vm_id: bytes, key: bytes) -> tuple[bytes, int] | None:
        """Return (value, number), or None."""
        found = self._values.get(vm_id, {}).get(key)
        return None if found is None else (found.data, found.number)

    def set(self, vm_id: bytes, key: bytes, value: bytes, number: int, memory: HostMemory) -> Status:
        """Store a value at the expense of `memory`.

        CAS_MISMATCH, and nothing stored, where `number` is not 0 and not that of the present value;
        INTERNAL_FAILURE where `memory` has no room.
        """
        values = self._values.get(vm_id)
        if values is None:
            values = self._values[vm_id] = {}
        present = values.get(key)
        if number and present is not None and present.number != number:
            return Status.CAS_MISMATCH
        size = ENTRY + len(key) + len(value)
        refund = present.size if present is not None and present.payer is memory else 0
        if not memory.take(size - refund):
            return Status.INTERNAL_FAILURE
        if present is not None and not refund:
            present.payer.give(present.size)
        self._last = self._last % _LAST + 1
        values[key] = _Value(value, self._last, size, memory)
        return Status.OK

    def forget(self, vm_id: bytes) -> None:
        """Drop the values of a VM id: its last VM is gone."""
        for value in self._values.pop(vm_id, {}).values():
            value.payer.give(value.size)


class _Value(NamedTuple):
    data: bytes
    number: int
    size: int
    payer: HostMemory


class _Queue:
    """Items with the budgets that they are counted in."""

    __slots__ = ("called", "items", "name", "owner", "payer", "unheard")

    def __init__(self, name: bytes, payer: HostMemory) -> None:
        self.name = name
        self.payer = payer
        self.owner: RootContext | None = None
        self.items: deque[tuple[bytes, HostMemory]] = deque()
        self.unheard = 0
        """Items that the owner is still to be told of."""
        self.called = False
        """Whether a call that tells it is under way."""

    @property
    def size(self) -> int:
        """Bytes of the queue without its items."""
        return _QUEUE + len(self.name)

    def clear(self) -> None:
        """Drop everything."""
        for item, payer in self.items:
            payer.give(_ITEM + len(item))
        self.items.clear()
        self.unheard = 0
        self.payer.give(self.size)
        self.owner = None


class Queues:
    """First-in, first-out queues by VM id and name, known to guests by number.

    The last to register a queue is told of each item, one reactor turn later or more, so never inside another call.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._tokens: dict[tuple[bytes, bytes], int] = {}
        self._queues: dict[int, _Queue] = {}
        self._last = 0

    def register(self, vm_id: bytes, name: bytes, owner: RootContext, memory: HostMemory) -> int | None:
        """Make or open a queue, to be told of its items from now on; None where `memory` has no room for it."""
        token = self._tokens.get((vm_id, name))
        if token is None:
            queue = _Queue(name, memory)
            if not memory.take(queue.size):
                return None
            self._last += 1
            token = self._tokens[vm_id, name] = self._last
            self._queues[token] = queue
        owner.queue_registered(token)
        return token

    def own(self, token: int, owner: RootContext) -> None:
        """Tell a context of the items of a queue from now on."""
        queue = self._queues.get(token)
        if queue is not None:  # else it went with the VM id
            queue.owner = owner

    def resolve(self, vm_id: bytes, name: bytes) -> int | None:
        """Return the number of a queue that has been registered."""
        return self._tokens.get((vm_id, name))

    def enqueue(self, token: int, item: bytes, memory: HostMemory) -> Status:
        """Append an item at the expense of `memory`.

        NOT_FOUND where there is no such queue, INTERNAL_FAILURE where `memory` has no room.
        """
        queue = self._queues.get(token)
        if queue is None:
            return Status.NOT_FOUND
        if not memory.take(_ITEM + len(item)):
            return Status.INTERNAL_FAILURE
        queue.items.append((item, memory))
        queue.unheard += 1
        self._notify_later(token, queue)
        return Status.OK

    def dequeue(self, token: int) -> bytes | Status:
        """Take the oldest item."""
        queue = self._queues.get(token)
        if queue is None:
            return Status.NOT_FOUND
        if not queue.items:
            return Status.EMPTY
        item, payer = queue.items.popleft()
        payer.give(_ITEM + len(item))
        return item

    def forget(self, owner: RootContext) -> None:
        """Tell a context no more; its queues stay."""
        for queue in self._queues.values():
            if queue.owner is owner:
                queue.owner = None

    def forget_vm_id(self, vm_id: bytes) -> None:
        """Drop the queues of a VM id: its last VM is gone."""
        for key in [key for key in self._tokens if key[0] == vm_id]:
            self._queues.pop(self._tokens.pop(key)).clear()

    def _notify_later(self, token: int, queue: _Queue) -> None:
        # One for a queue, however many items come: a delayed call is larger than most items.
        if not queue.called:
            queue.called = True
            self._clock.callLater(0, partial(self._notify, token))

    def _notify(self, token: int) -> None:
        """Tell the owner of each item, for as long as a turn may take; of the rest in the next."""
        queue = self._queues.get(token)
        if queue is None:
            return
        queue.called = False
        until = monotonic() + _TURN
        for _ in range(queue.unheard):
            queue.unheard -= 1
            if queue.owner is not None:
                queue.owner.queue_ready(token)
            if monotonic() >= until:
                break
        if queue.unheard:
            self._notify_later(token, queue)


def _vm_id(context: Context) -> bytes:
    return context.vm.vm_id.encode()


def get_data(context: Context, key: bytes) -> tuple[bytes, int] | Status:
    if context.root is None:
        return Status.NOT_FOUND
    found = context.vm.services.shared_data.get(_vm_id(context), key)
    return Status.NOT_FOUND if found is None else found


def set_data(context: Context, key: bytes, value: bytes, number: int) -> Status:
    """An empty value is a value: nothing is ever deleted."""
    if context.root is None:
        return Status.BAD_ARGUMENT
    vm = context.vm
    return vm.services.shared_data.set(_vm_id(context), key, value, number, vm.memory)


def register_queue(context: Context, name: bytes) -> tuple[int] | Status:
    if context.root is None:
        return Status.BAD_ARGUMENT
    vm = context.vm
    token = vm.services.queues.register(_vm_id(context), name, context.root, vm.memory)
    return Status.INTERNAL_FAILURE if token is None else (token,)


def resolve_queue(context: Context, vm_id: bytes, name: bytes) -> tuple[int] | Status:
    token = context.vm.services.queues.resolve(vm_id or _vm_id(context), name)
    return Status.NOT_FOUND if token is None else (token,)


def enqueue(context: Context, token: int, item: bytes) -> Status:
    return context.vm.services.queues.enqueue(token, item, context.vm.memory)


def dequeue(context: Context, token: int) -> bytes | Status:
    return context.vm.services.queues.dequeue(token)
