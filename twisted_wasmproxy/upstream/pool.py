"""`Pool`: the connections to one server: which are lent, which are idle, who waits for one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted_wasmproxy.http.deadlines import NEVER, Deadlines
from twisted_wasmproxy.http.stream import ResponseReceiver, StreamError
from twisted_wasmproxy.upstream.dial import Dial, Transport
from twisted_wasmproxy.upstream.server import Server
from twisted_wasmproxy.upstream.stream import OriginStream

__all__ = ["Connection", "Pool", "Waiter"]


class Connection(Protocol):
    """A connection to an origin that carries one exchange after the other."""

    def usable(self) -> bool:
        """Return whether another exchange can begin; False when the origin has closed meanwhile."""

    def open_stream(self, receiver: ResponseReceiver) -> OriginStream: ...

    def close(self) -> None: ...


class Waiter(Protocol):
    """Who waits for a connection."""

    def take(self, pool: Pool, connection: Connection) -> None:
        """Here is one. Called at most once, and only while the waiter is in the pool's queue."""

    def not_connected(self, pool: Pool, error: StreamError) -> None:
        """A connection was tried for you, and failed; you are out of this pool's queue."""


class Pool:
    """Lends each connection to one exchange at a time; idle ones are lent again, the last one in first.

    Who finds no idle connection waits. A wait is not tied to the connection that was begun because of it: whichever
    is free first goes to whoever has waited longest.
    """

    def __init__(
        self,
        server: Server,
        dial: Callable[[Callable[[Transport | StreamError], None]], Dial],
        connected: Callable[[Transport, Pool], Connection],
        deadlines: Deadlines,
        max_connections: int,
        max_idle: int,
        idle_timeout: float,
    ) -> None:
        self.server = server
        self.deadline = NEVER
        self._idle_timeout = idle_timeout
        self._dial = dial
        self._connected = connected
        self._deadlines = deadlines
        self._max_connections = max_connections
        self._max_idle = max_idle
        self._closing = False
        self._watched = False
        self._idle: list[tuple[float, Connection]] = []
        self._lent: set[Connection] = set()
        self._dials: list[Dial] = []
        self._waiting: dict[Waiter, None] = {}

    @property
    def open(self) -> int:
        """Connections, those being made included."""
        return len(self._idle) + len(self._lent) + len(self._dials)

    @property
    def full(self) -> bool:
        """Whether whoever asks now must wait for somebody else's connection."""
        return not self._idle and self.open >= self._max_connections

    @property
    def quiet(self) -> bool:
        """Whether there is neither a connection nor anybody who waits for one."""
        return not (self._idle or self._lent or self._dials or self._waiting)

    # Lending

    def take_idle(self) -> Connection | None:
        """Return an idle connection, now lent, or None. The hot path."""
        idle = self._idle
        while idle:
            _, connection = idle.pop()
            if connection.usable():
                self._lent.add(connection)
                self.server.active += 1
                return connection
            # Its end has not been reported yet.
            connection.close()
        return None

    def open_stream(self, connection: Connection, receiver: ResponseReceiver) -> OriginStream:
        """Begin an exchange on a connection that was lent."""
        try:
            stream = connection.open_stream(receiver)
        except BaseException:
            connection.close()
            raise
        stream.server = self.server
        stream.authority = self.server.authority
        return stream

    def wait(self, waiter: Waiter) -> None:
        """Queue up."""
        self._waiting[waiter] = None
        self._dial_as_needed()

    def leave(self, waiter: Waiter, cancelled: bool) -> None:
        """Leave the queue, if in it; `cancelled`: nobody needs the connection that may be under way for the waiter."""
        if waiter in self._waiting:
            del self._waiting[waiter]
            if cancelled and len(self._dials) > len(self._waiting):
                self._dials.pop().cancel()

    def is_connecting_for(self, waiter: Waiter) -> bool:
        """Return whether a connection is being made for the waiter: else it waits for one of those lent."""
        for place, other in enumerate(self._waiting):
            if other is waiter:
                return place < len(self._dials)
        return False

    # What connections and dials report

    def released(self, connection: Connection) -> None:
        """A lent connection has done its exchange and is fit for another."""
        if connection in self._lent:
            self._lent.remove(connection)
            self.server.active -= 1
            self._place(connection)

    def closed(self, connection: Connection) -> None:
        """A connection has ended, lent or idle."""
        if connection in self._lent:
            self._lent.remove(connection)
            self.server.active -= 1
        else:
            for place, (_, idle) in enumerate(self._idle):
                if idle is connection:
                    del self._idle[place]
                    break
        self._dial_as_needed()

    def _dialled(self, dial: Dial, result: Transport | StreamError) -> None:
        self._dials.remove(dial)
        if not isinstance(result, StreamError):
            self._place(self._connected(result, self))
            return
        self.server.failed()
        if self._waiting:
            waiter = next(iter(self._waiting))
            del self._waiting[waiter]
            waiter.not_connected(self, result)
        self._dial_as_needed()

    # Decisions

    def _place(self, connection: Connection) -> None:
        """A connection is free: whoever waits longest gets it; else it is kept, if there is room."""
        if self._waiting:
            waiter = next(iter(self._waiting))
            del self._waiting[waiter]
            self._lent.add(connection)
            self.server.active += 1
            waiter.take(self, connection)
        elif self._closing or len(self._idle) >= self._max_idle:
            connection.close()
        else:
            if not self._idle:
                self._watch()
            self._idle.append((self._deadlines.now, connection))

    def _dial_as_needed(self) -> None:
        """Have a connection under way for each who waits, as far as the limit lets."""
        while len(self._dials) < len(self._waiting) and self.open < self._max_connections:
            self._start_dial()

    def _start_dial(self) -> None:
        dial = self._dial(lambda result: self._dialled(dial, result))
        self._dials.append(dial)

    # The end

    def deadline_passed(self) -> None:
        """Close what has been idle for too long."""
        oldest = self._deadlines.now - self._idle_timeout
        # The last one in is the first one out: those that are idle for the longest time are in front.
        while self._idle and self._idle[0][0] < oldest:
            self._idle.pop(0)[1].close()
        if self._idle:
            self.deadline = self._idle[0][0] + self._idle_timeout
        else:
            self._watched = False
            self._deadlines.remove(self)

    def _watch(self) -> None:
        """Have idle connections closed in time. Not undone each time the last one is lent: that is the hot path."""
        if not self._watched:
            self._watched = True
            self.deadline = self._deadlines.now + self._idle_timeout
            self._deadlines.add(self)

    def close(self) -> None:
        """Close what is idle; what is lent, or still waited for, is closed when it is free."""
        self._closing = True
        self._watched = False
        self._deadlines.remove(self)
        idle, self._idle = self._idle, []
        for _, connection in idle:
            connection.close()
        for dial in self._dials[len(self._waiting) :]:
            self._dials.remove(dial)
            dial.cancel()
