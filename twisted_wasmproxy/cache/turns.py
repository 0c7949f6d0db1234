"""`Turns`: requests that have waited in vain ask for themselves: a few at first, more with each that is answered."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twisted_wasmproxy.cache.lookup import Lookup

__all__ = ["AT_FIRST", "Turns"]

AT_FIRST = 16
"""How many ask at once to begin with; an answer lets two more ask."""


class Turns:
    """Lets `lookups` go on by `ask`, so that what one of them brings can serve the rest, and an origin in trouble does
    not get all of them at once."""

    def __init__(self, lookups: Iterable[Lookup], ask: Callable[[Lookup], None]) -> None:
        self._waiting = deque(lookups)
        self._ask = ask
        self._at_once = AT_FIRST
        self._asking = 0
        self._busy = False
        self._go_on()

    @property
    def is_done(self) -> bool:
        """Whether nobody waits any more for being let go."""
        return not self._waiting

    def widen(self) -> None:
        """Let twice as many ask at once: it takes too long."""
        self._at_once *= 2
        self._go_on()

    def all_at_once(self) -> None:
        """Let all go on: there is something for them."""
        self._at_once += len(self._waiting)
        self._go_on()

    def _go_on(self) -> None:
        if self._busy:  # called from inside of the loop: it goes on by itself
            return
        self._busy = True
        while self._waiting and self._asking < self._at_once:
            lookup = self._waiting.popleft()
            if not lookup.gone:
                self._asking += 1
                lookup.on_settled = self._settled
                try:
                    self._ask(lookup)
                except Exception:
                    lookup.crashed()
        self._busy = False

    def _settled(self) -> None:
        self._asking -= 1
        self._at_once += 1
        self._go_on()
