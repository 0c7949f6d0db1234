"""Purging: the method PURGE and who may use it, `wasmproxy purge` and `wasmproxy cache` on a running proxy."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.support import eventually
from tests.e2e_cache.support import FRESH, Site, Stand, ok, serving
from tests.support.proxy import free_port


@pytest.fixture(scope="module", params=["memory", "disk"])
def config(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    stores: dict[str, Any] = {
        "memory": {"memory": "16MiB"},
        "disk": {"memory": 0, "disk": {"path": "store", "size": "16MiB"}},
    }
    return {"cache": stores[request.param], "admin": {"endpoint": f"tcp:{free_port()}:interface=127.0.0.1"}}


def wasmproxy(stand: Stand, *arguments: str, status: int = 0) -> str:
    """Run the command with the proxy's configuration; return what it prints."""
    program = Path(sys.executable).with_name("wasmproxy")
    command = [program, *arguments, "--config", stand.proxy.config]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == status, done.stderr
    return done.stdout


def url(site: Site, to: str = "") -> str:
    return f"http://proxy.test{site.path}{to}"


def fill(site: Site, *tos: str, lines: tuple[str, ...] = ()) -> None:
    site.answer(ok(b"old", FRESH, *lines))
    for to in tos or ("",):
        site.get(to=to)
        eventually(lambda to=to: site.get(to=to).hit)  # it may be written yet
    site.answer(ok(b"new", FRESH, *lines))


# The method


def test_purge_removes_all_variants_of_a_url_and_does_not_reach_the_origin(site: Site) -> None:
    site.answer(ok(b"old", FRESH, "Vary: a"))
    site.get("A: 1")
    site.get("A: 2")
    site.answer(ok(b"new", FRESH, "Vary: a"))
    assert site.get(method="PURGE").status == 200
    assert [asked.method for asked in site.seen] == ["GET", "GET"]
    assert [site.get(f"A: {value}").body for value in "12"] == [b"new", b"new"]


def test_purge_of_what_is_not_there(site: Site) -> None:
    assert site.get(method="PURGE").status == 404
    assert site.count == 0


def test_purge_leaves_other_urls_alone(site: Site) -> None:
    fill(site, "/a", "/b", "/a?q")
    site.get(method="PURGE", to="/a")
    assert [site.get(to=to).body for to in ("/a", "/b", "/a?q")] == [b"new", b"old", b"old"]


def test_purge_is_denied_to_whom_the_configuration_does_not_name(tmp_path: Path) -> None:
    with serving(tmp_path, {"memory": "1MiB", "purge": ["192.0.2.0/24"]}) as stand:
        site = stand.site()
        fill(site)
        assert site.get(method="PURGE").status == 403
        assert site.get().hit
        assert site.count == 1


# The command


def test_purge_by_url(stand: Stand, site: Site) -> None:
    fill(site, "/a", "/b")
    assert "1" in wasmproxy(stand, "purge", url(site, "/a"))
    assert [site.get(to=to).body for to in ("/a", "/b")] == [b"new", b"old"]


def test_purge_by_prefix(stand: Stand, site: Site) -> None:
    fill(site, "/a/1", "/a/2", "/b")
    found = json.loads(wasmproxy(stand, "purge", "--prefix", url(site, "/a/"), "--json"))
    assert found["purged"] == 2
    assert [site.get(to=to).body for to in ("/a/1", "/a/2", "/b")] == [b"new", b"new", b"old"]


def test_purge_by_host(stand: Stand, site: Site) -> None:
    site.answer(ok(b"old", FRESH))
    for host in ("one.test", "two.test", "sub.one.test"):
        site.get(f"Host: {host}")
    site.answer(ok(b"new", FRESH))
    wasmproxy(stand, "purge", "--host", "ONE.test")
    bodies = [site.get(f"Host: {host}").body for host in ("one.test", "two.test", "sub.one.test")]
    assert bodies == [b"new", b"old", b"old"]


def test_purge_by_surrogate_key(stand: Stand, site: Site) -> None:
    fill(site, "/a", lines=("Surrogate-Key: red green",))
    other = stand.site()
    fill(other, lines=("Surrogate-Key: redder",))
    wasmproxy(stand, "purge", "--key", "red")
    assert [site.get(to="/a").body, other.get().body] == [b"new", b"old"]


def test_a_soft_purge_makes_stale_and_validates(stand: Stand, site: Site) -> None:
    site.answer(ok(b"body", FRESH, 'ETag: "v"'), ok(b"", FRESH, 'ETag: "v"', status="304 Not Modified", length=False))
    site.get()
    wasmproxy(stand, "purge", "--soft", url(site))
    assert site.get().body == b"body"
    assert site.seen[1].field("if-none-match") == '"v"'
    eventually(lambda: site.get().hit)
    assert site.count == 2


def test_purge_of_everything(stand: Stand, site: Site) -> None:
    fill(site, "/a", "/b")
    wasmproxy(stand, "purge", "--all")
    assert [site.get(to=to).body for to in ("/a", "/b")] == [b"new", b"new"]


def test_stats_and_listing_and_show(stand: Stand, site: Site) -> None:
    fill(site, "/a", lines=("X-Shown: yes", "Surrogate-Key: blue"))
    assert json.loads(wasmproxy(stand, "cache", "stats", "--json"))
    listing = json.loads(wasmproxy(stand, "cache", "ls", "--prefix", url(site), "--json"))
    assert [entry["url"] for entry in listing["entries"]] == [url(site, "/a")]
    shown = wasmproxy(stand, "cache", "show", url(site, "/a"))
    for text in ("200", "X-Shown: yes", "blue", "fresh"):
        assert text in shown
    wasmproxy(stand, "cache", "show", url(site, "/none"), status=1)


def test_a_fetch_under_way_is_not_stored_after_a_purge(stand: Stand, site: Site) -> None:
    go = threading.Event()

    def slow(arrival: object) -> bytes:
        go.wait(10)
        return ok(b"before", FRESH)

    site.answer(slow, ok(b"after", FRESH))
    with stand.connect() as client:
        client.say(site.path)
        site.wait(1)
        wasmproxy(stand, "purge", url(site))
        go.set()
        assert client.reply().body == b"before"
    assert site.get().body == b"after"
