"""Where tests keep compiled modules from one run to the next."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import pytest

__all__ = ["compiled_modules"]


def compiled_modules(config: pytest.Config) -> Path:
    """Return a folder in pytest's cache; where that is switched off, one that all tests of the process share."""
    kept = getattr(config, "cache", None)
    return Path(kept.mkdir("compiled-modules")) if kept is not None else _temporary()


@cache
def _temporary() -> Path:
    return Path(tempfile.mkdtemp(prefix="compiled-modules-"))
