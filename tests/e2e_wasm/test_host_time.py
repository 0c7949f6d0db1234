"""A host call with as much as fits into a module of 128 MiB costs the proxy no more than one with a little."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.e2e_wasm.conftest import Serve
from tests.e2e_wasm.greedy import KEY, OUT, TEXT, greedy
from tests.e2e_wasm.support import Stand, module

LITTLE, MUCH = 64, 90 * 1024 * 1024
MANY = 20
"""Header fields that make a request one of which the module makes much."""
SIZE = f"(select (i32.const {MUCH}) (i32.const {LITTLE}) (i32.gt_u (local.get 1) (i32.const {MANY})))"
SLOT = f"(i32.const {OUT + 4})"
FOREIGN = KEY - 8
COMPRESS = f"(i64.store (i32.const {FOREIGN}) (i64.const {int.from_bytes(b'compress', 'little')}))"

CALLS: dict[str, Any] = {
    "compress": ("proxy_call_foreign_function", (FOREIGN, 8, TEXT, SIZE, 0, 0)),
    "a property path": ("proxy_get_property", (TEXT, SIZE, OUT, SLOT)),
    "a property path to set": ("proxy_set_property", (TEXT, SIZE, TEXT, 1)),
    "the name of a header field": ("proxy_replace_header_map_value", (0, TEXT, SIZE, TEXT, 1)),
    "the value of a header field": ("proxy_replace_header_map_value", (0, TEXT, 1, TEXT, SIZE)),
    "a map": ("proxy_set_header_map_pairs", (0, TEXT, SIZE)),
    "a log line": ("proxy_log", (2, TEXT, SIZE)),
    "vectors": ("fd_write", (1, TEXT, f"(i32.shr_u {SIZE} (i32.const 3))", OUT)),
    "the name of a metric": ("proxy_define_metric", (0, TEXT, SIZE, OUT)),
    "a key": ("proxy_get_shared_data", (TEXT, SIZE, OUT, SLOT, SLOT)),
    "a call to a service": ("proxy_http_call", (TEXT, SIZE, TEXT, SIZE, TEXT, SIZE, TEXT, SIZE, 1, OUT)),
}


def spent(stand: Stand) -> float:
    """Return the seconds of CPU that the main thread of the proxy has taken."""
    return int(Path(f"/proc/{stand.proxy.process.pid}/schedstat").read_text().split()[0]) / 1e9


@pytest.mark.parametrize("letter", ["v", "\0"])
@pytest.mark.parametrize("what", CALLS)
def test_much_costs_no_more_than_little(serve: Serve, tmp_path: Path, what: str, letter: str) -> None:
    file = greedy(tmp_path / "greedy.wasm", [CALLS[what]], 1, pages=2000, letter=letter, before=COMPRESS)
    with serve([module("greedy", code=file)]) as stand:
        costs = []
        for count in (0, MANY):
            headers = [(f"y-{number}", "") for number in range(count)]
            stand.ask("/", headers=headers)
            begun = spent(stand)
            for _ in range(10):
                assert stand.ask("/", headers=headers).status in (200, 400)
            costs.append(spent(stand) - begun)
        little, much = costs
        assert much < 20 * little
        assert " failed" not in stand.proxy.log
