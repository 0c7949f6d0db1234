"""The schema of the configuration file, table by table; filters are in `config/filters.py`."""

from __future__ import annotations

import dataclasses
import re
import ssl
from pathlib import Path
from typing import Any

from yaml.nodes import ScalarNode, SequenceNode

from twisted_wasmproxy.accesslog.format import FormatError, compile_format
from twisted_wasmproxy.config.cache import CACHE, RULES, RuleValues
from twisted_wasmproxy.config.endpoints import endpoint, for_owner_alone, only_this_machine
from twisted_wasmproxy.config.filters import FILTER
from twisted_wasmproxy.config.model import (
    AccessLogConfig,
    AdminConfig,
    HeadersConfig,
    HealthConfig,
    Network,
    RedirectConfig,
    RemapConfig,
    ServerConfig,
    UpstreamConfig,
    UpstreamTLSConfig,
)
from twisted_wasmproxy.config.reader import Either, Key, ListOf, MapOf, Place, Record, Then
from twisted_wasmproxy.config.tokens import TOKEN_KEYS, take_token
from twisted_wasmproxy.config.values import (
    boolean,
    choice,
    duration,
    existing_file,
    field_value,
    host_pattern,
    integer,
    network,
    optional,
    path_in_existing_folder,
    pattern,
    port,
    relative,
    server,
    size,
    text,
    token,
)

__all__ = ["LEVELS", "LIMITS", "TIMEOUTS", "TOP"]

LEVELS = ("debug", "info", "warn", "error", "critical")
"""Levels of twisted.logger."""

# Listeners

_ACCESS = Record(
    {
        "allow_clients": Key(ListOf(network)),
        "deny_clients": Key(ListOf(network)),
        "connect_ports": Key(ListOf(port)),
        "ports": Key(ListOf(port)),
        "deny_destinations": Key(ListOf(network)),
        "allow_destinations": Key(ListOf(network)),
        "allow_own_listeners": Key(boolean),
        "deny_hosts": Key(ListOf(host_pattern)),
        "allow_hosts": Key(ListOf(host_pattern)),
    }
)

LIMITS = Record(
    {
        "request_line": Key(size(64)),
        "header_bytes": Key(size(256)),
        "header_count": Key(integer(1)),
        "underscores": Key(choice("drop", "refuse", "pass")),
        "body": Key(size()),
        "min_rate": Key(size()),
        "connections": Key(integer(1)),
        "connections_per_client": Key(integer(0)),
        "buffer": Key(size(1024)),
    }
)

TIMEOUTS = Record(
    {
        "header": Key(duration(0.001)),
        "keep_alive": Key(duration(0.001)),
        "idle": Key(duration(0.001)),
        "total": Key(duration()),
        "tunnel": Key(duration(0.001)),
        "drain": Key(duration()),
    }
)


def _mode(place: Place) -> str:
    if isinstance(place.node, ScalarNode) and place.node.value == "tcp":
        place.reject("mode tcp is not supported yet; there are reverse and forward")
    return str(choice("reverse", "forward")(place))


def _peers(place: Place) -> Network | None:
    """A network, or `unix:` for the peers of a Unix socket (None), as nginx writes it."""
    if isinstance(place.node, ScalarNode) and place.node.value == "unix:":
        return None
    return network(place)


def _listener(values: dict[str, Any], place: Place) -> dict[str, Any]:
    forward = values.get("mode") == "forward"
    if not forward and "access" in values:
        place.at("access").reject("belongs to a listener of mode: forward")
    if forward and "trusted_proxies" in values:
        place.at("trusted_proxies").reject("belongs to a listener of mode: reverse; here the client names the scheme")
    return {**values, "location": place.location}


LISTENER = Then(
    Record(
        {
            "endpoint": Key(endpoint, required=True),
            "mode": Key(_mode),
            "access": Key(_ACCESS),
            "trusted_proxies": Key(ListOf(_peers)),
            "limits": Key(LIMITS),
            "timeouts": Key(TIMEOUTS),
        }
    ),
    _listener,
)


# Upstreams


def _hash_on(place: Place) -> str:
    value = text(place)
    if value in ("path", "host", "source"):
        return value
    kind, _, name = value.partition(":")
    if kind != "header" or not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
        place.expected("path, host, source or header:NAME")
    return value


def _client_certificate(place: Place) -> Path:
    path = existing_file(place)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(path, password="")
    except (OSError, ValueError) as error:
        place.reject(f"is not a PEM file of a certificate with its unencrypted key: {path}: {error}")
    return path


def _trust_roots(place: Place) -> Path:
    path = existing_file(place)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except (OSError, ValueError) as error:
        place.reject(f"is not a PEM file of certificates: {path}: {error}")
    return path


def _weighted_server(values: dict[str, Any], _: Place) -> ServerConfig:
    url: ServerConfig = values["url"]
    return dataclasses.replace(url, weight=values.get("weight", 1))


_SERVER = Either(
    ScalarNode,
    server,
    Then(Record({"url": Key(server, required=True), "weight": Key(integer(1, 1000))}), _weighted_server),
)


def _upstream(values: dict[str, Any], place: Place) -> UpstreamConfig:
    if "hash_on" in values and values.get("balance") != "consistent_hash":
        place.at("hash_on").reject("belongs to balance: consistent_hash")
    name = place.key.removeprefix("upstreams.")
    return UpstreamConfig(name=name, location=place.location, **values)


_UPSTREAM = Then(
    Record(
        {
            "servers": Key(ListOf(_SERVER, empty=False), required=True),
            "balance": Key(choice("round_robin", "least_connections", "consistent_hash")),
            "hash_on": Key(_hash_on),
            "connect_timeout": Key(duration(0.001)),
            "max_connections": Key(integer(1)),
            "max_idle": Key(integer(0)),
            "idle_timeout": Key(duration(0.001)),
            "retries": Key(integer(0, 100)),
            "health": Key(
                Then(
                    Record(
                        {
                            "max_failures": Key(integer(1)),
                            "rest": Key(duration(0.001)),
                            "max_rest": Key(duration(0.001)),
                        }
                    ),
                    lambda values, _: HealthConfig(**values),
                )
            ),
            "tls": Key(
                Then(
                    Record(
                        {
                            "verify": Key(boolean),
                            "ca_file": Key(_trust_roots),
                            "server_name": Key(host_pattern),
                            "certificate": Key(_client_certificate),
                        }
                    ),
                    lambda values, _: UpstreamTLSConfig(**values),
                )
            ),
        }
    ),
    _upstream,
)


# Remap rules

_VARIABLE = re.compile(r"\$(?:(\$)|\{(\w+)\}|([0-9]{1,2}|[A-Za-z_]+))?")
_VARIABLES = ("host", "path", "query", "scheme")


def _path_prefix(place: Place) -> str:
    value = text(place)
    if not value.startswith("/") or not value.isascii() or not value.isprintable() or " " in value:
        place.expected("a path prefix that begins with / (other characters percent-encoded)")
    return value


_MATCH = Record(
    {
        "host": Key(host_pattern),
        "path": Key(_path_prefix),
        "regex": Key(pattern),
        "methods": Key(ListOf(token, empty=False)),
    }
)


def _variables(template: str) -> list[str]:
    """Return the names of the variables in a template; `$$` is a dollar, a lone `$` has the empty name."""
    return [braced or plain for dollar, braced, plain in _VARIABLE.findall(template) if not dollar]


def _template(place: Place) -> str:
    value = text(place)
    if not value or not value.isascii() or not value.isprintable() or " " in value:
        place.expected("text in ASCII without spaces (other characters percent-encoded)")
    for name in _variables(value):
        if not name.isdigit() and name not in _VARIABLES:
            known = ", ".join(f"${known}" for known in _VARIABLES)
            place.reject(f"${name}: no such variable; there are {known}, $1 and so on, and $$ for a dollar")
    return value


_REDIRECT = Either(
    ScalarNode,
    Then(_template, lambda to, _: RedirectConfig(to)),
    Then(
        Record({"to": Key(_template, required=True), "status": Key(integer(300, 399))}),
        lambda values, _: RedirectConfig(**values),
    ),
)


def _remap(values: dict[str, Any], place: Place) -> tuple[RemapConfig, RuleValues | None]:
    cache: RuleValues | None = values.pop("cache", None)
    rule = RemapConfig(**values.pop("match", {}), **values, location=place.location)
    outcomes = [key for key in ("upstream", "redirect", "respond") if key in values]
    if len(outcomes) != 1:
        given = f", not {' and '.join(outcomes)}" if outcomes else ""
        place.reject(f"must say one of upstream, redirect or respond{given}")
    if outcomes != ["upstream"]:
        for key in ("rewrite", "preserve_host", "cache"):
            if key in values or (key == "cache" and cache is not None):
                place.at(key).reject("belongs to a rule with 'upstream'")
    if rule.rewrite is not None and rule.regex is None and not rule.rewrite.startswith("/"):
        place.at("rewrite").reject("must begin with / (what follows 'regex' may begin otherwise)")
    groups = rule.regex.groups if rule.regex else -1
    for key, template in (("rewrite", rule.rewrite), ("redirect", rule.redirect and rule.redirect.to)):
        for name in _variables(template or ""):
            if name.isdigit() and int(name) > groups:
                place.at(key).reject(f"${name}: the rule's regex has no such group")
    return rule, cache


_REMAP = Then(
    Record(
        {
            "name": Key(text),
            "match": Key(_MATCH),
            "upstream": Key(text),
            "redirect": Key(_REDIRECT),
            "respond": Key(integer(200, 599)),
            "rewrite": Key(_template),
            "preserve_host": Key(boolean),
            "cache": Key(RULES),
        }
    ),
    _remap,
)


# The rest


def _log_path(place: Place) -> Path | None:
    if isinstance(place.node, ScalarNode) and place.node.value == "-":
        return None
    return path_in_existing_folder(place)


def _log_format(place: Place) -> str:
    value = text(place)
    try:
        compile_format(value)
    except FormatError as error:
        place.reject(str(error))
    return value


_ACCESS_LOG = Then(
    Record({"path": Key(optional(_log_path)), "format": Key(_log_format)}),
    lambda values, _: AccessLogConfig(**{"path": None, **values}),
)
_HEADERS = Then(
    Record(
        {
            "via": Key(optional(token)),
            "x_forwarded": Key(boolean),
            "forwarded": Key(boolean),
            "server": Key(optional(field_value)),
        }
    ),
    lambda values, _: HeadersConfig(**values),
)
_LEVEL = choice(*LEVELS)
_LOG = Then(
    Record({"level": Key(_LEVEL), "levels": Key(MapOf(_LEVEL))}),
    lambda values, _: (*([("", values["level"])] if "level" in values else []), *values.get("levels", ())),
)


def _admin(description: str, place: Place, token: str | None = None) -> AdminConfig:
    if not only_this_machine(description) and token is None:
        place.warn("other machines may reach it, and it asks nobody who they are: better on 127.0.0.1 or unix:")
    return AdminConfig(for_owner_alone(description), place.location, token)


_ADMIN = Either(
    ScalarNode,
    Then(endpoint, _admin),
    Then(
        Record({"endpoint": Key(endpoint, required=True), **TOKEN_KEYS}),
        lambda values, place: _admin(values["endpoint"], place.at("endpoint"), take_token(values, place)),
    ),
)

TOP = Record(
    {
        "listeners": Key(ListOf(LISTENER), required=True),
        "upstreams": Key(Then(MapOf(_UPSTREAM), lambda named, _: tuple(upstream for _, upstream in named))),
        "remap": Key(ListOf(_REMAP)),
        "filters": Key(ListOf(FILTER), aliases=("wasm",)),
        "headers": Key(_HEADERS),
        "cache": Key(CACHE),
        "admin": Key(_ADMIN),
        "access_log": Key(
            Either(SequenceNode, ListOf(_ACCESS_LOG), Then(_ACCESS_LOG, lambda one, _: (one,))),
        ),
        "log": Key(_LOG, attribute="log_levels"),
        "node": Key(MapOf(text)),
        "code_cache": Key(lambda place: relative(place, text(place))),
        "limits": Key(LIMITS),
        "timeouts": Key(TIMEOUTS),
    },
    refused={
        "config": "begins a Traffic Server plugin file, and must then be its first key",
    },
)
