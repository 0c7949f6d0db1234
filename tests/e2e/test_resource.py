"""`WasmProxyResource` in a `Site` under twistd: the same proxy behind twisted.web."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.e2e.support import (
    Arrival,
    Client,
    ScriptedOrigin,
    answer,
    connect,
    eventually,
    plugin_environment,
    resident_kib,
    reverse_config,
    scripted_origin,
)
from tests.support.proxy import free_port

MIB = 1024 * 1024
HEADERS_WASM = Path(__file__).parents[2] / "examples" / "c_headers" / "headers.wasm"

SITE = """
from pathlib import Path

from twisted.application.internet import StreamServerEndpointService
from twisted.application.service import Application
from twisted.internet import reactor
from twisted.internet.endpoints import serverFromString
from twisted.web.resource import Resource
from twisted.web.server import Site
from twisted.web.static import Data

from twisted_wasmproxy.config import load
from twisted_wasmproxy.resource import WasmProxyResource
from twisted_wasmproxy.service import ProxyService

application = Application("site")
proxy = ProxyService(load(Path("proxy.yaml")))
proxy.setServiceParent(application)
root = Resource()
root.putChild(b"own", Data(b"not the proxy", "text/plain"))
root.putChild(b"app", WasmProxyResource(proxy))
for name, top in (("unix:root.sock", WasmProxyResource(proxy)), ("tcp:PORT:interface=127.0.0.1", root)):
    StreamServerEndpointService(serverFromString(reactor, name), Site(top)).setServiceParent(application)
"""


@dataclass
class Mounted:
    process: subprocess.Popen[bytes]
    port: int
    origin: ScriptedOrigin
    folder: Path

    def connect(self) -> Client:
        return connect(self.port)

    def logged(self, target: str) -> dict[str, object]:
        """Wait for the access log's line about a target."""
        path = self.folder / "access.json"

        def find() -> list[dict[str, object]]:
            lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
            return [line for line in lines if str(line["url"]).endswith(target)]

        found: dict[str, object] = eventually(find)[0]
        return found


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounted]:
    folder = tmp_path_factory.mktemp("mounted")
    port = free_port()
    with scripted_origin() as origin:
        config = reverse_config(
            origin,
            listeners=[],
            filters=[
                {
                    "configuration": "response set x-filter: 1\n",
                    "vm_config": {"code": {"local": {"filename": str(HEADERS_WASM)}}},
                },
                {"native": "length"},
            ],
            access_log={"path": "access.json", "format": "json"},
            limits={"body": "3MiB"},
            timeouts={"idle": 1},
            remap=[
                {"match": {"path": "/app/no"}, "respond": 451},
                {"match": {"path": "/app/"}, "upstream": "origin"},
            ],
        )
        (folder / "proxy.yaml").write_text(yaml.safe_dump(config))
        (folder / "site.py").write_text(SITE.replace("PORT", str(port)))
        twistd = Path(sys.executable).with_name("twistd")
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [twistd, "--nodaemon", "--pidfile=", "--no_save", "--python", "site.py"],
                cwd=folder,
                env=plugin_environment(folder),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:

            def serves() -> bool:
                assert process.poll() is None, (folder / "log").read_text()
                try:
                    with connect(port) as client:
                        return client.get("/own")[0] == 200
                except OSError:
                    return False

            eventually(serves, 30)
            yield Mounted(process, port, origin, folder)
        finally:
            process.terminate()
            process.wait(15)
        text = (folder / "log").read_text()
        assert "Traceback" not in text, text


@pytest.fixture
def mounted(shared: Mounted) -> Mounted:
    shared.origin.reset()
    return shared


def test_other_resources_stay_what_they_are(mounted: Mounted) -> None:
    with mounted.connect() as client:
        assert client.get("/own")[2] == b"not the proxy"
        assert client.get("/other")[0] == 404
    assert not mounted.origin.seen


def test_requests_go_through_rules_filters_and_upstreams(mounted: Mounted) -> None:
    with mounted.connect() as client:
        for number in range(3):
            status, fields, body = client.get(f"/app/{number}?q")
            assert (status, body) == (200, b"GET /app/%d?q " % number)
            assert fields[b"x-filter"] == b"1"
            assert b"wasmproxy" in fields[b"via"]
            assert b"server" not in fields
    lines = dict(mounted.origin.seen[0]["lines"])
    assert lines[b"host"] == b"proxy.test"
    assert lines[b"x-forwarded-for"] == b"127.0.0.1"
    assert mounted.logged("/app/2?q")["status"] == 200


def test_request_bodies_pass_whole_with_their_length(mounted: Mounted) -> None:
    body = bytes(range(256)) * 8000
    with mounted.connect() as client:
        client.request("/app/p", "POST", "Connection: X-Hop", "X-Hop: 1", body=body)
        assert client.response()[2] == b"POST /app/p " + body
        client.request("/app/c", "PUT", "Transfer-Encoding: chunked")
        client.send(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
        assert client.response()[2] == b"PUT /app/c abcde"
        client.request("/app/e", "POST", "Expect: 100-continue", "Content-Length: 2")
        assert client.response()[0] == 100
        client.send(b"hi")
        assert client.response()[2] == b"POST /app/e hi"
    lines = [dict(seen["lines"]) for seen in mounted.origin.seen]
    assert lines[0][b"content-length"] == b"%d" % len(body)
    assert lines[1][b"content-length"] == b"5"
    assert b"x-hop" not in lines[0]
    assert b"expect" not in lines[2]


def test_a_site_may_be_nothing_but_the_proxy_and_serve_a_unix_socket(mounted: Mounted) -> None:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(mounted.folder / "root.sock"))
    with Client(sock) as client:
        client.send(b"GET http://named.test/app/x HTTP/1.1\r\nHost: other\r\n\r\n")
        assert client.response()[2] == b"GET /app/x "
        client.send(b"GET http://u:p@named.test/ HTTP/1.1\r\nHost: other\r\n\r\n")
        assert client.response()[0] == 400
        assert client.get("/app/y")[2] == b"GET /app/y "
    assert dict(mounted.origin.seen[0]["lines"])[b"host"] == b"named.test"


MALFORMED = {
    "userinfo in Host": b"GET /app/ HTTP/1.1\r\nHost: evil@v.example\r\n\r\n",
    "two Hosts": b"GET /app/ HTTP/1.1\r\nHost: a\r\nHost: v.example\r\n\r\n",
    "no Host": b"GET /app/ HTTP/1.1\r\nX: 1\r\n\r\n",
    "a path in Host": b"GET /app/ HTTP/1.1\r\nHost: a/b@v\r\n\r\n",
    "a list in Host": b"GET /app/ HTTP/1.1\r\nHost: a,b\r\n\r\n",
    "a query in Host": b"GET /app/ HTTP/1.1\r\nHost: a?b\r\n\r\n",
    "a fragment in Host": b"GET /app/ HTTP/1.1\r\nHost: a#b\r\n\r\n",
    "a backslash in Host": b"GET /app/ HTTP/1.1\r\nHost: a\\b\r\n\r\n",
    "a space in Host": b"GET /app/ HTTP/1.1\r\nHost: a b\r\n\r\n",
    "IDNA bytes in Host": "GET /app/ HTTP/1.1\r\nHost: b\u00fccher.example\r\n\r\n".encode(),
    "no port in Host": b"GET /app/ HTTP/1.1\r\nHost: a:b\r\n\r\n",
    "a large port in Host": b"GET /app/ HTTP/1.1\r\nHost: a:99999\r\n\r\n",
    "a port alone in Host": b"GET /app/ HTTP/1.1\r\nHost: :80\r\n\r\n",
    "half an IPv6 address": b"GET /app/ HTTP/1.1\r\nHost: [::1\r\n\r\n",
    "a zone in Host": b"GET /app/ HTTP/1.1\r\nHost: [fe80::1%25eth0]\r\n\r\n",
    "userinfo in the target": b"GET http://u@a/app/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "absolute form and a bad Host": b"GET http://a/app/ HTTP/1.1\r\nHost: a,b\r\n\r\n",
    "a fragment in the target": b"GET /app/#x HTTP/1.1\r\nHost: a\r\n\r\n",
    "another scheme": b"GET ftp://a/app/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "a method that is no token": b"G(T /app/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "a name that is no token": b"GET /app/ HTTP/1.1\r\nHost: a\r\nX(Y: 1\r\n\r\n",
    "a control byte": b"GET /app/ HTTP/1.1\r\nHost: a\r\nX: a\x08b\r\n\r\n",
    "NUL": b"GET /app/ HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
    "both lengths": (
        b"POST /app/ HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    ),
    "two lengths": b"POST /app/ HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "signed length": b"POST /app/ HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\na",
    "too many fields": b"GET /app/ HTTP/1.1\r\nHost: a\r\n" + b"X: a\r\n" * 300 + b"\r\n",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_a_listener_refuses_a_site_refuses_too(mounted: Mounted, name: str) -> None:
    for port_or_path in (mounted.port, "root.sock"):
        if isinstance(port_or_path, int):
            client = mounted.connect()
        else:
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(str(mounted.folder / port_or_path))
            client = Client(sock)
        with client:
            client.send(MALFORMED[name])
            try:
                status = int(client.read_until(b"\r\n").split(b" ")[1])
            except (AssertionError, ConnectionResetError):  # twisted.web has closed without a word
                status = 400
            assert status in (400, 404, 405, 431, 501), status
    assert not mounted.origin.seen


def test_a_site_and_a_listener_give_a_request_the_same_uri(mounted: Mounted) -> None:
    with mounted.connect() as client:
        client.send(
            b"GET /app/ HTTP/1.1\r\nHost: V.Example:080\r\nX_Y: 1\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\n\r\n"
        )
        assert client.response()[0] == 200
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(mounted.folder / "root.sock"))
    with Client(sock) as client:
        client.send(b"GET https://V.Example:443/app/s HTTP/1.1\r\nHost: other\r\n\r\n")
        assert client.response()[0] == 200
    first, second = (dict(seen["lines"]) for seen in mounted.origin.seen)
    assert first[b"host"] == first[b"x-forwarded-host"] == b"v.example"
    assert not {b"x_y", b"x-hop"} & set(first)
    # The connection is no TLS, whatever the target says; so 443 is no default port.
    assert second[b"host"] == second[b"x-forwarded-host"] == b"v.example:443"
    assert second[b"x-forwarded-proto"] == b"http"


def test_answers_without_content(mounted: Mounted) -> None:
    mounted.origin.reset(lambda arrival: arrival.send(b"HTTP/1.1 200 OK\r\nContent-Length: 77\r\nX-A: 1\r\n\r\n"))
    with mounted.connect() as client:
        for _ in range(2):
            client.request("/app/", "HEAD")
            status, fields, _ = client.response(head=True)
            assert (status, fields[b"content-length"], fields[b"x-a"]) == (200, b"77", b"1")
        for status in (204, 304):
            mounted.origin.reset(
                lambda arrival, status=status: arrival.send(b"HTTP/1.1 %d X\r\nETag: a\r\n\r\n" % status)
            )
            assert client.get("/app/")[0] == status
        mounted.origin.reset(lambda arrival: arrival.send(answer(b"", status="299 Odd")))
        client.request("/app/")
        assert client.read_until(b"\r\n") == b"HTTP/1.1 299 Odd\r\n"


def test_what_the_proxy_answers_itself(mounted: Mounted) -> None:
    with mounted.connect() as client:
        status, fields, body = client.get("/app/no")
        assert (status, body, fields[b"content-length"]) == (451, b"", b"0")
        status, _, body = client.get("/app")
        assert status == 404
        assert body.startswith(b"404 Not Found: ")
        client.request("/app/no", "POST", body=b"x" * 100_000)
        assert client.response()[0] == 451
        mounted.origin.reset(lambda arrival: False)
        client.request("/app/x", "POST", body=b"x")
        assert client.response()[0] == 502
        mounted.origin.reset()
        assert client.get("/app/y")[2] == b"GET /app/y "


def test_limits_and_times_of_the_file_hold(mounted: Mounted) -> None:
    with mounted.connect() as client:
        client.request("/app/", "POST", body=b"x" * (3 * MIB + 1))
        assert client.response()[0] == 413
    assert not mounted.origin.seen
    mounted.origin.reset(lambda arrival: bool(arrival.read_all()))
    with mounted.connect() as client:
        assert client.get("/app/")[0] == 504


def test_answers_stream_and_wait_for_a_slow_reader(mounted: Mounted) -> None:
    size = 64 * MIB
    sent = [0]

    def script(arrival: Arrival) -> None:
        arrival.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        assert go.wait(10)
        piece = b"x" * MIB
        for _ in range(size // MIB):
            arrival.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            sent[0] += len(piece)
        arrival.send(b"0\r\n\r\n")

    go = threading.Event()
    mounted.origin.reset(script)
    with connect(mounted.port, receive_buffer=32 * 1024) as client:
        client.request("/app/")
        client.read_until(b"first\r\n")
        before = resident_kib(mounted.process.pid)
        go.set()

        def stalled() -> bool:
            at = sent[0]
            return not threading.Event().wait(0.3) and at == sent[0]

        eventually(stalled)
        assert sent[0] < size
        total = 0
        while size := int(client.read_until(b"\r\n"), 16):
            total += len(client.read(size))
            client.read(2)
        assert total == 64 * MIB
        assert resident_kib(mounted.process.pid) - before < 16 * 1024


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize(
    "lie",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    ],
    ids=["length", "chunked"],
)
def test_an_origin_that_breaks_off_breaks_the_message(mounted: Mounted, lie: bytes, version: str) -> None:
    def script(arrival: Arrival) -> bool:
        arrival.send(lie)
        return False

    mounted.origin.reset(script)
    with mounted.connect() as client:
        client.send(f"GET /app/lie HTTP/{version}\r\nHost: a\r\n\r\n".encode())
        try:
            head, _, body = client.read_all().partition(b"\r\n\r\n")
        except ConnectionResetError:
            return
    assert (b"Content-Length: 1000" in head and len(body) < 1000) or (b"chunked" in head and b"0\r\n\r\n" not in body)


@pytest.mark.parametrize("longer", ["longer", "shorter"])
def test_a_filter_that_lies_breaks_the_message_and_ends_the_transaction(mounted: Mounted, longer: str) -> None:
    def script(arrival: Arrival) -> None:
        arrival.send(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n1234")
        arrival.send(b"5678")

    mounted.origin.reset(script)
    with mounted.connect() as client:
        client.request(f"/app/{longer}")
        try:
            head, _, body = client.read_all().partition(b"\r\n\r\n")
            assert not head or len(body) < int(head.lower().partition(b"content-length: ")[2].split(b"\r")[0])
        except ConnectionResetError:
            pass
    mounted.logged(f"/app/{longer}")


def test_a_client_that_leaves_ends_the_transaction(mounted: Mounted) -> None:
    ended = threading.Event()

    def script(arrival: Arrival) -> bool:
        arrival.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        arrival.closed()
        ended.set()
        return False

    mounted.origin.reset(script)
    with mounted.connect() as client:
        client.request("/app/leaves")
        client.read_until(b"abc")
        client.reset()
    assert ended.wait(10)
    assert mounted.logged("/app/leaves")["result"] == "ERR_CLIENT_ABORT"
