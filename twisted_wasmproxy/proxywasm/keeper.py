"""Keeps one VM running for the plugins that share it: starts it, replaces it when it fails, closes it with the last.

A VM that fails after it has served is replaced at once, inside the call that fails, before any stream is released: so
no stream that comes after it finds the plugins without a VM. A spare, started and configured, stands by for that; where
there is none, a fresh VM is started then and there. What fails while it starts, or more often than the budget allows,
is started again after a delay, and until then streams get what `fail_open` says.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from twisted.internet.task import Clock

from twisted_wasmproxy.logs import Logger
from twisted_wasmproxy.proxywasm.budget import TrapBudget
from twisted_wasmproxy.proxywasm.errors import PluginError
from twisted_wasmproxy.proxywasm.metrics import Metrics
from twisted_wasmproxy.proxywasm.shared import SharedData
from twisted_wasmproxy.proxywasm.vm import VM

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

    from twisted_wasmproxy.proxywasm.contexts import RootContext
    from twisted_wasmproxy.proxywasm.module import ProxyModule
    from twisted_wasmproxy.proxywasm.plugin import Plugin
    from twisted_wasmproxy.proxywasm.services import Services

__all__ = ["VMKeeper"]

_log = Logger()

FIRST_DELAY = 1.0
"""Seconds from a failure to the fresh VM, where it is not replaced at once; doubled with each further failure."""
LONGEST_DELAY = 60.0
STEADY = 120.0
"""A VM that has lived so long in seconds is forgiven the failures before it."""
JITTER = 0.2
"""By what part a delay may be shorter or longer."""
OVERRUN_SHARE = 10
"""A VM whose timer (or queue) callback ran into `cpu_limit` is not replaced at once where it has lived for less than so
many times that limit: a timer that loops may take a tenth of the time."""


class _Started:
    """A VM with the contexts of its plugins."""

    def __init__(self, vm: VM) -> None:
        self.vm = vm
        self.roots: dict[Plugin, RootContext] = {}


class VMKeeper:
    """One key of VM sharing in one worker."""

    def __init__(self, module: ProxyModule, services: Services, ended: Callable[[VMKeeper], None]) -> None:
        self.module = module
        self.plugins: list[Plugin] = []
        self._serving = False
        """Whether streams may depend on the VM, which then is not to be risked for a plugin that is new."""
        self._services = services
        self._ended = ended
        self._vm: VM | None = None
        self._started = 0.0
        self._failures = 0
        self._restart: IDelayedCall | None = None
        self._spare: _Started | None = None
        self._spare_failures = 0
        self._spare_call: IDelayedCall | None = None
        self._budget = TrapBudget(module.options.traps, module.options.traps_within)
        self._exhausted = False
        """Whether it has been said that the budget is exhausted."""
        self._last_failure: str | None = None
        self._counts = {"traps": 0, "replaced_at_once": 0, "restarted": 0, "start_failures": 0, "exhausted": 0}

    def add(self, plugin: Plugin) -> None:
        """Start a plugin in the VM, which is made for the first. Raises PluginError."""
        if self._serving:
            self._rehearse(plugin)
        if self._vm is None and self._restart is None:
            self._vm = VM(self.module, self._services, self._failed)
            self._started = self._services.clock.seconds()
        if self._vm is not None:
            try:
                plugin.vm_started(self._vm.start_plugin(plugin))
            except PluginError:
                if self._vm.failed is not None:
                    self._vm.let_go()
                elif not self.plugins:
                    self._close()
                raise
        plugin.keeper = self
        self.plugins.append(plugin)
        self._drop_spare()

    def put_in_service(self) -> None:
        """Streams may come from now on: see to a spare."""
        self._serving = True
        self._spare_later()

    def remove(self, plugin: Plugin) -> None:
        """A plugin has finished."""
        self.plugins.remove(plugin)
        if self._spare is not None and plugin in self._spare.roots:
            self._spare.roots.pop(plugin).drop()
        if not self.plugins:
            self._close()
            self._ended(self)

    def stop(self) -> None:
        """Close the VM as it is, and make no other."""
        self._close()
        for plugin in self.plugins:
            plugin.vm_lost()

    def refresh_log_level(self) -> None:
        """Ask again for the log levels of the plugins."""
        for plugin in self.plugins:
            plugin.voice.refresh()
        for vm in self._vms():
            vm.voice.refresh()

    def figures(self) -> Mapping[str, object]:
        """Return what the control API tells of the VM: numbers, texts, and mappings and lists of these."""
        now = self._services.clock.seconds()
        budget = self._budget
        return {
            "module": self.module.file,
            "vm_id": self.module.options.vm_id,
            "plugins": [plugin.name for plugin in self.plugins],
            "serving": self._vm is not None,
            "memory": 0 if self._vm is None else self._vm.memory_size(),
            "spare": self._spare is not None,
            "spare_memory": 0 if self._spare is None else self._spare.vm.memory_size(),
            **self._counts,
            "streams_without_vm": sum(plugin.streams_without_vm for plugin in self.plugins),
            "budget": {
                "traps": budget.traps,
                "within": budget.within,
                "spent": budget.spent(now),
                "exhausted": budget.exhausted(now),
            },
            "last_failure": self._last_failure,
        }

    def _rehearse(self, plugin: Plugin) -> None:
        """Start a plugin in a VM of its own, cut off from everything, and throw that away. Raises PluginError."""
        services = replace(self._services, clock=Clock(), shared_data=SharedData(), metrics=Metrics())
        rehearsal = VM(self.module, services, lambda vm: None)
        try:
            rehearsal.start_plugin(plugin)
        finally:
            rehearsal.close()

    # Failure

    def _failed(self, vm: VM) -> None:
        """Called inside the call that fails, before the VM lets go of its streams."""
        if vm is not self._vm:
            return
        self._vm = None
        self._last_failure = vm.failed
        self._counts["traps"] += 1
        for plugin in self.plugins:
            plugin.vm_lost()
        vm.defer(self._end_unused)
        if not any(plugin.users for plugin in self.plugins):
            return
        now = self._services.clock.seconds()
        within = self._budget.spend(now)
        lived = now - self._started
        if lived >= STEADY:
            self._failures = 0
        if not vm.served or (vm.overran and lived < OVERRUN_SHARE * self.module.options.cpu_limit):
            self._restart_later()
        elif within:
            self._failures = 0
            self._exhausted = False
            self._replace()
        else:
            self._say_exhausted()
            self._restart_later()

    def _end_unused(self) -> None:
        for plugin in list(self.plugins):
            plugin.end_if_unused()

    def _say_exhausted(self) -> None:
        if self._exhausted:
            return
        self._exhausted = True
        self._counts["exhausted"] += 1
        _log.error(
            "{vm}: more than {traps} traps in {within:g} s (vm_config.restart): not replaced at once any more; until "
            "there is a VM again, streams are refused or, with fail_open, go on without the filter",
            vm=self.module.name,
            traps=self._budget.traps,
            within=self._budget.within,
        )

    def _replace(self) -> None:
        """Put a VM in the place of the failed one: the spare, or one that is started now."""
        started = self._next()
        if started is None:
            return
        self._counts["replaced_at_once"] += 1
        _log.info(
            "{vm}: a fresh VM replaces the failed one at once (trap {spent} of {traps} in {within:g} s)",
            vm=self.module.name,
            spent=self._budget.spent(self._services.clock.seconds()),
            traps=self._budget.traps,
            within=self._budget.within,
        )
        self._enter(started)

    def _next(self) -> _Started | None:
        """Return the spare, or a VM that is started now; None where none starts, which is tried again later."""
        started, self._spare = self._spare, None
        if started is None:
            try:
                started = self._start()
            except PluginError as error:
                _log.error("cannot start again: {error}", error=error)
                self._restart_later()
        return started

    def _restart_later(self) -> None:
        delay = self._delay(self._failures)
        self._failures += 1
        _log.info("{vm}: a fresh VM replaces the failed one in {delay:.1f} s", vm=self.module.name, delay=delay)
        self._restart = self._services.clock.callLater(delay, self._start_again)

    def _start_again(self) -> None:
        self._restart = None
        started = self._next()
        if started is None:
            return
        self._counts["restarted"] += 1
        self._enter(started)

    def _enter(self, started: _Started) -> None:
        self._vm = started.vm
        self._started = self._services.clock.seconds()
        for plugin, root in started.roots.items():
            if plugin.users:
                plugin.vm_started(root)
            else:
                root.drop()
        started.vm.enter_service()
        self._spare_later()

    def _start(self) -> _Started:
        """Start a VM that stands by, with every plugin that is in use. Raises PluginError, whatever is wrong."""
        started = None
        try:
            started = _Started(VM(self.module, self._services, self._failed, standing_by=True))
            for plugin in self.plugins:
                if plugin.users:
                    started.roots[plugin] = started.vm.start_plugin(plugin)
        except Exception as error:  # of an engine that is out of something too: it must not end the search for a VM
            self._counts["start_failures"] += 1
            if started is not None:
                started.vm.close()
            if isinstance(error, PluginError):
                raise
            raise PluginError(self.module.file, f"cannot be started: {type(error).__name__}: {error}") from error
        return started

    @staticmethod
    def _delay(failures: int) -> float:
        delay = min(FIRST_DELAY * 2.0 ** min(failures, 10), LONGEST_DELAY)
        return delay * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311  # spreads load, keeps no secret

    # The spare

    def _spare_later(self, delay: float = 0.0) -> None:
        """Start a spare in a later turn, so that what the VM is wanted for now need not wait for it."""
        if self.module.options.spare and self._spare is None and self._spare_call is None and self._serving:
            self._spare_call = self._services.clock.callLater(delay, self._make_spare)

    def _make_spare(self) -> None:
        self._spare_call = None
        if self._vm is None or not any(plugin.users for plugin in self.plugins):
            return
        try:
            self._spare = self._start()
        except PluginError as error:
            delay = self._delay(self._spare_failures)
            self._spare_failures += 1
            _log.error("no spare VM, the next try is in {delay:.1f} s: {error}", delay=delay, error=error)
            self._spare_later(delay)
        else:
            self._spare_failures = 0

    def _drop_spare(self) -> None:
        """Let go of a spare that lacks a plugin, and see to another."""
        spare, self._spare = self._spare, None
        if spare is not None:
            spare.vm.close()
            self._spare_later()

    def _close(self) -> None:
        for call in (self._restart, self._spare_call):
            if call is not None:
                call.cancel()
        self._restart = self._spare_call = None
        vms = self._vms()
        self._vm = self._spare = None
        for vm in vms:
            vm.close()

    def _vms(self) -> list[VM]:
        return [vm for vm in (self._vm, None if self._spare is None else self._spare.vm) if vm is not None]
