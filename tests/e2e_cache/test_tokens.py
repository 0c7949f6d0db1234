"""Tokens of PURGE and of the control API; what is refused without one; and who may open the control socket."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.support import eventually
from tests.e2e_cache.support import FRESH, Site, Stand, ok, serving
from tests.support.proxy import fetch, free_port
from twisted_wasmproxy.config import ConfigurationError, load
from twisted_wasmproxy.config.model import Configuration

SECRET = "s3cret-of-the-purger"
RIGHT = f"Authorization: Bearer {SECRET}"
WRONG = [
    (),
    ("Authorization: Bearer wrong",),
    (f"Authorization: Basic {SECRET}",),
    (f"Authorization: Bearer {SECRET}x",),
    (f"Authorization: Bearer {SECRET[:-1]}",),
    (RIGHT, RIGHT),
    ("Authorization: Bearer",),
    ("Authorization: Bearer \xff",),
]
THROUGH = [
    "Via: 1.1 nginx",
    "X-Forwarded-For: 192.0.2.1",
    "Forwarded: for=192.0.2.1",
    "X-Real-IP: 192.0.2.1",
    "x-forwarded-proto: https",
]


@contextmanager
def guarded(folder: Path) -> Iterator[tuple[Stand, int]]:
    """Run a proxy whose purges and calls need the token; give it and the port of its control API."""
    (folder / "token").write_text(f"{SECRET}\n")
    (folder / "token").chmod(0o600)
    port = free_port()
    with serving(
        folder,
        {"memory": "4MiB", "purge": {"token_file": "token"}},
        admin={"endpoint": f"tcp:{port}:interface=127.0.0.1", "token": SECRET},
        access_log={"path": "access.log", "format": "%<cqhm> %<{Authorization}cqh> %<{Authorization}pqh> %<pssc>"},
        remap=[
            {"match": {"path": "/plain/"}, "upstream": "origin", "cache": False},
            {"upstream": "origin"},
        ],
    ) as stand:
        yield stand, port


def store(site: Site) -> None:
    site.answer(ok(b"body", FRESH))
    site.get()
    eventually(lambda: site.get().hit)


def test_a_purge_needs_the_token_and_nobody_else_sees_it(tmp_path: Path) -> None:
    with guarded(tmp_path) as (stand, _):
        site = stand.site()
        store(site)
        for lines in WRONG:
            reply = site.get(*lines, method="PURGE")
            assert (reply.status, reply.field("www-authenticate")) == (401, 'Bearer realm="wasmproxy"')
        assert site.get().hit
        assert site.get(RIGHT, THROUGH[0], method="PURGE").status == 200  # who knows it may be anywhere
        assert not site.get().hit
        plain = stand.site("/plain")
        plain.get(RIGHT, method="PURGE")
        plain.get("Authorization: Bearer other", method="PURGE")
        assert [asked.field("authorization") for asked in plain.seen] == [None, "Bearer other"]
        log = stand.proxy.config.parent / "access.log"
        eventually(lambda: log.read_text().count("PURGE") >= len(WRONG) + 3)
        assert SECRET not in log.read_text()
        assert SECRET not in stand.proxy.log


@pytest.mark.parametrize("line", THROUGH)
def test_without_a_token_a_purge_through_a_proxy_is_refused(tmp_path_factory: Any, line: str, stand: Stand) -> None:
    site = stand.site()
    store(site)
    reply = site.get(line, method="PURGE")
    assert reply.status == 403
    assert b"through a proxy" in reply.body
    assert site.get().hit
    assert site.get(method="PURGE").status == 200


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    return {"cache": {"memory": "4MiB"}, "admin": {"endpoint": "unix:admin.sock"}}


def test_the_control_socket_is_for_its_owner_alone(stand: Stand) -> None:
    path = stand.proxy.config.parent / "admin.sock"
    assert path.stat().st_mode & 0o777 == 0o600
    assert command(stand, "cache", "stats")[0] == 0


def command(stand: Stand, *arguments: object, **environment: str) -> tuple[int, str]:
    program = Path(sys.executable).with_name("wasmproxy")
    if "--admin" not in arguments:
        arguments = (*arguments, "--config", stand.proxy.config)
    done = subprocess.run(
        [str(argument) for argument in (program, *arguments)],
        capture_output=True, text=True, timeout=30, env=environment,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_a_call_needs_the_token_and_the_command_can_give_it(tmp_path: Path) -> None:
    with guarded(tmp_path) as (stand, port):
        for lines in WRONG:
            headers = [(name, value) for name, _, value in (line.partition(": ") for line in lines)]
            if lines == (RIGHT, RIGHT) or "\xff" in "".join(lines):
                continue
            answer = fetch(port, "/cache/stats", headers=headers)
            assert (answer.status, answer.header("www-authenticate")) == (401, 'Bearer realm="wasmproxy"')
            assert "token" in answer.json()["error"]
        assert fetch(port, "/cache/stats", headers=[("Authorization", f"bearer {SECRET}")]).status == 200
        there = ("cache", "stats", "--admin", f"http://127.0.0.1:{port}")
        status, text = command(stand, *there)
        assert status == 1
        assert "--token-file" in text
        assert command(stand, *there, "--token-file", tmp_path / "token")[0] == 0
        assert command(stand, *there, WASMPROXY_TOKEN=SECRET)[0] == 0
        assert command(stand, *there, WASMPROXY_TOKEN="wrong")[0] == 1
        assert command(stand, "purge", "--all")[0] == 0  # from the configuration
        assert command(stand, *there, "--token-file", tmp_path / "no")[0] == 1
        assert SECRET not in stand.proxy.log


@pytest.mark.parametrize("line", [*THROUGH, "Origin: https://evil.example", "Sec-Fetch-Site: cross-site"])
def test_without_a_token_a_call_through_a_proxy_or_from_a_web_page_is_refused(tmp_path: Path, line: str) -> None:
    port = free_port()
    with serving(tmp_path, {"memory": "4MiB"}, admin={"endpoint": f"tcp:{port}:interface=127.0.0.1"}):
        name, _, value = line.partition(": ")
        assert fetch(port, "/cache/stats", headers=[(name, value)]).status == 403
        assert fetch(port, "/cache/stats").status == 200


def test_a_reload_changes_the_tokens(tmp_path: Path) -> None:
    with guarded(tmp_path) as (stand, port):
        site = stand.site()
        store(site)
        config = yaml.safe_load(stand.proxy.config.read_text())
        config["admin"]["token"] = "another-token-of-length"
        (tmp_path / "token").write_text("another-token-of-length")
        stand.proxy.config.write_text(yaml.safe_dump(config))
        stand.proxy.process.send_signal(1)
        there = [("Authorization", "Bearer another-token-of-length")]
        eventually(lambda: fetch(port, "/cache/stats", headers=there).status == 200)
        assert fetch(port, "/cache/stats", headers=[("Authorization", f"Bearer {SECRET}")]).status == 401
        assert site.get(RIGHT, method="PURGE").status == 401
        assert site.get("Authorization: Bearer another-token-of-length", method="PURGE").status == 200


# Configuration


def loaded(folder: Path, text: str) -> Configuration:
    path = folder / "proxy.yaml"
    path.write_text('listeners: [{endpoint: "tcp:1:interface=127.0.0.1"}]\nremap: [{respond: 204}]\n' + text)
    return load(path)


@pytest.mark.parametrize(
    ("text", "place", "cause"),
    [
        ("admin: {endpoint: 'tcp:2', token: ''}", "admin.token", "visible ASCII"),
        ("admin: {endpoint: 'tcp:2', token: 'sec ret'}", "admin.token", "visible ASCII"),
        ("admin: {endpoint: 'tcp:2', token: 'secrét'}", "admin.token", "visible ASCII"),
        ("admin: {endpoint: 'tcp:2', token: [secret]}", "admin.token", "text"),
        ("admin: {endpoint: 'tcp:2', token_file: missing}", "admin.token_file", "no such file"),
        ("admin: {endpoint: 'tcp:2', token_file: empty}", "admin.token_file", "visible ASCII"),
        ("admin: {endpoint: 'tcp:2', token: a, token_file: good}", "admin.token_file", "already"),
        ("cache: {purge: {token: 'sec ret'}}", "cache.purge.token", "visible ASCII"),
        ("cache: {purge: {tokens: secret}}", "cache.purge.tokens", "unknown key"),
        ("cache: {purge: {clients: [nowhere]}}", "cache.purge.clients[0]", "network"),
        ("cache: {collapse_timeout: soon}", "cache.collapse_timeout", "a time"),
        ("cache: {finish_abandoned: {completed: 2}}", "cache.finish_abandoned.completed", "from 0 to 1"),
        ("cache: {finish_abandoned: {remaining: all}}", "cache.finish_abandoned.remaining", "a size"),
        ("cache: {finish_abandoned: sometimes}", "cache.finish_abandoned", "true or false"),
    ],
)
def test_what_is_wrong_is_told_and_the_token_is_not(tmp_path: Path, text: str, place: str, cause: str) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "good").write_text(SECRET)
    with pytest.raises(ConfigurationError) as wrong:
        loaded(tmp_path, text)
    (problem,) = wrong.value.problems
    assert problem.location.key == place
    assert cause in problem.text
    assert "sec" not in problem.text.removeprefix("unknown key; did you mean")


def test_odd_tokens_and_files_are_warned_of(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(SECRET)
    (tmp_path / "token").chmod(0o644)
    (warning,) = loaded(tmp_path, "cache: {purge: {token_file: token}}").warnings
    assert "can be read by all users" in warning
    (warning,) = loaded(tmp_path, "admin: {endpoint: 'tcp:2:interface=127.0.0.1', token: short}").warnings
    assert "can be guessed" in warning
    found = loaded(tmp_path, f"admin: {{endpoint: 'tcp:2', token: {SECRET}}}")
    assert (found.warnings, SECRET in repr(found)) == ((), False)


@pytest.mark.parametrize(
    ("admin", "warned"),
    [
        ("'tcp:2:interface=127.0.0.1'", True),
        (f"{{endpoint: 'tcp:2:interface=127.0.0.1', token: {SECRET}}}", False),
        ("'unix:admin.sock'", False),
    ],
)
def test_a_control_api_that_forward_clients_may_reach_is_warned_of(tmp_path: Path, admin: str, warned: bool) -> None:
    path = tmp_path / "proxy.yaml"
    path.write_text(f"listeners: [{{endpoint: 'tcp:1:interface=127.0.0.1', mode: forward}}]\nadmin: {admin}\n")
    assert any("clients of the forward listener" in warning for warning in load(path).warnings) == warned


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ("unix:a.sock", ":mode=600"),
        ("unix:a.sock:mode=660", ":mode=660"),
        ("unix:address=a.sock", ":mode=600"),
        ("unix:a.sock:666", ":666"),
    ],
)
def test_a_control_socket_gets_a_mode_unless_it_says_one(tmp_path: Path, given: str, made: str) -> None:
    admin = loaded(tmp_path, f"admin: '{given}'").admin
    assert admin is not None
    assert admin.endpoint.endswith(made)
