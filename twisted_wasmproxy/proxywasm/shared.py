"""Shared data and shared queues, and the host calls on them. They belong to a VM id and survive the failure of a VM."""

from __future__ import annotations

from collections import deque
from functools import partial

from twisted.internet.interfaces import IReactorTime

from twisted_wasmproxy.proxywasm.abi import Status
from twisted_wasmproxy.proxywasm.contexts import Context, RootContext

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


class SharedData:
    """Values by VM id and key, each with a number that changes with it (compare and swap)."""

    def __init__(self) -> None:
        self._values: dict[bytes, dict[bytes, tuple[bytes, int]]] = {}
        self._last = 0

    def get(self, vm_id: bytes, key: bytes) -> tuple[bytes, int] | None:
        """Return (value, number), or None."""
        return self._values.get(vm_id, {}).get(key)

    def set(self, vm_id: bytes, key: bytes, value: bytes, number: int) -> bool:
        """Store a value; False, and nothing stored, where `number` is not 0 and not that of the present value."""
        values = self._values.setdefault(vm_id, {})
        present = values.get(key)
        if number and present is not None and present[1] != number:
            return False
        self._last = self._last % _LAST + 1
        values[key] = (value, self._last)
        return True

    def forget(self, vm_id: bytes) -> None:
        """Drop the values of a VM id: its last VM is gone."""
        self._values.pop(vm_id, None)


class Queues:
    """First-in, first-out queues by VM id and name, known to guests by number.

    The last to register a queue is told of each item, one reactor turn later or more, so never inside another call.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._tokens: dict[tuple[bytes, bytes], int] = {}
        self._items: dict[int, deque[bytes]] = {}
        self._owners: dict[int, RootContext] = {}
        self._last = 0

    def register(self, vm_id: bytes, name: bytes, owner: RootContext) -> int:
        """Make or open a queue, to be told of its items from now on."""
        token = self._tokens.get((vm_id, name))
        if token is None:
            self._last += 1
            token = self._tokens[vm_id, name] = self._last
            self._items[token] = deque()
        owner.queue_registered(token)
        return token

    def own(self, token: int, owner: RootContext) -> None:
        """Tell a context of the items of a queue from now on."""
        self._owners[token] = owner

    def resolve(self, vm_id: bytes, name: bytes) -> int | None:
        """Return the number of a queue that has been registered."""
        return self._tokens.get((vm_id, name))

    def enqueue(self, token: int, item: bytes) -> bool:
        """Append an item; False where there is no such queue."""
        items = self._items.get(token)
        if items is None:
            return False
        items.append(item)
        self._clock.callLater(0, partial(self._notify, token))
        return True

    def dequeue(self, token: int) -> bytes | Status:
        """Take the oldest item."""
        items = self._items.get(token)
        if items is None:
            return Status.NOT_FOUND
        return items.popleft() if items else Status.EMPTY

    def forget(self, owner: RootContext) -> None:
        """Tell a context no more; its queues stay."""
        for token in [token for token, known in self._owners.items() if known is owner]:
            del self._owners[token]

    def forget_vm_id(self, vm_id: bytes) -> None:
        """Drop the queues of a VM id: its last VM is gone."""
        for key in [key for key in self._tokens if key[0] == vm_id]:
            token = self._tokens.pop(key)
            del self._items[token]
            self._owners.pop(token, None)

    def _notify(self, token: int) -> None:
        owner = self._owners.get(token)
        if owner is not None:
            owner.queue_ready(token)


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
    stored = context.vm.services.shared_data.set(_vm_id(context), key, value, number)
    return Status.OK if stored else Status.CAS_MISMATCH


def register_queue(context: Context, name: bytes) -> tuple[int] | Status:
    if context.root is None:
        return Status.BAD_ARGUMENT
    return (context.vm.services.queues.register(_vm_id(context), name, context.root),)


def resolve_queue(context: Context, vm_id: bytes, name: bytes) -> tuple[int] | Status:
    token = context.vm.services.queues.resolve(vm_id or _vm_id(context), name)
    return Status.NOT_FOUND if token is None else (token,)


def enqueue(context: Context, token: int, item: bytes) -> Status:
    return Status.OK if context.vm.services.queues.enqueue(token, item) else Status.NOT_FOUND


def dequeue(context: Context, token: int) -> bytes | Status:
    return context.vm.services.queues.dequeue(token)
