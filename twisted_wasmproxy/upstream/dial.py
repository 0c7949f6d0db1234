"""`Dial`: one attempt to get a connection to a host: name, TCP to the best of its addresses, TLS; one deadline."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.error import ConnectError
from twisted.internet.interfaces import (
    IAddress,
    IConnector,
    IDelayedCall,
    IHandshakeListener,
    IProtocol,
)
from twisted.internet.protocol import ClientFactory, Factory, Protocol, connectionDone
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_wasmproxy.http.stream import StreamError, StreamFault
from twisted_wasmproxy.logs import Logger
from twisted_wasmproxy.upstream.access import Access
from twisted_wasmproxy.upstream.reactor import Reactor
from twisted_wasmproxy.upstream.resolve import Resolver, is_address
from twisted_wasmproxy.upstream.tls import Handshake, OriginTLS, describe_tls_error

__all__ = ["Dial", "Transport", "attach", "interleave"]

Transport = Any
"""A connected Twisted transport: TCP, or TLS over it. Its interfaces have no types that tell what both can do."""

_log = Logger()

ATTEMPT_DELAY = 0.25
"""Seconds before the next address is tried beside the one that has not answered yet (RFC 8305 section 5)."""


class Dial:
    """Connects to one host and port.

    Every address is judged by `access` after the name is resolved, and those very addresses are connected to: a name
    that resolves to something else the next time gains nothing. Addresses of both families are tried in turn
    (Happy Eyeballs, RFC 8305 sections 4 and 5); the first connection wins. With `tls` the handshake, and in it the
    check of the certificate, is part of the attempt.
    """

    def __init__(
        self,
        reactor: Reactor,
        resolver: Resolver,
        host: str,
        port: int,
        timeout: float,
        done: Callable[[Transport | StreamError], None],
        *,
        tls: OriginTLS | None = None,
        access: Access | None = None,
    ) -> None:
        """Start. Calls `done` once, never from in here: with a connected transport, which must be given its protocol by
        `attach` in the same stack, or with an error: CONNECT, DENIED, or TIMEOUT after `timeout` seconds."""
        self._reactor = reactor
        self._host = host
        self._port = port
        self._timeout = timeout
        self._done: Callable[[Transport | StreamError], None] | None = done
        self._tls = tls
        self._handshake: Handshake | None = None
        self._access = access
        self._addresses: deque[str] = deque()
        self._attempts: list[_Attempt] = []
        self._winner: Transport | None = None
        self._stagger: IDelayedCall | None = None
        self._refusal: IDelayedCall | None = None
        self._deadline = reactor.callLater(timeout, self._timed_out)
        if is_address(host):
            self._resolved([host])
        else:
            resolver.lookup(host, self._resolved)

    def cancel(self) -> None:
        """Give up; `done` is not called any more. Harmless after the end."""
        self._end()

    # Addresses

    def _resolved(self, addresses: Sequence[str]) -> None:
        if self._done is None:
            return
        if not addresses:
            self._refuse(StreamFault.CONNECT, f"{self._host}: host name not found")
            return
        access = self._access
        allowed = addresses if access is None else [a for a in addresses if access.destination_allowed(a, self._port)]
        if not allowed:
            self._refuse(StreamFault.DENIED, f"{self._host}:{self._port}: access to {', '.join(addresses)} is denied")
            return
        self._addresses.extend(interleave(allowed))
        self._try_next()

    def _refuse(self, fault: StreamFault, text: str) -> None:
        # Later, because `done` must not be called while the caller still holds no Dial.
        self._refusal = self._reactor.callLater(0, self._fail, fault, text)

    def _try_next(self) -> None:
        self._stagger = None
        attempt = _Attempt(self, self._addresses.popleft())
        self._attempts.append(attempt)
        if self._addresses:
            self._stagger = self._reactor.callLater(ATTEMPT_DELAY, self._try_next)
        try:
            attempt.connector = self._reactor.connectTCP(attempt.address, self._port, attempt, self._timeout)
        except OSError as error:  # an IPv6 scope that there is not
            self._reactor.callLater(0, self.attempt_failed, attempt, error.strerror)

    def attempt_failed(self, attempt: _Attempt, text: str) -> None:
        """One address does not answer."""
        if self._done is None or self._winner is not None:
            return
        self._attempts.remove(attempt)
        if self._addresses:
            if self._stagger is not None:
                self._stagger.cancel()
            self._try_next()
        elif not self._attempts:
            self._fail(StreamFault.CONNECT, f"{self._host}:{self._port}: {text}")

    def attempt_connected(self, attempt: _Attempt, transport: Transport) -> None:
        """One address has answered: the others need not."""
        if self._done is None or self._winner is not None:
            transport.abortConnection()
            return
        self._winner = transport
        self._attempts.remove(attempt)
        self._stop_attempts()
        transport.setTcpNoDelay(True)
        if self._tls is None:
            self._succeed(transport)
            return
        try:
            self._handshake = self._tls.handshake_with(self._host)
        except ValueError as error:
            self._fail(StreamFault.CONNECT, f"{self._host}: cannot be verified by TLS: {error}")
            return
        factory = TLSMemoryBIOFactory(self._handshake, True, _HandshakeFactory(self), self._reactor)
        attach(transport, factory.buildProtocol(transport.getPeer()))

    # TLS

    def handshake_completed(self, transport: Transport) -> None:
        """The host is who it should be."""
        self._succeed(transport)

    def handshake_failed(self, reason: Failure) -> None:
        """The connection was lost in the handshake."""
        problem = self._handshake.problem if self._handshake is not None else None
        text = problem or describe_tls_error(reason.value) or "connection closed in the TLS handshake"
        self._fail(StreamFault.CONNECT, f"{self._host}:{self._port}: TLS: {text}")

    # The end

    def _timed_out(self) -> None:
        self._fail(StreamFault.TIMEOUT, f"{self._host}:{self._port}: no connection within {self._timeout:g} s")

    def _succeed(self, transport: Transport) -> None:
        self._winner = None
        done = self._end()
        if done is not None:
            done(transport)

    def _fail(self, fault: StreamFault, text: str) -> None:
        done = self._end()
        if done is not None:
            done(StreamError(fault, text))

    def _end(self) -> Callable[[Transport | StreamError], None] | None:
        done, self._done = self._done, None
        try:
            self._stop_attempts()
            for call in (self._deadline, self._refusal):
                if call is not None and call.active():
                    call.cancel()
            winner, self._winner = self._winner, None
            if winner is not None:
                winner.abortConnection()
        except Exception:  # the pool is told all the same
            _log.failure("a connection attempt did not end in order")
        return done

    def _stop_attempts(self) -> None:
        if self._stagger is not None:
            self._stagger.cancel()
            self._stagger = None
        self._addresses.clear()
        attempts, self._attempts = self._attempts, []
        for attempt in attempts:
            if attempt.connector is not None:
                attempt.connector.disconnect()


def attach(transport: Transport, protocol: IProtocol) -> None:
    """Give a connected transport its protocol.

    Twisted has no public call for that, but both kinds of transport look the attribute up for each event. It is done
    this way, and not with a wrapper, because a wrapper would stand between every read and its protocol for good; and
    because ALPN tells only after the handshake which protocol it is.
    """
    if isinstance(transport, TLSMemoryBIOProtocol):
        transport.wrappedProtocol = protocol
    else:
        transport.protocol = protocol
    protocol.makeConnection(transport)


def interleave(addresses: Sequence[str]) -> list[str]:
    """Alternate between the address families, beginning with the resolver's choice (RFC 8305 section 4)."""
    first_is_v6 = ":" in addresses[0]
    first = [address for address in addresses if (":" in address) == first_is_v6]
    second = [address for address in addresses if (":" in address) != first_is_v6]
    mixed = [address for pair in zip(first, second, strict=False) for address in pair]
    return mixed + first[len(second) :] + second[len(first) :]


class _Attempt(ClientFactory):
    """A TCP connection to one address."""

    noisy = False

    def __init__(self, dial: Dial, address: str) -> None:
        self.dial = dial
        self.address = address
        self.connector: IConnector | None = None

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        return _Arrival(self)

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        error = reason.value
        number = error.osError if isinstance(error, ConnectError) else None
        self.dial.attempt_failed(self, os.strerror(number) if isinstance(number, int) else str(error))


class _Arrival(Protocol):
    """Stands in until the connection is made."""

    def __init__(self, attempt: _Attempt) -> None:
        self._attempt = attempt

    def connectionMade(self) -> None:
        self._attempt.dial.attempt_connected(self._attempt, self.transport)


class _HandshakeFactory(Factory):
    noisy = False

    def __init__(self, dial: Dial) -> None:
        self._dial = dial

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        return _Handshake(self._dial)


@implementer(IHandshakeListener)
class _Handshake(Protocol):
    """Stands in until the handshake is over."""

    def __init__(self, dial: Dial) -> None:
        self._dial = dial

    def handshakeCompleted(self) -> None:
        self._dial.handshake_completed(self.transport)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._dial.handshake_failed(reason)
