"""Fuzzers of all that reads bytes from outside: `python -m tests.fuzz --help`, `make fuzz`.

Each module in `targets` has a function `run(data: bytes) -> None` that raises where a promise is broken, and `WORDS`,
what is worth inserting. The files in `corpus/<target>` are inputs to begin with, and every one that has ever found a
fault: they are played by `test_fuzz.py` on each run of the tests.
"""
