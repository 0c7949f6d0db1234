"""The real thing: `twistd wasmproxy --config` as a subprocess, and a plain HTTP client to talk to it."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

__all__ = ["Proxy", "Response", "StartFailed", "fetch", "free_port", "running_proxy"]

START_TIMEOUT = 60.0
"""Seconds; the first start of a large module compiles it."""


class StartFailed(Exception):
    """The proxy ended, or did not listen in time; the text is its log."""


@dataclass
class Response:
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def all(self, name: str) -> list[str]:
        """Return every value of a header field, in order."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def header(self, name: str) -> str | None:
        """Return the only value of a header field, or None."""
        values = self.all(name)
        assert len(values) < 2, values
        return values[0] if values else None

    def json(self) -> Any:
        return json.loads(self.body)


def fetch(
    port: int,
    target: str = "/",
    *,
    method: str = "GET",
    headers: Sequence[tuple[str, str]] = (),
    body: bytes | Sequence[bytes] | None = None,
    timeout: float = 10.0,
) -> Response:
    """Send one request to 127.0.0.1 and read the answer; a sequence of chunks as the body is sent chunked."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    names = {name.lower() for name, _ in headers}
    try:
        connection.putrequest(method, target, skip_host="host" in names, skip_accept_encoding=True)
        for name, value in headers:
            connection.putheader(name, value)
        if isinstance(body, bytes):
            if "content-length" not in names:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
        elif body is not None:
            connection.putheader("Transfer-Encoding", "chunked")
            connection.endheaders(iter(body), encode_chunked=True)
        else:
            connection.endheaders()
        response = connection.getresponse()
        return Response(response.status, response.getheaders(), response.read())
    finally:
        connection.close()


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Proxy:
    """A running proxy; `port` is that of its first listener where `running_proxy` chose it."""

    process: subprocess.Popen[bytes]
    port: int
    config: Path
    log_file: Path

    @property
    def log(self) -> str:
        """What it has logged so far."""
        return self.log_file.read_text(errors="replace")

    def fetch(self, target: str = "/", **options: Any) -> Response:
        return fetch(self.port, target, **options)

    def stop(self, timeout: float = 15.0) -> int:
        """Ask it to end, wait, and return its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the proxy did not stop within {timeout} s:\n{self.log}") from None


def _is_serving(port: int, timeout: float) -> bool:
    """Say whether connections are answered: a port may be bound for long before the reactor runs.

    A running server closes a connection whose client has nothing to say. So does the end of a process that failed to
    start; then a second connection finds nobody.
    """
    try:
        with socket.create_connection(("127.0.0.1", port), 1.0) as connection:
            connection.settimeout(timeout)
            connection.shutdown(socket.SHUT_WR)
            connection.recv(1)
        socket.create_connection(("127.0.0.1", port), 1.0).close()
    except OSError:
        return False
    return True


def _wait_until_serving(proxy: Proxy, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while (left := deadline - time.monotonic()) > 0:
        if _is_serving(proxy.port, left):
            return
        try:
            status = proxy.process.wait(0.05)
        except subprocess.TimeoutExpired:
            continue
        raise StartFailed(f"the proxy ended with status {status}:\n{proxy.log}")
    raise StartFailed(f"the proxy does not serve on port {proxy.port} after {timeout} s:\n{proxy.log}")


@contextmanager
def running_proxy(
    config: Mapping[str, Any] | Path,
    folder: Path,
    *,
    port: int | None = None,
    environment: Mapping[str, str] | None = None,
    timeout: float = START_TIMEOUT,
    options: Sequence[str] = (),
) -> Iterator[Proxy]:
    """Run `twistd -n wasmproxy --config` until the block ends.

    A mapping is written to `folder`/proxy.yaml; where it names no listeners it gets one, in reverse mode on a free
    port. For a file, or listeners of your own, say which `port` to wait for. `options` are twistd's.

    Raises StartFailed.
    """
    if port is None:
        port = free_port()
    if isinstance(config, Path):
        path = config
    else:
        path = folder / "proxy.yaml"
        listeners = [{"endpoint": f"tcp:{port}:interface=127.0.0.1"}]
        path.write_text(yaml.safe_dump({"listeners": listeners, **config}, sort_keys=False))
    log_file = folder / "proxy.log"
    twistd = Path(sys.executable).with_name("twistd")
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [twistd, "--nodaemon", "--pidfile=", *options, "wasmproxy", "--config", path],
            cwd=folder,
            env=dict(environment) if environment is not None else None,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    proxy = Proxy(process, port, path, log_file)
    try:
        _wait_until_serving(proxy, timeout)
        yield proxy
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
