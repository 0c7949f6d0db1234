"""The `wasmproxy` command: looks at configurations and modules, and at the cache and the modules of a running proxy."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from twisted_wasmproxy import __version__
from twisted_wasmproxy.printable import printable_lines

if TYPE_CHECKING:
    from twisted_wasmproxy.cli.client import Client

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a sub-command; return the exit status: 0, 1 where it fails or a file is wrong, 2 for wrong usage."""
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
        description="Check configurations of twisted-wasmproxy, look into Proxy-Wasm modules, and see to the cache and "
        "the modules of a running proxy.",
        epilog="The proxy itself is run by: twistd wasmproxy --config FILE",
    )
    parser.add_argument("--version", action="version", version=f"twisted-wasmproxy {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    check = commands.add_parser(
        "check",
        help="validate configurations, their modules included, without listening",
        description="Validate each FILE: the configuration itself, every module (read, linked, compiled, started and "
        "configured), every native filter, the store of a plugin. Exit status 0 if all can be used, else 1.",
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

    _add_purge(commands)
    _add_cache(commands)
    _add_vms(commands)
    return parser


def _add_purge(commands: Commands) -> None:
    purge = commands.add_parser(
        "purge",
        help="remove stored responses from the cache of a running proxy",
        description="Purge everything that is named: all variants of each URL, and what the options say. Exit status 0 "
        "if that is done (though nothing was stored), 1 if it failed.",
    )
    purge.add_argument("urls", nargs="*", metavar="URL", help="as https://example.com/path?query")
    for option, name, text in (
        ("--prefix", "URL", "all whose URL begins so"),
        ("--host", "HOST[:PORT]", "all of a host"),
        ("--key", "KEY", "all with this surrogate key"),
    ):
        purge.add_argument(option, action="append", default=[], metavar=name, help=f"{text}; may be given again")
    purge.add_argument("--all", action="store_true", help="all there is")
    purge.add_argument("--soft", action="store_true", help="make it stale instead, so that it can still be validated")
    _add_client_options(purge)
    purge.set_defaults(run=_purge, usage_error=purge.error)


def _add_cache(commands: Commands) -> None:
    cache = commands.add_parser(
        "cache",
        help="look into the cache of a running proxy",
        description="Look into the cache of a running proxy. Exit status 0, or 1 if that fails.",
    )
    topics = cache.add_subparsers(title="commands", metavar="COMMAND", required=True)
    stats = topics.add_parser("stats", help="figures", description="Print the figures of the cache.")
    stats.set_defaults(run=_cache_stats)
    listing = topics.add_parser("ls", help="what is stored", description="List stored responses.")
    listing.add_argument("--prefix", metavar="URL", help="only those whose URL begins so")
    listing.add_argument("--host", metavar="HOST[:PORT]", help="only those of a host")
    listing.add_argument("--key", metavar="KEY", help="only those with this surrogate key")
    listing.add_argument(
        "--limit", type=int, default=100, metavar="N", help="how many at most (default: 100; no more than 1000)"
    )
    listing.set_defaults(run=_cache_ls)
    show = topics.add_parser(
        "show",
        help="all variants stored for a URL",
        description="Print all that is stored for a URL. Exit status 1 if nothing is.",
    )
    show.add_argument("url", metavar="URL")
    show.set_defaults(run=_cache_show)
    for topic in (stats, listing, show):
        _add_client_options(topic)


def _add_vms(commands: Commands) -> None:
    vms = commands.add_parser(
        "vms",
        help="traps, restarts and spares of the Wasm modules of a running proxy",
        description="Print how the VMs of a running proxy fare. Exit status 0, or 1 if that fails.",
    )
    _add_client_options(vms)
    vms.set_defaults(run=_vms)


def _add_client_options(parser: argparse.ArgumentParser) -> None:
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--admin",
        metavar="ADDRESS",
        help="where the control API is: http://HOST:PORT, unix:PATH or another endpoint "
        "(default: http://127.0.0.1:9901)",
    )
    where.add_argument("--config", type=Path, metavar="FILE", help="take that from the proxy's configuration")
    parser.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help="the token of the control API, where it has one (default: $WASMPROXY_TOKEN, or that of --config)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")


# Imported when run: engines and Twisted take a moment, which --help and --version need not wait for.


def _check(options: argparse.Namespace) -> int:
    from twisted_wasmproxy.cli.check import run

    return run(options.files, quiet=options.quiet, verbose=options.verbose, as_json=options.json)


def _inspect(options: argparse.Namespace) -> int:
    from twisted_wasmproxy.cli.inspect import run

    return run(options.files, as_json=options.json)


def _purge(options: argparse.Namespace) -> int:
    from twisted_wasmproxy.cli import cache

    selections = [
        *({"url": url} for url in options.urls),
        *({name: value} for name in ("prefix", "host", "key") for value in getattr(options, name)),
    ]
    if bool(selections) == options.all:
        options.usage_error("say what to purge: URLs, --prefix, --host, --key, or --all alone")
    return _with_client(
        options,
        lambda client: cache.purge(client, selections or [{"all": True}], soft=options.soft, as_json=options.json),
    )


def _cache_stats(options: argparse.Namespace) -> int:
    from twisted_wasmproxy.cli import cache

    return _with_client(options, lambda client: cache.stats(client, as_json=options.json))


def _cache_ls(options: argparse.Namespace) -> int:
    from twisted_wasmproxy.cli import cache

    selection = {name: getattr(options, name) for name in ("prefix", "host", "key") if getattr(options, name)}
    return _with_client(options, lambda client: cache.listing(client, selection, options.limit, as_json=options.json))


def _cache_show(options: argparse.Namespace) -> int:
    from twisted_wasmproxy.cli import cache

    return _with_client(options, lambda client: cache.show(client, options.url, as_json=options.json))


def _vms(options: argparse.Namespace) -> int:
    from twisted_wasmproxy.cli.vms import run

    return _with_client(options, lambda client: run(client, as_json=options.json))


def _with_client(options: argparse.Namespace, act: Callable[[Client], int]) -> int:
    from twisted_wasmproxy.cli.client import ClientError, client_for

    try:
        client = client_for(options.admin, options.config, options.token_file)
    except ClientError as error:
        print(printable_lines(str(error)), file=sys.stderr)
        return 1
    return act(client)
