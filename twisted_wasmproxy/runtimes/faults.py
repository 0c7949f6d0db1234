"""How an exception of a host function comes out of the call into the guest that it ends."""

from __future__ import annotations

from twisted_wasmproxy.runtimes.interface import Exit, Trap

__all__ = ["BACKTRACE_FRAMES", "one_line", "overdue", "surfaced"]

BACKTRACE_FRAMES = 20
"""Frames kept of a backtrace."""


def surfaced(raised: BaseException, backtrace: tuple[str, ...]) -> BaseException:
    """Return what to raise for it.

    Exit, the Trap of a nested call, and what is not an Exception (KeyboardInterrupt) stay what they are; any other
    exception becomes the cause of a Trap.
    """
    if isinstance(raised, (Exit, Trap)) or not isinstance(raised, Exception):
        return raised
    trap = Trap(f"a host function raised {type(raised).__name__}: {raised}", backtrace=backtrace)
    trap.__cause__ = raised
    return trap


def overdue(limit: float, backtrace: tuple[str, ...] = ()) -> Trap:
    """Return what to raise for a call that has taken longer than its limit in seconds."""
    return Trap(f"interrupted: the call took longer than {limit:g} s", timed_out=True, backtrace=backtrace)


def one_line(text: str) -> str:
    """Fold white space, for texts that go to a log."""
    return " ".join(text.split())
