"""Where stored responses are kept: each store provides `twisted_wasmproxy.interfaces.ICacheStore`."""
