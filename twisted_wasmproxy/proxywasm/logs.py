"""Host calls that log. A guest's lines go to the logger `twisted_wasmproxy.proxywasm.<plugin>`."""

from __future__ import annotations

import re
from collections.abc import Callable

from twisted.logger import Logger
from twisted.logger import LogLevel as TwistedLevel

from twisted_wasmproxy.printable import printable_lines
from twisted_wasmproxy.proxywasm.abi import LogLevel, Status
from twisted_wasmproxy.proxywasm.contexts import Context

__all__ = ["LONGEST", "Voice", "emit", "get_log_level", "log", "shortened"]

_LEVELS = {
    LogLevel.TRACE: TwistedLevel.debug,
    LogLevel.DEBUG: TwistedLevel.debug,
    LogLevel.INFO: TwistedLevel.info,
    LogLevel.WARN: TwistedLevel.warn,
    LogLevel.ERROR: TwistedLevel.error,
    LogLevel.CRITICAL: TwistedLevel.critical,
}
_LAST = max(LogLevel)

LONGEST = 64 * 1024
"""Bytes of a line that are logged."""
_SMALL = 1024
"""Bytes of a line that is not counted."""


class Voice:
    """The logger of one plugin, or of a VM while no plugin speaks."""

    __slots__ = ("_log_level", "level", "logger", "prefix", "threshold")

    level: LogLevel
    """What the guest is told."""
    threshold: LogLevel
    """Lines below it are dropped; traces count as debug, which is the lowest level that Twisted has."""

    def __init__(
        self, log_level: Callable[[str], LogLevel], name: str, root_id: str = "", vm_id: str = "", label: str = ""
    ) -> None:
        plain = re.sub(r"[^\w\-]+", "_", name) or "module"
        self.logger = Logger(namespace=f"twisted_wasmproxy.proxywasm.{plain}")
        self.prefix = "".join(f" {part}" for part in (label, root_id, vm_id) if part)
        """As Envoy has it: the names that are not empty, each after a space."""
        self._log_level = log_level
        self.refresh()

    def refresh(self) -> None:
        """Ask again for the level."""
        self.level = self._log_level(self.logger.namespace)
        self.threshold = LogLevel.TRACE if self.level is LogLevel.DEBUG else self.level


def log(context: Context, level: int, address: int, size: int) -> Status:
    if level > _LAST:
        return Status.BAD_ARGUMENT
    vm = context.vm
    emit(context, level, vm.read(address, size) if size <= LONGEST else shortened(vm.cut(address, size, LONGEST), size))
    return Status.OK


def shortened(message: bytes, size: int) -> bytes:
    """Return the beginning of a line of `size` bytes with a mark that says so."""
    return b"%b ... [%d bytes]" % (message, size)


def get_log_level(context: Context) -> tuple[int]:
    return (_voice(context).level,)


def emit(context: Context, level: int, message: bytes) -> None:
    """Log a line of a guest, unless lines of its level are not wanted, or it has logged too much in this turn."""
    voice = _voice(context)
    if level < voice.threshold:
        return
    if len(message) > _SMALL and not context.vm.memory.lend(len(message), context.vm.services.clock):
        return  # no module is prepared for a status that says so
    voice.logger.emit(
        _LEVELS[LogLevel(level)],
        "wasm log{prefix}: {message}",
        prefix=voice.prefix,
        message=printable_lines(message.decode("utf-8", "replace")),
        wasm_level=LogLevel(level).name.lower(),
        context_id=context.id,
    )


def _voice(context: Context) -> Voice:
    root = context.root
    return context.vm.voice if root is None else root.plugin.voice
