"""The Proxy-Wasm host: modules of ABI 0.1.0, 0.2.0, 0.2.1 (and Higress's 0.2.100) as filters of HTTP streams."""

from twisted_wasmproxy.proxywasm.errors import PluginError
from twisted_wasmproxy.proxywasm.host import PluginSet, Prepared, WasmHost

__all__ = ["PluginError", "PluginSet", "Prepared", "WasmHost"]
