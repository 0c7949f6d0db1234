"""What is remembered of keys is bounded by time and bytes."""

from __future__ import annotations

import gc
import tracemalloc

import pytest

from twisted_wasmproxy.cache import recently
from twisted_wasmproxy.cache.recently import Recently


class Time:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    time = Time()
    monkeypatch.setattr(recently, "time", time)
    return time


def test_a_key_is_remembered_for_a_while(time: Time) -> None:
    noted = Recently(10.0)
    assert b"a" not in noted
    noted.note(b"a")
    time.now += 9.9
    assert b"a" in noted
    assert b"b" not in noted
    noted.note(b"a")
    time.now += 9.9
    assert b"a" in noted
    time.now += 0.2
    assert b"a" not in noted


def test_a_key_can_be_forgotten(time: Time) -> None:
    noted = Recently(10.0)
    noted.forget(b"a")
    noted.note(b"a")
    noted.note(b"b")
    noted.forget(b"a")
    assert b"a" not in noted
    assert b"b" in noted


def test_the_oldest_go_first(time: Time) -> None:
    noted = Recently(10.0, limit=3)
    for key in (b"a", b"b", b"c", b"a", b"d"):
        noted.note(key)
    assert [key in noted for key in (b"a", b"b", b"c", b"d")] == [True, False, True, True]


def test_long_keys_take_no_more_than_short_ones() -> None:
    noted = Recently(1000.0)
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for i in range(11_000):
            noted.note(b"%d" % i + bytes(15_000))
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert b"10999" + bytes(15_000) in noted
    assert b"0" + bytes(15_000) not in noted
    assert grown < 3 * 1024 * 1024
