"""Makes `twistd wasmproxy` known to twistd."""

from twisted.application.service import ServiceMaker

wasmproxy = ServiceMaker(
    "wasmproxy",
    "twisted_wasmproxy.tap",
    "A forward and reverse HTTP proxy that runs Proxy-Wasm modules.",
    "wasmproxy",
)
