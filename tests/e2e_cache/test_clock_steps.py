"""A real proxy on a machine whose clock is set, forwards and back, while it runs and while it does not."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.e2e_cache.support import Site, Stand, date, ok, serving

SET_CLOCK = '''
"""Adds the number in a file to the time of the day, as the cache and the transactions get it."""
import os, sys, time

_real, _path = time.time, os.environ["CLOCK_FILE"]

def _stepped():
    if not sys._getframe(1).f_globals.get("__name__", "").startswith("twisted_wasmproxy."):
        return _real()
    with open(_path) as file:
        return _real() + float(file.read())

time.time = _stepped
'''

MEMORY = {"memory": "16MiB"}
DISK = {"memory": 0, "disk": {"path": "store", "size": "64MiB"}}
BOTH = {"memory": "16MiB", "disk": {"path": "store", "size": "64MiB"}}


class Machine:
    """Sets the clock of the proxies that are started with its `environment`."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        (folder / "sitecustomize.py").write_text(SET_CLOCK)
        path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
        self.environment: Mapping[str, str] = {**os.environ, "PYTHONPATH": path, "CLOCK_FILE": str(self._file)}
        self.step(0)

    def step(self, seconds: float) -> None:
        """Set the clock so many seconds off from the right time."""
        self.off = seconds
        other = self._file.with_suffix(".new")
        other.write_text(str(seconds))
        other.replace(self._file)

    def date(self, seconds: float = 0) -> str:
        return "Date: " + date(self.off + seconds)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine(tmp_path_factory.mktemp("machine"))


@pytest.fixture(scope="module", params=[MEMORY, DISK, BOTH], ids=["memory", "disk", "both"])
def stand(
    request: pytest.FixtureRequest, machine: Machine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stand]:
    with serving(tmp_path_factory.mktemp("clock"), request.param, environment=machine.environment) as running:
        yield running


@pytest.fixture(autouse=True)
def right_at_last(machine: Machine) -> Iterator[None]:
    yield
    machine.step(0)


STEPS = [3600, -3600, 86400 * 400, -86400 * 400]


@pytest.mark.parametrize("step", STEPS)
def test_what_is_fresh_stays_so(site: Site, machine: Machine, step: float) -> None:
    site.answer(ok(b"x", "Cache-Control: max-age=1000"))
    site.get()
    for off in (step, 0, -step, step):
        machine.step(off)
        reply = site.get()
        assert (reply.hit, site.count) == (True, 1)
        assert reply.age in range(60)


@pytest.mark.parametrize("step", STEPS)
def test_what_is_stale_does_not_come_back(site: Site, machine: Machine, step: float) -> None:
    stale = "Cache-Control: max-age=1000", "Age: 1000"
    site.answer(ok(b"one", *stale, "ETag: one"), ok(b"two", *stale), ok(b"three", *stale))
    assert [site.get().body, site.get().body] == [b"one", b"two"]
    machine.step(step)
    assert site.get().body == b"three"


@pytest.mark.parametrize("step", STEPS)
def test_what_comes_after_a_step_is_new(site: Site, machine: Machine, step: float) -> None:
    machine.step(step)
    site.answer(lambda arrival: ok(b"x", "Cache-Control: max-age=1000", machine.date()))
    site.get()
    reply = site.get()
    assert reply.hit
    assert reply.age in range(60)


@pytest.mark.parametrize("step", STEPS)
def test_what_was_old_after_a_step_is_old(site: Site, machine: Machine, step: float) -> None:
    machine.step(step)
    site.answer(lambda arrival: ok(b"x", "Cache-Control: max-age=1000", machine.date(-1000)))
    site.get()
    assert not site.get().hit


@pytest.mark.parametrize("cache", [DISK, BOTH], ids=["disk", "both"])
@pytest.mark.parametrize(
    ("before", "after", "fresh"),
    [
        (0, 0, True),
        (0, 3600, False),
        (0, -3600, False),
        (3600, 3600, True),
        (-3600, -3600, True),
        (-3600, 0, False),
        (3600, 0, False),
    ],
)
def test_after_a_restart(tmp_path: Path, cache: dict[str, Any], before: float, after: float, fresh: bool) -> None:
    """A clock set `before` something is stored, and `after` the proxy has stopped."""
    machine = Machine(tmp_path)
    folder = tmp_path / "proxy"
    folder.mkdir()
    answer = lambda arrival: ok(b"x", "Cache-Control: max-age=1000", machine.date())  # noqa: E731  # twice the same
    with serving(folder, cache, environment=machine.environment) as stand:
        site = stand.site()
        site.answer(answer)
        machine.step(before)
        site.get()
        assert site.get().hit
    machine.step(after)
    with serving(folder, cache, environment=machine.environment, port=stand.proxy.port) as again:
        other = again.sites[site.path] = Site(again, site.path)
        other.answer(answer)
        first, second = other.get(), other.get()
    assert second.hit
    assert first.hit == fresh
