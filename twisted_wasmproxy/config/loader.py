"""`load`: from YAML files to a `Configuration`, or a `ConfigurationError` with everything that is wrong."""

from __future__ import annotations

import dataclasses
import ipaddress
from pathlib import Path
from typing import Any

from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from twisted_wasmproxy.config import document, trafficserver
from twisted_wasmproxy.config.cache import RuleValues
from twisted_wasmproxy.config.errors import ConfigurationError, Problem
from twisted_wasmproxy.config.model import (
    AccessConfig,
    AdminConfig,
    CacheConfig,
    CacheRules,
    Configuration,
    LimitsConfig,
    ListenerConfig,
    Location,
    RemapConfig,
    TimeoutsConfig,
)
from twisted_wasmproxy.config.reader import Place, Rejected, Report
from twisted_wasmproxy.config.schema import TOP

__all__ = ["load"]

PRIVATE_CLIENTS = tuple(
    ipaddress.ip_network(address)
    for address in (
        *("127.0.0.0/8", "::1/128"),
        *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"),
        *("169.254.0.0/16", "fe80::/10"),
    )
)
"""Who may use a forward proxy that does not say: loopback, private (RFC 1918, RFC 4193) and link-local addresses."""


def load(path: Path, *more: Path) -> Configuration:
    """Read a configuration file, or one or more plugin files of Traffic Server in the order of their `plugin.config`.

    Nothing is compiled, resolved or listened on. Raises ConfigurationError.
    """
    report = Report()
    configuration: Configuration | None = None
    try:
        root, problems = document.compose(document.read(path), str(path))
        if more or trafficserver.is_plugin_file(root):
            configuration = _load_plugins((path, *more), report)
        else:
            report.problems.extend(problems)
            configuration = _Loader(root, path, report).load()
    except document.DocumentError as error:
        report.problems.extend(error.problems)
    except Rejected:
        pass
    if report.problems or configuration is None:
        raise ConfigurationError(report.problems)
    warnings = ConfigurationError(report.warnings).problems
    return dataclasses.replace(configuration, path=path, more_paths=more, warnings=tuple(map(str, warnings)))


def _load_plugins(paths: tuple[Path, ...], report: Report) -> Configuration:
    """What Traffic Server's plugins run in where nothing else is said: a forward proxy for this machine."""
    plugins = []
    for path in paths:
        try:
            plugins.append(trafficserver.read_file(path, report))
        except Rejected:
            continue
    listener = ListenerConfig(
        endpoint="tcp:8080:interface=127.0.0.1",
        mode="forward",
        access=AccessConfig(allow_clients=PRIVATE_CLIENTS),
        location=Location(str(paths[0]), 1, "config"),
    )
    return Configuration(listeners=(listener,), filters=tuple(plugins))


class _Loader:
    """Reads one file of our own form and checks what spans its sections."""

    def __init__(self, root: Node, path: Path, report: Report) -> None:
        self.place = Place.root(root, path, report)

    def load(self) -> Configuration:
        self.check_references()
        values = TOP(self.place)
        values["remap"] = self.remap(values.get("remap", ()), values.get("cache"))
        limits = LimitsConfig(**values.pop("limits", {}))
        timeouts = TimeoutsConfig(**values.pop("timeouts", {}))
        listeners = tuple(self.listener(entry, limits, timeouts) for entry in values.pop("listeners"))
        self.check_endpoints(listeners, values.get("admin"))
        admin: AdminConfig | None = values.get("admin")
        if admin is not None and admin.token is None and not admin.endpoint.startswith("unix:"):
            forward = next((listener for listener in listeners if listener.mode == "forward"), None)
            if forward is not None:
                self.place.at("admin").warn(
                    f"it has no token, and clients of the forward listener on {forward.endpoint} may reach it as this "
                    "machine does, if its access rules let them: give it a token, or a unix: endpoint"
                )
        if not values["remap"] and (not listeners or any(listener.mode == "reverse" for listener in listeners)):
            self.place.warn("no remap rules: a reverse listener answers 404 unless a filter answers")
        return Configuration(listeners=listeners, limits=limits, timeouts=timeouts, **values)

    def listener(self, values: dict[str, Any], limits: LimitsConfig, timeouts: TimeoutsConfig) -> ListenerConfig:
        given = values.pop("access", {})
        access = AccessConfig(**given)
        if values.get("mode") == "forward" and "allow_clients" not in given:
            access = dataclasses.replace(access, allow_clients=PRIVATE_CLIENTS)
        return ListenerConfig(
            access=access,
            limits=dataclasses.replace(limits, **values.pop("limits", {})),
            timeouts=dataclasses.replace(timeouts, **values.pop("timeouts", {})),
            **values,
        )

    def remap(
        self, rules: tuple[tuple[RemapConfig, RuleValues | None], ...], cache: CacheConfig | None
    ) -> tuple[RemapConfig, ...]:
        """Give each rule what it inherits from the `cache` section."""
        inherited = cache.rules if cache else CacheRules()
        merged = []
        for rule, own in rules:
            try:
                merged.append(rule if own is None else dataclasses.replace(rule, cache=own.on(inherited)))
            except Rejected:
                continue
        return tuple(merged)

    def check_endpoints(self, listeners: tuple[ListenerConfig, ...], admin: AdminConfig | None) -> None:
        seen: dict[str, Location | None] = {}
        everything: tuple[ListenerConfig | AdminConfig, ...] = (*listeners, admin) if admin else listeners
        for listener in everything:
            if listener.endpoint in seen and ":0:" not in f"{listener.endpoint}:":
                line = getattr(seen[listener.endpoint], "line", 0)
                assert listener.location is not None
                text = f"the same endpoint as that of the listener in line {line}"
                self.place.report.problems.append(Problem(listener.location, text))
            seen[listener.endpoint] = listener.location

    def check_references(self) -> None:
        """Note rules that name what is not there, an upstream or a cache; from the nodes, so that no other fault hides
        it."""
        top = _entries(self.place)
        names = list(_entries(top["upstreams"])) if "upstreams" in top else []
        remap = top.get("remap")
        if remap is None or not isinstance(remap.node, SequenceNode):
            return
        for index, node in enumerate(remap.node.value):
            rule = _entries(remap.item(index, node))
            if "cache" in rule and "cache" not in top:
                rule["cache"].problem("there is no 'cache' section; a rule can only say how it uses the cache there is")
            upstream = rule.get("upstream")
            if upstream is None or not isinstance(upstream.node, ScalarNode) or upstream.node.value in names:
                continue
            known = f"known: {', '.join(names)}" if names else "there are no upstreams"
            upstream.problem(f"unknown upstream {upstream.node.value!r}; {known}")


def _entries(place: Place) -> dict[str, Place]:
    if not isinstance(place.node, MappingNode):
        return {}
    return {str(name.value): place.entry(name, node) for name, node in document.pairs(place.node)}
