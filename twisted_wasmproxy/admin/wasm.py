"""The call about Wasm modules: how their VMs fare."""

from __future__ import annotations

from collections.abc import Mapping

from twisted_wasmproxy.admin.api import ApiError, Call, Members
from twisted_wasmproxy.admin.control import WasmControl

__all__ = ["WasmCalls"]


class WasmCalls:
    """Serves `/wasm/...` by the modules in use."""

    def __init__(self) -> None:
        self.control: WasmControl | None = None
        """None: the proxy is not running yet."""

    def calls(self) -> Mapping[str, Mapping[str, Call]]:
        """Return the calls by path and method, for an `Api`."""
        return {"/wasm/vms": {"GET": self.vms}}

    def vms(self, members: Members) -> Mapping[str, object]:
        """Return `{"vms": [...]}`, one for each VM that filters share."""
        if members:
            raise ApiError(400, f"unknown: {next(iter(members))!r}; known: nothing")
        return {"vms": [] if self.control is None else list(self.control.figures())}
