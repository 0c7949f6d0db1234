"""Host calls of WASI snapshot preview 1, as far as a module in a proxy may go: no files, no sockets, no arguments.

Standard output and error become log lines. The answers are those of proxy-wasm-cpp-host, which SDKs are tested on.
Addresses come as they are; a MemoryFault becomes FAULT in the linker.
"""

from __future__ import annotations

import os
import time
from struct import iter_unpack

from twisted_wasmproxy.proxywasm.abi import Errno, LogLevel
from twisted_wasmproxy.proxywasm.contexts import Context
from twisted_wasmproxy.proxywasm.logs import LONGEST, emit, shortened
from twisted_wasmproxy.runtimes.interface import Exit

_STREAMS = {1: LogLevel.INFO, 2: LogLevel.ERROR}
"""Log levels by file descriptor."""
_REALTIME, _MONOTONIC = 0, 1
_LARGEST_RANDOM = 64 * 1024
_LARGEST_SIZE = 0xFFFFFFFF
"""Bytes of a line: what its length can be told in."""
_MOST_VECTORS = 1024
"""As IOV_MAX of most systems: no limit on guests covers the time that more would take."""
_RIGHT_FD_WRITE = 1 << 6

_OK, _BADF, _NOSYS, _NOTSUP = Errno.SUCCESS, Errno.BADF, Errno.NOSYS, Errno.NOTSUP


def args_get(context: Context, pointers: int, texts: int) -> Errno:
    return _OK


def args_sizes_get(context: Context, count: int, size: int) -> Errno:
    return _two_sizes(context, count, 0, size, 0)


def environ_get(context: Context, pointers: int, texts: int) -> Errno:
    vm = context.vm
    for entry in _environment(context):
        vm.write_u32(pointers, texts)
        vm.write(texts, entry)
        pointers += 4
        texts += len(entry)
    return _OK


def environ_sizes_get(context: Context, count: int, size: int) -> Errno:
    entries = _environment(context)
    return _two_sizes(context, count, len(entries), size, sum(map(len, entries)))


def clock_res_get(context: Context, clock: int, result: int) -> Errno:
    if clock not in (_REALTIME, _MONOTONIC):
        return _NOTSUP
    context.vm.write(result, (1).to_bytes(8, "little"))
    return _OK


def clock_time_get(context: Context, clock: int, precision: int, result: int) -> Errno:
    if clock == _REALTIME:
        now = time.time_ns()
    elif clock == _MONOTONIC:
        now = time.monotonic_ns()
    else:
        return _NOTSUP
    context.vm.write(result, now.to_bytes(8, "little"))
    return _OK


def random_get(context: Context, address: int, size: int) -> Errno:
    if size > _LARGEST_RANDOM:
        return Errno.INVAL
    context.vm.write(address, os.urandom(size))
    return _OK


def proc_exit(context: Context, code: int) -> Errno:
    raise Exit(code)


def proc_raise(context: Context, signal: int) -> Errno:
    return _NOSYS


def sched_yield(context: Context) -> Errno:
    return _OK


def poll_oneoff(context: Context, subscriptions: int, events: int, count: int, result: int) -> Errno:
    """Nothing ever happens: no events. Go's runtime asks when it is idle, and fails on anything but success."""
    context.vm.write_u32(result, 0)
    return _OK


def fd_write(context: Context, fd: int, vectors: int, count: int, result: int) -> Errno:
    level = _STREAMS.get(fd)
    if level is None:
        return _BADF
    if count > _MOST_VECTORS:
        context.vm.check_range(vectors, 8 * count)
        return Errno.INVAL
    line, size = _gather(context, context.vm.read(vectors, 8 * count))
    if size > _LARGEST_SIZE:
        return Errno.INVAL
    context.vm.write_u32(result, size)
    if size > len(line):
        emit(context, level, shortened(line, size))
    elif line and line != b"\n":
        emit(context, level, line.removesuffix(b"\n"))
    return _OK


def fd_pwrite(context: Context, fd: int, vectors: int, count: int, offset: int, result: int) -> Errno:
    return fd_write(context, fd, vectors, count, result)


def fd_read(context: Context, fd: int, vectors: int, count: int, result: int) -> Errno:
    return _NOSYS


def fd_pread(context: Context, fd: int, vectors: int, count: int, offset: int, result: int) -> Errno:
    return _NOSYS


def fd_seek(context: Context, fd: int, offset: int, whence: int, result: int) -> Errno:
    return _OK


def fd_tell(context: Context, fd: int, result: int) -> Errno:
    if fd not in _STREAMS:
        return _BADF
    context.vm.write(result, bytes(8))
    return _OK


def fd_close(context: Context, fd: int) -> Errno:
    return _OK


def fd_fdstat_get(context: Context, fd: int, result: int) -> Errno:
    if fd not in _STREAMS:
        return _BADF
    context.vm.write(result, bytes(8) + _RIGHT_FD_WRITE.to_bytes(8, "little") + bytes(8))
    return _OK


def fd_fdstat_set_flags(context: Context, fd: int, flags: int) -> Errno:
    return _NOSYS


def fd_filestat_get(context: Context, fd: int, result: int) -> Errno:
    return _BADF


def fd_prestat_get(context: Context, fd: int, result: int) -> Errno:
    """There is no preopened directory: this ends a libc's search for them."""
    return _BADF


def fd_prestat_dir_name(context: Context, fd: int, path: int, size: int) -> Errno:
    return _NOSYS


def fd_readdir(context: Context, fd: int, buffer: int, size: int, cookie: int, result: int) -> Errno:
    context.vm.write_u32(result, 0)
    return Errno.NOTDIR


def fd_renumber(context: Context, fd: int, to: int) -> Errno:
    return _NOTSUP if fd in _STREAMS and to in _STREAMS else _BADF


def fd_advise(context: Context, fd: int, offset: int, size: int, advice: int) -> Errno:
    return _stream(fd)


def fd_allocate(context: Context, fd: int, offset: int, size: int) -> Errno:
    return _stream(fd)


def fd_datasync(context: Context, fd: int) -> Errno:
    return _stream(fd)


def fd_sync(context: Context, fd: int) -> Errno:
    return _stream(fd)


def fd_fdstat_set_rights(context: Context, fd: int, rights: int, inheriting: int) -> Errno:
    return _stream(fd)


def fd_filestat_set_size(context: Context, fd: int, size: int) -> Errno:
    return _stream(fd)


def fd_filestat_set_times(context: Context, fd: int, accessed: int, modified: int, flags: int) -> Errno:
    return _stream(fd)


def path_open(
    context: Context,
    fd: int,
    lookup: int,
    path: int,
    size: int,
    how: int,
    rights: int,
    more: int,
    flags: int,
    result: int,
) -> Errno:
    return Errno.NOENT


def path_readlink(context: Context, fd: int, path: int, size: int, buffer: int, room: int, result: int) -> Errno:
    context.vm.write_u32(result, 0)
    return _NOTSUP


def path_create_directory(context: Context, *args: int) -> Errno:
    return _NOTSUP


def path_filestat_get(context: Context, *args: int) -> Errno:
    return _NOTSUP


def path_filestat_set_times(context: Context, *args: int) -> Errno:
    return _NOTSUP


def path_link(context: Context, *args: int) -> Errno:
    return _NOTSUP


def path_remove_directory(context: Context, *args: int) -> Errno:
    return _NOTSUP


def path_rename(context: Context, *args: int) -> Errno:
    return _NOTSUP


def path_symlink(context: Context, *args: int) -> Errno:
    return _NOTSUP


def path_unlink_file(context: Context, *args: int) -> Errno:
    return _NOTSUP


def sock_accept(context: Context, *args: int) -> Errno:
    return _NOTSUP


def sock_recv(context: Context, *args: int) -> Errno:
    return _NOTSUP


def sock_send(context: Context, *args: int) -> Errno:
    return _NOTSUP


def sock_shutdown(context: Context, *args: int) -> Errno:
    return _NOTSUP


def _stream(fd: int) -> Errno:
    return _OK if fd in _STREAMS else _BADF


def _environment(context: Context) -> list[bytes]:
    return [f"{name}={value}\0".encode("utf-8", "surrogateescape") for name, value in context.vm.environment]


def _two_sizes(context: Context, first: int, one: int, second: int, two: int) -> Errno:
    context.vm.write_u32(first, one)
    context.vm.write_u32(second, two)
    return _OK


def _gather(context: Context, table: bytes) -> tuple[bytes, int]:
    """Return the bytes that (address, size) pairs describe, as many as are logged, and how many there are."""
    vm = context.vm
    parts = []
    total, room = 0, LONGEST
    for address, size in iter_unpack("<II", table):
        vm.check_range(address, size)
        if room:
            part = vm.read(address, min(size, room))
            parts.append(part)
            room -= len(part)
        total += size
    return b"".join(parts), total
