"""Text from outside (modules, clients, origins) as it may go to a terminal or a log: nothing in it steers either.

What steers is written as in a Python literal (`\\x1b`, `\\u202e`): control characters (C0, DEL, C1), line and paragraph
separators, what reorders or hides text (bidirectional controls, joiners, tags), and surrogates, which have no encoding.
"""

from __future__ import annotations

from typing import Final

__all__ = ["printable", "printable_lines"]

_STEERS: Final = (
    *((0x00, 0x1F), (0x7F, 0x9F), (0xAD, 0xAD), (0x61C, 0x61C), (0x180E, 0x180E), (0x200B, 0x200F), (0x2028, 0x202E)),
    *((0x2060, 0x206F), (0xD800, 0xDFFF), (0xFEFF, 0xFEFF), (0xFFF9, 0xFFFB), (0xE0000, 0xE007F)),
)
"""First and last code points of ranges."""

_ESCAPES: Final = {
    code: chr(code).encode("unicode_escape").decode() for first, last in _STEERS for code in range(first, last + 1)
}
_ESCAPES_BUT_LINES: Final = {code: text for code, text in _ESCAPES.items() if chr(code) not in "\n\t"}


def printable(text: str) -> str:
    """Return a text that stays in its place in a line."""
    return text if text.isprintable() else text.translate(_ESCAPES)


def printable_lines(text: str) -> str:
    """Return a text in which line feeds and tabs stay, for what may have several lines."""
    return text if text.isprintable() else text.translate(_ESCAPES_BUT_LINES)
