"""`ConfigurationError`: everything that is wrong with a configuration, at once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from twisted_wasmproxy.config.model import Location
from twisted_wasmproxy.printable import printable_lines

__all__ = ["ConfigurationError", "Problem"]


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, and where."""

    location: Location
    text: str

    def __str__(self) -> str:
        return printable_lines(f"{self.location}: {self.text}")


class ConfigurationError(Exception):
    """The configuration cannot be used. `problems` has every reason, in the order of the file."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        ordered = sorted(dict.fromkeys(problems), key=lambda problem: (problem.location.file, problem.location.line))
        super().__init__("\n".join(map(str, ordered)))
        self.problems: tuple[Problem, ...] = tuple(ordered)
