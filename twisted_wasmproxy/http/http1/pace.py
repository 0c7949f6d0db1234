"""The pace at which a peer sends content: how long it may be silent, and how fast it must be on average."""

from __future__ import annotations

from twisted_wasmproxy.http.deadlines import NEVER

__all__ = ["Pace"]


class Pace:
    """The progress of one message's content; time in which the connection is not read does not count."""

    __slots__ = ("_begun", "_paused_at", "received")

    def __init__(self, now: float) -> None:
        """`now` in seconds, as in all methods: when the content may begin to come."""
        self.received = 0
        """Bytes of content; chunk sizes, extensions and trailers are none."""
        self._begun = now
        """When the content began; later by all the time in which it was not read."""
        self._paused_at = NEVER

    def pause(self, now: float) -> None:
        """The connection is not read from now on."""
        self._paused_at = min(self._paused_at, now)

    def due(self, now: float, idle: float, rate: int) -> float:
        """Return when more must have come, while the connection is read: after `idle` seconds of silence, and `idle`
        seconds after the moment at which a sender of `rate` bytes a second would be as far; 0: no rate is asked for."""
        if self._paused_at < NEVER:
            self._begun += now - self._paused_at
            self._paused_at = NEVER
        if not rate:
            return now + idle
        return min(now, self._begun + self.received / rate) + idle
