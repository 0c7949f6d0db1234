"""The reverse proxy as it runs: rules, balancing, health, pools, repeats, TLS, other addresses, limits."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.support import (
    Arrival,
    Client,
    answer,
    connect,
    eventually,
    pem_files,
    reverse_config,
    scripted_origin,
)
from tests.support.proxy import free_port, running_proxy


def test_rules_choose_rewrite_redirect_and_respond(tmp_path: Path) -> None:
    with scripted_origin() as one, scripted_origin() as two:
        config: dict[str, Any] = {
            "upstreams": {
                "one": {"servers": [f"http://127.0.0.1:{one.port}"]},
                "two": {"servers": [f"http://127.0.0.1:{two.port}"]},
            },
            "remap": [
                {"match": {"host": "gone.test"}, "respond": 410},
                {
                    "match": {"path": "/api/", "methods": ["GET"]},
                    "upstream": "two",
                    "rewrite": "/v2/",
                    "preserve_host": False,
                },
                {"match": {"regex": "/user/(\\d+)"}, "upstream": "two", "rewrite": "/people?id=$1"},
                {"match": {"path": "/old"}, "redirect": {"to": "https://$host/new?$query", "status": 308}},
                {"match": {"host": "*.one.test"}, "upstream": "one"},
            ],
        }
        with running_proxy(config, tmp_path) as proxy, connect(proxy.port) as client:

            def get(
                target: str, host: str = "www.one.test", method: str = "GET"
            ) -> tuple[int, dict[bytes, bytes], bytes]:
                client.request(target, method, host=host)
                return client.response()

            assert get("/", "GONE.test:80")[0] == 410
            assert get("/api/x?q", "other.test")[2] == b"GET /v2/x?q "
            assert dict(two.seen[-1]["lines"])[b"host"] == b"127.0.0.1:%d" % two.port
            assert dict(two.seen[-1]["lines"])[b"x-forwarded-host"] == b"other.test"
            assert get("/api/x", method="DELETE")[2] == b"DELETE /api/x "
            assert one.seen[-1]["target"] == b"/api/x"
            assert get("/user/42")[2] == b"GET /people?id=42 "
            assert dict(two.seen[-1]["lines"])[b"host"] == b"www.one.test"
            status, fields, body = get("/old?a=b", "www.one.test:8080")
            assert (status, fields[b"location"], body) == (308, b"https://www.one.test/new?a=b", b"")
            status, fields, body = get("/", "one.test.evil")
            assert status == 404
            assert body == b"404 Not Found: no rule for this host and path\n"
            assert get("/", "a.one.test")[0] == 200  # the connection is as good as before


@pytest.mark.parametrize("balance", ["round_robin", "least_connections", "consistent_hash"])
def test_servers_share_the_requests(tmp_path: Path, balance: str) -> None:
    with scripted_origin() as one, scripted_origin() as two:
        config: dict[str, Any] = {
            "upstreams": {
                "both": {"servers": [f"http://127.0.0.1:{origin.port}" for origin in (one, two)], "balance": balance}
            },
            "remap": [{"upstream": "both"}],
        }
        with running_proxy(config, tmp_path) as proxy:
            with connect(proxy.port) as client:
                for _ in range(3):
                    for number in range(20):
                        assert client.get(f"/{number}")[0] == 200
            if balance == "round_robin":
                assert (len(one.seen), len(two.seen)) == (30, 30)
            elif balance == "consistent_hash":
                assert not {seen["target"] for seen in one.seen} & {seen["target"] for seen in two.seen}
                assert one.seen
                assert two.seen
            else:
                # While a server is busy the other is asked.
                busy, go = threading.Event(), threading.Event()

                def hang(arrival: Arrival) -> None:
                    busy.set()
                    go.wait(20)
                    arrival.send(answer())

                one.reset(hang)
                two.reset(hang)
                with connect(proxy.port) as hung, connect(proxy.port) as client:
                    hung.request("/hung")
                    assert busy.wait(10)
                    free = two if one.seen else one
                    free.reset()
                    for _ in range(5):
                        assert client.get()[0] == 200
                    assert len(free.seen) == 5
                    go.set()
                    assert hung.response()[0] == 200


def test_a_server_that_dies_rests_and_comes_back(tmp_path: Path) -> None:
    port = free_port()
    with scripted_origin() as alive:
        config: dict[str, Any] = {
            "upstreams": {
                "both": {
                    "servers": [f"http://127.0.0.1:{port}", f"http://127.0.0.1:{alive.port}"],
                    "health": {"max_failures": 2, "rest": 1, "max_rest": 1},
                }
            },
            "remap": [{"upstream": "both"}],
        }
        with running_proxy(config, tmp_path) as proxy, connect(proxy.port) as client:
            for _ in range(20):  # nobody is told of the dead one: there was another server to ask
                assert client.get()[0] == 200
            assert len(alive.seen) == 20
            with scripted_origin(port=port) as back:

                def asked() -> bool:
                    assert client.get()[0] == 200
                    return bool(back.seen)

                eventually(asked)
                back.seen.clear()
                for _ in range(10):
                    assert client.get()[0] == 200
                assert len(back.seen) == 5
            for _ in range(10):
                assert client.get()[0] == 200


def test_an_upstream_without_a_living_server_is_a_502_that_names_the_cause(tmp_path: Path) -> None:
    config: dict[str, Any] = {
        "upstreams": {"dead": {"servers": [f"http://127.0.0.1:{free_port()}"]}},
        "remap": [{"upstream": "dead"}],
    }
    with running_proxy(config, tmp_path) as proxy, connect(proxy.port) as client:
        for _ in range(5):
            status, fields, body = client.get()
            assert status == 502
            assert body == b"502 Bad Gateway: dead: Connection refused\n"
            assert fields[b"content-type"].startswith(b"text/plain")
            assert fields[b"date"]
        client.request("/", "POST", body=b"x" * 100_000)
        assert client.response()[0] == 502
        assert client.get()[0] == 502
        client.request("/", "HEAD")
        assert client.response(head=True)[0] == 502


def test_a_full_pool_is_a_503(tmp_path: Path) -> None:
    busy, go = threading.Event(), threading.Event()

    def hang(arrival: Arrival) -> None:
        busy.set()
        go.wait(20)
        arrival.send(answer())

    with scripted_origin() as origin:
        origin.script = hang
        config = reverse_config(origin)
        config["upstreams"]["origin"].update(max_connections=1, connect_timeout=0.4)
        with running_proxy(config, tmp_path) as proxy, connect(proxy.port) as first, connect(proxy.port) as second:
            first.request()
            assert busy.wait(10)
            status, _, body = second.get()
            assert status == 503
            assert body == b"503 Service Unavailable: origin: all of 1 connections in use for 0.4 s\n"
            go.set()
            assert first.response()[0] == 200
            assert second.get()[0] == 200
        assert origin.connections == 1


def test_a_connection_that_is_not_made_in_time_is_a_504(tmp_path: Path) -> None:
    # A backlog that is full: the kernel leaves further SYNs unanswered.
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        full = []
        for _ in range(4):
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex(server.getsockname())
            full.append(sock)
        config: dict[str, Any] = {
            "upstreams": {"slow": {"servers": [f"http://127.0.0.1:{server.getsockname()[1]}"], "connect_timeout": 0.4}},
            "remap": [{"upstream": "slow"}],
        }
        with running_proxy(config, tmp_path) as proxy, connect(proxy.port) as client:
            status, _, body = client.get()
            assert (status, body) == (504, b"504 Gateway Timeout: slow: no connection within 0.4 s\n")
        for sock in full:
            sock.close()


@pytest.mark.parametrize(("method", "body", "status"), [("GET", b"", 200), ("POST", b"x", 502), ("PATCH", b"", 502)])
def test_a_request_is_repeated_once_if_the_connection_had_been_closed(
    tmp_path: Path, method: str, body: bytes, status: int
) -> None:
    def close_second(arrival: Arrival) -> bool | None:
        arrival.content()
        if Counter(seen["connection"] for seen in origin.seen)[arrival.number] == 2:
            return False  # without a byte of an answer
        arrival.send(answer())
        return None

    with scripted_origin() as origin:
        origin.script = close_second
        with running_proxy(reverse_config(origin), tmp_path) as proxy, connect(proxy.port) as client:
            assert client.get()[0] == 200
            client.request("/twice", method, body=body)
            assert client.response()[0] == status
        assert [seen["target"] for seen in origin.seen].count(b"/twice") == (2 if status == 200 else 1)


def test_an_origin_that_always_closes_is_asked_twice_and_no_more(tmp_path: Path) -> None:
    with scripted_origin() as origin:
        origin.script = lambda arrival: False
        with running_proxy(reverse_config(origin), tmp_path) as proxy, connect(proxy.port) as client:
            assert client.get()[0] == 502
        assert len(origin.seen) == 2


def test_a_connection_that_the_origin_closed_while_idle_is_not_used(tmp_path: Path) -> None:
    with scripted_origin() as origin:
        closed = threading.Event()

        def script(arrival: Arrival) -> bool:
            arrival.content()
            arrival.send(answer())
            arrival.shutdown()
            arrival.read_all()  # until the proxy has seen it
            closed.set()
            return False

        origin.script = script
        with running_proxy(reverse_config(origin), tmp_path) as proxy, connect(proxy.port) as client:
            for _ in range(10):
                client.request("/", "POST", body=b"x")
                assert client.response()[0] == 200
                assert closed.wait(10)
                closed.clear()


# TLS and other addresses


def test_an_https_origin_is_verified(tmp_path: Path) -> None:
    _, _, root, context = pem_files(tmp_path, "localhost", "127.0.0.1")
    with scripted_origin(context=context) as origin:
        by_address = f"https://127.0.0.1:{origin.port}"
        config: dict[str, Any] = {
            "upstreams": {
                "untrusted": {"servers": [by_address]},
                "trusted": {"servers": [by_address], "tls": {"ca_file": str(root)}},
                "unverified": {"servers": [by_address], "tls": {"verify": False}},
                "misnamed": {"servers": [by_address], "tls": {"ca_file": str(root), "server_name": "other.test"}},
            },
            "remap": [
                {"match": {"path": f"/{name}"}, "upstream": name}
                for name in ("untrusted", "trusted", "unverified", "misnamed")
            ],
        }
        with running_proxy(config, tmp_path) as proxy, connect(proxy.port) as client:
            status, _, body = client.get("/untrusted")
            assert status == 502
            assert b"certificate" in body
            assert client.get("/misnamed")[0] == 502
            assert not origin.seen
            assert client.get("/unverified")[2] == b"GET /unverified "
            for _ in range(3):
                assert client.get("/trusted")[2] == b"GET /trusted "
            client.request("/trusted", "PUT", body=b"z" * 3_000_000)
            assert client.response()[2] == b"PUT /trusted " + b"z" * 3_000_000


def test_an_https_origin_that_is_cut_off_breaks_the_message(tmp_path: Path) -> None:
    _, _, _, context = pem_files(tmp_path, "localhost")
    with scripted_origin(context=context) as origin:

        def script(arrival: Arrival) -> bool:
            arrival.send(b"HTTP/1.1 200 OK\r\n\r\nall of it?")  # without close_notify nobody knows
            arrival.sock.shutdown(socket.SHUT_RDWR)
            return False

        origin.script = script
        config = reverse_config(origin)
        config["upstreams"]["origin"] = {"servers": [f"https://localhost:{origin.port}"], "tls": {"verify": False}}
        with running_proxy(config, tmp_path) as proxy, connect(proxy.port) as client:
            client.request()
            try:
                assert not client.read_all().endswith(b"0\r\n\r\n")
            except ConnectionResetError:
                assert not client.buffer.endswith(b"0\r\n\r\n")


def test_a_tls_listener_serves_keep_alive_and_large_bodies(tmp_path: Path) -> None:
    key, chain, root, _ = pem_files(tmp_path, "localhost")
    port = free_port()
    with scripted_origin() as origin:
        config = reverse_config(
            origin,
            listeners=[{"endpoint": f"ssl:{port}:interface=127.0.0.1:privateKey={key.name}:certKey={chain.name}"}],
        )
        context = ssl.create_default_context(cafile=str(root))
        with running_proxy(config, tmp_path, port=port) as proxy:
            raw = socket.create_connection(("127.0.0.1", proxy.port))
            with Client(context.wrap_socket(raw, server_hostname="localhost")) as client:
                for _ in range(3):
                    assert client.get("/x")[2] == b"GET /x "
                assert dict(origin.seen[0]["lines"])[b"x-forwarded-proto"] == b"https"
                body = bytes(range(256)) * 20_000
                client.request("/", "POST", body=body)
                assert client.response()[2] == b"POST / " + body
                client.send(b"GET / HTTP/1.1\r\n\r\n")
                assert client.response()[0] == 400
                assert client.closed()
            with connect(proxy.port) as plain:
                plain.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                with contextlib.suppress(ConnectionResetError):
                    assert b"200" not in plain.read_all()
                assert len(origin.seen) == 4


def test_ipv6_both_ways_and_a_unix_listener(tmp_path: Path) -> None:
    port = free_port()
    path = tmp_path / "proxy.sock"
    with scripted_origin("::1") as origin:
        config: dict[str, Any] = {
            "listeners": [
                {"endpoint": f"tcp6:{port}:interface=\\:\\:1"},
                {"endpoint": "unix:proxy.sock"},
                {"endpoint": f"tcp:{port}:interface=127.0.0.1"},
            ],
            "upstreams": {"six": {"servers": [f"http://[::1]:{origin.port}"]}},
            "remap": [{"upstream": "six", "preserve_host": False}],
            "headers": {"forwarded": True, "x_forwarded": False, "via": None},
        }
        with running_proxy(config, tmp_path, port=port) as proxy:
            with Client(socket.create_connection(("::1", proxy.port))) as client:
                assert client.get("/six")[2] == b"GET /six "
                lines = dict(origin.seen[-1]["lines"])
                assert lines[b"host"] == b"[::1]:%d" % origin.port
                assert lines[b"forwarded"] == b'for="[::1]";proto=http;host="proxy.test"'
                assert b"via" not in lines
                assert b"x-forwarded-for" not in lines
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(str(path))
            with Client(sock) as client:
                for _ in range(2):
                    assert client.get("/unix")[2] == b"GET /unix "
                assert dict(origin.seen[-1]["lines"])[b"forwarded"] == b'for=unknown;proto=http;host="proxy.test"'
                client.send(b"nonsense\r\n\r\n")
                assert client.response()[0] == 400
        assert "Traceback" not in proxy.log


# Limits


def test_connections_beyond_the_limits_get_503(tmp_path: Path) -> None:
    ports = free_port(), free_port()
    with scripted_origin() as origin:
        config = reverse_config(
            origin,
            listeners=[
                {"endpoint": f"tcp:{ports[0]}:interface=127.0.0.1", "limits": {"connections": 3}},
                {"endpoint": f"tcp:{ports[1]}:interface=127.0.0.1", "limits": {"connections_per_client": 2}},
            ],
        )

        def admitted(port: int) -> Client | None:
            client = connect(port)
            try:
                if client.get()[0] == 200:
                    return client
            except OSError:
                pass
            client.sock.close()
            return None

        with running_proxy(config, tmp_path, port=ports[0]):
            for port, limit in zip(ports, (3, 2), strict=True):
                # One that has gone may be counted for a moment longer.
                within = [eventually(partial(admitted, port)) for _ in range(limit)]
                with connect(port) as beyond:
                    assert beyond.response()[0] == 503
                    assert beyond.closed()
                within.pop().sock.close()
                within.append(eventually(partial(admitted, port)))
                for client in within:
                    assert client.get()[0] == 200
                    client.sock.close()


def test_keep_alive_and_total_times_end_connections(tmp_path: Path) -> None:
    go = threading.Event()

    def drip(arrival: Arrival) -> bool:
        arrival.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(100):
            arrival.send(b"1\r\nx\r\n")
            if go.wait(0.1):
                break
        return False

    with scripted_origin() as origin:
        config = reverse_config(origin, timeouts={"keep_alive": 0.3, "total": 1.5})
        with running_proxy(config, tmp_path) as proxy:
            with connect(proxy.port) as client:
                assert client.get()[0] == 200
                assert client.closed()
            origin.reset(drip)
            with connect(proxy.port) as client:
                client.request()
                client.read_until(b"\r\n\r\n")
                with contextlib.suppress(ConnectionResetError):
                    assert not client.read_all().endswith(b"0\r\n\r\n")
            go.set()
