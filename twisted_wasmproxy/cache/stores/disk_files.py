"""Files of the disk store: opened only where they are plain files of our own.

Whoever may write to the folder could put a link there in a file's place, and have the store overwrite what it leads to;
or a named pipe, and have it wait for ever.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from twisted_wasmproxy.cache.entry import StoreError

__all__ = ["FILE_MODE", "FOLDER_MODE", "check_file", "check_folder", "open_file"]

FOLDER_MODE = 0o700
FILE_MODE = 0o600
"""What is stored may have been for a few eyes only: nobody else needs to read it."""


def open_file(path: Path, flags: int = os.O_RDONLY) -> int:
    """Return a descriptor of a file, made if `flags` say so, which is a plain one of our own.

    Raises StoreError if it is anything else, OSError if it cannot be opened.
    """
    try:
        # O_NONBLOCK is for a named pipe in its place, which would else wait for its other end.
        file = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, FILE_MODE)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise StoreError(f"{path.name} is a symbolic link, not a file of this cache") from None
        raise
    try:
        _check(path.name, os.fstat(file))
    except BaseException:  # whatever went wrong, nothing stays open
        os.close(file)
        raise
    return file


def check_file(path: Path) -> None:
    """Check a file that LMDB is going to open or make. Raises StoreError if there is one that is not ours."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    _check(path.name, found)


def _check(name: str, found: os.stat_result) -> None:
    if stat.S_ISLNK(found.st_mode):
        raise StoreError(f"{name} is a symbolic link, not a file of this cache")
    if not stat.S_ISREG(found.st_mode):
        raise StoreError(f"{name} is not a plain file")
    if found.st_uid != os.geteuid():
        raise StoreError(f"{name} belongs to user {found.st_uid}, and this process runs as {os.geteuid()}")
    if found.st_nlink > 1:
        raise StoreError(f"{name} has another name, too (a hard link): it may be another program's")


def check_folder(path: Path) -> str | None:
    """Check who may put something into the store's folder; return a warning, None if all is well.

    Raises StoreError if anybody may, as whoever writes to it decides what clients get.
    """
    found = path.stat()  # of what a link leads to: the administrator may have moved the cache to another disk
    if found.st_uid not in (os.geteuid(), 0):
        raise StoreError(f"the folder belongs to user {found.st_uid}, and this process runs as {os.geteuid()}")
    mode = stat.S_IMODE(found.st_mode)
    if mode & stat.S_IWOTH:
        raise StoreError(f"anybody may write to the folder (mode {mode:04o}); make it 0700")
    if mode & stat.S_IWGRP:
        return f"its group may write to the folder (mode {mode:04o}) and change what clients get; better make it 0700"
    return None
