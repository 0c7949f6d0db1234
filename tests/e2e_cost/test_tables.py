"""The tables of fields have every name that the sources have."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import twisted_wasmproxy
from tests.e2e_cost.fields import NOT_FIELDS, REQUEST_FIELDS, RESPONSE_FIELDS

SOURCES = Path(twisted_wasmproxy.__file__).parent
_WORD = re.compile(rb"[A-Za-z][A-Za-z0-9]*(?:-[A-Za-z0-9]+)*")
_METHOD = re.compile(rb"[A-Z]+")
_FIELDS_LIKE_METHODS = (b"TE",)
# Formats of files and of other worlds; dates; and the paths of attributes, which are keys of tables.
_ELSEWHERE = ("cache/stores/", "cache/dates.py", "runtimes/", "cli/", "proxywasm/properties.py")


def words() -> Iterator[tuple[str, str]]:
    """Yield what is written as a field name in the sources, in lower case, with its place."""
    for path in sorted(SOURCES.rglob("*.py")):
        place = str(path.relative_to(SOURCES))
        if place.startswith(_ELSEWHERE):
            continue
        tree = ast.parse(path.read_text())
        keys = {
            id(key) for node in ast.walk(tree) if isinstance(node, ast.Dict) for key in node.keys if key is not None
        }
        for node in ast.walk(tree):
            if not isinstance(node, ast.Constant) or not isinstance(node.value, bytes) or len(node.value) < 2:
                continue
            if _METHOD.fullmatch(node.value) and node.value not in _FIELDS_LIKE_METHODS:
                continue
            if _WORD.fullmatch(node.value) and not (id(node) in keys and place == "transaction/attributes.py"):
                yield node.value.decode().lower(), f"{place}:{node.lineno}"


def test_every_field_that_the_code_looks_at_is_measured():
    known = {name.lower() for name in (*REQUEST_FIELDS, *RESPONSE_FIELDS)} | NOT_FIELDS
    missing = {f"{word} ({place})" for word, place in words() if word not in known}
    assert not missing, "put these into one of the tables of tests/e2e_cost/fields.py"
