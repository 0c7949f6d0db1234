"""Filters and the cache: what the origin phase does is stored once, the client phase sees every answer."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.support import eventually
from tests.e2e_cache.support import FRESH, STALE, Site, Stand, ok, serving
from tests.e2e_wasm.support import PLUGINS, module
from tests.support.compiled import compiled_modules

ADD = "response_headers add 2"


def native(name: str, **options: object) -> dict[str, object]:
    return {"native": "told", "name": name, "configuration": name, **options}


@pytest.fixture(scope="module")
def stand(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    """Modules `a` (client phase) and `o` (origin phase); native filters `n` and `p`."""
    filters = [
        *(module("a"), native("n")),
        *(module("o", phase="origin", vm_id="origin"), native("p", phase="origin")),
    ]
    environment = {**os.environ, "PYTHONPATH": str(PLUGINS)}
    folder = tmp_path_factory.mktemp("filters")
    with serving(
        folder, wasm=filters, environment=environment, code_cache=str(compiled_modules(request.config))
    ) as running:
        yield running


@pytest.fixture
def site(stand: Stand) -> Site:
    return stand.site()


def logged(stand: Stand, tag: str) -> list[str]:
    return [line.split(f"{tag} ", 1)[1] for line in stand.proxy.log.splitlines() if f"{tag} " in line]


@pytest.mark.parametrize(
    ("client", "origin"),
    [
        ({"a": f"{ADD} x-client"}, {"o": f"{ADD} x-origin"}),
        ({"n": "response_headers response_header x-client"}, {"p": "response_headers response_header x-origin"}),
    ],
    ids=["modules", "native"],
)
def test_fields_of_the_origin_phase_are_stored_and_of_the_client_phase_are_not(
    site: Site, client: dict[str, str], origin: dict[str, str]
) -> None:
    site.answer(ok(b"x", FRESH))

    def ask(value: str) -> tuple[list[str], list[str], bool]:
        lines = [f"x-{name}: {script} {value}" for name, script in {**client, **origin}.items() if value]
        reply = site.get(*lines)
        return reply.all("x-client"), reply.all("x-origin"), reply.hit

    assert ask("1") == (["1"], ["1"], False)
    assert ask("2") == (["2"], ["1"], True)
    assert ask("") == ([], ["1"], True)
    assert site.count == 1


def test_bodies_of_the_origin_phase_are_stored_and_of_the_client_phase_are_not(site: Site) -> None:
    site.answer(ok(b"content", FRESH))
    first = site.get("x-p: response_body upper_response")
    assert (first.body, site.get().body) == (b"CONTENT", b"CONTENT")
    other = site.stand.site()
    other.answer(ok(b"content", FRESH))
    assert other.get("x-n: response_body upper_response").body == b"CONTENT"
    assert other.get().body == b"content"
    assert other.get("x-n: response_body upper_response").body == b"CONTENT"
    assert other.count == 1


def test_a_module_rewrites_a_stored_body_for_each_client(site: Site) -> None:
    site.answer(ok(b"content", FRESH))
    script = "x-a: response_headers del 2 content-length|response_body#1 body 1 0 7 told"
    assert [site.get(script).body, site.get().body, site.get(script).body] == [b"told", b"content", b"told"]
    assert site.count == 1


def test_the_client_phase_sees_the_whole_life_of_a_hit_and_the_origin_phase_nothing(stand: Stand, site: Site) -> None:
    site.answer(ok(b"content", FRESH))
    site.get()
    lines = ["x-tag: hit1"] + [f"x-{name}: nothing" for name in "anop"]
    assert site.get(*lines).hit
    eventually(lambda: "a delete" in logged(stand, "hit1") and "n closed" in logged(stand, "hit1"))
    events = [line.split() for line in logged(stand, "hit1")]
    for name in "an":
        seen = [event[1] for event in events if event[0] == name]
        for event in ("request_headers", "response_headers", "response_body"):
            assert event in seen, (name, seen)
    assert not [event for event in events if event[0] in "op"]


def test_hooks_of_a_hit_leave_the_origin_out(stand: Stand, site: Site) -> None:
    site.answer(ok(b"content", FRESH))
    site.get()
    site.get("x-tag: hooks1", "x-n: nothing")
    eventually(lambda: "n closed" in logged(stand, "hooks1"))
    hooks = [line.split()[2] for line in logged(stand, "hooks1") if line.startswith("n hook")]
    assert hooks == [
        *("TXN_START", "READ_REQUEST_HDR", "PRE_REMAP", "POST_REMAP", "CACHE_LOOKUP_COMPLETE"),
        *("SEND_RESPONSE_HDR", "TXN_CLOSE"),
    ]


def test_hooks_of_a_validation(stand: Stand, site: Site) -> None:
    site.answer(ok(b"body", *STALE, 'ETag: "v"'), ok(b"", FRESH, status="304 Not Modified", length=False))
    site.get()
    site.get("x-tag: hooks2", "x-n: nothing")
    eventually(lambda: "n closed" in logged(stand, "hooks2"))
    hooks = [line.split()[2] for line in logged(stand, "hooks2") if line.startswith("n hook")]
    assert hooks[4:] == [
        *("CACHE_LOOKUP_COMPLETE", "SEND_REQUEST_HDR", "READ_RESPONSE_HDR"),
        *("SEND_RESPONSE_HDR", "TXN_CLOSE"),
    ]


def test_an_answer_of_a_client_filter_is_not_stored(site: Site) -> None:
    site.answer(ok(b"content", FRESH))
    assert site.get("x-n: request_headers reply 403 no").status == 403
    assert site.count == 0
    assert site.get().body == b"content"
    assert site.get("x-n: response_headers reply 403 no").body == b"no"
    assert site.get("x-a: response_headers reply 403 no").body == b"no"
    assert site.get().hit


def test_an_answer_of_a_client_filter_to_a_miss_spoils_nothing(site: Site) -> None:
    site.answer(ok(b"content", FRESH))
    assert site.get("x-n: response_headers reply 403 no").body == b"no"
    assert site.get().body == b"content"


def test_a_client_filter_chooses_what_is_looked_up(site: Site) -> None:
    site.answer(ok(b"one", FRESH), ok(b"two", FRESH))
    site.get(to="/real")
    reply = site.get(f"x-n: request_headers path {site.path}/real", to="/alias")
    assert (reply.body, reply.hit) == (b"one", True)


def test_a_hit_is_held_and_let_go(site: Site) -> None:
    site.answer(ok(b"content", FRESH))
    site.get()
    for event in ("request_headers", "response_headers", "response_body"):
        direction = event.partition("_")[0]
        reply = site.get(f"x-n: {event} pause|{event} later 30 resume_{direction}")
        assert (reply.body, reply.hit, reply.complete) == (b"content", True, True)


def test_a_filter_that_breaks_a_hit_off_breaks_only_that(site: Site) -> None:
    site.answer(ok(b"content", FRESH))
    site.get()
    assert site.get("x-n: response_headers reset").status == 0
    assert site.get().hit


def test_a_failing_filter_of_the_origin_phase_leaves_nothing_behind(site: Site) -> None:
    site.answer(ok(b"content", FRESH))
    assert site.get("x-p: response_headers reply 500 no").status == 500
    assert site.get().body == b"content"
    assert site.count == 2


def test_filters_of_the_origin_phase_see_validations_and_what_they_add_is_stored(site: Site) -> None:
    site.answer(ok(b"body", *STALE, 'ETag: "v"'), ok(b"", FRESH, status="304 Not Modified", length=False))
    site.get(f"x-o: {ADD} x-origin 1")
    reply = site.get("x-o: response_headers set 2 x-origin 2")
    assert reply.body == b"body"
    assert site.get().field("x-origin") in ("1", "2")
    assert site.get().hit


def test_a_filter_of_the_origin_phase_decides_what_is_stored(site: Site) -> None:
    site.answer(ok(b"one", FRESH), ok(b"two"))
    site.get("x-o: response_headers set 2 cache-control no-store")
    assert site.get(f"x-o: {ADD} cache-control max-age=60").body == b"two"
    assert site.get().body == b"two"
    assert site.count == 2


def test_ranges_and_304_pass_the_client_filters(site: Site) -> None:
    site.answer(ok(b"0123456789", FRESH, 'ETag: "v"'))
    site.get()
    script = f"x-a: {ADD} x-client 1"
    part = site.get("Range: bytes=2-4", script)
    assert (part.status, part.body, part.field("x-client")) == (206, b"234", "1")
    unchanged = site.get('If-None-Match: "v"', script)
    assert (unchanged.status, unchanged.field("x-client")) == (304, "1")


def test_a_crowd_sees_what_the_origin_phase_did_once_each_with_its_own_client_phase(site: Site) -> None:
    go = threading.Event()

    def slow(arrival: object) -> bytes:
        go.wait(10)
        return ok(b"content", FRESH)

    site.answer(slow)
    clients: list[Any] = []
    for number in range(5):
        client = site.stand.connect()
        client.say(site.path, f"x-a: {ADD} x-client {number}", f"x-o: {ADD} x-origin {number}")
        clients.append(client)
        site.wait(1)
    go.set()
    replies = [client.reply() for client in clients]
    assert [reply.all("x-client") for reply in replies] == [[str(number)] for number in range(5)]
    assert {tuple(reply.all("x-origin")) for reply in replies} == {("0",)}
    assert site.count == 1
