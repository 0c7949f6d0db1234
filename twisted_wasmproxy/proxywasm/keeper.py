"""Keeps one VM running for the plugins that share it: starts it, replaces it when it fails, closes it with the last."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from twisted.internet.task import Clock

from twisted_wasmproxy.logs import Logger
from twisted_wasmproxy.proxywasm.errors import PluginError
from twisted_wasmproxy.proxywasm.metrics import Metrics
from twisted_wasmproxy.proxywasm.shared import SharedData
from twisted_wasmproxy.proxywasm.vm import VM

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

    from twisted_wasmproxy.proxywasm.module import ProxyModule
    from twisted_wasmproxy.proxywasm.plugin import Plugin
    from twisted_wasmproxy.proxywasm.services import Services

__all__ = ["VMKeeper"]

_log = Logger()

FIRST_DELAY = 1.0
"""Seconds from a failure to the fresh VM; doubled with each further failure."""
LONGEST_DELAY = 60.0
STEADY = 120.0
"""A VM that has lived so long in seconds is forgiven the failures before it."""
JITTER = 0.2
"""By what part a delay may be shorter or longer."""


class VMKeeper:
    """One key of VM sharing in one worker."""

    def __init__(self, module: ProxyModule, services: Services, ended: Callable[[VMKeeper], None]) -> None:
        self.module = module
        self.plugins: list[Plugin] = []
        self.serving = False
        """Whether streams may depend on the VM, which then is not to be risked for a plugin that is new."""
        self._services = services
        self._ended = ended
        self._vm: VM | None = None
        self._started = 0.0
        self._failures = 0
        self._restart: IDelayedCall | None = None

    def add(self, plugin: Plugin) -> None:
        """Start a plugin in the VM, which is made for the first. Raises PluginError."""
        if self.serving:
            self._rehearse(plugin)
        if self._vm is None and self._restart is None:
            self._vm = VM(self.module, self._services, self._failed)
            self._started = self._services.clock.seconds()
        if self._vm is not None:
            try:
                plugin.root = self._vm.start_plugin(plugin)
            except PluginError:
                if self._vm.failed is not None:
                    self._failed(self._vm)
                elif not self.plugins:
                    self._close()
                raise
        plugin.keeper = self
        self.plugins.append(plugin)

    def remove(self, plugin: Plugin) -> None:
        """A plugin has finished."""
        self.plugins.remove(plugin)
        if not self.plugins:
            self._close()
            self._ended(self)

    def stop(self) -> None:
        """Close the VM as it is, and make no other."""
        self._close()
        for plugin in self.plugins:
            plugin.root = None

    def refresh_log_level(self) -> None:
        """Ask again for the log levels of the plugins."""
        for plugin in self.plugins:
            plugin.voice.refresh()
        if self._vm is not None:
            self._vm.voice.refresh()

    def _rehearse(self, plugin: Plugin) -> None:
        """Start a plugin in a VM of its own, cut off from everything, and throw that away. Raises PluginError."""
        services = replace(self._services, clock=Clock(), shared_data=SharedData(), metrics=Metrics())
        rehearsal = VM(self.module, services, lambda vm: None)
        try:
            rehearsal.start_plugin(plugin)
        finally:
            rehearsal.close()

    def _failed(self, vm: VM) -> None:
        if vm is not self._vm:
            return
        self._vm = None
        vm.close()
        for plugin in list(self.plugins):
            plugin.vm_lost()
        if self.plugins:
            if self._services.clock.seconds() - self._started >= STEADY:
                self._failures = 0
            self._restart_later()

    def _restart_later(self) -> None:
        delay = min(FIRST_DELAY * 2.0**self._failures, LONGEST_DELAY)
        delay *= random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311  # spreads load, keeps no secret
        self._failures += 1
        _log.info("{vm}: a fresh VM replaces the failed one in {delay:.1f} s", vm=self.module.name, delay=delay)
        self._restart = self._services.clock.callLater(delay, self._start_again)

    def _start_again(self) -> None:
        self._restart = None
        try:
            vm = VM(self.module, self._services, self._failed)
        except PluginError as error:
            _log.error("cannot start again: {error}", error=error)
            self._restart_later()
            return
        self._vm = vm
        self._started = self._services.clock.seconds()
        roots = []
        for plugin in self.plugins:
            try:
                roots.append((plugin, vm.start_plugin(plugin)))
            except PluginError as error:
                _log.error("cannot start again: {error}", error=error)
                self._vm = None
                vm.close()
                self._restart_later()
                return
        for plugin, root in roots:
            plugin.root = root

    def _close(self) -> None:
        if self._restart is not None:
            self._restart.cancel()
            self._restart = None
        vm, self._vm = self._vm, None
        if vm is not None:
            vm.close()
