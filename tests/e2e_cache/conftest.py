"""One proxy for the tests of a file, with the configuration that the file names; and URLs of a test's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e_cache.support import Site, Stand, serving


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    """Sections of the configuration; a file may say otherwise."""
    return {}


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory, config: dict[str, Any]) -> Iterator[Stand]:
    with serving(tmp_path_factory.mktemp("cache"), **config) as running:
        yield running


@pytest.fixture
def site(stand: Stand) -> Site:
    return stand.site()
