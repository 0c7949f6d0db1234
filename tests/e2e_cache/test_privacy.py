"""What is one client's is not another's: Authorization, Set-Cookie, private; and no origin fills another's entries."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.support import scripted_origin
from tests.e2e_cache.support import FRESH, STALE, Site, Stand, ok

CC = "Cache-Control: "
AUTH = "Authorization: Basic Zm9vOmJhcg=="


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    with scripted_origin() as other:
        other.script = lambda arrival: arrival.send(ok(b"other", FRESH))
        yield {
            "cache": {"memory": "16MiB"},
            "upstreams": {"other": {"servers": [f"http://127.0.0.1:{other.port}"]}},
            "remap": [
                {"match": {"host": "other.test"}, "upstream": "other"},
                {"match": {"path": "/store/"}, "upstream": "origin", "cache": {"set_cookie": "store"}},
                {"match": {"path": "/bypass/"}, "upstream": "origin", "cache": {"set_cookie": "bypass"}},
                {"match": {"path": "/hostless/"}, "upstream": "origin", "cache": {"key": {"host": False}}},
                {"upstream": "origin"},
            ],
        }


# Authorization


@pytest.mark.parametrize("cc", ["max-age=3600", "max-age=3600, private", "max-age=3600, immutable"])
def test_an_answer_to_authorization_is_not_shared(site: Site, cc: str) -> None:
    site.answer(ok(b"mine", CC + cc), ok(b"other", CC + cc))
    assert not site.get(AUTH).cache.get("stored")
    assert site.get().body == b"other"


@pytest.mark.parametrize("cc", ["public, max-age=3600", "s-maxage=3600", "must-revalidate, max-age=3600"])
def test_an_answer_to_authorization_is_shared_if_the_origin_says_so(site: Site, cc: str) -> None:
    site.answer(ok(b"mine", CC + cc), ok(b"other", CC + cc))
    site.get(AUTH)
    assert site.get().body == b"mine"
    assert site.get(AUTH).body == b"mine"


def test_a_public_answer_is_given_to_who_has_authorization(site: Site) -> None:
    site.answer(ok(b"public", FRESH))
    site.get()
    assert site.get(AUTH).hit


def test_a_public_answer_is_validated_for_who_has_authorization(site: Site) -> None:
    """What comes of that with a body is for that client alone."""
    site.answer(ok(b"public", *STALE, 'ETag: "v"'), ok(b"mine", FRESH, 'ETag: "w"'), ok(b"theirs", FRESH))
    site.get()
    assert site.get(AUTH).body == b"mine"
    assert site.get().body != b"mine"


# Set-Cookie


def test_set_cookie_reaches_the_first_client_only(site: Site) -> None:
    site.answer(ok(b"x", FRESH, "Set-Cookie: id=1", "Set-Cookie: b=2"), ok(b"y", FRESH, "Set-Cookie: id=2"))
    first, second = site.get(), site.get()
    assert first.all("set-cookie") == ["id=1", "b=2"]
    assert second.all("set-cookie") == []
    assert (second.body, second.hit) == (b"x", True)


def test_set_cookie_without_a_lifetime_of_its_own_keeps_the_response_out(site: Site) -> None:
    old = "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT"
    site.answer(ok(b"1", old, "Set-Cookie: id=1"), ok(b"2", old, "Set-Cookie: id=2"))
    replies = [site.get(), site.get()]
    assert [reply.body for reply in replies] == [b"1", b"2"]
    assert [reply.field("set-cookie") for reply in replies] == ["id=1", "id=2"]


def test_set_cookie_of_a_304_is_for_the_client_that_asked(site: Site) -> None:
    fresh = ok(b"", FRESH, 'ETag: "v"', "Set-Cookie: id=1", status="304 Not Modified", length=False)
    site.answer(ok(b"x", *STALE, 'ETag: "v"'), fresh)
    site.get()
    site.get()
    third = site.get()
    assert third.hit
    assert third.all("set-cookie") == []


def test_set_cookie_is_stored_where_the_rule_says_so(stand: Stand) -> None:
    site = stand.site("/store")
    site.answer(ok(b"x", FRESH, "Set-Cookie: id=1"))
    site.get()
    assert site.get().field("set-cookie") == "id=1"
    assert site.count == 1


def test_responses_with_set_cookie_bypass_the_cache_where_the_rule_says_so(stand: Stand) -> None:
    site = stand.site("/bypass")
    site.answer(ok(b"1", FRESH, "Set-Cookie: id=1"), ok(b"2", FRESH, "Set-Cookie: id=2"))
    assert [site.get().body, site.get().body] == [b"1", b"2"]


def test_cookies_of_requests_are_not_stored_nor_part_of_the_key(site: Site) -> None:
    site.answer(ok(b"x", FRESH))
    site.get("Cookie: id=1")
    assert site.get("Cookie: id=2").hit


def test_vary_cookie_keeps_clients_apart(site: Site) -> None:
    site.answer(ok(b"1", FRESH, "Vary: cookie"), ok(b"2", FRESH, "Vary: cookie"))
    assert [site.get("Cookie: id=1").body, site.get("Cookie: id=2").body] == [b"1", b"2"]


# Keys


def test_hosts_have_entries_of_their_own(site: Site) -> None:
    site.answer(ok(b"1", FRESH), ok(b"2", FRESH))
    assert [site.get(f"Host: {host}").body for host in ("a.test", "b.test", "A.TEST")] == [b"1", b"2", b"1"]


def test_hosts_share_entries_where_the_rule_says_so(stand: Stand) -> None:
    site = stand.site("/hostless")
    site.answer(ok(b"1", FRESH), ok(b"2", FRESH))
    assert [site.get(f"Host: {host}").body for host in ("a.test", "b.test")] == [b"1", b"1"]


def test_an_upstream_cannot_fill_the_entries_of_another(stand: Stand, site: Site) -> None:
    """Absolute-form, Host and case must not lead from one rule to the entries of another."""
    site.answer(ok(b"mine", FRESH))
    for lines, target in (
        (["Host: other.test"], site.path),
        (["Host: OTHER.test"], site.path),
        (["Host: proxy.test"], f"http://other.test{site.path}"),
        (["Host: other.test"], f"http://proxy.test{site.path}"),
    ):
        with stand.connect() as client:
            reply = client.ask(target, *lines)
            assert reply.body in (b"other", b"mine")
    reply = site.get()
    assert reply.body == b"mine"
    assert site.get("Host: other.test").body == b"other"


@pytest.mark.parametrize("name", ["X-Forwarded-Host", "X-Host", "X-Original-URL", "Forwarded", "X-Forwarded-Scheme"])
def test_a_field_that_is_not_in_the_key_is_told_to_the_origin_only_as_it_came(site: Site, name: str) -> None:
    """An origin that reflects such a field must say Vary; the key is the same with and without it."""
    site.answer(ok(b"x", FRESH))
    site.get(f"{name}: evil")
    assert site.get().hit


def test_bodies_of_get_requests_do_not_poison(site: Site) -> None:
    site.answer(lambda arrival: ok(b"plain", FRESH))
    site.get(body=b"evil")
    assert site.get().body == b"plain"


def test_userinfo_and_fragments_do_not_reach_other_entries(site: Site) -> None:
    site.answer(ok(b"1", FRESH), ok(b"2", FRESH))
    site.get()
    with site.stand.connect() as client:
        reply = client.ask(f"http://user@proxy.test{site.path}", "Host: proxy.test")
    assert reply.status in (200, 400)
    assert site.get().body == b"1"
