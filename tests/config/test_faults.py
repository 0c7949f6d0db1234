"""Every fault in a configuration is told with its file, line and key, all of them at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.config.support import MINIMAL, PLUGIN, loaded, problems


def test_every_problem_is_told_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    assert problems(
        tmp_path,
        """\
        listeners:
          - endpoit: tcp:8080
          - endpoint: tcq:8080
            mode: sideways
        upstreams:
          origin: {servers: [], retries: -1}
        remap:
          - {upstream: orgin}
        cache: {memory: 1GB, disc: {path: .}}
        limits: {body: 1XB}
        """,
    ) == [
        "proxy.yaml:2: listeners[0].endpoit: unknown key; did you mean 'endpoint'?",
        "proxy.yaml:2: listeners[0]: 'endpoint' is missing",
        "proxy.yaml:3: listeners[1].endpoint: unknown kind of endpoint 'tcq'; known: haproxy, ssl, stdio, systemd, "
        "tcp, tcp6, tls, unix (as in tcp:8080:interface=127.0.0.1)",
        "proxy.yaml:4: listeners[1].mode: must be one of reverse, forward, not 'sideways'",
        "proxy.yaml:6: upstreams.origin.servers: must not be empty",
        "proxy.yaml:6: upstreams.origin.retries: must be a whole number from 0 to 100, not '-1'",
        "proxy.yaml:8: remap[0].upstream: unknown upstream 'orgin'; known: origin",
        "proxy.yaml:9: cache.disc: unknown key; did you mean 'disk'?",
        "proxy.yaml:10: limits.body: unknown unit 'XB'; known: B, KiB, KB, MiB, MB, GiB, GB, TiB, TB",
    ]


@pytest.mark.parametrize(
    ("section", "key", "text"),
    [
        ("admin: {}", "admin", "'endpoint' is missing"),
        ("config: {}", "config", "begins a Traffic Server plugin file, and must then be its first key"),
        ("limts: {}", "limts", "unknown key; did you mean 'limits'?"),
        (
            "xyzzy: 1",
            "xyzzy",
            "unknown key; known here: listeners, upstreams, remap, filters, headers, cache, admin, access_log, "
            "log, node, code_cache, limits, timeouts",
        ),
        ("limits: 5", "limits", "must be a mapping, not '5'"),
        ("limits:", "limits", "must be a mapping, not empty"),
        ("filters: {}", "filters", "must be a list, not a mapping"),
        ("filters: []\nwasm: []", "wasm", "is another spelling of 'filters', which is there too"),
        ("filters: [5]", "filters[0]", "must be a mapping with 'file', 'native' or 'vm_config', not '5'"),
        ("filters: [{file: nope.yaml}]", "filters[0].file", "no such file: nope.yaml"),
        (
            "filters: [{file: filter.wasm, vm_config: {}}]",
            "filters[0].vm_config",
            "unknown key; known here: file, fail_open, runtime, phase, allow_on_headers_stop_iteration, cpu_limit, "
            "memory_limit, host_memory_limit, lax_imports, restart",
        ),
        ("filters: [{native: x, phase: both}]", "filters[0].phase", "must be one of client, origin, not 'both'"),
        ("limits: {header_count: '7'}", "limits.header_count", "must be a whole number from 1 up, not '7'"),
        ("limits: {header_count: 1:30}", "limits.header_count", "must be a whole number from 1 up, not '1:30'"),
        ("limits: {header_count: 7.5}", "limits.header_count", "must be a whole number from 1 up, not '7.5'"),
        ("limits: {body: -1}", "limits.body", "must be a size in bytes such as 65536, 64KiB or 10MB, not '-1'"),
        ("limits: {body: [1]}", "limits.body", "must be a size in bytes such as 65536, 64KiB or 10MB, not a list"),
        ("limits: {header_bytes: 10B}", "limits.header_bytes", "must be at least 256 bytes"),
        ("limits: {underscores: keep}", "limits.underscores", "must be one of drop, refuse, pass, not 'keep'"),
        ("timeouts: {idle: soon}", "timeouts.idle", "must be a time such as 30s, 1.5, 500ms or 5m, not 'soon'"),
        ("timeouts: {idle: .inf}", "timeouts.idle", "must be a time such as 30s, 1.5, 500ms or 5m, not '.inf'"),
        ("timeouts: {idle: 3weeks}", "timeouts.idle", "unknown unit 'weeks'; known: ms, s, m, h, d"),
        ("timeouts: {idle: 0}", "timeouts.idle", "must be at least 0.001 s"),
        ("headers: {x_forwarded: 1}", "headers.x_forwarded", "must be true or false, not '1'"),
        ("headers: {x_forwarded: 'true'}", "headers.x_forwarded", "must be true or false, not 'true'"),
        ("headers: {via: 'a b'}", "headers.via", "must be a token (letters, digits and !#$%&'*+-.^_`|~), not 'a b'"),
        ('headers: {server: "a\\nb"}', "headers.server", "must be printable ASCII text, not 'a\\nb'"),
        ("log: {level: loud}", "log.level", "must be one of debug, info, warn, error, critical, not 'loud'"),
        ("log: {levels: {a: 1}}", "log.levels.a", "must be one of debug, info, warn, error, critical, not '1'"),
        ("node: {id: [1]}", "node.id", "must be text, not a list"),
        ("access_log: [{path: no/such/access.log}]", "access_log[0].path", "no such directory: no/such"),
        (
            "access_log: {path: ~no-such-user/x}",
            "access_log.path",
            "~no-such-user/x: Could not determine home directory.",
        ),
        ("access_log: {path: .}", "access_log.path", "is a directory, not a file: ."),
        (
            "access_log: {format: combined}",
            "access_log.format",
            "unknown format 'combined'; known: squid, common, extended, extended2, json, or a text with %<field>",
        ),
    ],
)
def test_a_fault_in_a_section_names_line_key_and_reason(tmp_path: Path, section: str, key: str, text: str) -> None:
    line = MINIMAL.count("\n") + section.count("\n") + 1
    (problem,) = problems(tmp_path, MINIMAL + section + "\n")
    # A path that is relative to the configuration's folder comes out with that folder in front.
    assert problem.replace(str(tmp_path), ".") == f"proxy.yaml:{line}: {key}: {text}"


@pytest.mark.parametrize(
    ("upstream", "key", "text"),
    [
        ("5", "", "must be a mapping, not '5'"),
        ("{}", "", "'servers' is missing"),
        ("{servers: http://h}", "servers", "must be a list, not 'http://h'"),
        (
            "{servers: ['h:80']}",
            "servers[0]",
            "must be a URL such as http://127.0.0.1:8000 or https://origin.example, not 'h:80'",
        ),
        ("{servers: ['http://h/x']}", "servers[0]", "must name only scheme, host and port"),
        ("{servers: ['http://u:p@h']}", "servers[0]", "must name only scheme, host and port"),
        ("{servers: ['http://h?']}", "servers[0]", "must name only scheme, host and port"),
        ("{servers: ['http://h:0']}", "servers[0]", "port 0 cannot be connected to"),
        ("{servers: ['http://h:70000']}", "servers[0]", "is not a URL: Port out of range 0-65535"),
        ("{servers: ['http://a b']}", "servers[0]", "is not a host name: 'a b'"),
        ("{servers: ['http://h..x']}", "servers[0]", "is not a host name: 'h..x'"),
        ("{servers: [{weight: 2}]}", "servers[0]", "'url' is missing"),
        (
            "{servers: [{url: 'http://h', weight: 0}]}",
            "servers[0].weight",
            "must be a whole number from 1 to 1000, not '0'",
        ),
        (
            "{servers: ['http://h'], balance: random}",
            "balance",
            "must be one of round_robin, least_connections, consistent_hash, not 'random'",
        ),
        ("{servers: ['http://h'], hash_on: host}", "hash_on", "belongs to balance: consistent_hash"),
        (
            "{servers: ['http://h'], balance: consistent_hash, hash_on: 'header:'}",
            "hash_on",
            "must be path, host, source or header:NAME, not 'header:'",
        ),
        ("{servers: ['http://h'], tls: {ca_file: nope.pem}}", "tls.ca_file", "no such file: nope.pem"),
        (
            "{servers: ['http://h'], health: {rest: x}}",
            "health.rest",
            "must be a time such as 30s, 1.5, 500ms or 5m, not 'x'",
        ),
    ],
)
def test_a_fault_in_an_upstream(tmp_path: Path, upstream: str, key: str, text: str) -> None:
    (problem,) = problems(tmp_path, f"listeners: [{{endpoint: 'tcp:1'}}]\nupstreams:\n  u: {upstream}\n")
    where = f"upstreams.u.{key}" if key else "upstreams.u"
    assert problem.replace(str(tmp_path), ".") == f"proxy.yaml:3: {where}: {text}"


@pytest.mark.parametrize("key", ["ca_file", "certificate"])
def test_a_file_that_is_no_certificate_is_told(tmp_path: Path, key: str) -> None:
    (problem,) = problems(
        tmp_path,
        f"listeners: [{{endpoint: 'tcp:1'}}]\nupstreams: {{u: {{servers: ['http://h'], tls: {{{key}: filter.wasm}}}}}}",
    )
    assert problem.startswith(f"proxy.yaml:2: upstreams.u.tls.{key}: is not a PEM file of ")


@pytest.mark.parametrize(
    ("rule", "key", "text"),
    [
        ("{}", "", "must say one of upstream, redirect or respond"),
        (
            "{upstream: origin, respond: 200}",
            "",
            "must say one of upstream, redirect or respond, not upstream and respond",
        ),
        ("{upstream: nowhere}", "upstream", "unknown upstream 'nowhere'; known: origin"),
        ("{respond: 99}", "respond", "must be a whole number from 200 to 599, not '99'"),
        ("{respond: 200, rewrite: /}", "rewrite", "belongs to a rule with 'upstream'"),
        (
            "{redirect: ''}",
            "redirect",
            "must be text in ASCII without spaces (other characters percent-encoded), not ''",
        ),
        (
            '{redirect: "/a\\r\\nSet-Cookie:x"}',
            "redirect",
            "must be text in ASCII without spaces (other characters percent-encoded), not '/a\\r\\nSet-Cookie:x'",
        ),
        ("{redirect: {to: /x, status: 200}}", "redirect.status", "must be a whole number from 300 to 399, not '200'"),
        ("{redirect: {status: 301}}", "redirect", "'to' is missing"),
        ("{redirect: /$1}", "redirect", "$1: the rule's regex has no such group"),
        (
            "{match: {regex: '/(a)'}, upstream: origin, rewrite: '/$1$2$$3'}",
            "rewrite",
            "$2: the rule's regex has no such group",
        ),
        ("{upstream: origin, rewrite: x}", "rewrite", "must begin with / (what follows 'regex' may begin otherwise)"),
        (
            "{redirect: '/$hots'}",
            "redirect",
            "$hots: no such variable; there are $host, $path, $query, $scheme, $1 and so on, and $$ for a dollar",
        ),
        (
            "{match: {host: 'a:80'}, respond: 200}",
            "match.host",
            "must be a host name without port, or *.domain, not 'a:80'",
        ),
        (
            "{match: {host: 'ä.example'}, respond: 200}",
            "match.host",
            "write an internationalised name in its ASCII form (xn--...)",
        ),
        (
            "{match: {path: x}, respond: 200}",
            "match.path",
            "must be a path prefix that begins with / (other characters percent-encoded), not 'x'",
        ),
        (
            "{match: {regex: '('}, respond: 200}",
            "match.regex",
            "is not a regular expression: missing ), unterminated subpattern at position 0",
        ),
        ("{match: {methods: []}, respond: 200}", "match.methods", "must not be empty"),
        (
            "{match: {methods: ['A B']}, respond: 200}",
            "match.methods[0]",
            "must be a token (letters, digits and !#$%&'*+-.^_`|~), not 'A B'",
        ),
    ],
)
def test_a_fault_in_a_remap_rule(tmp_path: Path, rule: str, key: str, text: str) -> None:
    (problem,) = problems(tmp_path, MINIMAL + f"  - {rule}\n")
    where = f"remap[1].{key}" if key else "remap[1]"
    assert problem == f"proxy.yaml:{MINIMAL.count(chr(10)) + 1}: {where}: {text}"


@pytest.mark.parametrize(
    ("endpoint", "text"),
    [
        ("", "unknown kind of endpoint ''"),
        ("tcp", "is not a usable endpoint: missing 1 required positional argument: 'port'"),
        ("tcp:http", "is not a usable endpoint: invalid literal for int()"),
        ("tcp:99999", "port 99999 is not from 0 to 65535"),
        ("tcp:port=99999", "port 99999 is not from 0 to 65535"),
        ("tcp:80:colour=red", "is not a usable endpoint: got an unexpected keyword argument 'colour'"),
        ("tcp:80\\", "ends in a backslash"),
        ("ssl:443:privateKey=nope.pem", "is not a usable endpoint: no such file: nope.pem"),
        ("ssl:443:privateKey=filter.wasm", "is not a usable endpoint: "),
        ("systemd:domain=INET:index=7", "is not a usable endpoint: "),
    ],
)
def test_an_endpoint_that_cannot_be_listened_on(tmp_path: Path, endpoint: str, text: str) -> None:
    (problem,) = problems(tmp_path, f"listeners:\n  - endpoint: '{endpoint}'\n")
    assert problem.replace(str(tmp_path), ".").startswith(f"proxy.yaml:2: listeners[0].endpoint: {text}")


@pytest.mark.parametrize(
    ("listener", "key", "text"),
    [
        ("{endpoint: 'tcp:1', mode: tcp}", "mode", "mode tcp is not supported yet; there are reverse and forward"),
        ("{endpoint: 'tcp:1', access: {}}", "access", "belongs to a listener of mode: forward"),
        (
            "{endpoint: 'tcp:1', mode: forward, access: {allow_clients: [10.0.0.1/8]}}",
            "access.allow_clients[0]",
            "is not a network: 10.0.0.1/8 has host bits set",
        ),
        (
            "{endpoint: 'tcp:1', mode: forward, access: {connect_ports: [0]}}",
            "access.connect_ports[0]",
            "must be a whole number from 1 to 65535, not '0'",
        ),
    ],
)
def test_a_fault_in_a_listener(tmp_path: Path, listener: str, key: str, text: str) -> None:
    (problem,) = problems(tmp_path, f"listeners:\n  - {listener}\n")
    assert problem == f"proxy.yaml:2: {f'listeners[0].{key}' if key else 'listeners[0]'}: {text}"


def test_listeners_must_be_said_even_if_there_are_none(tmp_path: Path) -> None:
    assert problems(tmp_path, "remap: [{respond: 204}]\n") == ["proxy.yaml:1: 'listeners' is missing"]
    assert loaded(tmp_path, "listeners: []\nremap: [{respond: 204}]\n").listeners == ()


def test_two_listeners_on_one_endpoint(tmp_path: Path) -> None:
    text = "listeners:\n  - {endpoint: 'tcp:1'}\n  - {endpoint: 'tcp:1'}\n"
    assert problems(tmp_path, text) == [
        "proxy.yaml:3: listeners[1]: the same endpoint as that of the listener in line 2"
    ]
    loaded(tmp_path, text.replace("tcp:1", "tcp:0"))  # each gets a port of its own


@pytest.mark.parametrize(
    ("more", "vm", "key", "text"),
    [
        ("fail_open: maybe", "", "fail_open", "must be true or false, not 'maybe'"),
        ("rootId: a\n    root_id: b", "", "root_id", "is another spelling of 'rootId', which is there too"),
        (
            "configuration: {'@type': x/google.protobuf.Empty, value: 1}",
            "",
            "configuration",
            "unknown '@type'; known: google.protobuf.StringValue, google.protobuf.BytesValue, google.protobuf.Struct",
        ),
        (
            "configuration: {'@type': x/google.protobuf.BytesValue, value: '***'}",
            "",
            "configuration.value",
            "is not base64",
        ),
        (
            "capability_restriction_config: {allowed_capabilities: [a b]}",
            "",
            "capability_restriction_config.allowed_capabilities[0]",
            "must be the name of an import or callback",
        ),
        (
            "capability_restriction_config: {allowed_capabilities: {proxy_log: {x: 1}}}",
            "",
            "capability_restriction_config.allowed_capabilities.proxy_log.x",
            "unknown key",
        ),
        ("", "runtime: lucet", "vm_config.runtime", "must be one of auto, wasmtime, wasmer"),
        ("", "cpu_limit: never", "vm_config.cpu_limit", "must be a time"),
        ("", "memory_limit: 1KiB", "vm_config.memory_limit", "must be at least 65536 bytes"),
        *(
            ("", f"restart: {{traps: {value}}}", "vm_config.restart.traps", "must be a whole number from 0 to 1000000")
            for value in ("-1", "1000001", "many", "1.5")
        ),
        *(
            ("", f"restart: {{within: {value}}}", "vm_config.restart.within", "must be")
            for value in ("0", "10ms", "-1s", "soon")
        ),
        ("", "restart: {spare: 2}", "vm_config.restart.spare", "must be true or false"),
        ("", "restart: {delay: 1s}", "vm_config.restart.delay", "unknown key"),
        ("", "restart: true", "vm_config.restart", "must be"),
        ("", "host_memory_limit: 65535", "vm_config.host_memory_limit", "must be at least 65536 bytes"),
        ("", "host_memory_limit: all", "vm_config.host_memory_limit", "must be a size in bytes"),
        (
            "",
            "environment_variables: {host_env_keys: ['A=B']}",
            "vm_config.environment_variables.host_env_keys[0]",
            "must be the name of an environment variable, not 'A=B'",
        ),
        (
            "",
            "environment_variables: {key_values: {'A=B': x}}",
            "vm_config.environment_variables.key_values",
            "not an environment variable: 'A=B'",
        ),
    ],
)
def test_a_fault_in_a_wasm_filter(tmp_path: Path, more: str, vm: str, key: str, text: str) -> None:
    found = problems(tmp_path, PLUGIN % (f", {vm}" if vm else "", more))
    assert len(found) == 1
    assert f": filters[0].{key}: {text}" in found[0]


@pytest.mark.parametrize(
    ("code", "key", "text"),
    [
        ("{}", "", "'local' is missing"),
        ("{local: {filename: nope.wasm}}", ".local.filename", "no such file: nope.wasm"),
        ("{local: {filename: .}}", ".local.filename", "is a directory, not a file: ."),
        ("{local: {filename: ''}}", ".local.filename", "must be the path of a file, not ''"),
        ('{local: {filename: "a\\0b"}}', ".local.filename", "a path cannot have a NUL character"),
    ],
)
def test_a_fault_in_where_the_code_is(tmp_path: Path, code: str, key: str, text: str) -> None:
    found = problems(tmp_path, f"listeners: [{{endpoint: 'tcp:1'}}]\nfilters:\n  - vm_config: {{code: {code}}}\n")
    assert [problem.replace(str(tmp_path), ".") for problem in found] == [
        f"proxy.yaml:3: filters[0].vm_config.code{key}: {text}"
    ]


def test_remote_and_inline_code_are_refused_by_name(tmp_path: Path) -> None:
    first, second = problems(
        tmp_path,
        """\
        listeners: [{endpoint: "tcp:1"}]
        filters:
          - vm_config: {code: {remote: {}, local: {filename: filter.wasm}}}
          - vm_config: {code: {local: {inline_string: x, filename: filter.wasm}}}
        """,
    )
    assert first == "proxy.yaml:3: filters[0].vm_config.code.remote: only local.filename is supported"
    assert second == "proxy.yaml:4: filters[1].vm_config.code.local.inline_string: only local.filename is supported"


def test_faults_in_a_plugin_file_name_that_file(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("config:\n  fail_open: maybe\n  vm_config: {code: {local: {filename: no.wasm}}}\n")
    (tmp_path / "b.yaml").write_text("name: x\n")
    (tmp_path / "c.yaml").write_text("config: [\n")
    found = problems(
        tmp_path, "listeners: [{endpoint: 'tcp:1'}]\nfilters: [{file: a.yaml}, {file: b.yaml}, {file: c.yaml}]\n"
    )
    assert found == [
        "a.yaml:2: config.fail_open: must be true or false, not 'maybe'",
        "a.yaml:3: config.vm_config.code.local.filename: no such file: no.wasm",
        "b.yaml:1: is not a Traffic Server plugin file: its first key must be 'config'",
        "c.yaml:2: is not valid YAML: while parsing a flow node: expected the node content, but found '<stream end>'",
    ]


@pytest.mark.parametrize(
    ("listener", "key", "text"),
    [
        (
            "mode: forward, trusted_proxies: [127.0.0.1]",
            "trusted_proxies",
            "belongs to a listener of mode: reverse; here the client names the scheme",
        ),
        ("trusted_proxies: 127.0.0.1", "trusted_proxies", "must be a list, not '127.0.0.1'"),
        ("trusted_proxies: [unix]", "trusted_proxies[0]", "is not a network: 'unix' does not appear to be an IPv4 or"),
        ("trusted_proxies: [[unix]]", "trusted_proxies[0]", "must be a network such as 10.0.0.0/8 or ::1, not a list"),
        ("access: {}", "access", "belongs to a listener of mode: forward"),
        (
            "mode: forward, access: {allow_own_listeners: 1}",
            "access.allow_own_listeners",
            "must be true or false, not '1'",
        ),
        (
            "mode: forward, access: {allow_destinations: [localhost]}",
            "access.allow_destinations[0]",
            "is not a network: 'localhost' does not appear to be an IPv4 or",
        ),
    ],
)
def test_a_fault_in_who_is_trusted_and_what_is_reached(tmp_path: Path, listener: str, key: str, text: str) -> None:
    (problem,) = problems(tmp_path, "listeners: [{endpoint: 'tcp:1', " + listener + "}]\n")
    assert problem.startswith(f"proxy.yaml:1: listeners[0].{key}: {text}")
