"""System calls of the disk store's hot path. They end at once, so they keep the interpreter: `os` would hand it over.

Arguments are ctypes objects of the exact types; with `argtypes` a call takes twice as long.
"""

from __future__ import annotations

import ctypes
import os

__all__ = ["WordReader", "file_size"]

_C = ctypes.PyDLL(None)
_C.lseek.restype = ctypes.c_int64
_C.pread.restype = ctypes.c_ssize_t
_lseek, _pread = _C.lseek, _C.pread

_START = ctypes.c_int64(0)
_END = ctypes.c_int(os.SEEK_END)


def file_size(file: int) -> int:
    """Return the bytes of a file, by its descriptor; -1 if there is no such file any more."""
    return _lseek(file, _START, _END)  # type: ignore[no-any-return]


class WordReader:
    """Reads 8 bytes at one place of a file. For one thread."""

    def __init__(self, file: int, offset: int) -> None:
        """`file`: a descriptor."""
        self._buffer = ctypes.create_string_buffer(8)
        self._arguments = ctypes.c_int(file), self._buffer, ctypes.c_size_t(8), ctypes.c_int64(offset)

    def read(self) -> bytes:
        """Return the 8 bytes as they are now; nothing if they are not there, or cannot be read."""
        return self._buffer.raw if _pread(*self._arguments) == 8 else b""
