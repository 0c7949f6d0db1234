"""Properties (conformance case X04)."""

from __future__ import annotations

import struct

import pytest

from tests.proxywasm.guest import OUT_BYTES, Guest
from twisted_wasmproxy.http.headers import Headers
from twisted_wasmproxy.http.messages import Request
from twisted_wasmproxy.proxywasm.wire import decode_pairs, encode_pairs

OK, NOT_FOUND, SERIALIZATION_FAILURE = 0, 1, 3


def get(guest, *path):
    return guest.call("proxy_get_property", b"\0".join(path), OUT_BYTES)


def put(guest, value, *path):
    return guest.call("proxy_set_property", b"\0".join(path), value)


def read(bench, path, attributes=None, **options):
    guest = Guest()
    call = guest.call("proxy_get_property", path, OUT_BYTES)
    guest.on("proxy_on_request_headers", call)
    request = Request(b"GET", b"http", b"h", b"/", Headers([(b"X-A", b"1"), (b"x-a", b"2"), (b"b", b"3")]))
    loaded, stream = bench.stream(guest, request, attributes, **options)
    stream.request_head()
    status = call.status(loaded.vm)
    return call.value(loaded.vm) if status == OK else status


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (b"text \xff", b"text \xff"),
        ("täxt", "täxt".encode()),
        (b"", b""),
        (True, b"\1"),
        (False, b"\0"),
        (0, bytes(8)),
        (8080, struct.pack("<q", 8080)),
        (-1, struct.pack("<q", -1)),
        (2**64 - 1, b"\xff" * 8),
        (1.5, struct.pack("<d", 1.5)),
        ({"a": b"1", "b": 2}, encode_pairs([(b"a", b"1"), (b"b", struct.pack("<q", 2))])),
        ([b"a", b"b"], encode_pairs([(b"a", b""), (b"b", b"")])),
        ({"in": {"n": True}}, encode_pairs([(b"in", encode_pairs([(b"n", b"\1")]))])),
        (Headers([(b"A", b"1")]), encode_pairs([(b"A", b"1")])),
        ({}, b""),
        (None, NOT_FOUND),
        (2**64, SERIALIZATION_FAILURE),
        (object(), SERIALIZATION_FAILURE),
    ],
)
def test_X04_values_are_encoded_as_in_envoy(bench, value, encoded):
    assert read(bench, b"some\0value", {(b"some", b"value"): value}) == encoded


def test_X04_one_nul_after_the_path_is_dropped(bench):
    attributes = {(b"source", b"port"): 80}
    assert read(bench, b"source\0port\0", attributes) == struct.pack("<q", 80)
    assert read(bench, b"source\0port\0\0", attributes) == NOT_FOUND


def test_X04_segments_are_compared_whole(bench):
    attributes = {(b"response", b"code"): 200, (b"a", b"b.c"): b"dotted"}
    assert read(bench, b"response\0code_details", attributes) == NOT_FOUND
    assert read(bench, b"response.code", attributes) == NOT_FOUND
    assert read(bench, b"a\0b.c", attributes) == b"dotted"
    assert read(bench, b"", attributes) == NOT_FOUND
    assert read(bench, b"\0" * 30000) == NOT_FOUND


def test_X04_inside_of_maps(bench):
    metadata = {"filter_metadata": {"envoy.filters.http.lua": {"key": b"value", "n": 1.0}}}
    attributes = {(b"metadata",): metadata}
    path = b"metadata\0filter_metadata\0envoy.filters.http.lua"
    assert read(bench, path + b"\0key", attributes) == b"value"
    assert read(bench, path, attributes) == encode_pairs([(b"key", b"value"), (b"n", struct.pack("<d", 1.0))])
    assert read(bench, path + b"\0none", attributes) == NOT_FOUND
    assert read(bench, path + b"\0key\0deeper", attributes) == NOT_FOUND


@pytest.mark.parametrize("given", [{}, {"name": "plug", "root_id": "root", "vm_id": "vm"}])
def test_names_of_the_plugin(bench, given):
    expected = {"plugin_name": "name", "plugin_root_id": "root_id", "plugin_vm_id": "vm_id"}
    for path, key in expected.items():
        assert read(bench, path.encode(), **given) == given.get(key, "").encode()


def test_headers_of_the_stream(bench):
    assert decode_pairs(read(bench, b"request\0headers")) == [
        *[(b":authority", b"h"), (b":path", b"/"), (b":method", b"GET"), (b":scheme", b"http")],
        *[(b"x-a", b"1"), (b"x-a", b"2"), (b"b", b"3")],
    ]
    assert read(bench, b"request\0headers\0X-A") == b"1,2"
    assert read(bench, b"request\0headers\0:path") == b"/"
    assert read(bench, b"request\0headers\0none") == NOT_FOUND
    assert read(bench, b"response\0headers") == NOT_FOUND


def test_the_node(bench):
    bench.node.update({"id": "n1", "metadata": {"NAME": "x"}})
    assert read(bench, b"node\0id") == b"n1"
    assert read(bench, b"xds\0node\0metadata\0NAME") == b"x"
    assert read(bench, b"node\0none") == NOT_FOUND
    assert decode_pairs(read(bench, b"node"))[0] == (b"id", b"n1")


def test_without_a_node_it_is_not_found(bench):
    assert read(bench, b"node") == NOT_FOUND


def test_a_root_context_knows_its_plugin_and_the_node_only(bench):
    bench.node["id"] = "n1"
    guest = Guest()
    calls = [
        get(guest, b"plugin_name"),
        get(guest, b"node", b"id"),
        get(guest, b"request", b"path"),
        put(guest, b"x", b"k"),
    ]
    guest.on("proxy_on_configure", *calls)
    vm = bench.load(guest, name="p").vm
    assert [call.status(vm) for call in calls] == [OK, OK, NOT_FOUND, NOT_FOUND]
    assert (calls[0].value(vm), calls[1].value(vm)) == (b"p", b"n1")


def test_what_is_set_is_read_back(bench):
    guest = Guest()
    calls = [
        put(guest, b"1", b"key"),
        put(guest, b"2", b"some", b"path"),
        put(guest, b"", b"empty"),
        get(guest, b"key"),
        get(guest, b"some", b"path"),
        get(guest, b"empty"),
        get(guest, b"filter_state", b"wasm.key"),
        get(guest, b"filter_state", b"key"),
        get(guest, b"filter_state", b"wasm.some", b"path"),
        get(guest, b"some"),
    ]
    guest.on("proxy_on_request_headers", *calls)
    loaded, stream = bench.stream(guest)
    stream.request_head()
    vm = loaded.vm
    assert [call.status(vm) for call in calls] == [*[OK] * 7, NOT_FOUND, OK, NOT_FOUND]
    assert [calls[n].value(vm) for n in (3, 4, 5, 6, 8)] == [b"1", b"2", b"", b"1", b"2"]
    assert stream.filter_state == {(b"key",): b"1", (b"some", b"path"): b"2", (b"empty",): b""}


@pytest.mark.parametrize(
    "path",
    [
        *(b"request\0path", b"request\0headers\0x", b"response\0code", b"source\0address", b"plugin_name", b"node"),
        *(b"node\0id", b"metadata\0x", b"filter_state\0wasm.x", b"xds\0route_name", b"route_name", b"connection\0id"),
        *(b"upstream\0port", b"request", b"connection_id"),
    ],
)
def test_well_known_properties_are_not_set(bench, path):
    guest = Guest()
    call = guest.call("proxy_set_property", path, b"mine")
    guest.on("proxy_on_request_headers", call)
    loaded, stream = bench.stream(guest)
    stream.request_head()
    assert call.status(loaded.vm) == NOT_FOUND
    assert stream.filter_state == {}
