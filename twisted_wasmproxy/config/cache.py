"""The schema of `cache`, of `cache` in a remap rule, and how a rule inherits from the section."""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from dataclasses import dataclass
from typing import Any

from yaml.nodes import MappingNode, ScalarNode, SequenceNode

from twisted_wasmproxy.config.model import (
    MIB,
    UNKEYED_FIELDS,
    CacheConfig,
    CacheKeyConfig,
    CacheRules,
    CacheStoreConfig,
    DiskCacheConfig,
    FinishConfig,
)
from twisted_wasmproxy.config.reader import Either, Key, ListOf, Place, Record, Then
from twisted_wasmproxy.config.tokens import TOKEN_KEYS, take_token
from twisted_wasmproxy.config.values import (
    boolean,
    choice,
    duration,
    folder,
    integer,
    network,
    number,
    optional,
    plain,
    size,
    text,
    token,
)

__all__ = ["CACHE", "LOOPBACK", "RULES", "RuleValues"]

LOOPBACK = tuple(ipaddress.ip_network(address) for address in ("127.0.0.0/8", "::1/128"))
"""Who may use the method PURGE where the configuration does not say."""

_SF_TOKEN = re.compile(r"[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*")


@dataclass(frozen=True)
class RuleValues:
    """The rules that one place of the file gives, before what they inherit is known."""

    values: dict[str, Any]
    place: Place

    def on(self, rules: CacheRules) -> CacheRules:
        """Return `rules` with what is given here in their place, key by key. May reject."""
        changes = dict(self.values)
        if "key" in changes:
            changes["key"] = self.key(rules.key, changes["key"])
        rules = dataclasses.replace(rules, **changes)
        if rules.max_ttl is not None and rules.min_ttl > rules.max_ttl:
            key = "min_ttl" if "min_ttl" in changes else "max_ttl"
            self.at(key).reject(f"min_ttl ({rules.min_ttl:g} s) is more than max_ttl ({rules.max_ttl:g} s)")
        return rules

    def key(self, inherited: CacheKeyConfig, values: dict[str, Any]) -> CacheKeyConfig:
        key = dataclasses.replace(inherited, **values)
        for name in ("query_only", "query_without"):
            if key.query == "drop" and values.get(name):
                self.at("key").at(name).reject("has no meaning with query: drop")
        return key

    def at(self, name: str) -> Place:
        return self.place.at(name) if isinstance(self.place.node, MappingNode) else self.place


# Rules


def _negative_status(place: Place) -> int:
    value = integer(200, 599)(place)
    if value in (206, 304):
        place.reject(f"{value} is a part of another response and cannot be kept by itself")
    return value


def _surrogate_key(place: Place) -> str:
    value = text(place)
    if not value or not value.isascii() or not value.isprintable() or " " in value:
        place.expected("printable ASCII text without spaces")
    return value


_NEEDED_FIELDS = frozenset(
    {"connection", "content-length", "expect", "host", "te", "trailer", "transfer-encoding", "upgrade"}
)


def _unkeyed_field(place: Place) -> str:
    value = token(place)
    if value.lower() in _NEEDED_FIELDS:
        place.reject(f"{value} belongs to the message itself, and cannot be taken out")
    return value


_UNKEYED = Either(
    ScalarNode,
    Then(boolean, lambda on, _: UNKEYED_FIELDS if on else ()),
    ListOf(_unkeyed_field),
)


_NEGATIVE = Then(
    Record(
        {
            "ttl": Key(duration(), required=True),
            "statuses": Key(ListOf(_negative_status, empty=False), required=True),
        }
    ),
    lambda values, _: tuple((status, values["ttl"]) for status in values["statuses"]),
)


def _one_ttl_each(entries: tuple[tuple[int, float], ...], place: Place) -> tuple[tuple[int, float], ...]:
    seen = set()
    for status, _ in entries:
        if status in seen:
            place.reject(f"status {status} is there twice")
        seen.add(status)
    return entries


_NEGATIVES = Then(
    Either(
        MappingNode,
        _NEGATIVE,
        Then(ListOf(_NEGATIVE), lambda several, _: tuple(entry for entries in several for entry in entries)),
    ),
    _one_ttl_each,
)

_KEY = Record(
    {
        "query": Key(choice("keep", "drop", "sort")),
        "query_only": Key(ListOf(text)),
        "query_without": Key(ListOf(text)),
        "host": Key(boolean),
        "headers": Key(ListOf(token)),
        "cookies": Key(ListOf(token)),
    }
)

_RULE_KEYS = {
    "enabled": Key(boolean),
    "methods": Key(ListOf(choice("GET", "HEAD", "POST"), empty=False)),
    "directives": Key(choice("honor", "ignore")),
    "client_directives": Key(choice("honor", "ignore")),
    "ttl": Key(optional(duration())),
    "min_ttl": Key(duration()),
    "max_ttl": Key(optional(duration())),
    "default_ttl": Key(optional(duration())),
    "heuristic_fraction": Key(number(0.0, 1.0)),
    "heuristic_max": Key(duration()),
    "negative": Key(_NEGATIVES),
    "stale_while_revalidate": Key(duration()),
    "stale_if_error": Key(duration()),
    "error_statuses": Key(ListOf(integer(400, 599))),
    "request_error_statuses": Key(ListOf(integer(400, 599))),
    "heuristic_with_cookie": Key(boolean),
    "strip_unkeyed": Key(_UNKEYED),
    "set_cookie": Key(choice("strip", "store", "bypass")),
    "invalid_age": Key(choice("stale", "ignore")),
    "surrogate_keys": Key(ListOf(_surrogate_key)),
    "collapse": Key(boolean),
    "collapse_timeout": Key(duration()),
    "finish_abandoned": Key(
        Either(
            ScalarNode,
            Then(boolean, lambda finish, _: FinishConfig() if finish else None),
            Then(
                Record({"remaining": Key(size()), "completed": Key(number(0.0, 1.0)), "timeout": Key(duration())}),
                lambda values, _: FinishConfig(**values),
            ),
        )
    ),
    "key": Key(_KEY),
}


# The section


def _memory_amount(place: Place) -> dict[str, int]:
    if isinstance(place.node, ScalarNode) and place.node.tag.endswith(":bool"):
        return {} if boolean(place) else {"memory": 0}
    return {"memory": size()(place)}


def _object_fits(values: dict[str, Any], place: Place, total: int) -> None:
    if values.get("max_object", 0) > total:
        place.at("max_object").reject(f"is more than the size of the store, {total} bytes")


def _memory_table(values: dict[str, int], place: Place) -> dict[str, int]:
    total = values.get("size", CacheConfig.memory)
    _object_fits(values, place, total)
    return {"memory": total, "memory_object": values.get("max_object", 0)}


def _disk(values: dict[str, Any], place: Place) -> DiskCacheConfig:
    _object_fits(values, place, values["size"])
    return DiskCacheConfig(**values)


def _purge(values: dict[str, Any], place: Place) -> dict[str, Any]:
    token = take_token(values, place)
    return {"purge": values.get("clients", LOOPBACK), "purge_token": token}


def _status_name(place: Place) -> str:
    value = text(place)
    if not _SF_TOKEN.fullmatch(value):
        place.expected("a token that begins with a letter, such as wasmproxy or edge-1.example.com")
    return value


def _targeted(place: Place) -> str:
    value = token(place)
    if value.lower() == "cache-control":
        place.reject("Cache-Control is what these fields stand in for; it is always read")
    return value


def _section(values: dict[str, Any], place: Place) -> CacheConfig:
    if "store" in values:
        for key in ("memory", "disk"):
            if key in values:
                place.at(key).reject("a store by a plugin takes the place of memory and disk")
    rules = RuleValues({key: values.pop(key) for key in _RULE_KEYS if key in values}, place)
    memory = values.pop("memory", {})
    status = values.pop("status", {})
    purge = values.pop("purge", {"purge": LOOPBACK})
    config = CacheConfig(rules=rules.on(CacheRules()), **values, **memory, **status, **purge)
    if not (config.memory or config.disk or config.store):
        place.at("memory").reject("there is no store: give memory, disk or store, or write cache: false")
    return config


_SECTION_KEYS = {
    "memory": Key(
        Either(
            ScalarNode,
            _memory_amount,
            Then(Record({"size": Key(size()), "max_object": Key(size())}), _memory_table),
        )
    ),
    "disk": Key(
        Then(
            Record(
                {
                    "path": Key(folder, required=True),
                    "size": Key(size(MIB), required=True),
                    "max_object": Key(size()),
                }
            ),
            _disk,
        )
    ),
    "store": Key(
        Then(
            Record({"name": Key(text, required=True), "configuration": Key(plain)}),
            lambda values, place: CacheStoreConfig(**values, location=place.location),
        )
    ),
    "targeted": Key(ListOf(_targeted)),
    "surrogate_key_header": Key(optional(token)),
    "status": Key(
        Either(
            ScalarNode,
            Then(boolean, lambda on, _: {"status": on}),
            Then(
                Record({"name": Key(_status_name), "key": Key(boolean)}),
                lambda values, _: {f"status_{name}": value for name, value in values.items()},
            ),
        )
    ),
    "purge": Key(
        Either(
            SequenceNode,
            Then(ListOf(network), lambda clients, _: {"purge": clients}),
            Then(Record({"clients": Key(ListOf(network)), **TOKEN_KEYS}), _purge),
        )
    ),
}

CACHE = Either(
    ScalarNode,
    Then(boolean, lambda on, place: _section({}, place) if on else None),
    Then(Record(_SECTION_KEYS | _RULE_KEYS), _section),
)
"""The `cache` section: a `CacheConfig`, or None for `cache: false`."""

_SHARED = "belongs to the 'cache' section; all rules share one store"

RULES = Then(
    Either(
        ScalarNode,
        Then(boolean, lambda enabled, _: {"enabled": enabled}),
        Record(_RULE_KEYS, refused=dict.fromkeys(_SECTION_KEYS, _SHARED)),
    ),
    RuleValues,
)
"""`cache` of a remap rule."""
