"""The reactor that `twistd wasmproxy` brings: chosen unless another is, and no connection's trouble is another's."""

from __future__ import annotations

import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.origin import running_origin
from tests.support.proxy import running_proxy

SERVER = """
import sys
from twisted_wasmproxy.reactor import install_unless_chosen
install_unless_chosen()
from twisted.internet import reactor
from twisted_wasmproxy.config.model import LimitsConfig, TimeoutsConfig
from twisted_wasmproxy.http.headers import Headers
from twisted_wasmproxy.http.http1.server import ServerFactory
from twisted_wasmproxy.http.messages import Response

class Answer:
    def data_received(self, data): pass
    def end_received(self, trailers): pass
    def stream_failed(self, error): pass
    def stream_finished(self): pass
    def pause_writing(self): pass
    def resume_writing(self): pass

def handler(stream, end_stream):
    if stream.request.path == b"/broken":
        raise RuntimeError("broken on purpose")
    stream.send_response(Response(204, Headers()), True)
    return Answer()

port = reactor.listenTCP(0, ServerFactory(handler, LimitsConfig(), TimeoutsConfig()), 500, "127.0.0.1")
print(type(reactor).__name__, port.getHost().port, flush=True)
reactor.run()
"""


REQUEST = b"GET %b HTTP/1.1\r\nHost: h\r\n\r\n"


def _connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), 10)


def _ask(peer: socket.socket, path: bytes) -> bytes:
    with peer:
        peer.sendall(REQUEST % path)
        return peer.recv(100)


def test_a_connection_that_fails_gets_a_500_and_those_read_with_it_are_served() -> None:
    process = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert process.stdout is not None
        name, port = process.stdout.readline().split()
        assert name == b"ProxyReactor"
        paths = [b"/broken" if number % 3 == 1 else b"/%d" % number for number in range(200)]
        peers = [_connect(int(port)) for _ in paths]
        gone = _connect(int(port))
        assert _ask(_connect(int(port)), b"/accepted").startswith(b"HTTP/1.1 204 ")
        # While the process is stopped they all become ready: one pass of the reactor reads them together.
        process.send_signal(signal.SIGSTOP)
        for path, peer in zip(paths, peers, strict=True):
            peer.sendall(REQUEST % path)
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        gone.close()
        process.send_signal(signal.SIGCONT)
        for path, peer in zip(paths, peers, strict=True):
            answer = peer.recv(100)
            assert answer.startswith(b"HTTP/1.1 500 " if path == b"/broken" else b"HTTP/1.1 204 "), path
            peer.close()
        assert _ask(_connect(int(port)), b"/after").startswith(b"HTTP/1.1 204 ")
    finally:
        process.kill()
        process.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="epoll is Linux's")
@pytest.mark.parametrize(("options", "name"), [((), "ProxyReactor"), (("--reactor=select",), "SelectReactor")])
def test_twistd_takes_it_unless_told_another(tmp_path: Path, options: tuple[str, ...], name: str) -> None:
    with running_origin() as origin:
        config = {
            "upstreams": {"origin": {"servers": [f"http://127.0.0.1:{origin.port}"]}},
            "remap": [{"upstream": "origin"}],
        }
        with running_proxy(config, tmp_path, options=options) as proxy:
            assert proxy.fetch("/").status == 200
            assert f".{name}." in proxy.log
