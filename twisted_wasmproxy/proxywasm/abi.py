"""The Proxy-Wasm ABI as data: every function that a module may import, every one that it may export, every enumeration.

Linking, capability restriction, the arity of callbacks, `wasmproxy inspect` and the tests read the two tables at the
end, `IMPORTS` and `CALLBACKS`. Sources: the Proxy-Wasm specification, `abi-versions/` 0.1.0, 0.2.0 and 0.2.1; WASI
snapshot preview 1; Higress's extension of 0.2.1, which announces itself as 0.2.100.

Everything is wasm32: pointers, sizes, ids, booleans and enumerations travel as unsigned i32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, IntEnum

__all__ = [
    "CALLBACKS",
    "FIELD_SIZE",
    "IMPORTS",
    "MAP_SIZE",
    "MARKERS",
    "VALUE_SIZE",
    "Buffer",
    "Callback",
    "Errno",
    "HostImport",
    "Kind",
    "LogLevel",
    "MapType",
    "MetricType",
    "Status",
    "StreamType",
    "Version",
    "signature",
]


class Version(IntEnum):
    """ABI versions, in order of age; each but the last knows what the one before knows, with the changes noted here."""

    V0_1_0 = 0
    """Headers callbacks have two parameters; a missing header reads as empty."""
    V0_2_0 = 1
    V0_2_1 = 2
    V0_2_100 = 3
    """0.2.1 with Higress's Redis calls, and StopIteration taken literally from headers callbacks."""

    def __str__(self) -> str:
        return self.name[1:].replace("_", ".")


MARKERS: Mapping[str, Version] = {f"proxy_abi_version_{version.name[1:]}": version for version in Version}
"""Exports by which a module says what it was built for; functions `() -> ()` that are never called."""


class Status(IntEnum):
    """What a `proxy_*` function answers."""

    OK = 0
    NOT_FOUND = 1
    BAD_ARGUMENT = 2
    SERIALIZATION_FAILURE = 3
    PARSE_FAILURE = 4
    INVALID_MEMORY = 6
    EMPTY = 7
    CAS_MISMATCH = 8
    INTERNAL_FAILURE = 10
    UNIMPLEMENTED = 12


class Errno(IntEnum):
    """What a WASI function answers: the few numbers that this host uses, those of proxy-wasm-cpp-host."""

    SUCCESS = 0
    BADF = 8
    NOTDIR = 20
    FAULT = 21
    INVAL = 28
    NOENT = 44
    NOSYS = 52
    NOTSUP = 58
    NOTCAPABLE = 76


class LogLevel(IntEnum):
    TRACE = 0
    DEBUG = 1
    INFO = 2
    WARN = 3
    ERROR = 4
    CRITICAL = 5


class MapType(IntEnum):
    HTTP_REQUEST_HEADERS = 0
    HTTP_REQUEST_TRAILERS = 1
    HTTP_RESPONSE_HEADERS = 2
    HTTP_RESPONSE_TRAILERS = 3
    GRPC_CALL_INITIAL_METADATA = 4
    GRPC_CALL_TRAILING_METADATA = 5
    HTTP_CALL_RESPONSE_HEADERS = 6
    HTTP_CALL_RESPONSE_TRAILERS = 7


class Buffer(IntEnum):
    HTTP_REQUEST_BODY = 0
    HTTP_RESPONSE_BODY = 1
    DOWNSTREAM_DATA = 2
    UPSTREAM_DATA = 3
    HTTP_CALL_RESPONSE_BODY = 4
    GRPC_CALL_MESSAGE = 5
    VM_CONFIGURATION = 6
    PLUGIN_CONFIGURATION = 7
    FOREIGN_FUNCTION_ARGUMENTS = 8
    REDIS_CALL_RESPONSE = 9
    """0.2.100 only."""


class StreamType(IntEnum):
    HTTP_REQUEST = 0
    HTTP_RESPONSE = 1
    DOWNSTREAM = 2
    UPSTREAM = 3


class MetricType(IntEnum):
    COUNTER = 0
    GAUGE = 1
    HISTOGRAM = 2


class Kind(Enum):
    """One parameter of a host function as its server sees it."""

    U32 = "u32"
    U64 = "u64"
    S64 = "s64"
    BYTES = "bytes"
    """Address and size of bytes in guest memory."""
    OUT_BYTES = "out bytes"
    """Where to store address and size of bytes, which are put into memory got from the guest's allocator."""
    OUT_U32 = "out u32"
    """Where to store a u32."""
    OUT_U64 = "out u64"

    @property
    def wire(self) -> tuple[str, ...]:
        """Wasm types of the parameters that stand for this one."""
        return _WIRE[self]


_WIRE = {
    Kind.U32: ("i32",),
    Kind.U64: ("i64",),
    Kind.S64: ("i64",),
    Kind.BYTES: ("i32", "i32"),
    Kind.OUT_BYTES: ("i32", "i32"),
    Kind.OUT_U32: ("i32",),
    Kind.OUT_U64: ("i32",),
}


@dataclass(frozen=True)
class HostImport:
    """A function that modules may import."""

    module: str
    name: str
    parameters: tuple[Kind, ...]
    server: str
    """`file.function` in this package: called with the effective context and the parameters that are no outputs."""
    results: tuple[str, ...] = ("i32",)
    """Wire types; `i32` is a `Status` (an `Errno` for WASI)."""
    versions: frozenset[Version] = frozenset(Version)
    """Where it belongs. It links under every version: SDK headers declare functions of others."""
    results_optional: bool = False
    """Whether it links without its result too (the text of 0.1.0 shows none for some)."""
    raw: bool = False
    """The server takes addresses as they are and reads and writes memory itself (WASI's structures)."""
    probe: bool = False
    """Output slots are checked before the call, for what cannot be undone."""
    stable: bool = True
    """Served as specified; False where it only answers a status yet."""
    sizes: tuple[int, ...] = ()
    """How many bytes each parameter of the kind BYTES may have: what is longer is not read."""
    too_large: Status | None = Status.BAD_ARGUMENT
    """The answer where one has more; None where its first bytes are taken instead."""

    def __post_init__(self) -> None:
        if len(self.sizes) != self.parameters.count(Kind.BYTES):
            raise ValueError(f"{self.name} needs a size for each parameter of bytes")

    @property
    def params(self) -> tuple[str, ...]:
        """Wire types of the parameters."""
        return tuple(wire for kind in self.parameters for wire in kind.wire)


@dataclass(frozen=True)
class Callback:
    """A function that modules may export."""

    name: str
    arities: tuple[int, ...]
    """How many parameters it may take; the first is what the present version says."""
    result: bool
    """Whether it returns an i32."""
    called: bool = True
    """Whether this host calls it."""
    default: int = 0
    """What counts as its result where it is not exported."""

    def fits(self, params: tuple[str, ...], results: tuple[str, ...]) -> bool:
        """Return whether an export of this type can be called as this callback."""
        return (
            len(params) in self.arities
            and all(param == "i32" for param in params)
            and results == (("i32",) if self.result else ())
        )


U32, U64, S64, BYTES = Kind.U32, Kind.U64, Kind.S64, Kind.BYTES
OUT_BYTES, OUT_U32, OUT_U64 = Kind.OUT_BYTES, Kind.OUT_U32, Kind.OUT_U64

_ONLY_0_1_0 = frozenset({Version.V0_1_0})
_SINCE_0_2_0 = frozenset({Version.V0_2_0, Version.V0_2_1, Version.V0_2_100})
_SINCE_0_2_1 = frozenset({Version.V0_2_1, Version.V0_2_100})
_ONLY_0_2_100 = frozenset({Version.V0_2_100})


NAME_SIZE = 4 * 1024
"""Bytes of a key of shared data, or the name of a queue, metric, service or foreign function."""
PATH_SIZE = 8 * 1024
"""Bytes of a property path."""
FIELD_SIZE = 64 * 1024
"""Bytes of the name of a header field, and of its value."""
MAP_SIZE = 1024 * 1024
"""Bytes of a map that a guest may send, as in proxy-wasm-cpp-host."""
VALUE_SIZE = 16 * 1024 * 1024
"""Bytes of a value, an item of a queue, a message or a body."""
PROPERTY_SIZE = 1024 * 1024
"""Bytes of a property's value."""
DETAILS_SIZE = 4 * 1024
"""Bytes of the details of a local answer, which go to the access log."""

_SIZES: Mapping[str, tuple[int, ...]] = {
    "proxy_set_header_map_pairs": (MAP_SIZE,),
    "proxy_get_header_map_value": (FIELD_SIZE,),
    "proxy_add_header_map_value": (FIELD_SIZE, FIELD_SIZE),
    "proxy_replace_header_map_value": (FIELD_SIZE, FIELD_SIZE),
    "proxy_remove_header_map_value": (FIELD_SIZE,),
    "proxy_send_local_response": (DETAILS_SIZE, VALUE_SIZE, MAP_SIZE + 1),
    "proxy_get_property": (PATH_SIZE,),
    "proxy_set_property": (PATH_SIZE, PROPERTY_SIZE),
    "proxy_get_shared_data": (NAME_SIZE,),
    "proxy_set_shared_data": (NAME_SIZE, VALUE_SIZE),
    "proxy_register_shared_queue": (NAME_SIZE,),
    "proxy_resolve_shared_queue": (NAME_SIZE, NAME_SIZE),
    "proxy_enqueue_shared_queue": (VALUE_SIZE,),
    "proxy_define_metric": (NAME_SIZE,),
    "proxy_call_foreign_function": (NAME_SIZE, VALUE_SIZE),
    "proxy_http_call": (NAME_SIZE, MAP_SIZE, VALUE_SIZE, MAP_SIZE),
    "proxy_grpc_call": (NAME_SIZE, NAME_SIZE, NAME_SIZE, MAP_SIZE, VALUE_SIZE),
    "proxy_grpc_stream": (NAME_SIZE, NAME_SIZE, NAME_SIZE, MAP_SIZE),
    "proxy_grpc_send": (VALUE_SIZE,),
    "proxy_redis_init": (NAME_SIZE, NAME_SIZE, NAME_SIZE),
    "proxy_redis_call": (NAME_SIZE, VALUE_SIZE),
}

_TOO_LARGE: Mapping[str, Status | None] = {
    # What is that long is not there.
    "proxy_get_header_map_value": Status.NOT_FOUND,
    "proxy_get_property": Status.NOT_FOUND,
    "proxy_get_shared_data": Status.NOT_FOUND,
    "proxy_resolve_shared_queue": Status.NOT_FOUND,
    # BAD_ARGUMENT is not among the answers of these.
    "proxy_grpc_call": Status.INTERNAL_FAILURE,
    "proxy_grpc_stream": Status.INTERNAL_FAILURE,
    # An answer that denies is to be sent whatever comes with it; a map of which a part is missing is no map.
    "proxy_send_local_response": None,
}


def _env(name: str, server: str, *parameters: Kind, **options: object) -> HostImport:
    options["sizes"] = _SIZES.get(name, ())
    options["too_large"] = _TOO_LARGE.get(name, Status.BAD_ARGUMENT)
    return HostImport("env", name, parameters, server, **options)  # type: ignore[arg-type]  # checked where the table is built


_ENV: tuple[HostImport, ...] = (
    _env("proxy_set_effective_context", "control.set_effective_context", U32),
    _env("proxy_done", "control.done"),
    _env("proxy_log", "logs.log", U32, U32, U32, raw=True),
    _env("proxy_get_log_level", "logs.get_log_level", OUT_U32, versions=_SINCE_0_2_1),
    _env("proxy_get_current_time_nanoseconds", "control.get_current_time", OUT_U64),
    _env("proxy_set_tick_period_milliseconds", "control.set_tick_period", U32),
    _env("proxy_get_configuration", "buffers.get_configuration", OUT_BYTES, versions=_ONLY_0_1_0),
    _env("proxy_get_buffer_bytes", "buffers.get_bytes", U32, U32, U32, OUT_BYTES),
    _env("proxy_set_buffer_bytes", "buffers.set_bytes", U32, U32, U32, U32, U32, raw=True),
    _env("proxy_get_buffer_status", "buffers.get_status", U32, OUT_U32, OUT_U32),
    _env("proxy_get_header_map_size", "headers.get_size", U32, OUT_U32),
    _env("proxy_get_header_map_pairs", "headers.get_pairs", U32, OUT_BYTES),
    _env("proxy_set_header_map_pairs", "headers.set_pairs", U32, BYTES),
    _env("proxy_get_header_map_value", "headers.get_value", U32, BYTES, OUT_BYTES),
    _env("proxy_add_header_map_value", "headers.add_value", U32, BYTES, BYTES),
    _env("proxy_replace_header_map_value", "headers.replace_value", U32, BYTES, BYTES),
    _env("proxy_remove_header_map_value", "headers.remove_value", U32, BYTES),
    _env("proxy_continue_request", "control.continue_request", versions=_ONLY_0_1_0, results_optional=True),
    _env("proxy_continue_response", "control.continue_response", versions=_ONLY_0_1_0, results_optional=True),
    _env("proxy_clear_route_cache", "control.clear_route_cache", versions=_ONLY_0_1_0, results_optional=True),
    _env("proxy_continue_stream", "control.continue_stream", U32, versions=_SINCE_0_2_0),
    _env("proxy_close_stream", "control.close_stream", U32, versions=_SINCE_0_2_0),
    _env("proxy_send_local_response", "control.send_local_response", U32, BYTES, BYTES, BYTES, U32),
    _env("proxy_get_status", "callouts.get_status", OUT_U32, OUT_BYTES),
    _env("proxy_get_property", "properties.get_property", BYTES, OUT_BYTES),
    _env("proxy_set_property", "properties.set_property", BYTES, BYTES),
    _env("proxy_get_shared_data", "shared.get_data", BYTES, OUT_BYTES, OUT_U32),
    _env("proxy_set_shared_data", "shared.set_data", BYTES, BYTES, U32),
    _env("proxy_register_shared_queue", "shared.register_queue", BYTES, OUT_U32, probe=True),
    _env("proxy_resolve_shared_queue", "shared.resolve_queue", BYTES, BYTES, OUT_U32),
    _env("proxy_enqueue_shared_queue", "shared.enqueue", U32, BYTES),
    _env("proxy_dequeue_shared_queue", "shared.dequeue", U32, OUT_BYTES, probe=True),
    _env("proxy_define_metric", "metrics.define", U32, BYTES, OUT_U32, probe=True),
    _env("proxy_record_metric", "metrics.record", U32, U64),
    _env("proxy_increment_metric", "metrics.increment", U32, S64),
    _env("proxy_get_metric", "metrics.get", U32, OUT_U64),
    _env("proxy_call_foreign_function", "callouts.call_foreign_function", BYTES, BYTES, U32, U32),
    _env("proxy_http_call", "callouts.http_call", BYTES, BYTES, BYTES, BYTES, U32, OUT_U32, stable=False),
    _env("proxy_grpc_call", "callouts.grpc_call", *[BYTES] * 5, U32, OUT_U32, stable=False),
    _env("proxy_grpc_stream", "callouts.grpc_stream", *[BYTES] * 4, OUT_U32, stable=False),
    _env("proxy_grpc_send", "callouts.grpc_send", U32, BYTES, U32, stable=False),
    _env("proxy_grpc_cancel", "callouts.grpc_cancel", U32, stable=False),
    _env("proxy_grpc_close", "callouts.grpc_close", U32, stable=False),
    _env(
        "proxy_redis_init",
        "callouts.redis_init",
        *(BYTES, BYTES, BYTES, U32),
        versions=_ONLY_0_2_100,
        stable=False,
    ),
    _env("proxy_redis_call", "callouts.redis_call", BYTES, BYTES, OUT_U32, versions=_ONLY_0_2_100, stable=False),
    _env("emscripten_notify_memory_growth", "extras.notify_memory_growth", U32, results=()),
    _env("pthread_equal", "extras.pthread_equal", U32, U32),
    _env("abort", "extras.abort", U32, U32, U32, U32, results=(), raw=True),
)

_WASI: tuple[tuple[str, tuple[Kind, ...]], ...] = (
    ("args_get", (U32, U32)),
    ("args_sizes_get", (U32, U32)),
    ("clock_res_get", (U32, U32)),
    ("clock_time_get", (U32, U64, U32)),
    ("environ_get", (U32, U32)),
    ("environ_sizes_get", (U32, U32)),
    ("fd_advise", (U32, U64, U64, U32)),
    ("fd_allocate", (U32, U64, U64)),
    ("fd_close", (U32,)),
    ("fd_datasync", (U32,)),
    ("fd_fdstat_get", (U32, U32)),
    ("fd_fdstat_set_flags", (U32, U32)),
    ("fd_fdstat_set_rights", (U32, U64, U64)),
    ("fd_filestat_get", (U32, U32)),
    ("fd_filestat_set_size", (U32, U64)),
    ("fd_filestat_set_times", (U32, U64, U64, U32)),
    ("fd_pread", (U32, U32, U32, U64, U32)),
    ("fd_prestat_dir_name", (U32, U32, U32)),
    ("fd_prestat_get", (U32, U32)),
    ("fd_pwrite", (U32, U32, U32, U64, U32)),
    ("fd_read", (U32, U32, U32, U32)),
    ("fd_readdir", (U32, U32, U32, U64, U32)),
    ("fd_renumber", (U32, U32)),
    ("fd_seek", (U32, S64, U32, U32)),
    ("fd_sync", (U32,)),
    ("fd_tell", (U32, U32)),
    ("fd_write", (U32, U32, U32, U32)),
    ("path_create_directory", (U32, U32, U32)),
    ("path_filestat_get", (U32, U32, U32, U32, U32)),
    ("path_filestat_set_times", (U32, U32, U32, U32, U64, U64, U32)),
    ("path_link", (U32, U32, U32, U32, U32, U32, U32)),
    ("path_open", (U32, U32, U32, U32, U32, U64, U64, U32, U32)),
    ("path_readlink", (U32, U32, U32, U32, U32, U32)),
    ("path_remove_directory", (U32, U32, U32)),
    ("path_rename", (U32, U32, U32, U32, U32, U32)),
    ("path_symlink", (U32, U32, U32, U32, U32)),
    ("path_unlink_file", (U32, U32, U32)),
    ("poll_oneoff", (U32, U32, U32, U32)),
    ("proc_exit", (U32,)),
    ("proc_raise", (U32,)),
    ("random_get", (U32, U32)),
    ("sched_yield", ()),
    ("sock_accept", (U32, U32, U32)),
    ("sock_recv", (U32, U32, U32, U32, U32, U32)),
    ("sock_send", (U32, U32, U32, U32, U32)),
    ("sock_shutdown", (U32, U32)),
)

WASI_MODULES = ("wasi_snapshot_preview1", "wasi_unstable")
"""The second is what old emscripten modules name; the functions are the same ones."""


def _wasi(module: str, name: str, parameters: tuple[Kind, ...]) -> HostImport:
    results = () if name == "proc_exit" else ("i32",)
    return HostImport(module, name, parameters, f"wasi.{name}", results, raw=True)


IMPORTS: Mapping[tuple[str, str], HostImport] = {
    (entry.module, entry.name): entry
    for entry in (*_ENV, *(_wasi(module, name, kinds) for module in WASI_MODULES for name, kinds in _WASI))
}
"""Every host function by (module, name)."""

CALLBACKS: Mapping[str, Callback] = {
    callback.name: callback
    for callback in (
        Callback("proxy_on_context_create", (2,), False),
        Callback("proxy_on_vm_start", (2,), True, default=1),
        Callback("proxy_on_configure", (2,), True, default=1),
        Callback("proxy_validate_configuration", (2,), True, called=False, default=1),
        Callback("proxy_on_tick", (1,), False),
        Callback("proxy_on_request_headers", (3, 2), True),
        Callback("proxy_on_request_body", (3,), True),
        Callback("proxy_on_request_trailers", (2,), True),
        Callback("proxy_on_request_metadata", (2,), True, called=False),
        Callback("proxy_on_response_headers", (3, 2), True),
        Callback("proxy_on_response_body", (3,), True),
        Callback("proxy_on_response_trailers", (2,), True),
        Callback("proxy_on_response_metadata", (2,), True, called=False),
        Callback("proxy_on_new_connection", (1,), True, called=False),
        Callback("proxy_on_downstream_data", (3,), True, called=False),
        Callback("proxy_on_downstream_connection_close", (2,), False, called=False),
        Callback("proxy_on_upstream_data", (3,), True, called=False),
        Callback("proxy_on_upstream_connection_close", (2,), False, called=False),
        Callback("proxy_on_http_call_response", (5,), False, called=False),
        Callback("proxy_on_grpc_receive_initial_metadata", (3,), False, called=False),
        Callback("proxy_on_grpc_receive", (3,), False, called=False),
        Callback("proxy_on_grpc_receive_trailing_metadata", (3,), False, called=False),
        Callback("proxy_on_grpc_close", (3,), False, called=False),
        Callback("proxy_on_redis_call_response", (4,), False, called=False),
        Callback("proxy_on_foreign_function", (3,), False, called=False),
        Callback("proxy_on_queue_ready", (2,), False),
        Callback("proxy_on_done", (1,), True, default=1),
        Callback("proxy_on_log", (1,), False),
        Callback("proxy_on_delete", (1,), False),
    )
}
"""Every callback by its export name. `_initialize`, `main`, `_start` and the allocator stand apart (see vm.py)."""


def signature(params: tuple[str, ...], results: tuple[str, ...]) -> str:
    """Return a function type as text."""
    return f"({', '.join(params)}) -> ({', '.join(results)})"
