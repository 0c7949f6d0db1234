"""The forward proxy as it runs: absolute-form requests, tunnels, who may reach what, loops."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.support import Arrival, Client, ScriptedOrigin, answer, connect, eventually, pem_files, scripted_origin
from tests.support.proxy import Proxy, free_port, running_proxy


def forward(port: int, **access: Any) -> dict[str, Any]:
    listener: dict[str, Any] = {"endpoint": f"tcp:{port}:interface=127.0.0.1", "mode": "forward"}
    if access:
        listener["access"] = access
    return {"listeners": [listener]}


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
        assert not {b"proxy-authorization", b"proxy-connection", b"x-forwarded-host"} & set(lines)
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
    with running_proxy(forward(port), tmp_path_factory.mktemp("defaults"), port=port) as proxy:
        yield proxy


def test_clients_ports_hosts_and_addresses_are_judged(tmp_path: Path) -> None:
    ports = [free_port() for _ in range(4)]
    with scripted_origin() as origin, scripted_origin() as other:
        rules: list[dict[str, Any]] = [
            {"allow_clients": ["192.0.2.0/24"], "connect_ports": []},  # whoever else comes is a stranger
            {"ports": [origin.port], "connect_ports": [origin.port]},
            {"deny_destinations": ["127.0.0.0/8", "::1"], "connect_ports": []},
            {"allow_hosts": ["localhost"], "connect_ports": []},
        ]
        config = {
            "listeners": [
                {"endpoint": f"tcp:{port}:interface=127.0.0.1", "mode": "forward", "access": access}
                for port, access in zip(ports, rules, strict=True)
            ]
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
            for host in ("127.0.0.1", "localhost", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]", "127.1", "2130706433"):
                statuses = ask(ports[2], host, origin)
                assert all(status in (400, 403, 502) for status in statuses), (host, statuses)
            assert ask(ports[3], "127.0.0.1", origin) == (403, 403)
            assert ask(ports[3], "LocalHost", origin) == (200, 200)


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
