"""Targets by name, and the inputs that are kept for each."""

from __future__ import annotations

import hashlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from tests.fuzz import targets

__all__ = ["CORPUS", "Target", "keep", "target", "target_names"]

CORPUS = Path(__file__).with_name("corpus")


@dataclass(frozen=True)
class Target:
    """What is fuzzed."""

    name: str
    run: Callable[[bytes], None]
    words: list[bytes]
    """What is worth inserting."""

    @property
    def folder(self) -> Path:
        return CORPUS / self.name

    def seeds(self) -> dict[str, bytes]:
        """Return the inputs that are kept, by the name of their file."""
        return {path.name: path.read_bytes() for path in sorted(self.folder.iterdir())}


def target_names() -> list[str]:
    return [info.name for info in pkgutil.iter_modules(targets.__path__)]


def target(name: str) -> Target:
    """Return a target; raises ModuleNotFoundError for a name that none has."""
    module = import_module(f"{targets.__name__}.{name}")
    return Target(name, module.run, module.WORDS)


def keep(name: str, data: bytes) -> Path:
    """Write an input that has found a fault to the corpus, under the name that libFuzzer gives it; return its file."""
    path = CORPUS / name / f"crash-{hashlib.sha1(data).hexdigest()}"
    path.write_bytes(data)
    return path
