"""`twistd wasmproxy`."""

from __future__ import annotations

import sys
from pathlib import Path
from types import TracebackType

from twisted.application.service import IService
from twisted.python import usage

from twisted_wasmproxy import __version__

__all__ = ["Options", "makeService"]


class Options(usage.Options):
    """Options of `twistd wasmproxy`."""

    synopsis = "--config FILE"
    longdesc = "A forward and reverse HTTP proxy that runs Proxy-Wasm modules."

    def __init__(self) -> None:
        usage.Options.__init__(self)
        self.files: list[Path] = []

    def opt_config(self, file: str) -> None:
        """The configuration (YAML). Or a Traffic Server wasm plugin YAML; of those several, in the order of filters."""
        self.files.append(Path(file))

    opt_c = opt_config

    def opt_version(self) -> None:
        """Print the version of wasmproxy."""
        print(f"twisted-wasmproxy {__version__}")
        raise SystemExit(0)


def _tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Tell a mistake of the operator, which ends twistd as an exception, in its own words and without a traceback."""
    from twisted_wasmproxy.service import StartError

    if isinstance(error, (usage.UsageError, StartError)) and sys.__stderr__ is not None:
        print(f"twistd wasmproxy: {error}", file=sys.__stderr__)
    else:
        sys.__excepthook__(kind, error, trace)


def makeService(options: Options) -> IService:
    """Return the service of a configuration file. Raises UsageError with everything that is wrong with it."""
    if sys.platform == "linux":
        from twisted_wasmproxy.reactor import install_unless_chosen

        install_unless_chosen()
    from twisted_wasmproxy.config import ConfigurationError, load
    from twisted_wasmproxy.service import ProxyService

    sys.excepthook = _tell
    if not options.files:  # not told while options are parsed: twistd would end with status 0
        raise usage.UsageError("--config FILE is needed")
    try:
        config = load(*options.files)
    except ConfigurationError as wrong:
        raise usage.UsageError(str(wrong)) from wrong
    if not config.listeners:
        raise usage.UsageError(f"{options.files[0]}: 'listeners' is empty, there is nothing to serve")
    return ProxyService(config)
