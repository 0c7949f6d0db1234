"""A configured plugin: what makes the filters of streams, whichever VM it runs in at present."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from zope.interface import implementer

from twisted_wasmproxy.interfaces import IFilter, IFilterFactory, IFilterStream, Phase
from twisted_wasmproxy.proxywasm.abi import Version
from twisted_wasmproxy.proxywasm.contexts import (
    HEADERS_ACTIONS,
    HEADERS_ACTIONS_LITERAL,
    Refusal,
    RootContext,
)
from twisted_wasmproxy.proxywasm.logs import Voice

if TYPE_CHECKING:
    from twisted_wasmproxy.config.model import WasmFilterConfig
    from twisted_wasmproxy.proxywasm.keeper import VMKeeper
    from twisted_wasmproxy.proxywasm.services import Services

__all__ = ["Plugin"]


@implementer(IFilterFactory)
class Plugin:
    """One plugin of a configuration. It is told of its VM by a `VMKeeper`."""

    def __init__(self, config: WasmFilterConfig, version: Version, services: Services) -> None:
        self.name = config.name
        self.root_id = config.root_id
        self.configuration = config.configuration
        self.fail_open = config.fail_open
        self.phase: Phase = config.phase
        literal = version is Version.V0_2_100 or config.allow_on_headers_stop_iteration
        self.headers_actions = HEADERS_ACTIONS_LITERAL if literal else HEADERS_ACTIONS
        self.voice = Voice(
            services.log_level,
            config.name or config.root_id or config.vm.code.stem,
            label=config.name,
            root_id=config.root_id,
            vm_id=config.vm.vm_id,
        )
        self.keeper: VMKeeper | None = None
        self.root: RootContext | None = None
        """Its context in the present VM; None while there is none."""
        self.streams_without_vm = 0
        """Streams that found no VM: refused, or not shown to the plugin."""
        self.users = 0
        """How many places of running configurations it has; without any it ends with its last stream."""
        self._ended: list[Callable[[], None]] = []
        self._drain = services.drain

    def configured(self, configuration: object) -> IFilterFactory:
        """Return itself; a plugin is configured where it is loaded. Raises ValueError for anything but None."""
        if configuration is not None:
            raise ValueError(f"{self.name}: a Wasm plugin is configured where it is loaded")
        return self

    def create(self, stream: IFilterStream) -> IFilter | None:
        """Make the context of a stream; without a VM, what `fail_open` says."""
        root = self.root
        if root is None:
            self.streams_without_vm += 1
            return None if self.fail_open else Refusal(stream)
        return root.vm.stream_class(root, stream)

    def release(self, ended: Callable[[], None]) -> None:
        """One place less. With the last, finish once the streams are done; `ended` is called when that is so.

        Where other places are left, `ended` is called at once.
        """
        self.users -= 1
        if self.users:
            ended()
            return
        self._ended.append(ended)
        if self.root is None or not self.root.streams:
            self._finish()

    def idle(self, root: RootContext) -> None:
        """The last stream of one of its contexts has ended."""
        if not self.users and root is self.root:
            self._finish()

    def vm_started(self, root: RootContext) -> None:
        """There is a VM, with this context."""
        self.root = root

    def vm_lost(self) -> None:
        """The VM has failed or is closed: no context until the keeper has another."""
        self.root = None

    def end_if_unused(self) -> None:
        """Without a VM, a plugin that no configuration has any more has nothing to wait for."""
        if not self.users and self.root is None:
            self._finish()

    def _finish(self) -> None:
        root, self.root = self.root, None
        if root is None:
            self._gone()
        else:
            root.finish(self._drain, self._gone)

    def _gone(self) -> None:
        keeper, self.keeper = self.keeper, None
        if keeper is not None:
            keeper.remove(self)
        ended, self._ended = self._ended, []
        for call in ended:
            call()
