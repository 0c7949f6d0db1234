"""Modules that others have built: fourteen production filters of Higress's Go SDK (marker 0.2.100).

They take half a minute to compile, once: the code is kept in pytest's cache folder.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.compiled import compiled_modules
from twisted_wasmproxy.http.headers import Headers
from twisted_wasmproxy.http.messages import Request
from twisted_wasmproxy.interfaces import Action
from twisted_wasmproxy.proxywasm import PluginError
from twisted_wasmproxy.proxywasm.abi import Version
from twisted_wasmproxy.runtimes.code_cache import CodeCache

package = pytest.importorskip("gpustack_higress_plugins")
pytestmark = pytest.mark.real_modules

MODULES = {file.parent.parent.name: file for file in Path(package.__file__).parent.glob("plugins/*/*/plugin.wasm")}

CONFIGURATIONS = {
    "gpustack-ip-acl": {"consumers": {"alice": {"allowedCidrs": ["10.0.0.0/8"]}}},
    "gpustack-lb-session-affinity": {"sessionKeys": [{"header": "x-session"}]},
    "gpustack-set-header-pre-route": {"routeNameHeader": "x-route"},
    "transformer": {
        "reqRules": [
            {"operate": "add", "headers": [{"key": "X-Added", "value": "1"}]},
            {"operate": "remove", "headers": [{"key": "x-dropped"}]},
            {"operate": "rename", "headers": [{"oldKey": "x-old", "newKey": "x-new"}]},
        ],
        "respRules": [{"operate": "replace", "headers": [{"key": "server", "newValue": "mine"}]}],
    },
}

ATTRIBUTES = {
    (b"source", b"address"): b"192.0.2.7:4711",
    (b"source", b"port"): 4711,
    (b"route_name",): b"my-route",
    (b"cluster_name",): b"my-cluster",
    (b"request", b"protocol"): b"HTTP/1.1",
}


@pytest.fixture
def started(bench, pytestconfig):
    """Return a function that starts one of the modules, with its configuration or another."""
    folder = compiled_modules(pytestconfig)
    bench.host.cache = CodeCache(folder)

    def start(name, configuration=None, **options):
        text = json.dumps(CONFIGURATIONS.get(name, {}) if configuration is None else configuration)
        options.setdefault("cpu_limit", 20)
        return bench.load(MODULES[name], name=name, configuration=text.encode(), **options)

    return start


def post(*lines, path=b"/v1/chat/completions"):
    return Request(b"POST", b"http", b"api.example", path, Headers(lines))


def test_there_are_fourteen():
    assert len(MODULES) == 14


@pytest.mark.parametrize("name", MODULES)
def test_every_module_starts_and_survives_traffic(bench, started, name):
    loaded = started(name)
    assert loaded.vm.version is Version.V0_2_100
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hello"}]}).encode()
    get = Request(b"GET", b"http", b"api.example", b"/x?a=1", Headers([(b"accept", b"*/*")]))
    for request in (get, post((b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)))):
        stream = loaded.stream(request, ATTRIBUTES)
        stream.request_head(request is get)
        if request is not get and not stream.events:
            stream.request_data(body[:10])
            stream.request_data(body[10:], True)
        headers = Headers([(b"content-type", b"application/json"), (b"server", b"x")])
        stream.response_head(False, headers=headers)
        stream.response_data(b'{"usage": {"total_tokens": 1}}', True)
        stream.close()
    bench.clock.advance(5)
    assert loaded.vm.failed is None
    assert not any("failed: " in text and "panic" in text for text in bench.texts())
    loaded.set.close()


def test_a_configuration_that_a_module_refuses(bench, started):
    with pytest.raises(PluginError, match="proxy_on_configure returned false"):
        started("transformer", {})
    assert ("error", "[transformer] [nil] [nil] plugin start failed") in bench.lines()


def test_transformer_edits_headers(started):
    loaded = started("transformer")
    request = post((b"x-dropped", b"1"), (b"x-old", b"2"), (b"X-Kept", b"3"), path=b"/")
    stream = loaded.stream(request, ATTRIBUTES)
    stream.request_head()
    assert {(name.lower(), value) for name, value in request.headers} == {
        *[(b"x-kept", b"3"), (b"x-new", b"2"), (b"x-added", b"1")],
    }
    stream.response_head(headers=Headers([(b"Server", b"theirs")]))
    assert stream.response.headers.get(b"server") == b"mine"
    stream.close()


def test_set_header_pre_route_sets_the_name_of_the_route(started):
    stream = started("gpustack-set-header-pre-route").stream(post(), ATTRIBUTES)
    assert stream.request_head() is Action.CONTINUE
    assert stream.request.headers.get(b"x-route") == b"my-route"
    stream.close()


@pytest.mark.parametrize(("address", "allowed"), [(b"192.0.2.7:4711", False), (b"10.1.2.3:4711", True)])
def test_ip_acl_lets_those_in_that_are_allowed(started, address, allowed):
    request = post((b"x-mse-consumer", b"alice"))
    stream = started("gpustack-ip-acl").stream(request, {**ATTRIBUTES, (b"source", b"address"): address})
    action = stream.request_head()
    if allowed:
        assert action is Action.CONTINUE
        assert stream.events == []
    else:
        assert action is Action.PAUSE
        assert stream.events[0][:2] == ("response", 403)
    stream.close()
