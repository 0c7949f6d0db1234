"""Time-outs of many connections by one coarse timer: to set one is to write an attribute."""

from __future__ import annotations

from typing import Any, Protocol

from twisted_wasmproxy.logs import Logger

__all__ = ["NEVER", "Deadlines", "Expiring"]

NEVER = float("inf")
"""The deadline of what may wait for ever."""

_log = Logger()


class Expiring(Protocol):
    """What `Deadlines` looks after."""

    deadline: float
    """In the time of `Deadlines.now`."""

    def deadline_passed(self) -> None:
        """The deadline lies in the past. Must set another one or leave."""


class Deadlines:
    """Watches the deadlines of its members once in an interval; the timer runs only while there are members.

    A deadline set to `now + t` passes no sooner than `t` and no later than `t` plus two intervals. Time in which the
    reactor was held up does not count against anyone: a peer whose bytes could not be read is not silent.
    """

    __slots__ = ("_call", "_last", "_members", "clock", "interval", "now")

    now: float
    """Seconds; advances in steps."""

    def __init__(self, clock: Any, interval: float = 0.5) -> None:
        """`clock` is an IReactorTime, `interval` in seconds."""
        self.clock = clock
        self._members: set[Expiring] = set()
        self._call: Any = None
        self._last = 0.0
        self.interval = interval
        self.now = 0.0

    def add(self, member: Expiring) -> None:
        """Watch `member` until it is removed."""
        self._members.add(member)
        if self._call is None:
            self._last = self.clock.seconds()
            self._call = self.clock.callLater(self.interval, self._tick)

    def remove(self, member: Expiring) -> None:
        """Forget `member`, if it is one."""
        self._members.discard(member)
        if not self._members and self._call is not None:
            self._call.cancel()
            self._call = None

    def _tick(self) -> None:
        seconds = self.clock.seconds()
        self.now += max(0.0, min(seconds - self._last, 2 * self.interval))
        self._last = seconds
        self._call = self.clock.callLater(self.interval, self._tick)
        # `now` may have been older by one interval than the moment in which a deadline was set.
        horizon = self.now - self.interval
        for member in [member for member in self._members if member.deadline < horizon]:
            try:
                member.deadline_passed()
            except Exception:  # one broken member must not stop the clock for all
                _log.failure("a deadline's action failed")


_shared: Deadlines | None = None


def shared_deadlines() -> Deadlines:
    """Return the one of this process, on the installed reactor."""
    global _shared
    if _shared is None:
        from twisted.internet import reactor

        _shared = Deadlines(reactor)
    return _shared
