"""How many traps in a time are made good at once."""

from __future__ import annotations

from collections import deque

__all__ = ["TrapBudget"]


class TrapBudget:
    """Counts the traps of one key of VM sharing in a sliding window."""

    def __init__(self, traps: int, within: float) -> None:
        """Allow `traps` in any `within` seconds."""
        self.traps = traps
        self.within = within
        self._times: deque[float] = deque(maxlen=traps + 1)

    def spend(self, now: float) -> bool:
        """Note a trap at `now`, in seconds; tell whether it is within the budget."""
        self._times.append(now)
        return not self.exhausted(now)

    def spent(self, now: float) -> int:
        """Return how many traps there were in the window that ends `now`; counted to one more than are allowed."""
        while self._times and now - self._times[0] > self.within:
            self._times.popleft()
        return len(self._times)

    def exhausted(self, now: float) -> bool:
        """Tell whether there were more traps than are allowed."""
        return self.spent(now) > self.traps
