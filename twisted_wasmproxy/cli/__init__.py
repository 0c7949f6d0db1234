"""The `wasmproxy` command: looks at configurations and modules without serving anything."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from twisted_wasmproxy import __version__

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a sub-command; return the exit status: 0, 1 where something is wrong with a file, 2 for wrong usage."""
    options = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except BrokenPipeError:  # the reader of our output (head, less) has gone
        sys.stdout = None  # or the interpreter complains at exit, when it flushes
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="wasmproxy",
        description="Check configurations of twisted-wasmproxy and look into Proxy-Wasm modules.",
        epilog="The proxy itself is run by: twistd wasmproxy --config FILE",
    )
    parser.add_argument("--version", action="version", version=f"twisted-wasmproxy {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    check = commands.add_parser(
        "check",
        help="validate configurations, their modules included, without listening",
        description="Validate each FILE: the configuration itself, every module (read, linked, compiled, started and "
        "configured), every native filter. Exit status 0 if all can be used, else 1.",
    )
    check.add_argument("files", nargs="+", type=Path, metavar="FILE", help="YAML, ours or Traffic Server's plugin form")
    check.add_argument("-q", "--quiet", action="store_true", help="print problems only")
    check.add_argument("-v", "--verbose", action="store_true", help="print what modules log, from level info")
    check.add_argument("--json", action="store_true", help="print one JSON document")
    check.set_defaults(run=_check)

    inspect = commands.add_parser(
        "inspect",
        help="say what a module needs, offers and lacks",
        description="Describe each module: ABI version, SDK, imports and exports against what this host serves, sizes. "
        "Exit status 0 if all of them can be loaded here, else 1.",
    )
    inspect.add_argument("files", nargs="+", type=Path, metavar="X.wasm")
    inspect.add_argument("--json", action="store_true", help="print one JSON document")
    inspect.set_defaults(run=_inspect)
    return parser


# Imported when run: engines and Twisted take a moment, which --help and --version need not wait for.


def _check(options: argparse.Namespace) -> int:
    from twisted_wasmproxy.cli.check import run

    return run(options.files, quiet=options.quiet, verbose=options.verbose, as_json=options.json)


def _inspect(options: argparse.Namespace) -> int:
    from twisted_wasmproxy.cli.inspect import run

    return run(options.files, as_json=options.json)
