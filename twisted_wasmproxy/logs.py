"""The application log: `twisted.logger` with a level for each namespace, decided where a line is made."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable

from twisted.logger import ILogObserver, LogLevel, jsonFileLogObserver
from twisted.logger import Logger as TwistedLogger

from twisted_wasmproxy.printable import printable_lines

__all__ = ["Logger", "adopt_standard_logging", "json_lines", "level_of", "set_levels"]


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


def _shown(value: object) -> object:
    if isinstance(value, str):
        return printable_lines(value)
    if isinstance(value, BaseException):
        text = str(value)
        shown = printable_lines(text)
        return value if shown is text or shown == text else shown
    return value


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
