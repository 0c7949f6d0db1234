"""Variants of one resource (RFC 9111 section 4.1)."""

from __future__ import annotations

import pytest

from tests.e2e_cache.support import FRESH, STALE, Arrival, Site, ok


def varying(*names: str, lines: tuple[str, ...] = (FRESH,), etag: bool = False):
    """Return an answer whose body is the values of these fields."""

    def make(arrival: Arrival) -> bytes:
        body = b";".join(b"%b=%b" % (name.encode(), b"+".join(arrival.all(name.encode()))) for name in names)
        tag = 'E"' + body.decode() + '"'
        if etag and tag[1:].encode() in b"".join(arrival.all(b"if-none-match")):
            return ok(b"", f"ETag: {tag[1:]}", FRESH, status="304 Not Modified", length=False)
        more = [f"ETag: {tag[1:]}"] if etag else []
        return ok(body, *lines, *more, "Vary: " + ", ".join(names))

    return make


def test_several_variants_are_kept_beside_each_other(site: Site) -> None:
    site.answer(varying("a"))
    for _ in range(2):
        assert [site.get(*lines).body for lines in (["A: 1"], ["A: 2"], [], ["A: 3"])] == [
            b"a=1",
            b"a=2",
            b"a=",
            b"a=3",
        ]
    assert site.count == 4


def test_all_of_two_fields_must_match(site: Site) -> None:
    site.answer(varying("a", "b"))
    asked = [("A: 1", "B: 1"), ("A: 1", "B: 2"), ("A: 2", "B: 1"), ("A: 1",), ("B: 1",)]
    first = [site.get(*lines).body for lines in asked]
    assert [site.get(*reversed(lines)).body for lines in asked] == first
    assert site.count == 5


def test_other_fields_do_not_matter(site: Site) -> None:
    site.answer(varying("a"))
    site.get("A: 1", "Other: 1")
    assert site.get("A: 1", "Other: 2").hit


def test_a_miss_of_a_variant_says_so(site: Site) -> None:
    site.answer(varying("a"))
    assert site.get("A: 1").cache["fwd"] in ("uri-miss", "miss")
    assert site.get("A: 2").cache["fwd"] == "vary-miss"


ALIKE = {
    "white space": ("A: 1,2", "A:  1 , 2 "),
    "lines": ("A: 1, 2", "A: 1\r\nA: 2"),
    "case of a coding": ("Accept-Encoding: gzip, br", "Accept-Encoding: GZIP,br"),
    "order of codings": ("Accept-Encoding: gzip, br", "Accept-Encoding: br, gzip"),
    "order of languages": ("Accept-Language: en, de", "Accept-Language: de, en"),
    "case of languages": ("Accept-Language: en, de", "Accept-Language: EN,De"),
}


@pytest.mark.parametrize(("one", "other"), ALIKE.values(), ids=ALIKE)
def test_values_that_mean_the_same_select_the_same(site: Site, one: str, other: str) -> None:
    site.answer(varying("a", "accept-encoding", "accept-language"))
    site.get(one)
    assert site.get(other).hit


DIFFERENT = {
    "absent and empty": ("X: y", "A:"),
    "order of an unknown field": ("A: 1, 2", "A: 2, 1"),
    "case of an unknown field": ("A: x", "A: X"),
    "weights": ("Accept-Language: en, de;q=0.5", "Accept-Language: en;q=0.5, de"),
    "a coding less": ("Accept-Encoding: gzip, br", "Accept-Encoding: gzip"),
    "a coding that is refused": ("Accept-Encoding: gzip", "Accept-Encoding: gzip;q=0"),
}


@pytest.mark.parametrize(("one", "other"), DIFFERENT.values(), ids=DIFFERENT)
def test_values_that_differ_select_another(site: Site, one: str, other: str) -> None:
    site.answer(varying("a", "accept-encoding", "accept-language"))
    site.get(one)
    assert not site.get(other).hit
    assert site.get(one).hit


@pytest.mark.parametrize("vary", ["*", "a, *", "*, a", " * "])
def test_a_star_matches_nothing(site: Site, vary: str) -> None:
    site.answer(ok(b"1", FRESH, f"Vary: {vary}"), ok(b"2", FRESH, f"Vary: {vary}"))
    assert [site.get("A: 1").body, site.get("A: 1").body] == [b"1", b"2"]


@pytest.mark.parametrize("vary", ["a b", '"a"', "a,,b, (", "@"])
def test_a_vary_that_cannot_be_read_matches_nothing_it_should_not(site: Site, vary: str) -> None:
    site.answer(ok(b"1", FRESH, f"Vary: {vary}"), ok(b"2", FRESH, f"Vary: {vary}"))
    site.get("A: 1")
    assert site.get("A: 2", "B: 2").body == b"2"


def test_names_have_no_case_and_come_in_several_lines(site: Site) -> None:
    site.answer(ok(b"1", FRESH, "Vary: AbC", "vary: deF"), ok(b"2", FRESH, "Vary: AbC", "vary: deF"))
    site.get("aBc: 1", "Def: 1")
    assert site.get("abc: 1", "DEF: 1").hit
    assert site.get("abc: 1", "DEF: 2").body == b"2"


def test_of_variants_that_match_the_latest_is_used(site: Site) -> None:
    """What varied by A varies by B now: a request may match both."""
    site.answer(ok(b"old", FRESH, "Vary: a"), ok(b"new", FRESH, "Vary: b"))
    site.get("A: 1", "B: 1")
    site.get("A: 2", "B: 1")
    assert site.get("A: 1", "B: 1").body in (b"new", b"old")
    assert site.get("A: 3", "B: 1").body == b"new"


def test_a_response_without_vary_takes_the_place_of_variants(site: Site) -> None:
    site.answer(ok(b"one", *STALE, "Vary: a"), ok(b"two", FRESH))
    site.get("A: 1")
    site.get("A: 1")
    assert [site.get("A: 1").body, site.get("A: 2").body] == [b"two", b"two"]


def test_a_variant_that_is_not_there_may_be_asked_for_by_the_tags_of_the_others(site: Site) -> None:
    """RFC 9111 section 4.1; an origin that knows that they are the same says so by a 304, which is for the cache."""

    def same(arrival: Arrival) -> bytes:
        if b'"v"' in (arrival.field(b"if-none-match") or b""):
            return ok(b"", FRESH, 'ETag: "v"', "Vary: a", status="304 Not Modified", length=False)
        return ok(b"same", FRESH, 'ETag: "v"', "Vary: a")

    site.answer(same)
    for _ in range(2):
        assert [site.get(f"A: {value}").body for value in "123"] == [b"same"] * 3
    assert site.count == 3


def test_each_variant_is_validated_by_itself(site: Site) -> None:
    site.answer(varying("a", lines=STALE, etag=True))
    for value in "12":
        site.get(f"A: {value}")
    assert [site.get(f"A: {value}").body for value in "12"] == [b"a=1", b"a=2"]
    assert [asked.field("if-none-match") for asked in site.seen[2:]] == ['"a=1"', '"a=2"']
    assert [site.get(f"A: {value}").body for value in "12"] == [b"a=1", b"a=2"]
    assert site.count == 4


def test_all_variants_are_invalidated_together(site: Site) -> None:
    site.answer(varying("a"))
    for value in "12":
        site.get(f"A: {value}")
    site.get(method="POST")
    assert not any(site.get(f"A: {value}").hit for value in "12")


def test_many_variants_do_not_lose_the_proxy(site: Site) -> None:
    site.answer(varying("a"))
    with site.stand.connect() as client:
        for value in range(300):
            assert client.ask(site.path, f"A: {value}").body == b"a=%d" % value
        assert client.ask(site.path, "A: 299").hit
