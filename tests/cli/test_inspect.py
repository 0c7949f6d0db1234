"""`wasmproxy inspect` says of a module what it needs, offers and lacks."""

from __future__ import annotations

import json
from pathlib import Path

import gpustack_higress_plugins
import pytest

from tests.cli.support import AS_EXAMPLE, C_EXAMPLE, MARKER, MEMORY, good_module, module, nasty_module, wasmproxy
from twisted_wasmproxy import __version__
from twisted_wasmproxy.cli.inspect import inspect

PLUGINS = Path(gpustack_higress_plugins.__file__).parent / "plugins"


def test_the_version_is_told() -> None:
    assert wasmproxy("--version").stdout == f"twisted-wasmproxy {__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["frobnicate"], ["check"], ["inspect", "--nope", "x"]])
def test_wrong_usage_is_status_2(arguments: list[str]) -> None:
    done = wasmproxy(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: wasmproxy")


def test_a_module_is_described_in_text(tmp_path: Path) -> None:
    done = wasmproxy("inspect", C_EXAMPLE)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0] == f"{C_EXAMPLE}:"
    assert "  ABI          0.2.1" in lines
    assert "  start        _initialize" in lines
    assert "  allocator    proxy_on_memory_allocate" in lines
    assert any(line.split()[:2] == ["env.proxy_log", "served"] for line in lines)
    assert any(line.split()[:2] == ["proxy_on_request_headers", "called"] for line in lines)
    assert lines[-1] == "  can be loaded"


def test_json_has_imports_exports_memory_and_sizes() -> None:
    report = json.loads(wasmproxy("inspect", "--json", C_EXAMPLE).stdout)
    assert (report["usable"], report["problems"], report["abi"]) == (True, [], "0.2.1")
    assert {"module": "env", "name": "proxy_log", "type": "(i32, i32, i32) -> (i32)", "state": "served"} in report[
        "imports"
    ]
    assert {"name": "proxy_abi_version_0_2_1", "type": "() -> ()", "state": "version"} in report["exports"]
    assert report["size"]["file"] == C_EXAMPLE.stat().st_size
    assert 0 < report["size"]["code"] < report["size"]["file"]
    (memory,) = report["memory"]
    assert (memory["maximum"], memory["imported"]) == (None, False)


def test_several_files_come_as_a_list_in_json(tmp_path: Path) -> None:
    done = wasmproxy("inspect", "--json", C_EXAMPLE, good_module(tmp_path), tmp_path / "nope.wasm")
    assert done.returncode == 1
    first, second, third = json.loads(done.stdout)
    assert second["memory"] == [{"minimum": 65536, "maximum": 4 * 65536, "imported": False}]
    assert (first["usable"], third["usable"]) == (True, False)
    assert third["problems"] == ["cannot be read: No such file or directory"]


def test_each_import_is_held_against_the_table(tmp_path: Path) -> None:
    path = module(
        tmp_path,
        "m.wasm",
        '(import "env" "proxy_log" (func (param i32 i32 i32) (result i32)))',
        '(import "env" "proxy_done" (func (param i64)))',
        '(import "env" "proxy_nonsense" (func))',
        '(import "env" "table" (table 1 funcref))',
        MEMORY,
        MARKER,
    )
    report = inspect(path)
    assert [(item["name"], item["state"]) for item in report["imports"]] == [
        ("proxy_log", "served"),
        ("proxy_done", "wrong type"),
        ("proxy_nonsense", "unknown"),
        ("table", "unknown"),
    ]
    assert len(report["problems"]) == 3
    assert report["problems"][1] == "cannot link env.proxy_nonsense () -> (): no such host function"
    assert not report["usable"]


@pytest.mark.parametrize(
    ("parts", "problem"),
    [
        ((MEMORY,), "not a Proxy-Wasm module: it exports no function"),
        ((MARKER,), "exports no memory"),
        ((MEMORY, '(global (export "proxy_abi_version_0_2_1") i32 (i32.const 0))'), "but as a global"),
        (
            (MEMORY, MARKER, '(func (export "proxy_on_tick") (param i64))'),
            "exports proxy_on_tick (i64) -> (), which should be (i32) -> ()",
        ),
        (
            (
                '(import "env" "proxy_get_property" (func (param i32 i32 i32 i32) (result i32)))',
                MEMORY,
                MARKER,
            ),
            "exports no allocator, proxy_on_memory_allocate or malloc, but asks for data",
        ),
    ],
)
def test_what_is_missing_is_told(tmp_path: Path, parts: tuple[str, ...], problem: str) -> None:
    (found,) = inspect(module(tmp_path, "m.wasm", *parts))["problems"]
    assert problem in found


def test_a_file_that_is_no_module_is_status_1_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "page.wasm"
    path.write_text("<html>404</html>")
    done = wasmproxy("inspect", path)
    assert done.returncode == 1
    assert "perhaps the answer of a failed download" in done.stdout


@pytest.mark.parametrize(
    ("path", "built_with"),
    [
        (AS_EXAMPLE, "AssemblyScript, proxy-wasm AssemblyScript SDK"),
        ("transformer", "Go 1.24.4, Higress's fork of the Go SDK"),
        ("ai-data-masking", "Rust 1.80.1, Higress's fork of the Rust SDK"),
    ],
)
def test_the_sdk_of_real_modules_is_recognised(path: Path | str, built_with: str) -> None:
    found = path if isinstance(path, Path) else next(PLUGINS.glob(f"{path}/*/plugin.wasm"))
    report = inspect(found)
    assert report["built_with"] == built_with
    assert report["usable"]


@pytest.mark.parametrize(
    ("parts", "built_with"),
    [
        (('(@custom "producers" "\\01\\0cprocessed-by\\01\\05clang\\0617.0.6")',), "C or C++ (clang 17.0.6)"),
        (('(@custom "producers" "\\01\\08language\\01\\03Zig\\060.14.0")',), "Zig 0.14.0"),
        (('(import "env" "emscripten_notify_memory_growth" (func (param i32)))',), "C++ (emscripten)"),
        (
            (
                '(func $f (param i32) (result i32) i32.const 0) (func (export "_start"))',
                *(f'(export "{name}" (func $f))' for name in ("malloc", "free", "calloc", "realloc")),
            ),
            "TinyGo",
        ),
        ((), None),
    ],
)
def test_toolchains_are_recognised_by_what_they_leave_behind(
    tmp_path: Path, parts: tuple[str, ...], built_with: str | None
) -> None:
    assert inspect(module(tmp_path, "m.wasm", *parts, MEMORY, MARKER))["built_with"] == built_with


def test_every_production_module_of_the_test_extra_can_be_loaded() -> None:
    paths = sorted(PLUGINS.glob("*/*/plugin.wasm"))
    assert len(paths) == 14
    assert [inspect(path)["problems"] for path in paths] == [[]] * 14


def test_names_in_a_module_steer_no_terminal(tmp_path: Path) -> None:
    done = wasmproxy("inspect", nasty_module(tmp_path))
    assert all(line.isprintable() for line in (done.stdout + done.stderr).split("\n"))
    assert done.stdout.count("\\x1b]0;owned\\x07\\r\\x9b31m\\u202e\\n  can be loaded") >= 6
    assert "  can be loaded" not in done.stdout.splitlines()
    assert wasmproxy("inspect", "--json", nasty_module(tmp_path)).stdout.isascii()
