"""`AdminServer`: the control API on its endpoint."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort
from twisted.protocols.policies import WrappingFactory
from twisted.python.failure import Failure
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import Site

from twisted_wasmproxy.admin.api import Api, ApiRequest
from twisted_wasmproxy.admin.cache import CacheCalls
from twisted_wasmproxy.admin.control import CacheControl, WasmControl
from twisted_wasmproxy.admin.wasm import WasmCalls
from twisted_wasmproxy.config.model import AdminConfig
from twisted_wasmproxy.logs import Logger

__all__ = ["AdminError", "AdminServer"]

IDLE = 30.0
"""Seconds that a connection may be silent."""

_log = Logger()


class AdminError(Exception):
    """An address that cannot be listened on; the text says which and why."""


class _Site(Site):
    displayTracebacks = False
    noisy = False

    def __init__(self, resource: Resource, reactor: Any) -> None:
        Site.__init__(self, resource, requestFactory=ApiRequest, timeout=IDLE, reactor=reactor)

    def log(self, request: Request) -> None:
        _log.debug("{method} {uri}: {status}", method=request.method, uri=request.uri, status=request.code)


class AdminServer:
    """Listens for control calls. It outlives reloads that keep its endpoint."""

    def __init__(self, config: AdminConfig, reactor: Any) -> None:
        self.config = config
        self.port: IListeningPort | None = None
        self._reactor = reactor
        self._cache = CacheCalls()
        self._wasm = WasmCalls()
        self._api = Api({**self._cache.calls(), **self._wasm.calls()}, config.token)
        self._factory = WrappingFactory(_Site(self._api, reactor))
        self._factory.noisy = False

    def use(
        self, control: CacheControl | None, wasm: WasmControl | None = None, config: AdminConfig | None = None
    ) -> None:
        """Act on this cache from now on, and tell of these modules, None if there is none; by a configuration with the
        same endpoint, if one is given."""
        self._cache.control = control
        self._wasm.control = wasm
        if config is not None:
            self.config = config
            self._api.require(config.token)

    def open(self) -> Deferred[None]:
        """Listen; fails with AdminError (address in use, no permission, ...)."""

        def listening(port: IListeningPort) -> None:
            self.port = port
            _log.info("listening on {address} (admin)", address=port.getHost())

        def failed(failure: Failure) -> None:
            text = f"cannot listen on {self.config.endpoint}: {failure.getErrorMessage()}"
            raise AdminError(text) from failure.value

        opened = maybeDeferred(serverFromString(self._reactor, self.config.endpoint).listen, self._factory)
        return opened.addCallbacks(listening, failed)

    def close(self) -> Deferred[None]:
        """Stop listening, and close every connection."""
        port, self.port = self.port, None
        for connection in list(self._factory.protocols):
            connection.loseConnection()
        closed = port.stopListening() if port is not None else None
        return closed if closed is not None else succeed(None)
