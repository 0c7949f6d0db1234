"""What a host call takes, how long it may work, and what the host keeps for a module: each has an end."""

from __future__ import annotations

import zlib

import pytest

from tests.proxywasm.guest import OUT_U32, Guest, assemble
from twisted_wasmproxy.config.model import RestartConfig
from twisted_wasmproxy.http.headers import Headers
from twisted_wasmproxy.http.messages import Response
from twisted_wasmproxy.proxywasm.abi import IMPORTS, Kind, MetricType, Status
from twisted_wasmproxy.proxywasm.errors import PluginError
from twisted_wasmproxy.proxywasm.memory import ENTRY, HostMemory, table_share
from twisted_wasmproxy.proxywasm.metrics import Metrics
from twisted_wasmproxy.proxywasm.shared import SharedData
from twisted_wasmproxy.runtimes.binary import Table

OK, NOT_FOUND, BAD_ARGUMENT, INTERNAL_FAILURE = 0, 1, 2, 10
KIB, MIB = 1024, 1024 * 1024
PAGES = 300
ROOM = PAGES * 65536


def caller(*names: str) -> bytes:
    """Return a module with as much memory as the longest argument, that exports host functions as they are."""
    entries = [IMPORTS["wasi_snapshot_preview1" if name.startswith("fd_") else "env", name] for name in names]
    imports = "".join(
        f'(import "{e.module}" "{e.name}" (func ${e.name} (param {" ".join(e.params)}) (result i32)))' for e in entries
    )
    exports = "".join(
        f'(func (export "call {e.name}") (param {" ".join(e.params)}) (result i32)'
        f" (call ${e.name} {' '.join(f'(local.get {n})' for n in range(len(e.params)))}))"
        for e in entries
    )
    return assemble(
        f"""(module {imports} (memory (export "memory") {PAGES}) {exports}
        (func (export "proxy_abi_version_0_2_100")) (func (export "proxy_on_memory_allocate") (param i32) (result i32)
        (i32.const 65536)) (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (i32.const 0))
        (func (export "proxy_on_response_body") (param i32 i32 i32) (result i32) (i32.const 0)))"""
    )


class Calls:
    """A stream in whose context host functions can be called."""

    def __init__(self, bench, *names, **options):
        options = {"memory_limit": 32 * MIB, "host_memory_limit": 64 * MIB, **options}
        self.loaded, self.stream = bench.stream(caller(*names), **options)
        self.vm = self.loaded.vm
        self.stream.request_head(False)
        self.stream.request_headers_writable = True
        self.stream.response = Response(200, Headers())

    def __call__(self, name, *arguments):
        return self.vm.call(self.stream.filter, self.vm._instance.function(f"call {name}"), *arguments)

    def put(self, address, data):
        self.vm.write(address, data)
        return address, len(data)


# Sizes of arguments

TAKES = {
    "proxy_set_header_map_pairs": (BAD_ARGUMENT, MIB),
    "proxy_get_header_map_value": (NOT_FOUND, 64 * KIB),
    "proxy_add_header_map_value": (BAD_ARGUMENT, 64 * KIB, 64 * KIB),
    "proxy_replace_header_map_value": (BAD_ARGUMENT, 64 * KIB, 64 * KIB),
    "proxy_remove_header_map_value": (BAD_ARGUMENT, 64 * KIB),
    "proxy_send_local_response": (OK, 4 * KIB, 16 * MIB, MIB + 1),
    "proxy_get_property": (NOT_FOUND, 8 * KIB),
    "proxy_set_property": (BAD_ARGUMENT, 8 * KIB, MIB),
    "proxy_get_shared_data": (NOT_FOUND, 4 * KIB),
    "proxy_set_shared_data": (BAD_ARGUMENT, 4 * KIB, 16 * MIB),
    "proxy_register_shared_queue": (BAD_ARGUMENT, 4 * KIB),
    "proxy_resolve_shared_queue": (NOT_FOUND, 4 * KIB, 4 * KIB),
    "proxy_enqueue_shared_queue": (BAD_ARGUMENT, 16 * MIB),
    "proxy_define_metric": (BAD_ARGUMENT, 4 * KIB),
    "proxy_call_foreign_function": (BAD_ARGUMENT, 4 * KIB, 16 * MIB),
    "proxy_http_call": (BAD_ARGUMENT, 4 * KIB, MIB, 16 * MIB, MIB),
    "proxy_grpc_call": (INTERNAL_FAILURE, 4 * KIB, 4 * KIB, 4 * KIB, MIB, 16 * MIB),
    "proxy_grpc_stream": (INTERNAL_FAILURE, 4 * KIB, 4 * KIB, 4 * KIB, MIB),
    "proxy_grpc_send": (BAD_ARGUMENT, 16 * MIB),
    "proxy_redis_init": (BAD_ARGUMENT, 4 * KIB, 4 * KIB, 4 * KIB),
    "proxy_redis_call": (BAD_ARGUMENT, 4 * KIB, 16 * MIB),
}
"""The answer to an argument that is too long, and what each argument may have."""


def test_every_function_that_takes_bytes_is_in_the_table():
    taking = {entry.name for entry in IMPORTS.values() if Kind.BYTES in entry.parameters}
    assert taking == TAKES.keys()
    # These look at sizes themselves; their tests are below.
    raw = {name for (module, name), entry in IMPORTS.items() if entry.raw and module == "env"}
    assert raw == {"proxy_log", "proxy_set_buffer_bytes", "abort"}


@pytest.mark.parametrize("name", TAKES)
def test_what_is_too_long_is_not_read(bench, name):
    calls = Calls(bench, name)
    status, *sizes = TAKES[name]
    entry = IMPORTS["env", name]
    read: list[int] = []
    plain_read = calls.vm.read
    calls.vm.read = lambda address, size: read.append(size) or plain_read(address, size)

    def arguments(given):
        given = iter(given)
        for kind in entry.parameters:
            if kind is Kind.BYTES:
                yield from (128, next(given))
            else:
                yield from [0] * len(kind.wire)

    for number, size in enumerate(sizes):
        others = [1] * len(sizes)
        for longer in (size + 1, ROOM - 128):
            others[number] = longer
            read.clear()
            answer = calls(name, *arguments(others))
            # A map that is cut is malformed, and answered as such.
            assert answer == status or (name, number) == ("proxy_send_local_response", 2), number
            assert max(read, default=0) <= size
        others[number] = ROOM
        assert calls(name, *arguments(others)) == Status.INVALID_MEMORY
    assert calls.vm.failed is None


def test_a_field_as_long_as_may_be_is_written(bench):
    calls = Calls(bench, "proxy_add_header_map_value", "proxy_get_header_map_value")
    key = calls.put(128, b"a" * 64 * KIB)
    assert calls("proxy_add_header_map_value", 0, *key, *key) == OK
    assert calls("proxy_get_header_map_value", 0, *key, 16, 20) == OK
    assert calls.vm.read_u32(20) == 64 * KIB


def test_a_long_line_is_cut_and_says_so(bench):
    calls = Calls(bench, "proxy_log", "fd_write")
    calls.put(65536, b"l" * 100_000)
    assert calls("proxy_log", 2, 65536, 64 * KIB) == OK
    assert calls("proxy_log", 2, 65536, 64 * KIB + 1) == OK
    calls.put(16, (65536).to_bytes(4, "little") + (50_000).to_bytes(4, "little"))
    calls.put(24, calls.vm.read(16, 8))
    assert calls("fd_write", 1, 16, 2, 8) == OK
    assert calls.vm.read_u32(8) == 100_000
    whole = "l" * 64 * KIB
    assert [text for _, text in bench.lines()] == [
        whole,
        f"{whole} ... [65537 bytes]",
        f"{whole} ... [100000 bytes]",
    ]


def test_many_vectors_are_not_even_read(bench):
    calls = Calls(bench, "fd_write")
    read: list[int] = []
    plain_read = calls.vm.read
    calls.vm.read = lambda address, size: read.append(size) or plain_read(address, size)
    assert calls("fd_write", 1, 0, 2_000_000, 8) == 28
    assert calls("fd_write", 1, 0, 0xFFFFFFFF, 8) == 21
    # A thousand times the same 19 MiB: counted, and read as far as they are logged.
    vector = (0).to_bytes(4, "little") + (ROOM).to_bytes(4, "little")
    calls.put(65536, vector * 200)
    read.clear()
    assert calls("fd_write", 1, 65536, 200, 8) == OK
    assert calls.vm.read_u32(8) == 200 * ROOM
    assert sum(read) <= 8 * 200 + 64 * KIB


def test_a_log_of_what_is_refused_is_short(bench):
    calls = Calls(bench, "proxy_add_header_map_value")
    key = calls.put(128, b"\0" * 60_000)
    assert calls("proxy_add_header_map_value", 0, *key, 0, 0) == BAD_ARGUMENT
    assert max(map(len, bench.texts())) < 1000


def test_a_path_of_many_segments_is_none(bench):
    calls = Calls(bench, "proxy_get_property", "proxy_set_property")
    path = calls.put(128, b"\0" * 8 * KIB)
    assert calls("proxy_get_property", *path, 16, 20) == NOT_FOUND
    assert calls("proxy_set_property", *path, 0, 1) == NOT_FOUND


# Time


@pytest.mark.parametrize("name", [b"compress", b"uncompress"])
def test_long_work_ends_with_the_time_of_the_call(bench, name):
    """Straight on, without a loop in which an engine would look at the time."""
    guest = Guest()
    argument = ["(i32.const 0x100000)", f"(i32.const {16 * MIB})"]
    if name == b"uncompress":
        argument = [zlib.compress(bytes(16 * MIB))]
    call = guest.call("proxy_call_foreign_function", name, *argument, 0, 0)
    guest.on("proxy_on_request_headers", "(drop (memory.grow (i32.const 300)))", *[call] * 200)
    loaded, stream = bench.stream(guest, cpu_limit=0.05)
    vm = loaded.vm
    stream.request_head()
    assert "took longer than 0.05 s" in (vm.failed or "it has not failed")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("proxy_set_shared_data", (0, 1, 0, MIB, 0)),
        ("proxy_set_property", (0, 1, 0, MIB)),
        ("proxy_enqueue_shared_queue", (1, 0, MIB)),
        ("proxy_set_header_map_pairs", (0, 0, MIB)),
    ],
)
def test_copies_end_with_the_time_of_the_call(bench, name, arguments):
    guest = Guest()
    entry = IMPORTS["env", name]
    guest.imports["env", name] = entry.params, entry.results
    operands = " ".join(f"(i32.const {argument})" for argument in arguments)
    calls = [f"(drop (call $env.{name} {operands}))"] * 5000
    guest.on("proxy_on_request_headers", "(drop (memory.grow (i32.const 20)))", *calls)
    loaded, stream = bench.stream(guest, cpu_limit=0.02)
    vm = loaded.vm
    stream.request_head()
    assert "took longer than 0.02 s" in (vm.failed or "it has not failed")


def test_uncompress_makes_so_much_and_no_more(bench):
    calls = Calls(bench, "proxy_call_foreign_function")
    name = calls.put(128, b"uncompress")
    for size, status in ((16 * MIB, OK), (16 * MIB + 1, Status.SERIALIZATION_FAILURE)):
        data = calls.put(1024, zlib.compress(bytes(size)))
        assert calls("proxy_call_foreign_function", *name, *data, 0, 0) == status


@pytest.mark.parametrize("end", [None, -1, -5])
def test_uncompress_gives_back_what_compress_took(bench, end):
    from twisted_wasmproxy.proxywasm.callouts import _compress, _uncompress

    data = bytes(range(256)) * 3000
    looks: list[None] = []
    status, packed = _compress(data, lambda: looks.append(None))
    assert (status, zlib.decompress(packed)) == (OK, data)
    assert len(looks) > 10
    expected = (OK, data) if end is None else (Status.SERIALIZATION_FAILURE, b"")
    assert _uncompress(packed[:end], lambda: None) == expected


# Host memory


def test_take_and_give():
    memory = HostMemory(100)
    assert memory.take(60)
    assert not memory.take(41)
    assert memory.take(40)
    memory.give(50)
    assert memory.take(50)
    memory.take_always(10)
    assert memory.used == 110
    assert not memory.take(0)


def test_what_is_lent_comes_back_in_the_next_turn(bench):
    memory = HostMemory(100)
    assert memory.lend(60, bench.clock)
    assert not memory.lend(60, bench.clock)
    assert memory.lend(40, bench.clock)
    assert len(bench.clock.getDelayedCalls()) == 1
    bench.clock.advance(0)
    assert memory.used == 0
    assert memory.lend(100, bench.clock)


def test_an_heir_takes_over_what_is_left():
    old, new = HostMemory(100), HostMemory(100)
    assert old.take(80)
    assert new.take(30)
    old.leave_to(new)
    assert (old.used, new.used) == (0, 110)
    old.give(80)
    assert (old.used, new.used) == (0, 30)


def test_shared_data_is_counted_and_given_back():
    mine, other = HostMemory(10_000), HostMemory(10_000)
    data = SharedData()
    assert data.set(b"vm", b"key", b"v" * 5000, 0, mine) == OK
    assert mine.used == ENTRY + 5003
    # In the place of one's own value there is room for as much again; where there is not, the present one stays.
    assert data.set(b"vm", b"key", b"w" * 9000, 0, mine) == OK
    assert data.set(b"vm", b"key", b"x" * 10_000, 0, mine) == INTERNAL_FAILURE
    assert data.set(b"vm", b"key", b"x" * 10_000, 77, mine) == Status.CAS_MISMATCH
    assert data.get(b"vm", b"key") == (b"w" * 9000, 2)
    assert mine.used == ENTRY + 9003
    assert data.set(b"vm", b"key", b"y", 0, other) == OK
    assert (mine.used, other.used) == (0, ENTRY + 4)
    assert data.set(b"vm", b"another", b"", 0, mine) == OK
    data.forget(b"vm")
    assert (mine.used, other.used) == (0, 0)


def test_metrics_are_counted_for_each_that_defines_them_and_go_with_the_last():
    first, second = HostMemory(10_000), HostMemory(10_000)
    metrics = Metrics()
    token = metrics.define(MetricType.GAUGE, b"g", first)
    used = first.used
    assert used > 0
    assert metrics.define(MetricType.GAUGE, b"g", first) == token
    assert metrics.define(MetricType.GAUGE, b"g", second) == token
    assert (first.used, second.used) == (used, used)
    assert metrics.define(MetricType.GAUGE, b"n" * 10_000, first) is None
    metrics.forget(first)
    assert [metric.name for metric in metrics] == [b"g"]
    assert first.used == 0
    metrics.forget(second)
    assert list(metrics) == []
    assert metrics.define(MetricType.GAUGE, b"h", first) not in (None, token)


def test_the_answers_where_there_is_no_room(bench):
    names = (
        *("proxy_set_shared_data", "proxy_register_shared_queue", "proxy_enqueue_shared_queue", "proxy_define_metric"),
        *("proxy_set_property", "proxy_add_header_map_value", "proxy_replace_header_map_value"),
        *("proxy_set_header_map_pairs", "proxy_set_buffer_bytes", "proxy_send_local_response"),
    )
    calls = Calls(bench, *names, host_memory_limit=80 * KIB)
    assert calls("proxy_register_shared_queue", 0, 1, 8) == OK
    queue = calls.vm.read_u32(8)
    room = calls.vm.memory
    assert room.take(79 * KIB - room.used)
    used = room.used
    map_of_one = calls.put(
        65536, b"".join(n.to_bytes(4, "little") for n in (1, 1, 20_000)) + b"a\0" + b"v" * 20_000 + b"\0"
    )
    calls.stream.response_body = calls.stream.request_body = type("Body", (), {"__len__": lambda self: 0})()
    letters = calls.put(128, b"a" * 4000)
    assert calls("proxy_set_shared_data", *letters, 0, 0, 0) == INTERNAL_FAILURE
    assert calls("proxy_register_shared_queue", *letters, 8) == INTERNAL_FAILURE
    assert calls("proxy_enqueue_shared_queue", queue, *letters) == INTERNAL_FAILURE
    assert calls("proxy_define_metric", 0, *letters, 8) == INTERNAL_FAILURE
    assert calls("proxy_set_property", 128, 3, *letters) == INTERNAL_FAILURE
    assert calls("proxy_add_header_map_value", 0, 128, 3, *letters) == BAD_ARGUMENT
    assert calls("proxy_replace_header_map_value", 0, 128, 3, *letters) == BAD_ARGUMENT
    assert calls("proxy_set_header_map_pairs", 0, *map_of_one) == BAD_ARGUMENT
    assert calls("proxy_set_buffer_bytes", 1, 0, 0, 65536, 5000) == INTERNAL_FAILURE
    assert room.used == used
    told = [text for text in bench.texts() if "host_memory_limit, 81920 bytes" in text]
    assert len(told) == 1
    # An answer goes out all the same, without its body.
    assert calls("proxy_send_local_response", 403, 0, 0, 65536, 20_000, 0, 0, 0xFFFFFFFF) == OK
    assert calls.stream.events == [("response", 403, [], b"", b"", -1)]
    # What is small, as nearly everything is, needs no room.
    assert calls("proxy_add_header_map_value", 0, 128, 3, 128, 500) == OK


def test_what_belongs_to_a_stream_is_given_back_with_it(bench):
    names = ("proxy_set_property", "proxy_add_header_map_value", "proxy_send_local_response")
    calls = Calls(bench, *names)
    memory = calls.vm.memory
    before = memory.used
    letters = calls.put(128, b"a" * 5000)
    assert calls("proxy_set_property", 128, 3, *letters) == OK
    after_property = memory.used
    assert after_property > before + 5000
    assert calls("proxy_add_header_map_value", 0, 128, 3, *letters) == OK
    after_field = memory.used
    assert after_field > after_property + 5000
    assert calls("proxy_send_local_response", 200, 0, 0, 65536, 20_000, 0, 0, 0xFFFFFFFF) == OK
    assert memory.used >= after_field + 20_000
    calls.stream.close()
    assert memory.used == before


def test_the_header_fields_of_a_stream_have_a_limit_of_their_own(bench):
    calls = Calls(bench, "proxy_add_header_map_value")
    key = calls.put(128, b"a" * 60_000)
    statuses = [calls("proxy_add_header_map_value", 0, 128, 3, *key) for _ in range(20)]
    assert statuses == [OK] * 17 + [BAD_ARGUMENT] * 3
    many = [calls("proxy_add_header_map_value", 2, 128, 3, 0, 0) for _ in range(200)]
    assert many.count(OK) > 100
    assert many[-1] == BAD_ARGUMENT


def test_a_body_grows_by_what_a_filter_may_hold(bench):
    calls = Calls(bench, "proxy_set_buffer_bytes")
    stream = calls.stream
    stream.buffer_limit = 10_000
    stream.response_data(b"x" * 30_000)
    for start, size, more, status in (
        (0, 0, 10_001, BAD_ARGUMENT),
        (30_000, 0, 9999, OK),
        (0, 4000, 4001, OK),
        (0, 4000, 4001, BAD_ARGUMENT),
        (0xFFFFFFFF, 9, 1, BAD_ARGUMENT),
        (0, 100_000, 40_001, BAD_ARGUMENT),
        (0, 100_000, 40_000, OK),
        (0, 40_000, 10, OK),
    ):
        assert calls("proxy_set_buffer_bytes", 1, start, size, 128, more) == status
    assert len(stream.response_body) == 10
    assert calls("proxy_set_buffer_bytes", 1, 0, 0, 128, MIB) == BAD_ARGUMENT


@pytest.mark.parametrize("traps", [0, 1000])
@pytest.mark.parametrize("spare", [False, True], ids=["alone", "spare"])
def test_what_is_kept_outlives_a_vm_that_fails_and_ends_with_the_last(bench, traps, spare):
    guest = Guest()
    put = guest.call("proxy_set_shared_data", b"key", b"value", 0)
    define = guest.call("proxy_define_metric", 0, b"metric", OUT_U32)
    property_ = guest.call("proxy_set_property", b"mine", b"value" * 100)
    guest.on("proxy_on_configure", put, define)
    guest.on("proxy_on_request_headers", property_, "unreachable")
    loaded, stream = bench.stream(guest, restart=RestartConfig(traps=traps, spare=spare))
    failed = loaded.vm
    memory = failed.memory
    used = memory.used
    assert used > 0
    stream.request_head()
    assert (loaded.plugin.root is None) == (traps == 0), "replaced at once, or after a delay"
    assert bench.host.services.shared_data.get(b"", b"key") is not None
    stream.close()
    bench.clock.advance(100)
    assert loaded.vm is not failed
    assert loaded.vm.memory is memory
    assert memory.used == used
    loaded.set.close()
    assert memory.used == 0
    assert list(bench.host.services.metrics) == []


def test_another_module_of_the_vm_id_accounts_for_what_one_leaves(bench):
    guest = Guest()
    guest.on("proxy_on_configure", guest.call("proxy_set_shared_data", b"key", b"value", 0))
    guest.on("proxy_on_done", result=1)
    first = bench.load(guest, vm_id="v", vm_configuration=b"old")
    used = first.vm.memory.used
    quiet = bench.load(Guest(), vm_id="v", vm_configuration=b"new")
    assert quiet.vm.memory.used == 0
    first.set.close()
    assert quiet.vm.memory.used == used
    quiet.set.close()
    assert quiet.host.services.shared_data.get(b"v", b"key") is None


def test_a_module_that_does_not_start_leaves_nothing(bench):
    guest = Guest()
    define = guest.call("proxy_define_metric", 0, b"metric", OUT_U32)
    guest.on("proxy_on_configure", guest.call("proxy_set_shared_data", b"key", b"value", 0), define, result=0)
    with pytest.raises(PluginError):
        bench.load(guest, vm_id="v")
    assert list(bench.host.services.metrics) == []
    assert bench.host.services.shared_data.get(b"v", b"key") is None


@pytest.mark.parametrize(
    ("tables", "limit", "share", "size"),
    [
        ([], 32 * MIB, 1 << 20, 0),
        ([Table(5, 5)], 32 * MIB, 1 << 20, 40),
        ([Table(1, None)], 32 * MIB, 1 << 20, 8 * MIB),
        ([Table(1, None)], 8 * MIB, 1 << 18, 2 * MIB),
        ([Table(1, None)] * 16, 8 * MIB, 1 << 14, 2 * MIB),
        ([Table(1000, 1000), Table(1, None)], 8 * MIB, (1 << 18) - 1000, 2 * MIB),
        ([Table(1, 1 << 30), Table(1, 10)], 8 * MIB, (1 << 18) - 10, 2 * MIB),
    ],
)
def test_the_share_of_tables(tables, limit, share, size):
    assert table_share(tables, limit) == (share, size)


# What piles up within one call


def test_a_timer_is_set_once_for_a_call(bench):
    guest = Guest()
    calls = [guest.call("proxy_set_tick_period_milliseconds", period) for period in (10, 0, 20, 30, 0, 40)]
    guest.on("proxy_on_request_headers", *calls)
    made = []
    call_later = bench.clock.callLater
    bench.clock.callLater = lambda *args: made.append(args[0]) or call_later(*args)
    _, stream = bench.stream(guest, restart=RestartConfig(spare=False))
    stream.request_head()
    assert made == [0.04]
    bench.clock.advance(0.04)
    assert made == [0.04, 0.04]


def test_an_owner_is_told_of_every_item_by_one_delayed_call_at_a_time(bench):
    guest = Guest()
    register = guest.call("proxy_register_shared_queue", b"q", OUT_U32)
    enqueue = guest.call("proxy_enqueue_shared_queue", f"(i32.load (i32.const {register._outs[0][1]}))", b"item")
    guest.on("proxy_on_configure", register, result=1)
    guest.on("proxy_on_request_headers", *[enqueue] * 150)
    guest.on("proxy_on_queue_ready")
    loaded, stream = bench.stream(guest, restart=RestartConfig(spare=False))
    stream.request_head()
    assert len(bench.clock.getDelayedCalls()) == 1
    while bench.clock.getDelayedCalls():
        bench.clock.advance(0)
        assert len(bench.clock.getDelayedCalls()) <= 1
    assert guest.names(loaded.vm).count("queue_ready") == 150


def test_what_is_asked_of_other_streams_does_not_pile_up(bench):
    guest = Guest()
    choose = guest.call("proxy_set_effective_context", 2)
    resume = guest.call("proxy_continue_stream", 0)
    again = guest.call("proxy_continue_stream", 0)
    guest.on("proxy_on_request_headers", result=[1, 0], nth={1: [choose, resume, *[again] * 1000]})
    loaded, held = bench.stream(guest)
    held.request_head()
    loaded.stream().request_head()
    assert (resume.status(loaded.vm), again.status(loaded.vm)) == (OK, INTERNAL_FAILURE)
    assert 0 < held.events.count("resume_request") < 100
