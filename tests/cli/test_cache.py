"""`wasmproxy purge` and `wasmproxy cache` by a real control API; what they say to do where they cannot."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread

import pytest

from tests.admin.support import Admin, serving
from tests.cli.support import wasmproxy
from tests.support.reactor import call
from twisted_wasmproxy import cli

PROXY = """\
listeners: [{endpoint: "tcp:0:interface=127.0.0.1"}]
remap: [{respond: 204}]
"""


@pytest.fixture
def admin() -> Iterator[Admin]:
    with serving() as found:
        yield found


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Run:
    """Return what runs the command in this process: (exit status, standard output, standard error)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        status: object
        try:
            status = cli.main([str(argument) for argument in arguments])
        except SystemExit as wrong:
            status = wrong.code
        output = capsys.readouterr()
        return int(str(status)), output.out, output.err

    return run


def entries(admin: Admin) -> int:
    return len(admin.get("/cache/entries")[1]["entries"])


# purge


def test_everything_that_is_named_is_purged(admin: Admin, command: Run) -> None:
    for url, key in (
        *((b"http://a.example/1", b"x"), (b"http://a.example/2", b"x"), (b"http://b.example/", b"x")),
        *((b"http://c.example/img/1", b"x"), (b"http://c.example/img/2", b"x"), (b"http://d.example/", b"pics")),
        (b"http://e.example/", b"x"),
    ):
        admin.put(url, surrogate_keys=(key,))
    done = command(
        *(
            "purge",
            "--admin",
            admin.url,
            "http://a.example/1",
            "http://a.example/none",
            "--prefix",
            "http://c.example/",
        ),
        *("--host", "b.example", "--key", "pics"),
    )
    assert done == (
        0,
        "1 purged: http://a.example/1\n"
        "0 purged: http://a.example/none\n"
        "2 purged: below http://c.example/\n"
        "1 purged: host b.example\n"
        "1 purged: key pics\n",
        "",
    )
    assert entries(admin) == 2
    assert command("purge", "--all", "--admin", admin.url) == (0, "2 purged: everything\n", "")
    assert entries(admin) == 0


def test_a_soft_purge_keeps_what_it_makes_stale(admin: Admin, command: Run) -> None:
    admin.put(b"http://a.example/")
    done = command("purge", "--soft", "http://a.example/", "--admin", admin.url)
    assert done == (0, "1 made stale: http://a.example/\n", "")
    _, shown, _ = command("cache", "show", "http://a.example/", "--admin", admin.url)
    assert "stale, by a soft purge" in shown


def test_purge_as_json(admin: Admin, command: Run) -> None:
    admin.put(b"http://a.example/")
    status, output, _ = command("purge", "http://a.example/", "--host", "b", "--json", "--admin", admin.url)
    assert status == 0
    assert json.loads(output) == {
        "purged": 1,
        "soft": False,
        "selections": [{"url": "http://a.example/", "purged": 1}, {"host": "b", "purged": 0}],
    }


@pytest.mark.parametrize("arguments", [(), ("--all", "http://a/"), ("--soft",), ("--all", "--key", "x"), ("--key",)])
def test_wrong_usage_is_told_with_status_2(command: Run, arguments: tuple[str, ...]) -> None:
    status, output, error = command("purge", *arguments)
    assert (status, output) == (2, "")
    assert "usage: wasmproxy purge" in error


def test_a_url_that_is_none_fails_and_the_ones_before_are_done(admin: Admin, command: Run) -> None:
    admin.put(b"http://a.example/")
    status, output, error = command("purge", "http://a.example/", "a.example", "--admin", admin.url)
    assert (status, output) == (1, "1 purged: http://a.example/\n")
    assert error == "'url' must be a whole URL as https://example.com/path\n"


# cache


def test_ls_shows_a_line_for_each(admin: Admin, command: Run) -> None:
    admin.put(b"http://a.example/long", body=b"x" * 5000, age=4000, vary=((b"accept-encoding", b"gzip"), (b"x", None)))
    admin.put(b"http://a.example/s", ((b"Cache-Control", b"no-cache"),), status=404)
    status, output, _ = command("cache", "ls", "--admin", admin.url)
    assert status == 0
    head, *rows = output.splitlines()
    assert head.split() == ["STATUS", "STATE", "AGE", "TTL", "SIZE", "URL"]
    column = head.index("URL")
    assert {row[column:] for row in rows} == {
        "http://a.example/long  (accept-encoding: gzip, no x)",
        "http://a.example/s",
    }
    (long,) = (row.split() for row in rows if "long" in row)
    assert long[:4] == ["200", "stale", "1h", "6m"]
    assert long[long.index("KiB") - 1] == "4.9"
    (short,) = (row.split() for row in rows if "long" not in row)
    assert short[:2] == ["404", "no-cache"]


def test_ls_selects_limits_and_says_that_there_is_more(admin: Admin, command: Run) -> None:
    for number in range(5):
        admin.put(b"http://a.example/%d" % number)
    admin.put(b"http://b.example/", surrogate_keys=(b"k",))
    status, output, error = command("cache", "ls", "--host", "a.example", "--limit", "2", "--admin", admin.url)
    assert (status, len(output.splitlines())) == (0, 3)
    assert error == "... and more; --limit shows more than 2\n"
    for selection in (("--key", "k"), ("--prefix", "http://b.example/")):
        status, output, error = command("cache", "ls", *selection, "--json", "--admin", admin.url)
        assert [entry["url"] for entry in json.loads(output)["entries"]] == ["http://b.example/"]
    assert command("cache", "ls", "--host", "c", "--admin", admin.url) == (0, "nothing is stored\n", "")
    assert command("cache", "ls", "--limit", "0", "--admin", admin.url)[0] == 1


def test_show_tells_everything(admin: Admin, command: Run) -> None:
    fields = ((b"Cache-Control", b"max-age=600, stale-while-revalidate=30"), (b"Content-Type", b"text/plain"))
    admin.put(b"http://a.example/", fields, age=10, surrogate_keys=(b"one", b"two"), key=b"http://a.example/\0web")
    admin.put(b"http://a.example/", body=b"0123", start=4, length=20000, vary=((b"accept", b"text/html"),))
    status, output, _ = command("cache", "show", "http://a.example", "--admin", admin.url)
    assert status == 0
    assert output.startswith("http://a.example/\n\n  status ")
    facts = [line.split(None, 1) for line in output.splitlines() if line]
    assert ["status", "200 OK"] in facts
    assert ["lifetime", "10m"] in facts
    assert ["revalidated", "in the background for 30s after that"] in facts
    assert ["size", "7 B"] in facts
    assert ["size", "4 B of 19.5 KiB: bytes 4-7"] in facts
    assert ["for", "accept: text/html"] in facts
    assert ["key", "http://a.example/ | web"] in facts
    assert "  surrogate keys  one two\n" in output
    assert "    Content-Type: text/plain\n" in output
    assert "  state           fresh for 9m" in output


def test_show_of_what_is_not_stored_fails(admin: Admin, command: Run) -> None:
    done = command("cache", "show", "http://a.example/x", "--admin", admin.url)
    assert done == (1, "", "nothing is stored for http://a.example/x\n")


def test_what_a_server_sent_cannot_steer_the_terminal(admin: Admin, command: Run) -> None:
    admin.put(b"http://a.example/", ((b"X-Odd", b"\x1b[2J\x9b31m\xe9"),), reason=b"\x07")
    _, output, _ = command("cache", "show", "http://a.example/", "--admin", admin.url)
    assert r"X-Odd: \x1b[2J\x9b31mé" in output
    assert all(character.isprintable() or character == "\n" for character in output)


def test_stats_are_aligned_with_sizes_in_words(admin: Admin, command: Run) -> None:
    status, output, _ = command("cache", "stats", "--admin", admin.url)
    rows = dict(line.split(None, 1) for line in output.splitlines())
    assert (status, rows["hits"], rows["hit_ratio"], rows["memory.entries"]) == (0, "7", "0.875", "0")
    assert rows["memory.capacity"] == "1048576 (1.0 MiB)"
    assert len({line.index(line.split(None, 1)[1]) for line in output.splitlines()}) == 1
    status, output, _ = command("cache", "stats", "--json", "--admin", admin.url)
    assert json.loads(output)["memory"]["capacity"] == 1048576


# Where the control API is


def test_the_address_may_come_from_the_configuration(admin: Admin, command: Run, tmp_path: Path) -> None:
    path = tmp_path / "proxy.yaml"
    path.write_text(f'{PROXY}cache: true\nadmin: "tcp:{admin.port}:interface=127.0.0.1"\n')
    assert command("cache", "ls", "--config", path) == (0, "nothing is stored\n", "")


def test_a_unix_socket_is_spoken_to(command: Run, tmp_path: Path) -> None:
    (tmp_path / "proxy.yaml").write_text(f"{PROXY}admin: unix:control.sock\n")
    with serving(endpoint=f"unix:{tmp_path}/control.sock"):
        for where in (("--admin", f"unix:{tmp_path}/control.sock"), ("--config", tmp_path / "proxy.yaml")):
            assert command("purge", "--all", *where) == (0, "0 purged: everything\n", "")


@pytest.mark.parametrize(
    "form", ["tcp:{}", "tcp:{}:interface=0.0.0.0", "tcp:port={}:interface=127.0.0.1", "http://localhost:{}/"]
)
def test_an_endpoint_is_spoken_to_where_it_listens(admin: Admin, command: Run, form: str) -> None:
    assert command("cache", "ls", "--admin", form.format(admin.port))[0] == 0


def test_a_proxy_that_does_not_run_is_told_with_what_to_do(command: Run) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}"
        status, output, error = command("cache", "stats", "--admin", address)
    assert (status, output) == (1, "")
    assert error.startswith(f"cannot reach the control API at {address}: Connection refused; is the proxy running")
    assert "--config FILE" in error


@pytest.mark.parametrize("answer", [b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", b""])
def test_another_server_at_the_address_is_told(command: Run, answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            client, _ = server.accept()
            with client:
                client.recv(65536)
                client.sendall(answer)

        thread = Thread(target=serve)
        thread.start()
        status, output, error = command("cache", "stats", "--admin", f"http://127.0.0.1:{server.getsockname()[1]}")
        thread.join()
    assert (status, output) == (1, "")
    assert error


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("http://", "not an address"),
        ("http://h:x", "not an address"),
        ("http://h/path", "not an address"),
        ("tcp:0", "no way to tcp:0 is known"),
        ("systemd:domain=INET:name=x", "give --admin as http://HOST:PORT or unix:PATH"),
        ("localhost:9901", "no way to localhost:9901 is known"),
        ("unix:", "no way to unix: is known"),
        ("tcp:1\\", "ends in a backslash"),
    ],
)
def test_an_address_that_is_none_is_told(command: Run, address: str, text: str) -> None:
    status, output, error = command("cache", "stats", "--admin", address)
    assert (status, output) == (1, "")
    assert text in error


def test_a_configuration_that_does_not_help_is_told(command: Run, tmp_path: Path) -> None:
    path = tmp_path / "proxy.yaml"
    path.write_text(PROXY)
    status, _, error = command("cache", "stats", "--config", path)
    assert (status, error) == (1, f"{path} has no 'admin' section, so its proxy has no control API\n")
    path.write_text(PROXY + "admin: {}\n")
    status, _, error = command("cache", "stats", "--config", path)
    assert (status, error) == (1, f"{path}:3: admin: 'endpoint' is missing\n")
    assert command("cache", "stats", "--config", path, "--admin", "http://h:1")[0] == 2


def test_without_a_cache_the_command_says_so(admin: Admin, command: Run) -> None:
    call(admin.server.use, None)
    done = command("purge", "--all", "--admin", admin.url)
    assert done == (1, "", "there is no cache: the configuration has no 'cache' section\n")


def test_the_installed_command_has_both() -> None:
    assert "wasmproxy purge" in wasmproxy("purge", "--help").stdout
    assert "wasmproxy cache" in wasmproxy("cache", "--help").stdout
    assert wasmproxy("cache").returncode == 2
