"""Methods that are not safe make what is stored invalid (RFC 9111 section 4.4); POST that fills (RFC 9110 9.3.3)."""

from __future__ import annotations

import threading

import pytest

from tests.e2e_cache.support import FRESH, Site, Stand, ok

UNSAFE = ["POST", "PUT", "DELETE", "PATCH", "M-SEARCH", "FROBNICATE"]


def stored(site: Site, to: str = "") -> None:
    site.answer(ok(b"old", FRESH))
    site.get(to=to)
    assert site.get(to=to).hit


@pytest.mark.parametrize("method", UNSAFE)
@pytest.mark.parametrize("status", [200, 201, 204, 301, 303])
def test_success_invalidates_the_target(site: Site, method: str, status: int) -> None:
    stored(site)
    site.answer(ok(b"", status=f"{status} x", length=status != 204), ok(b"new", FRESH))
    assert site.get(method=method).status == status
    assert site.get().body == b"new"


@pytest.mark.parametrize("method", UNSAFE)
@pytest.mark.parametrize("status", [400, 404, 412, 500, 503])
def test_failure_does_not(site: Site, method: str, status: int) -> None:
    stored(site)
    site.answer(ok(b"", status=f"{status} x"))
    assert site.get(method=method).status == status
    assert site.get().hit


@pytest.mark.parametrize("method", ["OPTIONS", "HEAD"])
def test_safe_methods_do_not(site: Site, method: str) -> None:
    stored(site)
    site.get(method=method)
    assert site.get().hit


@pytest.mark.parametrize("method", ["POST", "DELETE", "M-SEARCH"])
@pytest.mark.parametrize("name", ["Location", "Content-Location"])
@pytest.mark.parametrize("form", ["absolute", "path", "relative"])
def test_what_the_answer_points_to_is_invalidated(site: Site, method: str, name: str, form: str) -> None:
    stored(site, to="/x")
    stored(site, to="/y")
    value = {
        "absolute": f"http://proxy.test{site.path}/x",
        "path": f"{site.path}/x",
        "relative": "x",
    }[form]
    site.answer(ok(b"", f"{name}: {value}"), ok(b"new", FRESH))
    site.get(method=method, to="/z")
    assert site.get(to="/x").body == b"new"
    assert site.get(to="/y").hit


@pytest.mark.parametrize("name", ["Location", "Content-Location"])
@pytest.mark.parametrize(
    "value",
    [
        "http://other.test{path}/x",
        "https://proxy.test{path}/x",
        "http://proxy.test:99{path}/x",
        "http://[x",
        "//",
        "\xff",
    ],
)
def test_what_belongs_to_another_origin_or_is_no_uri_is_not(site: Site, name: str, value: str) -> None:
    with site.stand.connect() as client:
        site.answer(ok(b"old", FRESH))
        client.ask(site.path + "/x", "Host: other.test")
        client.ask(site.path + "/x")
        site.answer(ok(b"", f"{name}: {value.format(path=site.path)}"), ok(b"new", FRESH))
        assert client.ask(site.path + "/z", method="POST").status == 200
        assert client.ask(site.path + "/x", "Host: other.test").hit
        assert client.ask(site.path + "/x").hit


def test_queries_count(site: Site) -> None:
    stored(site, to="?a=1")
    stored(site, to="?a=2")
    site.answer(ok(b"new", FRESH))
    site.get(method="POST", to="?a=1")
    assert site.get(to="?a=1").body == b"new"
    assert site.get(to="?a=2").hit


def test_no_answer_is_no_success(site: Site) -> None:
    stored(site)
    site.answer(lambda arrival: False)
    site.get(method="DELETE")
    site.answer(ok(b"new", FRESH))
    assert site.get().body in (b"old", b"new")  # it may have happened


def test_a_fetch_under_way_is_not_stored_as_if_it_were_newer(site: Site) -> None:
    """GET is sent, PUT answered, then GET: what it brings may be from before."""
    go = threading.Event()

    def slow(arrival: object) -> bytes:
        go.wait(10)
        return ok(b"before", FRESH)

    site.answer(slow, ok(b""), ok(b"after", FRESH))
    with site.stand.connect() as reader:
        reader.say(site.path)
        site.wait(1)
        assert site.get(method="PUT").status == 200
        go.set()
        assert reader.reply().body == b"before"
    assert site.get().body == b"after"


# POST that fills


def test_a_post_answer_with_its_own_content_location_answers_get_and_head(site: Site) -> None:
    site.answer(ok(b"state", FRESH, f"Content-Location: {site.path}"))
    assert site.get(method="POST", body=b"x").body == b"state"
    reply = site.get()
    assert (reply.body, reply.hit, site.count) == (b"state", True, 1)
    assert site.head().hit


def test_a_post_answer_does_not_answer_post(site: Site) -> None:
    site.answer(ok(b"1", FRESH, f"Content-Location: {site.path}"), ok(b"2", FRESH, f"Content-Location: {site.path}"))
    assert [site.get(method="POST").body, site.get(method="POST").body] == [b"1", b"2"]


@pytest.mark.parametrize(
    "lines",
    [
        [FRESH],
        ["Content-Location: {path}"],
        [FRESH, "Content-Location: {path}/other"],
        [FRESH, "Content-Location: http://other.test{path}"],
        ["Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT", "Content-Location: {path}"],
        ["Cache-Control: no-store, max-age=9", "Content-Location: {path}"],
    ],
    ids=["no location", "no lifetime", "another", "another host", "heuristics", "no-store"],
)
def test_other_post_answers_do_not_answer_get(site: Site, lines: list[str]) -> None:
    site.answer(ok(b"post", *(line.format(path=site.path) for line in lines)), ok(b"get", FRESH))
    site.get(method="POST", body=b"x")
    assert site.get().body == b"get"


def test_bodies_of_posts_are_not_held_up_by_the_cache(stand: Stand, site: Site) -> None:
    body = b"x" * 3_000_000
    site.answer(lambda arrival: ok(b"%d" % len(site.seen[-1].body)))
    assert site.get(method="POST", body=body).body == b"3000000"
