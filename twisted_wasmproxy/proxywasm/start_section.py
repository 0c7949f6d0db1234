"""Turns the start function of a module into an export.

A start section runs while the module is being instantiated, when no host function can reach its memory yet: a guest
that logs from there would be lost. Exported, the same function is called as the first thing after.
"""

from __future__ import annotations

__all__ = ["EXPORT", "export_start"]

EXPORT = "wasmproxy: start"
"""The name under which the function is exported; no compiler gives such a one."""

_HEADER_SIZE = 8
_START, _EXPORT = 8, 7
_BEFORE_EXPORT = frozenset({1, 2, 3, 4, 5, 6, 13})
"""Ids of the sections that come before the exports."""


def export_start(wasm: bytes, function: int) -> bytes:
    """Return the module (a well-formed one) without its start section, and with the function exported as `EXPORT`."""
    name = EXPORT.encode()
    entry = _number(len(name)) + name + b"\0" + _number(function)
    sections: list[tuple[int, bytes]] = []
    position = _HEADER_SIZE
    while position < len(wasm):
        section = wasm[position]
        size, start = _read_number(wasm, position + 1)
        position = start + size
        if section != _START:
            sections.append((section, wasm[start:position]))
    for place, (section, body) in enumerate(sections):
        if section == _EXPORT:
            count, start = _read_number(body, 0)
            sections[place] = (_EXPORT, _number(count + 1) + body[start:] + entry)
            break
    else:
        before = [place for place, (section, _) in enumerate(sections) if section in _BEFORE_EXPORT]
        sections.insert(max(before, default=-1) + 1, (_EXPORT, _number(1) + entry))
    return wasm[:_HEADER_SIZE] + b"".join(bytes([section]) + _number(len(body)) + body for section, body in sections)


def _number(value: int) -> bytes:
    """Return a number in unsigned LEB128."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _read_number(data: bytes, position: int) -> tuple[int, int]:
    """Return a number in unsigned LEB128 and the position after it."""
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, position
