"""The control API: what `wasmproxy purge`, `wasmproxy cache` and `wasmproxy vms` speak to."""

from twisted_wasmproxy.admin.control import CacheControl, WasmControl
from twisted_wasmproxy.admin.server import AdminError, AdminServer

__all__ = ["AdminError", "AdminServer", "CacheControl", "WasmControl"]
