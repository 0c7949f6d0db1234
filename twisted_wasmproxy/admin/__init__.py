"""The control API: what `wasmproxy purge` and `wasmproxy cache` speak to."""

from twisted_wasmproxy.admin.control import CacheControl
from twisted_wasmproxy.admin.server import AdminError, AdminServer

__all__ = ["AdminError", "AdminServer", "CacheControl"]
