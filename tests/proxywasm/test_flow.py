"""A stream's callbacks, what they answer and ask for (conformance cases F, R and D, as far as the host decides)."""

from __future__ import annotations

import pytest

from tests.proxywasm.guest import OUT_BYTES, Guest
from twisted_wasmproxy.http.headers import Headers
from twisted_wasmproxy.http.messages import Response
from twisted_wasmproxy.interfaces import Action
from twisted_wasmproxy.proxywasm.wire import encode_pairs

OK, NOT_FOUND, BAD_ARGUMENT = 0, 1, 2
NONE = 0xFFFFFFFF
MARKERS = ["0.1.0", "0.2.0", "0.2.1", "0.2.100"]
STREAM_CALLBACKS = [
    *(f"proxy_on_{side}_{part}" for side in ("request", "response") for part in ("headers", "body", "trailers")),
    *("proxy_on_done", "proxy_on_log", "proxy_on_delete"),
]


def whole(version="0.2.1", **results):
    guest = Guest(version)
    guest.on("proxy_on_context_create")
    for name in STREAM_CALLBACKS:
        guest.on(name, result=results.get(name.removeprefix("proxy_on_")))
    return guest


@pytest.mark.parametrize("version", MARKERS)
def test_F01_F02_F03_order_and_arguments(bench, version):
    guest = whole(version)
    loaded, stream = bench.stream(guest)
    stream.request_head(False)
    stream.request_data(b"abc")
    stream.request_body = None
    stream.request_data(b"", True)
    stream.request_trailers = Headers([(b"t", b"1")])
    stream.filter.request_trailers()
    stream.response_head(False, headers=Headers([(b"a", b"1"), (b"a", b"2")]))
    stream.response_data(b"xy", True)
    stream.response_trailers = Headers()
    stream.filter.response_trailers()
    stream.close()
    assert guest.trace(loaded.vm) == [
        ("proxy_on_context_create", 1, 0),
        ("proxy_on_context_create", 2, 1),
        ("proxy_on_request_headers", 2, 4, 0),
        ("proxy_on_request_body", 2, 3, 0),
        ("proxy_on_request_body", 2, 0, 1),
        ("proxy_on_request_trailers", 2, 1),
        ("proxy_on_response_headers", 2, 3, 0),
        ("proxy_on_response_body", 2, 2, 1),
        ("proxy_on_response_trailers", 2, 0),
        ("proxy_on_done", 2),
        ("proxy_on_log", 2),
        ("proxy_on_delete", 2),
    ]


def test_F06_what_is_not_exported_is_not_called(bench):
    guest = Guest()
    guest.on("proxy_on_response_headers")
    loaded, stream = bench.stream(guest)
    names = ("request_headers", "request_body", "request_trailers", "response_body", "response_trailers", "hook")
    assert [getattr(stream.filter, name) for name in names] == [None] * 6
    stream.response_head()
    stream.close()
    assert guest.names(loaded.vm) == ["response_headers"]


STANDARD = [Action.CONTINUE, Action.PAUSE, Action.CONTINUE, Action.PAUSE, Action.PAUSE, Action.PAUSE]
LITERAL = [Action.CONTINUE, Action.PAUSE_HEADERS, Action.CONTINUE, Action.PAUSE, Action.PAUSE, Action.PAUSE]


@pytest.mark.parametrize(
    ("version", "allow", "expected"),
    [
        ("0.1.0", False, STANDARD),
        ("0.2.1", False, STANDARD),
        ("0.2.1", True, LITERAL),
        ("0.2.100", False, LITERAL),
    ],
)
@pytest.mark.parametrize("side", ["request", "response"])
def test_F18_results_of_headers_callbacks(bench, side, version, allow, expected):
    guest = whole(version, **{f"{side}_headers": [0, 1, 2, 3, 4, 0xFFFFFFFF]})
    loaded = bench.load(guest, allow_on_headers_stop_iteration=allow)
    assert [getattr(loaded.stream(), f"{side}_head")() for _ in expected] == expected


@pytest.mark.parametrize("side", ["request", "response"])
def test_F18_results_of_body_and_trailers_callbacks(bench, side):
    guest = whole(**{f"{side}_body": [0, 1, 2, 3, 4, 0xFFFFFFFF], f"{side}_trailers": [0, 1, 2]})
    loaded = bench.load(guest)
    stream = loaded.stream()
    stream.request_head(False)
    stream.response_head(False)
    expected = [Action.CONTINUE, *[Action.PAUSE] * 2, *[Action.PAUSE_AND_DISCARD] * 3]
    assert [getattr(stream, f"{side}_data")(b"x") for _ in expected] == expected
    assert [getattr(stream.filter, f"{side}_trailers")() for _ in range(3)] == [
        *(Action.CONTINUE, Action.PAUSE, Action.PAUSE),
    ]


@pytest.mark.parametrize(
    ("name", "arguments", "version"),
    [
        ("proxy_continue_stream", (0,), "0.2.0"),
        ("proxy_continue_stream", (0,), "0.2.1"),
        ("proxy_continue_request", (), "0.1.0"),
    ],
)
def test_F07_a_held_request_is_resumed_from_a_tick(bench, name, arguments, version):
    guest = Guest(version)
    choose = guest.call("proxy_set_effective_context", 2)
    go_on = guest.call(name, *arguments)
    guest.on("proxy_on_configure", guest.call("proxy_set_tick_period_milliseconds", 100))
    guest.on("proxy_on_request_headers", result=1)
    guest.on("proxy_on_tick", choose, go_on)
    loaded, stream = bench.stream(guest)
    assert stream.request_head() is Action.PAUSE
    bench.clock.advance(0.1)
    assert (choose.status(loaded.vm), go_on.status(loaded.vm)) == (OK, OK)
    assert stream.events == ["resume_request"]


def test_what_a_tick_asks_for_is_done_when_the_call_has_returned_and_in_order(bench):
    guest = Guest()
    guest.on("proxy_on_configure", guest.call("proxy_set_tick_period_milliseconds", 100))
    guest.on("proxy_on_request_headers", result=1)
    guest.on("proxy_on_response_headers")
    steps = []
    for context in (3, 2):
        steps += [
            guest.call("proxy_set_effective_context", context),
            guest.call("proxy_continue_stream", 0),
            guest.call("proxy_continue_stream", 1),
        ]
    guest.on("proxy_on_tick", *steps)
    loaded = bench.load(guest)
    streams = [loaded.stream(), loaded.stream()]
    done = []
    for number, stream in enumerate(streams):
        stream.request_head()

        def go_on(stream=stream, number=number):
            done.append(("request", number))
            stream.response_head()  # as a chain does it: a callback of the same VM, in this stack

        stream.resume_request = go_on
        stream.resume_response = lambda number=number: done.append(("response", number))
    bench.clock.advance(0.1)
    assert done == [("request", 1), ("response", 1), ("request", 0), ("response", 0)]
    assert guest.names(loaded.vm) == [
        *("configure", "request_headers", "request_headers", "tick", "response_headers", "response_headers"),
    ]


def test_a_thousand_streams_resumed_at_once_do_not_nest(bench):
    guest = Guest()
    index = "(local.get $i)"
    choose = guest.call("proxy_set_effective_context", index)
    go_on = guest.call("proxy_continue_stream", 0)
    loop = f"""(local.set $i (i32.const 2))
      (loop $next {choose.code} {go_on.code}
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br_if $next (i32.lt_u (local.get $i) (i32.const 1002))))"""
    guest.on("proxy_on_configure", guest.call("proxy_set_tick_period_milliseconds", 100))
    guest.on("proxy_on_request_headers", result=1)
    guest.on("proxy_on_response_headers")
    guest.on("proxy_on_tick", loop)
    loaded = bench.load(guest)
    streams = [loaded.stream() for _ in range(1000)]
    seen = []
    for stream in streams:
        stream.request_head()
        stream.resume_request = lambda stream=stream: seen.append(stream.response_head())
    bench.clock.advance(0.1)
    assert seen == [Action.CONTINUE] * 1000
    assert len(loaded.vm.contexts) == 1001, "X07: so many contexts live at once"


def test_F13_resuming_inside_the_pausing_callback_reaches_the_stream_within_it(bench):
    guest = Guest()
    guest.on("proxy_on_request_headers", guest.call("proxy_continue_stream", 0), result=1)
    _, stream = bench.stream(guest)
    seen = []
    stream.resume_request = lambda: seen.append("before the callback has returned")
    assert stream.request_head() is Action.PAUSE
    assert seen


def test_F14_F15_continuing_what_is_not_held_or_not_there(bench):
    guest = Guest()
    calls = [guest.call("proxy_continue_stream", kind) for kind in range(5)]
    calls += [guest.call("proxy_close_stream", kind) for kind in (2, 3, 4)]
    guest.on("proxy_on_request_headers", *calls)
    loaded, stream = bench.stream(guest)
    assert stream.request_head() is Action.CONTINUE
    assert [call.status(loaded.vm) for call in calls] == [OK, OK, OK, OK, BAD_ARGUMENT, OK, OK, BAD_ARGUMENT]


@pytest.mark.parametrize("kind", [0, 1])
def test_F16_close_stream_breaks_the_stream_off(bench, kind):
    guest = Guest()
    guest.on("proxy_on_request_headers", guest.call("proxy_close_stream", kind), result=0)
    _, stream = bench.stream(guest)
    assert stream.request_head() is Action.PAUSE
    assert stream.events == ["reset"]


@pytest.mark.parametrize("held", [True, False])
def test_F20_a_stream_that_breaks_off_is_done_logged_and_deleted(bench, held):
    guest = whole(request_headers=int(held))
    loaded, stream = bench.stream(guest)
    stream.request_head(False)
    stream.close()
    assert guest.names(loaded.vm)[2:] == ["request_headers", "done", "log", "delete"]
    assert list(loaded.vm.contexts) == [1]


def test_a_stream_that_was_never_shown_is_still_logged(bench):
    guest = whole()
    loaded, stream = bench.stream(guest)
    stream.close()
    assert guest.names(loaded.vm)[1:] == ["context_create", "done", "log", "delete"]


def answer(guest, status=403, details=b"why", body=b"no", headers=((b"x-a", b"1"),), grpc_status=NONE):
    return guest.call("proxy_send_local_response", status, details, body, encode_pairs(headers), grpc_status)


@pytest.mark.parametrize("name", [f"proxy_on_request_{part}" for part in ("headers", "body", "trailers")])
def test_R01_R02_R04_an_answer_from_a_request_callback(bench, name):
    guest = whole()
    guest = Guest()
    guest.on(name, answer(guest), result=0)
    _, stream = bench.stream(guest)
    action = {
        "headers": stream.request_head,
        "body": lambda: stream.request_data(b"x"),
        "trailers": lambda: stream.filter.request_trailers(),
    }[name.rpartition("_")[2]]()
    assert action is Action.PAUSE, "whatever the callback returns"
    assert stream.events == [("response", 403, [(b"x-a", b"1")], b"no", b"why", -1)]


def test_R03_an_answer_in_place_of_the_response(bench):
    guest = Guest()
    guest.on("proxy_on_response_headers", answer(guest, 502), result=0)
    _, stream = bench.stream(guest)
    assert stream.response_head(False) is Action.PAUSE
    assert stream.events == [("response", 502, [(b"x-a", b"1")], b"no", b"why", -1)]


def test_R05_the_first_answer_counts(bench):
    guest = Guest()
    first, second = answer(guest, 401), answer(guest, 402)
    guest.on("proxy_on_request_headers", first, second)
    loaded, stream = bench.stream(guest)
    stream.request_head()
    assert (first.status(loaded.vm), second.status(loaded.vm)) == (OK, OK)
    assert [event[1] for event in stream.events] == [401]


def test_R06_after_the_response_head_the_stream_is_broken_off(bench):
    guest = Guest()
    guest.on("proxy_on_response_headers")
    guest.on("proxy_on_response_body", answer(guest))
    _, stream = bench.stream(guest)
    stream.response_head(False)
    assert stream.response_data(b"x") is Action.PAUSE
    assert stream.events == ["reset"]


@pytest.mark.parametrize("name", ["proxy_on_done", "proxy_on_log", "proxy_on_delete"])
def test_R07_at_the_end_of_a_stream_nothing_can_be_asked_of_it(bench, name):
    guest = Guest()
    calls = [
        answer(guest),
        guest.call("proxy_continue_stream", 0),
        guest.call("proxy_continue_stream", 1),
        guest.call("proxy_close_stream", 0),
    ]
    guest.on(name, *calls)
    loaded, stream = bench.stream(guest)
    stream.close()
    assert [call.status(loaded.vm) for call in calls] == [OK] * 4
    assert stream.events == []


def test_R08_response_callbacks_see_the_answer_as_any_other(bench):
    guest = Guest()
    guest.on("proxy_on_request_headers", answer(guest))
    guest.on("proxy_on_response_headers", guest.call("proxy_add_header_map_value", 2, b"x-late", b"1"))
    _, stream = bench.stream(guest)
    assert stream.request_head() is Action.PAUSE
    assert stream.response_head(status=403) is Action.CONTINUE
    assert list(stream.response.headers) == [(b"x-late", b"1")]


@pytest.mark.parametrize(("given", "passed"), [(0, 0), (10, 10), (16, 16), (17, -1), (NONE, -1), (0x80000000, -1)])
def test_R09_R10_grpc_status(bench, given, passed):
    guest = Guest()
    guest.on("proxy_on_request_headers", answer(guest, grpc_status=given))
    _, stream = bench.stream(guest)
    stream.request_head()
    assert stream.events[0][-1] == passed


def test_R11_an_answer_from_a_tick(bench):
    guest = Guest()
    guest.on("proxy_on_configure", guest.call("proxy_set_tick_period_milliseconds", 50))
    guest.on("proxy_on_request_headers", result=1)
    guest.on("proxy_on_tick", guest.call("proxy_set_effective_context", 2), answer(guest, 429))
    _, stream = bench.stream(guest)
    stream.request_head()
    bench.clock.advance(0.05)
    assert [event[1] for event in stream.events] == [429]


@pytest.mark.parametrize("status", [0, 99, 100, 101, 199, 600, 0xFFFFFFFF])
def test_an_answer_with_a_status_that_is_none_is_500(bench, status):
    guest = Guest()
    call = answer(guest, status)
    guest.on("proxy_on_request_headers", call)
    loaded, stream = bench.stream(guest)
    stream.request_head()
    assert call.status(loaded.vm) == OK
    assert stream.events[0][1] == 500
    assert any("no final status" in text for text in bench.texts())


BAD_LINES = [
    *((b"x-bad", b"1" + byte + b"2") for byte in (b"\n", b"\r", b"\0", b"\r\nx-worse: 1")),
    *((name, b"1") for name in (b"", b"a b", b"a:b", b"a\n", b"\xff", b":bad", b":status")),
]
MALFORMED = [
    b"\1\0\0",
    b"\2\0\0\0" + encode_pairs([(b"a", b"1")])[4:],
    encode_pairs([(b"a", b"1")])[:-1],
    encode_pairs([(b"a", b"1")]) + b"x",
    encode_pairs([(b"a", b"1")] * 1025),
    b"\xff" * 40,
]


@pytest.mark.parametrize("line", BAD_LINES)
def test_a_bad_line_is_left_out_of_an_answer_that_is_sent_all_the_same(bench, line):
    guest = Guest()
    call = answer(guest, headers=((b"x-a", b"1"), line, (b"x-b", b"2")))
    guest.on("proxy_on_request_headers", call, result=0)
    loaded, stream = bench.stream(guest)
    assert stream.request_head() is Action.PAUSE
    assert call.status(loaded.vm) == OK
    assert stream.events == [("response", 403, [(b"x-a", b"1"), (b"x-b", b"2")], b"no", b"why", -1)]
    assert any("left out" in text for text in bench.texts()) == (not line[0].startswith(b":"))


@pytest.mark.parametrize("data", MALFORMED)
def test_an_answer_whose_map_is_none_is_sent_without_it(bench, data):
    guest = Guest()
    call = guest.call("proxy_send_local_response", 403, b"why", b"no", data, NONE)
    guest.on("proxy_on_request_headers", call, result=0)
    loaded, stream = bench.stream(guest)
    assert stream.request_head() is Action.PAUSE
    assert call.status(loaded.vm) == OK
    assert stream.events == [("response", 403, [], b"no", b"why", -1)]
    assert any("map" in text for text in bench.texts())


@pytest.mark.parametrize("part", ["headers", "body", "trailers"])
@pytest.mark.parametrize("side", ["request", "response"])
def test_a_denial_with_a_bad_line_denies_in_every_phase(bench, side, part):
    guest = Guest()
    guest.on(f"proxy_on_{side}_{part}", answer(guest, headers=((b"x-bad", b"1\n2"),)), result=0)
    _, stream = bench.stream(guest)
    stream.request_trailers = stream.response_trailers = Headers()
    stream.response = Response(200, Headers()) if side == "response" else None
    act = {
        "headers": getattr(stream, f"{side}_head"),
        "body": lambda: getattr(stream, f"{side}_data")(b"x"),
        "trailers": getattr(stream.filter, f"{side}_trailers") or (lambda: None),
    }[part]
    assert act() is Action.PAUSE
    assert [event[:3] for event in stream.events] == [("response", 403, [])]


def test_a_stream_may_be_answered_as_it_begins(bench):
    guest = Guest()
    guest.on(
        "proxy_on_context_create",
        f"(if (i32.eq (local.get 0) (i32.const 2)) (then {answer(guest, headers=((b'', b''),)).code}))",
    )
    guest.on("proxy_on_request_headers", result=0)
    _, stream = bench.stream(guest)
    assert stream.request_head() is Action.PAUSE
    assert [event[1] for event in stream.events] == [403]


def test_D01_D02_a_context_that_is_not_done_waits_for_proxy_done(bench):
    guest = Guest()
    done = guest.call("proxy_done")
    for name in ("proxy_on_done", "proxy_on_log", "proxy_on_delete"):
        guest.on(name, result=0)
    guest.on("proxy_on_configure", guest.call("proxy_set_tick_period_milliseconds", 10))
    guest.on("proxy_on_tick", nth={1: [guest.call("proxy_set_effective_context", 2), done]})
    loaded, stream = bench.stream(guest)
    stream.close()
    assert guest.names(loaded.vm)[-1] == "done"
    bench.clock.advance(0.01)
    assert 2 in loaded.vm.contexts
    bench.clock.advance(0.01)
    assert done.status(loaded.vm) == OK
    assert guest.names(loaded.vm)[-4:] == ["tick", "tick", "log", "delete"]
    assert 2 not in loaded.vm.contexts


def test_a_stream_that_is_never_done_is_deleted_after_a_while(bench):
    guest = Guest()
    guest.on("proxy_on_done", result=0)
    guest.on("proxy_on_log")
    loaded, stream = bench.stream(guest)
    stream.close()
    bench.clock.advance(31)
    assert guest.names(loaded.vm) == ["done", "log"]
    assert list(loaded.vm.contexts) == [1]


def test_D03_done_where_nothing_waits_for_it(bench):
    guest = Guest()
    calls = [guest.call("proxy_done"), guest.call("proxy_done")]
    guest.on("proxy_on_configure", calls[0])
    guest.on("proxy_on_request_headers", calls[1])
    loaded, stream = bench.stream(guest)
    stream.request_head()
    assert [call.status(loaded.vm) for call in calls] == [NOT_FOUND, NOT_FOUND]


def test_D02_D06_a_plugin_that_is_not_done_lives_on_until_it_is(bench):
    guest = Guest()
    done = guest.call("proxy_done")
    guest.on("proxy_on_configure", guest.call("proxy_set_tick_period_milliseconds", 10))
    guest.on("proxy_on_done", result=0)
    guest.on("proxy_on_delete", guest.call("proxy_log", 2, b"deleted"))
    guest.on("proxy_on_tick", guest.call("proxy_log", 2, b"tick"), nth={2: [done]})
    loaded = bench.load(guest)
    ended = loaded.set.close()
    for _ in range(2):
        bench.clock.advance(0.01)
        assert not ended.called
    bench.clock.advance(0.01)
    assert ended.called
    assert [text for _, text in bench.lines()] == ["tick", "tick", "tick", "deleted"]
    assert bench.clock.getDelayedCalls() == []


def test_D04_D05_ids_are_not_used_again_and_nothing_is_called_after_delete(bench):
    guest = whole()
    loaded = bench.load(guest)
    ids = []
    for _ in range(3):
        stream = loaded.stream()
        stream.request_head()
        ids.append(stream.filter.id)
        stream.close()
    assert ids == [2, 3, 4]
    assert guest.names(loaded.vm).count("delete") == 3


def test_D07_an_effective_context_must_live_and_lasts_one_call(bench):
    guest = Guest()
    gone = guest.call("proxy_set_effective_context", 99)
    other = guest.call("proxy_set_effective_context", 3)
    read = [guest.call("proxy_get_header_map_value", 0, b":path", OUT_BYTES) for _ in range(2)]
    deleted = guest.call("proxy_set_effective_context", 3)
    guest.on("proxy_on_request_headers")
    guest.on("proxy_on_request_body", nth={0: [gone, other, read[0]], 1: [read[1]], 2: [deleted]})
    loaded = bench.load(guest)
    one, two = loaded.stream(), loaded.stream()
    two.request.path = b"/two"
    one.request_head(False)
    two.request_head(False)
    one.request_data(b"x")
    one.request_data(b"x")
    two.close()
    one.request_data(b"x")
    vm = loaded.vm
    assert (gone.status(vm), other.status(vm), deleted.status(vm)) == (BAD_ARGUMENT, OK, BAD_ARGUMENT)
    assert (read[0].value(vm), read[1].value(vm)) == (b"/two", b"/")
