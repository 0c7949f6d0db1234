"""Traffic Server's plugin files: one YAML file for each plugin, its first key `config`."""

from __future__ import annotations

from pathlib import Path

from yaml.nodes import MappingNode, Node

from twisted_wasmproxy.config import document
from twisted_wasmproxy.config.model import WasmFilterConfig
from twisted_wasmproxy.config.reader import Place, Rejected, Report
from twisted_wasmproxy.config.wasm import TRAFFIC_SERVER_PLUGIN

__all__ = ["is_plugin_file", "read_file"]


def is_plugin_file(root: Node) -> bool:
    """Tell by its first key whether a document is in Traffic Server's form."""
    return isinstance(root, MappingNode) and bool(root.value) and root.value[0][0].value == "config"


def read_file(path: Path, report: Report) -> WasmFilterConfig:
    """Read one plugin file. Raises Rejected, with the problems in the report."""
    try:
        root, problems = document.compose(document.read(path), str(path))
    except document.DocumentError as error:
        report.problems.extend(error.problems)
        raise Rejected from None
    report.problems.extend(problems)
    place = Place.root(root, path, report)
    if not is_plugin_file(root):
        place.reject("is not a Traffic Server plugin file: its first key must be 'config'")
    entries = [place.entry(name, value) for name, value in root.value]
    for extra in entries[1:]:
        extra.warn("is not read: a plugin file has one top-level key")
    return TRAFFIC_SERVER_PLUGIN(entries[0])
