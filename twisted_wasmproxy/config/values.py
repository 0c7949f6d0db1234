"""Parsers of single values: text, numbers, sizes, durations, networks, URLs, patterns, files."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from yaml.nodes import MappingNode, ScalarNode, SequenceNode

from twisted_wasmproxy.config import document
from twisted_wasmproxy.config.expressions import Expression, compile_expression
from twisted_wasmproxy.config.model import Network, ServerConfig
from twisted_wasmproxy.config.reader import Parser, Place, T

__all__ = [
    "boolean",
    "choice",
    "duration",
    "existing_file",
    "field_value",
    "folder",
    "host_pattern",
    "integer",
    "method",
    "network",
    "number",
    "optional",
    "path_in_existing_folder",
    "pattern",
    "plain",
    "port",
    "relative",
    "scalar",
    "server",
    "size",
    "text",
    "token",
]

_UNITS: dict[str, int] = {"": 1, "B": 1} | {
    f"{letter}{suffix}": int(base**power)
    for power, letter in enumerate("KMGT", 1)
    for suffix, base in (("iB", 1024), ("B", 1000))
}
_SIZE = re.compile(r"(\d{1,18}) ?([A-Za-z]*)")
_SECONDS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d{1,12}(?:\.\d{1,9})?) ?([a-z]*)")
_INTEGER = re.compile(r"[-+]?\d{1,18}")
_NUMBER = re.compile(r"\d{1,12}(?:\.\d{1,12})?")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HOST = re.compile(r"(?:\*\.)?[a-z0-9_](?:[a-z0-9_.-]{0,252}[a-z0-9_])?\.?")
_BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def scalar(place: Place) -> str:
    """Any single value as it is written; an empty one (null) is the empty text."""
    if not isinstance(place.node, ScalarNode):
        place.expected("text")
    return "" if place.node.tag.endswith(":null") else str(place.node.value)


def text(place: Place) -> str:
    """Text; a number or a boolean is taken as it is written."""
    return _plain_text(place, "text")


def _plain_text(place: Place, what: str) -> str:
    if not isinstance(place.node, ScalarNode) or place.node.tag.endswith(":null"):
        place.expected(what)
    return str(place.node.value)


def boolean(place: Place) -> bool:
    value = place.node.value
    if not isinstance(place.node, ScalarNode) or not place.node.tag.endswith(":bool"):
        place.expected("true or false")
    return _BOOLEANS[value.lower()]


def integer(minimum: int, maximum: int | None = None) -> Parser[int]:
    """A whole number within bounds."""
    what = f"a whole number from {minimum} to {maximum}" if maximum is not None else f"a whole number from {minimum} up"

    def parse(place: Place) -> int:
        node = place.node
        if not isinstance(node, ScalarNode) or not node.tag.endswith(":int") or not _INTEGER.fullmatch(node.value):
            place.expected(what)
        value = int(node.value)
        if value < minimum or (maximum is not None and value > maximum):
            place.expected(what)
        return value

    return parse


port = integer(1, 65535)


def number(minimum: float, maximum: float) -> Parser[float]:
    """A number within bounds, whole or with decimals."""
    what = f"a number from {minimum:g} to {maximum:g}"

    def parse(place: Place) -> float:
        if not _NUMBER.fullmatch(_plain_text(place, what)) or not minimum <= float(place.node.value) <= maximum:
            place.expected(what)
        return float(place.node.value)

    return parse


def size(minimum: int = 0) -> Parser[int]:
    """Bytes: `4096`, `64KiB`, `10MB`."""

    def parse(place: Place) -> int:
        what = "a size in bytes such as 65536, 64KiB or 10MB"
        match = _SIZE.fullmatch(_plain_text(place, what))
        if match is None:
            place.expected(what)
        unit = _UNITS.get(match[2])
        if unit is None:
            place.reject(f"unknown unit {match[2]!r}; known: {', '.join(filter(None, _UNITS))}")
        value: int = int(match[1]) * unit
        if value < minimum:
            place.reject(f"must be at least {minimum} bytes")
        return value

    return parse


def duration(minimum: float = 0.0) -> Parser[float]:
    """Seconds: `30`, `1.5`, `500ms`, `30s`, `5m`, `1h`."""

    def parse(place: Place) -> float:
        what = "a time such as 30s, 1.5, 500ms or 5m"
        match = _DURATION.fullmatch(_plain_text(place, what))
        if match is None:
            place.expected(what)
        unit = _SECONDS.get(match[2])
        if unit is None:
            place.reject(f"unknown unit {match[2]!r}; known: {', '.join(filter(None, _SECONDS))}")
        value = float(match[1]) * unit
        if value < minimum:
            place.reject(f"must be at least {minimum:g} s")
        return value

    return parse


def choice(*allowed: str) -> Parser[Any]:
    def parse(place: Place) -> str:
        if not isinstance(place.node, ScalarNode) or place.node.value not in allowed:
            place.expected(f"one of {', '.join(allowed)}")
        return str(place.node.value)

    return parse


def optional(parser: Parser[T]) -> Callable[[Place], T | None]:
    """`null` for None, anything else as `parser` has it."""

    def parse(place: Place) -> T | None:
        if isinstance(place.node, ScalarNode) and place.node.tag.endswith(":null"):
            return None
        return parser(place)

    return parse


def token(place: Place) -> str:
    """A token (RFC 9110 section 5.6.2)."""
    value = text(place)
    if not _TOKEN.fullmatch(value):
        place.expected("a token (letters, digits and !#$%&'*+-.^_`|~)")
    return value


method = token


def field_value(place: Place) -> str:
    """A field value (RFC 9110 section 5.5) in ASCII."""
    value = text(place)
    if not value.isascii() or not value.isprintable() or value != value.strip() or not value:
        place.expected("printable ASCII text")
    return value


def network(place: Place) -> Network:
    """An address, or a network as `10.0.0.0/8`."""
    value = _plain_text(place, "a network such as 10.0.0.0/8 or ::1")
    try:
        return ipaddress.ip_network(value)
    except ValueError as error:
        place.reject(f"is not a network: {error}")


def host_pattern(place: Place) -> str:
    """A host name, an IP address, or `*.domain`; lower case in the result, without a root dot."""
    value = text(place).lower()
    if not value.isascii():
        place.reject("write an internationalised name in its ASCII form (xn--...)")
    try:
        return str(ipaddress.ip_address(value.removeprefix("[").removesuffix("]")))
    except ValueError:
        pass
    if not _HOST.fullmatch(value) or ".." in value:
        place.expected("a host name without port, or *.domain")
    return value.removesuffix(".")


def pattern(place: Place) -> Expression:
    """A regular expression of Python's `re`, for bytes."""
    try:
        expression, reason = compile_expression(text(place).encode())
    except ValueError as error:
        place.reject(f"is not a regular expression: {error}")
    if reason:
        place.warn(
            f"is matched by Python's re, which for some requests may take very long: RE2 cannot serve it ({reason})"
        )
    return expression


def server(place: Place) -> ServerConfig:
    """`http://host:port` or `https://host:port`; the port may be left out."""
    what = "a URL such as http://127.0.0.1:8000 or https://origin.example"
    value = _plain_text(place, what)
    try:
        url = urlsplit(value)
        number = url.port
    except ValueError as error:
        place.reject(f"is not a URL: {error}")
    if url.scheme not in ("http", "https") or not url.hostname:
        place.expected(what)
    if (
        url.path not in ("", "/")
        or url.query
        or url.fragment
        or url.username is not None
        or "?" in value
        or "#" in value
    ):
        place.reject("must name only scheme, host and port")
    host = url.hostname
    try:
        host = str(ipaddress.ip_address(host))
    except ValueError:
        if not _HOST.fullmatch(host) or host.startswith("*") or ".." in host:
            place.reject(f"is not a host name: {host!r}")
    if number == 0:
        place.reject("port 0 cannot be connected to")
    return ServerConfig(host, number or (443 if url.scheme == "https" else 80), url.scheme == "https")


def relative(place: Place, value: str) -> Path:
    """Return a path that may be relative to the file that names it."""
    if "\0" in value:
        place.reject("a path cannot have a NUL character")
    try:
        return place.file.parent / Path(value).expanduser()
    except RuntimeError as error:  # no such user, or no home
        place.reject(f"{value}: {error}")


def existing_file(place: Place) -> Path:
    value = _plain_text(place, "the path of a file")
    if not value:
        place.expected("the path of a file")
    path = relative(place, value)
    try:
        if path.is_dir():
            place.reject(f"is a directory, not a file: {path}")
        with path.open("rb"):
            return path
    except FileNotFoundError:
        place.reject(f"no such file: {path}")
    except OSError as error:
        place.reject(f"cannot be read: {path}: {error.strerror}")


def path_in_existing_folder(place: Place) -> Path:
    """A file that may be made."""
    value = _plain_text(place, "a path")
    if not value:
        place.expected("a path")
    path = relative(place, value)
    try:
        if path.is_dir():
            place.reject(f"is a directory, not a file: {path}")
        if not path.parent.is_dir():
            place.reject(f"no such directory: {path.parent}")
    except OSError as error:
        place.reject(f"cannot be used: {path}: {error.strerror}")
    return path


def folder(place: Place) -> Path:
    """A folder that is there, or may be made in one that is."""
    value = _plain_text(place, "the path of a directory")
    if not value:
        place.expected("the path of a directory")
    path = relative(place, value)
    try:
        if path.exists() and not path.is_dir():
            place.reject(f"is not a directory: {path}")
        if not path.parent.is_dir():
            place.reject(f"no such directory: {path.parent}")
    except OSError as error:
        place.reject(f"cannot be used: {path}: {error.strerror}")
    return path


# What a JSON document of the same spelling would have: YAML 1.1 would make true of `on`, 83 of `1:23` and a date of
# `2001-01-01`, which nobody means in settings that are passed on.
_JSON_WORDS = {"true": True, "false": False, "null": None, "~": None, "": None}
_JSON_INTEGER = re.compile(r"-?(?:0|[1-9]\d{0,999})")
_JSON_FLOAT = re.compile(r"-?(?:0|[1-9]\d{0,399})(?:\.\d{1,400})?(?:[eE][-+]?\d{1,3})?")


def plain(place: Place) -> object:
    """Any value as the plain object it would be in JSON."""
    node = place.node
    if isinstance(node, MappingNode):
        return {str(name.value): plain(place.entry(name, value)) for name, value in document.pairs(node)}
    if isinstance(node, SequenceNode):
        return [plain(place.item(index, item)) for index, item in enumerate(node.value)]
    value = str(node.value)
    if node.tag.endswith(":str"):
        return value
    if value.lower() in _JSON_WORDS:
        return _JSON_WORDS[value.lower()]
    if _JSON_INTEGER.fullmatch(value):
        return int(value)
    if _JSON_FLOAT.fullmatch(value):
        return float(value)
    return value


def as_json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
