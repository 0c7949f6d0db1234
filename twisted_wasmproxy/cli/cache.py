"""`wasmproxy purge` and `wasmproxy cache`: what the control API says, for people to read."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from twisted_wasmproxy.cli.client import Client, ClientError
from twisted_wasmproxy.printable import printable, printable_lines

__all__ = ["listing", "purge", "show", "stats"]


def purge(client: Client, selections: Sequence[Mapping[str, object]], *, soft: bool, as_json: bool) -> int:
    """Purge what each of the selections says; return the exit status."""
    done = []
    failure: ClientError | None = None
    for selection in selections:
        try:
            answer = client.post("/cache/purge", {**selection, "soft": soft})
        except ClientError as error:
            failure = error
            break
        done.append({**selection, "purged": answer["purged"]})
    total = sum(entry["purged"] for entry in done)
    if as_json:
        print(json.dumps({"purged": total, "soft": soft, "selections": done}, indent=2))
    else:
        width = len(str(max((entry["purged"] for entry in done), default=0)))
        for entry in done:
            what = "made stale" if soft else "purged"
            print(f"{entry['purged']:>{width}} {what}: {_selection_text(entry)}")
    return 0 if failure is None else _fail(failure)


def stats(client: Client, *, as_json: bool) -> int:
    """Print the figures of the cache; return the exit status."""
    try:
        figures = client.get("/cache/stats")
    except ClientError as error:
        return _fail(error)
    if as_json:
        print(json.dumps(figures, indent=2))
    else:
        rows = list(_flat(figures))
        width = max((len(name) for name, _ in rows), default=0)
        for name, value in rows:
            print(f"{name:{width}}  {value}".rstrip())
    return 0


def listing(client: Client, selection: Mapping[str, str], limit: int, *, as_json: bool) -> int:
    """Print what is stored, a line each; return the exit status."""
    try:
        answer = client.get("/cache/entries", {**selection, "limit": str(limit)})
    except ClientError as error:
        return _fail(error)
    if as_json:
        print(json.dumps(answer, indent=2))
        return 0
    rows = [
        (
            str(entry["status"]),
            entry["state"],
            _span(entry["age"]),
            _span(entry["ttl"]),
            _size(entry["size"]),
            f"{entry['url']}{_vary_text(entry['vary'])}",
        )
        for entry in answer["entries"]
    ]
    if rows:
        print("\n".join(_table([("STATUS", "STATE", "AGE", "TTL", "SIZE", "URL"), *rows], right={2, 3, 4})))
    else:
        print("nothing is stored")
    if answer["more"]:
        print(f"... and more; --limit shows more than {limit}", file=sys.stderr)
    return 0


def show(client: Client, url: str, *, as_json: bool) -> int:
    """Print all that is stored for a URL; return the exit status."""
    try:
        answer = client.get("/cache/entry", {"url": url})
    except ClientError as error:
        return _fail(error)
    if as_json:
        print(json.dumps(answer, indent=2))
        return 0
    print(_printable(answer["url"]))
    for variant in answer["variants"]:
        print()
        for name, value in _facts(variant):
            print(f"  {name:15} {_printable(value)}")
        for name, value in (*variant["fields"], *variant["trailers"]):
            print(f"    {_printable(name)}: {_printable(value)}")
    return 0


def _facts(variant: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "status", f"{variant['status']} {variant['reason']}".rstrip()
    yield "state", _state_text(variant)
    yield "age", _span(variant["age"])
    yield "lifetime", _span(variant["lifetime"])
    if variant["stale_while_revalidate"]:
        yield "revalidated", f"in the background for {_span(variant['stale_while_revalidate'])} after that"
    if variant["stale_if_error"] and not variant["never_stale"]:
        yield "if error", f"served stale for {_span(variant['stale_if_error'])} after that"
    yield "stored", time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(variant["response_time"]))
    if variant["complete"]:
        yield "size", _size(variant["size"])
    else:
        parts = ", ".join(f"{start}-{stop - 1}" for start, stop in variant["parts"])
        whole = "unknown" if variant["length"] is None else _size(variant["length"])
        yield "size", f"{_size(variant['size'])} of {whole}: bytes {parts or 'none'}"
    if variant["vary"]:
        yield "for", _vary_text(variant["vary"]).strip(" ()")
    if variant["surrogate_keys"]:
        yield "surrogate keys", " ".join(variant["surrogate_keys"])
    if variant["authorized"]:
        yield "authorization", "the request had it"
    yield "key", variant["key"]


def _state_text(variant: Mapping[str, Any]) -> str:
    state, ttl = variant["state"], variant["ttl"]
    if variant["purged"]:
        return "stale, by a soft purge"
    if state == "fresh":
        return f"fresh for {_span(ttl)}{', whatever a reload asks' if variant['immutable'] else ''}"
    if state == "stale":
        return f"stale for {_span(-ttl)}"
    return "validated before each use"


# For reading


def _fail(error: ClientError) -> int:
    print(printable_lines(str(error)), file=sys.stderr)
    return 1


def _printable(value: object) -> str:
    return printable(str(value))


def _selection_text(entry: Mapping[str, object]) -> str:
    names = {"url": "", "prefix": "below ", "host": "host ", "key": "key "}
    return next((f"{names[name]}{_printable(entry[name])}" for name in names if name in entry), "everything")


def _vary_text(vary: Mapping[str, str | None]) -> str:
    if not vary:
        return ""
    return f"  ({', '.join(f'{name}: {value}' if value is not None else f'no {name}' for name, value in vary.items())})"


def _flat(figures: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in figures.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield _printable(f"{prefix}{name}"), _figure(name, value)


def _figure(name: str, value: object) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, int) and name.endswith(("bytes", "capacity", "size")):
        return f"{value} ({_size(value)})" if value >= 1024 else str(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    return _printable(value)


def _table(rows: Sequence[Sequence[str]], right: set[int]) -> Iterator[str]:
    rows = [[_printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (
            f"{cell:>{width}}" if index in right else f"{cell:{width}}"
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join(cells).rstrip()


def _span(seconds: float) -> str:
    """Return a time in its two largest units: `2d 3h`, `59m 10s`, `0.3s`."""
    sign = "-" if seconds <= -0.05 else ""
    seconds = abs(seconds)
    if seconds < 10:
        return f"{sign}{round(seconds, 1):g}s"
    rest = int(seconds)
    parts: list[str] = []
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        number, rest = divmod(rest, length)
        if number or parts:
            parts.append(f"{number}{unit}")
    return sign + " ".join(part for part in parts[:2] if not part.startswith("0"))


def _size(number: int) -> str:
    for unit, factor in (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if number >= factor:
            return f"{number / factor:.1f} {unit}"
    return f"{number} B"
