"""Properties of live streams: what is known, when, and in which encoding."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest

from tests.e2e_wasm.support import Stand, module, serving


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory, code_cache) -> Iterator[Stand]:
    wasm = [
        module(
            "a",
            vm_id="vm-a",
            configuration="configure prop plugin_root_id; prop plugin_vm_id; prop node.id; prop request.path",
        ),
        module("o", phase="origin"),
    ]
    node = {"id": "edge-1", "cluster": "edge"}
    with serving(tmp_path_factory.mktemp("known"), code_cache, wasm, node=node) as running:
        yield running


def told(stand: Stand, tag: str, name: str = "a") -> dict[str, str]:
    """Return `status size value` of each property that a module asked for."""
    lines = [line.removeprefix(f"{name} prop ") for line in stand.told(tag, name) if line.startswith(f"{name} prop ")]
    return {line.split(" ")[0]: line.partition(" ")[2] for line in lines}


def test_what_a_plugin_knows_of_itself_when_it_is_configured(known: Stand) -> None:
    lines = known.lines("-")
    assert "a prop plugin_root_id 0 1 a" in lines
    assert "a prop plugin_vm_id 0 4 vm-a" in lines
    assert "a prop node.id 0 6 edge-1" in lines
    assert any(line.startswith("a prop request.path 1 ") for line in lines)


def test_a_request_as_it_came(known: Stand) -> None:
    asked = "request.path request.url_path request.query request.host request.scheme request.method request.protocol"
    asked += (
        " request.referer request.useragent request.id request.headers.x-own plugin_name plugin_root_id plugin_vm_id"
    )
    asked += " node.id node.cluster xds.node.id xds.nothing request.nothing nothing response.code! upstream.address!"
    asked = asked.replace("!", "")
    script = "request_headers " + "; ".join(f"prop {path}" for path in asked.split())
    headers = [("Referer", "http://r/"), ("User-Agent", "me"), ("X-Request-Id", "id-1"), ("X-Own", "1"), ("x-own", "2")]
    answer = known.ask("/echo?a=b&c", headers=headers, a=script)
    found = told(known, answer.tag)
    assert {path: value.split(" ", 2)[-1] for path, value in found.items() if value.startswith("0 ")} == {
        "request.path": "/echo?a=b&c",
        "request.url_path": "/echo",
        "request.query": "a=b&c",
        "request.host": "example.com",
        "request.scheme": "http",
        "request.method": "GET",
        "request.protocol": "HTTP/1.1",
        "request.referer": "http://r/",
        "request.useragent": "me",
        "request.id": "id-1",
        "request.headers.x-own": "1,2",
        "plugin_name": "a",
        "plugin_root_id": "a",
        "plugin_vm_id": "vm-a",
        "node.id": "edge-1",
        "node.cluster": "edge",
        "xds.node.id": "edge-1",
    }
    absent = {path for path, value in found.items() if value.startswith("1 ")}
    assert absent == {"xds.nothing", "request.nothing", "nothing", "response.code", "upstream.address"}


def test_numbers_are_eight_bytes_and_booleans_one(known: Stand) -> None:
    numbers = (
        "request.time request.size request.total_size request.headers_bytes source.port destination.port connection.id"
    )
    script = "request_headers " + "; ".join(f"prop {path} i" for path in numbers.split())
    answer = known.ask(
        "/echo", method="POST", body=b"12345", a=script + "; prop connection.mtls b; prop request.duration x"
    )
    found = told(known, answer.tag)
    values = {path: int(value.split()[2]) for path, value in found.items() if value.startswith("0 8 ")}
    assert set(values) == set(numbers.split())
    assert abs(values["request.time"] / 1e9 - time.time()) < 60
    assert values["request.size"] == 5
    assert values["request.total_size"] > values["request.headers_bytes"] > 30
    assert values["destination.port"] == known.proxy.port
    assert found["connection.mtls"] == "0 1 0"
    assert found["request.duration"] == "1 0"


def test_addresses_of_both_ends_and_the_origin(known: Stand) -> None:
    script = (
        "response_headers prop source.address; prop destination.address; prop upstream.address; prop upstream.port i;"
    )
    script += "prop upstream.local_address; prop upstream.request_attempt_count i"
    answer = known.ask("/", a=script, o="request_headers prop upstream.address; prop cluster_name; prop route_name x")
    found = told(known, answer.tag)
    assert re.fullmatch(r"0 \d+ 127\.0\.0\.1:\d+", found["source.address"])
    assert found["destination.address"].endswith(f" 127.0.0.1:{known.proxy.port}")
    assert found["upstream.address"].endswith(f" 127.0.0.1:{known.origin.port}")
    assert found["upstream.port"] == f"0 8 {known.origin.port}"
    assert found["upstream.request_attempt_count"] == "0 8 1"
    assert told(known, answer.tag, "o")["cluster_name"] == "0 6 origin"


def test_a_response_and_all_of_it_when_the_stream_is_logged(known: Stand) -> None:
    numbers = "response.code response.size response.total_size response.flags response.headers_bytes"
    numbers += " response.backend_latency request.duration upstream.port source.port"
    script = "log " + "; ".join(f"prop {path} i" for path in numbers.split()) + "; prop response.headers.content-type"
    answer = known.ask(
        "/bytes/1000", a=script + "; prop request.path; prop upstream.address; get 0 :path; get 2 :status"
    )
    found = told(known, answer.tag)
    values = {path: int(value.split()[2]) for path, value in found.items() if value.startswith("0 8 ")}
    assert set(values) == set(numbers.split())
    assert (values["response.code"], values["response.size"]) == (200, 1000)
    assert values["response.total_size"] > 1000
    assert 0 < values["response.backend_latency"] <= values["request.duration"] < 60e9
    assert found["response.headers.content-type"] == "0 10 text/plain"
    assert found["request.path"] == "0 11 /bytes/1000"
    lines = known.told(answer.tag, "a")
    assert "a get :path 0 /bytes/1000" in lines
    assert "a get :status 0 200" in lines


def test_a_local_answer_has_its_details(known: Stand) -> None:
    answer = known.ask("/", a="request_headers reply 403 denied|log prop response.code_details; prop response.code i")
    found = told(known, answer.tag)
    assert found["response.code_details"] == "0 4 told"
    assert found["response.code"] == "0 8 403"


def test_what_one_filter_sets_the_others_read(known: Stand) -> None:
    answer = known.ask(
        "/",
        a="request_headers setprop my.own value; setprop request.path no; prop my.own|log prop my.own",
        o="request_headers prop my.own; prop filter_state.wasm!my.own",
    )
    lines = known.told(answer.tag, "a", "o")
    assert lines.count("a prop my.own 0 5 value") == 2
    assert "o prop my.own 0 5 value" in lines
    assert "a setprop 0" in lines
    assert "a setprop 1" in lines


def test_headers_as_a_map_have_the_pseudo_headers_first(known: Stand) -> None:
    answer = known.ask("/p?q", a="request_headers pairs 0; prop request.headers x|response_headers pairs 2")
    lines = [line for line in known.told(answer.tag, "a") if line.startswith("a pairs")]
    first = lines[0].split()
    assert first[:3] == ["a", "pairs", "0"]
    assert set(first[4:8]) == {":authority=example.com", ":path=/p?q", ":method=GET", ":scheme=http"}
    assert lines[1].split()[4] == ":status=200"


@pytest.mark.parametrize("key", [":path", ":method", ":authority"])
def test_pseudo_headers_change_the_request(known: Stand, key: str) -> None:
    value = {":path": "/other?x", ":method": "PUT", ":authority": "other.example"}[key]
    answer = known.ask("/", a=f"request_headers set 0 {key} {value}")
    seen = known.seen(answer.tag)[0]
    got = {":path": seen.target, ":method": seen.method, ":authority": seen.header("host")}[key]
    assert got == value


def test_the_head_of_a_request_can_not_be_changed_after_it_has_passed(known: Stand) -> None:
    answer = known.ask("/", a="response_headers add 0 x-late 1; get 0 x-tag|log add 2 x-late 1")
    lines = known.told(answer.tag, "a")
    assert [line for line in lines if line.startswith("a add")] == ["a add 2", "a add 2"]
    assert f"a get x-tag 0 {answer.tag}" in lines


def test_a_header_name_that_is_none_is_refused(known: Stand) -> None:
    answer = known.ask("/", a="request_headers add 0 bad:name v; add 0 x-fine v")
    lines = known.told(answer.tag, "a")
    assert [line for line in lines if line.startswith("a add")] == ["a add 2", "a add 0"]
    assert known.seen(answer.tag)[0].header("x-fine") == "v"
