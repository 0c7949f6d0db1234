"""Reactor timers that do not stand still, or run out, when the system's clock is set.

Twisted's reactors measure time with `time.time`: after a step back of a minute, no call is made for a minute.
"""

from __future__ import annotations

import time
from typing import Any

from twisted.python import runtime

__all__ = ["make_timers_monotonic"]


def make_timers_monotonic(reactor: Any) -> None:
    """Let `reactor` measure time by the monotonic clock from now on, if it uses the system's.

    Its `seconds` go on from the present date, so that calls that are pending keep their times, and those who take them
    for a date are as right as the system's clock was when this was called.
    """
    if getattr(reactor, "seconds", None) is runtime.seconds:
        offset = time.time() - time.monotonic()
        monotonic = time.monotonic
        reactor.seconds = lambda: monotonic() + offset
