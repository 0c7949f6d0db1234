"""`Server`: one server of a cluster, with its health and its load."""

from __future__ import annotations

from collections.abc import Callable

from twisted_wasmproxy.config.model import HealthConfig, ServerConfig
from twisted_wasmproxy.upstream.health import Health

__all__ = ["Server", "authority_of"]


class Server:
    """A host and port. A failed connection is marked by the pool, all else by who uses the stream."""

    __slots__ = ("_clock", "active", "authority", "health", "host", "name", "port", "tls", "weight")

    def __init__(self, config: ServerConfig, health: HealthConfig, clock: Callable[[], float]) -> None:
        self.host = config.host
        self.port = config.port
        self.tls = config.tls
        self.weight = config.weight
        self.name = str(config)
        """`scheme://host:port`, for messages."""
        self.authority = authority_of(config.host, config.port, 443 if config.tls else 80)
        """`host[:port]`, for Host; the port is left out where it is the scheme's own."""
        self.active = 0
        """Requests in flight."""
        self.health = Health(health)
        self._clock = clock

    def failed(self) -> None:
        """Mark that the server broke off before the head of a response, or was silent for too long."""
        self.health.failed(self._clock())

    def succeeded(self) -> None:
        """Mark that the server has sent the head of a response."""
        self.health.succeeded()

    def available(self, now: float) -> bool:
        """Return whether the server is not resting."""
        return self.health.available(now)

    def __repr__(self) -> str:
        return f"<Server {self.name} active={self.active} failures={self.health.failures}>"


def authority_of(host: str, port: int, default_port: int) -> bytes:
    """Return `host[:port]` as on the wire: IPv6 in brackets, a name beyond ASCII in its IDNA form."""
    if ":" in host:
        name = b"[%s]" % host.partition("%")[0].encode()
    elif host.isascii():
        name = host.encode()
    else:
        name = host.encode("idna")
    return name if port == default_port else b"%s:%d" % (name, port)
