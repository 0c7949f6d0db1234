"""The examples in Python do what their files say."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.support.proxy import fetch, free_port, running_proxy

EXAMPLES = Path(__file__).parents[2] / "examples"


@contextmanager
def slow_origin() -> Iterator[tuple[int, threading.Event, threading.Semaphore]]:
    """Answers 200 once `release` is set; `arrived` counts the requests that wait."""
    release = threading.Event()
    arrived = threading.Semaphore(0)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            arrived.release()
            release.wait(20)
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port, release, arrived
    finally:
        release.set()
        server.shutdown()
        server.server_close()


def _config(origin: int, wait: float) -> dict[str, object]:
    return {
        "upstreams": {"origin": {"servers": [f"http://127.0.0.1:{origin}"]}},
        "remap": [{"upstream": "origin"}],
        "filters": [{"native": "request-budget", "configuration": {"at_once": 1, "wait": wait}}],
    }


def test_the_native_filter_holds_a_request_over_the_budget_until_one_has_ended(tmp_path: Path) -> None:
    environment = {"PYTHONPATH": str(EXAMPLES / "native_filter")}
    with (
        slow_origin() as (origin, release, arrived),
        running_proxy(_config(origin, 20.0), tmp_path, environment=environment) as proxy,
    ):
        statuses: list[int] = []
        threads = [threading.Thread(target=lambda: statuses.append(proxy.fetch("/").status)) for _ in range(2)]
        for thread in threads:
            thread.start()
        assert arrived.acquire(timeout=10)
        assert not arrived.acquire(timeout=0.3), "the second request must not reach the origin yet"
        release.set()
        for thread in threads:
            thread.join(10)
        assert statuses == [200, 200]


def test_the_native_filter_answers_a_request_that_has_waited_too_long(tmp_path: Path) -> None:
    environment = {"PYTHONPATH": str(EXAMPLES / "native_filter")}
    with (
        slow_origin() as (origin, release, arrived),
        running_proxy(_config(origin, 0.2), tmp_path, environment=environment) as proxy,
    ):
        first = threading.Thread(target=lambda: proxy.fetch("/"))
        first.start()
        assert arrived.acquire(timeout=10)
        answer = proxy.fetch("/")
        assert (answer.status, answer.header("retry-after"), answer.body) == (429, "1", b"too many requests at once\n")
        assert answer.header("x-budget") == "1", "response filters see a local answer, too"
        release.set()
        first.join(10)


def test_the_proxy_is_mounted_beside_other_resources(tmp_path: Path) -> None:
    port = free_port()
    with slow_origin() as (origin, release, _):
        release.set()
        site = EXAMPLES / "mounted_site" / "site.py"
        (tmp_path / "site.py").write_text(site.read_text().replace("tcp:8080", f"tcp:{port}"))
        rules = (EXAMPLES / "mounted_site" / "proxy.yaml").read_text().replace("8081", str(origin))
        (tmp_path / "proxy.yaml").write_text(rules.replace("../c_headers", str(EXAMPLES / "c_headers")))
        command = [Path(sys.executable).with_name("twistd"), "--pidfile=", "-ny", "site.py"]
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
        try:
            deadline = time.monotonic() + 60
            while True:
                try:
                    own = fetch(port, "/status")
                    break
                except ConnectionRefusedError:
                    assert process.poll() is None
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
            assert own.body == b"all is well\n"
            proxied = fetch(port, "/some/path")
            assert (proxied.status, proxied.body) == (200, b"ok")
            assert proxied.header("x-filtered-by") == "headers.wasm"
        finally:
            process.terminate()
            assert process.wait(20) == -signal.SIGTERM  # twistd ends by the signal that it was sent


@pytest.mark.parametrize("configuration", ["at_once", {"at_once": 0}, {"at_one": 1}])
def test_the_native_filter_refuses_a_wrong_configuration(tmp_path: Path, configuration: object) -> None:
    sys.path.insert(0, str(EXAMPLES / "native_filter"))
    try:
        from request_budget import RequestBudget  # type: ignore[import-not-found]
    finally:
        sys.path.pop(0)
    with pytest.raises(ValueError, match=r"mapping|from 1 up|unknown key 'at_one'"):
        RequestBudget().configured(configuration)
