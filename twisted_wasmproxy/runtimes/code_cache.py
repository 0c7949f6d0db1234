"""Compiled code on disk, so that a module is compiled once and not by each worker at each start.

An entry is machine code that is going to run in this process, so what may be in the folder is a question of trust: it
must be ours and closed to others. An entry's name says which engine, version, processor and module it is for; its
content carries a digest, against what a full disk or a crash may leave behind.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import platform
import re
import stat
import tempfile
from functools import lru_cache
from pathlib import Path

from twisted_wasmproxy.runtimes.interface import CompileError, Engine, Module

__all__ = ["CodeCache", "default_folder", "load_module"]

log = logging.getLogger(__name__)

_MAGIC = b"wasmproxy code 1\n"
_SUFFIX = ".code"
_TEMPORARY_SUFFIX = ".new"


def default_folder() -> Path:
    """Return the user's own folder for compiled code (XDG Base Directory)."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "twisted-wasmproxy"


def load_module(engine: Engine, wasm: bytes, cache: CodeCache | None = None) -> Module:
    """Return the module, from the cache where it is there, and put it there where it is not.

    Blocks for seconds where a big module is compiled; may be called from any thread, by several processes at once.
    Raises CompileError where `wasm` is not a module.
    """
    if cache is None:
        return engine.load(engine.compile(wasm))
    key = cache.key(engine, wasm)
    code = cache.get(key)
    if code is not None:
        try:
            return engine.load(code)
        except CompileError as error:
            log.warning("the compiled code %s does not load (%s): compiling anew", key, error)
    code = engine.compile(wasm)
    module = engine.load(code)
    cache.put(key, code)
    return module


class CodeCache:
    """A folder of compiled modules, the longest unused removed past `max_bytes` or `max_files`.

    A folder that cannot be made or used, or that others may write, is a warning, and then nothing is cached.
    """

    def __init__(self, folder: str | os.PathLike[str], *, max_bytes: int = 1 << 30, max_files: int = 256) -> None:
        self.folder = Path(folder)
        self.max_bytes = max_bytes
        self.max_files = max_files
        self.usable = self._prepare()

    def key(self, engine: Engine, wasm: bytes) -> str:
        """Return the name under which the code of `wasm` for this engine and machine is kept."""
        version = re.sub(r"[^0-9A-Za-z.+-]", "_", engine.version)
        return f"{engine.name}-{version}-{_machine()}-{hashlib.sha256(wasm).hexdigest()}"

    def get(self, key: str) -> bytes | None:
        """Return the code, or None where it is not there or not whole. May be called from any thread."""
        if not self.usable:
            return None
        path = self._path(key)
        try:
            # Not through a link, and only what this user wrote: a folder may have been open to others before.
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            with open(descriptor, "rb") as file:
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
                    log.warning("%s is not a file of ours: compiling anew", path)
                    return None
                content = file.read()
                os.utime(descriptor)
        except FileNotFoundError:
            return None
        except OSError as error:
            log.warning("cannot read compiled code: %s", error)
            return None
        digest_end = len(_MAGIC) + hashlib.sha256().digest_size
        code = content[digest_end:]
        if content[:digest_end] != _header(key, code):
            log.warning("%s is damaged: compiling anew", path)
            return None
        return code

    def put(self, key: str, code: bytes) -> None:
        """Keep the code; a failure is logged and otherwise without effect. May be called from any thread."""
        if not self.usable:
            return
        temporary = None
        try:
            descriptor, temporary = tempfile.mkstemp(_TEMPORARY_SUFFIX, dir=self.folder)
            with open(descriptor, "wb") as file:
                file.write(_header(key, code))
                file.write(code)
            os.replace(temporary, self._path(key))
        except OSError as error:
            log.warning("cannot keep compiled code: %s", error)
            if temporary is not None:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
        else:
            self._prune()

    def _path(self, key: str) -> Path:
        return self.folder / (key + _SUFFIX)

    def _prepare(self) -> bool:
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = os.lstat(self.folder)
        except OSError as error:
            log.warning("no cache of compiled code: %s", error)
            return False
        if not stat.S_ISDIR(status.st_mode):
            reason = "is not a folder"
        elif status.st_uid != os.geteuid():
            reason = f"belongs to user {status.st_uid}, and this process runs as {os.geteuid()}"
        elif status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            reason = f"may be written by others (mode {stat.S_IMODE(status.st_mode):04o}); make it 0700"
        elif not os.access(self.folder, os.R_OK | os.W_OK | os.X_OK):
            reason = "cannot be written"
        else:
            return True
        log.warning("no cache of compiled code: loading it is to trust it, and %s %s", self.folder, reason)
        return False

    def _prune(self) -> None:
        """Remove the longest unused entries past the limits, and what a crash left half-written an hour ago."""
        entries = []
        newest = 0.0
        try:
            with os.scandir(self.folder) as found:
                for entry in found:
                    if entry.name.endswith((_SUFFIX, _TEMPORARY_SUFFIX)):
                        with contextlib.suppress(FileNotFoundError):  # another process may be tidying, too
                            status = entry.stat(follow_symlinks=False)
                            entries.append((status.st_mtime, status.st_size, entry.path))
                            newest = max(newest, status.st_mtime)
        except OSError as error:
            log.warning("cannot tidy the cache of compiled code: %s", error)
            return
        size = 0
        for count, (modified, entry_size, path) in enumerate(sorted(entries, reverse=True), start=1):
            size += entry_size
            stale = path.endswith(_TEMPORARY_SUFFIX) and modified < newest - 3600
            if stale or count > self.max_files or (size > self.max_bytes and count > 1):
                with contextlib.suppress(OSError):
                    os.unlink(path)


def _header(key: str, code: bytes) -> bytes:
    # Over the key as well: an entry under another's name is as bad as a damaged one.
    return _MAGIC + hashlib.sha256(key.encode() + b"\n" + code).digest()


@lru_cache(maxsize=1)
def _machine() -> str:
    """Return the processor, with a digest of the features that compilers make use of."""
    features = ""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name.strip() in ("flags", "Features"):
                features = " ".join(sorted(value.split()))
                break
    return f"{platform.machine()}-{hashlib.sha256(features.encode()).hexdigest()[:12]}"
