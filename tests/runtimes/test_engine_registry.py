"""Engines by the names that configurations have for them."""

from __future__ import annotations

import importlib.util
import sys
import threading

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
