"""`HostMemory`: how many bytes the host keeps for a module outside the module's own memory, and how many it may.

What a module can make the host keep is taken from here before it is kept, and given back when it is dropped. Sizes
are estimates: the bytes themselves and what CPython's objects around them take.
"""

from __future__ import annotations

from math import inf
from time import monotonic
from typing import TYPE_CHECKING

from twisted_wasmproxy.logs import Logger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted.internet.interfaces import IReactorTime

    from twisted_wasmproxy.runtimes.binary import Table

__all__ = ["ENTRY", "HostMemory", "table_share"]

_log = Logger()

ENTRY = 256
"""Bytes counted for an entry beside its key and value: objects, and room in a table."""

_SILENCE = 60.0
"""Seconds."""

_TABLE_ELEMENT = 8
"""Bytes of an element of a Wasm table, in wasmtime."""
_MOST_ELEMENTS = 1 << 20
_PART_FOR_TABLES = 4


class HostMemory:
    """The budget of one kind of VM: of all its instances, one after the other or side by side, and their plugins.

    It outlives a VM that fails, as shared data, queues and metrics do.
    """

    __slots__ = ("_heir", "_lent", "_limit", "_name", "_told", "used")

    def __init__(self, limit: int, name: str = "") -> None:
        """`limit` is in bytes; `name` is the module's, for the log."""
        self.used = 0
        """Bytes that are kept now."""
        self._limit = limit
        self._name = name
        self._told = -inf
        self._lent = 0
        self._heir: HostMemory | None = None

    def take(self, size: int) -> bool:
        """Count `size` bytes more; False, and nothing counted, where that is beyond the limit."""
        used = self.used + size
        if used > self._limit:
            self.tell(f"keep more than host_memory_limit, {self._limit} bytes")
            return False
        self.used = used
        return True

    def take_always(self, size: int) -> None:
        """Count `size` bytes that are there already, even beyond the limit."""
        self.used += size

    def give(self, size: int) -> None:
        """Count `size` bytes less."""
        if self._heir is not None:
            self._heir.give(size)
        else:
            self.used -= size

    def lend(self, size: int, clock: IReactorTime) -> bool:
        """Take `size` bytes until the reactor's next turn: for what is on its way to a connection."""
        if not self.take(size):
            return False
        if not self._lent:
            clock.callLater(0, self._take_back)
        self._lent += size
        return True

    def leave_to(self, heir: HostMemory) -> None:
        """The last VM of this kind is gone, and what is left of it is for `heir` to account for."""
        heir.take_always(self.used)
        self.used = 0
        self._heir = heir

    def tell(self, what: str) -> None:
        """Log what the module would have the host do and the host does not; once a minute, as it may ask in a loop."""
        now = monotonic()
        if now - self._told >= _SILENCE:
            self._told = now
            _log.warn("{vm}: the module would have the host {what}: refused", vm=self._name, what=what)

    def _take_back(self) -> None:
        lent, self._lent = self._lent, 0
        self.give(lent)


def table_share(tables: Sequence[Table], limit: int) -> tuple[int, int]:
    """Return (how many elements one of these tables may have, how many bytes all of them can then take).

    Together they may take a quarter of `limit` bytes. How large they are, an engine does not tell: so what they may
    grow to is counted, which for the table of functions that compilers make is what it is.
    """
    left = min(_MOST_ELEMENTS, limit // _PART_FOR_TABLES // _TABLE_ELEMENT)
    wanted = sorted(left + 1 if table.maximum is None else table.maximum for table in tables)
    largest = _MOST_ELEMENTS
    for place, size in enumerate(wanted):
        share = left // (len(wanted) - place)
        if size > share:  # and so are those that come after it
            largest = share
            break
        left -= size
    return largest, _TABLE_ELEMENT * sum(min(size, largest) for size in wanted)
