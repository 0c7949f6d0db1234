from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e_cost.support import Bench, bench


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with bench(tmp_path_factory.mktemp("cost")) as started:
        yield started
