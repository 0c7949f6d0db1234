"""twisted-wasmproxy: a forward and reverse HTTP proxy on Twisted that runs Proxy-Wasm modules."""

from importlib.metadata import version

__version__ = version("twisted-wasmproxy")
