"""Runs the public HTTP cache test suite against a real proxy, and judges what came of it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.support.proxy import running_proxy

__all__ = [
    *("DOCUMENT", "SCRATCH", "VARIANTS"),
    *("Answer", "Outcome", "Run", "Suite", "SuiteTest", "Verdict"),
    *("installed", "judge", "run", "table"),
]

HERE = Path(__file__).parent
DOCUMENT = HERE.parent.parent / "docs" / "cache-tests.md"
"""Where the answers to the suite's questions are, and its tests that are failed on purpose."""

SCRATCH = os.environ.get("CACHE_SUITE")
"""The folder that the suite is installed in; None if there is nothing to run."""

VARIANTS: dict[str, dict[str, Any]] = {
    "memory": {},
    "disk": {"memory": 0, "disk": {"path": "store", "size": "64MiB"}},
    "both": {"disk": {"path": "store", "size": "64MiB"}},
}
"""What is put into the `cache` section of proxy.yaml to try each store."""

TIMEOUT = 180.0
"""Seconds for a run; it takes about 10."""


@dataclass(frozen=True)
class SuiteTest:
    suite: str
    id: str
    name: str
    kind: str
    """`required`, `optimal` or `check`."""
    depends_on: tuple[str, ...]


@dataclass(frozen=True)
class Suite:
    """An installed suite."""

    folder: Path

    def tests(self) -> tuple[SuiteTest, ...]:
        """Return all tests that are for proxies."""
        return _tests(self.folder)


def installed() -> Suite:
    """Return the suite in SCRATCH."""
    assert SCRATCH, "CACHE_SUITE names the folder that the suite is installed in: use `make test-cache`"
    return Suite(Path(SCRATCH).resolve() / "node_modules" / "http-cache-tests")


class Verdict(Enum):
    PASS = "pass"
    FAIL = "fail"
    YES = "yes"
    NO = "no"
    SETUP = "not judged: what the test builds on did not happen"
    DEPENDENCY = "not judged: a test that it depends on did not pass"
    MISSING = "not judged: there is no result"


_PASSED = (Verdict.PASS, Verdict.YES)
_SUCCESS = {"required": Verdict.PASS, "optimal": Verdict.PASS, "check": Verdict.YES}
_FAILURE = {"required": Verdict.FAIL, "optimal": Verdict.FAIL, "check": Verdict.NO}


@dataclass(frozen=True)
class Outcome:
    verdict: Verdict
    message: str
    """What the suite says; empty where the test went well."""

    @property
    def passed(self) -> bool:
        return self.verdict in _PASSED


@dataclass(frozen=True)
class Run:
    outcomes: dict[str, Outcome]
    log: str
    """Of the proxy."""


@dataclass(frozen=True)
class Answer:
    """A row of a table of the document."""

    value: str
    reason: str


def _node(*arguments: object, timeout: float = TIMEOUT) -> Any:
    done = subprocess.run(["node", HERE / "run.mjs", *arguments], capture_output=True, timeout=timeout)
    if done.returncode:
        raise RuntimeError(done.stderr.decode())
    return json.loads(done.stdout)


@cache
def _tests(folder: Path) -> tuple[SuiteTest, ...]:
    listed = _node(folder)["tests"]
    return tuple(SuiteTest(**{**test, "depends_on": tuple(test["depends_on"])}) for test in listed)


def judge(tests: tuple[SuiteTest, ...], results: Mapping[str, Any]) -> dict[str, Outcome]:
    """Give every test its verdict; a test counts only if all that it depends on, recursively, passed."""
    by_id = {test.id: test for test in tests}

    @cache
    def verdict(id: str) -> Verdict:
        test, result = by_id[id], results.get(id)
        if any(verdict(other) not in _PASSED for other in test.depends_on):
            return Verdict.DEPENDENCY
        if result is None:
            return Verdict.MISSING
        if result is True:
            return _SUCCESS[test.kind]
        return _FAILURE[test.kind] if result[0] == "Assertion" else Verdict.SETUP

    def message(id: str) -> str:
        failed = [other for other in by_id[id].depends_on if verdict(other) not in _PASSED]
        result = results.get(id)
        texts = [": ".join(result)] if isinstance(result, list) else []
        return "; ".join([*texts, *(f"depends on {other}" for other in failed)])

    return {id: Outcome(verdict(id), message(id)) for id in by_id}


@contextmanager
def _origin(suite: Suite, folder: Path) -> Iterator[int]:
    """Run the suite's origin; yield its port."""
    environment = {
        **os.environ,
        "npm_config_protocol": "http",
        "npm_config_port": "0",
        "npm_config_pidfile": str(folder / "origin.pid"),
    }
    process = subprocess.Popen(
        ["node", "--require", HERE / "loopback.cjs", suite.folder / "server" / "server.mjs"],
        cwd=suite.folder,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if line.startswith("PORT "):
                break
        else:
            raise RuntimeError("the origin of the suite did not start")
        # Whatever else it has to say must not fill the pipe.
        threading.Thread(target=process.stdout.read, daemon=True).start()
        yield int(line.split()[1])
    finally:
        process.kill()
        process.wait()


def run(suite: Suite, folder: Path, cache: Mapping[str, Any], only: str = "") -> Run:
    """Run all tests, or `only` one, through a proxy with these changes to its `cache` section."""
    config = yaml.safe_load((HERE / "proxy.yaml").read_text())
    del config["listeners"]  # the one of `running_proxy`, on a free port
    config["cache"].update(cache)
    with _origin(suite, folder) as port:
        config["upstreams"]["origin"]["servers"] = [f"http://127.0.0.1:{port}"]
        with running_proxy(config, folder) as proxy:
            results = _node(suite.folder, f"http://127.0.0.1:{proxy.port}", only)["results"]
            log = proxy.log
    return Run(judge(suite.tests(), results), log)


def table(heading: str) -> dict[str, Answer]:
    """Return the rows of the table under a heading of the document: test, question, answer, reason."""
    section = DOCUMENT.read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = (re.split(r"(?<!\\)\|", line.strip().strip("|")) for line in section.splitlines() if line.startswith("| `"))
    return {cells[0].strip(" `"): Answer(cells[2].strip(), cells[3].strip()) for cells in rows}
