"""Matching what a module imports with what the host offers, by name and exact type."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from twisted_wasmproxy.runtimes.interface import FunctionType, HostFunction, Import, LinkError

__all__ = ["NUMBERS", "match_imports"]

NUMBERS = frozenset({"i32", "i64", "f32", "f64"})
"""The value types that cross between host and guest."""


def match_imports(
    wanted: Iterable[Import], offered: Mapping[tuple[str, str], tuple[FunctionType, HostFunction]]
) -> list[tuple[FunctionType, HostFunction]]:
    """Return the host's function for each import, in the module's order. Raises LinkError that lists every misfit."""
    found = []
    problems = []
    for item in wanted:
        label = f"{item.module}.{item.name}"
        offer = offered.get((item.module, item.name))
        if item.type is None:
            problems.append(f"{label}: a {item.kind} is imported, and the host offers functions only")
        elif offer is None:
            problems.append(f"{label} {item.type}: there is no such function")
        elif offer[0] != item.type:
            problems.append(f"{label}: the module wants {item.type}, the host's is {offer[0]}")
        elif len(item.type.results) > 1 or not NUMBERS.issuperset(item.type.params + item.type.results):
            problems.append(f"{label} {item.type}: the host cannot be called with this type")
        else:
            found.append(offer)
    if problems:
        raise LinkError("cannot link: " + "; ".join(problems))
    return found
