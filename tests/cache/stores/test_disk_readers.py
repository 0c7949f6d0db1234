"""The reading threads of the disk store: results, failures, many at once, and the end."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from twisted.internet.defer import Deferred, gatherResults

from tests.support.reactor import call, run, started_reactor
from twisted_wasmproxy.cache.stores.disk_readers import ReaderThreads


@pytest.fixture
def readers() -> Iterator[ReaderThreads]:
    threads = ReaderThreads(started_reactor(), 4)
    threads.start()
    yield threads
    threads.stop()


def test_results_come_in_the_thread_of_the_reactor(readers: ReaderThreads) -> None:
    def ask() -> Deferred[tuple[threading.Thread, threading.Thread]]:
        return readers.call(threading.current_thread).addCallback(lambda read: (read, threading.current_thread()))

    read, delivered = run(ask)
    assert delivered is call(threading.current_thread)
    assert read is not delivered


def test_an_exception_fails_its_own_call_only(readers: ReaderThreads) -> None:
    def fail() -> None:
        raise KeyError("gone")

    with pytest.raises(KeyError, match="gone"):
        run(lambda: readers.call(fail))
    assert run(lambda: readers.call(lambda: 1)) == 1


def test_each_of_many_calls_has_its_own_result(readers: ReaderThreads) -> None:
    def ask() -> Deferred[list[int]]:
        return gatherResults([readers.call(lambda number=number: number) for number in range(5000)])

    assert run(ask) == list(range(5000))


def test_a_callback_may_call_again(readers: ReaderThreads) -> None:
    def ask(left: int) -> Deferred[int]:
        asked = readers.call(lambda: left)
        return asked.addCallback(lambda number: ask(number - 1) if number else 0)

    assert run(lambda: ask(200)) == 0


def test_what_was_asked_for_before_the_end_is_done() -> None:
    threads = ReaderThreads(started_reactor(), 2)
    threads.start()
    begun, go_on = threading.Event(), threading.Event()
    done: list[int] = []

    def ask() -> None:
        threads.call(lambda: (begun.set(), go_on.wait(10)))
        for number in range(20):
            threads.call(lambda number=number: done.append(number))

    call(ask)
    assert begun.wait(10)
    go_on.set()
    threads.stop()
    assert sorted(done) == list(range(20))
