"""Filters by configuration: Python ones through `twisted.plugin`, Wasm modules through the Proxy-Wasm host."""
