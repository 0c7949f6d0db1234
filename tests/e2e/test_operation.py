"""Running the proxy: starts that fail, stop, reload, daemons and their privileges, logs."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.support import Arrival, answer, connect, eventually, resident_kib, reverse_config, scripted_origin
from tests.support.proxy import Proxy, free_port, running_proxy

TWISTD = Path(sys.executable).with_name("twistd")
EXAMPLES = Path(__file__).parents[2] / "examples"
HEADERS_WASM = str(EXAMPLES / "c_headers" / "headers.wasm")


def wasm_filter(text: str) -> list[dict[str, Any]]:
    """Return a Wasm filter that adds a field to answers."""
    return [
        {
            "configuration": f"response set x-filter: {text}\n",
            "vm_config": {"code": {"local": {"filename": HEADERS_WASM}}},
        }
    ]


def reload(proxy: Proxy, config: dict[str, Any] | None = None) -> None:
    """Write another configuration, ask for it, and wait until it is used or refused."""
    if config is not None:
        listeners = yaml.safe_load(proxy.config.read_text())["listeners"]
        proxy.config.write_text(yaml.safe_dump({"listeners": listeners, **config}))
    done = re.compile(r"configuration reloaded|reload refused|reload failed")
    before = len(done.findall(proxy.log))
    proxy.process.send_signal(signal.SIGHUP)
    eventually(lambda: len(done.findall(proxy.log)) > before, what=proxy.log)


def refused(port: int) -> bool:
    """Return whether nobody listens on the port."""
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        pass
    return False


# Starts


def start(folder: Path, config: dict[str, Any] | str, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = folder / "proxy.yaml"
    path.write_text(config if isinstance(config, str) else yaml.safe_dump(config))
    command = [TWISTD, *(arguments or ("--nodaemon", "--pidfile=")), "wasmproxy", "--config", path]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.parametrize("daemon", [False, True])
def test_an_address_in_use_ends_the_start(tmp_path: Path, daemon: bool) -> None:
    free = free_port()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config = {"listeners": [{"endpoint": f"tcp:{number}:interface=127.0.0.1"} for number in (free, port)]}
        arguments = ("--pidfile=p.pid", "--logfile=p.log") if daemon else ()
        done = start(tmp_path, config, *arguments)
    assert done.returncode == 1
    assert f"cannot listen on tcp:{port}:interface=127.0.0.1" in done.stderr + done.stdout
    assert "Traceback" not in done.stderr + done.stdout
    if daemon:
        assert "Address already in use" in (tmp_path / "p.log").read_text()
        assert not (tmp_path / "p.pid").exists()
    eventually(lambda: refused(free))


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ("listeners: [{endpoit: x}]\nfoo: 1\n", ["proxy.yaml:1: listeners[0].endpoit", "proxy.yaml:2: foo"]),
        ("listeners: [\n", ["proxy.yaml:2"]),
        ("listeners: []\n", ["listeners"]),
        (
            "listeners: [{endpoint: 'tcp:1:interface=127.0.0.1'}]\n"
            "filters: [{vm_config: {code: {local: {filename: nope.wasm}}}}]\n",
            ["proxy.yaml:2: filters[0].vm_config.code.local.filename", "nope.wasm"],
        ),
        (
            "listeners: [{endpoint: 'tcp:0:interface=127.0.0.1'}]\n"
            "filters: [{vm_config: {code: {local: {filename: proxy.yaml}}}}]\n",
            ["proxy.yaml:2: filters[0]", "not a WebAssembly module"],
        ),
        (
            "listeners: [{endpoint: 'tcp:0:interface=127.0.0.1'}]\nfilters: [{native: nobody}]\n",
            ["proxy.yaml:2: filters[0]", "no native filter 'nobody'"],
        ),
        (
            "listeners: [{endpoint: 'tcp:0:interface=127.0.0.1'}]\naccess_log: {path: /proc/nowhere/x}\n",
            ["/proc/nowhere"],
        ),
    ],
    ids=["unknown keys", "no YAML", "no listener", "no module", "no Wasm", "no such filter", "no log"],
)
def test_a_configuration_that_cannot_be_used_ends_the_start(tmp_path: Path, config: str, expected: list[str]) -> None:
    done = start(tmp_path, config)
    assert done.returncode == 1
    for text in expected:
        assert text in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


def test_a_start_without_a_configuration_says_what_is_missing(tmp_path: Path) -> None:
    done = subprocess.run(
        [TWISTD, "--nodaemon", "wasmproxy"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr == "twistd wasmproxy: --config FILE is needed\n"


# Stop


def test_sigterm_lets_what_is_in_flight_finish_and_closes_what_is_idle(tmp_path: Path) -> None:
    begun, go = threading.Event(), threading.Event()

    def script(arrival: Arrival) -> None:
        if arrival.target == b"/slow":
            arrival.send(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf")
            begun.set()
            go.wait(20)
            arrival.send(b"rest")
        else:
            arrival.send(answer())

    with scripted_origin() as origin:
        origin.script = script
        with running_proxy(reverse_config(origin, filters=wasm_filter("x")), tmp_path) as proxy:
            with connect(proxy.port) as idle, connect(proxy.port) as silent, connect(proxy.port) as slow:
                assert idle.get()[0] == 200
                slow.request("/slow")
                assert begun.wait(10)
                proxy.process.send_signal(signal.SIGTERM)
                assert idle.closed()
                assert silent.closed()
                eventually(lambda: refused(proxy.port))
                assert proxy.process.poll() is None
                go.set()
                assert slow.response()[2] == b"halfrest"
                assert slow.closed()
            assert proxy.process.wait(10) == -signal.SIGTERM
        assert "Traceback" not in proxy.log
        assert "Unhandled" not in proxy.log


def test_a_stop_waits_no_longer_than_its_limit(tmp_path: Path) -> None:
    with scripted_origin() as origin:
        origin.script = lambda arrival: bool(arrival.read_all())
        config = reverse_config(origin, timeouts={"drain": 0.5})
        with running_proxy(config, tmp_path) as proxy, connect(proxy.port) as client:
            client.request()
            origin.wait(lambda: origin.seen)
            began = time.monotonic()
            proxy.process.send_signal(signal.SIGTERM)
            assert client.closed()
            assert proxy.process.wait(10) == -signal.SIGTERM
            assert 0.4 < time.monotonic() - began < 5
        assert "Traceback" not in proxy.log


def test_a_second_signal_ends_the_wait_and_a_reload_meanwhile_does_not(tmp_path: Path) -> None:
    with scripted_origin() as origin:
        origin.script = lambda arrival: bool(arrival.read_all())
        with running_proxy(reverse_config(origin), tmp_path) as proxy, connect(proxy.port) as client:
            client.request()
            origin.wait(lambda: origin.seen)
            proxy.process.send_signal(signal.SIGTERM)
            eventually(lambda: "waiting up to 30.0 s for 1 transactions" in proxy.log)
            proxy.process.send_signal(signal.SIGHUP)
            with pytest.raises(subprocess.TimeoutExpired):
                proxy.process.wait(0.3)
            proxy.process.send_signal(signal.SIGTERM)
            assert client.closed()
            assert proxy.process.wait(10) == -signal.SIGTERM
        assert "Traceback" not in proxy.log
        assert "Unhandled" not in proxy.log


def test_a_tunnel_ends_with_the_limit_too(tmp_path: Path) -> None:
    port = free_port()
    with scripted_origin() as origin:
        origin.script = lambda arrival: bool(arrival.read_all())
        config = {
            "listeners": [
                {
                    "endpoint": f"tcp:{port}:interface=127.0.0.1",
                    "mode": "forward",
                    "access": {"connect_ports": [], "allow_destinations": ["127.0.0.1"]},
                    "timeouts": {"drain": 0.5},
                }
            ]
        }
        with running_proxy(config, tmp_path, port=port) as proxy, connect(port) as client:
            client.send(f"CONNECT 127.0.0.1:{origin.port} HTTP/1.1\r\nHost: a:1\r\n\r\n".encode())
            assert client.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")
            proxy.process.send_signal(signal.SIGTERM)
            assert client.closed()
            assert proxy.process.wait(10) == -signal.SIGTERM
        assert "Traceback" not in proxy.log


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_idle_proxy_stops_at_once(tmp_path: Path, number: signal.Signals) -> None:
    if signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip(f"{number.name} is ignored by what runs the tests, and so by what they start")
    with scripted_origin() as origin, running_proxy(reverse_config(origin), tmp_path) as proxy:
        with connect(proxy.port) as client:
            assert client.get()[0] == 200
            proxy.process.send_signal(number)
            assert client.closed()
        assert proxy.process.wait(5) == -number  # twistd ends by the signal that it got
        assert "Traceback" not in proxy.log


# Reload


def test_new_transactions_use_the_new_configuration_and_running_ones_the_old(tmp_path: Path) -> None:
    begun, go = threading.Event(), threading.Event()

    def slow(arrival: Arrival) -> None:
        if arrival.target == b"/slow":
            begun.set()
            go.wait(20)
        arrival.send(answer(b"old"))

    with scripted_origin() as old, scripted_origin() as new:
        old.script = slow
        new.script = lambda arrival: arrival.send(answer(b"new"))
        config = reverse_config(old, filters=wasm_filter("old"))
        with running_proxy(config, tmp_path) as proxy, connect(proxy.port) as client, connect(proxy.port) as running:
            assert client.get()[2] == b"old"
            running.request("/slow")
            assert begun.wait(10)
            reload(proxy, reverse_config(new, filters=wasm_filter("new")))
            status, fields, body = client.get()  # on the connection that was there before
            assert (status, fields[b"x-filter"], body) == (200, b"new", b"new")
            go.set()
            status, fields, body = running.response()
            assert (status, fields[b"x-filter"], body) == (200, b"old", b"old")
            assert running.get()[2] == b"new"


def test_a_bad_file_changes_nothing_and_is_reported(tmp_path: Path) -> None:
    with scripted_origin() as origin:
        good = reverse_config(origin, filters=wasm_filter("kept"))
        with running_proxy(good, tmp_path) as proxy, connect(proxy.port) as client:
            text = proxy.config.read_text()
            for bad, expected in (
                ({"remap": [{"upstream": "nobody"}]}, "remap[0].upstream: unknown upstream 'nobody'"),
                ({"filters": [{"vm_config": {"code": {"local": {"filename": "proxy.yaml"}}}}]}, "not a WebAssembly"),
                ({"filters": wasm_filter("a: b\nnonsense")}, "filters[0]"),
                ({"listeners": [{"endpoint": "tcp:1:interface=192.0.2.1"}]}, "192.0.2.1"),
                ({"access_log": {"path": "/proc/nowhere/x"}}, "/proc/nowhere"),
            ):
                whole = {"listeners": yaml.safe_load(text)["listeners"], **bad}
                proxy.config.write_text(yaml.safe_dump(whole))
                reload(proxy)
                line = next(line for line in proxy.log.splitlines()[::-1] if "nothing changed" in line)
                assert "#error" in line
                assert expected in proxy.log[proxy.log.rindex("nothing changed") :]
                assert client.get()[1][b"x-filter"] == b"kept"
            assert "Traceback" not in proxy.log
            proxy.config.write_text(text)
            reload(proxy)
            assert "configuration reloaded" in proxy.log
            assert client.get()[1][b"x-filter"] == b"kept"


def test_the_last_of_many_reloads_wins(tmp_path: Path) -> None:
    with scripted_origin() as origin:
        config = reverse_config(origin, filters=wasm_filter("0"))
        with running_proxy(config, tmp_path) as proxy, connect(proxy.port) as client:
            listeners = yaml.safe_load(proxy.config.read_text())["listeners"]
            for number in range(1, 9):
                text = yaml.safe_dump({"listeners": listeners, **config, "filters": wasm_filter(str(number))})
                new = proxy.config.with_suffix(".new")
                new.write_text(text)
                new.rename(proxy.config)
                proxy.process.send_signal(signal.SIGHUP)
            eventually(lambda: client.get()[1][b"x-filter"] == b"8", what=proxy.log)


def test_a_stop_in_the_middle_of_a_reload_is_orderly(tmp_path: Path) -> None:
    with scripted_origin() as origin:
        with running_proxy(reverse_config(origin, filters=wasm_filter("0")), tmp_path) as proxy:
            proxy.process.send_signal(signal.SIGHUP)
            proxy.process.send_signal(signal.SIGTERM)
            assert proxy.process.wait(10) == -signal.SIGTERM
        assert "Traceback" not in proxy.log
        assert "Unhandled" not in proxy.log


def test_listeners_come_and_go(tmp_path: Path) -> None:
    first, second = free_port(), free_port()
    with scripted_origin() as origin:

        def config(*ports: int) -> dict[str, Any]:
            return reverse_config(origin, listeners=[{"endpoint": f"tcp:{port}:interface=127.0.0.1"} for port in ports])

        with running_proxy(config(first), tmp_path, port=first) as proxy, connect(first) as before:
            assert before.get()[0] == 200
            for ports, gone in (((first, second), None), ((second,), first), ((first,), second)):
                proxy.config.write_text(yaml.safe_dump(config(*ports)))
                reload(proxy)
                for port in ports:
                    with connect(port) as client:
                        assert client.get()[0] == 200
                if gone is not None:
                    eventually(partial(refused, gone))
            assert before.closed()


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_fifty_reloads_under_load_lose_nothing_and_leak_nothing(tmp_path: Path) -> None:
    stop = threading.Event()
    failures: list[object] = []
    served = [0, 0]

    def load(place: int, port: int) -> None:
        with connect(port) as client:
            while not stop.is_set():
                try:
                    client.request("/", "POST", body=b"x" * 1000)
                    status, fields, body = client.response()
                    if status != 200 or not fields.get(b"x-filter") or body != b"POST / " + b"x" * 1000:
                        failures.append((status, fields, body))
                    served[place] += 1
                except (OSError, AssertionError) as error:
                    failures.append(error)
                    return

    with scripted_origin() as origin:
        log = str(tmp_path / "access.log")
        with running_proxy(
            reverse_config(origin, filters=wasm_filter("0"), access_log={"path": log}), tmp_path
        ) as proxy:
            pid = proxy.process.pid
            threads = [threading.Thread(target=load, args=(place, proxy.port)) for place in range(2)]
            for thread in threads:
                thread.start()
            for number in range(50):
                config = reverse_config(origin, filters=wasm_filter(str(number)), access_log={"path": log})
                config["upstreams"]["origin"]["max_idle"] = 10 + number  # so that pools change too
                reload(proxy, config)
                if number == 9:
                    early = descriptors(pid), resident_kib(pid)
            stop.set()
            for thread in threads:
                thread.join()
            assert not failures, failures[:3]
            assert min(served) > 100
            assert proxy.log.count("configuration reloaded") == 50
            assert "#error" not in proxy.log
            assert "#critical" not in proxy.log
            late = eventually(lambda: (now := descriptors(pid)) <= early[0] + 3 and (now, resident_kib(pid)))
            assert late[1] - early[1] < 8 * 1024, (early, late)
            reload(proxy)
    assert len(Path(log).read_text().splitlines()) >= sum(served)


# Daemons


@contextlib.contextmanager
def daemon(folder: Path, config: dict[str, Any], *arguments: str) -> Iterator[int]:
    """Run a daemon; the value is its process id."""
    path = folder / "proxy.yaml"
    path.write_text(yaml.safe_dump(config))
    pid_file = folder / "proxy.pid"
    command = [TWISTD, f"--pidfile={pid_file}", f"--logfile={folder / 'proxy.log'}", *arguments]
    subprocess.run([*command, "wasmproxy", "--config", path], cwd=folder, check=True, timeout=60)
    pid = int(eventually(lambda: pid_file.exists() and pid_file.read_text()))
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGTERM)
        command_line = Path(f"/proc/{pid}/cmdline")
        eventually(lambda: not command_line.exists() or not command_line.read_bytes())


def test_a_daemon_serves_reloads_and_stops(tmp_path: Path) -> None:
    port = free_port()
    with scripted_origin() as origin:
        config = reverse_config(
            origin, listeners=[{"endpoint": f"tcp:{port}:interface=127.0.0.1"}], filters=wasm_filter("daemon")
        )
        with daemon(tmp_path, config) as pid, connect(port) as client:
            assert client.get()[1][b"x-filter"] == b"daemon"
            (tmp_path / "proxy.yaml").write_text(yaml.safe_dump({**config, "filters": wasm_filter("again")}))
            os.kill(pid, signal.SIGHUP)
            eventually(lambda: client.get()[1][b"x-filter"] == b"again")
        assert not (tmp_path / "proxy.pid").exists()
        log = (tmp_path / "proxy.log").read_text()
        assert "configuration reloaded" in log
        assert "Traceback" not in log


def _readable_by_all(path: Path) -> bool:
    return all(folder.stat().st_mode & 0o001 for folder in [path, *path.parents])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may take a port below 1024")
@pytest.mark.skipif(
    not (_readable_by_all(Path(os.__file__).parent) and _readable_by_all(EXAMPLES)),
    reason="this interpreter cannot be used by anybody else",
)
def test_privileges_are_dropped_after_the_port_is_taken() -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        shutil.copy(HEADERS_WASM, folder / "headers.wasm")
        folder.chmod(0o755)
        home = folder / "home"
        home.mkdir()
        os.chown(home, 65534, 65534)
        port = next(port for port in range(1023, 512, -1) if _is_free(port))
        with scripted_origin() as origin:
            filters = wasm_filter("x")
            filters[0]["vm_config"]["code"]["local"]["filename"] = "headers.wasm"
            config = reverse_config(
                origin,
                listeners=[{"endpoint": f"tcp:{port}:interface=127.0.0.1"}],
                filters=filters,
                code_cache="home/cache",
                access_log={"path": "home/access.log"},
            )
            with daemon(folder, config, "--uid=65534", "--gid=65534") as pid:
                with connect(port) as client:
                    assert client.get()[1][b"x-filter"] == b"x"
                status = Path(f"/proc/{pid}/status").read_text()
                assert re.search(r"^Uid:(\s+65534){4}$", status, re.MULTILINE), status
                assert re.search(r"^Gid:(\s+65534){4}$", status, re.MULTILINE), status
                assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE), status
                groups = re.search(r"^Groups:(.*)$", status, re.MULTILINE)
                assert groups is not None
                assert "0" not in groups[1].split(), status
                compiled = [path for path in (home / "cache").rglob("*") if path.is_file()]
                assert compiled
                assert {path.stat().st_uid for path in [*compiled, home / "access.log"]} == {65534}
    finally:
        shutil.rmtree(folder)


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


# Logs

NUMBERS = ["sssc", "sscl", "cqbl", "pqbl", "cqhl", "pshl", "pqhl", "sshl", "tts"]
"""What the numbers at the end of Traffic Server's extended format are."""


def test_the_access_log_in_each_format_and_reopened(tmp_path: Path) -> None:
    names = ["squid", "common", "extended", "extended2", "json"]
    custom = "%<cqhm> %<cquuc> %<pssc> %<cqtr> %<{X-Asked}cqh> %<{X-Made}psh>"
    with scripted_origin() as origin:
        origin.script = lambda arrival: arrival.send(answer(b"12345", "Content-Type: text/plain", "X-Made: y"))
        config = reverse_config(
            origin,
            access_log=[
                *({"path": f"{name}.log", "format": name} for name in names),
                {"path": "custom.log", "format": custom},
            ],
        )
        with running_proxy(config, tmp_path) as proxy:

            def lines(name: str) -> list[str]:
                path = tmp_path / f"{name}.log"
                return path.read_text().splitlines() if path.exists() else []

            with connect(proxy.port) as client:
                client.get("/a?b", "X-Asked: z")
                for name in [*names, "custom"]:
                    eventually(lambda name=name: lines(name))
                url = "http://proxy.test/a?b"
                assert re.fullmatch(
                    r"\d+\.\d{3} \d+ 127\.0\.0\.1 TCP_MISS/200 \d+ GET "
                    rf"{re.escape(url)} - DIRECT/127\.0\.0\.1 text/plain",
                    lines("squid")[0],
                ), lines("squid")
                request = re.escape(f'"GET {url} HTTP/1.1"')
                common = rf"127\.0\.0\.1 - - \[[^]]+\] {request} 200 5"
                assert re.fullmatch(common, lines("common")[0]), lines("common")
                extended = re.fullmatch(
                    common + r" (\d+) (\d+) (\d+) (\d+) (\d+) (\d+) (\d+) (\d+) (\d+)", lines("extended")[0]
                )
                assert extended, lines("extended")
                numbers = dict(zip(NUMBERS, map(int, extended.groups()), strict=True))
                assert (numbers["sssc"], numbers["sscl"], numbers["cqbl"], numbers["pqbl"]) == (200, 5, 0, 0)
                assert 30 < numbers["cqhl"] < numbers["pqhl"]
                assert 30 < numbers["sshl"] < numbers["pshl"]
                assert len(lines("extended2")[0]) > len(lines("extended")[0])
                assert json.loads(lines("json")[0])["url"] == url
                assert lines("custom") == [f"GET {url} 200 0 z y"]
                for name in [*names, "custom"]:
                    (tmp_path / f"{name}.log").rename(tmp_path / f"{name}.old")
                reload(proxy)
                client.get("/after")
                for name in [*names, "custom"]:
                    assert "/after" in eventually(lambda name=name: lines(name))[0]
                assert lines("custom") == ["GET http://proxy.test/after 200 1 - y"]
                for name in [*names, "custom"]:
                    assert len((tmp_path / f"{name}.old").read_text().splitlines()) == 1


def test_bodies_in_chunks_count_as_bodies_in_the_access_log(tmp_path: Path) -> None:
    with scripted_origin() as origin:
        origin.script = lambda arrival: arrival.send(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 5000 + b"0\r\n\r\n"
        )
        config = reverse_config(origin, access_log={"path": "access.json", "format": "json"})
        with running_proxy(config, tmp_path) as proxy, connect(proxy.port) as client:
            client.get()
            path = tmp_path / "access.json"
            eventually(lambda: path.exists() and path.read_text())
            line = json.loads(path.read_text())
            assert line["response_body_bytes"] == 5000
            assert line["origin_response_body_bytes"] == 5000
            assert line["response_header_bytes"] < 300, line
            assert line["origin_response_header_bytes"] == 47


def test_log_levels_hold_for_their_namespaces(tmp_path: Path) -> None:
    with scripted_origin() as origin:
        config = reverse_config(origin, log={"level": "error", "levels": {"twisted_wasmproxy.transaction": "debug"}})
        with running_proxy(config, tmp_path) as proxy, connect(proxy.port) as client:
            assert client.get()[0] == 200
            hooks = re.findall(r"twisted_wasmproxy\.transaction\S*#debug\] txn \S+ (\w+)", proxy.log)
            assert hooks == [
                "TXN_START",
                "READ_REQUEST_HDR",
                "PRE_REMAP",
                "POST_REMAP",
                "CACHE_LOOKUP_COMPLETE",
                "SEND_REQUEST_HDR",
                "READ_RESPONSE_HDR",
                "SEND_RESPONSE_HDR",
                "TXN_CLOSE",
            ]
            reload(proxy, reverse_config(origin, log={"level": "info"}))
            before = proxy.log
            assert client.get()[0] == 200
            assert "#debug" not in proxy.log[len(before) :]
