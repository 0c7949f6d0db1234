"""From nodes to values: small parsers and the combinators that make a schema of them.

A parser is called with a `Place` and returns a value; where the node is wrong it notes a problem and raises
`Rejected`. `Record`, `ListOf` and `MapOf` read every part before they give up, so that one run finds every
problem. They are objects, not closures, so that a schema can be walked (`keys_of`).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, NoReturn, TypeVar

from yaml.nodes import MappingNode, Node, SequenceNode

from twisted_wasmproxy.config import document
from twisted_wasmproxy.config.errors import Problem
from twisted_wasmproxy.config.model import Location

__all__ = [
    "Either",
    "Key",
    "ListOf",
    "MapOf",
    "Parser",
    "Place",
    "Record",
    "Rejected",
    "Report",
    "Then",
    "describe",
    "keys_of",
]

T = TypeVar("T")
U = TypeVar("U")


class Rejected(Exception):
    """The value at a place cannot be used; its problems are in the report."""


@dataclass
class Report:
    """What is found while reading, in all files."""

    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)


@dataclass(frozen=True)
class Place:
    """A node, where it stands and where to report about it."""

    node: Node
    key: str
    file: Path
    report: Report
    line: int

    @classmethod
    def root(cls, node: Node, file: Path, report: Report) -> Place:
        return cls(node, "", file, report, document.line_of(node))

    def item(self, index: int, node: Node) -> Place:
        return Place(node, f"{self.key}[{index}]", self.file, self.report, document.line_of(node))

    def entry(self, name: Node, node: Node) -> Place:
        """The value of a key; it is reported at the line of the key."""
        key = f"{self.key}.{name.value}" if self.key else str(name.value)
        return Place(node, key, self.file, self.report, document.line_of(name))

    def at(self, name: str) -> Place:
        """The place of one of the keys of this mapping; this place where it is not there."""
        assert isinstance(self.node, MappingNode)
        return next((self.entry(key, value) for key, value in document.pairs(self.node) if key.value == name), self)

    @property
    def location(self) -> Location:
        return Location(str(self.file), self.line, self.key)

    def problem(self, text: str) -> None:
        self.report.problems.append(Problem(self.location, text))

    def warn(self, text: str) -> None:
        self.report.warnings.append(Problem(self.location, text))

    def reject(self, text: str) -> NoReturn:
        self.problem(text)
        raise Rejected

    def expected(self, what: str) -> NoReturn:
        """Reject a node of the wrong kind."""
        self.reject(f"must be {what}, not {describe(self.node)}")


def describe(node: Node) -> str:
    """Name what a node is, for messages."""
    if isinstance(node, MappingNode):
        return "a mapping"
    if isinstance(node, SequenceNode):
        return "a list"
    if node.tag.endswith(":null") and node.value == "":
        return "empty"
    text = str(node.value)
    return repr(text if len(text) <= 60 else f"{text[:57]}...")


Parser = Callable[[Place], T]


@dataclass(frozen=True)
class Key:
    """One key of a `Record`."""

    parse: Parser[Any]
    attribute: str = ""
    """Name of the value in the result, where it is not the key's."""
    aliases: tuple[str, ...] = ()
    required: bool = False


class Record:
    """A mapping with known keys; the result has the values that were given, by attribute."""

    def __init__(
        self, keys: Mapping[str, Key], *, refused: Mapping[str, str] | None = None, tolerant: bool = False
    ) -> None:
        """`refused` says why a key is not taken; `tolerant` warns of unknown keys instead of refusing them."""
        self.keys = keys
        self.refused = refused or {}
        self.tolerant = tolerant
        self.names = {spelling: name for name, key in keys.items() for spelling in (name, *key.aliases)}

    def __call__(self, place: Place) -> dict[str, Any]:
        if not isinstance(place.node, MappingNode):
            place.expected("a mapping")
        values: dict[str, Any] = {}
        complete = True
        given: dict[str, str] = {}
        for name_node, value_node in document.pairs(place.node):
            spelling = name_node.value
            entry = place.entry(name_node, value_node)
            name = self.names.get(spelling)
            if name is None:
                complete &= self.unknown(entry, spelling)
                continue
            if name in given:
                entry.problem(f"is another spelling of {given[name]!r}, which is there too")
                complete = False
                continue
            given[name] = spelling
            key = self.keys[name]
            try:
                values[key.attribute or name] = key.parse(entry)
            except Rejected:
                complete = False
        for name, key in self.keys.items():
            if key.required and name not in given:
                place.problem(f"{name!r} is missing")
                complete = False
        if not complete:
            raise Rejected
        return values

    def unknown(self, entry: Place, spelling: str) -> bool:
        """Report a key that is not in the schema; return whether reading may go on as if it were not there."""
        if spelling in self.refused:
            entry.problem(self.refused[spelling])
            return False
        close = difflib.get_close_matches(spelling, self.names, 1)
        if close:
            text = f"unknown key; did you mean {close[0]!r}?"
        else:
            text = f"unknown key; known here: {', '.join(self.keys)}"
        if self.tolerant:
            entry.warn(text)
            return True
        entry.problem(text)
        return False


class ListOf(Generic[T]):
    """A list, each item read by `item`."""

    def __init__(self, item: Parser[T], *, empty: bool = True) -> None:
        self.item = item
        self.empty = empty

    def __call__(self, place: Place) -> tuple[T, ...]:
        if not isinstance(place.node, SequenceNode):
            place.expected("a list")
        if not place.node.value and not self.empty:
            place.reject("must not be empty")
        values = []
        complete = True
        for index, node in enumerate(place.node.value):
            try:
                values.append(self.item(place.item(index, node)))
            except Rejected:
                complete = False
        if not complete:
            raise Rejected
        return tuple(values)


class MapOf(Generic[T]):
    """A mapping whose keys are the user's own; the result has (key, value) pairs in order."""

    def __init__(self, value: Parser[T]) -> None:
        self.value = value

    def __call__(self, place: Place) -> tuple[tuple[str, T], ...]:
        if not isinstance(place.node, MappingNode):
            place.expected("a mapping")
        values = []
        complete = True
        for name, node in document.pairs(place.node):
            try:
                values.append((str(name.value), self.value(place.entry(name, node))))
            except Rejected:
                complete = False
        if not complete:
            raise Rejected
        return tuple(values)


class Then(Generic[T, U]):
    """What `parser` read, converted or checked further by `convert`, which may reject."""

    def __init__(self, parser: Parser[T], convert: Callable[[T, Place], U]) -> None:
        self.parser = parser
        self.convert = convert

    def __call__(self, place: Place) -> U:
        return self.convert(self.parser(place), place)


class Either(Generic[T, U]):
    """A short form for one kind of node, a long form for everything else."""

    def __init__(self, kind: type[Node], short: Parser[T], long: Parser[U]) -> None:
        self.kind = kind
        self.short = short
        self.long = long

    def __call__(self, place: Place) -> T | U:
        return self.short(place) if isinstance(place.node, self.kind) else self.long(place)


class OneOf(Generic[T]):
    """A mapping that has one of several forms; the first form whose telling key is there reads it."""

    def __init__(self, forms: Mapping[str, Parser[T]], otherwise: Parser[T]) -> None:
        self.forms = forms
        self.otherwise = otherwise

    def __call__(self, place: Place) -> T:
        if not isinstance(place.node, MappingNode):
            *names, last = map(repr, self.forms)
            place.expected(f"a mapping with {', '.join(names)} or {last}")
        keys = {name.value for name, _ in document.pairs(place.node)}
        form = next((form for key, form in self.forms.items() if key in keys), self.otherwise)
        return form(place)


def keys_of(parser: object, prefix: str = "") -> Iterator[str]:
    """Yield every key of a schema as a dotted path; `[]` stands for an item of a list, `*` for a name of the user's."""
    if isinstance(parser, Record):
        for name, key in parser.keys.items():
            path = f"{prefix}.{name}" if prefix else name
            yield path
            yield from keys_of(key.parse, path)
    elif isinstance(parser, ListOf):
        yield from keys_of(parser.item, f"{prefix}[]")
    elif isinstance(parser, MapOf):
        yield from keys_of(parser.value, f"{prefix}.*")
    elif isinstance(parser, Then):
        yield from keys_of(parser.parser, prefix)
    elif isinstance(parser, OneOf):
        for form in parser.forms.values():
            yield from keys_of(form, prefix)
    elif isinstance(parser, Either):
        yield from keys_of(parser.short, prefix)
        yield from keys_of(parser.long, prefix)
