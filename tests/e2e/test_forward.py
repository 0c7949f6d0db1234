"""The forward proxy as it runs: absolute-form requests, tunnels, who may reach what, loops."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.support import (
    Arrival,
    Client,
    ScriptedOrigin,
    answer,
    connect,
    eventually,
    pem_files,
    plugin_environment,
    scripted_origin,
)
from tests.support.proxy import Proxy, free_port, running_proxy

LOCAL = ["127.0.0.0/8", "::1"]
"""Where the origins of these tests are; a forward proxy lets nobody through to that unless it is told."""


def forward(port: int, **access: Any) -> dict[str, Any]:
    return {"listeners": [forward_listener(port, allow_destinations=LOCAL, **access)]}


def forward_listener(port: int, **access: Any) -> dict[str, Any]:
    listener: dict[str, Any] = {"endpoint": f"tcp:{port}:interface=127.0.0.1", "mode": "forward"}
    if access:
        listener["access"] = access
    return listener


def connect_through(proxy: Proxy, port: int) -> Client:
    client = connect(proxy.port)
    client.send(f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
    return client


def logged(path: Path, **fields: object) -> dict[str, Any]:
    """Wait for a line of the access log."""

    def find() -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [line for line in lines if fields.items() <= line.items()]

    found: dict[str, Any] = eventually(find)[0]
    return found


def test_absolute_form_requests_reach_the_origin_that_they_name(tmp_path: Path) -> None:
    port = free_port()
    with scripted_origin() as origin, running_proxy(forward(port), tmp_path, port=port) as proxy:
        with connect(proxy.port) as client:
            for method in ("GET", "POST", "OPTIONS"):
                client.send(
                    f"{method} http://127.0.0.1:{origin.port}/p?q HTTP/1.1\r\nHost: ignored\r\n".encode()
                    + b"Proxy-Authorization: Basic c2VjcmV0\r\nProxy-Connection: keep-alive\r\n"
                    + b"X-Forwarded-Host: evil.test\r\nX-Forwarded-Proto: gopher\r\n"
                    + b"Content-Length: 2\r\n\r\nhi"
                )
                assert client.response()[2] == f"{method} /p?q hi".encode()
            client.send(f"OPTIONS http://127.0.0.1:{origin.port} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert client.response()[2] == b"OPTIONS * "
            client.send(f"GET http://localhost:{origin.port}/name HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert client.response()[2] == b"GET /name "
        lines = dict(origin.seen[0]["lines"])
        assert lines[b"host"] == b"127.0.0.1:%d" % origin.port
        assert lines[b"x-forwarded-for"] == b"127.0.0.1"
        assert not {b"proxy-authorization", b"proxy-connection", b"x-forwarded-host", b"x-forwarded-proto"} & set(lines)
        assert len({seen["connection"] for seen in origin.seen[:4]}) == 1


def test_https_in_absolute_form_is_fetched_and_verified(tmp_path: Path) -> None:
    _, _, _, context = pem_files(tmp_path, "localhost")
    port = free_port()
    with scripted_origin(context=context) as origin, running_proxy(forward(port), tmp_path, port=port) as proxy:
        with connect(proxy.port) as client:
            client.send(f"GET https://localhost:{origin.port}/ HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            status, _, body = client.response()
            assert status == 502
            assert b"certificate" in body
        assert not origin.seen


@pytest.mark.parametrize(
    ("message", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n", 400),
        (b"OPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n", 400),
        (b"GET ftp://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n", 400),
        (b"GET http:/// HTTP/1.1\r\nHost: a.test\r\n\r\n", 400),
        (b"GET http://u:p@a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n", 400),
        (b"GET http://a.test:0/ HTTP/1.1\r\nHost: a.test\r\n\r\n", 400),
        (b"GET http://a.test:99999/ HTTP/1.1\r\nHost: a.test\r\n\r\n", 400),
        (b"CONNECT a.test HTTP/1.1\r\nHost: a.test\r\n\r\n", 400),
        (b"CONNECT /x HTTP/1.1\r\nHost: a.test\r\n\r\n", 400),
        (b"CONNECT http://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n", 400),
        (b"CONNECT a.test:80 HTTP/1.1\r\nHost: a.test\r\n\r\n", 403),
        (b"CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: a.test\r\n\r\n", 403),
        (b"GET http://name.invalid/ HTTP/1.1\r\nHost: a.test\r\n\r\n", 502),
        (b"CONNECT name.invalid:443 HTTP/1.1\r\nHost: a.test\r\n\r\n", 502),
    ],
)
def test_what_cannot_be_forwarded_is_answered(defaults: Proxy, message: bytes, status: int) -> None:
    with connect(defaults.port) as client:
        client.send(message)
        code, _, body = client.response()
        assert code == status, body
        assert len(body) > 5


@pytest.fixture(scope="module")
def defaults(tmp_path_factory: pytest.TempPathFactory) -> Any:
    port = free_port()
    config = {"listeners": [forward_listener(port)]}
    with running_proxy(config, tmp_path_factory.mktemp("defaults"), port=port) as proxy:
        yield proxy


def test_clients_ports_hosts_and_addresses_are_judged(tmp_path: Path) -> None:
    ports = [free_port() for _ in range(4)]
    with scripted_origin() as origin, scripted_origin() as other:
        rules: list[dict[str, Any]] = [
            {"allow_clients": ["192.0.2.0/24"], "connect_ports": [], "allow_destinations": LOCAL},  # nobody who comes
            {"ports": [origin.port], "connect_ports": [origin.port], "allow_destinations": LOCAL},
            {"connect_ports": []},
            {"allow_hosts": ["localhost"], "connect_ports": [], "allow_destinations": LOCAL},
        ]
        config = {
            "listeners": [forward_listener(port, **access) for port, access in zip(ports, rules, strict=True)],
        }

        def ask(port: int, host: str, to: ScriptedOrigin) -> tuple[int, int]:
            statuses = []
            for line in (f"GET http://{host}:{to.port}/", f"CONNECT {host}:{to.port}"):
                with connect(port) as client:
                    client.send(f"{line} HTTP/1.1\r\nHost: {host}:{to.port}\r\n\r\n".encode())
                    statuses.append(int(client.read_until(b"\r\n\r\n").split()[1]))
            return statuses[0], statuses[1]

        with running_proxy(config, tmp_path, port=ports[0]):
            assert ask(ports[0], "127.0.0.1", origin) == (403, 403)
            assert ask(ports[1], "127.0.0.1", other) == (403, 403)
            assert not other.seen
            assert ask(ports[1], "127.0.0.1", origin) == (200, 200)
            reached = len(origin.seen)
            for host in ("127.0.0.1", "localhost", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]", "127.1", "2130706433"):
                assert ask(ports[2], host, origin) == (403, 403), host
            assert len(origin.seen) == reached
            assert ask(ports[3], "127.0.0.1", origin) == (403, 403)
            assert ask(ports[3], "LocalHost", origin) == (200, 200)


GUARDED = [
    *(
        "127.0.0.1",
        "127.8.9.10",
        "localhost",
        "0.0.0.0",
        "0",
        "127.1",
        "0x7f.1",
        "0x7f000001",
        "017700000001",
        "2130706433",
    ),
    *(
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
    ),
    *("169.254.169.254", "[::ffff:169.254.169.254]", "[64:ff9b::a9fe:a9fe]", "[fe80::1]", "[fd00:ec2::254]"),
    *("224.0.0.1", "[ff02::1]", "255.255.255.255"),
]


@pytest.fixture(scope="module")
def unguarded(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A forward proxy that says nothing of destinations, and lets any port be reached."""
    port = free_port()
    config = {"listeners": [forward_listener(port, connect_ports=[])]}
    with running_proxy(config, tmp_path_factory.mktemp("unguarded"), port=port) as proxy:
        yield proxy


@pytest.mark.parametrize("host", GUARDED)
def test_what_trusts_its_neighbours_is_refused_in_every_spelling_and_way(unguarded: Proxy, host: str) -> None:
    with scripted_origin() as origin:
        authority = f"{host}:{origin.port}"
        heads = [
            f"GET http://{authority}/ HTTP/1.1\r\nHost: a.test\r\n",
            f"GET https://{authority}/ HTTP/1.1\r\nHost: a.test\r\n",
            f"CONNECT {authority} HTTP/1.1\r\nHost: a.test\r\n",
            f"GET http://{authority}/ HTTP/1.1\r\nHost: a.test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n",
        ]
        for head in heads:
            with connect(unguarded.port) as client:
                client.send(head.encode() + b"\r\n")
                status, _, body = client.response()
                assert status == 403, head
                assert body == b"403 Forbidden: this destination may not be reached\n"
        assert not origin.connections


def test_the_proxy_s_own_listeners_are_out_of_reach(tmp_path: Path) -> None:
    strict, lax, reverse, admin = (free_port() for _ in range(4))
    config = {
        "listeners": [
            forward_listener(strict, allow_destinations=LOCAL, connect_ports=[]),
            forward_listener(lax, allow_destinations=LOCAL, connect_ports=[], allow_own_listeners=True),
            {"endpoint": f"tcp:{reverse}:interface=127.0.0.1"},
        ],
        "admin": f"tcp:{admin}:interface=127.0.0.1",
        "remap": [{"match": {"host": "site.test"}, "respond": 204}],
    }

    def ask(port: int, method: str, host: str, to: int) -> int:
        target = f"{host}:{to}" if method == "CONNECT" else f"http://{host}:{to}/cache"
        with connect(port) as client:
            client.send(f"{method} {target} HTTP/1.1\r\nHost: a.test\r\n\r\n".encode())
            return int(client.read_until(b"\r\n\r\n").split()[1])

    with running_proxy(config, tmp_path, port=strict):
        for to in (strict, lax, reverse, admin):
            for host in ("127.0.0.1", "localhost", "127.1", "[::ffff:127.0.0.1]"):
                for method in ("GET", "POST", "PURGE", "CONNECT"):
                    assert ask(strict, method, host, to) == 403, (method, host, to)
        assert ask(lax, "CONNECT", "127.0.0.1", reverse) == 200
        assert ask(lax, "CONNECT", "127.0.0.1", admin) == 403
        assert ask(lax, "POST", "localhost", admin) == 403


def test_a_reload_tells_the_rules_of_new_listeners(tmp_path: Path) -> None:
    first, second = free_port(), free_port()
    config: dict[str, Any] = {"listeners": [forward_listener(first, allow_destinations=LOCAL, connect_ports=[])]}
    with running_proxy(config, tmp_path, port=first) as proxy:

        def status() -> int:
            with connect(first) as client:
                client.send(f"CONNECT 127.0.0.1:{second} HTTP/1.1\r\nHost: a.test\r\n\r\n".encode())
                return int(client.read_until(b"\r\n\r\n").split()[1])

        assert status() == 502  # nobody listens there
        config["admin"] = f"tcp:{second}:interface=127.0.0.1"
        proxy.config.write_text(json.dumps(config))
        proxy.process.send_signal(signal.SIGHUP)
        eventually(lambda: "configuration reloaded" in proxy.log)
        assert status() == 403


def test_a_client_that_may_not_use_the_proxy_gets_nothing_of_it(tmp_path: Path) -> None:
    port = free_port()
    with scripted_origin() as origin:
        config = {
            "listeners": [forward_listener(port, allow_clients=["10.0.0.0/8"], allow_destinations=LOCAL)],
            "upstreams": {"origin": {"servers": [f"http://127.0.0.1:{origin.port}"]}},
            "remap": [
                {"match": {"path": "/status"}, "respond": 204},
                {"match": {"path": "/redirect"}, "redirect": "http://elsewhere.test/"},
                {"upstream": "origin"},
            ],
            "filters": [{"native": "upper"}],
            "cache": {"memory": "1MiB", "purge": ["0.0.0.0/0"]},
        }
        with running_proxy(config, tmp_path, port=port, environment=plugin_environment(tmp_path)) as proxy:
            for line in (
                "GET http://a.test/",
                "GET http://a.test/status",
                "GET http://a.test/redirect",
                "GET /",
                "PURGE http://a.test/",
                "OPTIONS *",
                "CONNECT a.test:443",
            ):
                with connect(proxy.port) as client:
                    client.send(f"{line} HTTP/1.1\r\nHost: a.test\r\nMax-Forwards: 0\r\n\r\n".encode())
                    status, _, body = client.response()
                    assert (status, b"may not use the proxy" in body.lower()) == (403, True), line
            with connect(proxy.port) as client:
                client.send(b"POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nhello")
                assert client.response()[0] == 403
        assert not origin.connections


def test_what_one_listener_may_fetch_another_does_not_get_from_the_cache(tmp_path: Path) -> None:
    lax, strict, same = free_port(), free_port(), free_port()
    with scripted_origin() as origin:
        origin.script = lambda arrival: arrival.send(answer(b"secret", "Cache-Control: max-age=100"))
        config = {
            "listeners": [
                forward_listener(lax, allow_destinations=LOCAL),
                forward_listener(strict),
                forward_listener(same, allow_destinations=LOCAL[::-1], allow_clients=["127.0.0.1"]),
            ],
            "cache": {"memory": "1MiB"},
        }
        statuses = []
        with running_proxy(config, tmp_path, port=lax):
            for port in (lax, strict, same):
                with connect(port) as client:
                    client.send(f"GET http://127.0.0.1:{origin.port}/ HTTP/1.1\r\nHost: a.test\r\n\r\n".encode())
                    statuses.append(client.response()[0])
        assert statuses == [200, 403, 200]
        assert len(origin.seen) == 1


def test_a_tunnel_carries_bytes_and_each_direction_ends_by_itself(tmp_path: Path) -> None:
    port = free_port()
    log = tmp_path / "access.json"

    with scripted_origin() as origin:
        config = {**forward(port, connect_ports=[origin.port]), "access_log": {"path": str(log), "format": "json"}}
        results: list[bytes] = []

        def serve(arrival: Arrival) -> bool:
            results.append(arrival.read_all())  # to the client's half-close
            arrival.send(b"y" * 300_000)
            return False

        origin.script = serve
        with running_proxy(config, tmp_path, port=port) as proxy:
            with connect_through(proxy, origin.port) as client:
                client.send(b"GET / HTTP/1.1\r\n\r\n" + b"x" * 200_000)  # behind the head, before the answer
                head = client.read_until(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200 ")
                assert b"content-length" not in head.lower()
                assert b"transfer-encoding" not in head.lower()
                client.shutdown()
                assert client.read_all() == b"y" * 300_000
            assert results == [b"x" * 200_000]
            line = logged(log, method="CONNECT")
            assert line["status"] == 200
            assert line["request_body_bytes"] == 200_000 + 18
            assert line["response_body_bytes"] == 300_000
            assert line["result"] == "TCP_MISS"


def test_an_origin_that_ends_first_leaves_the_other_direction_open(tmp_path: Path) -> None:
    port = free_port()
    with scripted_origin() as origin:
        results: list[bytes] = []

        def serve(arrival: Arrival) -> bool:
            arrival.send(b"that is all")
            arrival.shutdown()
            results.append(arrival.read_all())
            return False

        origin.script = serve
        config = forward(port, connect_ports=[origin.port])
        with running_proxy(config, tmp_path, port=port) as proxy, connect_through(proxy, origin.port) as client:
            client.read_until(b"\r\n\r\n")
            client.send(b"GET / HTTP/1.1\r\n\r\n")
            assert client.read_all() == b"that is all"
            client.send(b"z" * 500_000)
            client.shutdown()
            eventually(lambda: results)
        assert results == [b"z" * 500_000]


def test_a_tunnel_in_which_nothing_moves_ends(tmp_path: Path) -> None:
    port = free_port()
    log = tmp_path / "access.json"
    with scripted_origin() as origin:
        ended = threading.Event()

        def serve(arrival: Arrival) -> bool:
            arrival.closed()
            ended.set()
            return False

        origin.script = serve
        config = {
            **forward(port, connect_ports=[origin.port]),
            "timeouts": {"tunnel": 0.5},
            "access_log": {"path": str(log), "format": "json"},
        }
        with running_proxy(config, tmp_path, port=port) as proxy, connect_through(proxy, origin.port) as client:
            client.read_until(b"\r\n\r\n")
            client.send(b"GET / HTTP/1.1\r\n\r\n")
            assert client.closed()
            assert ended.wait(10)
            assert logged(log, method="CONNECT")["request_body_bytes"] == 18


def test_a_tunnel_to_nobody_is_a_502(tmp_path: Path) -> None:
    port, nobody = free_port(), free_port()
    config = forward(port, connect_ports=[])
    with running_proxy(config, tmp_path, port=port) as proxy, connect_through(proxy, nobody) as client:
        status, _, body = client.response()
        assert status == 502
        assert b"refused" in body


def test_when_either_end_of_a_tunnel_is_reset_so_is_the_other(tmp_path: Path) -> None:
    port = free_port()
    with scripted_origin() as origin:
        ended = threading.Event()

        def until_reset(arrival: Arrival) -> bool:
            arrival.closed()
            ended.set()
            return False

        def reset(arrival: Arrival) -> bool:
            arrival.reset()
            return False

        with running_proxy(forward(port, connect_ports=[origin.port]), tmp_path, port=port) as proxy:
            scripts: list[Callable[[Arrival], bool]] = [until_reset, reset]
            for script in scripts:
                origin.reset(script)
                client = connect_through(proxy, origin.port)
                client.read_until(b"\r\n\r\n")
                client.send(b"GET / HTTP/1.1\r\n\r\n")
                if script is until_reset:
                    origin.wait(lambda: origin.seen)
                    client.reset()
                    assert ended.wait(10)
                else:
                    assert client.closed()


def test_a_loop_is_seen_by_via(tmp_path: Path) -> None:
    port = free_port()
    config: dict[str, Any] = {
        "listeners": [{"endpoint": f"tcp:{port}:interface=127.0.0.1"}],
        "upstreams": {"self": {"servers": [f"http://127.0.0.1:{port}"]}},
        "remap": [{"upstream": "self"}],
    }
    with running_proxy(config, tmp_path, port=port) as proxy, connect(proxy.port) as client:
        status, _, body = client.get()
        assert status == 508
        assert body == b"508 Loop Detected: the request has been through this proxy before\n"


def test_a_forward_proxy_may_have_rules_of_its_own(tmp_path: Path) -> None:
    port = free_port()
    with scripted_origin() as origin:
        origin.script = lambda arrival: arrival.send(answer(b"by rule"))
        config = {
            **forward(port),
            "upstreams": {"origin": {"servers": [f"http://127.0.0.1:{origin.port}"]}},
            "remap": [{"match": {"host": "inner.test"}, "upstream": "origin"}],
        }
        with running_proxy(config, tmp_path, port=port) as proxy, connect(proxy.port) as client:
            client.send(b"GET http://inner.test/x HTTP/1.1\r\nHost: inner.test\r\n\r\n")
            assert client.response()[2] == b"by rule"
