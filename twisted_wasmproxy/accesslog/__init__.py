"""The access log: formats, and a writer that never blocks the reactor."""

from twisted_wasmproxy.accesslog.log import AccessLog
from twisted_wasmproxy.accesslog.record import TransactionRecord

__all__ = ["AccessLog", "TransactionRecord"]
