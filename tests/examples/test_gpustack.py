"""Production modules that nobody here wrote (the package gpustack-higress-plugins) do their documented work.

They are built with a Go and a Rust SDK of the Higress family, whose marker is `proxy_abi_version_0_2_100`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.support.compiled import compiled_modules
from tests.support.origin import Answer, Origin, Seen, running_origin
from tests.support.proxy import Proxy, StartFailed, running_proxy

_package = find_spec("gpustack_higress_plugins")
assert _package is not None, "install the extra `test`"
assert _package.origin is not None
MODULES = {
    path.parent.parent.name: path for path in sorted((Path(_package.origin).parent / "plugins").glob("*/*/plugin.wasm"))
}


@dataclass
class Stand:
    proxy: Proxy
    origin: Origin


Serve = Callable[..., AbstractContextManager[Stand]]


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Serve:
    """Run the proxy with one module before an origin. Compiled code is kept from run to run."""
    code_cache = compiled_modules(request.config)

    @contextmanager
    def run(name: str, configuration: Any, *, upstream: str = "origin", **options: Any) -> Iterator[Stand]:
        with ExitStack() as stack:
            origin = stack.enter_context(running_origin())
            plugin = {
                "name": name,
                "configuration": configuration,
                # The limit is of wall-clock time: on a busy machine the large modules take longer to start.
                "vm_config": {"code": {"local": {"filename": str(MODULES[name])}}, "cpu_limit": 30},
                **options,
            }
            config = {
                "upstreams": {upstream: {"servers": [origin.url]}},
                "remap": [{"upstream": upstream}],
                "wasm": [plugin],
                "code_cache": str(code_cache),
                "log": {"level": "debug"},
            }
            proxy = stack.enter_context(running_proxy(config, tmp_path_factory.mktemp(name)))
            yield Stand(proxy, origin)

    return run


# transformer


@pytest.fixture(scope="module")
def request_transformer(serve: Serve) -> Iterator[Stand]:
    rules = [
        {
            "operate": "remove",
            "headers": [{"key": "X-remove"}],
            "querys": [{"key": "k1"}],
            "body": [{"key": "a1"}, {"key": "users.0"}],
        },
        {
            "operate": "rename",
            "headers": [{"oldKey": "X-not-renamed", "newKey": "X-renamed"}],
            "querys": [{"oldKey": "k2", "newKey": "k2-new"}],
            "body": [{"oldKey": "a2", "newKey": "a2-new"}],
        },
        {
            "operate": "replace",
            "headers": [{"key": "X-replace", "newValue": "replaced"}],
            "querys": [{"key": "k2-new", "newValue": "v2-new"}],
            "body": [
                {"key": "a3", "newValue": "t3-new", "value_type": "string"},
                {"key": "number", "newValue": "20", "value_type": "number"},
            ],
        },
        {
            "operate": "add",
            "headers": [{"key": "X-add-append", "value": "host-$1", "host_pattern": r"^(.*)\.com$"}],
            "querys": [{"key": "k3", "value": "v31-$1", "path_pattern": r"^.*?\/(\w+)[\?]{0,1}.*$"}],
            "body": [{"key": "a1-new", "value": "t1-new", "value_type": "string"}],
        },
        {
            "operate": "append",
            "headers": [{"key": "X-add-append", "appendValue": "path-$1", "path_pattern": r"^.*?\/(\w+)[\?]{0,1}.*$"}],
            "querys": [{"key": "k3", "appendValue": "v32"}],
            "body": [
                {
                    "key": "a1-new",
                    "appendValue": "t1-$1-append",
                    "value_type": "string",
                    "host_pattern": r"^(.*)\.com$",
                }
            ],
        },
        {
            "operate": "map",
            "headers": [{"fromKey": "X-add-append", "toKey": "X-map"}],
            "querys": [{"fromKey": "k3", "toKey": "k4"}],
            "body": [{"fromKey": "tags", "toKey": "a4"}],
        },
        {
            "operate": "dedupe",
            "headers": [
                {"key": "X-dedupe-first", "strategy": "RETAIN_FIRST"},
                {"key": "X-dedupe-last", "strategy": "RETAIN_LAST"},
                {"key": "X-dedupe-unique", "strategy": "RETAIN_UNIQUE"},
            ],
            "querys": [{"key": "k4", "strategy": "RETAIN_FIRST"}],
            "body": [{"key": "a4", "strategy": "RETAIN_FIRST"}],
        },
    ]
    with serve("transformer", {"reqRules": rules}) as stand:
        yield stand


HOST = ("Host", "foo.bar.com")


def test_transformer_edits_request_headers(request_transformer: Stand) -> None:
    values = [
        *[("X-dedupe-first", value) for value in "123"],
        *[("X-dedupe-last", value) for value in "abc"],
        *[("X-dedupe-unique", value) for value in "123321"],
    ]
    headers = [HOST, ("X-remove", "exist"), ("X-not-renamed", "test"), ("X-replace", "not-replaced"), *values]
    assert request_transformer.proxy.fetch("/get", headers=headers).status == 200

    seen = request_transformer.origin.last
    assert seen.all("x-remove") == []
    assert seen.all("x-not-renamed") == []
    assert seen.all("x-renamed") == ["test"]
    assert seen.all("x-replace") == ["replaced"]
    assert seen.all("x-add-append") == ["host-foo.bar", "path-get"]
    assert seen.all("x-map") == ["host-foo.bar", "path-get"]
    assert seen.all("x-dedupe-first") == ["1"]
    assert seen.all("x-dedupe-last") == ["c"]
    assert seen.all("x-dedupe-unique") == ["1", "2", "3"]
    assert seen.header("host") == "foo.bar.com"


def test_transformer_leaves_headers_that_no_rule_names(request_transformer: Stand) -> None:
    request_transformer.proxy.fetch("/get", headers=[HOST, ("X-Other", "one"), ("X-Other", "two")])
    seen = request_transformer.origin.last
    assert seen.all("x-other") == ["one", "two"]
    assert seen.all("x-replace") == []
    assert seen.all("x-renamed") == []


def test_transformer_edits_the_query(request_transformer: Stand) -> None:
    request_transformer.proxy.fetch("/get?k1=v11&k1=v12&k2=v2", headers=[HOST])
    path, _, query = request_transformer.origin.last.target.partition("?")
    assert path == "/get"
    assert sorted(query.split("&")) == ["k2-new=v2-new", "k3=v31-get", "k3=v32", "k4=v31-get"]


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_transformer_edits_a_json_request_body(request_transformer: Stand, chunked: bool) -> None:
    body = {"a1": "t1", "a2": "t2", "a3": "t3", "number": 1, "users": [{"id": 1}, {"id": 2}], "tags": ["x", "y"]}
    encoded = json.dumps(body).encode()
    response = request_transformer.proxy.fetch(
        "/post",
        method="POST",
        headers=[HOST, ("Content-Type", "application/json")],
        body=[encoded[:10], encoded[10:40], encoded[40:]] if chunked else encoded,
    )
    assert response.status == 200
    assert request_transformer.origin.last.json() == {
        "a1-new": ["t1-new", "t1-foo.bar-append"],
        "a2-new": "t2",
        "a3": "t3-new",
        "a4": "x",
        "number": 20,
        "tags": ["x", "y"],
        "users": [{"id": 2}],
    }


def test_transformer_edits_a_form(request_transformer: Stand) -> None:
    request_transformer.proxy.fetch(
        "/post",
        method="POST",
        headers=[HOST, ("Content-Type", "application/x-www-form-urlencoded")],
        body=b"a1=t1&a2=t2&a3=t3&tags=x&tags=y",
    )
    form = sorted(request_transformer.origin.last.body.decode().split("&"))
    expected = ["a1-new=t1-foo.bar-append", "a1-new=t1-new", "a2-new=t2", "a3=t3-new", "a4=x", "tags=x", "tags=y"]
    assert form == expected


def test_transformer_passes_other_bodies_as_they_are(request_transformer: Stand) -> None:
    body = bytes(range(256)) * 300
    request_transformer.proxy.fetch(
        "/post", method="POST", headers=[HOST, ("Content-Type", "application/octet-stream")], body=body
    )
    assert request_transformer.origin.last.body == body


def test_transformer_edits_a_large_json_body(request_transformer: Stand) -> None:
    body = {"a3": "t3", "filling": "x" * 300_000}
    response = request_transformer.proxy.fetch(
        "/post",
        method="POST",
        headers=[HOST, ("Content-Type", "application/json")],
        body=json.dumps(body).encode(),
    )
    assert response.status == 200
    result = request_transformer.origin.last.json()
    assert isinstance(result, dict)
    assert result["a3"] == "t3-new"
    assert result["filling"] == body["filling"]


@pytest.fixture(scope="module")
def body_to_header(serve: Serve) -> Iterator[Stand]:
    rule = {
        "operate": "map",
        "mapSource": "body",
        "headers": [
            {"fromKey": "userId", "toKey": "x-user-id"},
            {"fromKey": "friends.1.first", "toKey": "x-first-name"},
        ],
    }
    with serve("transformer", {"reqRules": [rule]}) as stand:
        yield stand


def test_transformer_holds_headers_until_the_body_has_been_read(body_to_header: Stand) -> None:
    body = {"userId": 12, "friends": [{"first": "Dale"}, {"first": "Roger"}]}
    encoded = json.dumps(body).encode()
    response = body_to_header.proxy.fetch(
        "/", method="POST", headers=[("Content-Type", "application/json")], body=[encoded[:7], encoded[7:]]
    )
    assert response.status == 200
    seen = body_to_header.origin.last
    assert seen.header("x-user-id") == "12"
    assert seen.header("x-first-name") == "Roger"
    assert seen.json() == body


def test_transformer_maps_form_fields_to_headers(body_to_header: Stand) -> None:
    body_to_header.proxy.fetch(
        "/",
        method="POST",
        headers=[("Content-Type", "application/x-www-form-urlencoded")],
        body=b"userId=12&userName=johnlanni",
    )
    assert body_to_header.origin.last.header("x-user-id") == "12"


@pytest.fixture(scope="module")
def response_transformer(serve: Serve) -> Iterator[Stand]:
    rules = [
        {"operate": "remove", "headers": [{"key": "X-Internal"}], "body": [{"key": "secret"}]},
        {"operate": "rename", "headers": [{"oldKey": "X-Old", "newKey": "X-New"}]},
        {
            "operate": "replace",
            "headers": [{"key": "Server", "newValue": "edge"}],
            "body": [{"key": "users.#.age", "newValue": "20"}],
        },
        {
            "operate": "add",
            "headers": [{"key": "X-Added", "value": "yes"}],
            "body": [{"key": "foo.bar", "value": "nested"}, {"key": r"dotted\.key", "value": "flat"}],
        },
    ]
    with serve("transformer", {"respRules": rules}) as stand:
        yield stand


def _json_answer(body: object, chunked: bool, *headers: tuple[str, str]) -> Callable[[Seen], Answer]:
    encoded = json.dumps(body).encode()
    return lambda seen: Answer(
        [encoded[:5], encoded[5:20], encoded[20:]] if chunked else encoded,
        headers=[("Content-Type", "application/json"), *headers],
    )


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_transformer_edits_responses(response_transformer: Stand, chunked: bool) -> None:
    body = {"secret": 1, "users": [{"name": "zhangsan", "age": 18}, {"name": "lisi", "age": 19}]}
    response_transformer.origin.answer = _json_answer(body, chunked, ("X-Internal", "1"), ("X-Old", "value"))
    response = response_transformer.proxy.fetch("/get")
    assert response.status == 200
    assert response.header("x-internal") is None
    assert response.header("x-old") is None
    assert response.header("x-new") == "value"
    assert response.header("x-added") == "yes"
    assert response.header("server") == "edge"
    assert response.json() == {
        "users": [{"name": "zhangsan", "age": "20"}, {"name": "lisi", "age": "20"}],
        "foo": {"bar": "nested"},
        "dotted.key": "flat",
    }


def test_transformer_edits_headers_of_responses_that_are_not_json(response_transformer: Stand) -> None:
    response_transformer.origin.answer = lambda seen: Answer(b"plain text")
    response = response_transformer.proxy.fetch("/get")
    assert response.body == b"plain text"
    assert response.header("x-added") == "yes"


def test_transformer_refuses_a_configuration_without_rules(serve: Serve) -> None:
    with pytest.raises(StartFailed, match="transformer rule not exist"), serve("transformer", {"rules": []}):
        pass


# gpustack-set-header-pre-route


@pytest.fixture(scope="module")
def set_header(serve: Serve) -> Iterator[Stand]:
    configuration = {
        "routeNameHeader": "X-GPUStack-Route-Name",
        "clusterNameHeader": "X-GPUStack-Model",
        "enableOnPathSuffix": ["/completions", "/embeddings"],
        "enableOnPathPrefix": ["/model/proxy"],
    }
    upstream = "outbound|80||model-1.static"
    with serve("gpustack-set-header-pre-route", configuration, upstream=upstream, phase="origin") as stand:
        yield stand


@pytest.mark.parametrize("target", ["/v1/chat/completions", "/v1/embeddings?a=/b", "/model/proxy/7/v1/models"])
def test_set_header_names_the_upstream_on_matching_paths(set_header: Stand, target: str) -> None:
    assert set_header.proxy.fetch(target, method="POST", body=b"{}").status == 200
    assert set_header.origin.last.header("x-gpustack-model") == "model-1.static"
    assert set_header.origin.last.header("x-gpustack-route-name")


@pytest.mark.parametrize("target", ["/", "/v1/models", "/completions/v1", "/v1/x?path=/completions"])
def test_set_header_leaves_other_paths_alone(set_header: Stand, target: str) -> None:
    assert set_header.proxy.fetch(target).status == 200
    assert set_header.origin.last.header("x-gpustack-model") is None
    assert set_header.origin.last.header("x-gpustack-route-name") is None


def test_set_header_refuses_a_configuration_without_a_header(serve: Serve) -> None:
    message = "one of the routeNameHeader or clusterNameHeader should be configured"
    with pytest.raises(StartFailed, match=message), serve("gpustack-set-header-pre-route", {}):
        pass


# gpustack-ip-acl


@pytest.fixture(scope="module")
def ip_acl(serve: Serve) -> Iterator[Stand]:
    configuration = {
        "realIPHeader": "x-real-ip",
        "consumers": {
            "alice": {"allowedCidrs": ["192.168.1.0/24", "2001:db8::/32"], "deniedCidrs": ["192.168.1.13"]},
            "bob": {"deniedCidrs": ["203.0.113.0/24"]},
            "local": {"allowedCidrs": ["127.0.0.0/8"]},
            "gpustack-*": {"allowedCidrs": ["10.0.0.0/8"]},
            "*-ci": {"deniedCidrs": ["198.51.100.0/24"]},
            "*": {"deniedCidrs": ["192.0.2.0/24"]},
        },
    }
    with serve("gpustack-ip-acl", configuration) as stand:
        yield stand


@pytest.mark.parametrize(
    ("consumer", "address", "status"),
    [
        pytest.param("alice", "192.168.1.7", 200, id="allowed"),
        pytest.param("alice", "192.168.2.7", 403, id="not in the allow list"),
        pytest.param("alice", "192.168.1.13", 403, id="denied before allowed"),
        pytest.param("alice", "2001:db8::5", 200, id="allowed IPv6"),
        pytest.param("alice", "2001:db9::5", 403, id="other IPv6"),
        pytest.param("alice", "192.168.1.7, 192.168.2.7", 200, id="first of a list"),
        pytest.param("bob", "203.0.113.7", 403, id="denied"),
        pytest.param("bob", "203.0.114.7", 200, id="not denied"),
        pytest.param("gpustack-5", "10.1.2.3", 200, id="prefix rule allows"),
        pytest.param("gpustack-5", "11.1.2.3", 403, id="prefix rule denies"),
        pytest.param("build-ci", "198.51.100.1", 403, id="suffix rule"),
        pytest.param("carol", "192.0.2.1", 403, id="catch-all denies"),
        pytest.param("carol", "192.0.3.1", 200, id="catch-all lets others in"),
        pytest.param("local", None, 200, id="own address allowed"),
        pytest.param("alice", None, 403, id="own address not allowed"),
        pytest.param(None, "203.0.113.7", 200, id="no consumer, no rule"),
    ],
)
def test_ip_acl(ip_acl: Stand, consumer: str | None, address: str | None, status: int) -> None:
    before = len(ip_acl.origin.seen)
    headers = [(name, value) for name, value in (("x-mse-consumer", consumer), ("x-real-ip", address)) if value]
    response = ip_acl.proxy.fetch("/v1/models", headers=headers)
    assert response.status == status
    assert len(ip_acl.origin.seen) - before == (1 if status == 200 else 0)
    if status == 403:
        assert response.header("content-type") == "application/json"
        assert isinstance(response.json(), dict)


def test_ip_acl_closes_on_a_broken_configuration(serve: Serve) -> None:
    with serve("gpustack-ip-acl", {"consumers": ["alice"]}) as stand:
        assert stand.proxy.fetch("/", headers=[("x-mse-consumer", "alice")]).status == 403
        assert "failing closed" in stand.proxy.log


# The others: what needs no callout does its work, and all of them start.


def test_generic_proxy_router_takes_the_model_from_the_body(serve: Serve) -> None:
    configuration = {"addProviderHeader": "x-provider", "modelToHeader": "x-model"}
    with serve("gpustack-generic-proxy-router", configuration) as stand:
        body = {"model": "openai/gpt-4o", "messages": []}
        response = stand.proxy.fetch(
            "/v1/chat/completions",
            method="POST",
            headers=[("Content-Type", "application/json")],
            body=json.dumps(body).encode(),
        )
        assert response.status == 200
        seen = stand.origin.last
        assert seen.header("x-higress-llm-model") == "openai/gpt-4o"
        assert seen.header("x-provider") == "openai"
        assert seen.header("x-model") == "gpt-4o"
        assert seen.json() == {"model": "gpt-4o", "messages": []}


def test_rate_limit_counts_in_shared_data(serve: Serve) -> None:
    configuration = {
        "rule_name": "test",
        "enable_on_path_suffix": ["*"],
        "limit_combinations": [
            {
                "name": "by-consumer",
                "match": [{"source": "consumer", "value": "*"}],
                "query_limits": {"per_hour": 3},
            }
        ],
    }
    with serve("gpustack-rate-limit", configuration) as stand:
        consumer = [("x-mse-consumer", "alice")]
        assert [stand.proxy.fetch("/", headers=consumer).status for _ in range(5)] == [200, 200, 200, 429, 429]
        assert stand.proxy.fetch("/", headers=[("x-mse-consumer", "bob")]).status == 200


def test_data_masking_denies_and_replaces_words(serve: Serve) -> None:
    configuration = {
        "deny_openai": False,
        "deny_raw": True,
        "deny_code": 451,
        "deny_raw_message": '{"errmsg": "blocked"}',
        "deny_words": ["forbidden"],
        "replace_roles": [
            {"regex": "%{EMAILLOCALPART}@%{HOSTNAME:domain}", "type": "replace", "value": "****@$domain"}
        ],
    }
    with serve("ai-data-masking", configuration) as stand:
        json_type = [("Content-Type", "application/json")]
        denied = stand.proxy.fetch("/", method="POST", headers=json_type, body=b'{"q": "a forbidden word"}')
        assert (denied.status, denied.json()) == (451, {"errmsg": "blocked"})
        assert stand.origin.seen == []

        passed = stand.proxy.fetch("/", method="POST", headers=json_type, body=b'{"q": "write to admin@gmail.com"}')
        assert passed.status == 200
        assert stand.origin.last.json() == {"q": "write to ****@gmail.com"}

        stand.origin.answer = lambda seen: Answer([b"this is a ", b"forbidden answer"])
        denied = stand.proxy.fetch("/")
        assert b"forbidden" not in denied.body


# Of these gpustack-ext-auth and gpustack-lb-decision-service need HTTP callouts for their work, gpustack-token-usage to
# report what it counts, gpustack-rate-limit and gpustack-lb Redis calls to share their counts between machines.
CONFIGURATIONS: Mapping[str, object] = {
    "ai-data-masking": {"deny_openai": True, "deny_words": ["forbidden"], "system_deny": False},
    "ai-statistics": {"attributes": []},
    "gpustack-ai-proxy": {"provider": {"type": "openai", "apiTokens": ["token"]}},
    "gpustack-ext-auth": {
        "route_match_regexes": ["^ai-route-"],
        "authz": {"endpoint": {"path": "/token-auth", "service_name": "auth.static", "service_port": 80}},
    },
    "gpustack-generic-proxy-router": {"aliasNameMapping": {"alias": "model"}},
    "gpustack-ip-acl": {"consumers": {"alice": {"deniedCidrs": ["10.0.0.0/8"]}}},
    "gpustack-lb": {"mode": "finisher", "health": {"unhealthyThreshold": 3, "cooldownMs": 10000}},
    "gpustack-lb-decision-service": {
        "providers": [{"id": "a", "type": "systemone", "endpoint": "http://127.0.0.1:9", "cluster": "decision"}],
        "activeProviderId": "a",
    },
    "gpustack-lb-least-load": {"enabled": True},
    "gpustack-lb-session-affinity": {"sessionKeys": [{"header": "session_id"}]},
    "gpustack-rate-limit": {
        "rule_name": "test",
        "limit_combinations": [
            {"name": "a", "match": [{"source": "consumer", "value": "*"}], "query_limits": {"per_second": 9}}
        ],
    },
    "gpustack-set-header-pre-route": {"routeNameHeader": "x-route"},
    "gpustack-token-usage": {"realIPHeader": "x-gpustack-real-ip", "header_add": {"x-internal": "1"}},
    "transformer": {"reqRules": [{"operate": "add", "headers": [{"key": "x-a", "value": "b"}]}]},
}


def test_there_are_fourteen_modules() -> None:
    assert len(MODULES) == 14
    assert set(MODULES) == set(CONFIGURATIONS)


@pytest.mark.parametrize("name", sorted(CONFIGURATIONS))
def test_module_loads_starts_and_passes_a_request(serve: Serve, name: str) -> None:
    with serve(name, CONFIGURATIONS[name]) as stand:
        response = stand.proxy.fetch("/somewhere", headers=[("Accept", "text/plain")])
        assert response.status == 200, stand.proxy.log
        assert response.body == b"hello\n"
        assert stand.origin.last.target == "/somewhere"
