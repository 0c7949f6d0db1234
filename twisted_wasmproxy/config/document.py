"""YAML text to a node tree in which every node knows its line, and whose expansion is bounded."""

from __future__ import annotations

import re
from pathlib import Path

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from twisted_wasmproxy.config.errors import Problem
from twisted_wasmproxy.config.model import Location

__all__ = ["MAX_DEPTH", "MAX_NODES", "MAX_SIZE", "DocumentError", "compose", "line_of", "pairs", "read"]

MAX_SIZE = 4 * 1024 * 1024
"""Bytes of one file."""
MAX_NODES = 100_000
"""Nodes of one file with every alias replaced by what it stands for."""
MAX_DEPTH = 100

_MERGE = "tag:yaml.org,2002:merge"
_TAGS = frozenset(
    f"tag:yaml.org,2002:{name}"
    for name in ("null", "bool", "int", "float", "timestamp", "str", "seq", "map", "merge", "value")
)


_SURROGATE = re.compile("[\ud800-\udfff]")


class DocumentError(Exception):
    """The file has no usable node tree."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = problems


def read(path: Path) -> bytes:
    """Return the contents of a file. Raises DocumentError."""

    def refuse(text: str) -> DocumentError:
        return DocumentError([Problem(Location(str(path), 0, ""), text)])

    try:
        if path.is_dir():
            raise refuse("is a directory, not a file")
        with path.open("rb") as file:
            data = file.read(MAX_SIZE + 1)
    except FileNotFoundError:
        raise refuse("no such file") from None
    except (OSError, ValueError) as error:
        raise refuse(f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(data) > MAX_SIZE:
        raise refuse(f"is larger than {MAX_SIZE // 1024 // 1024} MiB")
    return data


def compose(data: bytes, name: str) -> tuple[Node, list[Problem]]:
    """Return the root node of the one document in `data`, and what is wrong with it but does not hinder reading.

    That is a duplicate key, an unknown tag, half a surrogate pair. `name` is the file's name in messages. Aliases and
    merge keys (`<<`) are allowed, within bounds. Raises DocumentError: not UTF-8, a syntax error, no document or
    several, a recursive or exploding alias, a key that is not text.
    """

    def refuse(line: int, text: str) -> DocumentError:
        return DocumentError([Problem(Location(name, line, ""), text)])

    try:
        text = data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise refuse(data.count(b"\n", 0, error.start) + 1, "is not UTF-8 text") from None
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise refuse(line, f"YAML allows no character U+{ord(text[error.position]):04X}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = ": ".join(part for part in (error.context, error.problem) if part)
        raise refuse(mark.line + 1 if mark else 0, f"is not valid YAML: {reason}") from None
    except RecursionError:
        raise refuse(0, f"is nested deeper than {MAX_DEPTH} levels") from None
    except (ValueError, OverflowError) as error:  # PyYAML passes on what int() and chr() say of an escape
        raise refuse(0, f"is not valid YAML: {error}") from None
    if root is None:
        raise refuse(0, "is empty")
    examination = _Examination(name)
    examination.walk(root, "", 1)
    if examination.fatal:
        raise DocumentError(examination.fatal + examination.problems)
    return root, examination.problems


def line_of(node: Node) -> int:
    return node.start_mark.line + 1


def pairs(node: MappingNode) -> list[tuple[Node, Node]]:
    """Return the entries of a mapping with its merge keys resolved: own keys first, then those merged in."""
    own = [(key, value) for key, value in node.value if key.tag != _MERGE]
    seen = {key.value for key, _ in own if isinstance(key, ScalarNode)}
    merged = []
    for key, value in node.value:
        if key.tag != _MERGE:
            continue
        for source in value.value if isinstance(value, SequenceNode) else [value]:
            for inherited in pairs(source):
                if inherited[0].value not in seen:
                    seen.add(inherited[0].value)
                    merged.append(inherited)
    return own + merged


class _Examination:
    """One walk over a node tree, each node once however many aliases point to it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.fatal: list[Problem] = []
        """What makes the tree unfit for reading."""
        self.problems: list[Problem] = []
        self.sizes: dict[Node, int] = {}
        """Expanded size of each finished node; 0 while it is being walked."""

    def walk(self, node: Node, key: str, depth: int) -> int:
        known = self.sizes.get(node)
        if known is not None:
            if known == 0:
                self.fatal.append(self.problem(node, key, "an alias refers to a node that contains it"))
            return known
        self.sizes[node] = 0
        if node.tag not in _TAGS:
            self.problems.append(self.problem(node, key, f"unknown YAML tag {node.tag}"))
        size = 1
        if depth > MAX_DEPTH:
            self.fatal.append(self.problem(node, key, f"is nested deeper than {MAX_DEPTH} levels"))
        elif isinstance(node, ScalarNode):
            self.join_surrogates(node, key)
        elif isinstance(node, SequenceNode):
            for index, item in enumerate(node.value):
                size += self.walk(item, f"{key}[{index}]", depth + 1)
        elif isinstance(node, MappingNode):
            size += self.walk_mapping(node, key, depth)
        if size > MAX_NODES:
            self.fatal.append(self.problem(node, key, f"expands to more than {MAX_NODES} values"))
            size = 1  # said once, not again by every parent
        self.sizes[node] = size
        return size

    def walk_mapping(self, node: MappingNode, key: str, depth: int) -> int:
        size = 0
        lines: dict[str, int] = {}
        for name, value in node.value:
            if not isinstance(name, ScalarNode):
                self.fatal.append(self.problem(name, key, "a key must be plain text"))
                continue
            self.join_surrogates(name, key)
            child = f"{key}.{name.value}" if key else str(name.value)
            if name.tag == _MERGE:
                sources = value.value if isinstance(value, SequenceNode) else [value]
                if not all(isinstance(source, MappingNode) for source in sources):
                    self.fatal.append(self.problem(value, child, "only mappings can be merged"))
            elif name.value in lines:
                text = f"duplicate key, first given in line {lines[name.value]}"
                self.problems.append(self.problem(name, child, text))
            lines.setdefault(name.value, line_of(name))
            size += self.walk(value, child, depth + 1) + 1
        return size

    def join_surrogates(self, node: ScalarNode, key: str) -> None:
        """Make characters of pairs like `\\ud83d\\ude00`, which JSON writes and PyYAML leaves as they are."""
        if not _SURROGATE.search(node.value):
            return
        try:
            node.value = node.value.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            self.problems.append(self.problem(node, key, "has half of a surrogate pair"))
            node.value = _SURROGATE.sub("\ufffd", node.value)

    def problem(self, node: Node, key: str, text: str) -> Problem:
        return Problem(Location(self.name, line_of(node), key), text)
