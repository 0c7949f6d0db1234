"""Every test of the public HTTP cache test suite, against a real proxy with each of its stores (`make test-cache`)."""

from __future__ import annotations

import pytest

from tests.cache_suite.suite import DOCUMENT, Run, SuiteTest, Verdict, installed, table

EXCEPTIONS = table("Optimal tests that are not passed")
ANSWERS = table("Questions")

WORDS = {Verdict.YES: "yes", Verdict.NO: "no", Verdict.SETUP: "not judged", Verdict.DEPENDENCY: "not judged"}


def test_required(done: Run, suite_test: SuiteTest) -> None:
    outcome = done.outcomes[suite_test.id]
    assert outcome.verdict is Verdict.PASS, f"{suite_test.name}: {outcome.message}"


def test_optimal(done: Run, suite_test: SuiteTest) -> None:
    outcome = done.outcomes[suite_test.id]
    if suite_test.id in EXCEPTIONS:
        assert outcome.verdict is not Verdict.PASS, f"it passes now: take it out of {DOCUMENT}"
        pytest.xfail(EXCEPTIONS[suite_test.id].reason)
    assert outcome.verdict is Verdict.PASS, f"{suite_test.name}: {outcome.message}"


def test_check(done: Run, suite_test: SuiteTest) -> None:
    outcome = done.outcomes[suite_test.id]
    expected = ANSWERS[suite_test.id]
    word = WORDS.get(outcome.verdict, outcome.verdict.value)
    assert word == expected.value, (
        f"{suite_test.name} The answer was {expected.value} ({expected.reason}) and is now {word} ({outcome.message}). "
        f"If that is what RFC 9111 prefers, change the row `{suite_test.id}` of {DOCUMENT} and its reason."
    )


def test_nothing_was_raised(done: Run) -> None:
    assert "Traceback" not in done.log, done.log


def test_the_document_names_tests_of_the_suite_and_few_exceptions() -> None:
    kinds = {test.id: test.kind for test in installed().tests()}
    assert {kinds[id] for id in EXCEPTIONS} <= {"optimal"}
    assert len(EXCEPTIONS) <= 2
    assert set(ANSWERS) == {id for id, kind in kinds.items() if kind == "check"}
