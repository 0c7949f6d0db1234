"""One reactor for a test process, running in a background thread; tests hand it work and wait for the outcome."""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from functools import cache
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

__all__ = ["call", "run", "started_reactor"]

T = TypeVar("T")


@cache
def started_reactor() -> Any:
    """Return the installed reactor, running in a daemon thread for the rest of the process."""
    from twisted.internet import reactor

    running = threading.Event()
    reactor.callWhenRunning(running.set)  # type: ignore[attr-defined]  # the module stands for the reactor
    threading.Thread(target=lambda: reactor.run(installSignalHandlers=False), name="reactor", daemon=True).start()  # type: ignore[attr-defined]  # as above
    running.wait()
    return reactor


def run(function: Callable[[], Coroutine[Any, Any, T] | Deferred[T] | T], timeout: float = 10.0) -> T:
    """Call `function` in the reactor thread, wait up to `timeout` seconds for what it returns, and return its result.

    Exceptions come through as they are; TimeoutError cancels the Deferred.
    """
    reactor = started_reactor()
    future: Future[T] = Future()
    pending: list[Deferred[T]] = []

    def failed(failure: Failure) -> None:
        if not future.cancelled():
            future.set_exception(failure.value)

    def succeeded(result: T) -> None:
        if not future.cancelled():
            future.set_result(result)

    def start() -> None:
        def invoke() -> Any:
            result = function()
            return Deferred.fromCoroutine(result) if isinstance(result, Coroutine) else result

        deferred: Deferred[T] = maybeDeferred(invoke)
        pending.append(deferred)
        deferred.addCallbacks(succeeded, failed)

    reactor.callFromThread(start)
    try:
        return future.result(timeout)
    except FutureTimeoutError:  # another class than TimeoutError before Python 3.11
        if future.cancel():
            reactor.callFromThread(lambda: [deferred.cancel() for deferred in pending])
            raise TimeoutError(f"no result within {timeout} s") from None
        raise


def call(function: Callable[..., T], *args: Any, timeout: float = 10.0) -> T:
    """Call a plain function in the reactor thread and return its result."""
    return run(lambda: function(*args), timeout)
