"""`Body`: the bytes that one filter is shown or holds back, with the slice rules of Proxy-Wasm buffers."""

from __future__ import annotations

from zope.interface import implementer

from twisted_wasmproxy.interfaces import IBody

__all__ = ["Body"]


@implementer(IBody)
class Body:
    """Held bytes. One chunk that is only looked at is never copied."""

    __slots__ = ("_data", "modified")

    def __init__(self) -> None:
        self._data: bytes | bytearray = b""
        self.modified = False
        """Whether a filter has changed anything since this object was made."""

    def append(self, data: bytes) -> None:
        """Add what has come from the wire."""
        held = self._data
        if not held:
            self._data = data
        elif isinstance(held, bytearray):
            held += data
        elif data:
            self._data = bytearray(held)
            self._data += data

    def take(self) -> bytes:
        """Return everything and hold nothing."""
        data = self._data
        self._data = b""
        return data if isinstance(data, bytes) else bytes(data)

    def discard(self) -> None:
        """Drop everything: the filter has taken it."""
        self._data = b""
        self.modified = True

    def __len__(self) -> int:
        return len(self._data)

    def read(self, start: int, size: int) -> bytes:
        """Return `[start:start + size]`, cut at the end."""
        data = self._data
        if start == 0 and size >= len(data):
            return data if isinstance(data, bytes) else bytes(data)
        return bytes(data[start : start + size])

    def replace(self, start: int, size: int, data: bytes) -> None:
        """Put `data` in the place of `[start:start + size]` (Proxy-Wasm reference, buffers: prepend is (0, 0),
        append any start past the end, replace all (0, size or more))."""
        held = self._data
        self.modified = True
        if start == 0 and size >= len(held):
            self._data = data
        elif start >= len(held):
            self.append(data)
        else:
            changed = bytearray(held)
            changed[start : start + size] = data
            self._data = changed
