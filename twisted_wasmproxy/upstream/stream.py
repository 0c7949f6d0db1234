"""What is handed out to who wants to ask an origin: a stream to a known server, and the wait for one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted_wasmproxy.http.stream import ClientStream, StreamError
from twisted_wasmproxy.upstream.server import Server

__all__ = ["Acquisition", "OriginStream", "Ready"]


class OriginStream(ClientStream, Protocol):
    """A `ClientStream` to a known server."""

    server: Server
    authority: bytes
    """`host[:port]` of the server, for Host where the client's is not to be kept."""
    idle_timeout: float
    """Seconds that the origin may be silent, and not read what it is sent."""


Ready = Callable[["OriginStream | StreamError"], None]
"""Takes the stream that was asked for, or why there is none."""


class Acquisition(Protocol):
    """The wait for a stream."""

    def cancel(self) -> None:
        """Give up: `Ready` is not called any more. Harmless when it has been."""
