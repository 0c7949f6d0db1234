"""Compiled code on disk: hits, misses, damage, trust, several processes, and the bounds."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import wasmtime

from twisted_wasmproxy.runtimes.code_cache import CodeCache, load_module
from twisted_wasmproxy.runtimes.interface import CompileError, Engine, Limits, Module

WASM = bytes(wasmtime.wat2wasm('(module (func (export "answer") (result i32) (i32.const 42)))'))


class Counting:
    """An engine that notes how often it compiles."""

    def __init__(self, engine: Engine, version: str | None = None) -> None:
        self.engine = engine
        self.name = engine.name
        self.version = version or engine.version
        self.interruptible = engine.interruptible
        self.limits_memory = engine.limits_memory
        self.compiled = 0

    def compile(self, wasm: bytes) -> bytes:
        self.compiled += 1
        return self.engine.compile(wasm)

    def load(self, code: bytes) -> Module:
        return self.engine.load(code)


@pytest.fixture
def cache(tmp_path):
    return CodeCache(tmp_path / "code")


def answers(module: Module) -> bool:
    instance = module.instantiate({}, Limits())
    try:
        return instance.function("answer")() == 42
    finally:
        instance.close()


def entries(cache: CodeCache) -> list[Path]:
    return sorted(cache.folder.iterdir())


def test_a_module_is_compiled_once(engine, cache):
    counting = Counting(engine)
    for _ in range(3):
        assert answers(load_module(counting, WASM, cache))
    assert counting.compiled == 1
    assert len(entries(cache)) == 1
    again = Counting(engine)
    assert answers(load_module(again, WASM, CodeCache(cache.folder)))
    assert again.compiled == 0


def test_without_a_cache_it_is_compiled_each_time(engine):
    counting = Counting(engine)
    assert answers(load_module(counting, WASM))
    assert answers(load_module(counting, WASM, None))
    assert counting.compiled == 2


def test_other_modules_and_other_versions_have_other_entries(engine, cache):
    load_module(engine, WASM, cache)
    load_module(engine, WASM + b"\0\x02\x01x", cache)
    newer = Counting(engine, version="999/..")
    load_module(newer, WASM, cache)
    assert newer.compiled == 1
    names = [path.name for path in entries(cache)]
    assert len(names) == 3
    assert all(name.startswith(f"{engine.name}-") for name in names)


def test_what_is_not_a_module_is_an_error_and_no_entry(engine, cache):
    with pytest.raises(CompileError):
        load_module(engine, b"no module", cache)
    assert entries(cache) == []


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flip(content: bytes) -> bytes:
    return content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]


@pytest.mark.parametrize("damage", [cut, flip, lambda content: b"", lambda content: b"\x7fELF" + content])
def test_a_damaged_entry_is_compiled_anew_with_a_warning(engine, cache, damage, caplog):
    load_module(engine, WASM, cache)
    [path] = entries(cache)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    counting = Counting(engine)
    with caplog.at_level(logging.WARNING):
        assert answers(load_module(counting, WASM, cache))
    assert counting.compiled == 1
    assert path.name in caplog.text
    assert path.read_bytes() == whole or len(path.read_bytes()) > 100
    assert answers(load_module(counting, WASM, cache))
    assert counting.compiled == 1


def test_an_entry_under_another_modules_name_is_not_taken(engine, cache):
    other = bytes(wasmtime.wat2wasm('(module (func (export "answer") (result i32) (i32.const 666)))'))
    load_module(engine, other, cache)
    [path] = entries(cache)
    path.rename(cache.folder / f"{cache.key(engine, WASM)}.code")
    assert answers(load_module(engine, WASM, cache))


def test_code_that_the_engine_does_not_take_is_compiled_anew(engine, cache, caplog):
    cache.put(cache.key(engine, WASM), b"code of another build of this version")
    counting = Counting(engine)
    assert answers(load_module(counting, WASM, cache))
    assert counting.compiled == 1
    assert "compiling anew" in caplog.text
    assert answers(load_module(counting, WASM, cache))
    assert counting.compiled == 1


def test_a_new_folder_is_closed_to_others(cache):
    assert cache.usable
    assert cache.folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777])
def test_a_folder_that_others_may_write_is_not_used(engine, tmp_path, mode, caplog):
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(mode)
    cache = CodeCache(folder)
    assert not cache.usable
    assert str(folder) in caplog.text
    assert "0700" in caplog.text
    assert answers(load_module(engine, WASM, cache))
    assert entries(cache) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_or_file_of_another_user_is_not_used(engine, tmp_path, caplog):
    folder = tmp_path / "foreign"
    folder.mkdir(0o700)
    os.chown(folder, 65534, 65534)
    assert not CodeCache(folder).usable
    assert "belongs to user 65534" in caplog.text
    own = CodeCache(tmp_path / "own")
    load_module(engine, WASM, own)
    os.chown(entries(own)[0], 65534, 65534)
    counting = Counting(engine)
    assert answers(load_module(counting, WASM, own))
    assert counting.compiled == 1


def test_a_link_is_not_followed(engine, cache, tmp_path):
    load_module(engine, WASM, cache)
    [path] = entries(cache)
    elsewhere = tmp_path / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    counting = Counting(engine)
    assert answers(load_module(counting, WASM, cache))
    assert counting.compiled == 1
    link = tmp_path / "link"
    link.symlink_to(cache.folder)
    assert not CodeCache(link).usable


def test_a_folder_that_cannot_be_made_is_a_warning(engine, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    cache = CodeCache(tmp_path / "file" / "code")
    assert not cache.usable
    assert "no cache of compiled code" in caplog.text
    assert answers(load_module(engine, WASM, cache))


def test_a_folder_that_goes_away_is_a_warning(engine, cache, caplog):
    cache.folder.rmdir()
    assert answers(load_module(engine, WASM, cache))
    assert "cannot keep compiled code" in caplog.text


def test_the_longest_unused_entries_go_first(tmp_path):
    cache = CodeCache(tmp_path / "code", max_files=3)
    for number in range(3):
        cache.put(f"entry{number}", b"x")
        os.utime(cache.folder / f"entry{number}.code", (1000 + number, 1000 + number))
    assert cache.get("entry0") == b"x"
    cache.put("entry3", b"x")
    assert [path.name for path in entries(cache)] == ["entry0.code", "entry2.code", "entry3.code"]


def test_bytes_are_bounded_and_the_newest_entry_stays(tmp_path):
    cache = CodeCache(tmp_path / "code", max_bytes=1000)
    for number in range(5):
        cache.put(f"entry{number}", b"x" * 400)
        os.utime(cache.folder / f"entry{number}.code", (1000 + number, 1000 + number))
    assert [path.name for path in entries(cache)] == ["entry3.code", "entry4.code"]
    cache.put("big", b"x" * 5000)
    assert cache.get("big") == b"x" * 5000


def test_what_a_crash_left_half_written_is_removed_in_time(cache):
    old, new = cache.folder / "tmp1.new", cache.folder / "tmp2.new"
    old.write_bytes(b"half")
    new.write_bytes(b"half")
    os.utime(old, (1000, 1000))
    cache.put("entry", b"x")
    assert [path.name for path in entries(cache)] == ["entry.code", "tmp2.new"]


def test_threads_may_load_at_once(engine, cache):
    modules: list[Module] = []
    workers = [threading.Thread(target=lambda: modules.append(load_module(engine, WASM, cache))) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(modules) == 8
    assert all(answers(module) for module in modules)
    assert len(entries(cache)) == 1


def test_processes_may_load_at_once_while_entries_are_damaged(engine, cache, real_modules, tmp_path):
    """Each finds a whole entry or none, whatever the others do at that moment."""
    script = """
import sys, wasmtime
from pathlib import Path
from twisted_wasmproxy.runtimes import get_engine
from twisted_wasmproxy.runtimes.code_cache import CodeCache, load_module
from twisted_wasmproxy.runtimes.interface import Limits
engine, cache = get_engine(sys.argv[1]), CodeCache(sys.argv[2])
for turn in range(12):
    for number in range(4):
        text = f'(module (func (export "answer") (result i32) (i32.const {number})))'
        module = load_module(engine, bytes(wasmtime.wat2wasm(text)), cache)
        instance = module.instantiate({}, Limits())
        assert instance.function("answer")() == number
        instance.close()
    paths = sorted(Path(sys.argv[2]).glob("*.code"))
    if paths:
        victim = paths[turn % len(paths)]
        try:
            with victim.open("r+b") as file:
                file.truncate(turn * 7)
        except FileNotFoundError:
            pass
print("well")
"""
    command = [sys.executable, "-c", script, engine.name, str(cache.folder)]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    results = [(worker.communicate(timeout=60), worker.returncode) for worker in workers]
    assert [(out, code) for (out, _), code in results] == [(b"well\n", 0)] * 2, results


def test_a_big_real_module_comes_from_the_cache_in_another_process(engine, cache, real_modules):
    path = real_modules[0]
    script = """
import json, sys
from pathlib import Path
from twisted_wasmproxy.runtimes import get_engine
from twisted_wasmproxy.runtimes.code_cache import CodeCache, load_module
engine = get_engine(sys.argv[1])
compile_, compiled = engine.compile, []
engine.compile = lambda wasm: compiled.append(len(wasm)) or compile_(wasm)
module = load_module(engine, Path(sys.argv[3]).read_bytes(), CodeCache(sys.argv[2]))
print(json.dumps([compiled, len(module.imports)]))
"""
    command = [sys.executable, "-c", script, engine.name, str(cache.folder), str(path)]
    first, second = (
        json.loads(subprocess.run(command, check=True, capture_output=True, timeout=120).stdout) for _ in "12"
    )
    assert first[0] == [path.stat().st_size]
    assert second[0] == []
    assert first[1] == second[1] > 20
