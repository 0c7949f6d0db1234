"""`AccessLog`: one line for each transaction, in one format, to one file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet import threads

from twisted_wasmproxy.accesslog.format import compile_format
from twisted_wasmproxy.accesslog.writer import LineWriter

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from twisted_wasmproxy.accesslog.record import TransactionRecord
    from twisted_wasmproxy.config.model import AccessLogConfig

__all__ = ["AccessLog"]


class AccessLog:
    """Use: `start`, then `log` for each transaction, `reopen` after the file was renamed, and `stop`."""

    def __init__(self, config: AccessLogConfig) -> None:
        """Raises FormatError."""
        self.config = config
        self._format = compile_format(config.format)
        self._writer = LineWriter(config.path)

    def start(self) -> None:
        """Open the file and start writing, after forks and the change of user. Raises OSError."""
        self._writer.start()

    def log(self, record: TransactionRecord) -> None:
        """Queue the line of a transaction that has ended."""
        self._writer.write(f"{self._format(record)}\n".encode())

    def reopen(self) -> None:
        """Go on in a new file of the same path."""
        self._writer.reopen()

    def stop(self) -> Deferred[None]:
        """Write what is queued and close; fires when that is done, or given up."""
        return threads.deferToThread(self._writer.stop)
