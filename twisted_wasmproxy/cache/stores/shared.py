"""What a store that several processes share can tell those who keep copies of its responses in memory."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from twisted_wasmproxy.cache.stores.disk_changes import Changed, Purged
from twisted_wasmproxy.interfaces import IStoredResponse

__all__ = ["ChangeListener", "SharedStore"]


class ChangeListener(Protocol):
    """Is told what other processes did. Calls come in the reactor's thread, from inside `SharedStore.catch_up`."""

    def changed(self, change: Changed) -> None:
        """What was stored under a key was replaced, freshened or removed."""

    def purged(self, change: Purged) -> None:
        """There was a purge."""

    def too_much_changed(self) -> None:
        """Anything may have happened: no copy is good any more."""


@runtime_checkable
class SharedStore(Protocol):
    """An `ICacheStore` that can tell."""

    def listen(self, listener: ChangeListener) -> None:
        """Tell this listener from now on."""

    def catch_up(self) -> None:
        """Tell what has happened since the last time. Costs next to nothing if nothing has."""

    def touch(self, key: bytes) -> None:
        """A copy of what is stored under this key is used. Costs next to nothing."""

    def is_current(self, stored: IStoredResponse) -> bool:
        """Whether nothing is known to have happened to a response since it was found."""
