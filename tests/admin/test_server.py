"""The server below the calls: what it refuses, how it answers, and how it opens and closes."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.admin.support import Admin, serving
from tests.support.reactor import run, started_reactor
from twisted_wasmproxy.admin import AdminError, AdminServer
from twisted_wasmproxy.config.model import AdminConfig

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def admin() -> Iterator[Admin]:
    with serving() as found:
        yield found


def refused(
    admin: Admin, method: str, target: str, body: bytes | None = None, fields: dict[str, str] | None = None
) -> tuple[int, str]:
    response, answer = admin.raw(method, target, body, fields)
    assert response.headers["Content-Type"] == "application/json"
    return response.status, json.loads(answer)["error"]


def test_answers_are_json_that_nobody_keeps_or_guesses_about(admin: Admin) -> None:
    response, body = admin.raw("GET", "/cache/stats")
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Server"].startswith("twisted-wasmproxy/")
    assert int(response.headers["Content-Length"]) == len(body)


def test_head_is_get_without_the_body(admin: Admin) -> None:
    response, body = admin.raw("HEAD", "/cache/stats")
    assert (response.status, body) == (200, b"")
    assert int(response.headers["Content-Length"]) > 2


@pytest.mark.parametrize("target", ["/", "/cache", "/cache/", "/cache/purge/", "/cache//stats", "/CACHE/stats", "/%2e"])
def test_what_is_not_there_is_not_found(admin: Admin, target: str) -> None:
    status, text = refused(admin, "GET", target)
    assert status == 404
    assert "/cache/purge" in text


@pytest.mark.parametrize(
    ("method", "target", "allow"),
    [
        ("GET", "/cache/purge", "POST"),
        ("POST", "/cache/stats", "GET, HEAD"),
        ("DELETE", "/cache/entries", "GET, HEAD"),
        ("OPTIONS", "/cache/purge", "POST"),
        ("PURGE", "/cache/entry", "GET, HEAD"),
    ],
)
def test_another_method_is_told_which_are_allowed(admin: Admin, method: str, target: str, allow: str) -> None:
    response, _ = admin.raw(method, target, b"{}" if method == "POST" else None, JSON)
    assert (response.status, response.headers["Allow"]) == (405, allow)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 60_000, "not JSON"),
        (b'{"all": true} x', "not JSON"),
        (b"[]", "must be a JSON object"),
        (b'"all"', "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b'{"all": true, "all": true}', "more than once"),
    ],
)
def test_a_body_that_is_not_a_json_object_is_refused(admin: Admin, body: bytes, text: str) -> None:
    status, error = refused(admin, "POST", "/cache/purge", body, JSON)
    assert status == 400
    assert text in error


MULTIPART = b'--x\r\nContent-Disposition: form-data; name="all"\r\n\r\ntrue\r\n--x--\r\n'


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (None, b'{"all": true}'),
        ("", b'{"all": true}'),
        ("text/plain", b'{"all": true}'),
        ("application/jsonx", b'{"all": true}'),
        ("application/x-www-form-urlencoded", b"all=true"),
        ("multipart/form-data; boundary=x", MULTIPART),
    ],
)
def test_what_a_form_of_a_web_page_could_send_is_refused(admin: Admin, kind: str | None, body: bytes) -> None:
    fields = {} if kind is None else {"Content-Type": kind}
    assert refused(admin, "POST", "/cache/purge", body, fields)[0] == 415


def test_json_with_a_charset_is_json(admin: Admin) -> None:
    fields = {"Content-Type": "Application/JSON; charset=utf-8"}
    response, _ = admin.raw("POST", "/cache/purge", b'{"all": true}', fields)
    assert response.status == 200


def test_a_call_in_the_query_of_a_post_is_refused(admin: Admin) -> None:
    assert refused(admin, "POST", "/cache/purge?all=1", b"{}", JSON)[0] == 400


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_long_is_refused_and_the_connection_goes_on(admin: Admin, chunked: bool) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", admin.port, timeout=10)
    body = b'{"all": true}' + b" " * 200_000
    pieces = (body[start : start + 10_000] for start in range(0, len(body), 10_000))
    connection.request("POST", "/cache/purge", pieces if chunked else body, JSON, encode_chunked=chunked)
    response = connection.getresponse()
    assert (response.status, "65536 bytes" in response.read().decode()) == (413, True)
    connection.request("GET", "/cache/stats")
    assert connection.getresponse().status == 200
    connection.close()


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.0.0.1:1", "10.1.2.3", "[::1]:99", "localhost", "LOCALHOST:80", "x.localhost", "localhost."],
)
def test_addresses_and_localhost_are_hosts(admin: Admin, host: str) -> None:
    assert admin.raw("GET", "/cache/stats", fields={"Host": host})[0].status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example:9901",
        "127.0.0.1@evil",
        "",
        "1",
        "[::1",
        "a:b:c",
    ],
)
def test_a_name_that_could_be_rebound_is_no_host(admin: Admin, host: str) -> None:
    assert refused(admin, "POST", "/cache/purge", b'{"all": true}', {**JSON, "Host": host})[0] == 421


def test_two_hosts_are_none(admin: Admin) -> None:
    with socket.create_connection(("127.0.0.1", admin.port), timeout=10) as client:
        client.sendall(b"GET /cache/stats HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil\r\nConnection: close\r\n\r\n")
        assert client.makefile("rb").readline().split()[1] in (b"400", b"421")


@pytest.mark.parametrize(
    ("field", "status"),
    [
        (b"Host: \xff", b"421"),
        (b"Host: localhost\r\nContent-Type: \xff", b"415"),
        (b"Host: 127.0.0.1:\xc2\xb2", b"421"),
    ],
)
def test_fields_that_are_no_text_are_refused_as_others_are(admin: Admin, field: bytes, status: bytes) -> None:
    with socket.create_connection(("127.0.0.1", admin.port), timeout=10) as client:
        client.sendall(b"POST /cache/purge HTTP/1.1\r\n%b\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}" % field)
        assert client.makefile("rb").readline().split()[1] == status


@given(st.binary(max_size=300))
def test_whatever_is_posted_the_answer_is_json_and_the_server_goes_on(admin: Admin, body: bytes) -> None:
    response, answer = admin.raw("POST", "/cache/purge", body, JSON)
    assert response.status in (200, 400)
    assert isinstance(json.loads(answer), dict)


@given(st.dictionaries(st.sampled_from(["url", "prefix", "host", "key"]), st.text(max_size=40), min_size=1))
def test_whatever_is_selected_is_selected_or_refused(admin: Admin, members: dict[str, str]) -> None:
    assert admin.purge(**members)[0] in (200, 400)


# Opening and closing


def test_it_listens_on_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    with serving(endpoint=f"unix:{path}:mode=600"), socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(path))
        assert path.stat().st_mode & 0o777 == 0o600
        client.sendall(b"GET /cache/stats HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert client.makefile("rb").readline() == b"HTTP/1.1 200 OK\r\n"


def test_an_address_in_use_is_told(admin: Admin) -> None:
    endpoint = f"tcp:{admin.port}:interface=127.0.0.1"
    with pytest.raises(AdminError, match=rf"cannot listen on {endpoint}: .*in use"):
        run(AdminServer(AdminConfig(endpoint), started_reactor()).open)


def test_close_ends_the_connections_and_frees_the_address() -> None:
    with serving() as admin:
        connection = http.client.HTTPConnection("127.0.0.1", admin.port, timeout=10)
        connection.request("GET", "/cache/stats")
        assert connection.getresponse().read()
        run(admin.server.close)
        assert connection.sock.recv(1) == b""
        connection.close()
        with serving(endpoint=f"tcp:{admin.port}:interface=127.0.0.1") as again:
            assert again.get("/cache/stats")[0] == 200


def test_close_without_open_is_nothing() -> None:
    server = AdminServer(AdminConfig("tcp:0:interface=127.0.0.1"), started_reactor())
    run(server.close)
    run(server.close)
