"""`wasmproxy check` finds what a start would find, and says where it is."""

from __future__ import annotations

import json
from pathlib import Path

import gpustack_higress_plugins
import pytest

from tests.cli.support import ALLOCATOR, ANSWER, C_EXAMPLE, MARKER, MEMORY, good_module, module, nasty_module, wasmproxy
from twisted_wasmproxy.cli.check import check

HEAD = """\
listeners: [{endpoint: "tcp:0:interface=127.0.0.1"}]
upstreams: {o: {servers: ["http://127.0.0.1:1"]}}
remap: [{upstream: o}]
filters:
"""


def written(folder: Path, *filters: str) -> Path:
    path = folder / "proxy.yaml"
    path.write_text(HEAD + "".join(f"  - {entry}\n" for entry in filters))
    return path


def told(path: Path) -> list[str]:
    """Return the problems of a file, without its folder."""
    return [str(problem).replace(f"{path.parent}/", "") for problem in check(path).problems]


def wasm(name: str, more: str = "", vm: str = "") -> str:
    vm_keys = ", ".join(filter(None, [f"code: {{local: {{filename: {name}}}}}", vm]))
    return f"{{{', '.join(filter(None, [f'vm_config: {{{vm_keys}}}', more]))}}}"


def test_a_good_configuration_is_said_to_be_usable(tmp_path: Path) -> None:
    good_module(tmp_path)
    done = wasmproxy("check", written(tmp_path, wasm("good.wasm")))
    assert done.returncode == 0
    assert done.stdout == f"{tmp_path}/proxy.yaml: can be used: 1 listener, 1 upstream, 1 rule, 1 filter\n"
    # Where `auto` is wasmer, the operator is told what it cannot do, and nothing else.
    assert [line for line in done.stderr.splitlines() if "wasmer cannot be interrupted" not in line] == []


def test_a_file_without_listeners_is_for_a_resource_only(tmp_path: Path) -> None:
    path = tmp_path / "proxy.yaml"
    path.write_text("listeners: []\nremap: [{respond: 204}]\n")
    done = wasmproxy("check", path)
    assert done.returncode == 0
    assert done.stdout.startswith(f"{path}:1: listeners: none: only WasmProxyResource can use this file (warning)\n")


def test_nothing_is_listened_on(tmp_path: Path) -> None:
    path = tmp_path / "proxy.yaml"
    path.write_text('listeners: [{endpoint: "unix:socket"}]\nremap: [{respond: 204}]\n')
    assert wasmproxy("check", "-q", path).returncode == 0
    assert not (tmp_path / "socket").exists()


def test_problems_of_the_configuration_name_file_line_and_key(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("listeners: [{}]\nlimts: {}\n")
    done = wasmproxy("check", path)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        f"{path}:1: listeners[0]: 'endpoint' is missing",
        f"{path}:2: limts: unknown key; did you mean 'limits'?",
        f"{path}: cannot be used: 2 problems",
    ]


def test_several_files_are_each_judged_and_quiet_prints_problems_only(tmp_path: Path) -> None:
    good_module(tmp_path)
    good = written(tmp_path, wasm("good.wasm"))
    done = wasmproxy("check", "-q", good, tmp_path / "nope.yaml")
    assert done.returncode == 1
    assert done.stdout == f"{tmp_path}/nope.yaml: no such file\n"


def test_json_has_every_part_of_a_problem(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("config:\n  nmae: x\n  vm_config:\n    code: {local: {filename: no.wasm}}\n")
    good_module(tmp_path)
    done = wasmproxy("check", "--json", tmp_path / "a.yaml", written(tmp_path, wasm("good.wasm")))
    assert done.returncode == 1
    bad, good = json.loads(done.stdout)
    (problem,) = bad["problems"]
    assert (problem["file"], problem["line"]) == (f"{tmp_path}/a.yaml", 4)
    assert problem["key"] == "config.vm_config.code.local.filename"
    assert problem["text"] == f"no such file: {tmp_path}/no.wasm"
    assert (good["usable"], good["problems"], good["warnings"]) == (True, [], [])


def test_what_is_wrong_with_modules_is_told_for_all_of_them_at_once(tmp_path: Path) -> None:
    (tmp_path / "text.wasm").write_text("hello, this is no module")
    (tmp_path / "cut.wasm").write_bytes(C_EXAMPLE.read_bytes()[:-10])
    module(tmp_path, "unmarked.wasm", MEMORY)
    module(
        tmp_path,
        "imports.wasm",
        '(import "env" "proxy_nonsense" (func (param i32)))',
        '(import "env" "proxy_log" (func (param i64)))',
        MEMORY,
        MARKER,
    )
    first, second, third, *linked = told(
        written(tmp_path, wasm("text.wasm"), wasm("cut.wasm"), wasm("unmarked.wasm"), wasm("imports.wasm"))
    )
    where = "vm_config.code.local.filename"
    assert first.startswith(f"proxy.yaml:5: filters[0].{where}: text.wasm: not a WebAssembly module: ")
    assert second.startswith(f"proxy.yaml:6: filters[1].{where}: cut.wasm: malformed module: ")
    assert third.startswith(f"proxy.yaml:7: filters[2].{where}: unmarked.wasm: not a Proxy-Wasm module: ")
    assert [line.partition(" (")[0] for line in linked] == [
        f"proxy.yaml:8: filters[3].{where}: imports.wasm: cannot link env.proxy_nonsense",
        f"proxy.yaml:8: filters[3].{where}: imports.wasm: cannot link env.proxy_log",
    ]


def test_unknown_imports_are_no_matter_where_the_configuration_says_so(tmp_path: Path) -> None:
    module(tmp_path, "m.wasm", '(import "env" "proxy_nonsense" (func (param i32)))', MEMORY, MARKER, ALLOCATOR)
    assert told(written(tmp_path, wasm("m.wasm", vm="lax_imports: true"))) == []


@pytest.mark.parametrize(
    ("callback", "body", "reason"),
    [
        ("proxy_on_configure", "i32.const 0", "configur"),
        ("proxy_on_vm_start", "i32.const 0", "start"),
        ("proxy_on_configure", "unreachable", "unreachable"),
        ("proxy_on_configure", "(loop br 0) i32.const 1", "longer than 0.2 s"),
    ],
)
def test_a_module_that_refuses_fails_or_hangs_at_start_is_told(
    tmp_path: Path, callback: str, body: str, reason: str
) -> None:
    module(tmp_path, "m.wasm", MEMORY, MARKER, ALLOCATOR, ANSWER.format(callback, body))
    (problem,) = told(written(tmp_path, wasm("m.wasm", vm="cpu_limit: 200ms, runtime: wasmtime")))
    assert problem.startswith("proxy.yaml:5: filters[0].vm_config.code.local.filename: m.wasm: ")
    assert reason in problem.partition("m.wasm: ")[2].lower()


def test_a_runtime_that_is_not_here_is_told_with_those_that_are(tmp_path: Path) -> None:
    good_module(tmp_path)
    (problem,) = told(written(tmp_path, wasm("good.wasm", vm="runtime: envoy.wasm.runtime.wavm")))
    assert problem.startswith("proxy.yaml:5: filters[0].vm_config.runtime: ")
    assert "wasmtime" in problem


def test_a_native_filter_that_is_not_installed_is_told(tmp_path: Path) -> None:
    (problem,) = told(written(tmp_path, "{native: no-such-filter}"))
    assert problem.startswith("proxy.yaml:5: filters[0]: no native filter 'no-such-filter'")


def test_a_capability_that_does_not_exist_is_a_warning(tmp_path: Path) -> None:
    good_module(tmp_path)
    restriction = "capability_restriction_config: {allowed_capabilities: [proxy_log, proxy_lgo]}"
    verdict = check(written(tmp_path, wasm("good.wasm", more=restriction)))
    assert verdict.problems == []
    (warning,) = verdict.warnings
    assert warning.endswith("filters[0].capability_restriction_config: unknown capability 'proxy_lgo'")


def test_what_a_module_logs_when_it_refuses_comes_to_standard_error(tmp_path: Path) -> None:
    module(
        tmp_path,
        "m.wasm",
        '(import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))',
        MEMORY,
        '(data (i32.const 64) "the rules are missing")',
        MARKER,
        ALLOCATOR,
        ANSWER.format(
            "proxy_on_configure", "(drop (call $log (i32.const 4) (i32.const 64) (i32.const 21))) i32.const 0"
        ),
    )
    done = wasmproxy("check", written(tmp_path, wasm("m.wasm")))
    assert done.returncode == 1
    assert "the rules are missing" in done.stderr


def test_a_production_module_that_refuses_its_configuration_is_told(tmp_path: Path) -> None:
    plugins = Path(gpustack_higress_plugins.__file__).parent / "plugins"
    (transformer,) = plugins.glob("transformer/*/plugin.wasm")
    vm = f"vm_config: {{code: {{local: {{filename: {transformer}}}}}, runtime: wasmtime}}"
    good = "{reqRules: [{operate: remove, headers: [{key: X-A}]}]}"
    bad = "this is not JSON"
    path = written(tmp_path, f"{{configuration: {good}, {vm}}}", f"{{configuration: {bad}, {vm}}}")
    path.write_text(path.read_text() + f"code_cache: {tmp_path}/code\n")
    (problem,) = told(path)
    assert problem.startswith("proxy.yaml:6: filters[1].vm_config.code.local.filename: ")
    assert "proxy_on_configure returned false" in problem
    assert any((tmp_path / "code").iterdir())


CACHE_HEAD = """\
listeners: [{endpoint: "tcp:0:interface=127.0.0.1"}]
upstreams: {o: {servers: ["http://127.0.0.1:1"]}}
"""

STORE_PLUGIN = """
from zope.interface import implementer
from twisted.plugin import IPlugin
from twisted_wasmproxy.cache.stores.memory import MemoryStore
from twisted_wasmproxy.interfaces import ICacheStoreFactory

@implementer(IPlugin, ICacheStoreFactory)
class Factory:
    name = "shelf"
    def make(self, configuration, reactor):
        if not isinstance(configuration, dict):
            raise ValueError("say how many 'boards'")
        return MemoryStore(configuration["boards"], 1)

factory = Factory()
"""


def test_a_fault_of_the_cache_is_a_fault_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "proxy.yaml"
    path.write_text(f"{CACHE_HEAD}remap:\n  - {{upstream: o, cache: {{ttl: soon}}}}\n")
    assert told(path) == [
        "proxy.yaml:4: remap[0].cache: there is no 'cache' section; a rule can only say how it uses the cache there is",
        "proxy.yaml:4: remap[0].cache.ttl: must be a time such as 30s, 1.5, 500ms or 5m, not 'soon'",
    ]


def test_a_store_that_is_not_installed_is_told(tmp_path: Path) -> None:
    path = tmp_path / "proxy.yaml"
    path.write_text(f"{CACHE_HEAD}remap: [{{upstream: o}}]\ncache:\n  store: {{name: no-such-store}}\n")
    (problem,) = told(path)
    assert problem.startswith(
        "proxy.yaml:5: cache.store: no cache store 'no-such-store' in twisted.plugins (installed: "
    )


@pytest.mark.parametrize(
    ("configuration", "problem"),
    [
        ("{boards: 5}", ""),
        ("null", "cache store 'shelf': say how many 'boards'"),
        ("{}", "cache store 'shelf' fails: KeyError: 'boards'"),
    ],
)
def test_a_store_by_a_plugin_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, configuration: str, problem: str
) -> None:
    folder = tmp_path / "twisted" / "plugins"
    folder.mkdir(parents=True)
    (folder / "shelf.py").write_text(STORE_PLUGIN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    path = tmp_path / "proxy.yaml"
    path.write_text(
        f"{CACHE_HEAD}remap: [{{upstream: o}}]\ncache:\n  store: {{name: shelf, configuration: {configuration}}}\n"
    )
    done = wasmproxy("check", "-q", path)
    expected = f"{path}:5: cache.store: {problem}\n" if problem else ""
    assert (done.stdout, done.returncode) == (expected, bool(problem))


@pytest.mark.parametrize("vm", ["", "lax_imports: true"])
def test_names_in_a_module_steer_no_terminal(tmp_path: Path, vm: str) -> None:
    nasty_module(tmp_path)
    done = wasmproxy("check", "--verbose", written(tmp_path, wasm("nasty.wasm", vm=vm)))
    assert done.returncode == 1
    printed = (done.stdout + done.stderr).replace("\t", " ").split("\n")
    assert all(line.isprintable() for line in printed)
    assert any("\\x1b]0;owned\\x07\\r\\x9b31m\\u202e" in line for line in printed)
    assert not any(line.startswith("  can be loaded") for line in printed)


def test_keys_and_values_in_a_file_steer_no_terminal(tmp_path: Path) -> None:
    file = tmp_path / "proxy.yaml"
    file.write_text('"ke\\e[31my": 1\nlisteners: [{endpoint: "tcp:\\e[31m\\u202e"}]\nupstreams: {"\\e\\u009b": {}}\n')
    done = wasmproxy("check", file)
    assert done.returncode == 1
    assert all(line.isprintable() for line in (done.stdout + done.stderr).split("\n"))
    assert "\\x1b[31m" in done.stdout
