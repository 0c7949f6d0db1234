"""The tables of the ABI."""

from __future__ import annotations

import inspect

import pytest

from twisted_wasmproxy.proxywasm.abi import CALLBACKS, IMPORTS, MARKERS, WASI_MODULES, Kind, Version
from twisted_wasmproxy.proxywasm.linker import server

OUTPUTS = {Kind.OUT_BYTES, Kind.OUT_U32, Kind.OUT_U64}


@pytest.mark.parametrize("entry", IMPORTS.values(), ids=lambda entry: f"{entry.module}.{entry.name}")
def test_every_import_is_served_by_a_function_with_its_parameters(entry):
    function = server(entry)
    inputs = [kind for kind in entry.parameters if kind not in OUTPUTS]
    inspect.signature(function).bind(None, *inputs)


def test_the_imports_of_the_specification():
    names = {name for module, name in IMPORTS if module == "env" and name.startswith("proxy_")}
    assert len(names) == 36 + 7 + 2, "common, of some versions, Redis"
    assert IMPORTS["env", "proxy_http_call"].params == ("i32",) * 10
    assert IMPORTS["env", "proxy_grpc_call"].params == ("i32",) * 12
    assert IMPORTS["env", "proxy_grpc_stream"].params == ("i32",) * 9
    assert IMPORTS["env", "proxy_record_metric"].params == ("i32", "i64")
    assert len(IMPORTS["wasi_unstable", "path_link"].params) == 7
    assert len(IMPORTS["wasi_unstable", "path_symlink"].params) == 5
    assert IMPORTS["wasi_snapshot_preview1", "proc_exit"].results == ()


def test_versions_read_as_they_are_written():
    assert {marker: str(version) for marker, version in MARKERS.items()} == {
        "proxy_abi_version_0_1_0": "0.1.0",
        "proxy_abi_version_0_2_0": "0.2.0",
        "proxy_abi_version_0_2_1": "0.2.1",
        "proxy_abi_version_0_2_100": "0.2.100",
    }
    assert Version.V0_2_1 in IMPORTS["env", "proxy_get_log_level"].versions


def test_the_imports_are_those_of_both_wasi_modules():
    old, new = ({name for module, name in IMPORTS if module == which} for which in WASI_MODULES)
    assert old == new
    assert len(new) == 46


def test_callbacks_that_are_called_have_one_result_or_none():
    assert CALLBACKS["proxy_on_request_headers"].fits(("i32",) * 2, ("i32",))
    assert CALLBACKS["proxy_on_request_headers"].fits(("i32",) * 3, ("i32",))
    assert not CALLBACKS["proxy_on_request_headers"].fits(("i32",) * 3, ())
    assert not CALLBACKS["proxy_on_tick"].fits(("i64",), ())
