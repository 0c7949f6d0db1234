"""Engines by the names that configurations have for them."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from twisted_wasmproxy.runtimes import available, get_engine
from twisted_wasmproxy.runtimes.interface import RuntimeUnavailable

WASMER_INSTALLED = sys.version_info < (3, 11) and importlib.util.find_spec("wasmer") is not None


def test_wasmtime_is_always_there_and_wasmer_where_it_works():
    assert "wasmtime" in available()
    assert ("wasmer" in available()) == WASMER_INSTALLED


def test_auto_is_wasmer_where_it_works_and_wasmtime_elsewhere():
    assert get_engine("auto").name == available()[0] == ("wasmer" if WASMER_INSTALLED else "wasmtime")
    assert get_engine() is get_engine("auto")


@pytest.mark.parametrize("name", ["wasmtime", "ats.wasm.runtime.wasmtime", "envoy.wasm.runtime.wasmtime"])
def test_traffic_servers_and_envoys_names_are_known(name):
    assert get_engine(name).name == "wasmtime"
    assert get_engine(name).version.split(".")[0].isdigit()


@pytest.mark.parametrize(
    "name",
    [
        "ats.wasm.runtime.wamr",
        "ats.wasm.runtime.wasmedge",
        "ats.wasm.runtime.v8",
        "envoy.wasm.runtime.v8",
        "envoy.wasm.runtime.wamr",
        "envoy.wasm.runtime.null",
        "v8",
        "wasmtime ",
        "",
    ],
)
def test_an_engine_that_is_not_there_is_told_with_those_that_are(name):
    with pytest.raises(RuntimeUnavailable) as told:
        get_engine(name)
    assert repr(name) in str(told.value)
    assert all(there in str(told.value) for there in available())


@pytest.mark.skipif(WASMER_INSTALLED, reason="wasmer works here")
def test_wasmer_where_it_does_not_work_names_what_does():
    with pytest.raises(RuntimeUnavailable, match="those that work: wasmtime"):
        get_engine("wasmer")


def test_there_is_one_engine_a_process():
    found = []
    workers = [threading.Thread(target=lambda: found.append(get_engine("wasmtime"))) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(set(map(id, found))) == 1


def test_a_trap_where_faulthandler_was_enabled_before_the_engine_was_made(engine):
    """As with `python -X faulthandler`. Enabled later, it takes the signal of a trap for a crash."""
    script = """
import sys, wasmtime
from twisted_wasmproxy.runtimes import get_engine
from twisted_wasmproxy.runtimes.interface import Limits, Trap

engine = get_engine(sys.argv[1])
wasm = wasmtime.wat2wasm('(module (func (export "f") unreachable))')
try:
    engine.load(engine.compile(bytes(wasm))).instantiate({}, Limits()).function("f")()
except Trap:
    print("trapped")
"""
    command = [sys.executable, "-X", "faulthandler", "-c", script, engine.name]
    assert subprocess.run(command, check=True, timeout=60, stdout=subprocess.PIPE, text=True).stdout == "trapped\n"


def test_no_conftest_makes_an_engine():
    """pytest imports them before it enables faulthandler, and then the first trap would end the process."""
    root = Path(__file__).parents[2]
    names = [".".join(file.relative_to(root).with_suffix("").parts) for file in root.glob("tests/*/conftest.py")]
    assert "tests.e2e_wasm.conftest" in names
    script = """
import importlib, sys
from twisted_wasmproxy.runtimes import registry

for name in sys.argv[1:]:
    importlib.import_module(name)
    assert not registry._engines, name
"""
    subprocess.run([sys.executable, "-c", script, *names], check=True, timeout=60, cwd=root)
