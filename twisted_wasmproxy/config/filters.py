"""Entries of `filters`: a Traffic Server plugin file, a Wasm plugin in place, or a native filter."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from twisted_wasmproxy.config import trafficserver
from twisted_wasmproxy.config.model import NativeFilterConfig, WasmFilterConfig
from twisted_wasmproxy.config.reader import Key, OneOf, Place, Record, Then
from twisted_wasmproxy.config.values import boolean, existing_file, plain, scalar, text
from twisted_wasmproxy.config.wasm import LIMIT_KEYS, PLUGIN, STREAM_KEYS, phase, runtime

__all__ = ["FILTER"]


def _plugin_file(values: dict[str, Any], place: Place) -> WasmFilterConfig:
    path: Path = values.pop("file")
    plugin = trafficserver.read_file(path, place.report)
    vm = {key: values.pop(key) for key in ("runtime", *LIMIT_KEYS) if key in values}
    return dataclasses.replace(plugin, vm=dataclasses.replace(plugin.vm, **vm), **values)


FILE = Then(
    Record(
        {
            "file": Key(existing_file, required=True),
            "fail_open": Key(boolean),
            "runtime": Key(runtime),
            **STREAM_KEYS,
            **LIMIT_KEYS,
        }
    ),
    _plugin_file,
)

NATIVE = Then(
    Record(
        {
            "native": Key(text, required=True),
            "name": Key(scalar),
            "configuration": Key(plain),
            "fail_open": Key(boolean),
            "phase": Key(phase),
        }
    ),
    lambda values, place: NativeFilterConfig(**{"name": values["native"], **values}, location=place.location),
)


FILTER: OneOf[WasmFilterConfig | NativeFilterConfig] = OneOf(
    {"file": FILE, "native": NATIVE, "vm_config": PLUGIN}, PLUGIN
)
