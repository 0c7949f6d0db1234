"""`twistd wasmproxy`."""

from __future__ import annotations

from pathlib import Path

from twisted.application.service import IService
from twisted.python import usage

from twisted_wasmproxy import __version__

__all__ = ["Options", "makeService"]


class Options(usage.Options):
    """Options of `twistd wasmproxy`."""

    synopsis = "[--config FILE]"
    longdesc = "A forward and reverse HTTP proxy that runs Proxy-Wasm modules."
    optParameters = [["config", "c", None, "The configuration (YAML), or a Traffic Server wasm plugin YAML."]]

    def opt_version(self) -> None:
        """Print the version of wasmproxy."""
        print(f"twisted-wasmproxy {__version__}")
        raise SystemExit(0)

    def postOptions(self) -> None:
        if self["config"] is None:
            raise usage.UsageError("--config FILE is needed")


def makeService(options: Options) -> IService:
    """Return the service of a configuration file. Raises UsageError with everything that is wrong with it."""
    from twisted_wasmproxy.config import ConfigurationError, load
    from twisted_wasmproxy.service import ProxyService

    try:
        config = load(Path(options["config"]))
    except ConfigurationError as wrong:
        raise usage.UsageError(str(wrong)) from wrong
    if not config.listeners:
        raise usage.UsageError(f"{options['config']}: 'listeners' is empty, there is nothing to serve")
    return ProxyService(config)
