"""`wasmproxy check`: everything that a start would find wrong with a configuration, without listening."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import (
    FilteringLogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
    textFileLogObserver,
)

from twisted_wasmproxy import config
from twisted_wasmproxy.cache.entry import StoreError
from twisted_wasmproxy.cache.stores.plugins import plugin_store
from twisted_wasmproxy.config import Configuration, ConfigurationError, Location, Problem
from twisted_wasmproxy.config.model import CacheStoreConfig, NativeFilterConfig, WasmFilterConfig
from twisted_wasmproxy.filters.native import FilterError, native_factory
from twisted_wasmproxy.printable import printable_lines
from twisted_wasmproxy.proxywasm.abi import CALLBACKS, IMPORTS
from twisted_wasmproxy.proxywasm.errors import PluginError
from twisted_wasmproxy.proxywasm.host import WasmHost
from twisted_wasmproxy.proxywasm.linker import unlinkable
from twisted_wasmproxy.proxywasm.module import callback_problems, detect_version
from twisted_wasmproxy.runtimes.binary import read_module
from twisted_wasmproxy.runtimes.code_cache import CodeCache, default_folder
from twisted_wasmproxy.runtimes.interface import CompileError, RuntimeUnavailable
from twisted_wasmproxy.runtimes.registry import get_engine

__all__ = ["Verdict", "check", "run"]


@dataclass
class Verdict:
    """What is to be said of one file."""

    file: Path
    configuration: Configuration | None = None
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def run(files: Sequence[Path], *, quiet: bool, verbose: bool, as_json: bool) -> int:
    """Print what is wrong; return the exit status."""
    level = LogLevel.info if verbose else LogLevel.critical if quiet else LogLevel.warn
    predicate = LogLevelFilterPredicate(defaultLogLevel=level)
    observer = FilteringLogObserver(textFileLogObserver(sys.stderr), [predicate])
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False, discardBuffer=True)
    verdicts = []
    for file in files:
        verdict = check(file)
        verdicts.append(verdict)
        if not as_json:
            for line in _lines(verdict, quiet):
                print(printable_lines(line))
    if as_json:
        print(json.dumps([_report(verdict) for verdict in verdicts], indent=2))
    return 1 if any(verdict.problems for verdict in verdicts) else 0


def check(file: Path) -> Verdict:
    """Load a configuration, start every Wasm plugin, configure every native filter, and make a plugin's store."""
    verdict = Verdict(file)
    try:
        configuration = config.load(file)
    except ConfigurationError as error:
        verdict.problems = list(error.problems)
        return verdict
    verdict.configuration = configuration
    verdict.warnings = list(configuration.warnings)
    if not configuration.listeners:
        place = Location(str(file), 1, "listeners")
        verdict.warnings.append(str(Problem(place, "none: only WasmProxyResource can use this file")))
    if configuration.cache is not None and configuration.cache.store is not None:
        verdict.problems += _store_problems(configuration.cache.store)
    cache = CodeCache(configuration.code_cache or default_folder())
    for entry in configuration.filters:
        if isinstance(entry, NativeFilterConfig):
            verdict.problems += _native_problems(entry)
        else:
            verdict.warnings += _capability_warnings(entry)
            verdict.problems += _static_problems(entry) or _start_problems(entry, cache, configuration)
    return verdict


def _native_problems(entry: NativeFilterConfig) -> list[Problem]:
    try:
        native_factory(entry)
    except FilterError as error:
        return [_problem(entry, str(error))]
    except Exception as error:  # whatever the plugin's own code raises is to be told, not to end the check
        return [_problem(entry, f"native filter {entry.native!r} fails: {type(error).__name__}: {error}")]
    return []


def _store_problems(entry: CacheStoreConfig) -> list[Problem]:
    from twisted.internet import reactor  # here, so that only a file with such a store installs one

    assert entry.location is not None, "the loader notes where it stands"
    try:
        plugin_store(entry, reactor)
    except StoreError as error:
        return [Problem(entry.location, str(error))]
    except Exception as error:  # whatever the plugin's own code raises is to be told, not to end the check
        return [Problem(entry.location, f"cache store {entry.name!r} fails: {type(error).__name__}: {error}")]
    return []


def _static_problems(entry: WasmFilterConfig) -> list[Problem]:
    """What the file of a module and its runtime's name show without an engine, each fault by itself."""
    texts = []
    place = _code_place(entry)
    problems = []
    try:
        get_engine(entry.vm.runtime)
    except RuntimeUnavailable as error:
        problems.append(_problem(entry, str(error), "runtime"))
    try:
        info = read_module(entry.vm.code.read_bytes())
    except OSError as error:
        texts = [f"cannot be read: {error.strerror}"]
    except CompileError as error:
        texts = [str(error)]
    else:
        if not entry.vm.lax_imports:
            texts = [f"cannot link {text}" for text in unlinkable(info.imports)] + callback_problems(info)
        try:
            detect_version(info)
        except ValueError as error:
            texts.append(str(error))
    return problems + [Problem(place, f"{entry.vm.code}: {text}") for text in texts]


def _start_problems(entry: WasmFilterConfig, cache: CodeCache, configuration: Configuration) -> list[Problem]:
    """Compile, instantiate, start and configure, as the proxy does, and let go of it again."""
    clock = Clock()  # stands still: no timer of a module ever runs
    host = WasmHost(clock, cache=cache, node=dict(configuration.node), drain=0.0)
    try:
        plugins = host.start([host.prepare(entry)])
    except PluginError as error:
        return [Problem(_code_place(entry), str(error))]
    plugins.close()
    clock.advance(0)  # for a module that would like to take its time to end
    return []


def _capability_warnings(entry: WasmFilterConfig) -> Iterator[str]:
    known = CALLBACKS.keys() | {name for _, name in IMPORTS}
    for name in sorted((entry.capabilities or frozenset()) - known):
        yield str(_problem(entry, f"unknown capability {name!r}", "capability_restriction_config"))


def _place(entry: WasmFilterConfig | NativeFilterConfig) -> Location:
    assert entry.location is not None, "the loader notes where each filter stands"
    return entry.location


def _code_place(entry: WasmFilterConfig) -> Location:
    place = entry.vm.location or _place(entry)
    return replace(place, key=f"{place.key}.code.local.filename")


def _problem(entry: WasmFilterConfig | NativeFilterConfig, text: str, key: str = "") -> Problem:
    place = _place(entry)
    if key == "runtime" and isinstance(entry, WasmFilterConfig) and entry.vm.location is not None:
        place = entry.vm.location
    return Problem(replace(place, key=f"{place.key}.{key}") if key else place, text)


def _lines(verdict: Verdict, quiet: bool) -> Iterator[str]:
    yield from map(str, verdict.problems)
    if quiet:
        return
    yield from (f"{warning} (warning)" for warning in verdict.warnings)
    found = verdict.configuration
    if verdict.problems:
        number = len(verdict.problems)
        yield f"{verdict.file}: cannot be used: {number} problem{'s' if number > 1 else ''}"
    elif found is not None:
        counts = (
            ("listener", found.listeners),
            ("upstream", found.upstreams),
            ("rule", found.remap),
            ("filter", found.filters),
        )
        summary = ", ".join(f"{len(items)} {name}{'s' if len(items) != 1 else ''}" for name, items in counts)
        yield f"{verdict.file}: can be used: {summary}"


def _report(verdict: Verdict) -> dict[str, Any]:
    return {
        "file": str(verdict.file),
        "usable": not verdict.problems,
        "problems": [
            {
                "file": problem.location.file,
                "line": problem.location.line,
                "key": problem.location.key,
                "text": problem.text,
            }
            for problem in verdict.problems
        ],
        "warnings": verdict.warnings,
    }
