"""Twisted's epoll reactor without a logging context for each event.

Twisted calls every `doRead` and `doWrite` through `callWithLogger`, which copies a context and makes six calls, so that
a line logged in the old style inside carries the name of the protocol. Nothing here logs in that style, and it is
several microseconds of each request. `twistd wasmproxy` takes this reactor unless it is told another (`--reactor`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.main import installReactor
from twisted.logger import Logger

__all__ = ["PlainEPollReactor", "install", "install_unless_chosen"]

_log = Logger()


class PlainEPollReactor(EPollReactor):
    """Differs from its base in how events are handed out, and in nothing else."""

    def doPoll(self, timeout: float | None) -> None:
        """Wait for events, up to `timeout` seconds (None: for ever), and hand them out."""
        selectables = self._selectables
        events = self._poller.poll(-1 if timeout is None else timeout, max(len(selectables), 1))
        hand_out: Callable[[Any, int, int], None] = self._doReadOrWrite
        for descriptor, event in events:
            selectable = selectables.get(descriptor)  # gone, if one before it in this list has closed it
            if selectable is not None:
                try:
                    hand_out(selectable, descriptor, event)
                except Exception:  # of one connection; the others have theirs to do
                    _log.failure("unhandled error while {selectable} was served", selectable=selectable)

    doIteration = doPoll


def install() -> None:
    """Install it as the reactor of the process."""
    installReactor(PlainEPollReactor())  # type: ignore[no-untyped-call]  # its base's __init__ has no types


def install_unless_chosen() -> None:
    """Install it unless there is a reactor already."""
    if "twisted.internet.reactor" not in sys.modules:
        install()
