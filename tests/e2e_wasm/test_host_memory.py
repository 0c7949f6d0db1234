"""What a module with 8 MiB of memory can make the proxy keep beside them: as much again, whichever way it tries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.e2e_wasm.conftest import Serve
from tests.e2e_wasm.greedy import KEY, OUT, TEXT, greedy
from tests.e2e_wasm.support import Stand, module

MIB = 1024 * 1024
LIMIT = 8
"""MiB of memory_limit, and so of what the host may keep."""
SLACK = 24
"""MiB that a process grows by all the same: copies on their way, what allocators keep, the response's own buffers."""

TABLES = range(16)
HOW: dict[str, tuple[list[Any], int, dict[str, Any]]] = {
    "values of shared data": ([("proxy_set_shared_data", (KEY, 8, TEXT, MIB, 0))], 300, {}),
    "keys of shared data": ([("proxy_set_shared_data", (KEY, 4000, TEXT, 0, 0))], 50_000, {}),
    "items of a queue": (
        [
            ("proxy_register_shared_queue", (TEXT, 1, OUT)),
            ("proxy_enqueue_shared_queue", (f"(i32.load (i32.const {OUT}))", TEXT, MIB)),
        ],
        300,
        {},
    ),
    "many items of a queue": (
        [
            ("proxy_register_shared_queue", (TEXT, 1, OUT)),
            # wasmer's package keeps some bytes for each host call until the outer call returns: so, not too many.
            *[("proxy_enqueue_shared_queue", (f"(i32.load (i32.const {OUT}))", TEXT, 1))] * 4,
        ],
        30_000,
        {},
    ),
    "queues": ([("proxy_register_shared_queue", (KEY, 8, OUT))], 100_000, {}),
    "metrics": ([("proxy_define_metric", (0, KEY, 8, OUT))], 200_000, {}),
    "names of metrics": ([("proxy_define_metric", (0, KEY, 4000, OUT))], 50_000, {}),
    "header fields": ([("proxy_add_header_map_value", (2, KEY, 8, TEXT, 60_000))], 1400, {"on": "response_headers"}),
    "small header fields": (
        [("proxy_add_header_map_value", (2, KEY, 8, TEXT, 900))],
        90_000,
        {"on": "response_headers"},
    ),
    "names of header fields": (
        [
            ("proxy_add_header_map_value", (2, KEY, 60_000, TEXT, 1)),
            ("proxy_remove_header_map_value", (2, KEY, 60_000)),
        ],
        4000,
        {"on": "response_headers"},
    ),
    "properties": ([("proxy_set_property", (KEY, 8, TEXT, MIB))], 300, {}),
    "small properties": ([("proxy_set_property", (KEY, 8, TEXT, 1))], 200_000, {}),
    "a body": ([("proxy_set_buffer_bytes", (1, 0x7FFFFFFF, 0, TEXT, MIB))], 300, {"on": "response_body"}),
    "timers": ([("proxy_set_tick_period_milliseconds", (100_000,))], 200_000, {}),
    "log lines": ([("proxy_log", (2, TEXT, MIB))], 2000, {}),
    "tables": (
        [("proxy_get_buffer_status", (0, OUT, OUT))],
        1,
        {
            "before": " ".join(f"(drop (table.grow $t{n} (ref.null func) (i32.const 1048570)))" for n in TABLES),
            "fields": " ".join(f"(table $t{n} 1 funcref)" for n in TABLES),
        },
    ),
}


def peak(stand: Stand) -> float:
    """Return the most memory that the proxy has had, in MiB."""
    status = Path(f"/proc/{stand.proxy.process.pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


@pytest.mark.parametrize("how", HOW)
def test_what_the_host_keeps_has_a_bound(serve: Serve, tmp_path: Path, how: str) -> None:
    calls, rounds, options = HOW[how]
    file = greedy(tmp_path / "greedy.wasm", calls, rounds, pages=LIMIT * 16, **options)
    limits = {"memory_limit": f"{LIMIT}MiB", "cpu_limit": "20s"}
    wasm = [module("greedy", code=file, vm_id="greedy", vm_config=limits), module("other", vm_id="other")]
    with serve(wasm, pacer="other") as stand:
        before = peak(stand)
        for _ in range(3):
            answer = stand.ask("/", other="response_headers add 2 x-other 1")
            assert answer.complete
            assert answer.header("x-other") == "1"
        assert peak(stand) - before < LIMIT + SLACK
        assert " failed" not in stand.proxy.log
