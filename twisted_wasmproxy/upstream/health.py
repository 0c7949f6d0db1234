"""Passive health of one server: when it rests after failures, and for how long."""

from __future__ import annotations

from twisted_wasmproxy.config.model import HealthConfig

__all__ = ["Health"]


class Health:
    """Counts failures in a row. At `max_failures` the server rests, each time twice as long, up to `max_rest`.

    When the rest is over the server is on trial: one request is let through and the rest is prolonged by another
    `rest` behind it, so that a server that is still broken costs one request each time, not all that come meanwhile.
    The first success ends trial and count. All times are absolute seconds of the caller's clock.
    """

    __slots__ = ("_config", "_rest_ends", "_rests", "failures", "resting_until")

    def __init__(self, config: HealthConfig) -> None:
        self._config = config
        self._rests = 0
        self._rest_ends = 0.0
        self.failures = 0
        """Failures since the last success."""
        self.resting_until = 0.0
        """The server is to be left alone before this time."""

    def available(self, now: float) -> bool:
        """Return whether the server may be asked."""
        return now >= self.resting_until

    @property
    def on_trial(self) -> bool:
        """Whether the server has rested and not succeeded since."""
        return self._rests > 0

    def failed(self, now: float) -> None:
        """Count a failure; it starts a rest if it is one too many."""
        self.failures += 1
        limit = self._config.max_failures
        # What fails within a rest was mostly sent before it began: that is no news, and must not double it.
        if not limit or self.failures < limit or now < self._rest_ends:
            return
        rest = min(self._config.rest * 2 ** min(self._rests, 32), self._config.max_rest)
        self._rests += 1
        self._rest_ends = self.resting_until = now + rest

    def tried(self, now: float) -> None:
        """Note that a request goes to a server that rests or is on trial."""
        self.resting_until = max(self.resting_until, now + self._config.rest)

    def succeeded(self) -> None:
        """Forget every failure."""
        if self.failures or self._rests:
            self.failures = self._rests = 0
            self._rest_ends = self.resting_until = 0.0
