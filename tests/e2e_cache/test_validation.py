"""Validation of what is stored, freshening, and 304 from the cache (RFC 9111 section 4.3, RFC 9110 section 13)."""

from __future__ import annotations

import pytest

from tests.e2e_cache.support import FRESH, STALE, Site, date, ok
from tests.e2e_cache.support import validating as validates

LM = "Sun, 06 Nov 1994 08:49:37 GMT"
NOT_MODIFIED = "304 Not Modified"


def not_modified(*lines: str) -> bytes:
    return ok(b"", *lines, status=NOT_MODIFIED, length=False)


# Ours


@pytest.mark.parametrize("etag", ['"v"', 'W/"v"', '""', '"a,b"', '"\xfc"'])
def test_stale_responses_are_validated_by_their_entity_tag(site: Site, etag: str) -> None:
    site.answer(ok(b"body", *STALE, f"ETag: {etag}"), not_modified(FRESH, f"ETag: {etag}"))
    replies = [site.get() for _ in range(3)]
    assert [(reply.status, reply.body) for reply in replies] == [(200, b"body")] * 3
    assert [asked.field("if-none-match") for asked in site.seen] == [None, etag]
    assert replies[2].hit


def test_stale_responses_are_validated_by_last_modified(site: Site) -> None:
    site.answer(ok(b"body", *STALE, f"Last-Modified: {LM}"), not_modified(FRESH, f"Last-Modified: {LM}"))
    assert [site.get().body for _ in range(3)] == [b"body"] * 3
    assert [asked.field("if-modified-since") for asked in site.seen] == [None, LM]


def test_both_validators_are_sent(site: Site) -> None:
    site.answer(ok(b"body", *STALE, f"Last-Modified: {LM}", 'ETag: "v"'), not_modified(FRESH))
    assert [site.get().body for _ in range(2)] == [b"body"] * 2
    assert site.seen[1].field("if-none-match") == '"v"'
    assert site.seen[1].field("if-modified-since") == LM


def test_what_has_no_validator_is_fetched_anew(site: Site) -> None:
    site.answer(ok(b"one", *STALE), ok(b"two", FRESH))
    assert [site.get().body for _ in range(3)] == [b"one", b"two", b"two"]
    assert not {"if-none-match", "if-modified-since"} & {name for name, _ in site.seen[1].lines}


def test_another_answer_to_a_validation_takes_its_place(site: Site) -> None:
    site.answer(ok(b"one", *STALE, 'ETag: "1"'), ok(b"two!", FRESH, 'ETag: "2"'))
    replies = [site.get() for _ in range(3)]
    assert [reply.body for reply in replies] == [b"one", b"two!", b"two!"]
    assert replies[1].cache["stored"] is True
    assert replies[2].field("etag") == '"2"'


def test_a_304_updates_fields_but_not_those_of_the_content(site: Site) -> None:
    site.answer(
        ok(b"body", *STALE, 'ETag: "v"', "A: 1", "B: 1", "C: 1", "C: 2", "Content-Type: text/one"),
        not_modified(FRESH, 'ETag: "v"', "A: 2", "C: 3", "D: 4", "Content-Length: 99", "Content-Encoding: x"),
    )
    site.get()
    for reply in (site.get(), site.get()):
        assert reply.body == b"body"
        assert [reply.all(name) for name in "abcd"] == [["2"], ["1"], ["3"], ["4"]]
        assert reply.field("content-length") == "4"
        assert reply.field("cache-control") == "max-age=3600"
        assert reply.field("content-type") == "text/one"
        assert reply.field("content-encoding") is None
    assert site.count == 2


def test_a_304_does_not_bring_hop_by_hop_fields(site: Site) -> None:
    site.answer(
        ok(b"body", *STALE, 'ETag: "v"'), not_modified(FRESH, "Connection: x-named", "X-Named: 1", "Keep-Alive: x")
    )
    site.get()
    for reply in (site.get(), site.get()):
        assert reply.field("x-named") is None
        assert reply.field("keep-alive") is None


def test_a_304_resets_the_age(site: Site) -> None:
    site.answer(ok(b"body", *STALE, 'ETag: "v"'), not_modified("Cache-Control: max-age=100", f"Date: {date()}"))
    site.get()
    site.get()
    reply = site.get()
    assert reply.hit
    assert (reply.age or 0) <= 2
    assert reply.cache["ttl"] > 90


def test_a_304_that_forbids_to_store_is_not_followed_by_hits(site: Site) -> None:
    site.answer(
        ok(b"body", *STALE, 'ETag: "v"'), not_modified("Cache-Control: no-store", 'ETag: "v"'), ok(b"new", FRESH)
    )
    assert [site.get().body for _ in range(3)] == [b"body", b"body", b"new"]


def test_a_304_of_another_entity_tag_updates_nothing_but_the_time(site: Site) -> None:
    """RFC 9111 section 4.3.4; it still answers the only condition that was sent."""
    site.answer(
        ok(b"old", "Cache-Control: max-age=60", "Age: 60", 'ETag: "1"'),
        not_modified("Cache-Control: max-age=0", 'ETag: "2"', "A: 2"),
    )
    site.get()
    for _ in range(2):
        reply = site.get()
        assert (reply.status, reply.body, reply.field("etag"), reply.field("a")) == (200, b"old", '"1"', None)
    assert site.count == 2


def test_head_freshens_what_get_stored(site: Site) -> None:
    site.answer(ok(b"body", *STALE, 'ETag: "v"', "A: 1"), ok(b"body", FRESH, 'ETag: "v"', "A: 2"))
    site.get()
    assert site.head().status == 200
    reply = site.get()
    assert (reply.body, reply.field("a"), reply.hit) == (b"body", "2", True)


@pytest.mark.parametrize("change", ['ETag: "w"', "Content-Length: 5"])
def test_head_that_tells_of_another_content_makes_it_outdated(site: Site, change: str) -> None:
    lines = [FRESH, 'ETag: "v"'] if change.startswith("Content") else [FRESH, change]
    body = b"12345" if change.startswith("Content") else b"body"
    site.answer(ok(b"body", *STALE, 'ETag: "v"'), ok(body, *lines), ok(b"newer", FRESH))
    site.get()
    site.head()
    assert site.get().body == b"newer"


# The client's


CONDITIONS = {
    "strong": ('ETag: "v"', 'If-None-Match: "v"', 304),
    "weak by strong": ('ETag: W/"v"', 'If-None-Match: "v"', 304),
    "strong by weak": ('ETag: "v"', 'If-None-Match: W/"v"', 304),
    "list": ('ETag: "v"', 'If-None-Match: "a", "v" , W/"c"', 304),
    "comma inside": ('ETag: "a,v"', 'If-None-Match: "x", "a,v"', 304),
    "star": ('ETag: "v"', "If-None-Match: *", 304),
    "other": ('ETag: "v"', 'If-None-Match: "w"', 200),
    "part of a tag": ('ETag: "v"', 'If-None-Match: "vv"', 200),
    "not stored": ("X: y", 'If-None-Match: "v"', 200),
    "empty": ('ETag: "v"', "If-None-Match:", 200),
    "same date": (f"Last-Modified: {LM}", f"If-Modified-Since: {LM}", 304),
    "later": (f"Last-Modified: {LM}", f"If-Modified-Since: {date(-50_000)}", 304),
    "earlier": (f"Last-Modified: {LM}", "If-Modified-Since: Sat, 05 Nov 1994 08:49:37 GMT", 200),
    "RFC 850": (
        f"Last-Modified: {LM}",
        "If-Modified-Since: Sunday, 06-Nov-94 08:49:37 GMT",
        304,
    ),
    "asctime": (f"Last-Modified: {LM}", "If-Modified-Since: Sun Nov  6 08:49:37 1994", 304),
    "no date": (f"Last-Modified: {LM}", "If-Modified-Since: yesterday", 200),
}


@pytest.mark.parametrize(("stored", "condition", "status"), CONDITIONS.values(), ids=CONDITIONS)
def test_conditions_are_answered_from_a_fresh_response(site: Site, stored: str, condition: str, status: int) -> None:
    site.answer(ok(b"body", FRESH, stored, "Content-Type: text/x", "Content-Language: en", "Vary: x"))
    site.get()
    reply = site.get(condition)
    assert (reply.status, site.count) == (status, 1)
    assert reply.body == (b"body" if status == 200 else b"")
    if status == 304:
        assert reply.field("content-type") is None
        assert reply.field("vary") == "x"
        assert reply.field("cache-control") == "max-age=3600"
        assert reply.field("date")
        name, _, value = stored.partition(": ")
        if name == "ETag":
            assert reply.field("etag") == value


def test_if_none_match_comes_before_if_modified_since(site: Site) -> None:
    site.answer(ok(b"body", FRESH, 'ETag: "v"', f"Last-Modified: {LM}"))
    site.get()
    assert site.get('If-None-Match: "w"', f"If-Modified-Since: {LM}").status == 200
    assert site.get('If-None-Match: "v"', f"If-Modified-Since: {date(-(10**6))}").status == 304
    assert site.count == 1


def test_head_is_conditional_too(site: Site) -> None:
    site.answer(ok(b"body", FRESH, 'ETag: "v"'))
    site.get()
    assert site.head('If-None-Match: "v"').status == 304
    assert site.head('If-None-Match: "w"').status == 200


def test_conditions_of_the_client_do_not_decide_what_is_stored(site: Site) -> None:
    """With nothing stored the client's condition may go to the origin; a 304 to it is not stored as a response."""
    site.answer(validates('"v"', b"body", FRESH))
    assert site.get('If-None-Match: "v"').status == 304
    assert (site.get().status, site.get().body) == (200, b"body")


@pytest.mark.parametrize(("condition", "status"), [('"v"', 304), ('"other"', 200), ("*", 304)])
def test_a_stale_response_is_validated_first_then_the_client_is_answered(
    site: Site, condition: str, status: int
) -> None:
    site.answer(ok(b"body", *STALE, 'ETag: "v"'), not_modified(FRESH, 'ETag: "v"', "New: 1"))
    site.get()
    reply = site.get(f"If-None-Match: {condition}")
    assert (reply.status, reply.body) == (status, b"body" if status == 200 else b"")
    assert '"v"' in (site.seen[1].field("if-none-match") or "")
    assert site.get().hit


def test_a_304_to_the_client_s_own_tag_is_passed_on_and_not_mistaken_for_ours(site: Site) -> None:
    """We hold "1", the client "2", and the origin too."""
    site.answer(ok(b"one", *STALE, 'ETag: "1"'), validates('"2"', b"two", FRESH))
    site.get()
    reply = site.get('If-None-Match: "2"')
    assert (reply.status, reply.body) in ((304, b""), (200, b"two"))
    third = site.get()
    assert (third.status, third.body) == (200, b"two")


def test_a_client_s_condition_that_fails_gets_the_new_response(site: Site) -> None:
    site.answer(ok(b"one", *STALE, 'ETag: "1"'), ok(b"two", FRESH, 'ETag: "2"'))
    site.get()
    reply = site.get('If-None-Match: "1"')
    assert (reply.status, reply.body) == (200, b"two")
    assert site.get('If-None-Match: "2"').status == 304
    assert site.count == 2


@pytest.mark.parametrize("condition", ['If-Match: "v"', f"If-Unmodified-Since: {LM}"])
def test_conditions_for_the_origin_reach_it(site: Site, condition: str) -> None:
    site.answer(ok(b"body", FRESH, 'ETag: "v"'), ok(b"", status="412 Precondition Failed"))
    site.get()
    assert site.get(condition).status in (200, 412)
    name, _, value = condition.partition(": ")
    if site.count == 2:
        assert site.seen[1].field(name) == value
    assert site.get().body == b"body"


def test_a_status_that_is_no_success_is_not_made_a_304(site: Site) -> None:
    site.answer(ok(b"gone", FRESH, 'ETag: "v"', status="404 Not Found"))
    site.get()
    assert site.get('If-None-Match: "v"').status == 404


def test_304s_carry_what_the_client_needs_to_freshen(site: Site) -> None:
    site.answer(ok(b"x", FRESH, 'ETag: "v"', f"Expires: {date(3600)}", "Content-Location: /a", "Age: 5"))
    site.get()
    reply = site.get('If-None-Match: "v"')
    assert reply.status == 304
    for name in ("etag", "expires", "content-location", "cache-control", "date"):
        assert reply.field(name), name
    assert reply.age in (5, 6)
    assert reply.field("content-length") in (None, "1")
