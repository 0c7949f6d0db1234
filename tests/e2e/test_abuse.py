"""Clients and origins that break off anywhere, many at once: nothing is left behind, and the next request is served."""

from __future__ import annotations

import os
import random
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.support import (
    Arrival,
    Client,
    answer,
    connect,
    eventually,
    plugin_environment,
    resident_kib,
    reverse_config,
    scripted_origin,
)
from tests.support.proxy import running_proxy

HEADERS_WASM = Path(__file__).parents[2] / "examples" / "c_headers" / "headers.wasm"

FILTERS: dict[str, list[dict[str, Any]]] = {
    "no filter": [],
    "filters": [
        {
            "configuration": "response set x-b: 1\n",
            "vm_config": {"code": {"local": {"filename": str(HEADERS_WASM)}}},
        },
        {"native": "passing", "phase": "origin"},
        {"native": "upper"},
    ],
}

ANSWERS = [
    answer(b"x" * 1000),
    answer(b"x" * 200_000),
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"3e8\r\n" + b"y" * 1000 + b"\r\n0\r\nX-T: 1\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + answer(b"z"),
    b"HTTP/1.1 200 OK\r\n\r\nto the end",
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhello",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"garbage\r\n\r\n",
]

REQUESTS = [
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 5,
    b"GET / HTTP/1.0\r\n\r\n",
    b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nfirst bytes",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 150000\r\n\r\n" + b"b" * 150_000,
    b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
    b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n",
    b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nZZ\r\n",
]


def end(sock: socket.socket, chance: random.Random) -> None:
    """Close in one of the ways in which a connection can end."""
    how = chance.randrange(4)
    if how == 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    elif how == 1:
        sock.shutdown(socket.SHUT_WR)
        sock.settimeout(0.05)
        sock.recv(65536)
    sock.close()


def misbehave(client: Client, chance: random.Random) -> None:
    message = chance.choice(REQUESTS)
    if chance.random() < 0.5:
        message = message[: chance.randrange(len(message) + 1)]
    try:
        client.send(message)
        if chance.random() < 0.7:
            client.sock.settimeout(0.05)
            client.sock.recv(chance.choice([1, 100, 65536]))
        end(client.sock, chance)
    except OSError:
        client.sock.close()


@pytest.mark.parametrize("filters", FILTERS)
def test_nothing_is_left_behind(tmp_path: Path, filters: str) -> None:
    chance = random.Random(20)
    lock = threading.Lock()

    def script(arrival: Arrival) -> bool:
        if arrival.target == b"/fine":
            arrival.send(answer(b"fine"))
            return True
        with lock:
            reply = chance.choice(ANSWERS)
            cut = chance.randrange(len(reply) + 1) if chance.random() < 0.3 else len(reply)
            reads = chance.random() < 0.8
            keeps = chance.random() < 0.5
        if reads and arrival.method != b"HEAD":
            arrival.sock.settimeout(0.5)
            arrival.content()
        arrival.send(reply[:cut])
        return keeps and cut == len(reply)

    with scripted_origin() as origin:
        config = reverse_config(
            origin,
            filters=FILTERS[filters],
            timeouts={"header": 1, "idle": 1, "tunnel": 1, "keep_alive": 1, "drain": 5},
        )
        config["upstreams"]["origin"]["health"] = {"max_failures": 10**6}
        config["upstreams"]["origin"]["idle_timeout"] = 1
        with running_proxy(config, tmp_path, environment=plugin_environment(tmp_path)) as proxy:
            pid = proxy.process.pid

            def fine() -> bool:
                with connect(proxy.port) as client:
                    return client.get("/fine")[2] in (b"fine", b"FINE!")

            origin.script = script
            assert fine()

            def descriptors() -> int:
                return len(os.listdir(f"/proc/{pid}/fd"))

            before = descriptors()

            def run(seed: int) -> None:
                mine = random.Random(seed)
                for _ in range(120):
                    misbehave(connect(proxy.port), mine)

            for round_ in range(2):
                threads = [threading.Thread(target=run, args=(round_ * 10 + seed,)) for seed in range(6)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                assert fine()
                if round_ == 0:
                    memory = resident_kib(pid)
            eventually(lambda: descriptors() <= before + 1, 20, f"{before} descriptors have become {descriptors()}")
            assert resident_kib(pid) - memory < 8 * 1024
            assert proxy.stop() < 1  # no transaction is left to wait for
            assert "Traceback" not in proxy.log, proxy.log
            assert "Unhandled" not in proxy.log
            assert "#critical" not in proxy.log
