"""Traffic Server's plugin files load as they are: its keys, both spellings, its five examples, its faults told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.config.support import EMPTY_MODULE, problems_of
from twisted_wasmproxy import config
from twisted_wasmproxy.config.loader import PRIVATE_CLIENTS
from twisted_wasmproxy.config.model import Configuration, WasmFilterConfig
from twisted_wasmproxy.interfaces import Phase
from twisted_wasmproxy.runtimes.interface import RuntimeUnavailable
from twisted_wasmproxy.runtimes.registry import get_engine

EXAMPLES = Path(__file__).parent / "trafficserver"


def load(folder: Path, text: str) -> Configuration:
    (folder / "filter.wasm").write_bytes(EMPTY_MODULE)
    path = folder / "plugin.yaml"
    path.write_text(text)
    return config.load(path)


def plugin_of(configuration: Configuration) -> WasmFilterConfig:
    (plugin,) = configuration.filters
    assert isinstance(plugin, WasmFilterConfig)
    return plugin


@pytest.mark.parametrize(
    ("name", "root_id", "module", "runtime"),
    [
        ("cpp", "myproject", "myproject.wasm", "envoy.wasm.runtime.wavm"),
        ("async", "myproject", "async.wasm", "ats.wasm.runtime.wamr"),
        ("transform", "myproject", "transform.wasm", "ats.wasm.runtime.wamr"),
        ("rust", "myfilter", "myfilter.wasm", "envoy.wasm.runtime.wavm"),
        ("tinygo", "test", "plugin.wasm", "envoy.wasm.runtime.wavm"),
    ],
)
def test_the_five_examples_load_unchanged(tmp_path: Path, name: str, root_id: str, module: str, runtime: str) -> None:
    (tmp_path / module).write_bytes(EMPTY_MODULE)
    path = tmp_path / f"{name}.yaml"
    path.write_bytes((EXAMPLES / f"{name}.yaml").read_bytes())
    found = config.load(path)
    plugin = plugin_of(found)
    assert found.warnings == ()
    assert (plugin.root_id, plugin.vm.code, plugin.vm.runtime) == (root_id, tmp_path / module, runtime)
    assert (plugin.fail_open, plugin.phase) == (True, Phase.CLIENT)
    if name == "tinygo":
        assert plugin.name == "coraza-filter"
        assert json.loads(plugin.configuration)["rules"][1] == "SecRuleEngine On"
    else:
        assert (plugin.name, plugin.vm.vm_id, plugin.configuration) == ("test", "test", b"")


@pytest.mark.parametrize("name", ["cpp", "rust", "tinygo"])
def test_the_runtimes_that_the_examples_name_are_judged_by_what_is_installed(tmp_path: Path, name: str) -> None:
    text = (EXAMPLES / f"{name}.yaml").read_text()
    runtime = next(line.split()[1] for line in text.splitlines() if "runtime:" in line)
    with pytest.raises(RuntimeUnavailable, match=r"those that work: .*wasmtime"):
        get_engine(runtime)


def test_every_key_in_both_spellings_means_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOST_KEY", "from host")
    snake = """
config:
  name: n
  root_id: r
  configuration: |
    {"a": 1}
  fail_open: false
  capability_restriction_config:
    allowed_capabilities: [proxy_log, fd_write]
  vm_config:
    runtime: ats.wasm.runtime.wasmtime
    vm_id: v
    configuration: vm text
    allow_precompiled: false
    environment_variables:
      host_env_keys: [HOST_KEY, NOT_SET_ANYWHERE]
      key_values: {K: v}
    code: {local: {filename: filter.wasm}}
"""
    found = plugin_of(load(tmp_path, snake))
    camel = snake
    for one, other in (("root_id", "rootId"), ("vm_config", "vmConfig"), ("vm_id", "vmId")):
        camel = camel.replace(f"{one}:", f"{other}:")
    other = plugin_of(load(tmp_path, camel))
    assert (found.name, found.root_id, found.fail_open) == ("n", "r", False)
    assert found.configuration == b'{"a": 1}\n'
    assert found.capabilities == {"proxy_log", "fd_write"}
    assert (found.vm.runtime, found.vm.vm_id, found.vm.configuration) == ("ats.wasm.runtime.wasmtime", "v", b"vm text")
    assert found.vm.environment == (("HOST_KEY", "from host"), ("K", "v"))
    assert found.vm.allow_precompiled is False
    assert found.vm.code == tmp_path / "filter.wasm"
    for attribute in ("name", "root_id", "configuration", "fail_open", "capabilities"):
        assert getattr(found, attribute) == getattr(other, attribute)
    for attribute in ("runtime", "vm_id", "configuration", "environment", "allow_precompiled", "code"):
        assert getattr(found.vm, attribute) == getattr(other.vm, attribute)


def test_such_a_file_alone_makes_a_forward_proxy_for_this_machine(tmp_path: Path) -> None:
    found = load(tmp_path, "config: {vm_config: {code: {local: {filename: filter.wasm}}}}")
    (listener,) = found.listeners
    assert (listener.endpoint, listener.mode) == ("tcp:8080:interface=127.0.0.1", "forward")
    assert listener.access.allow_clients == PRIVATE_CLIENTS
    assert listener.access.connect_ports == (443,)
    assert plugin_of(found).vm.runtime == "auto"


def test_several_files_run_in_the_order_of_their_arguments(tmp_path: Path) -> None:
    (tmp_path / "filter.wasm").write_bytes(EMPTY_MODULE)
    paths = []
    for name in ("b", "a", "c"):
        path = tmp_path / f"{name}.yaml"
        path.write_text(f"config: {{name: {name}, vm_config: {{code: {{local: {{filename: filter.wasm}}}}}}}}")
        paths.append(path)
    found = config.load(*paths)
    assert [plugin.name for plugin in found.filters] == ["b", "a", "c"]
    assert (found.path, *found.more_paths) == tuple(paths)
    paths[1].write_text("config: []")
    paths[2].write_text("listeners: []")
    assert problems_of(lambda: config.load(*paths), tmp_path) == [
        "a.yaml:1: config: must be a mapping, not a list",
        "c.yaml:1: is not a Traffic Server plugin file: its first key must be 'config'",
    ]


def test_unknown_keys_are_warned_about_and_do_no_harm(tmp_path: Path) -> None:
    found = load(
        tmp_path,
        """\
config:
  nmae: x
  vm_config:
    nack_on_code_cache_miss: true
    code: {local: {filename: filter.wasm}}
more: {a: 1}
""",
    )
    assert [warning.replace(f"{tmp_path}/", "") for warning in found.warnings] == [
        "plugin.yaml:2: config.nmae: unknown key; did you mean 'name'?",
        "plugin.yaml:4: config.vm_config.nack_on_code_cache_miss: unknown key; known here: runtime, vm_id, "
        "configuration, allow_precompiled, environment_variables, code",
        "plugin.yaml:6: more: is not read: a plugin file has one top-level key",
    ]
    assert plugin_of(found).name == ""


@pytest.mark.parametrize("spelling", ["no", "False", "off"])
def test_a_false_that_traffic_server_takes_for_true_is_false_and_warned_about(tmp_path: Path, spelling: str) -> None:
    found = load(
        tmp_path, f"config:\n  fail_open: {spelling}\n  vm_config: {{code: {{local: {{filename: filter.wasm}}}}}}\n"
    )
    assert plugin_of(found).fail_open is False
    (warning,) = found.warnings
    assert f"config.fail_open: is false here; Traffic Server takes '{spelling}' for true" in warning


@pytest.mark.parametrize("value", ["0", "never", "[]", "'false'"])
def test_a_flag_that_is_neither_true_nor_false_is_an_error(tmp_path: Path, value: str) -> None:
    text = f"config:\n  fail_open: {value}\n  vm_config: {{code: {{local: {{filename: filter.wasm}}}}}}\n"
    (problem,) = problems_of(lambda: load(tmp_path, text), tmp_path)
    assert problem.startswith("plugin.yaml:2: config.fail_open: must be true or false, not ")


def test_a_mapping_as_configuration_is_passed_on_as_json_not_dropped(tmp_path: Path) -> None:
    text = "config: {configuration: {rules: [a, 1]}, vm_config: {code: {local: {filename: filter.wasm}}}}"
    assert plugin_of(load(tmp_path, text)).configuration == b'{"rules": ["a", 1]}'


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("config: 5", "plugin.yaml:1: config: must be a mapping, not '5'"),
        ("config:", "plugin.yaml:1: config: must be a mapping, not empty"),
        ("config: {name: x}", "plugin.yaml:1: config: 'vm_config' is missing"),
        ("config: {vm_config: {}}", "plugin.yaml:1: config.vm_config: 'code' is missing"),
        (
            "config: {vm_config: {code: {local: {filename: /no/such/dir/async.wasm}}}}",
            "plugin.yaml:1: config.vm_config.code.local.filename: no such file: /no/such/dir/async.wasm",
        ),
        (
            "config: {vm_config: {code: {remote: {}, local: {filename: filter.wasm}}}}",
            "plugin.yaml:1: config.vm_config.code.remote: only local.filename is supported",
        ),
        (
            "config: {vm_config: {environment_variables: [], code: {local: {filename: filter.wasm}}}}",
            "plugin.yaml:1: config.vm_config.environment_variables: must be a mapping, not a list",
        ),
        (
            "config: {name: [x], vm_config: {code: {local: {filename: filter.wasm}}}}",
            "plugin.yaml:1: config.name: must be text, not a list",
        ),
    ],
)
def test_wrong_shapes_are_errors(tmp_path: Path, text: str, problem: str) -> None:
    assert problems_of(lambda: load(tmp_path, text), tmp_path) == [problem]
