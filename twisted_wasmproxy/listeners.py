"""`Listener`: a listening endpoint whose connections go to the proxy of the present configuration."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort
from twisted.python.failure import Failure

from twisted_wasmproxy.config.model import ListenerConfig
from twisted_wasmproxy.http.http1.server import ServerFactory
from twisted_wasmproxy.http.stream import ConnectionInfo
from twisted_wasmproxy.logs import Logger
from twisted_wasmproxy.transaction.proxy import Proxy

__all__ = ["ListenError", "Listener"]

_log = Logger()


class ListenError(Exception):
    """An address that cannot be listened on; the text says which and why."""


class Listener:
    """One listener of the configuration. It outlives reloads that keep its endpoint: connections stay open, and the
    next transaction on each goes to the new proxy."""

    def __init__(self, config: ListenerConfig, reactor: Any) -> None:
        self.config = config
        self.port: IListeningPort | None = None
        self._reactor = reactor
        self._proxy: Proxy | None = None
        self._factory = ServerFactory(self._refuse_all, config.limits, config.timeouts, self._refused)

    def use(self, proxy: Proxy, config: ListenerConfig) -> None:
        """Serve new transactions by `proxy` from now on."""
        self.config = config
        self._proxy = proxy
        factory = self._factory
        factory.limits, factory.timeouts = config.limits, config.timeouts
        factory.handler = proxy.handler(config)

    def open(self) -> Deferred[None]:
        """Listen; fails with ListenError (address in use, no permission, ...)."""

        def listening(port: IListeningPort) -> None:
            self.port = port
            _log.info("listening on {address} ({mode})", address=port.getHost(), mode=self.config.mode)

        def failed(failure: Failure) -> None:
            text = f"cannot listen on {self.config.endpoint}: {failure.getErrorMessage()}"
            raise ListenError(text) from failure.value

        opened = maybeDeferred(serverFromString(self._reactor, self.config.endpoint).listen, self._factory)
        return opened.addCallbacks(listening, failed)

    def close(self) -> Deferred[None]:
        """Accept no more connections, and let go of those that are idle; others end with their transaction."""
        port, self.port = self.port, None
        self._factory.drain()
        closed = port.stopListening() if port is not None else None
        return closed if closed is not None else succeed(None)

    def abort(self) -> None:
        """Close every connection now."""
        for connection in list(self._factory.connections):
            connection.abort()

    def _refuse_all(self, stream: Any, end_stream: bool) -> Any:
        raise RuntimeError("a request came before the proxy was ready")

    def _refused(self, connection: ConnectionInfo, status: int, text: str) -> None:
        if self._proxy is not None:
            self._proxy.refused(connection, status, text)
