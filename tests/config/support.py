"""A folder with a module in it, and a way to load YAML text from there."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from twisted_wasmproxy import config
from twisted_wasmproxy.config import Configuration, ConfigurationError

EMPTY_MODULE = b"\0asm\x01\0\0\0"

MINIMAL = """
listeners:
  - endpoint: tcp:8080
upstreams:
  origin: {servers: ["http://127.0.0.1:8000"]}
remap:
  - upstream: origin
"""

PLUGIN = (
    MINIMAL
    + """
filters:
  - vm_config: {code: {local: {filename: filter.wasm}}%s}
    %s
"""
)


def write(folder: Path, text: str, name: str = "proxy.yaml") -> Path:
    (folder / "filter.wasm").write_bytes(EMPTY_MODULE)
    path = folder / name
    path.write_text(textwrap.dedent(text))
    return path


def problems_of(load: Callable[[], Configuration], folder: Path) -> list[str]:
    """Return what is wrong, each with the folder's name taken out."""
    with pytest.raises(ConfigurationError) as raised:
        load()
    return [str(problem).replace(f"{folder}/", "") for problem in raised.value.problems]


def problems(folder: Path, text: str) -> list[str]:
    path = write(folder, text)
    return problems_of(lambda: config.load(path), folder)


def loaded(folder: Path, text: str) -> Configuration:
    return config.load(write(folder, text))
