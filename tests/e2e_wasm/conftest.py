"""One place for compiled modules, and proxies that many tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import pytest

from tests.e2e_wasm.support import Stand, module, serving
from tests.support.compiled import compiled_modules

Serve = Callable[..., AbstractContextManager[Stand]]


@pytest.fixture(scope="session")
def code_cache(request: pytest.FixtureRequest) -> Path:
    return compiled_modules(request.config)


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory, code_cache: Path) -> Iterator[Stand]:
    """Modules `a` and `b` in the client phase (one VM), `o` in the origin phase (another)."""
    wasm = [
        module("a", configuration="configure period 20"),
        module("b"),
        module("o", phase="origin", vm_id="origin"),
    ]
    folder = tmp_path_factory.mktemp("stand")
    with serving(folder, code_cache, wasm, limits={"buffer": "64KiB"}) as running:
        yield running


@pytest.fixture
def serve(tmp_path: Path, code_cache: Path) -> Serve:
    """Run a proxy of the test's own: `serve([module(...)], **config)`."""
    return partial(serving, tmp_path, code_cache)
