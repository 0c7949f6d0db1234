"""Regular expressions of operators, matched against what clients send: by RE2, whose time grows with the text only."""

from __future__ import annotations

import re
import warnings
from typing import Any, Protocol

import re2

__all__ = ["Expression", "Found", "compile_expression", "without_groups"]


class Found(Protocol):
    """A match; the part of `re.Match[bytes]` that is used."""

    def group(self, number: int, /) -> bytes | Any: ...

    def end(self) -> int: ...


class Expression(Protocol):
    """A compiled expression; the part of `re.Pattern[bytes]` that is used."""

    @property
    def pattern(self) -> bytes: ...

    @property
    def groups(self) -> int: ...

    def match(self, text: bytes, /) -> Found | None: ...


_READ_DIFFERENTLY = re.compile(rb"\{,\d|\[:")
"""What both engines take and do not read alike: `{,3}` is a repetition to Python only, `[[:alpha:]]` a class to RE2."""


def compile_expression(pattern: bytes) -> tuple[Expression, str]:
    """Return an expression in the syntax of Python's `re`, and why RE2 cannot serve it; empty where it does.

    Without RE2 it is matched by `re`, which may take time without bound for some texts. Raises ValueError for what is
    no regular expression.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            plain = re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(str(error)) from None
    if _READ_DIFFERENTLY.search(pattern):
        return plain, "RE2 reads a part of it differently"
    try:
        compiled: Expression = re2.compile(pattern, _options())
    except re2.error as error:
        reason = error.args[0]
        return plain, reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
    return (compiled, "") if compiled.groups == plain.groups else (plain, "RE2 counts its groups differently")


def without_groups(expression: Expression) -> Expression:
    """Return an expression that matches the same and tells no groups: RE2 finds groups many times as slowly."""
    if isinstance(expression, re.Pattern) or not expression.groups:
        return expression
    options = _options()
    options.never_capture = True
    compiled: Expression = re2.compile(expression.pattern, options)
    return compiled


def _options() -> re2.Options:
    options = re2.Options()
    options.log_errors = False
    return options
