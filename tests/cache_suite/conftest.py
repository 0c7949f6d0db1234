"""The installed suite is named by CACHE_SUITE (`make test-cache` sets it); without it there is nothing to run."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.cache_suite.suite import SCRATCH, VARIANTS, Outcome, Run, SuiteTest, Verdict, installed, run

collect_ignore = [] if SCRATCH else ["test_suite.py"]

_runs: dict[str, Run] = {}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "suite_test" in metafunc.fixturenames:
        kind = metafunc.function.__name__.split("_")[1]
        tests = [test for test in installed().tests() if test.kind == kind]
        metafunc.parametrize("suite_test", tests, ids=[test.id for test in tests])
    if "done" in metafunc.fixturenames:
        metafunc.parametrize("done", VARIANTS, indirect=True, scope="session")


@pytest.fixture(scope="session")
def done(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run of the whole suite, by store. All are run at once, since nearly all of a run is waiting."""
    if not _runs:
        with ThreadPoolExecutor() as threads:
            running = {
                name: threads.submit(run, installed(), tmp_path_factory.mktemp(name), cache)
                for name, cache in VARIANTS.items()
            }
        _runs.update({name: future.result() for name, future in running.items()})
    return _runs[request.param]


def _line(tests: list[SuiteTest], outcomes: dict[str, Outcome]) -> str:
    verdicts = Counter(outcomes[test.id].verdict for test in tests)
    if tests[0].kind == "check":
        return f"yes {verdicts[Verdict.YES]}, no {verdicts[Verdict.NO]} of {len(tests)}"
    return f"passed {verdicts[Verdict.PASS]} of {len(tests)}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the scores, and what the suite said of every test that did not pass."""
    for name, done in _runs.items():
        outcomes = done.outcomes
        terminalreporter.section(f"http-cache-tests, store: {name}")
        for kind in ("required", "optimal", "check"):
            tests = [test for test in installed().tests() if test.kind == kind]
            terminalreporter.write_line(f"{kind:<9} {_line(tests, outcomes)}")
            failed = [test for test in tests if not outcomes[test.id].passed and kind != "check"]
            for test in failed:
                outcome = outcomes[test.id]
                terminalreporter.write_line(f"    {test.suite} {test.id}: {outcome.verdict.value}: {outcome.message}")
