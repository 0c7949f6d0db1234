"""The machine's clock is set back and forth, and no stored response becomes older or younger by it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cache.coordinating import Running, proxied
from tests.cache.support import head
from tests.e2e_cache.support import FRESH, ok
from tests.support.reactor import call
from twisted_wasmproxy.cache.clock import CLOCK, Clock, ticks
from twisted_wasmproxy.cache.dates import http_date
from twisted_wasmproxy.cache.entry import Selection
from twisted_wasmproxy.cache.policy import NOTHING_ASKED, Reuse, current_age, freshness, remaining, reuse
from twisted_wasmproxy.cache.stores.codec import decode_head, encode_head
from twisted_wasmproxy.config.model import CacheConfig, CacheRules

START = 1_700_000_000.0


class Machine:
    """A machine whose clock can be set."""

    def __init__(self) -> None:
        self.up = 100.0
        self.set = START - self.up

    def ticks(self) -> float:
        return self.up

    def wall(self) -> float:
        return self.up + self.set

    def clock(self) -> Clock:
        return Clock(self.wall, self.ticks)


def fresh(stored):
    return freshness(stored, CacheRules(), CacheConfig())


def answered(machine: Machine, clock: Clock, true: float, lifetime: int, old: int):
    """Return the head of a response that an origin with a right clock made `old` seconds ago."""
    fields = [(b"Cache-Control", b"max-age=%d" % lifetime), (b"Age", b"%d" % old)]
    if machine.wall() == true:
        fields.append((b"Date", http_date(int(true - old))))
    now = clock.now()
    return head(headers=fields, request_time=now, response_time=now, wall_ahead=clock.ahead())


def test_a_clock_goes_on_while_the_machines_is_set() -> None:
    machine = Machine()
    clock = machine.clock()
    assert clock.now() == START
    machine.up += 10
    for step in (3600, -7200, 86400 * 365, -86400 * 365 * 20):
        machine.set += step
        assert clock.now() == START + 10
    assert clock.ahead() == machine.set + 100 - START


def test_a_small_difference_is_none() -> None:
    machine = Machine()
    clock = machine.clock()
    machine.set += 0.9
    assert clock.ahead() == 0
    machine.set += 0.2
    assert clock.ahead() == pytest.approx(1.1)


def test_the_clock_of_the_process_has_the_time_of_the_day() -> None:
    assert CLOCK.ahead() == 0
    before = ticks()
    assert 0 <= ticks() - before < 60


events = st.lists(
    st.tuples(st.floats(0, 5000), st.sampled_from([0, 0, 60, -60, 86400, -86400, 3e8, -3e8])), min_size=1, max_size=8
)


@given(events, st.integers(0, 10_000), st.integers(0, 1000), st.integers(0, 7))
def test_age_is_how_long_it_has_been_here(moves, lifetime, old, when):
    machine = Machine()
    clock = machine.clock()
    true = START
    stored = came = None
    for i, (passed, step) in enumerate(moves):
        machine.up += passed
        true += passed
        machine.set += step
        if i == min(when, len(moves) - 1):
            stored, came = answered(machine, clock, true, lifetime, old), true
        if stored is not None:
            found = fresh(stored)
            age = old + true - came
            assert current_age(found, clock.now()) == pytest.approx(age, abs=1.1)
            if abs(age - lifetime) > 1.1:
                verdict = reuse(found, NOTHING_ASKED, clock.now())
                assert (verdict is Reuse.FRESH) == (age < lifetime)
                assert (remaining(found, clock.now()) > 0) == (age < lifetime)


@pytest.mark.parametrize("step", [3600, -3600])
def test_date_is_compared_with_the_machines_clock(step: int) -> None:
    """The clock was wrong at the start, and was set right: an answer of this second has no age, one of before has."""
    machine = Machine()
    machine.set -= step
    clock = machine.clock()
    machine.set += step
    for ago in (0, 50):
        now = clock.now()
        fields = [(b"Cache-Control", b"max-age=60"), (b"Date", http_date(machine.wall() - ago))]
        stored = head(headers=fields, request_time=now, response_time=now, wall_ahead=clock.ahead())
        assert fresh(stored).initial_age == ago
        assert reuse(fresh(stored), NOTHING_ASKED, clock.now() + 9) is Reuse.FRESH
        assert reuse(fresh(stored), NOTHING_ASKED, clock.now() + 61 - ago) is Reuse.VALIDATE


def test_expires_is_compared_with_the_machines_clock_too() -> None:
    machine = Machine()
    clock = machine.clock()
    machine.set -= 3600
    now = clock.now()
    stored = head(
        headers=[(b"Expires", http_date(machine.wall() + 60))],
        request_time=now,
        response_time=now,
        wall_ahead=clock.ahead(),
    )
    assert fresh(stored).lifetime == 60


def restarted(machine: Machine, clock: Clock, step: float, passed: float) -> tuple[Reuse, float]:
    """Store a response that is fresh for 100 seconds; start again later; return what is found."""
    data = encode_head(answered(machine, clock, machine.wall(), 100, 0), clock)
    machine.set += step
    machine.up += passed
    other = machine.clock()
    found = fresh(decode_head(data, other))
    return reuse(found, NOTHING_ASKED, other.now()), current_age(found, other.now())


def test_after_a_restart_the_machines_clock_says_how_old_it_is() -> None:
    machine = Machine()
    assert restarted(machine, machine.clock(), 0, 50) == (Reuse.FRESH, 50)
    assert restarted(machine, machine.clock(), 0, 101)[0] is Reuse.VALIDATE
    assert restarted(machine, machine.clock(), 3600, 1)[0] is Reuse.VALIDATE


def test_what_is_of_the_future_after_a_restart_is_stale() -> None:
    machine = Machine()
    assert restarted(machine, machine.clock(), -3600, 1)[0] is Reuse.VALIDATE


@pytest.mark.parametrize("step", [3600, -3600])
def test_a_step_before_it_was_stored_does_not_matter_after_a_restart(step: int) -> None:
    machine = Machine()
    clock = machine.clock()
    machine.set += step
    assert restarted(machine, clock, 0, 50) == (Reuse.FRESH, 50)
    assert restarted(machine, clock, 0, 101)[0] is Reuse.VALIDATE


@pytest.mark.parametrize("step", [3600, -3600])
def test_a_process_reads_what_it_wrote_by_its_own_clock(step: int) -> None:
    machine = Machine()
    clock = machine.clock()
    machine.set += step
    stored = answered(machine, clock, machine.wall(), 100, 0)
    data = encode_head(stored, clock)
    machine.set -= 2 * step
    machine.up += 50
    assert decode_head(data, clock) == stored


def test_a_soft_purge_of_the_future_is_one() -> None:
    found = fresh(head(headers=[(b"Cache-Control", b"max-age=9999")], purged=START + 500, response_time=START))
    for now in (START, START + 499.5, START + 500, START + 501):
        assert reuse(found, NOTHING_ASKED, now) is not Reuse.FRESH


# A proxy


@pytest.fixture
def machine() -> Iterator[Machine]:
    machine = Machine()
    machine.up, machine.set = ticks(), CLOCK.origin
    with patch.object(CLOCK, "_wall", machine.wall), patch.object(CLOCK, "ticks", machine.ticks):
        yield machine


@pytest.fixture
def running(tmp_path: Path, machine: Machine) -> Iterator[Running]:
    with proxied(tmp_path) as running:
        yield running


STEPS = [-3600, 3600, -86400 * 400, 86400 * 400]


@pytest.mark.parametrize("step", STEPS)
def test_a_step_makes_nothing_older_or_younger(running: Running, machine: Machine, step: float) -> None:
    site = running.site()
    dated = "Cache-Control: max-age=100"
    site.answer(lambda arrival: ok(b"x", dated, f"Date: {http_date(machine.wall()).decode()}"))
    site.get()
    machine.set += step
    reply = site.get()
    assert (reply.hit, reply.age) == (True, 0)
    machine.up += 99
    reply = site.get()
    assert (reply.hit, reply.age) == (True, 99)
    machine.set -= step
    assert site.get().age == 99
    machine.up += 2
    assert not site.get().hit
    machine.set += step
    machine.up += 2
    # It came anew once, and not twice.
    assert (site.get().hit, site.count) == (True, 2)


@pytest.mark.parametrize("step", STEPS)
def test_what_comes_after_a_step_is_as_old_as_it_is(running: Running, machine: Machine, step: float) -> None:
    site = running.site()
    machine.set += step
    now = http_date(machine.wall()).decode()
    site.answer(ok(b"x", "Cache-Control: max-age=100", f"Date: {now}"))
    site.get()
    machine.up += 90
    reply = site.get()
    assert reply.hit
    assert reply.age in (90, 91)
    machine.up += 11
    assert not site.get().hit


@pytest.mark.parametrize("step", STEPS)
def test_a_soft_purge_after_a_step_makes_stale(running: Running, machine: Machine, step: float) -> None:
    site = running.site()
    site.answer(ok(b"x", FRESH, 'ETag: "a"'))
    site.get()
    machine.set += step
    call(lambda: running.cache.purge(Selection(), True))
    assert site.get().cache["fwd"] == "stale"


@pytest.mark.parametrize("step", STEPS)
def test_windows_for_what_is_stale_do_not_move(running: Running, machine: Machine, step: float) -> None:
    site = running.site()
    failing = ok(b"", status="503 x")
    site.answer(ok(b"x", "Cache-Control: max-age=10, stale-if-error=100"), failing)
    site.get()
    machine.up += 60
    machine.set += step
    assert (site.get().body, site.get().status) == (b"x", 200)
    machine.up += 51
    assert site.get().status == 503
