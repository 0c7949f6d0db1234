"""The folder of a disk store: opened, checked, and shared with other processes.

- `data.mdb`, `lock.mdb`: LMDB
- `changes`: the change log (`disk_changes`)
- `starting`: locked while a process starts: only one at a time looks whether all is well
- `process-N`: of process N, locked as long as it lives (the kernel lets go when it dies, however that happens); lists
  the blobs that it holds

These locks are advisory ones; nobody waits for another but while starting.

LMDB reads its files where they are mapped into memory: to touch a page behind the end of a file that somebody has cut
would end the process. So their sizes are looked at before each transaction. What is left is a cut within one.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import time
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lmdb

from twisted_wasmproxy.cache.entry import StoreError
from twisted_wasmproxy.cache.stores.disk_calls import file_size
from twisted_wasmproxy.cache.stores.disk_changes import ChangeLog, Cut
from twisted_wasmproxy.cache.stores.disk_files import FILE_MODE, FOLDER_MODE, check_file, check_folder, open_file
from twisted_wasmproxy.cache.stores.disk_index import Change, Damaged, Index

__all__ = ["Folder", "is_full", "reason_of"]

MAX_READERS = 1024
START_WAIT = 20.0
"""Seconds to wait for others that are starting."""

RESERVE = 8 * 1024 * 1024
"""Bytes at the end of LMDB's file that what is stored should leave free."""

HELD_ROOM = 8192
"""Blobs that may be held at a time, and others know even if the disk has become full."""

MOST_HELD = 1024 * 1024
"""Blobs that are looked for in another process's file."""

STEP = 64 * 1024 * 1024

_MAPPED = ("data.mdb", "lock.mdb")

SHORT = 1024 * 1024
"""Bytes at its end that a sound file may lack: pages taken and given back in one transaction are not written."""

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
"""EIO is what LMDB makes of a write that was cut short, as the first one is when the disk becomes full."""


def reason_of(error: BaseException) -> str:
    """Return what went wrong, for the operator, without the path (which LMDB puts first)."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def is_full(error: BaseException) -> bool:
    """Whether this says, or may say, that the disk, a quota or a limit on files is used up."""
    if isinstance(error, OSError):
        return error.errno in _FULL
    return isinstance(error, lmdb.DiskError) or any(os.strerror(number) in str(error) for number in _FULL)


class Folder:
    """An open folder. Everything here may block; `index`, `changes` and `environment` are for threads."""

    def __init__(self, path: Path, map_size: int) -> None:
        """Open; a store that is damaged is deleted, if no other process has it open, and begun anew.

        `fresh_start` then says why. Raises `StoreError` with a text for the operator.
        """
        self.path = path
        self.fresh_start: str | None = None
        self.warning: str | None = None
        """Something that the operator should know, though the store can be used."""
        try:
            path.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
            self.warning = check_folder(path)
            with _locked(path / "starting"):
                self._open(map_size)
        except (OSError, lmdb.Error) as error:
            raise StoreError(f"disk cache {path}: {reason_of(error)}") from error
        except StoreError as error:
            raise StoreError(f"disk cache {path}: {error}") from error

    def _open(self, map_size: int) -> None:
        data = self.path / "data.mdb"
        for name in _MAPPED:
            check_file(self.path / name)
        ours = ChangeLog.is_one(self.path / "changes") or not data.exists()
        try:
            self._open_store(map_size)
        except (lmdb.CorruptedError, lmdb.InvalidError, lmdb.VersionMismatchError, lmdb.PageNotFoundError,
                lmdb.PanicError, lmdb.IncompatibleError, Damaged) as error:  # fmt: skip
            if not ours:
                raise StoreError(f"data.mdb is not a cache of this proxy ({reason_of(error)})") from error
            if self._living():
                raise StoreError(f"{reason_of(error)}; other processes have it open") from error
            self.fresh_start = reason_of(error)
            for name in _MAPPED:
                (self.path / name).unlink(missing_ok=True)
            self._open_store(map_size)
        try:
            self._register()
        except BaseException:  # whatever went wrong, nothing stays open
            self._close_mapped()
            raise

    def _open_store(self, map_size: int) -> None:
        # Why these flags: see `disk`. Not `writemap`: a stray write would damage the store, and a full disk would be a
        # signal, not an error.
        data = self.path / "data.mdb"
        # Where the file is larger, as the store was, nothing could be removed without room for the pages that change.
        # In large steps: processes that share the file should come to the same.
        missing = data.stat().st_size + RESERVE - map_size if data.exists() else 0
        self.map_size = map_size + max(0, -(-missing // STEP) * STEP)
        environment = lmdb.open(
            str(self.path),
            map_size=self.map_size,
            mode=FILE_MODE,
            metasync=False,
            meminit=False,
            max_readers=MAX_READERS,
            max_dbs=16,
        )
        try:
            self._check_size(environment)
            environment.reader_check()
            self.index = Index(environment)
            with environment.begin(write=True) as txn:
                change = Change(self.index, txn)
                self.process = change.new_process()
                change.finish()
            self._mapped = self._open_mapped()
        except BaseException:  # whatever went wrong, nothing stays open
            environment.close()
            raise
        self._sizes = [0] * len(self._mapped)
        self.environment = environment

    def _open_mapped(self) -> list[int]:
        """Return descriptors of LMDB's files, to look at their sizes."""
        files: list[int] = []
        try:
            for name in _MAPPED:
                files.append(open_file(self.path / name))
        except BaseException:  # whatever went wrong, nothing stays open
            for file in files:
                os.close(file)
            raise
        return files

    def _close_mapped(self) -> None:
        try:
            self.check_sizes()
        except Cut:
            # To close it, be it by its destructor, would be to touch what is mapped: it stays until the process ends.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self.environment))
        else:
            self.environment.close()
        # Last: to close any descriptor of a file drops all locks that the process has on it (fcntl, POSIX).
        for file in self._mapped:
            os.close(file)

    def begin(self, write: bool = False, buffers: bool = False) -> Any:
        """Return a transaction (`lmdb.Transaction`). Raises Cut."""
        self.check_sizes()
        environment: Any = self.environment  # whose stubs take no variables
        return environment.begin(write=write, buffers=buffers)

    def check_sizes(self) -> None:
        """See that LMDB's files have not become shorter. Raises Cut. May be called in any thread."""
        for index, file in enumerate(self._mapped):
            before = self._sizes[index]  # first: another thread may see it grow meanwhile
            size = file_size(file)
            if size < before:
                raise Cut(f"{_MAPPED[index]} has been cut from {before} to {size} bytes")
            if size > before:
                self._sizes[index] = size

    def _check_size(self, environment: lmdb.Environment) -> None:
        """See that the file has all the pages that it should: to touch one beyond its end would end the process."""
        self._page_size = environment.stat()["psize"]
        wanted = (environment.info()["last_pgno"] + 1) * self._page_size
        path = self.path / "data.mdb"
        size = path.stat().st_size
        if size < wanted - SHORT:
            raise Damaged(f"data.mdb has been cut to {size} of {wanted} bytes")
        if size < wanted:
            file = open_file(path, os.O_RDWR)
            try:
                os.ftruncate(file, wanted)
            finally:
                os.close(file)

    def _register(self) -> None:
        self.changes = ChangeLog(self.path / "changes")
        try:
            # Locked before it has the name that others look for. What a start that was cut off left is overwritten.
            new = self.path / "starting-process"
            new.unlink(missing_ok=True)
            self._file = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Room for what will be held while the disk is full.
            os.pwrite(self._file, bytes(HELD_ROOM * 8), 0)
            new.rename(self.path / f"process-{self.process}")
        except BaseException:  # whatever went wrong, nothing stays open
            self.changes.close()
            raise
        self._slots: dict[int, int] = {}
        """Blobs that this process holds, and where in its file that stands."""
        self._spare: list[int] = []

    def close(self) -> None:
        """Close; what this process was writing must have been dealt with."""
        with contextlib.suppress(OSError):
            (self.path / f"process-{self.process}").unlink()
        os.close(self._file)
        self.changes.close()
        self._close_mapped()

    def is_at_end(self) -> bool:
        """Whether LMDB's file has grown to nearly all that it may: removals need some pages too. Raises Cut."""
        self.check_sizes()
        info = self.environment.info()
        left = info["map_size"] - (info["last_pgno"] + 1) * self._page_size
        return left < min(RESERVE, info["map_size"] // 8)

    # Blobs that this process holds: 8 bytes each in its file, 0 where there is none.

    def hold(self, blob: int) -> None:
        """Let all processes know that a blob is being read. One short write to a file that stays in memory."""
        slot = self._spare.pop() if self._spare else len(self._slots)
        self._slots[blob] = slot
        self._note(slot, blob)

    def release(self, blob: int) -> None:
        slot = self._slots.pop(blob)
        self._spare.append(slot)
        self._note(slot, 0)

    def _note(self, slot: int, blob: int) -> None:
        # Beyond `HELD_ROOM`, on a full disk, other processes do not learn of the hold: its content may go while it is
        # read, which is an error then.
        with contextlib.suppress(OSError):
            os.pwrite(self._file, array("Q", (blob,)).tobytes(), slot * 8)

    def held(self) -> set[int]:
        """Return all blobs that living processes hold.

        Who has the write lock when this is called sees all that was held before, and need not care for later ones:
        what is found is held first, and then looked at again (`DiskStore.lookup`).
        """
        held: set[int] = set(self._slots)
        for path in self.path.glob("process-*"):
            with contextlib.suppress(OSError, StoreError):
                data = _content(path)
                held.update(array("Q", data[: len(data) // 8 * 8]))
        held.discard(0)
        return held

    # Other processes.

    def _living(self) -> bool:
        """Whether another process has the store open."""
        return any(not _is_dead(path) for path in self.path.glob("process-*"))

    def dead(self) -> list[int]:
        """Return the numbers of processes that live no more and have not been buried: files or writings of theirs are
        left."""
        with self.begin() as txn:
            writers = self.index.writers(txn)
        files = {path.name.partition("-")[2]: path for path in self.path.glob("process-*")}
        numbers = {int(number): path for number, path in files.items() if number.isdecimal()}
        others = (writers | set(numbers)) - {self.process}
        return [number for number in others if number not in numbers or _is_dead(numbers[number])]

    def bury(self, process: int) -> None:
        """Nothing of a dead process is left."""
        (self.path / f"process-{process}").unlink(missing_ok=True)


def _content(path: Path) -> bytes:
    """Return what stands in another process's file. Raises OSError and StoreError."""
    file = open_file(path)
    try:
        return os.read(file, MOST_HELD * 8)
    finally:
        os.close(file)


def _is_dead(path: Path) -> bool:
    """Whether nobody has the lock of this file; what is no file of ours is nobody's."""
    try:
        file = open_file(path)
    except (FileNotFoundError, StoreError):
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(file)
    return True


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    deadline = time.monotonic() + START_WAIT
    file = open_file(path, os.O_RDWR | os.O_CREAT)
    try:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise StoreError("another process has been starting there for too long") from None
                time.sleep(0.01)
        yield
    finally:
        os.close(file)
