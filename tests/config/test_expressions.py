"""Regular expressions: read as Python's, served without backtracking where that is possible."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.config.support import MINIMAL, loaded
from twisted_wasmproxy.config.expressions import compile_expression


@pytest.mark.parametrize("pattern", [rb"(a+)+$", rb"(a|aa)+$", rb"(.*)*x", rb"(?i)/(?:\w+\.?)+@", rb"(a?){25}a{25}$"])
def test_no_expression_that_re2_serves_backtracks(pattern: bytes) -> None:
    expression, reason = compile_expression(pattern)
    assert not reason
    costs = []
    for length in (1_000, 16_000):
        text = b"/" * pattern.startswith(rb"(?i)/") + b"a" * length + b"!"
        assert expression.match(text) is None
        began = time.process_time()
        for _ in range(20):
            expression.match(text)
        costs.append(time.process_time() - began)
    # Linear is 16; a backtracking engine would not come back from either.
    assert costs[1] < 400 * max(costs[0], 0.0005)


@pytest.mark.parametrize(
    "pattern",
    [
        rb"(?=a)a",
        rb"(a)\1",
        rb"a\Z",
        rb"(?<!b)a",
        rb"(?P<n>a)(?P=n)",
        rb"a{1001}",
        rb"(?x)a b",
        rb"a{,2}",
        rb"[[:alpha:]]",
    ],
)
def test_what_re2_does_not_read_as_python_does_is_left_to_python(pattern: bytes) -> None:
    expression, reason = compile_expression(pattern)
    assert reason
    assert isinstance(expression, re.Pattern)


@pytest.mark.parametrize("pattern", [b"(", b"a**", b"[b-a]", rb"\pN", rb"\Qa\E", b"a{99999999999999999999}"])
def test_what_python_does_not_take_is_no_expression(pattern: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        compile_expression(pattern)


ATOMS = st.sampled_from(
    [
        b"a",
        b"b",
        b"/",
        b".",
        rb"\d",
        rb"\w",
        rb"\.",
        b"[ab]",
        b"[^a/]",
        b"(?:ab)",
        b"(a|b)",
        b"(b*)",
        b"^",
        b"$",
        rb"\b",
        rb"\x61",
    ]
)
PATTERNS = st.lists(st.tuples(ATOMS, st.sampled_from([b"", b"", b"?", b"+?", b"{1,2}", b"*"])), max_size=6)


@settings(deadline=None)
@given(parts=PATTERNS, text=st.text("ab/1.", max_size=12))
def test_both_engines_find_the_same(parts: list[tuple[bytes, bytes]], text: str) -> None:
    pattern = b"".join(atom + (repeat if atom not in (b"^", b"$", rb"\b", b"(b*)") else b"") for atom, repeat in parts)
    expression, reason = compile_expression(pattern)
    assert not reason
    found, wanted = expression.match(text.encode()), re.match(pattern, text.encode())
    assert (found is None) == (wanted is None)
    if found is not None and wanted is not None:
        assert found.end() == wanted.end()
        assert [found.group(n) for n in range(expression.groups + 1)] == [wanted.group(0), *wanted.groups()]


def test_the_loader_warns_of_an_expression_that_may_take_for_ever(tmp_path: Path) -> None:
    assert loaded(tmp_path, MINIMAL + "  - {match: {regex: '/(a+)+$'}, respond: 200}\n").warnings == ()
    (warning,) = loaded(tmp_path, MINIMAL + "  - {match: {regex: '/(?!x)(a+)+$'}, respond: 200}\n").warnings
    assert ": remap[1].match.regex: is matched by Python's re, which for some requests may take very long" in warning
    assert "(?!" in warning
