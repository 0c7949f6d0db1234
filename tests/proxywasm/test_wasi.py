"""Logs, clocks, environment and the rest of WASI (conformance cases G)."""

from __future__ import annotations

import time

import pytest

from tests.proxywasm.guest import OUT_U32, OUT_U64, Guest
from twisted_wasmproxy.proxywasm.abi import IMPORTS, LogLevel

OK, BAD_ARGUMENT = 0, 2
BADF, FAULT, INVAL, NOTSUP = 8, 21, 28, 58
WASI = "wasi_snapshot_preview1"


def started(bench, guest, *calls, **options):
    guest.on("proxy_on_configure", *calls)
    return bench.load(guest, **options).vm


def test_G01_G02_levels(bench):
    guest = Guest()
    calls = [guest.call("proxy_log", level, f"level {level}".encode()) for level in range(7)]
    vm = started(bench, guest, *calls)
    assert [call.status(vm) for call in calls] == [OK] * 6 + [BAD_ARGUMENT]
    assert bench.lines() == [(level.name.lower(), f"level {level.value}") for level in LogLevel]
    levels = [event["log_level"].name for event in bench.events if "wasm_level" in event]
    assert levels == ["debug", "debug", "info", "warn", "error", "critical"]


def test_lines_below_the_configured_level_are_dropped(bench):
    bench.level = LogLevel.WARN
    guest = Guest()
    started(bench, guest, *[guest.call("proxy_log", level, b"x") for level in range(6)])
    assert [level for level, _ in bench.lines()] == ["warn", "error", "critical"]


def test_G03_bytes_that_are_no_text(bench):
    guest = Guest()
    started(bench, guest, guest.call("proxy_log", 2, b"a\xff{b}\xc3\xa4"))
    assert bench.lines() == [("info", "a\N{REPLACEMENT CHARACTER}{b}ä")]


def test_lines_are_prefixed_as_in_envoy_and_have_a_namespace_of_their_own(bench):
    guest = Guest()
    guest.on("proxy_on_configure", guest.call("proxy_log", 2, b"text"))
    bench.load(guest, name="my.plugin x", root_id="root", vm_id="vm")
    (event,) = (event for event in bench.events if "wasm_level" in event)
    assert event["log_namespace"] == "twisted_wasmproxy.proxywasm.my_plugin_x"
    assert "wasm log my.plugin x root vm: text" in bench.texts()


def vector(guest, *parts):
    """Return the address and number of an array of (address, size) pairs."""
    table = b"".join(n.to_bytes(4, "little") for part in parts for n in guest.data(part))
    return guest.data(table)[0], len(parts)


def test_G04_fd_write(bench):
    guest = Guest()
    calls = [
        guest.call("fd_write", 1, *vector(guest, b"one ", b"", b"line\n"), OUT_U32, module=WASI),
        guest.call("fd_write", 2, *vector(guest, b"error\n\n"), OUT_U32, module=WASI),
        guest.call("fd_write", 1, *vector(guest, b"\n"), OUT_U32, module=WASI),
        guest.call("fd_write", 1, *vector(guest, b""), OUT_U32, module=WASI),
        guest.call("fd_write", 3, *vector(guest, b"x"), OUT_U32, module=WASI),
        guest.call("fd_write", 1, 8 * 65536 - 4, 1, OUT_U32, module=WASI),
        guest.call("fd_write", 1, 0, 0x20000000, OUT_U32, module=WASI),
        guest.call("fd_write", 1, *vector(guest, b"never"), "(i32.const -2)", module=WASI),
        guest.call("fd_write", 1, 0, 1025, OUT_U32, module=WASI),
    ]
    vm = started(bench, guest, *calls)
    assert [call.status(vm) for call in calls] == [OK] * 4 + [BADF] + [FAULT] * 3 + [INVAL]
    assert [call.value(vm) for call in calls[:4]] == [9, 7, 1, 0]
    assert bench.lines() == [("info", "one line"), ("error", "error\n")]


def test_G05_clocks(bench):
    guest = Guest()
    now = guest.call("proxy_get_current_time_nanoseconds", OUT_U64)
    calls = [guest.call("clock_time_get", clock, 0, OUT_U64, module=WASI) for clock in (0, 1, 1, 2, 3)]
    resolution = guest.call("clock_res_get", 1, OUT_U64, module=WASI)
    before = time.time_ns()
    vm = started(bench, guest, now, *calls, resolution)
    assert before <= now.value(vm) <= calls[0].value(vm) <= time.time_ns()
    assert calls[1].value(vm) <= calls[2].value(vm) <= time.monotonic_ns()
    assert [call.status(vm) for call in calls] == [OK] * 3 + [NOTSUP] * 2
    assert resolution.value(vm) == 1


def test_G06_random_get(bench):
    guest = Guest()
    room = 0x60000
    sizes = (0, 32, 65536, 65537)
    calls = [guest.call("random_get", room, size, module=WASI) for size in sizes]
    outside = guest.call("random_get", 8 * 65536 - 1, 2, module=WASI)
    vm = started(bench, guest, *calls, outside)
    assert [call.status(vm) for call in calls] == [OK, OK, OK, INVAL]
    assert outside.status(vm) == FAULT
    assert len(set(vm.read(room, 65536))) == 256


@pytest.mark.parametrize("environment", [(), (("A", "1"), ("LONG", "zwei ü"), ("EMPTY", ""))])
def test_G07_environment(bench, environment):
    guest = Guest()
    sizes = guest.call("environ_sizes_get", OUT_U32, OUT_U32, module=WASI)
    pointers, texts = 0x60000, 0x61000
    get = guest.call("environ_get", pointers, texts, module=WASI)
    vm = started(bench, guest, sizes, get, environment=environment)
    count, size = sizes.value(vm, 0), sizes.value(vm, 1)
    entries = [f"{name}={value}".encode() for name, value in environment]
    assert (count, size) == (len(entries), sum(len(entry) + 1 for entry in entries))
    for index, entry in enumerate(entries):
        at = vm.read_u32(pointers + 4 * index)
        assert vm.read(at, len(entry) + 1) == entry + b"\0"


def test_G08_G09_G10_what_a_runtime_asks_at_its_start(bench):
    guest = Guest()
    args = guest.call("args_sizes_get", OUT_U32, OUT_U32, module=WASI)
    poll = guest.call("poll_oneoff", 0, 0, 1, OUT_U32, module=WASI)
    prestat = guest.call("fd_prestat_get", 3, 0x60000, module=WASI)
    stat = guest.call("fd_fdstat_get", 1, 0x60000, module=WASI)
    other = guest.call("fd_fdstat_get", 0, 0x60000, module=WASI)
    vm = started(bench, guest, args, poll, prestat, stat, other)
    assert (args.status(vm), args.value(vm, 0), args.value(vm, 1)) == (OK, 0, 0)
    assert (poll.status(vm), poll.value(vm)) == (OK, 0)
    assert (prestat.status(vm), stat.status(vm), other.status(vm)) == (BADF, OK, BADF)
    assert vm.read(0x60000, 24) == bytes(8) + (64).to_bytes(8, "little") + bytes(8)


def test_G11_an_exit_from_a_callback_fails_the_vm(bench):
    guest = Guest()
    guest.on("proxy_on_request_headers", guest.call("proc_exit", 0, module=WASI))
    loaded, stream = bench.stream(guest)
    failed = loaded.vm
    stream.request_head()
    assert failed.failed is not None
    assert loaded.vm is not failed
    assert stream.events == [("response", 503, [], b"", b"wasm_fail_stream", 14)]


ANSWERS = {
    **dict.fromkeys(("fd_read", "fd_pread", "fd_prestat_dir_name", "fd_fdstat_set_flags", "proc_raise"), 52),
    **dict.fromkeys(("fd_filestat_get", "fd_prestat_get"), BADF),
    **dict.fromkeys(("fd_advise", "fd_allocate", "fd_datasync", "fd_sync", "fd_tell"), BADF),
    **dict.fromkeys(("fd_fdstat_set_rights", "fd_filestat_set_size", "fd_filestat_set_times", "fd_renumber"), BADF),
    **dict.fromkeys(("fd_close", "fd_seek", "sched_yield", "args_get"), OK),
    "fd_readdir": 20,
    "path_open": 44,
}


@pytest.mark.parametrize("name", [*ANSWERS, *[n for m, n in IMPORTS if m == WASI and n[:5] in ("path_", "sock_")]])
@pytest.mark.parametrize("module", [WASI, "wasi_unstable"])
def test_the_rest_of_wasi_links_and_answers(bench, module, name):
    guest = Guest()
    call = guest.call(name, *[0x60000] * len(IMPORTS[module, name].params), module=module)
    assert call.status(started(bench, guest, call)) == ANSWERS.get(name, NOTSUP)
