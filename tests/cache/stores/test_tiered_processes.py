"""Two processes with memory before one disk: neither answers from its memory what the other has changed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cache.stores.driver import until
from tests.cache.stores.other_process import Other, Worker

URL = "http://h/"


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Worker, Other]]:
    path = tmp_path_factory.mktemp("shared") / "cache"
    here, other = Worker(path), Other(path)
    yield here, other
    other.stop()
    other.end()
    here.stop()


@pytest.fixture
def here(both: tuple[Worker, Other]) -> Worker:
    both[0].purge("tag")
    return both[0]


@pytest.fixture
def other(both: tuple[Worker, Other]) -> Other:
    return both[1]


def in_both_memories(here: Worker, other: Other, url: str = URL) -> None:
    """Store a response here, and see that both have it in memory."""
    here.save(url, "old")
    until(lambda: other.get(url) == ["old", True])
    assert here.get(url) == ["old", True]


def test_what_one_stores_the_other_finds_and_then_has_in_memory(here: Worker, other: Other) -> None:
    here.save(URL, "content")
    assert other.get(URL) == ["content", False]
    assert other.get(URL) == ["content", True]


def test_a_purge_is_over_when_no_process_finds_it(here: Worker, other: Other) -> None:
    for _ in range(20):
        in_both_memories(here, other)
        assert other.purge("tag") == 1
        assert here.get(URL)[0] is None
        assert other.get(URL)[0] is None


def test_a_soft_purge_marks_it_in_every_process(here: Worker, other: Other) -> None:
    in_both_memories(here, other)
    assert here.purged(URL) == 0
    assert other.purge("tag", True) == 1
    assert here.purged(URL) > 1_700_000_000
    assert other.purged(URL) > 1_700_000_000


def test_what_one_replaces_the_other_does_not_answer_any_more(here: Worker, other: Other) -> None:
    for i in range(20):
        in_both_memories(here, other)
        other.save(URL, f"new {i}")
        assert here.get(URL)[0] == f"new {i}"
        assert here.get(URL) == [f"new {i}", True]


def test_what_one_replaces_by_something_for_the_disk_the_other_does_not_answer(here: Worker, other: Other) -> None:
    in_both_memories(here, other)
    other.save(URL, "large", 400_000)
    assert here.get(URL) == ["largelargelargelarge", False]
    assert other.get(URL) == ["largelargelargelarge", False]


def test_what_one_removes_the_other_does_not_answer_any_more(here: Worker, other: Other) -> None:
    in_both_memories(here, other)
    other.remove(URL)
    until(lambda: other.get(URL)[0] is None)
    assert here.get(URL)[0] is None


def test_what_one_freshens_the_other_has_fresh(here: Worker, other: Other) -> None:
    in_both_memories(here, other)
    other.update(URL, 203)
    assert other.status(URL) == 203
    until(lambda: here.status(URL) == 203)


@pytest.mark.parametrize("times", [1, 100_000])
def test_what_is_written_while_the_other_purges_is_not_stored(here: Worker, other: Other, times: int) -> None:
    here.begin(URL, times)
    other.purge("tag")
    here.commit(URL, times)
    assert here.get(URL)[0] is None
    assert other.get(URL)[0] is None


def test_who_missed_too_many_changes_forgets_its_memory(here: Worker, other: Other) -> None:
    in_both_memories(here, other)
    in_both_memories(here, other, "http://h/kept")
    for i in range(200):
        other.save(f"http://h/{i}/" + "x" * 6000, "x")
    assert here.get("http://h/kept")[0] == "old"
    other.save(URL, "new")
    assert here.get(URL)[0] == "new"


def test_what_one_reads_stays_while_the_other_removes_it_and_writes(here: Worker, other: Other) -> None:
    here.save(URL, "large", 600_000)
    other.hold(URL)
    here.remove(URL)
    for i in range(20):
        here.save(f"http://h/{i}", "fill", 500_000)
    assert other.read_held() == 3_000_000
    other.release()
    until(lambda: here.store.stats()["disk_waiting_to_be_freed"] == 0)
    assert other.read_held() == -1


def test_the_other_may_be_killed_at_any_time(here: Worker, tmp_path: Path) -> None:
    here.save(URL, "content")
    for _ in range(3):
        third = Other(here.store.store._disk._config.path)
        third.begin("http://h/third", 300_000)
        third.hold(URL)
        third.end()
    assert here.get(URL)[0] == "content"
    here.save("http://h/third", "mine")
    assert here.get("http://h/third")[0] == "mine"
