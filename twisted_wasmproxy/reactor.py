"""Twisted's epoll reactor, for a proxy that has many small things to read at once.

It differs from its base in how events are handed out, and in nothing else:

- Twisted calls every `doRead` and `doWrite` through `callWithLogger`, which copies a context and makes six calls, so
  that a line logged in the old style inside carries the name of the protocol. Nothing here logs in that style.
- What is ready on our own connections is read first, all of it, and handed out then. Together with `http.transport`,
  which writes at the end, a pass of the reactor is: reads, work, writes. System calls in the midst of the work would
  drive it out of the processor's caches, and the more there is to touch (a Wasm engine, say) the more that costs.

`twistd wasmproxy` takes this reactor unless it is told another (`--reactor`).
"""

from __future__ import annotations

import sys
from select import EPOLLIN
from typing import Any

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.main import installReactor

from twisted_wasmproxy.http.http1.wire import Wire
from twisted_wasmproxy.http.transport import is_plain_tcp, turn
from twisted_wasmproxy.logs import Logger

__all__ = ["ProxyReactor", "install", "install_unless_chosen"]

_log = Logger()


BATCH = 64
"""Connections that are read before what they brought is handed out: the bound on what is in memory in between."""


class ProxyReactor(EPollReactor):
    """See the module."""

    def doPoll(self, timeout: float | None) -> None:
        """Wait for events, up to `timeout` seconds (None: for ever), and hand them out."""
        most = max(len(self._selectables), 1)
        events = self._poller.poll(-1 if timeout is None else timeout, most)
        if len(events) <= BATCH:
            self._hand_out(events)
        else:
            for first in range(0, len(events), BATCH):
                self._hand_out(events[first : first + BATCH])

    doIteration = doPoll

    def _hand_out(self, events: list[tuple[int, int]]) -> None:
        selectables: dict[int, Any] = self._selectables
        received: list[tuple[Any, bytes]] = []
        others = []
        for descriptor, event in events:
            selectable = selectables.get(descriptor)
            if selectable is None:
                continue
            if event == EPOLLIN and is_plain_tcp(selectable) and isinstance(selectable.protocol, Wire):
                try:
                    data = selectable.socket.recv(selectable.bufferSize)
                except OSError:
                    data = b""
                if data:
                    received.append((selectable, data))
                    continue
                # Its end, or an error: Twisted's own way of reading meets it again and deals with it.
            others.append((descriptor, event))
        if received:
            turn.begin()
            for transport, data in received:
                # One before it in this list may have closed it; what it may have paused takes this much more.
                if transport.connected and not transport.disconnecting:
                    try:
                        transport.protocol.dataReceived(data)
                    except Exception as error:  # of one connection; the others have theirs to do
                        _log.failure("unhandled error in {protocol}", protocol=transport.protocol)
                        self._disconnectSelectable(transport, error, True)  # type: ignore[no-untyped-call]  # Twisted's
            turn.close()
        for descriptor, event in others:
            selectable = selectables.get(descriptor)
            if selectable is not None:
                self._doReadOrWrite(selectable, descriptor, event)  # type: ignore[no-untyped-call]  # Twisted's


def install() -> None:
    """Install it as the reactor of the process."""
    installReactor(ProxyReactor())  # type: ignore[no-untyped-call]  # its base's __init__ has no types


def install_unless_chosen() -> None:
    """Install it unless there is a reactor already."""
    if "twisted.internet.reactor" not in sys.modules:
        install()
