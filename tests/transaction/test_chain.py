"""The filter chain: what each answer of a filter does to head, content and trailers. Played without a network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_wasmproxy.http.headers import Headers
from twisted_wasmproxy.http.messages import Request, Response
from twisted_wasmproxy.interfaces import Action
from twisted_wasmproxy.transaction.chain import Chain, FilterSlot
from twisted_wasmproxy.transaction.local import LocalReply

CONTINUE, PAUSE, PAUSE_HEADERS, DISCARD = Action.CONTINUE, Action.PAUSE, Action.PAUSE_HEADERS, Action.PAUSE_AND_DISCARD


class Owner:
    """Writes down what comes out of the chain."""

    def __init__(self) -> None:
        self.request = Request(b"POST", b"http", b"a", b"/", Headers())
        self.response: Response | None = None
        self.filter_state: dict[tuple[bytes, ...], bytes] = {}
        self.out: list[Any] = []
        self.chain: Chain

    def attribute(self, path: tuple[bytes, ...]) -> object:
        return None

    def request_head_passed(self, end_stream: bool) -> None:
        self.out.append(("head", end_stream))

    def request_data_passed(self, data: bytes, end_stream: bool) -> None:
        self.out.append((data, end_stream))

    def request_end_passed(self, trailers: Headers | None) -> None:
        self.out.append(("trailers", list(trailers or ())))

    def response_head_passed(self, end_stream: bool) -> None:
        assert self.response is not None
        self.out.append(("response", self.response.status, end_stream))

    def response_data_passed(self, data: bytes, end_stream: bool) -> None:
        self.out.append(("response", data, end_stream))

    def response_end_passed(self, trailers: Headers | None) -> None:
        self.out.append(("response trailers", list(trailers or ())))

    def request_waits(self, waiting: bool) -> None:
        self.out.append(("waits", waiting))

    def response_waits(self, waiting: bool) -> None:
        self.out.append(("response waits", waiting))

    def local_reply(self, reply: LocalReply) -> None:
        self.out.append(("reply", reply.status))
        self.chain.request.stop()
        self.response = Response(reply.status, Headers())
        self.chain.response.restart(not reply.body)
        if reply.body:
            self.chain.response.data(reply.body, True)

    def reset(self) -> None:
        self.out.append("reset")
        self.chain.close()

    def request_overflow(self, name: str) -> None:
        self.out.append(("overflow", name))
        self.chain.request.stop()

    def response_overflow(self, name: str) -> None:
        self.out.append(("response overflow", name))
        self.chain.response.stop()

    def progress(self) -> int:
        return 0

    def held_too_long(self) -> None:
        self.out.append("held too long")


class Scripted:
    """A filter that plays its script: an action, or a function of the filter that returns one, per callback."""

    def __init__(self, stream: Any, calls: list[Any], name: str, script: dict[str, Any]) -> None:
        self.stream = stream
        self.calls = calls
        self.name = name
        self.script = script
        for callback in (
            "request_headers",
            "request_body",
            "request_trailers",
            "response_headers",
            "response_body",
            "response_trailers",
        ):
            made = self._callback(callback) if callback in script else None
            setattr(self, callback, made)

    def _callback(self, name: str) -> Callable[..., Action]:
        def call(*args: Any) -> Action:
            self.calls.append((self.name, name, *args))
            step = self.script[name]
            if isinstance(step, list):
                step = step.pop(0)
            return step(self) if callable(step) else step

        return call

    def closed(self) -> None:
        self.calls.append((self.name, "closed"))


class Factory:
    def __init__(self, name: str, script: dict[str, Any], made: list[Scripted], calls: list[Any]) -> None:
        self.name, self.script, self.made, self.calls = name, script, made, calls

    def create(self, stream: Any) -> Scripted:
        scripted = Scripted(stream, self.calls, self.name, self.script)
        self.made.append(scripted)
        return scripted


class Play:
    """A chain of scripted filters, its owner, the callbacks that were made (`calls`) and what came out (`out`)."""

    def __init__(self, *scripts: dict[str, Any], limit: int = 1000, fail_open: bool = False) -> None:
        self.owner = Owner()
        self.calls: list[Any] = []
        self.filters: list[Scripted] = []
        slots = [
            FilterSlot(Factory("abc"[i], script, self.filters, self.calls), "abc"[i], fail_open)  # type: ignore[arg-type]
            for i, script in enumerate(scripts)
        ]
        self.chain = self.owner.chain = Chain(self.owner, slots, limit)
        self.out = self.owner.out

    def respond(self, status: int, end_stream: bool) -> None:
        self.owner.response = Response(status, Headers())
        self.chain.response.headers(end_stream)


def test_filters_without_callbacks_let_everything_pass() -> None:
    play = Play({}, {})
    play.chain.request.headers(False)
    play.chain.request.data(b"x", False)
    play.chain.request.end(Headers([(b"t", b"1")]))
    assert play.out == [("head", False), (b"x", False), ("trailers", [(b"t", b"1")])]
    assert play.calls == []


def test_requests_run_in_order_and_responses_in_reverse() -> None:
    both = {"request_headers": CONTINUE, "response_headers": CONTINUE}
    play = Play(dict(both), dict(both), dict(both))
    play.chain.request.headers(True)
    play.respond(200, True)
    assert [(name, what) for name, what, _ in play.calls] == [
        ("a", "request_headers"),
        ("b", "request_headers"),
        ("c", "request_headers"),
        ("c", "response_headers"),
        ("b", "response_headers"),
        ("a", "response_headers"),
    ]


def test_a_held_head_shows_no_body_and_passes_everything_on_resume() -> None:
    play = Play({"request_headers": PAUSE, "request_body": CONTINUE}, {"request_body": CONTINUE})
    play.chain.request.headers(False)
    play.chain.request.data(b"one", False)
    play.chain.request.data(b"two", True)
    assert play.out == []
    assert play.calls == [("a", "request_headers", False)]
    play.filters[0].stream.resume_request()
    assert play.calls[1:] == [("a", "request_body", 6, True), ("b", "request_body", 6, True)]
    assert play.out == [("head", False), (b"onetwo", True)]


def test_a_held_head_slows_the_source_when_much_waits() -> None:
    play = Play({"request_headers": PAUSE})
    play.chain.request.headers(False)
    play.chain.request.data(b"x" * 70000, False)
    assert play.out == [("waits", True)]
    play.filters[0].stream.resume_request()
    assert play.out[1:] == [("head", False), ("waits", False), (b"x" * 70000, False)]


def test_pause_headers_shows_the_body_and_continue_releases_both() -> None:
    play = Play({"request_headers": PAUSE_HEADERS, "request_body": [PAUSE, CONTINUE]})
    play.chain.request.headers(False)
    play.chain.request.data(b"one", False)
    assert play.out == []
    play.chain.request.data(b"two", True)
    assert play.calls == [
        ("a", "request_headers", False),
        ("a", "request_body", 3, False),
        ("a", "request_body", 6, True),
    ]
    assert play.out == [("head", False), (b"onetwo", True)]


def test_a_paused_body_accumulates_and_a_resume_at_its_end_shows_it_no_more() -> None:
    play = Play({"request_body": PAUSE}, {"request_body": CONTINUE})
    play.chain.request.headers(False)
    for data, end in ((b"one", False), (b"two", False), (b"", True)):
        play.chain.request.data(data, end)
    assert [call for call in play.calls if call[0] == "a"] == [
        ("a", "request_body", 3, False),
        ("a", "request_body", 6, False),
        ("a", "request_body", 6, True),
    ]
    assert play.out == [("head", False)]
    play.filters[0].stream.resume_request()
    assert play.out == [("head", False), (b"onetwo", True)]
    assert play.calls[3:] == [("b", "request_body", 6, True)]


def test_after_a_resume_the_next_chunk_is_shown_alone() -> None:
    play = Play({"request_body": [PAUSE, CONTINUE]})
    play.chain.request.headers(False)
    play.chain.request.data(b"one", False)
    play.filters[0].stream.resume_request()
    play.chain.request.data(b"two", True)
    assert play.calls[-1] == ("a", "request_body", 3, True)
    assert play.out == [("head", False), (b"one", False), (b"two", True)]


def test_discard_drops_what_was_shown() -> None:
    play = Play({"request_body": [DISCARD, CONTINUE]})
    play.chain.request.headers(False)
    play.chain.request.data(b"one", False)
    play.chain.request.data(b"two", True)
    assert play.calls == [("a", "request_body", 3, False), ("a", "request_body", 3, True)]
    assert play.out == [("head", False), (b"two", True)]


def test_a_resume_inside_the_pausing_callback_wins() -> None:
    def resume(scripted: Scripted) -> Action:
        scripted.stream.resume_request()
        return PAUSE

    play = Play({"request_headers": resume, "request_body": resume})
    play.chain.request.headers(False)
    play.chain.request.data(b"x", True)
    assert play.out == [("head", False), (b"x", True)]


def test_resuming_what_is_not_held_does_nothing() -> None:
    play = Play({"request_headers": CONTINUE})
    play.filters[0].stream.resume_request()
    play.chain.request.headers(True)
    play.filters[0].stream.resume_request()
    assert play.out == [("head", True)]


def test_trailers_may_be_held_with_the_body_before_them() -> None:
    play = Play({"request_body": PAUSE, "request_trailers": PAUSE})
    play.chain.request.headers(False)
    play.chain.request.data(b"x", False)
    play.chain.request.end(Headers([(b"t", b"1")]))
    assert play.out == [("head", False)]
    play.filters[0].stream.resume_request()
    assert play.out == [("head", False), (b"x", False), ("trailers", [(b"t", b"1")])]


def test_trailers_that_continue_release_a_paused_body() -> None:
    play = Play({"request_body": PAUSE, "request_trailers": CONTINUE})
    play.chain.request.headers(False)
    play.chain.request.data(b"x", False)
    play.chain.request.end(Headers([(b"t", b"1")]))
    assert play.out == [("head", False), (b"x", False), ("trailers", [(b"t", b"1")])]


def test_trailers_made_in_the_last_body_callback_are_shown_to_the_next_filter() -> None:
    def add(scripted: Scripted) -> Action:
        scripted.stream.add_trailers(True).add(b"sum", b"9")
        return CONTINUE

    play = Play({"request_body": add}, {"request_body": CONTINUE, "request_trailers": CONTINUE})
    play.chain.request.headers(False)
    play.chain.request.data(b"x", True)
    assert play.out == [("head", False), (b"x", False), ("trailers", [(b"sum", b"9")])]
    assert play.calls[1:] == [("b", "request_body", 1, False), ("b", "request_trailers")]


def test_what_a_filter_changes_is_what_the_next_one_sees() -> None:
    def upper(scripted: Scripted) -> Action:
        body = scripted.stream.request_body
        body.replace(0, len(body), body.read(0, len(body)).upper() + b"!")
        return CONTINUE

    seen: list[bytes] = []

    def look(scripted: Scripted) -> Action:
        seen.append(scripted.stream.request_body.read(0, 99))
        return CONTINUE

    play = Play({"request_body": upper}, {"request_body": look})
    play.chain.request.headers(False)
    play.chain.request.data(b"ab", True)
    assert seen == [b"AB!"]
    assert play.out == [("head", False), (b"AB!", True)]
    assert play.chain.request.modified


def test_more_than_the_limit_is_an_overflow() -> None:
    play = Play({"request_body": PAUSE}, limit=10)
    play.chain.request.headers(False)
    play.chain.request.data(b"x" * 11, False)
    assert play.out == [("head", False), ("overflow", "a")]


def reply(status: int, body: bytes = b"") -> Callable[[Scripted], Action]:
    def answer(scripted: Scripted) -> Action:
        scripted.stream.send_local_response(status, [], body)
        return CONTINUE

    return answer


def test_a_local_reply_ends_the_request_and_passes_all_response_filters() -> None:
    play = Play(
        {"response_headers": CONTINUE},
        {"request_headers": reply(403, b"no"), "response_headers": CONTINUE},
        {"request_headers": CONTINUE, "response_headers": CONTINUE},
    )
    play.chain.request.headers(False)
    play.chain.request.data(b"ignored", True)
    assert play.out == [("reply", 403), ("response", 403, False), ("response", b"no", True)]
    assert [call[:2] for call in play.calls] == [
        ("b", "request_headers"),
        ("c", "response_headers"),
        ("b", "response_headers"),
        ("a", "response_headers"),
    ]


def test_a_local_reply_from_response_headers_replaces_the_answer_for_the_filters_still_to_come() -> None:
    play = Play({"response_headers": CONTINUE}, {"response_headers": reply(500)}, {"response_headers": CONTINUE})
    play.respond(200, False)
    play.chain.response.data(b"dropped?", False)
    assert play.out[:2] == [("reply", 500), ("response", 500, True)]
    assert [call[0] for call in play.calls] == ["c", "b", "a"]


def test_a_reply_asked_for_when_the_filter_is_made_is_given_when_its_turn_comes() -> None:
    play = Play({"request_headers": CONTINUE}, {})
    slots = [FilterSlot(play.chain.sites[0].slot.factory, "a", False)]

    class Refusing:
        name = "refusing"

        def create(self, stream: Any) -> None:
            stream.send_local_response(503)

    slots.append(FilterSlot(Refusing(), "refusing", False))  # type: ignore[arg-type]
    owner = Owner()
    owner.chain = Chain(owner, slots, 100)
    assert owner.out == []
    owner.chain.request.headers(True)
    assert owner.out == [("reply", 503), ("response", 503, True)]
    assert play.calls == [("a", "request_headers", True)]


def boom(scripted: Scripted) -> Action:
    raise RuntimeError("boom")


@pytest.mark.parametrize("fail_open", [False, True])
def test_an_exception_fails_the_filter_only(fail_open: bool) -> None:
    play = Play(
        {"request_headers": boom, "response_headers": CONTINUE}, {"request_headers": CONTINUE}, fail_open=fail_open
    )
    play.chain.request.headers(True)
    if fail_open:
        assert play.out == [("head", True)]
        assert play.calls == [("a", "request_headers", True), ("b", "request_headers", True)]
    else:
        assert play.out == [("reply", 500), ("response", 500, True)]


def test_a_reset_inside_a_callback_comes_after_it() -> None:
    def reset(scripted: Scripted) -> Action:
        scripted.stream.reset()
        assert play.out == []
        return CONTINUE

    play = Play({"request_headers": reset}, {"request_headers": CONTINUE})
    play.chain.request.headers(True)
    assert play.out == ["reset"]
    assert play.calls == [("a", "request_headers", True), ("a", "closed"), ("b", "closed")]


def test_resuming_another_filter_from_inside_a_callback_waits_for_its_end() -> None:
    def wake(scripted: Scripted) -> Action:
        play.filters[0].stream.resume_request()
        play.calls.append("still in b")
        return CONTINUE

    play = Play({"request_headers": PAUSE}, {"request_headers": CONTINUE, "response_headers": wake})
    play.chain.request.headers(True)
    play.respond(200, True)
    assert play.calls[-2:] == ["still in b", ("b", "request_headers", True)]
    assert play.out == [("response", 200, True), ("head", True)]


def test_closed_is_told_once_and_nothing_works_afterwards() -> None:
    play = Play({"request_headers": PAUSE})
    play.chain.request.headers(True)
    play.chain.close()
    play.chain.close()
    play.filters[0].stream.resume_request()
    play.filters[0].stream.send_local_response(200)
    assert play.out == []
    assert play.calls == [("a", "request_headers", True), ("a", "closed")]


actions = st.sampled_from([CONTINUE, PAUSE, PAUSE_HEADERS])


@given(
    st.lists(st.tuples(actions, st.lists(actions, min_size=30, max_size=30), actions), min_size=1, max_size=3),
    st.lists(st.binary(max_size=5), max_size=6),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_whatever_filters_hold_nothing_is_lost_or_reordered(
    plans: list[tuple[Action, list[Action], Action]], chunks: list[bytes], trailers: bool, random: Any
) -> None:
    """Whatever mixture of holding and resuming: all bytes come out once, in order, and the end comes once, last."""
    scripts = [
        {"request_headers": head, "request_body": list(bodies) + [CONTINUE] * 50, "request_trailers": tail}
        for head, bodies, tail in plans
    ]
    play = Play(*scripts)

    def resume_some() -> None:
        for scripted in play.filters:
            if random.random() < 0.3:
                scripted.stream.resume_request()

    play.chain.request.headers(False)
    for chunk in chunks:
        resume_some()
        play.chain.request.data(chunk, False)
    resume_some()
    play.chain.request.end(Headers([(b"t", b"1")]) if trailers else None)
    for _ in range(len(plans) * 4):
        for scripted in play.filters:
            scripted.stream.resume_request()
    assert play.out[0] == ("head", False)
    content = [item for item in play.out[1:] if isinstance(item[0], bytes)]
    assert b"".join(data for data, _ in content) == b"".join(chunks)
    if trailers:
        assert play.out[-1] == ("trailers", [(b"t", b"1")])
        assert not any(end for _, end in content)
    else:
        assert play.out[-1][1] is True
        assert [end for _, end in content].count(True) == 1
