"""Every kept input keeps its promises, and so do some thousands made of them; `make fuzz` goes on for longer."""

from __future__ import annotations

import os
import random
import traceback

import pytest

from tests.fuzz.__main__ import how_to_replay
from tests.fuzz.corpus import keep, target, target_names
from tests.fuzz.mutation import fuzz

SECONDS = float(os.environ.get("FUZZ_TEST_SECONDS", "3"))
"""For each target."""
MOST = 3000


@pytest.mark.parametrize("name", target_names())
def test_what_is_kept_holds(name: str) -> None:
    chosen = target(name)
    seeds = chosen.seeds()
    assert seeds
    for file, data in seeds.items():
        try:
            chosen.run(data)
        except Exception as error:
            raise AssertionError(f"{file}: {how_to_replay(name, chosen.folder / file)}") from error


@pytest.mark.parametrize("name", target_names())
def test_what_is_made_of_it_holds(name: str) -> None:
    chosen = target(name)
    seed = random.randrange(2**32)
    count, found = fuzz(chosen.run, [*chosen.seeds().values()], chosen.words, SECONDS, seed, MOST)
    if found is not None:
        data, error = found
        text = "".join(traceback.format_exception(error))
        pytest.fail(f"{text}\nseed {seed}; {how_to_replay(name, keep(name, data))}")
    assert count
