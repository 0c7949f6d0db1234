"""Many streams at once in one VM, and many after each other: nothing is lost, nothing stays behind."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

from tests.e2e_wasm.conftest import Serve
from tests.e2e_wasm.support import module, until

QUIET = {"levels": {"twisted_wasmproxy.proxywasm": "error"}}
SOAK = int(os.environ.get("SOAK_REQUESTS", "5000"))
"""How many requests the soak test makes after it has warmed up."""


async def _ask(port: int, script: str) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET /bytes/3 HTTP/1.1\r\nHost: a\r\nConnection: close\r\nx-a: {script}\r\n\r\n".encode())
    try:
        return await reader.read()
    finally:
        writer.close()


def test_a_thousand_streams_are_held_in_one_vm_at_once(serve: Serve) -> None:
    with serve([module("a", configuration="configure period 100")], pacer="a", log=QUIET) as stand:
        script = "request_headers pause; shared held 1|tick#30 reply 200 let-go"

        async def all_of_them() -> list[bytes]:
            return await asyncio.gather(*(_ask(stand.proxy.port, script) for _ in range(1000)))

        answers = asyncio.run(asyncio.wait_for(all_of_them(), 60))
        assert {answer[:13] for answer in answers} == {b"HTTP/1.1 200 "}
        assert all(answer.endswith(b"let-go") for answer in answers)
        assert stand.ask("/").status == 200


def resident(pid: int) -> int:
    """Return the resident memory of a process in bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


SCRIPTS = [
    "request_headers set 0 x-b 1; get 0 :path; prop source.address|response_headers add 2 x-c 1",
    "response_headers del 2 content-length|response_body upper 1",
    "request_headers reply 403 denied",
    "request_headers pause; resume 0|response_body pause|response_body#2 ret 0",
    "request_headers setprop a.b value; shared key value|log recall key",
]


def test_memory_does_not_grow_with_requests(serve: Serve) -> None:
    def ask(sock: socket.socket, count: int) -> None:
        batch = 50
        request = "".join(
            f"GET /bytes/10 HTTP/1.1\r\nHost: a\r\nx-a: {SCRIPTS[number % len(SCRIPTS)]}\r\n\r\n"
            for number in range(batch)
        ).encode()
        for _ in range(count // batch):
            sock.sendall(request)
            received = b""
            while received.count(b"HTTP/1.1 ") < batch or not received.endswith(b"x" * 10):
                data = sock.recv(1 << 20)
                assert data
                received += data

    with serve([module("a"), module("b", vm_id="b")], pacer="a", log=QUIET, access_log=[]) as stand:
        with socket.create_connection(("127.0.0.1", stand.proxy.port), 20) as sock:
            ask(sock, 2000)
            before = resident(stand.proxy.process.pid)
            ask(sock, SOAK)
        until(lambda: resident(stand.proxy.process.pid) - before < 3 * 1024 * 1024, 5, lambda: "memory has grown")
