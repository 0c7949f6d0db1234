"""What this package needs of a reactor, as a type."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorPluggableNameResolver, IReactorTCP, IReactorTime

__all__ = ["Reactor"]


class Reactor(IReactorTCP, IReactorTime, IReactorPluggableNameResolver):
    """TCP connections, time, and names."""
