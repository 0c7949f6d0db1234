"""Passive health: when a server rests, and when it may try again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from twisted_wasmproxy.config.model import HealthConfig
from twisted_wasmproxy.upstream.health import Health

CONFIG = HealthConfig(max_failures=3, rest=5.0, max_rest=18.0)


def fail(health: Health, now: float, times: int = 1) -> None:
    for _ in range(times):
        health.failed(now)


def test_it_rests_after_so_many_failures_in_a_row():
    health = Health(CONFIG)
    fail(health, 100.0, 2)
    assert health.available(100.0)
    health.succeeded()
    fail(health, 100.0, 2)
    assert health.available(100.0)
    fail(health, 100.0)
    assert not health.available(104.9)
    assert health.available(105.0)


def test_each_further_failure_doubles_the_rest_up_to_the_most():
    health = Health(CONFIG)
    now = 0.0
    fail(health, now, 3)
    for rest in (5.0, 10.0, 18.0, 18.0):
        assert health.resting_until == now + rest
        now = health.resting_until
        fail(health, now)
    for _ in range(2000):
        now = health.resting_until
        fail(health, now)
    assert health.resting_until == now + 18.0


def test_requests_that_were_under_way_do_not_double_the_rest():
    health = Health(CONFIG)
    fail(health, 0.0, 50)
    fail(health, 4.0, 50)
    assert health.resting_until == 5.0


def test_one_request_at_a_time_tries_a_server_that_has_rested():
    health = Health(CONFIG)
    fail(health, 0.0, 3)
    assert health.on_trial
    health.tried(5.0)
    assert not health.available(9.9)
    assert health.available(10.0)
    health.failed(6.0)
    assert health.resting_until == 16.0


def test_a_success_ends_it_all():
    health = Health(CONFIG)
    fail(health, 0.0, 3)
    fail(health, 5.0, 1)
    health.succeeded()
    assert health.available(6.0)
    assert not health.on_trial
    fail(health, 20.0, 3)
    assert health.resting_until == 25.0


def test_no_limit_means_no_rest():
    health = Health(HealthConfig(max_failures=0))
    fail(health, 0.0, 100)
    assert health.available(0.0)


@given(st.lists(st.tuples(st.sampled_from(["failed", "succeeded", "tried"]), st.floats(0, 1000))))
def test_no_rest_is_longer_than_the_most(events: list[tuple[str, float]]):
    health = Health(CONFIG)
    now = 0.0
    for event, later in events:
        now += later
        if event == "succeeded":
            health.succeeded()
        elif event == "failed":
            health.failed(now)
        else:
            health.tried(now)
        assert health.resting_until <= now + CONFIG.max_rest
