"""Header maps as a guest sees them (conformance cases H)."""

from __future__ import annotations

import pytest

from tests.proxywasm.guest import OUT_BYTES, OUT_U32, UNSET, Guest
from twisted_wasmproxy.http.headers import Headers
from twisted_wasmproxy.http.messages import Request
from twisted_wasmproxy.interfaces import Action
from twisted_wasmproxy.proxywasm.wire import decode_pairs, encode_pairs

OK, NOT_FOUND, BAD_ARGUMENT = 0, 1, 2


def make_request(*lines, method=b"GET", path=b"/a?b", authority=b"example.com"):
    return Request(method, b"http", authority, path, Headers(lines))


def on_request(bench, *make_calls, request=None, version="0.2.1"):
    """Make the calls in a request headers callback; return (VM, stream, the calls)."""
    guest = Guest(version)
    calls = [guest.call(name, *args) for name, *args in make_calls]
    guest.on("proxy_on_request_headers", *calls)
    loaded, stream = bench.stream(guest, request or make_request())
    assert stream.request_head() is Action.CONTINUE
    return loaded.vm, stream, calls


def value_call(name, map_type=0):
    return ("proxy_get_header_map_value", map_type, name, OUT_BYTES)


def test_H01_pairs_round_trip(bench):
    lines = [(b"x-a", b"1"), (b"X-A", b""), (b"x-b", bytes(range(128, 256)))]
    lines += [(f"x-{n}".encode(), b"v") for n in range(1000)]
    vm, _, (pairs,) = on_request(bench, ("proxy_get_header_map_pairs", 0, OUT_BYTES), request=make_request(*lines))
    assert pairs.status(vm) == OK
    got = decode_pairs(pairs.value(vm))
    assert got[:4] == [
        (b":authority", b"example.com"),
        (b":path", b"/a?b"),
        (b":method", b"GET"),
        (b":scheme", b"http"),
    ]
    assert got[4:] == [(name.lower(), value) for name, value in lines]


def test_H02_names_compare_without_case(bench):
    vm, _, (get,) = on_request(bench, value_call(b"X-TEST"), request=make_request((b"x-Test", b"1")))
    assert (get.status(vm), get.value(vm)) == (OK, b"1")


def test_H03_the_first_of_several_values_is_read(bench):
    vm, _, (get,) = on_request(bench, value_call(b"a"), request=make_request((b"a", b"1"), (b"A", b"2")))
    assert get.value(vm) == b"1"


def test_H04_add_appends(bench):
    request = make_request((b"X-A", b"1"))
    vm, _, (add, get) = on_request(
        bench, ("proxy_add_header_map_value", 0, b"x-a", b"2"), value_call(b"X-A"), request=request
    )
    assert add.status(vm) == OK
    assert list(request.headers) == [(b"X-A", b"1"), (b"x-a", b"2")]
    assert get.value(vm) == b"1"


def test_H05_H06_replace_collapses_and_adds(bench):
    request = make_request((b"X-A", b"1"), (b"B", b"2"), (b"x-a", b"3"))
    on_request(
        bench,
        ("proxy_replace_header_map_value", 0, b"x-a", b"9"),
        ("proxy_replace_header_map_value", 0, b"new", b""),
        request=request,
    )
    assert list(request.headers) == [(b"X-A", b"9"), (b"B", b"2"), (b"new", b"")]


def test_H07_remove_drops_every_line_and_a_missing_one_is_fine(bench):
    request = make_request((b"X-A", b"1"), (b"B", b"2"), (b"x-a", b"3"))
    vm, _, calls = on_request(
        bench,
        ("proxy_remove_header_map_value", 0, b"X-a"),
        ("proxy_remove_header_map_value", 0, b"gone"),
        request=request,
    )
    assert list(request.headers) == [(b"B", b"2")]
    assert [call.status(vm) for call in calls] == [OK, OK]


def test_H08_set_pairs_replaces_everything_and_keeps_the_spelling_of_what_stays(bench):
    request = make_request((b"X-Keep", b"1"), (b"Drop", b"2"))
    blob = encode_pairs([(b":path", b"/new"), (b"x-keep", b"9"), (b"added", b""), (b"added", b"2")])
    vm, _, (call,) = on_request(bench, ("proxy_set_header_map_pairs", 0, blob), request=request)
    assert call.status(vm) == OK
    assert list(request.headers) == [(b"X-Keep", b"9"), (b"added", b""), (b"added", b"2")]
    assert (request.path, request.method, request.authority) == (b"/new", b"GET", b"example.com")


@pytest.mark.parametrize("blob", [b"\1\0\0\0", b"\1\0\0\0\1\0\0\0\1\0\0\0axb\0", encode_pairs([(b"a", b"b")]) + b"x"])
def test_H09_a_malformed_map_changes_nothing(bench, blob):
    request = make_request((b"X-A", b"1"))
    vm, _, (call,) = on_request(bench, ("proxy_set_header_map_pairs", 0, blob), request=request)
    assert call.status(vm) == BAD_ARGUMENT
    assert list(request.headers) == [(b"X-A", b"1")]


def test_H10_a_map_that_does_not_exist_is_a_bad_argument(bench):
    vm, _, calls = on_request(
        bench,
        value_call(b"a", 8),
        ("proxy_get_header_map_pairs", 8, OUT_BYTES),
        ("proxy_get_header_map_size", 8, OUT_U32),
        ("proxy_set_header_map_pairs", 8, b""),
        ("proxy_add_header_map_value", 8, b"a", b"b"),
        ("proxy_replace_header_map_value", 8, b"a", b"b"),
        ("proxy_remove_header_map_value", 8, b"a"),
    )
    assert [call.status(vm) for call in calls] == [BAD_ARGUMENT] * 7
    assert calls[0].slots(vm) == (UNSET, UNSET)


def test_H11_pseudo_headers_are_read_and_written(bench):
    request = make_request(authority=b"old.example")
    vm, _, calls = on_request(
        bench,
        value_call(b":method"),
        value_call(b":path"),
        value_call(b":authority"),
        value_call(b"Host"),
        value_call(b":scheme"),
        value_call(b":status"),
        ("proxy_replace_header_map_value", 0, b":path", b"/x"),
        ("proxy_replace_header_map_value", 0, b":method", b"PUT"),
        ("proxy_replace_header_map_value", 0, b":scheme", b"https"),
        ("proxy_replace_header_map_value", 0, b"Host", b"new.example:1"),
        value_call(b":authority"),
        request=request,
    )
    assert [call.value(vm) for call in calls[:5]] == [b"GET", b"/a?b", b"old.example", b"old.example", b"http"]
    assert calls[5].status(vm) == NOT_FOUND
    assert [call.status(vm) for call in calls[6:10]] == [OK] * 4
    assert calls[10].value(vm) == b"new.example:1"
    assert (request.path, request.method, request.scheme, request.authority) == (
        *(b"/x", b"PUT", b"https"),
        b"new.example:1",
    )
    assert not request.headers


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b":path", b""),
        (b":path", b"no-slash"),
        (b":path", b"/a b"),
        (b":path", b"/a\r\nx: y"),
        (b":method", b""),
        (b":method", b"GET /x"),
        (b":scheme", b"ht tp"),
        (b":authority", b"a/b"),
        (b"host", b"a\r\nb: c"),
        (b":status", b"200"),
        (b":other", b"1"),
        (b"x-a", b"1\r\nx-b: 2"),
        (b"x-a", b"1\n2"),
        (b"x-a", b"1\0"),
        (b"x a", b"1"),
        (b"x:a", b"1"),
        (b"x\r\na", b"1"),
        (b"", b"1"),
        (b"\xc3\xa4", b"1"),
    ],
)
@pytest.mark.parametrize("call", ["proxy_add_header_map_value", "proxy_replace_header_map_value", "pairs"])
def test_what_could_split_a_message_is_refused_and_logged(bench, call, name, value):
    request = make_request((b"A", b"1"))
    args = (encode_pairs([(b"ok", b"1"), (name, value)]),) if call == "pairs" else (name, value)
    made = "proxy_set_header_map_pairs" if call == "pairs" else call
    vm, _, (made_call,) = on_request(bench, (made, 0, *args), request=request)
    # A bad line of a map is left out, lest it keep the line that the guest takes away (here `A`).
    assert made_call.status(vm) == (OK if call == "pairs" else BAD_ARGUMENT)
    assert list(request.headers) == ([(b"ok", b"1")] if call == "pairs" else [(b"A", b"1")])
    assert (request.path, request.method, request.authority, request.scheme) == (
        *(b"/a?b", b"GET", b"example.com"),
        b"http",
    )
    assert any("refused" in text or "left out" in text for text in bench.texts())


def test_pseudo_headers_cannot_be_removed_but_for_the_authority(bench):
    request = make_request()
    vm, _, calls = on_request(
        bench,
        *[("proxy_remove_header_map_value", 0, name) for name in (b":path", b":method", b"host")],
        request=request,
    )
    assert [call.status(vm) for call in calls] == [OK] * 3
    assert (request.path, request.method, request.authority) == (b"/a?b", b"GET", b"")


def on_response(bench, *make_calls, headers=None, version="0.2.1"):
    guest = Guest(version)
    calls = [guest.call(name, *args) for name, *args in make_calls]
    guest.on("proxy_on_response_headers", *calls)
    loaded, stream = bench.stream(guest, make_request((b"from", b"client")))
    assert stream.response_head(headers=headers) is Action.CONTINUE
    return loaded.vm, stream, calls


def test_H12_status_is_set(bench):
    vm, stream, calls = on_response(
        bench,
        value_call(b":status", 2),
        ("proxy_replace_header_map_value", 2, b":status", b"404"),
        *[("proxy_replace_header_map_value", 2, b":status", text) for text in (b"", b"99", b"1000", b"20x", b" 200")],
    )
    assert calls[0].value(vm) == b"200"
    assert [call.status(vm) for call in calls[1:]] == [OK] + [BAD_ARGUMENT] * 5
    assert (stream.response.status, stream.response.reason) == (404, b"Not Found")


def test_H13_maps_of_callouts_refuse_writes_and_read_as_empty(bench):
    writes = [("proxy_add_header_map_value", kind, b"a", b"b") for kind in (4, 5, 6, 7)]
    reads = [("proxy_get_header_map_pairs", kind, OUT_BYTES) for kind in (4, 5, 6, 7)]
    vm, _, calls = on_request(bench, *writes, *reads, value_call(b"a", 6))
    assert [call.status(vm) for call in calls[:4]] == [BAD_ARGUMENT] * 4
    assert [(call.status(vm), call.slots(vm)) for call in calls[4:8]] == [(OK, (0, 0))] * 4
    assert calls[8].status(vm) == NOT_FOUND


def test_H14_in_on_log_headers_are_read_but_not_written(bench):
    guest = Guest()
    get = guest.call(*value_call(b"x-a"))
    status = guest.call(*value_call(b":status", 2))
    add = guest.call("proxy_add_header_map_value", 0, b"x-b", b"1")
    add_response = guest.call("proxy_add_header_map_value", 2, b"x-b", b"1")
    guest.on("proxy_on_log", get, status, add, add_response)
    loaded, stream = bench.stream(guest, make_request((b"x-a", b"1")))
    stream.request_head()
    stream.response_head()
    stream.close()
    assert (get.value(loaded.vm), status.value(loaded.vm)) == (b"1", b"200")
    assert (add.status(loaded.vm), add_response.status(loaded.vm)) == (BAD_ARGUMENT, BAD_ARGUMENT)


@pytest.mark.parametrize(("direction", "map_type"), [("request", 1), ("response", 3)])
def test_H15_trailers_are_made_in_the_last_body_callback_only(bench, direction, map_type):
    guest = Guest()
    early = guest.call("proxy_add_header_map_value", map_type, b"x-early", b"1")
    add = guest.call("proxy_add_header_map_value", map_type, b"x-t", b"1")
    guest.on(f"proxy_on_{direction}_body", nth={0: [early], 1: [add]})
    _, stream = loaded, stream = bench.stream(guest)
    stream.request_head(False)
    stream.response_head(False)
    data = getattr(stream, f"{direction}_data")
    data(b"a")
    assert early.status(loaded.vm) == BAD_ARGUMENT
    assert getattr(stream, f"{direction}_trailers") is None
    data(b"b", True)
    assert add.status(loaded.vm) == OK
    assert list(getattr(stream, f"{direction}_trailers")) == [(b"x-t", b"1")]


def test_trailers_are_edited_in_their_callback(bench):
    guest = Guest()
    calls = [
        guest.call(*value_call(b"X-T", 1)),
        guest.call("proxy_replace_header_map_value", 1, b"x-t", b"2"),
        guest.call("proxy_get_header_map_pairs", 1, OUT_BYTES),
    ]
    guest.on("proxy_on_request_trailers", *calls)
    loaded, stream = bench.stream(guest)
    stream.request_trailers = Headers([(b"X-T", b"1")])
    assert stream.filter.request_trailers() is Action.CONTINUE
    assert calls[0].value(loaded.vm) == b"1"
    assert decode_pairs(calls[2].value(loaded.vm)) == [(b"x-t", b"2")]
    assert guest.trace(loaded.vm) == [("proxy_on_request_trailers", 2, 1)]


def test_H16_an_empty_map_is_no_bytes_and_no_allocation(bench):
    guest = Guest()
    guest.allocate = "unreachable"
    pairs = guest.call("proxy_get_header_map_pairs", 1, OUT_BYTES)
    guest.on("proxy_on_request_headers", pairs)
    loaded, stream = bench.stream(guest)
    stream.request_head()
    assert (pairs.status(loaded.vm), pairs.slots(loaded.vm)) == (OK, (0, 0))


def test_H17_size_is_that_of_the_pairs(bench):
    vm, _, (size, pairs, none) = on_request(
        bench,
        ("proxy_get_header_map_size", 0, OUT_U32),
        ("proxy_get_header_map_pairs", 0, OUT_BYTES),
        ("proxy_get_header_map_size", 1, OUT_U32),
        request=make_request((b"a", b"bc")),
    )
    assert size.value(vm) == len(pairs.value(vm))
    assert none.value(vm) == 0


def test_H18_what_has_been_passed_on_is_not_written(bench):
    guest = Guest()
    late = guest.call("proxy_add_header_map_value", 0, b"x-late", b"1")
    guest.on("proxy_on_request_headers")
    guest.on("proxy_on_response_headers", late)
    loaded, stream = bench.stream(guest)
    stream.request_head()
    stream.response_head()
    assert late.status(loaded.vm) == BAD_ARGUMENT
    assert not stream.request.headers


def test_H19_other_bytes_pass_through(bench):
    request = make_request()
    value = bytes(range(128, 256)) + b"\t "
    on_request(bench, ("proxy_add_header_map_value", 0, b"x-a", value), request=request)
    assert list(request.headers) == [(b"x-a", value)]


def test_H20_the_request_is_read_from_response_callbacks(bench):
    vm, _, (get, missing) = on_response(bench, value_call(b"from"), value_call(b"a", 3))
    assert get.value(vm) == b"client"
    assert missing.status(vm) == NOT_FOUND


@pytest.mark.parametrize(("version", "status"), [("0.1.0", OK), ("0.2.0", NOT_FOUND), ("0.2.1", NOT_FOUND)])
def test_C07_a_missing_header(bench, version, status):
    vm, _, (get,) = on_request(bench, value_call(b"none"), version=version)
    assert get.status(vm) == status
    assert get.slots(vm) == ((0, 0) if status == OK else (UNSET, UNSET))
