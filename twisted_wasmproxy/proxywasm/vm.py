"""A VM: one instance of a module, entered by one call at a time, with the contexts that live in it.

Everything that a host call asks of another stream than the one being shown, and `proxy_done`, waits in a queue until
the outermost call into the guest has returned; so no call ever finds the guest busy. A trap, a time-out or an exit
fails the VM for good: no more calls go in, its owner is told, and the streams that it held are let go or refused.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted_wasmproxy.logs import Logger
from twisted_wasmproxy.printable import printable
from twisted_wasmproxy.proxywasm.abi import CALLBACKS, Status, Version
from twisted_wasmproxy.proxywasm.contexts import Context, RootContext, StreamContext, stream_context
from twisted_wasmproxy.proxywasm.errors import PluginError, VMFailed
from twisted_wasmproxy.proxywasm.linker import HostError, link
from twisted_wasmproxy.proxywasm.logs import Voice
from twisted_wasmproxy.proxywasm.memory import table_share
from twisted_wasmproxy.runtimes.interface import (
    Exit,
    FunctionType,
    Instance,
    Limits,
    LinkError,
    MemoryFault,
    RuntimeFault,
    Trap,
)

if TYPE_CHECKING:
    from twisted_wasmproxy.proxywasm.module import ProxyModule
    from twisted_wasmproxy.proxywasm.plugin import Plugin
    from twisted_wasmproxy.proxywasm.services import Services

__all__ = ["VM", "Callbacks"]

_log = Logger()

_LAST_ID = 0xFFFFFFFF
_DEFERRED_AT_MOST = 8
"""Actions for each context: each of its two directions can be resumed, answered or reset, and that once."""


class Callbacks:
    """The callbacks that a module exports and this host calls, each a callable or None; names without `proxy_`."""

    __slots__ = tuple(name.removeprefix("proxy_") for name, callback in CALLBACKS.items() if callback.called)

    on_context_create: Any
    on_vm_start: Any
    on_configure: Any
    on_tick: Any
    on_request_headers: Any
    on_request_body: Any
    on_request_trailers: Any
    on_response_headers: Any
    on_response_body: Any
    on_response_trailers: Any
    on_queue_ready: Any
    on_done: Any
    on_log: Any
    on_delete: Any

    def __init__(self, instance: Instance, allowed: frozenset[str] | None) -> None:
        for name, callback in CALLBACKS.items():
            if not callback.called:
                continue
            function = None
            function_type = instance.exports.get(name)
            if (
                function_type is not None
                and callback.fits(function_type.params, function_type.results)
                and (allowed is None or name in allowed)
            ):
                function = _fitted(instance.function(name), len(function_type.params), callback.arities[0])
            setattr(self, name.removeprefix("proxy_"), function)

    def name_of(self, function: object) -> str:
        """Return the export name of one of these."""
        return next((f"proxy_{name}" for name in self.__slots__ if getattr(self, name) is function), "a call")


def _fitted(function: Any, arity: int, present: int) -> Any:
    """Return `function`, or, where it takes less than the present version passes, one that drops the rest."""
    if arity == present:
        return function
    return lambda *args: function(*args[:arity])


class VM:
    """One instance of a module."""

    __slots__ = (
        "_closed",
        "_deferred",
        "_fresh_id",
        "_instance",
        "_next_id",
        "_running_deferred",
        "_tables",
        "allocator",
        "calls",
        "check_deadline",
        "check_range",
        "configuration",
        "contexts",
        "effective",
        "entered",
        "environment",
        "failed",
        "file",
        "malloc",
        "memory",
        "missing",
        "module",
        "name",
        "none",
        "on_failure",
        "overran",
        "read",
        "read_u32",
        "services",
        "standing_by",
        "stream_class",
        "version",
        "vm_id",
        "voice",
        "write",
        "write_u32",
    )

    malloc: Callable[[int], Any]
    check_deadline: Callable[[], None]
    """Raises Trap where the call has taken longer than its limit: for host calls that work for long."""
    check_range: Callable[[int, int], None]
    """Raises MemoryFault where so many bytes at an address are not in memory."""
    read: Callable[[int, int], bytes]
    write: Callable[[int, bytes], None]
    read_u32: Callable[[int], int]
    write_u32: Callable[[int, int], None]

    def __init__(
        self,
        module: ProxyModule,
        services: Services,
        on_failure: Callable[[VM], None],
        *,
        standing_by: bool = False,
    ) -> None:
        """Instantiate and initialise the module. Raises PluginError.

        `on_failure` is called inside the call that fails, before streams are let go or refused.
        """
        options = module.options
        self.module = module
        self.services = services
        self.on_failure = on_failure
        self.file = module.file
        self.name = module.name
        self.version = module.version
        self.vm_id = options.vm_id
        self.configuration = options.configuration
        self.environment = options.environment
        self.voice = Voice(services.log_level, module.name, vm_id=options.vm_id)
        self.missing: Status | bytes = b"" if module.version is Version.V0_1_0 else Status.NOT_FOUND
        """What a header that is not there reads as."""
        self.contexts: dict[int, Context] = {}
        self.none = Context(self)
        """The VM's own context."""
        self.allocator = Context(self)
        """What host calls act on while the guest's allocator runs."""
        self.effective: Context = self.none
        """The context that host calls act on."""
        self.entered: Context | None = None
        """The context of the call that is going on."""
        self.failed: str | None = None
        """Why the VM may not be called any more."""
        self.overran = False
        """Whether it failed by running into `cpu_limit` in a callback that no stream asked for."""
        self.standing_by = standing_by
        """Whether it does not serve yet: its timers do not run, and it is not told of queues."""
        self._deferred: deque[Callable[[], None]] = deque()
        self._running_deferred = False
        self._closed = False
        self._next_id = self._fresh_id = 1
        self.memory = services.host_memory(module.key, options.host_memory, module.name)
        """What the host may keep for it."""
        self.read = self.write = self.read_u32 = self.write_u32 = self.check_range = _no_memory
        self.check_deadline = _no_deadline
        self.malloc = _no_allocator

        host_functions = link(self, module.imports, options.capabilities, options.lax_imports)
        elements, self._tables = table_share(module.tables, options.host_memory)
        limits = Limits(options.memory_limit, options.cpu_limit, elements)
        try:
            instance = module.code.instantiate(host_functions, limits)
        except LinkError as error:
            raise PluginError(self.file, printable(str(error))) from error
        except (RuntimeFault, Exit) as error:
            raise PluginError(
                self.file, f"cannot be instantiated: {printable(str(error))}{_backtrace(error)}"
            ) from error
        self._instance = instance
        self.memory.take_always(self._tables)
        self.check_deadline, self.check_range = instance.check_deadline, instance.check_range
        self.read, self.write = instance.read, instance.write
        self.read_u32, self.write_u32 = instance.read_u32, instance.write_u32
        for name in ("proxy_on_memory_allocate", "malloc"):
            if instance.exports.get(name) == FunctionType(("i32",), ("i32",)):
                self.malloc = instance.function(name)
                break
        self.calls = Callbacks(instance, options.capabilities)
        self.stream_class = stream_context(self.calls)
        try:
            self._initialise()
        except Exception:  # of the engine, too: what it has taken is given back
            self.close()
            raise

    def _initialise(self) -> None:
        instance, exports = self._instance, self._instance.exports
        if self.module.start_function is not None:
            self.call_at_start(self.none, instance.function(self.module.start_function))
        if exports.get("_initialize") == FunctionType((), ()):
            self.call_at_start(self.none, instance.function("_initialize"))
            if exports.get("main") == FunctionType(("i32", "i32"), ("i32",)):
                self.call_at_start(self.none, instance.function("main"), 0, 0)
            elif "__main_void" in exports:
                self.call_at_start(self.none, instance.function("__main_void"))
        elif exports.get("_start") == FunctionType((), ()):
            self.call_at_start(self.none, instance.function("_start"))

    def start_plugin(self, plugin: Plugin) -> RootContext:
        """Start a plugin in this VM and return its context. Raises PluginError; the VM is then to be closed."""
        root = RootContext(self, plugin)
        served = self.served
        try:
            root.start()
        except PluginError:
            root.drop()
            raise
        if not served:
            self._fresh_id = self._next_id
        return root

    @property
    def served(self) -> bool:
        """Whether a stream has been shown to it."""
        return self._next_id != self._fresh_id

    def enter_service(self) -> None:
        """It becomes the VM of its plugins: start what has waited for that."""
        self.standing_by = False
        for context in list(self.contexts.values()):
            if isinstance(context, RootContext):
                context.enter_service()

    def call(self, context: Context, function: Any, *args: int) -> Any:
        """Call an exported function for a context. Raises VMFailed, also where the VM has failed before."""
        if self.failed is not None:
            raise VMFailed
        if self.entered is not None:
            raise RuntimeError(f"{self.name} is called while it is in a call")
        self.entered = self.effective = context
        try:
            return function(*args)
        except (RuntimeFault, Exit) as error:
            self._fail(self.calls.name_of(function), error)
            raise VMFailed from error
        finally:
            self.entered = None
            self.effective = self.none
            if self._deferred and not self._running_deferred:
                self._run_deferred()

    def call_at_start(self, context: Context, function: Any, *args: int) -> int:
        """Call while the VM or a plugin is being started. Raises PluginError; an exit with 0 counts as a return."""
        self.entered = self.effective = context
        try:
            result: int | None = function(*args)
            return 0 if result is None else result
        except Exit as error:
            if error.code == 0 and context is self.none:
                return 0
            self.failed = f"exited with {error.code}"
            raise PluginError(self.file, f"exited with {error.code} while it was started") from error
        except RuntimeFault as error:
            self.failed = printable(str(error))
            name = self.calls.name_of(function) if context is not self.none else "its initialisation"
            raise PluginError(self.file, f"{name} failed: {self.failed}{_backtrace(error)}") from error
        finally:
            self.entered = None
            self.effective = self.none
            if self._deferred and not self._running_deferred:
                self._run_deferred()

    def allocate(self, size: int) -> int:
        """Get `size` bytes from the guest's allocator. Raises HostError where there is none or it has none.

        While it runs, host calls act on a context on which nothing hangs.
        """
        effective = self.effective
        self.effective = self.allocator
        address: int = self.malloc(size)
        self.effective = effective
        if not address:
            raise HostError(Status.INVALID_MEMORY)
        return address

    def defer(self, action: Callable[[], None]) -> None:
        """Do `action` once no call is going on: now, if there is none."""
        self._deferred.append(action)
        if self.entered is None and not self._running_deferred:
            self._run_deferred()

    def defer_asked(self, action: Callable[[], None]) -> None:
        """Do as `defer` does what a guest asks for. Raises HostError where it has asked for more than there can be."""
        if len(self._deferred) > _DEFERRED_AT_MOST * (len(self.contexts) + 1):
            raise HostError(Status.INTERNAL_FAILURE)
        self.defer(action)

    def too_large(self, address: int, size: int, status: int) -> bytes:
        """Refuse an argument of more bytes than its host function takes: always raises."""
        self.check_range(address, size)
        raise HostError(Status(status))

    def cut(self, address: int, size: int, most: int) -> bytes:
        """Read the first `most` bytes of an argument that is longer than that."""
        self.check_range(address, size)
        return self.read(address, most)

    def _run_deferred(self) -> None:
        # In one loop, however the actions lead to each other, so that a thousand do not nest.
        self._running_deferred = True
        try:
            while self._deferred:
                action = self._deferred.popleft()
                try:
                    action()
                except Exception:  # of one stream: the others are to be dealt with all the same
                    _log.failure("{vm}: an action on a stream failed", vm=self.name)
        finally:
            self._running_deferred = False

    def new_id(self, context: Context) -> int:
        """Return an id for a context, and remember the context by it. Ids count up and are not used again."""
        while self._next_id in self.contexts:
            self._next_id = self._next_id % _LAST_ID + 1
        new = self._next_id
        self._next_id = new % _LAST_ID + 1
        self.contexts[new] = context
        return new

    def memory_size(self) -> int:
        """Return the size of the guest's memory in bytes."""
        return self._instance.memory_size()

    def close(self) -> None:
        """Let go of the instance; nothing goes in any more."""
        if self._closed:
            return
        self._closed = True
        if self.failed is None:
            self.failed = "closed"
        for context in list(self.contexts.values()):
            if isinstance(context, RootContext):
                context.drop()
        self._instance.close()
        self.memory.give(self._tables)

    def _fail(self, function: str, error: Exception) -> None:
        self.failed = text = printable(str(error))
        _log.error(
            "{vm}: {function} failed: {text}{backtrace}",
            vm=self.name,
            file=self.file,
            function=function,
            text=text,
            backtrace=_backtrace(error),
        )
        self.overran = isinstance(error, Trap) and error.timed_out and not isinstance(self.entered, StreamContext)
        self.let_go()

    def let_go(self) -> None:
        """It has failed: tell its owner at once, and its streams once no call is going on; then close it."""
        self.on_failure(self)
        entered = self.entered
        for context in list(self.contexts.values()):
            if isinstance(context, StreamContext) and context is not entered:
                self.defer(context.vm_failed)
        self.defer(self.close)


def _no_memory(*args: Any) -> Any:
    raise MemoryFault("there is no instance yet")


def _no_deadline() -> None:
    pass


def _no_allocator(size: int) -> int:
    raise HostError(Status.INVALID_MEMORY)


def _backtrace(error: Exception) -> str:
    frames = error.backtrace if isinstance(error, Trap) else ()
    return "".join(f"\n    at {printable(frame)}" for frame in frames[:20])
