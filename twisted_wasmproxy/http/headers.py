"""`Headers`: an ordered multimap of HTTP field lines (RFC 9110 section 5)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

__all__ = ["Headers"]


class Headers:
    """Field lines in the order they came; names compare without case and keep the spelling they came with.

    Names and values are bytes as on the wire, without surrounding white space. Nothing is validated here:
    parsers and serialisers do that.
    """

    __slots__ = ("lines",)

    lines: list[tuple[bytes, bytes, bytes]]
    """`(lower-case name, name as spelled, value)`, for code on the hot path; treat as private elsewhere."""

    def __init__(self, items: Iterable[tuple[bytes, bytes]] = ()) -> None:
        self.lines = [(name.lower(), name, value) for name, value in items]

    def get(self, name: bytes) -> bytes | None:
        """Return the first value of `name`, or None."""
        name = name.lower()
        for key, _, value in self.lines:
            if key == name:
                return value
        return None

    def get_all(self, name: bytes) -> list[bytes]:
        """Return every value of `name`, in order."""
        name = name.lower()
        return [value for key, _, value in self.lines if key == name]

    def add(self, name: bytes, value: bytes) -> None:
        """Append one line."""
        self.lines.append((name.lower(), name, value))

    def set(self, name: bytes, value: bytes) -> None:
        """Give `name` this one value: the first line changes in place, further ones go, a missing one is added."""
        lower = name.lower()
        lines = self.lines
        found = [i for i, line in enumerate(lines) if line[0] == lower]
        if not found:
            lines.append((lower, name, value))
            return
        lines[found[0]] = (lower, lines[found[0]][1], value)
        for i in reversed(found[1:]):
            del lines[i]

    def remove(self, name: bytes) -> bool:
        """Drop every line of `name`; return whether there was one."""
        name = name.lower()
        kept = [line for line in self.lines if line[0] != name]
        found = len(kept) != len(self.lines)
        self.lines = kept
        return found

    def replace_all(self, items: Iterable[tuple[bytes, bytes]]) -> None:
        """Drop everything and take `items` instead."""
        self.lines = [(name.lower(), name, value) for name, value in items]

    def copy(self) -> Headers:
        """Return an independent copy."""
        new = Headers.__new__(Headers)
        new.lines = self.lines.copy()
        return new

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, bytes):
            return False
        name = name.lower()
        for line in self.lines:  # noqa: SIM110  # a generator would cost several times as much
            if line[0] == name:
                return True
        return False

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        return iter([(name, value) for _, name, value in self.lines])

    def __len__(self) -> int:
        return len(self.lines)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Headers):
            return NotImplemented
        return [(k, v) for k, _, v in self.lines] == [(k, v) for k, _, v in other.lines]

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Headers({list(self)!r})"
