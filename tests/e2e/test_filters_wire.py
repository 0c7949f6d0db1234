"""What filters change about the wire: who answers 100 (Continue), the length of changed content, failing filters."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.support import (
    Arrival,
    ScriptedOrigin,
    answer,
    connect,
    plugin_environment,
    reverse_config,
    scripted_origin,
)
from tests.support.proxy import Proxy, running_proxy


@pytest.fixture(scope="module", params=["client", "origin"])
def upper(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Proxy, ScriptedOrigin]]:
    folder = tmp_path_factory.mktemp("upper")
    with scripted_origin() as origin:
        config = reverse_config(
            origin, filters=[{"native": "upper", "phase": request.param}], limits={"buffer": 10_000}
        )
        with running_proxy(config, folder, environment=plugin_environment(folder)) as proxy:
            yield proxy, origin
            assert "Traceback" not in proxy.log, proxy.log


def test_the_proxy_answers_100_itself_where_a_filter_must_see_the_content(upper: tuple[Proxy, ScriptedOrigin]) -> None:
    proxy, origin = upper
    expectations: list[bytes | None] = []

    def script(arrival: Arrival) -> None:
        expectations.append(arrival.field(b"expect"))
        arrival.send(answer(arrival.content()))

    origin.reset(script)
    with connect(proxy.port) as client:
        client.request("/", "POST", "Expect: 100-continue", "Content-Length: 5")
        assert client.response()[0] == 100
        assert not origin.seen
        client.send(b"hello")
        assert client.response()[2] == b"HELLO!!"
    assert expectations == [None]


@pytest.mark.parametrize("chunked", [False, True])
def test_changed_content_is_framed_by_its_new_length(upper: tuple[Proxy, ScriptedOrigin], chunked: bool) -> None:
    proxy, origin = upper

    def script(arrival: Arrival) -> None:
        got.append(arrival.content())
        if chunked:
            arrival.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n")
        else:
            arrival.send(answer(b"abc"))

    got: list[bytes] = []
    origin.reset(script)
    with connect(proxy.port) as client:
        for _ in range(2):
            if chunked:
                client.request("/", "POST", "Transfer-Encoding: chunked")
                client.send(b"2\r\nxy\r\n1\r\nz\r\n0\r\n\r\n")
            else:
                client.request("/", "POST", body=b"xyz")
            status, _, body = client.response()
            assert (status, body) == (200, b"ABC!")
    assert got == [b"XYZ!", b"XYZ!"]


def test_content_beyond_the_buffer_of_a_filter_is_a_413_or_a_502(upper: tuple[Proxy, ScriptedOrigin]) -> None:
    proxy, origin = upper
    origin.reset(lambda arrival: arrival.send(answer(b"x" * 10_001)))
    with connect(proxy.port) as client:
        client.request("/", "POST", body=b"x" * 10_001)
        assert client.response()[0] == 413
    assert not origin.seen
    with connect(proxy.port) as client:
        status, _, body = client.get()
        assert status == 502
        assert b"xxx" not in body


def test_a_head_answer_is_not_waited_for(upper: tuple[Proxy, ScriptedOrigin]) -> None:
    proxy, origin = upper
    origin.reset(lambda arrival: arrival.send(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n"))
    with connect(proxy.port) as client:
        client.request("/", "HEAD")
        assert client.response(head=True)[0] == 200


def test_an_upgrade_is_a_tunnel_past_the_filters(upper: tuple[Proxy, ScriptedOrigin]) -> None:
    proxy, origin = upper

    def script(arrival: Arrival) -> bool:
        arrival.send(b"HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhello")
        arrival.send(arrival.read(5))
        arrival.sock.settimeout(5)
        arrival.send(arrival.read_all())
        return False

    origin.reset(script)
    with connect(proxy.port) as client:
        client.request("/", "GET", "Connection: upgrade", "Upgrade: websocket")
        client.send(b"early")
        assert client.response()[0] == 101
        assert client.read(10) == b"helloearly"
        client.send(b"x" * 20_000)  # more than a filter may hold
        client.shutdown()
        assert client.read_all() == b"x" * 20_000


def test_an_upgrade_with_content_is_refused_or_waits_for_its_end(upper: tuple[Proxy, ScriptedOrigin]) -> None:
    proxy, origin = upper

    def script(arrival: Arrival) -> bool:
        got.append(arrival.content())
        arrival.send(b"HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
        got.append(arrival.read_all())
        return False

    got: list[bytes] = []
    origin.reset(script)
    with connect(proxy.port) as client:
        client.request("/", "POST", "Connection: upgrade", "Upgrade: websocket", body=b"content")
        client.send(b"raw")
        assert client.response()[0] == 101
        client.shutdown()
        assert client.read_all() == b""
    assert got == [b"CONTENT!", b"raw"]


def test_an_origin_that_lies_is_broken_off_behind_a_filter_too(upper: tuple[Proxy, ScriptedOrigin]) -> None:
    proxy, origin = upper

    def script(arrival: Arrival) -> bool:
        arrival.send(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nshort")
        return False

    origin.reset(script)
    with connect(proxy.port) as client:
        status, _, body = client.get()  # nothing of it had been passed on
        assert status == 502
        assert body.startswith(b"502 Bad Gateway: ")


@pytest.mark.parametrize(("fail_open", "status"), [(True, 200), (False, 500)])
def test_a_filter_that_fails_is_skipped_or_answers_500(tmp_path: Path, fail_open: bool, status: int) -> None:
    with scripted_origin() as origin:
        config = reverse_config(origin, filters=[{"native": "failing", "fail_open": fail_open}])
        with running_proxy(config, tmp_path, environment=plugin_environment(tmp_path)) as proxy:
            with connect(proxy.port) as client:
                assert client.get()[0] == status
                assert client.get()[0] == status
            assert "this filter always fails" in proxy.log
