"""What a configuration means: its defaults, its values, its files."""

from __future__ import annotations

import dataclasses
import ipaddress
import json
import subprocess
import sys
from ipaddress import ip_network
from pathlib import Path

import pytest
import trustme

from tests.config.support import MINIMAL, PLUGIN, loaded, write
from twisted_wasmproxy import config
from twisted_wasmproxy.config.loader import PRIVATE_CLIENTS
from twisted_wasmproxy.config.model import (
    AccessConfig,
    AccessLogConfig,
    Configuration,
    HeadersConfig,
    LimitsConfig,
    ListenerConfig,
    NativeFilterConfig,
    RedirectConfig,
    RemapConfig,
    RestartConfig,
    ServerConfig,
    TimeoutsConfig,
    UpstreamConfig,
    WasmFilterConfig,
)
from twisted_wasmproxy.interfaces import Phase


def plugin(folder: Path, more: str = "", vm: str = "") -> WasmFilterConfig:
    (found,) = loaded(folder, PLUGIN % (f", {vm}" if vm else "", more)).filters
    assert isinstance(found, WasmFilterConfig)
    return found


def test_what_is_left_out_has_the_defaults_of_the_model(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL)
    expected = Configuration(
        listeners=(ListenerConfig("tcp:8080"),),
        upstreams=(UpstreamConfig("origin", (ServerConfig("127.0.0.1", 8000),)),),
        remap=(RemapConfig(upstream="origin"),),
        path=path,
    )
    found = config.load(path)
    assert without_locations(found) == without_locations(expected)
    assert found.warnings == ()


def without_locations(value: object) -> object:
    if isinstance(value, tuple):
        return tuple(map(without_locations, value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: without_locations(getattr(value, field.name)) for field in dataclasses.fields(value)}
        fields.pop("location", None)
        return fields
    return value


def test_writing_out_every_default_of_limits_and_timeouts_changes_nothing(tmp_path: Path) -> None:
    listed = {
        "limits": dataclasses.asdict(LimitsConfig()),
        "timeouts": dataclasses.asdict(TimeoutsConfig()),
        "headers": dataclasses.asdict(HeadersConfig()),
    }
    found = loaded(tmp_path, MINIMAL + "\n".join(f"{key}: {json.dumps(value)}" for key, value in listed.items()))
    assert without_locations(found) == without_locations(config.load(write(tmp_path, MINIMAL)))


def test_trusted_proxies_are_networks_and_unix_sockets(tmp_path: Path) -> None:
    listeners = "[{endpoint: 'tcp:1', trusted_proxies: [10.0.0.0/8, '::1', 'unix:']}, {endpoint: 'tcp:2'}]"
    found = loaded(tmp_path, f"listeners: {listeners}")
    assert found.listeners[0].trusted_proxies == (ip_network("10.0.0.0/8"), ip_network("::1"), None)
    assert found.listeners[1].trusted_proxies == ()


def test_a_forward_listener_has_safe_access_rules_unless_told_otherwise(tmp_path: Path) -> None:
    found = loaded(
        tmp_path,
        """
        listeners:
          - {endpoint: "tcp:1", mode: forward}
          - {endpoint: "tcp:2", mode: forward, access: {connect_ports: []}}
          - {endpoint: "tcp:3", mode: forward, access: {allow_clients: [192.0.2.0/24], deny_hosts: ["*.Example.org"]}}
          - {endpoint: "tcp:4", mode: forward, access: {allow_clients: []}}
        """,
    )
    default, any_port, narrowed, nobody = (listener.access for listener in found.listeners)
    assert default == AccessConfig(allow_clients=PRIVATE_CLIENTS, connect_ports=(443,))
    assert any_port == AccessConfig(allow_clients=PRIVATE_CLIENTS, connect_ports=())
    assert narrowed.allow_clients == (ipaddress.ip_network("192.0.2.0/24"),)
    assert narrowed.deny_hosts == ("*.example.org",)
    assert nobody.allow_clients == ()


@pytest.mark.parametrize("address", ["127.8.9.1", "10.1.2.3", "172.31.0.1", "192.168.1.1", "169.254.1.1"])
@pytest.mark.parametrize("outside", [False, True])
def test_private_clients_are_exactly_the_reserved_ranges(address: str, outside: bool) -> None:
    where = (
        {"172.31.0.1": "172.32.0.1", "169.254.1.1": "169.253.1.1"}.get(address, "203.0.113.1") if outside else address
    )
    assert any(ipaddress.ip_address(where) in network for network in PRIVATE_CLIENTS) is not outside


def test_a_listener_overrides_single_limits_and_times_of_the_top_level(tmp_path: Path) -> None:
    found = loaded(
        tmp_path,
        """
        listeners:
          - {endpoint: "tcp:1"}
          - {endpoint: "tcp:2", limits: {body: 5MB}, timeouts: {idle: 250ms}}
        limits: {body: 1KiB, header_count: 7}
        timeouts: {idle: 2m, total: 1h}
        remap: [{respond: 204}]
        """,
    )
    first, second = found.listeners
    assert first.limits == LimitsConfig(body=1024, header_count=7)
    assert second.limits == LimitsConfig(body=5_000_000, header_count=7)
    assert first.timeouts == TimeoutsConfig(idle=120.0, total=3600.0)
    assert second.timeouts == TimeoutsConfig(idle=0.25, total=3600.0)


def test_remap_rules_keep_their_order_and_parts(tmp_path: Path) -> None:
    found = loaded(
        tmp_path,
        """
        listeners: [{endpoint: "tcp:1"}]
        upstreams:
          a: {servers: [{url: "https://A.example:8443", weight: 3}, "http://[::1]"], balance: consistent_hash,
              hash_on: "header:X-User"}
        remap:
          - match: {host: "*.Example.COM", path: /api/, methods: [GET, M-SEARCH]}
            upstream: a
            rewrite: /
            preserve_host: no
          - {match: {regex: "/u/(\\\\d+)"}, redirect: {to: "https://$host/user/$1", status: 308}}
          - {match: {path: /old}, redirect: "/new"}
          - {respond: 404}
        """,
    )
    (upstream,) = found.upstreams
    assert upstream.servers == (ServerConfig("a.example", 8443, True, 3), ServerConfig("::1", 80))
    assert (upstream.balance, upstream.hash_on) == ("consistent_hash", "header:X-User")
    api, users, old, rest = found.remap
    assert (api.host, api.path, api.methods) == ("*.example.com", "/api/", ("GET", "M-SEARCH"))
    assert (api.upstream, api.rewrite, api.preserve_host) == ("a", "/", False)
    assert users.regex is not None
    assert users.regex.pattern == rb"/u/(\d+)"
    assert users.redirect == RedirectConfig("https://$host/user/$1", 308)
    assert old.redirect == RedirectConfig("/new", 302)
    assert rest.respond == 404
    assert rest.location is not None
    assert (rest.location.line, rest.location.key) == (13, "remap[3]")


def test_filters_of_all_forms_stand_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "ats.yaml").write_text("config: {name: old, vmConfig: {code: {local: {filename: filter.wasm}}}}")
    found = loaded(
        tmp_path,
        MINIMAL
        + """
wasm:
  - {file: ats.yaml, phase: origin, runtime: wasmtime, cpu_limit: 50ms, host_memory_limit: 2MiB, restart: {traps: 5}}
  - {native: stamp, configuration: {a: [1, yes, "2"]}, phase: origin}
  - {name: new, rootId: r, vmConfig: {vmId: v, code: {local: {filename: filter.wasm}}, memory_limit: 1MiB}}
""",
    )
    old, native, new = found.filters
    assert isinstance(old, WasmFilterConfig)
    assert (old.name, old.phase, old.fail_open) == ("old", Phase.ORIGIN, True)
    assert (old.vm.runtime, old.vm.cpu_limit, old.vm.code) == ("wasmtime", 0.05, tmp_path / "filter.wasm")
    assert old.vm.restart == RestartConfig(traps=5, within=60.0, spare=True)
    assert isinstance(native, NativeFilterConfig)
    assert old.vm.host_memory_limit == 2 * 1024 * 1024
    assert (native.native, native.name, native.phase) == ("stamp", "stamp", Phase.ORIGIN)
    assert native.configuration == {"a": [1, "yes", "2"]}
    assert isinstance(new, WasmFilterConfig)
    assert (new.name, new.root_id, new.fail_open) == ("new", "r", False)
    assert (new.vm.vm_id, new.vm.memory_limit, new.vm.host_memory_limit) == ("v", 1024 * 1024, None)


@pytest.mark.parametrize(
    ("yaml", "data"),
    [
        ("'{\"a\": 1}'", b'{"a": 1}'),
        ("plain text", b"plain text"),
        ('"\\u00e4\\ud83d\\ude00"', "ä😀".encode()),
        ("17", b"17"),
        ("true", b"true"),
        ("", b""),
        ("null", b""),
        ("{a: 1, b: [x, 2.5, true, null], c: '7'}", b'{"a": 1, "b": ["x", 2.5, true, null], "c": "7"}'),
        ("[on, NO, 12:30:45, 2001-01-01, 0x10, 007]", b'["on", "NO", "12:30:45", "2001-01-01", "0x10", "007"]'),
        ("{ä: ü}", '{"ä": "ü"}'.encode()),
        ("{'@type': type.googleapis.com/google.protobuf.StringValue, value: '{\"x\": 1}'}", b'{"x": 1}'),
        ("{'@type': type.googleapis.com/google.protobuf.BytesValue, value: AAEC}", b"\0\1\2"),
        ("{'@type': type.googleapis.com/google.protobuf.Struct, value: {x: 1}}", b'{"x": 1}'),
    ],
)
def test_plugin_configuration_reaches_the_module_as_bytes(tmp_path: Path, yaml: str, data: bytes) -> None:
    assert plugin(tmp_path, f"configuration: {yaml}").configuration == data
    assert plugin(tmp_path, vm=f"configuration: {yaml or 'null'}").vm.configuration == data


@pytest.mark.parametrize(
    ("yaml", "names"),
    [
        ("{allowed_capabilities: [proxy_log, fd_write]}", {"proxy_log", "fd_write"}),
        ("{allowed_capabilities: {proxy_log: {}, fd_write: null}}", {"proxy_log", "fd_write"}),
        ("{allowed_capabilities: []}", None),
        ("{allowed_capabilities: {}}", None),
        ("{}", None),
    ],
)
def test_capabilities_in_both_forms(tmp_path: Path, yaml: str, names: set[str] | None) -> None:
    assert plugin(tmp_path, f"capability_restriction_config: {yaml}").capabilities == names


def test_environment_variables_come_from_the_host_and_are_overridden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FROM_HOST", "host")
    monkeypatch.setenv("BOTH", "host")
    monkeypatch.delenv("UNSET", raising=False)
    vm = "environment_variables: {host_env_keys: [FROM_HOST, BOTH, UNSET], key_values: {BOTH: file, N: 5, E: }}"
    assert plugin(tmp_path, vm=vm).vm.environment == (("FROM_HOST", "host"), ("BOTH", "file"), ("N", "5"), ("E", ""))


def test_paths_are_relative_to_the_file_that_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca=1.pem")
    authority.issue_cert("x.example").private_key_and_cert_chain_pem.write_to_path(tmp_path / "both.pem")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "filter.wasm").write_bytes(b"")
    (tmp_path / "sub" / "ats.yaml").write_text("config: {vm_config: {code: {local: {filename: filter.wasm}}}}")
    monkeypatch.chdir("/")
    found = loaded(
        tmp_path,
        """
        listeners:
          - endpoint: "ssl:443:interface=127.0.0.1:privateKey=both.pem"
          - endpoint: "unix:a\\\\:b.sock:mode=600"
        upstreams:
          o: {servers: ["https://x.example"], tls: {ca_file: ca=1.pem, certificate: both.pem}}
        remap: [{upstream: o}]
        filters: [{file: sub/ats.yaml}]
        access_log: {path: access.log}
        code_cache: compiled
        """,
    )
    quoted = str(tmp_path)
    assert found.listeners[0].endpoint == f"ssl:443:interface=127.0.0.1:privateKey={quoted}/both.pem"
    assert found.listeners[1].endpoint == f"unix:{quoted}/a\\:b.sock:mode=600"
    assert found.upstreams[0].tls.ca_file == tmp_path / "ca=1.pem"
    assert found.upstreams[0].tls.certificate == tmp_path / "both.pem"
    assert found.filters[0].vm.code == tmp_path / "sub" / "filter.wasm"  # type: ignore[union-attr]  # it is a Wasm one
    assert found.access_log == (AccessLogConfig(tmp_path / "access.log"),)
    assert found.code_cache == tmp_path / "compiled"


def test_the_rest_of_the_sections(tmp_path: Path) -> None:
    found = loaded(
        tmp_path,
        MINIMAL
        + """
headers: {via: null, x_forwarded: false, forwarded: true, server: "me/1 (here)"}
access_log: [{path: "-", format: squid}, {format: '%<chi> "%<{User-Agent}cqh>"'}, {path: null, format: json}]
log: {level: warn, levels: {twisted_wasmproxy.upstream: debug}}
node: {id: n1, cluster: 7}
""",
    )
    assert found.headers == HeadersConfig(via=None, x_forwarded=False, forwarded=True, server="me/1 (here)")
    assert [log.path for log in found.access_log] == [None, None, None]
    assert found.log_levels == (("", "warn"), ("twisted_wasmproxy.upstream", "debug"))
    assert found.node == (("id", "n1"), ("cluster", "7"))


def test_merge_keys_and_aliases_are_resolved(tmp_path: Path) -> None:
    found = loaded(
        tmp_path,
        """
        listeners: [{endpoint: "tcp:1"}]
        upstreams:
          a: &common {servers: ["http://h:1"], retries: 3, max_idle: 5}
          b: {<<: *common, retries: 0}
          c: *common
        remap: [{upstream: c}]
        """,
    )
    assert [(one.name, one.retries, one.max_idle) for one in found.upstreams] == [("a", 3, 5), ("b", 0, 5), ("c", 3, 5)]


def test_loading_does_not_install_a_reactor(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL)
    code = (
        "import sys; from pathlib import Path; from twisted_wasmproxy import config; "
        f"config.load(Path({str(path)!r})); sys.exit('twisted.internet.reactor' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_reverse_listener_without_rules_is_warned_about(tmp_path: Path) -> None:
    (warning,) = loaded(tmp_path, "listeners: [{endpoint: 'tcp:1'}]").warnings
    assert warning.endswith("proxy.yaml:1: no remap rules: a reverse listener answers 404 unless a filter answers")
