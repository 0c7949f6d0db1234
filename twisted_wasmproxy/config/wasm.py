"""The keys of a Wasm plugin, in our own form and in Traffic Server's."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping
from typing import Any

from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from twisted_wasmproxy.config import document
from twisted_wasmproxy.config.model import RestartConfig, VMConfig, WasmFilterConfig
from twisted_wasmproxy.config.reader import Either, Key, ListOf, MapOf, Parser, Place, Record, Then
from twisted_wasmproxy.config.values import (
    as_json,
    boolean,
    choice,
    duration,
    existing_file,
    integer,
    plain,
    scalar,
    size,
    text,
)
from twisted_wasmproxy.interfaces import Phase

__all__ = ["LIMIT_KEYS", "PLUGIN", "RUNTIMES", "STREAM_KEYS", "TRAFFIC_SERVER_PLUGIN", "phase", "runtime"]

RUNTIMES = (
    "auto",
    *("wasmtime", "wasmer", "wamr", "wasmedge", "v8"),
    *(f"ats.wasm.runtime.{name}" for name in ("wamr", "wasmtime", "wasmedge", "v8")),
    *(f"envoy.wasm.runtime.{name}" for name in ("v8", "wamr", "wasmtime", "wasmedge", "wavm", "null")),
)
"""Names of runtimes that may stand in a configuration; which of them are installed is asked when a module is loaded."""

_PAGE = 64 * 1024


def runtime(place: Place) -> str:
    return (scalar(place) and str(choice(*RUNTIMES)(place))) or "auto"


def phase(place: Place) -> Phase:
    return Phase[choice("client", "origin")(place).upper()]


def configuration(place: Place) -> bytes:
    """Text as it is; a mapping or list as JSON; what a `google.protobuf.Any` of Envoy's configuration holds."""
    if isinstance(place.node, ScalarNode):
        return scalar(place).encode()
    if isinstance(place.node, MappingNode):
        entries = {name.value: (name, value) for name, value in document.pairs(place.node)}
        if "@type" in entries:
            return _any(place, entries)
    return _json(place)


def _json(place: Place) -> bytes:
    try:
        return as_json(plain(place))
    except (ValueError, OverflowError) as error:
        place.reject(f"cannot be passed on as JSON: {error}")


def _any(place: Place, entries: Mapping[str, tuple[Node, Node]]) -> bytes:
    if "value" not in entries or len(entries) != 2:
        place.reject("a google.protobuf.Any must have '@type' and 'value'")
    kind = str(entries["@type"][1].value).rpartition("/")[2]
    read = _ANY_VALUES.get(kind)
    if read is None:
        place.reject(f"unknown '@type'; known: {', '.join(_ANY_VALUES)}")
    return read(place.entry(*entries["value"]))


def _bytes(place: Place) -> bytes:
    try:
        return base64.b64decode(scalar(place), validate=True)
    except ValueError as error:
        place.reject(f"is not base64: {error}")


_ANY_VALUES: dict[str, Parser[bytes]] = {
    "google.protobuf.StringValue": lambda place: scalar(place).encode(),
    "google.protobuf.BytesValue": _bytes,
    "google.protobuf.Struct": _json,
}


def _traffic_server_boolean(place: Place) -> bool:
    value = boolean(place)
    if not value and place.node.value != "false":
        place.warn(f"is false here; Traffic Server takes {place.node.value!r} for true, and only 'false' for false")
    return value


def _capability(place: Place) -> str:
    value = text(place)
    if not re.fullmatch(r"\w+", value, re.ASCII):
        place.expected("the name of an import or callback such as proxy_log")
    return value


def _named_capabilities(pairs: tuple[tuple[str, object], ...], _: Place) -> tuple[str, ...]:
    return tuple(name for name, _ in pairs)


def _sanitization(place: Place) -> None:
    """Envoy's SanitizationConfig: an empty message so far."""
    if isinstance(place.node, ScalarNode) and place.node.tag.endswith(":null"):
        return
    Record({})(place)


_CAPABILITIES = Then(
    Record(
        {
            "allowed_capabilities": Key(
                Either(SequenceNode, ListOf(_capability), Then(MapOf(_sanitization), _named_capabilities))
            )
        }
    ),
    lambda values, _: frozenset(values.get("allowed_capabilities", ())) or None,
)


def _variable(place: Place) -> str:
    value = text(place)
    if not value or "=" in value or "\0" in value:
        place.expected("the name of an environment variable")
    return value


def _variables(pairs: tuple[tuple[str, str], ...], place: Place) -> tuple[tuple[str, str], ...]:
    for name, value in pairs:
        if not name or "=" in name or "\0" in name + value:
            place.reject(f"not an environment variable: {name!r}")
    return pairs


def _environment(values: dict[str, Any], _: Place) -> tuple[tuple[str, str], ...]:
    """Return host_env_keys that are set here, overridden by key_values."""
    variables = {name: os.environ[name] for name in values.get("host_env_keys", ()) if name in os.environ}
    variables.update(values.get("key_values", ()))
    return tuple(variables.items())


_CODE = Record(
    {
        "local": Key(
            Record(
                {"filename": Key(existing_file, required=True)},
                refused={
                    "inline_string": "only local.filename is supported",
                    "inline_bytes": "only local.filename is supported",
                    "environment_variable": "only local.filename is supported",
                },
            ),
            required=True,
        )
    },
    refused={"remote": "only local.filename is supported"},
)

_RESTART = Then(
    Record({"traps": Key(integer(0, 1_000_000)), "within": Key(duration(1.0)), "spare": Key(boolean)}),
    lambda values, _: RestartConfig(**values),
)

LIMIT_KEYS = {
    "cpu_limit": Key(duration()),
    "memory_limit": Key(size(_PAGE)),
    "host_memory_limit": Key(size(_PAGE)),
    "lax_imports": Key(boolean),
    "restart": Key(_RESTART),
}
"""Our own additions to vm_config."""

STREAM_KEYS = {"phase": Key(phase), "allow_on_headers_stop_iteration": Key(boolean)}
"""Additions to the plugin: ours, and one of Envoy's."""


def _vm(values: dict[str, Any], place: Place) -> VMConfig:
    filename = values.pop("code")["local"]["filename"]
    return VMConfig(code=filename, location=place.location, **values)


def _table(*, fail_open: bool, tolerant: bool) -> Then[dict[str, Any], WasmFilterConfig]:
    """Return the parser of a plugin; a tolerant one is Traffic Server's, without our additions."""
    flag = _traffic_server_boolean if tolerant else boolean
    vm = Record(
        {
            "runtime": Key(runtime),
            "vm_id": Key(scalar, aliases=("vmId",)),
            "configuration": Key(configuration),
            "allow_precompiled": Key(flag),
            "environment_variables": Key(
                Then(
                    Record(
                        {
                            "host_env_keys": Key(ListOf(_variable)),
                            "key_values": Key(Then(MapOf(scalar), _variables)),
                        },
                        tolerant=tolerant,
                    ),
                    _environment,
                ),
                attribute="environment",
            ),
            "code": Key(_CODE, required=True),
            **({} if tolerant else LIMIT_KEYS),
        },
        tolerant=tolerant,
    )
    plugin = Record(
        {
            "name": Key(scalar),
            "root_id": Key(scalar, aliases=("rootId",)),
            "configuration": Key(configuration),
            "fail_open": Key(flag),
            "capability_restriction_config": Key(_CAPABILITIES, attribute="capabilities"),
            "vm_config": Key(Then(vm, _vm), attribute="vm", aliases=("vmConfig",), required=True),
            **({} if tolerant else STREAM_KEYS),
        },
        tolerant=tolerant,
    )
    return Then(
        plugin,
        lambda values, place: WasmFilterConfig(**{"fail_open": fail_open, **values}, location=place.location),
    )


PLUGIN = _table(fail_open=False, tolerant=False)
TRAFFIC_SERVER_PLUGIN = _table(fail_open=True, tolerant=True)
"""A failing plugin is skipped by default there, and unknown keys are not looked at."""
