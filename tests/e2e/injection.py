"""Exceptions raised on purpose inside a proxy in this process: in any one function of the package, at any one call."""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FunctionType, ModuleType
from typing import Any

import twisted_wasmproxy

__all__ = ["Injected", "Injector"]

SKIPPED = {
    "__init_subclass__",
    "__class_getitem__",
    "__repr__",
    "__hash__",
    "__eq__",
    "__len__",
    "__bool__",
    "__iter__",
}


class Injected(RuntimeError):
    """Raised on purpose."""


class Injector:
    """Wraps the functions and methods of `packages` (names below the package) so that one can be made to fail."""

    def __init__(self, packages: tuple[str, ...], exempt: frozenset[str] = frozenset()) -> None:
        self.calls: Counter[str] = Counter()
        """How often each has been called since `clear`."""
        self.raised = 0
        self._target = ""
        self._at = 0
        self._thread: threading.Thread | None = None
        self._undo: list[Callable[[], None]] = []
        self._exempt = exempt
        self._packages = tuple(f"twisted_wasmproxy.{package}" for package in packages)

    def clear(self) -> None:
        self.calls.clear()

    def watch(self, thread: threading.Thread) -> None:
        """Count and fail only what `thread` calls."""
        self._thread = thread

    @contextmanager
    def failing(self, name: str, call: int) -> Iterator[None]:
        """Let the `call`-th call (from 1) of `name` raise Injected."""
        self.calls.clear()
        self.raised = 0
        self._at = call
        self._target = name
        try:
            yield
        finally:
            self._target = ""

    def _wrap(self, name: str, function: FunctionType) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapped(*args: Any, **options: Any) -> Any:
            if threading.current_thread() is self._thread:
                self.calls[name] += 1
                if name == self._target and self.calls[name] == self._at:
                    self.raised += 1
                    raise Injected(name)
            return function(*args, **options)

        return wrapped

    def install(self) -> None:
        for info in pkgutil.walk_packages(twisted_wasmproxy.__path__, "twisted_wasmproxy."):
            if info.name.startswith(self._packages):
                importlib.import_module(info.name)
        modules = {name: module for name, module in sys.modules.items() if name.startswith("twisted_wasmproxy")}
        for name, module in sorted(modules.items()):
            if name.startswith(self._packages):
                self._install_in(module, modules)

    def _install_in(self, module: ModuleType, modules: dict[str, ModuleType]) -> None:
        short = module.__name__.removeprefix("twisted_wasmproxy.")
        for key, value in list(vars(module).items()):
            if getattr(value, "__module__", None) != module.__name__:
                continue
            if isinstance(value, FunctionType):
                if f"{short}.{key}" not in self._exempt:
                    self._replace_function(value, self._wrap(f"{short}.{key}", value), modules)
            elif inspect.isclass(value):
                for method, function in list(vars(value).items()):
                    name = f"{short}.{key}.{method}"
                    if isinstance(function, FunctionType) and method not in SKIPPED and name not in self._exempt:
                        setattr(value, method, self._wrap(name, function))
                        self._undo.append(functools.partial(setattr, value, method, function))

    def _replace_function(
        self, function: FunctionType, wrapped: Callable[..., Any], modules: dict[str, ModuleType]
    ) -> None:
        for module in modules.values():
            for key, value in list(vars(module).items()):
                if value is function:
                    setattr(module, key, wrapped)
                    self._undo.append(functools.partial(setattr, module, key, function))

    def remove(self) -> None:
        for undo in self._undo:
            undo()
        self._undo.clear()
