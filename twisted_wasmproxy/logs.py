"""The application log: `twisted.logger` with a level for each namespace, decided where a line is made."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable

from twisted.logger import ILogObserver, LogLevel, jsonFileLogObserver
from twisted.logger import Logger as TwistedLogger
from twisted.python.failure import Failure

from twisted_wasmproxy.printable import printable_lines

__all__ = ["Logger", "adopt_standard_logging", "json_lines", "level_of", "set_levels"]


FAILURE_INTERVAL = 10.0
"""Seconds in which one and the same failure is logged once, with its traceback; a client may cause it without end."""

_FAILURES_LIMIT = 1000

_levels: dict[str, LogLevel] = {}
_found: dict[str, LogLevel] = {}


def set_levels(levels: Iterable[tuple[str, str]]) -> None:
    """Set the lowest level that is logged, by namespace and all below it; `""` is the default (else `info`)."""
    _levels.clear()
    _found.clear()
    for namespace, name in levels:
        _levels[namespace] = LogLevel.levelWithName(name)


def level_of(namespace: str) -> LogLevel:
    """Return the lowest level that is logged for a namespace."""
    level = _found.get(namespace)
    if level is None:
        name = namespace
        while name not in _levels and name:
            name = name.rpartition(".")[0]
        level = _found[namespace] = _levels.get(name, LogLevel.info)
    return level


class Logger(TwistedLogger):
    """A logger that drops lines below its namespace's level before any observer sees them.

    Texts and exceptions in an event are made printable: much of what is logged was said by modules, clients or origins.
    """

    def emit(self, level: LogLevel, format: str | None = None, **kwargs: object) -> None:
        if level >= level_of(self.namespace):
            super().emit(level, format, **{name: _shown(value) for name, value in kwargs.items()})

    def failure(
        self, format: str, failure: Failure | None = None, level: LogLevel = LogLevel.critical, **kwargs: object
    ) -> None:
        """Log an exception, the present one by default, with its traceback: one of a kind and place once in
        FAILURE_INTERVAL seconds, and then with the number of those that were left out."""
        if failure is None:
            failure = Failure()
        place = failure.frames[-1][1:3] if failure.frames else ()
        left_out = _failures.note((self.namespace, format, failure.type, place))
        if left_out is None:
            return
        if left_out:
            format += f" ({left_out} more like it since the last one logged)"
        super().failure(format, failure, level, **kwargs)


def _shown(value: object) -> object:
    if isinstance(value, str):
        return printable_lines(value)
    if isinstance(value, BaseException):
        text = str(value)
        shown = printable_lines(text)
        return value if shown is text or shown == text else shown
    return value


class _Failures:
    """When each kind of failure was logged last, and how many have come since."""

    def __init__(self) -> None:
        self._seen: dict[object, tuple[float, int]] = {}

    def note(self, kind: object) -> int | None:
        """Return how many were left out if this one is to be logged, else None."""
        now = time.monotonic()
        logged, left_out = self._seen.get(kind, (-FAILURE_INTERVAL, 0))
        if now - logged < FAILURE_INTERVAL:
            self._seen[kind] = logged, left_out + 1
            return None
        if kind not in self._seen and len(self._seen) >= _FAILURES_LIMIT:
            self._seen.clear()
        self._seen[kind] = now, 0
        return left_out


_failures = _Failures()


def json_lines() -> ILogObserver:
    """Return an observer that writes events as JSON lines to standard output: `twistd --logger=...logs.json_lines`."""
    return jsonFileLogObserver(sys.stdout, recordSeparator="")


class _Adopted(logging.Handler):
    """Hands records of the standard library's logging on."""

    def emit(self, record: logging.LogRecord) -> None:
        level = LogLevel.levelWithName("warn" if record.levelname == "WARNING" else record.levelname.lower())
        Logger(namespace=record.name).emit(level, "{text}", text=record.getMessage())


def adopt_standard_logging() -> None:
    """Bring lines of those of our modules that know no Twisted (the engines) into the same log."""
    logger = logging.getLogger("twisted_wasmproxy")
    if not any(isinstance(handler, _Adopted) for handler in logger.handlers):
        logger.addHandler(_Adopted())
        logger.propagate = False
