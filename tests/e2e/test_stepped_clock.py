"""The system's clock is set forwards and back while the proxy runs: no timer stands still, and none runs out early."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.e2e.support import Arrival, Pair, answer, eventually, reverse_config, scripted_origin
from tests.support.proxy import running_proxy
from tests.support.stepped import SteppedClock

HEADER = 1.0
STEPS = [-60.0, -86400.0, 60.0, 86400.0]


def script(arrival: Arrival) -> bool:
    arrival.content()
    if arrival.target.startswith(b"/slow"):
        time.sleep(0.4)
    if arrival.target == b"/silent":
        time.sleep(8)
        return False
    arrival.send(answer(b"fine"))
    return True


@dataclass
class Stepped(Pair):
    clock: SteppedClock


@pytest.fixture(scope="module", params=[None, "poll", "asyncio"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stepped]:
    folder = tmp_path_factory.mktemp("clock")
    clock = SteppedClock(folder)
    with scripted_origin() as origin:
        origin.script = script
        config = reverse_config(origin, timeouts={"header": HEADER, "idle": 2, "keep_alive": 20, "drain": 5})
        config["access_log"] = {"path": str(folder / "log"), "format": "json"}
        options = [f"--reactor={request.param}"] if request.param else []
        with running_proxy(config, folder, environment=clock.environment, options=options) as proxy:
            yield Stepped(proxy, origin, folder / "log", clock)
            assert "Traceback" not in proxy.log
            clock.step(-3600)
            proxy.stop()


@pytest.mark.parametrize("step", STEPS)
def test_requests_are_answered_after_a_step(pair: Stepped, step: float) -> None:
    with pair.connect() as before, pair.connect() as during:
        assert before.get()[0] == 200
        during.request("/slow")
        pair.origin.wait(lambda: any(seen["target"] == b"/slow" for seen in pair.origin.seen))
        pair.clock.step(step)
        for client in (before, during):
            client.sock.settimeout(5)
        assert before.get()[0] == 200
        assert during.response()[0] == 200
        with pair.connect() as after:
            after.sock.settimeout(5)
            assert after.get()[0] == 200


@pytest.mark.parametrize("step", STEPS)
def test_a_step_during_every_part_of_a_turn_stops_nothing(pair: Stepped, step: float) -> None:
    """The clock is set again and again while requests are served."""
    with pair.connect() as client:
        client.sock.settimeout(5)
        for _ in range(100):
            client.request()
            pair.clock.step(step)
            assert client.response()[0] == 200
            client.request()
            pair.clock.step(-step)
            assert client.response()[0] == 200


@pytest.mark.parametrize("step", STEPS)
def test_time_outs_pass_in_their_time(pair: Stepped, step: float) -> None:
    with pair.connect() as client:
        client.send(b"GET / HT")
        began = time.monotonic()
        pair.clock.step(step)
        client.sock.settimeout(10)
        assert client.response()[0] == 408
        assert time.monotonic() - began > 0.9 * HEADER
    with pair.connect() as client:
        client.request("/silent")
        pair.origin.wait(lambda: any(seen["target"] == b"/silent" for seen in pair.origin.seen))
        pair.clock.step(step)
        client.sock.settimeout(10)
        assert client.response()[0] == 504


@pytest.mark.parametrize("step", STEPS)
def test_durations_in_the_log_are_those_that_passed(pair: Stepped, step: float) -> None:
    target = f"/slow-{step}"
    with pair.connect() as client:
        client.request(target)
        pair.origin.wait(lambda: any(seen["target"] == target.encode() for seen in pair.origin.seen))
        pair.clock.step(step)
        assert client.response()[0] == 200

    def logged() -> dict[str, float] | None:
        for line in pair.log.read_text().splitlines():
            record = json.loads(line)
            if target in line:
                return record
        return None

    record = eventually(logged)
    durations = {name: value for name, value in record.items() if name.endswith("duration")}
    assert durations
    assert all(0 <= float(value) < 30 for value in durations.values()), durations
