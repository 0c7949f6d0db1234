"""The control API. The first line is a method and a target, the second the Host, the rest is the body; what begins with
`RAW ` is sent as it is."""

from __future__ import annotations

import json
import re
from functools import cache

from twisted.internet.task import Clock
from twisted.internet.testing import StringTransportWithDisconnection
from twisted.logger import LogEvent, LogLevel, globalLogPublisher

from tests.admin.support import StoredInMemory
from twisted_wasmproxy.admin.server import AdminServer
from twisted_wasmproxy.config.model import AdminConfig

__all__ = ["WORDS", "run"]

WORDS = [
    *(
        b"\n",
        b"GET ",
        b"POST ",
        b"HEAD ",
        b"/cache/purge",
        b"/cache/entries",
        b"/cache/entry",
        b"/cache/stats",
        b"?url=",
    ),
    *(
        b"?prefix=",
        b"&host=",
        b"&key=",
        b"&limit=",
        b"http://h/",
        b"https://[::1]/",
        b"%ff",
        b"%00",
        b"+",
        b"&&",
        b"a=b",
    ),
    *(
        b'{"url": "http://h/"}',
        b'{"all": true}',
        b'{"host": "h", "soft": true}',
        b'"key": ',
        b"{}",
        b"[",
        b"null",
        b"1e999",
    ),
    *(b"9" * 5000, b"\\ud800", b"\\u0000", b"\xff", b"localhost", b"127.0.0.1", b"[::1]", b":80", b"x.localhost", b"["),
    *(b"\r\nTransfer-Encoding: chunked", b"\r\nContent-Type: \xff", b"Expect: 100-continue", b"RAW ", b"[" * 3000),
]

_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3}) ")
KNOWN = {200, 400, 404, 405, 411, 413, 415, 417, 421, 501, 505}

_failures: list[LogEvent] = []


@cache
def _server() -> AdminServer:
    store = StoredInMemory()
    for name in (b"a", b"b"):
        store.put(b"http://h/" + name, [(b"Cache-Control", b"max-age=60"), (b"X-B", b"\xff")], surrogate_keys=(b"k",))
    server = AdminServer(AdminConfig("tcp:0"), Clock())
    server.use(store)
    globalLogPublisher.addObserver(_observe)
    return server


def _observe(event: LogEvent) -> None:
    if event["log_level"] >= LogLevel.error:
        _failures.append(event)


def run(data: bytes) -> None:
    server = _server()
    _failures.clear()
    protocol = server._factory.buildProtocol(None)
    assert protocol is not None
    transport = StringTransportWithDisconnection()
    transport.protocol = protocol
    protocol.makeConnection(transport)
    protocol.dataReceived(data[4:] if data.startswith(b"RAW ") else _request(data))
    answer = transport.value()
    if transport.connected:
        transport.loseConnection()
    assert not _failures, _failures[0]
    status = _STATUS.match(answer)
    if status is None:
        assert not answer, answer
        return
    assert int(status[1]) in KNOWN, answer
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"Traceback" not in answer
    if b"application/json" in head and body and data[:4] not in (b"HEAD", b"RAW "):
        assert isinstance(json.loads(body), dict)


def _request(data: bytes) -> bytes:
    line, _, rest = data.partition(b"\n")
    host, _, body = rest.partition(b"\n")
    fields = b"Content-Type: application/json\r\nConnection: close\r\nContent-Length: %d" % len(body)
    return b"%b HTTP/1.1\r\nHost: %b\r\n%b\r\n\r\n%b" % (line, host or b"localhost", fields, body)
