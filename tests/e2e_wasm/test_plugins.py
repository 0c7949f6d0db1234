"""Plugins as they are configured: refused at the start, sharing VMs, restricted, with an environment, reloaded."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import pytest
import yaml

from tests.e2e_wasm.conftest import Serve
from tests.e2e_wasm.support import INTERRUPTIBLE, MODULES, SCRIPT, Answer, Stand, module, read_answer, until
from tests.proxywasm.guest import assemble
from tests.support.proxy import StartFailed, free_port, running_proxy

COUNT = "response_headers count"


def count(stand: Stand, **scripts: str) -> list[str]:
    return stand.ask("/", **scripts).all("x-count")


# Starting


def refused(serve: Serve, *wasm: dict[str, Any]) -> str:
    """Start with these plugins, which must fail at once, and return what was said."""
    with pytest.raises(StartFailed, match="ended with status 1") as failure, serve(wasm):
        pass
    text = str(failure.value)
    assert "Traceback" not in text
    return text


def test_a_module_that_refuses_keeps_the_proxy_from_starting(serve: Serve) -> None:
    text = refused(serve, module("a", vm_config={"configuration": "refuse"}))
    assert "script.wasm: proxy_on_vm_start returned false" in text
    text = refused(serve, module("a", configuration="configure ret 0", fail_open=True))
    assert "script.wasm: proxy_on_configure returned false" in text
    text = refused(serve, module("a", configuration="configure trap", fail_open=True))
    assert "script.wasm: proxy_on_configure failed" in text


def test_files_that_are_no_modules_are_named(serve: Serve, tmp_path: Path) -> None:
    bad = {
        "text.wasm": b"(module)",
        "none.wasm": assemble("(module)"),
        "more.wasm": assemble(
            '(module (import "env" "proxy_dance" (func (param i32))) (import "env" "proxy_sing" (func))'
            ' (import "other" "thing" (func)) (func (export "proxy_abi_version_0_2_1")))'
        ),
        "short.wasm": SCRIPT.read_bytes()[:3000],
        "empty.wasm": b"",
    }
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
    text = refused(serve, *(module(name, code=tmp_path / name) for name in bad))
    told = {name: [line for line in text.splitlines() if name in line] for name in bad}
    assert all(told.values()), text
    assert "WebAssembly text" in " ".join(told["text.wasm"])
    assert "proxy_abi_version_0_2_1" in " ".join(told["none.wasm"])
    for name in ("env.proxy_dance", "env.proxy_sing", "other.thing"):
        assert name in text
    assert "proxy.yaml:" in text
    text = refused(serve, module("a", code=tmp_path / "missing.wasm"))
    assert "wasm[0].vm_config.code.local.filename: no such file" in text


# VMs


def starts(stand: Stand) -> list[str]:
    return [line for line in stand.lines("-") if "vm_start" in line]


def test_equal_vms_are_one_and_unequal_ones_are_not(serve: Serve) -> None:
    wasm = [
        module("a"),
        module("b"),
        module("c", vm_id="c"),
        module("d", vm_config={"configuration": "other"}),
        module("e", phase="origin"),
    ]
    with serve(wasm, pacer="e") as stand:
        assert count(stand, a=COUNT) == ["01"]
        assert count(stand, b=COUNT) == ["02"]
        assert count(stand, c=COUNT) == ["01"]
        assert count(stand, d=COUNT) == ["01"]
        assert count(stand, e=COUNT) == ["03"]
        started = ["a vm_start 0 ", "b vm_start 0 ", "c vm_start 0 ", "d vm_start 5 other", "e vm_start 0 "]
        lines = until(lambda: len(found := starts(stand)) == 2 * len(started) and found)
        assert lines[: len(started)] == started
        assert sorted(lines[len(started) :]) == started, "each VM has a spare"


def test_shared_data_belongs_to_the_vm_id(serve: Serve) -> None:
    wasm = [
        module("a", vm_id="one"),
        module("b", vm_id="one", vm_config={"configuration": "another VM"}),
        module("c", vm_id="two"),
    ]
    with serve(wasm, pacer="a") as stand:
        stand.ask("/", a="request_headers shared key value")
        tag = stand.ask("/", a="log recall key", b="log recall key", c="log recall key").tag
        lines = stand.told(tag, "a", "b", "c")
        assert {line for line in lines if "recall" in line} == {
            "a recall 0 value", "b recall 0 value", "c recall 1 "
        }  # fmt: skip


def test_each_plugin_of_a_vm_has_its_own_timer(serve: Serve) -> None:
    wasm = [module("a", configuration="configure period 20|tick say a"), module("b", configuration="tick say b")]
    with serve(wasm, pacer="a") as stand:
        until(lambda: stand.lines("-").count("a a") > 5)
        assert "b b" not in stand.lines("-")
        stand.ask("/", b="request_headers period 20", a="request_headers period 0")
        until(lambda: stand.lines("-").count("b b") > 5)
        ticks = stand.lines("-").count("a a")
        more = stand.lines("-").count("b b") + 5
        until(lambda: stand.lines("-").count("b b") > more)
        assert stand.lines("-").count("a a") <= ticks + 1


def test_the_environment_is_what_is_configured(serve: Serve) -> None:
    variables = {"host_env_keys": ["FROM_HOST", "NOT_SET"], "key_values": {"MODE": "strict"}}
    wasm = [
        module("a", configuration="configure env", vm_config={"environment_variables": variables}),
        module("b", vm_id="b", configuration="configure env"),
    ]
    with serve(wasm, pacer="a", environment={"FROM_HOST": "yes"}) as stand:
        lines = stand.lines("-")
        assert "a env 2 FROM_HOST=yes MODE=strict" in lines
        assert "b env 0" in lines


ALLOWED = [
    *("proxy_log", "proxy_get_property", "proxy_get_header_map_value", "proxy_get_buffer_bytes"),
    *("proxy_on_context_create", "proxy_on_request_headers", "proxy_on_configure", "proxy_on_vm_start", "malloc"),
    "proxy_on_log",
]


@pytest.mark.parametrize("form", [list, dict])
def test_a_module_is_held_to_its_capabilities(serve: Serve, form: type) -> None:
    allowed: Any = ALLOWED if form is list else {name: {} for name in ALLOWED}
    wasm = [
        module("a", configuration="configure env", capability_restriction_config={"allowed_capabilities": allowed}),
        module("b", vm_id="b"),
    ]
    with serve(wasm, pacer="b") as stand:
        answer = stand.ask("/", a="request_headers add 0 x-no 1; say here|response_headers say never")
        stand.told(answer.tag, "b")
        lines = stand.lines(answer.tag)
        assert "a add 10" in lines
        assert "a here" in lines
        assert "a never" not in lines
        assert stand.seen(answer.tag)[0].header("x-no") is None
        assert "a env 0" in stand.lines("-")


def test_a_module_of_0_1_0_serves(serve: Serve) -> None:
    old = MODULES / "script_0_1_0.wasm"
    with serve([module("a", code=old, configuration="configure say configured")], pacer="a") as stand:
        assert "a configured" in stand.lines("-")
        answer = stand.ask(
            "/echo",
            method="POST",
            body=[b"one"],
            a="request_headers pause; period 20; get 0 x-none; add 0 x-new 1|tick#8 resume 0"
            "|response_headers add 2 x-b 2|response_body upper 1",
        )
        assert (answer.body, answer.header("x-b")) == (b"ONE", "2")
        assert stand.seen(answer.tag)[0].header("x-new") == "1"
        lines = stand.told(answer.tag, "a")
        assert "a get x-none 0 " in lines
        assert "a request_headers 6" in lines


# Traffic Server's files


@pytest.mark.parametrize("spelling", ["snake", "camel"])
def test_a_plugin_file_of_traffic_server_makes_a_forward_proxy(
    tmp_path: Path, stand: Stand, code_cache: Path, spelling: str
) -> None:
    vm = {"runtime": "ats.wasm.runtime.wasmtime", "code": {"local": {"filename": str(SCRIPT)}}}
    root_id, vm_config, vm_id = (
        ("root_id", "vm_config", "vm_id") if spelling == "snake" else ("rootId", "vmConfig", "vmId")
    )
    plugin = {"name": "n", root_id: "a", "configuration": "configure say hi", vm_config: {vm_id: "v", **vm}}
    path = tmp_path / "plugin.yaml"
    path.write_text(yaml.safe_dump({"config": plugin}, sort_keys=False))
    environment = {**os.environ, "XDG_CACHE_HOME": str(code_cache)}

    def ask(port: int, script: str) -> Answer:
        with socket.create_connection(("127.0.0.1", port), 10) as sock:
            target = f"http://127.0.0.1:{stand.origin.port}/"
            sock.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\nx-tag: ats\r\nx-a: {script}\r\n\r\n".encode())
            return read_answer(sock)

    with port_8080(), running_proxy(path, tmp_path, port=8080, environment=environment) as proxy:
        answer = ask(8080, "response_headers add 2 x-a 1")
        # It forwards, but not to this machine: that takes `allow_destinations`, which such a file does not have.
        assert (answer.status, answer.header("x-a")) == (403, "1")
        assert b"this destination may not be reached" in answer.body
        assert "- a hi" in proxy.log
        assert ask(8080, "request_headers trap").status == 403  # fail_open, as there; a refusal is a 503
    port = free_port()
    listener = {
        "endpoint": f"tcp:{port}:interface=127.0.0.1",
        "mode": "forward",
        "access": {"allow_destinations": ["127.0.0.0/8"]},
    }
    with running_proxy(
        {"listeners": [listener], "filters": [{"file": str(path)}]}, tmp_path, port=port, environment=environment
    ):
        answer = ask(port, "response_headers add 2 x-a 1")
        assert (answer.status, answer.body, answer.header("x-a")) == (200, b"hello\n", "1")
        assert ask(port, "request_headers trap").status == 200


@contextmanager
def port_8080() -> Iterator[None]:
    """Have the port that such a file is always served on to oneself."""
    with (Path(gettempdir()) / "port-8080.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        until(lambda: not _busy(8080), 30)
        yield


def _busy(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def test_several_plugin_files_run_in_their_order(serve: Serve, tmp_path: Path) -> None:
    for name in ("a", "b"):
        plugin = {"rootId": name, "vmConfig": {"code": {"local": {"filename": str(SCRIPT)}}}}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({"config": plugin}))
    files = [{"file": str(tmp_path / "b.yaml")}, {"file": str(tmp_path / "a.yaml"), "phase": "origin"}]
    with serve(files, pacer="b") as stand:
        answer = stand.ask("/", a="request_headers add 0 x-p a", b="request_headers add 0 x-p b")
        assert stand.seen(answer.tag)[0].all("x-p") == ["b", "a"]


# Reload


def reconfigure(stand: Stand, wasm: list[dict[str, Any]]) -> None:
    config = yaml.safe_load(stand.proxy.config.read_text())
    config["wasm"] = wasm
    stand.proxy.config.write_text(yaml.safe_dump(config, sort_keys=False))
    stand.proxy.process.send_signal(signal.SIGHUP)


def reloads(stand: Stand, text: str = "configuration reloaded") -> int:
    return stand.proxy.log.count(text)


def test_a_reload_keeps_what_is_unchanged_and_ends_what_is_gone(serve: Serve) -> None:
    wasm = [module("a", vm_id="a"), module("b", vm_id="b", configuration="configure say first|done say ends")]
    with serve(wasm, pacer="a") as stand:
        assert count(stand, a=COUNT, b=COUNT) == ["01", "01"]
        held, tag = stand.send("/", b="request_headers pause; period 20|tick#60 resume 0|response_headers count")
        stand.wait_line(tag, "b create 1")
        reconfigure(stand, [module("a", vm_id="a"), module("b", vm_id="b", configuration="configure say second")])
        stand.wait_log("configuration reloaded")
        assert "b second" in stand.lines("-")
        assert count(stand, a=COUNT) == ["02"]
        assert "b ends" not in stand.lines("-")
        with held:
            answer = read_answer(held)
        assert answer.status == 200
        assert answer.all("x-count")
        stand.wait_line("-", "b ends")
        stand.wait_line("-", "b delete")


def test_a_reload_that_a_module_refuses_changes_nothing(serve: Serve) -> None:
    with serve([module("a")], pacer="a") as stand:
        assert count(stand, a=COUNT) == ["01"]
        for wrong in (
            [module("a", configuration="configure ret 0")],
            [module("a", vm_id="x", configuration="configure trap")],
            *[[module("a", configuration="configure loop", vm_config={"cpu_limit": "100ms"})]] * INTERRUPTIBLE,
            [module("a", code=MODULES / "missing.wasm")],
        ):
            before = reloads(stand, "reload refused, nothing changed")
            reconfigure(stand, wrong)
            until(lambda before=before: reloads(stand, "reload refused, nothing changed") > before)
        assert count(stand, a=COUNT) == ["02"]


def test_a_plugin_may_take_its_time_to_end(serve: Serve) -> None:
    script = "configure period 50|done ret 0; say ends|tick#1 say tick|tick finished"
    with serve([module("a", vm_id="a", configuration=script)], pacer="a") as stand:
        reconfigure(stand, [module("a", vm_id="b")])
        stand.wait_line("-", "a ends")
        stand.wait_line("-", "a finished 0")
        stand.wait_line("-", "a delete")
        assert stand.ask("/").status == 200


def test_a_plugin_that_never_ends_is_ended_at_the_drain_limit(serve: Serve) -> None:
    script = "configure period 50|done ret 0; say ends"
    with serve([module("a", configuration=script)], pacer="a", timeouts={"drain": "1s"}) as stand:
        assert stand.proxy.stop(timeout=8) in (0, -signal.SIGTERM)
        assert "a ends" in stand.lines("-")
        assert "a delete" in stand.lines("-")
