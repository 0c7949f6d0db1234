"""`cache`, `remap[].cache` and `admin`: what they mean, what rules inherit, and what is refused."""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.config.support import MINIMAL, loaded, problems
from twisted_wasmproxy import config
from twisted_wasmproxy.config import ConfigurationError, Problem
from twisted_wasmproxy.config.model import (
    CacheConfig,
    CacheKeyConfig,
    CacheRules,
    CacheStoreConfig,
    DiskCacheConfig,
)
from twisted_wasmproxy.config.reader import keys_of
from twisted_wasmproxy.config.schema import TOP

HEAD = """
listeners:
  - endpoint: tcp:8080
upstreams:
  origin: {servers: ["http://127.0.0.1:8000"]}
"""

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
DEFAULT = CacheConfig(purge=LOOPBACK)


def cache(folder: Path, text: str) -> CacheConfig:
    found = loaded(folder, f"{MINIMAL}\ncache: {text}\n").cache
    assert found is not None
    return found


def rules(folder: Path, section: str, rule: str) -> CacheRules:
    (found,) = loaded(folder, f"{HEAD}\ncache: {section}\nremap: [{{upstream: origin, cache: {rule}}}]\n").remap
    assert found.cache is not None
    return found.cache


# The section


def test_without_the_section_nothing_is_cached(tmp_path: Path) -> None:
    assert loaded(tmp_path, MINIMAL).cache is None
    assert loaded(tmp_path, f"{MINIMAL}\ncache: false\n").cache is None


@pytest.mark.parametrize("text", ["true", "{}"])
def test_an_empty_section_is_a_cache_with_every_default(tmp_path: Path, text: str) -> None:
    assert cache(tmp_path, text) == DEFAULT


def test_every_key_of_the_section_reaches_the_model(tmp_path: Path) -> None:
    found = cache(
        tmp_path,
        """
  memory: {size: 64MiB, max_object: 1MiB}
  disk: {path: stored, size: 1GiB, max_object: 100MB}
  targeted: [Edge-Cache-Control, CDN-Cache-Control]
  surrogate_key_header: null
  status: {name: edge-1.example.com, key: false}
  purge: [10.0.0.1, "fc00::/7"]
  enabled: false
  methods: [GET, POST]
  directives: ignore
  client_directives: ignore
  ttl: 1m
  min_ttl: 5
  max_ttl: 1d
  default_ttl: 10s
  heuristic_fraction: 0.25
  heuristic_max: 1h
  negative: [{ttl: 60s, statuses: [404, 410]}, {ttl: 0, statuses: [500]}]
  stale_while_revalidate: 30s
  stale_if_error: 0
  error_statuses: [429, 503]
  request_error_statuses: [400]
  heuristic_with_cookie: true
  strip_unkeyed: [X-Host, cookie]
  set_cookie: bypass
  surrogate_keys: [site, "a:b/c"]
  collapse: false
  finish_abandoned: false
  key: {query: sort, query_only: [q, "p_*"], query_without: [x], host: false, headers: [X-A], cookies: [sid]}
""",
    )
    assert found == CacheConfig(
        memory=64 << 20,
        memory_object=1 << 20,
        disk=DiskCacheConfig(tmp_path / "stored", 1 << 30, 100_000_000),
        targeted=("Edge-Cache-Control", "CDN-Cache-Control"),
        surrogate_key_header=None,
        status_name="edge-1.example.com",
        status_key=False,
        purge=(ipaddress.ip_network("10.0.0.1"), ipaddress.ip_network("fc00::/7")),
        rules=CacheRules(
            enabled=False,
            methods=("GET", "POST"),
            directives="ignore",
            client_directives="ignore",
            ttl=60.0,
            min_ttl=5.0,
            max_ttl=86400.0,
            default_ttl=10.0,
            heuristic_fraction=0.25,
            heuristic_max=3600.0,
            negative=((404, 60.0), (410, 60.0), (500, 0.0)),
            stale_while_revalidate=30.0,
            stale_if_error=0.0,
            error_statuses=(429, 503),
            request_error_statuses=(400,),
            heuristic_with_cookie=True,
            strip_unkeyed=("X-Host", "cookie"),
            set_cookie="bypass",
            surrogate_keys=("site", "a:b/c"),
            collapse=False,
            finish_abandoned=None,
            key=CacheKeyConfig("sort", ("q", "p_*"), ("x",), False, ("X-A",), ("sid",)),
        ),
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{memory: 1GiB}", {"memory": 1 << 30}),
        ("{memory: true}", {}),
        ("{memory: {}}", {}),
        ("{memory: {max_object: 1KiB}}", {"memory_object": 1024}),
        ("{status: false}", {"status": False}),
        ("{status: true}", {}),
        ("{targeted: []}", {"targeted": ()}),
        ("{purge: []}", {"purge": ()}),
        ("{surrogate_key_header: xkey}", {"surrogate_key_header": "xkey"}),
    ],
)
def test_short_forms(tmp_path: Path, text: str, expected: dict[str, object]) -> None:
    assert cache(tmp_path, text) == dataclasses.replace(DEFAULT, **expected)  # type: ignore[arg-type]


@pytest.mark.parametrize("none", ["0", "false"])
def test_there_may_be_a_disk_without_memory(tmp_path: Path, none: str) -> None:
    found = cache(tmp_path, f"{{memory: {none}, disk: {{path: {tmp_path}, size: 1GiB}}}}")
    assert (found.memory, found.disk) == (0, DiskCacheConfig(tmp_path, 1 << 30))


def test_a_store_by_a_plugin_gets_its_configuration_as_it_is(tmp_path: Path) -> None:
    store = cache(tmp_path, "{store: {name: redis, configuration: {urls: [a, b], ttl: 1:30}}}").store
    assert store is not None
    assert (store.name, store.configuration) == ("redis", {"urls": ["a", "b"], "ttl": "1:30"})
    assert store.location is not None
    assert store.location.key == "cache.store"
    assert cache(tmp_path, "{store: {name: redis}}").store == CacheStoreConfig("redis", None, store.location)


# Rules


def test_a_rule_that_says_nothing_uses_the_rules_of_the_section(tmp_path: Path) -> None:
    (rule,) = loaded(tmp_path, f"{MINIMAL}\ncache: {{ttl: 5}}\n").remap
    assert rule.cache is None


@pytest.mark.parametrize(("text", "enabled"), [("true", True), ("false", False), ("{}", False), ("{ttl: 1}", False)])
def test_a_rule_turns_the_cache_on_or_off(tmp_path: Path, text: str, enabled: bool) -> None:
    assert rules(tmp_path, "{enabled: false}", text).enabled is enabled


def test_a_rule_inherits_key_by_key_and_so_does_its_key(tmp_path: Path) -> None:
    section = "{ttl: 60, min_ttl: 5, negative: {ttl: 9, statuses: [404]}, key: {query: sort, cookies: [a]}}"
    rule = "{ttl: null, max_ttl: 10, negative: [], key: {host: false, cookies: [b]}}"
    assert rules(tmp_path, section, rule) == CacheRules(
        min_ttl=5.0, max_ttl=10.0, key=CacheKeyConfig(query="sort", host=False, cookies=("b",))
    )


def test_rules_keep_their_cache_while_the_section_is_false(tmp_path: Path) -> None:
    found = loaded(tmp_path, f"{HEAD}\ncache: false\nremap: [{{upstream: origin, cache: {{ttl: 5}}}}]\n")
    assert found.cache is None


def test_a_rule_with_a_cache_that_is_not_there_is_told_with_all_else(tmp_path: Path) -> None:
    text = f"{HEAD}\nremap:\n  - upstream: origin\n    cache: {{ttl: 5}}\nlimits: {{body: x}}\n"
    assert problems(tmp_path, text)[0] == (
        "proxy.yaml:9: remap[0].cache: there is no 'cache' section; a rule can only say how it uses the cache there is"
    )
    assert len(problems(tmp_path, text)) == 2


@pytest.mark.parametrize("outcome", ["respond: 204", "redirect: /x"])
def test_a_rule_without_an_upstream_has_nothing_to_cache(tmp_path: Path, outcome: str) -> None:
    text = f"{HEAD}\ncache: true\nremap: [{{{outcome}, cache: true}}]\n"
    assert problems(tmp_path, text) == ["proxy.yaml:8: remap[0].cache: belongs to a rule with 'upstream'"]


# Faults

SIZE = "must be a size in bytes such as 65536, 64KiB or 10MB"


@pytest.mark.parametrize(
    ("section", "key", "text"),
    [
        ("", "", "must be true or false, not empty"),
        ("5", "", "must be true or false, not '5'"),
        ("[]", "", "must be a mapping, not a list"),
        ("{memory: big}", ".memory", f"{SIZE}, not 'big'"),
        ("{memory: null}", ".memory", f"{SIZE}, not 'null'"),
        (
            "{memory: {size: 1MiB, max_object: 2MiB}}",
            ".memory.max_object",
            "is more than the size of the store, 1048576 bytes",
        ),
        ("{memory: {max_object: 1GiB}}", ".memory.max_object", "is more than the size of the store, 268435456 bytes"),
        ("{memory: 0}", ".memory", "there is no store: give memory, disk or store, or write cache: false"),
        ("{memory: false}", ".memory", "there is no store: give memory, disk or store, or write cache: false"),
        ("{disk: x}", ".disk", "must be a mapping, not 'x'"),
        ("{disk: {path: x}}", ".disk", "'size' is missing"),
        ("{disk: {size: 1GiB}}", ".disk", "'path' is missing"),
        ("{disk: {path: a/b, size: 1GiB}}", ".disk.path", "no such directory: a"),
        ("{disk: {path: filter.wasm, size: 1GiB}}", ".disk.path", "is not a directory: filter.wasm"),
        ("{disk: {path: filter.wasm/x, size: 1GiB}}", ".disk.path", "no such directory: filter.wasm"),
        ("{disk: {path: '', size: 1GiB}}", ".disk.path", "must be the path of a directory, not ''"),
        ("{disk: {path: x, size: 10KiB}}", ".disk.size", "must be at least 1048576 bytes"),
        (
            "{disk: {path: x, size: 1MiB, max_object: 1GiB}}",
            ".disk.max_object",
            "is more than the size of the store, 1048576 bytes",
        ),
        ("{store: {}}", ".store", "'name' is missing"),
        ("{store: {name: a}, memory: 1MiB}", ".memory", "a store by a plugin takes the place of memory and disk"),
        (
            "{store: {name: a}, disk: {path: x, size: 1GiB}}",
            ".disk",
            "a store by a plugin takes the place of memory and disk",
        ),
        (
            "{targeted: [Cache-Control]}",
            ".targeted[0]",
            "Cache-Control is what these fields stand in for; it is always read",
        ),
        ("{targeted: CDN-Cache-Control}", ".targeted", "must be a list, not 'CDN-Cache-Control'"),
        (
            "{surrogate_key_header: 'a b'}",
            ".surrogate_key_header",
            "must be a token (letters, digits and !#$%&'*+-.^_`|~), not 'a b'",
        ),
        (
            "{request_error_statuses: [200]}",
            ".request_error_statuses[0]",
            "must be a whole number from 400 to 599, not '200'",
        ),
        ("{request_error_statuses: 400}", ".request_error_statuses", "must be a list, not '400'"),
        ("{heuristic_with_cookie: maybe}", ".heuristic_with_cookie", "must be true or false, not 'maybe'"),
        ("{strip_unkeyed: X-Host}", ".strip_unkeyed", "must be true or false, not 'X-Host'"),
        (
            "{strip_unkeyed: [X-Host, Host]}",
            ".strip_unkeyed[1]",
            "Host belongs to the message itself, and cannot be taken out",
        ),
        (
            "{strip_unkeyed: ['a b']}",
            ".strip_unkeyed[0]",
            "must be a token (letters, digits and !#$%&'*+-.^_`|~), not 'a b'",
        ),
        ("{status: on-off}", ".status", "must be true or false, not 'on-off'"),
        (
            "{status: {name: 1st}}",
            ".status.name",
            "must be a token that begins with a letter, such as wasmproxy or edge-1.example.com, not '1st'",
        ),
        (
            "{purge: [localhost]}",
            ".purge[0]",
            "is not a network: 'localhost' does not appear to be an IPv4 or IPv6 network",
        ),
        ("{methods: [GET, PUT]}", ".methods[1]", "must be one of GET, HEAD, POST, not 'PUT'"),
        ("{methods: []}", ".methods", "must not be empty"),
        ("{directives: obey}", ".directives", "must be one of honor, ignore, not 'obey'"),
        ("{ttl: soon}", ".ttl", "must be a time such as 30s, 1.5, 500ms or 5m, not 'soon'"),
        ("{min_ttl: null}", ".min_ttl", "must be a time such as 30s, 1.5, 500ms or 5m, not 'null'"),
        ("{min_ttl: 10, max_ttl: 5}", ".min_ttl", "min_ttl (10 s) is more than max_ttl (5 s)"),
        ("{heuristic_fraction: 2}", ".heuristic_fraction", "must be a number from 0 to 1, not '2'"),
        ("{heuristic_fraction: -0.1}", ".heuristic_fraction", "must be a number from 0 to 1, not '-0.1'"),
        ("{heuristic_fraction: .nan}", ".heuristic_fraction", "must be a number from 0 to 1, not '.nan'"),
        ("{heuristic_fraction: 10%}", ".heuristic_fraction", "must be a number from 0 to 1, not '10%'"),
        ("{negative: {ttl: 5}}", ".negative", "'statuses' is missing"),
        ("{negative: {ttl: 5, statuses: []}}", ".negative.statuses", "must not be empty"),
        (
            "{negative: {ttl: 5, statuses: [199]}}",
            ".negative.statuses[0]",
            "must be a whole number from 200 to 599, not '199'",
        ),
        (
            "{negative: {ttl: 5, statuses: [304]}}",
            ".negative.statuses[0]",
            "304 is a part of another response and cannot be kept by itself",
        ),
        (
            "{negative: [{ttl: 5, statuses: [404]}, {ttl: 6, statuses: [404]}]}",
            ".negative",
            "status 404 is there twice",
        ),
        ("{negative: [5]}", ".negative[0]", "must be a mapping, not '5'"),
        ("{negative: 5}", ".negative", "must be a list, not '5'"),
        ("{error_statuses: [200]}", ".error_statuses[0]", "must be a whole number from 400 to 599, not '200'"),
        ("{set_cookie: keep}", ".set_cookie", "must be one of strip, store, bypass, not 'keep'"),
        ("{surrogate_keys: ['a b']}", ".surrogate_keys[0]", "must be printable ASCII text without spaces, not 'a b'"),
        ("{surrogate_keys: ['']}", ".surrogate_keys[0]", "must be printable ASCII text without spaces, not ''"),
        ("{collapse: 1}", ".collapse", "must be true or false, not '1'"),
        ("{key: sort}", ".key", "must be a mapping, not 'sort'"),
        ("{key: {query: none}}", ".key.query", "must be one of keep, drop, sort, not 'none'"),
        ("{key: {query: drop, query_only: [a]}}", ".key.query_only", "has no meaning with query: drop"),
        (
            "{key: {headers: ['a:']}}",
            ".key.headers[0]",
            "must be a token (letters, digits and !#$%&'*+-.^_`|~), not 'a:'",
        ),
        ("{max_tll: 5}", ".max_tll", "unknown key; did you mean 'max_ttl'?"),
    ],
)
def test_a_fault_in_the_section_is_told_with_its_place(tmp_path: Path, section: str, key: str, text: str) -> None:
    assert problems(tmp_path, f"{MINIMAL}\ncache: {section}\n") == [f"proxy.yaml:9: cache{key}: {text}"]


@pytest.mark.parametrize(
    ("section", "rule", "key", "text"),
    [
        ("true", "5", "", "must be true or false, not '5'"),
        ("true", "{memory: 1GiB}", ".memory", "belongs to the 'cache' section; all rules share one store"),
        ("{max_ttl: 5}", "{min_ttl: 6}", ".min_ttl", "min_ttl (6 s) is more than max_ttl (5 s)"),
        ("{min_ttl: 6}", "{max_ttl: 5}", ".max_ttl", "min_ttl (6 s) is more than max_ttl (5 s)"),
        ("{key: {query: drop}}", "{key: {query_only: [a]}}", ".key.query_only", "has no meaning with query: drop"),
    ],
)
def test_a_fault_of_a_rule_is_told_at_the_rule(tmp_path: Path, section: str, rule: str, key: str, text: str) -> None:
    found = problems(tmp_path, f"{HEAD}\ncache: {section}\nremap: [{{upstream: origin, cache: {rule}}}]\n")
    assert found == [f"proxy.yaml:8: remap[0].cache{key}: {text}"]


def test_the_faults_of_all_rules_are_told_at_once(tmp_path: Path) -> None:
    rule = "{upstream: origin, cache: {min_ttl: 6}}"
    assert len(problems(tmp_path, f"{HEAD}\ncache: {{max_ttl: 5}}\nremap: [{rule}, {rule}]\n")) == 2


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 10**19),
    st.floats(),
    st.sampled_from(
        ["1GiB", "30s", "drop", "sort", "ignore", "a b", "*", "::1", "10.0.0.0/8", "Cache-Control", "tcp:1:", ""]
    ),
    st.text(max_size=5),
)
NAMES = st.sampled_from([key.rpartition(".")[2].removesuffix("[]") for key in keys_of(TOP) if "cache" in key])
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=6), max_leaves=12
)


@given(VALUES, VALUES, SCALARS | st.dictionaries(st.just("endpoint"), SCALARS))
@settings(max_examples=300)
def test_whatever_is_written_is_understood_or_told(section: object, rule: object, admin: object) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "proxy.yaml"
        content = yaml.safe_load(HEAD) | {
            "cache": section,
            "admin": admin,
            "remap": [{"upstream": "origin", "cache": rule}],
        }
        path.write_text(yaml.safe_dump(content, allow_unicode=True))
        found: Sequence[Problem] = ()
        try:
            config.load(path)
        except ConfigurationError as error:
            found = error.problems
        assert all(problem.location.line for problem in found)


# admin


@pytest.mark.parametrize("text", ['"tcp:9901:interface=127.0.0.1"', '{endpoint: "tcp:9901:interface=127.0.0.1"}'])
def test_the_control_api_has_an_endpoint(tmp_path: Path, text: str) -> None:
    found = loaded(tmp_path, f"{MINIMAL}\nadmin: {text}\n")
    assert found.admin is not None
    assert found.admin.endpoint == "tcp:9901:interface=127.0.0.1"
    assert found.warnings == ()


@pytest.mark.parametrize(
    ("endpoint", "warned"),
    [
        ("tcp:9901", True),
        ("tcp:9901:interface=0.0.0.0", True),
        ("tcp:9901:interface=10.0.0.1", True),
        ("tcp:9901:127.0.0.1", False),
        ("tcp:9901:interface=127.1.2.3:backlog=5", False),
        ("tcp:interface=127.0.0.1:port=9901", False),
        ("tcp6:9901", True),
        (r"tcp6:9901:interface=\:\:1", False),
        (r"tcp6:9901:interface=\:\:", True),
        ("unix:control.sock", False),
    ],
)
def test_an_address_that_other_machines_reach_is_warned_of(tmp_path: Path, endpoint: str, warned: bool) -> None:
    warnings = loaded(tmp_path, f"{MINIMAL}\nadmin: '{endpoint}'\n").warnings
    assert len(warnings) == warned
    assert all(":9: admin: other machines may reach it" in warning for warning in warnings)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "admin: must be text, not empty"),
        ("{}", "admin: 'endpoint' is missing"),
        ("{endpoint: tcp:8080}", "admin.endpoint: the same endpoint as that of the listener in line 3"),
        ("tcp:8080", "admin: the same endpoint as that of the listener in line 3"),
        ("{endpoint: tcp:99999}", "admin.endpoint: port 99999 is not from 0 to 65535"),
        ("{port: 9901}", "admin.port: unknown key; known here: endpoint, token, token_file"),
    ],
)
def test_a_fault_of_admin_is_told(tmp_path: Path, text: str, problem: str) -> None:
    found = problems(tmp_path, f"{MINIMAL}\nadmin: {text}\n")
    assert found[0] == f"proxy.yaml:9: {problem}"
