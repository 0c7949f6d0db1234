"""A proxy and the origin behind it, shared by the tests of a file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.support import Pair, reverse_config, scripted_origin
from tests.support.proxy import running_proxy


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("http")
    log = folder / "access.json"
    with scripted_origin() as origin:
        config = reverse_config(
            origin,
            access_log={"path": str(log), "format": "json"},
            limits={"request_line": 2000, "header_bytes": 4000, "header_count": 20, "body": 100_000},
            timeouts={"header": 0.6, "idle": 2, "keep_alive": 30},
        )
        config["upstreams"]["origin"]["health"] = {"max_failures": 10**6}
        with running_proxy(config, folder) as proxy:
            yield Pair(proxy, origin, log)
            assert "Traceback" not in proxy.log, proxy.log


@pytest.fixture
def pair(shared: Pair) -> Pair:
    shared.origin.reset()
    return shared
