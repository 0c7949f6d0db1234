"""What can go wrong with a plugin, as exceptions."""

from __future__ import annotations

from twisted_wasmproxy.printable import printable_lines

__all__ = ["PluginError", "VMFailed"]


class PluginError(Exception):
    """A module that cannot be used; the text names the file and says what is wrong, for the operator."""

    def __init__(self, file: str, text: str) -> None:
        super().__init__(printable_lines(f"{file}: {text}"))
        self.file = file
        self.text = printable_lines(text)
        self.location: object = None
        """Where the plugin stands in the configuration, as text to be; None where that is not known."""


class VMFailed(Exception):
    """The VM that was to be called has failed, now or before; it has been logged and dealt with."""
