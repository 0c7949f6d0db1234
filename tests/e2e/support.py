"""An origin that is a script on plain sockets, and a client that says exact bytes: both ends of a proxied exchange."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.http1 import Peer
from tests.support.proxy import Proxy

__all__ = [
    "Arrival",
    "Client",
    "Pair",
    "ScriptedOrigin",
    "answer",
    "connect",
    "eventually",
    "pem_files",
    "plugin_environment",
    "resident_kib",
    "reverse_config",
    "scripted_origin",
]


def eventually(condition: Callable[[], Any], timeout: float = 10.0, what: str = "") -> Any:
    """Wait for something that only looking can tell (a log file, /proc); return the first true value."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, what or "it did not come true in time"
        time.sleep(0.02)
    return value


def resident_kib(pid: int) -> int:
    """Return the resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError("no VmRSS")


class Client(Peer):
    """A client of the proxy."""

    def request(
        self, target: str = "/", method: str = "GET", *lines: str, body: bytes = b"", host: str = "proxy.test"
    ) -> None:
        """Send one request; `lines` are further field lines."""
        fields = [f"Host: {host}", *lines]
        if body and not any(line.lower().startswith("transfer-encoding") for line in lines):
            fields.append(f"Content-Length: {len(body)}")
        head = f"{method} {target} HTTP/1.1\r\n" + "".join(f"{line}\r\n" for line in fields) + "\r\n"
        self.send(head.encode() + body)

    def get(self, target: str = "/", *lines: str) -> tuple[int, dict[bytes, bytes], bytes]:
        self.request(target, "GET", *lines)
        return self.response()


def connect(port: int, receive_buffer: int | None = None) -> Client:
    """Return a client connected to a port of 127.0.0.1."""
    sock = socket.socket()
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.connect(("127.0.0.1", port))
    return Client(sock)


class Arrival(Peer):
    """A request that has come to the origin, and the connection to answer it on."""

    def __init__(self, sock: Any, number: int, secure: bool) -> None:
        super().__init__(sock)
        self.number = number
        """Of the connection, from 0."""
        self.secure = secure
        self.raw = b""
        """All that has come on this connection."""
        self.method = b""
        self.target = b""
        self.lines: list[tuple[bytes, bytes]] = []
        self.trailers: list[bytes] = []

    def _more(self) -> bool:
        data = self.sock.recv(65536)
        self.raw += data if len(self.raw) < 1 << 20 else b""
        self.buffer += data
        return bool(data)

    def read_head(self) -> bool:
        while b"\r\n\r\n" not in self.buffer:
            if not self._more():
                return False
        start, *lines = self.read_until(b"\r\n\r\n")[:-4].split(b"\r\n")
        self.method, self.target, _ = start.split(b" ")
        self.lines = [(name.lower(), value) for name, _, value in (line.partition(b": ") for line in lines)]
        return True

    def all(self, name: bytes) -> list[bytes]:
        """Return every value of a header field."""
        return [value for key, value in self.lines if key == name]

    def field(self, name: bytes) -> bytes | None:
        """Return the only value of a header field, or None."""
        values = self.all(name)
        assert len(values) < 2, values
        return values[0] if values else None

    def content(self) -> bytes:
        """Read the content of the request."""
        if self.field(b"transfer-encoding") == b"chunked":
            content = b""
            while size := int(self.read_until(b"\r\n"), 16):
                content += self.read(size)
                assert self.read(2) == b"\r\n"
            self.trailers = []
            while (line := self.read_until(b"\r\n")) != b"\r\n":
                self.trailers.append(line[:-2])
            return content
        return self.read(int(self.field(b"content-length") or 0))

    def copy(self) -> dict[str, Any]:
        return {"method": self.method, "target": self.target, "lines": list(self.lines), "connection": self.number}


def answer(body: bytes = b"ok", *lines: str, status: str = "200 OK") -> bytes:
    """Return a response with Content-Length."""
    fields = "".join(f"{line}\r\n" for line in lines)
    return f"HTTP/1.1 {status}\r\n{fields}Content-Length: {len(body)}\r\n\r\n".encode() + body


def _echo(arrival: Arrival) -> None:
    content = arrival.content()
    body = arrival.method + b" " + arrival.target + b" " + content
    arrival.send(answer(b"" if arrival.method == b"HEAD" else body))


Script = Callable[[Arrival], "bool | None"]


class ScriptedOrigin:
    """`script` is run for each request when its head is in; the connection is closed when it returns False or fails."""

    def __init__(self, listener: socket.socket, context: ssl.SSLContext | None) -> None:
        self.script: Script = _echo
        self.port: int = listener.getsockname()[1]
        self.seen: list[dict[str, Any]] = []
        """What has come, heads only."""
        self.connections = 0
        self.raw: list[Arrival] = []
        self.error: BaseException | None = None
        self._listener = listener
        self._context = context
        self._changed = threading.Condition()

    def reset(self, script: Script = _echo) -> None:
        """Begin anew with another script."""
        with self._changed:
            self.script = script
            self.seen.clear()
            self.raw.clear()
            self.error = None

    def wait(self, condition: Callable[[], Any], timeout: float = 10.0) -> None:
        """Wait until a request that comes makes `condition` true."""
        with self._changed:
            assert self._changed.wait_for(condition, timeout), self.seen

    def accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock, self.connections), daemon=True).start()
            self.connections += 1

    def _serve(self, sock: socket.socket, number: int) -> None:
        sock.settimeout(20)
        try:
            if self._context is not None:
                sock = self._context.wrap_socket(sock, server_side=True)
            arrival = Arrival(sock, number, self._context is not None)
            sock.settimeout(60)
            with self._changed:
                self.raw.append(arrival)
            while arrival.read_head():
                with self._changed:
                    self.seen.append(arrival.copy())
                    script = self.script
                    self._changed.notify_all()
                if script(arrival) is False:
                    break
        except AssertionError as error:
            self.error = error
        except (OSError, ValueError):  # ValueError: a script has left content unread, and it is no request line
            pass
        finally:
            sock.close()


@contextmanager
def scripted_origin(
    host: str = "127.0.0.1", context: ssl.SSLContext | None = None, port: int = 0
) -> Iterator[ScriptedOrigin]:
    """Serve until the block ends."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=256)
    origin = ScriptedOrigin(listener, context)
    thread = threading.Thread(target=origin.accept, daemon=True)
    thread.start()
    try:
        yield origin
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def reverse_config(origin: ScriptedOrigin, **more: Any) -> dict[str, Any]:
    """Return a configuration that sends everything to one origin."""
    config: dict[str, Any] = {
        "upstreams": {"origin": {"servers": [f"http://127.0.0.1:{origin.port}"]}},
        "remap": [{"upstream": "origin"}],
    }
    for key, value in more.items():
        if isinstance(value, Mapping) and isinstance(config.get(key), dict):
            config[key].update(value)
        else:
            config[key] = value
    return config


def pem_files(folder: Path, *names: str) -> tuple[Path, Path, Path, ssl.SSLContext]:
    """Make a certificate; return the files of key, certificate and authority, and a server's context."""
    import trustme

    authority = trustme.CA()
    certificate = authority.issue_cert(*names)
    key, chain, root = folder / "key.pem", folder / "cert.pem", folder / "ca.pem"
    certificate.private_key_pem.write_to_path(key)
    chain.write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    authority.cert_pem.write_to_path(root)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return key, chain, root, context


@dataclass
class Pair:
    """A proxy, the origin behind it, and the file of the access log as JSON lines."""

    proxy: Proxy
    origin: ScriptedOrigin
    log: Path

    def connect(self) -> Client:
        return connect(self.proxy.port)


def plugin_environment(folder: Path) -> dict[str, str]:
    """Return an environment in which a proxy finds the filters of `native_filters`."""
    plugins = folder / "plugins" / "twisted" / "plugins"
    plugins.mkdir(parents=True)
    shutil.copy(Path(__file__).with_name("native_filters.py"), plugins / "e2e_filters.py")
    path = os.pathsep.join([str(folder / "plugins"), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path}
