"""WebAssembly engines behind one small interface."""

from twisted_wasmproxy.runtimes.registry import available, get_engine

__all__ = ["available", "get_engine"]
