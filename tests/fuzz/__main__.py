"""Fuzz each target for a while, guided by coverage where atheris is installed (the extra `fuzz`).

An input that fails is written to the corpus of its target, with the command that plays it again. What atheris finds
interesting is kept in `.fuzz/`, from where the next run goes on.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import traceback
from importlib.util import find_spec
from pathlib import Path

from tests.fuzz.corpus import CORPUS, Target, keep, target, target_names
from tests.fuzz.mutation import MAX_LENGTH, fuzz

GROWN = Path(__file__).parents[2] / ".fuzz"
_SLOW = 10
"""Seconds that one input may take."""
_MEMORY = 1024
"""MiB that the fuzzer's process may take."""


def main() -> int:
    names = target_names()
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="target", help=f"{', '.join(names)}; all if none is given")
    parser.add_argument("--seconds", type=int, default=60, help="for each target (%(default)s)")
    parser.add_argument("--seed", type=int, help="of the fuzzer without atheris")
    parser.add_argument("--replay", metavar="FILE", type=Path, nargs="+", help="play inputs of one target instead")
    parser.add_argument("--guided", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    for name in asked.targets:
        if name not in names:
            parser.error(f"there is no target {name}; there are {', '.join(names)}")
    if asked.replay or asked.guided:
        if len(asked.targets) != 1:
            parser.error("say which one target")
        if asked.replay:
            return _replay(target(asked.targets[0]), asked.replay)
        _guided(asked.targets[0], asked.seconds)
    by_coverage = find_spec("atheris") is not None
    print(
        "fuzzing", "guided by coverage (atheris)" if by_coverage else "at random: atheris is not installed", flush=True
    )
    failed = []
    for name in asked.targets or names:
        print(f"== {name}", flush=True)
        if by_coverage:
            command = [sys.executable, "-m", "tests.fuzz", name, "--guided", "--seconds", str(asked.seconds)]
            status = subprocess.run(command, cwd=Path(__file__).parents[2], check=False).returncode
            found = status != 0
        else:
            found = _at_random(target(name), asked.seconds, asked.seed)
        if found:
            failed.append(name)
    if failed:
        print(f"faults found in: {', '.join(failed)}; the inputs are {CORPUS}/*/crash-* (see git status)")
    return 1 if failed else 0


def _replay(chosen: Target, files: list[Path]) -> int:
    failed = False
    for path in files:
        try:
            chosen.run(path.read_bytes())
        except BaseException:
            traceback.print_exc()
            failed = True
    return 1 if failed else 0


def _at_random(chosen: Target, seconds: float, seed: int | None) -> bool:
    seed = random.randrange(2**32) if seed is None else seed
    count, found = fuzz(chosen.run, [*chosen.seeds().values()], chosen.words, seconds, seed, sys.maxsize)
    print(f"{count} inputs from seed {seed}", flush=True)
    if found is None:
        return False
    data, error = found
    traceback.print_exception(error)
    print(how_to_replay(chosen.name, keep(chosen.name, data)), flush=True)
    return True


def how_to_replay(name: str, path: Path) -> str:
    """Return what to type to play an input again."""
    return f"the input is kept; play it by: {sys.executable} -m tests.fuzz {name} --replay {path}"


def _guided(name: str, seconds: int) -> None:
    """Hand this process over to atheris, which ends it."""
    import atheris

    with atheris.instrument_imports(include=["twisted_wasmproxy", "http_sf"]):
        chosen = target(name)

    def run(data: bytes) -> None:
        try:
            chosen.run(data)
        except BaseException:
            print(how_to_replay(name, keep(name, data)), flush=True)
            raise

    grown = GROWN / name
    grown.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", suffix=".dict") as words:
        for word in chosen.words:
            if len(word) <= 64:
                words.write('"' + "".join(f"\\x{octet:02x}" for octet in word) + '"\n')
        words.flush()
        options = [
            f"-max_total_time={seconds}",
            f"-max_len={MAX_LENGTH}",
            f"-timeout={_SLOW}",
            f"-rss_limit_mb={_MEMORY}",
            f"-artifact_prefix={chosen.folder}/",
            f"-dict={words.name}",
            "-verbosity=0",
            "-print_final_stats=1",
        ]
        atheris.Setup([sys.argv[0], *options, str(grown), str(chosen.folder)], run)
        atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
