"""Settings of the `cache` section that concern all: Cache-Status, targeted fields, surrogate keys, the store."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e_cache.support import FRESH, Site, Stand, ok, serving
from tests.support.proxy import StartFailed

CC = "Cache-Control: "


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    cache = {
        "memory": {"size": "1MiB", "max_object": "100KiB"},
        "status": {"name": "edge-1", "key": False},
        "targeted": ["ACME-Cache-Control", "CDN-Cache-Control"],
        "surrogate_key_header": "xkey",
    }
    with serving(tmp_path_factory.mktemp("settings"), cache) as running:
        yield running


@pytest.fixture
def site(stand: Stand) -> Site:
    return stand.site()


def test_the_member_of_cache_status_has_the_configured_name_and_no_key(site: Site) -> None:
    site.answer(ok(b"x", FRESH))
    for start in ("edge-1;fwd=", "edge-1;hit;ttl="):
        value = site.get().field("cache-status") or ""
        assert value.startswith(start)
        assert "key" not in value


def test_cache_status_can_be_left_out(tmp_path: Path) -> None:
    with serving(tmp_path, {"memory": "1MiB", "status": False}) as stand:
        site = stand.site()
        site.answer(ok(b"x", FRESH, "Cache-Status: Origin; hit"))
        assert [site.get().all("cache-status") for _ in range(2)] == [["Origin; hit"]] * 2
        assert site.count == 1


TARGETED = {
    "the first of the list counts": (["ACME-Cache-Control: no-store", "CDN-Cache-Control: max-age=60"], False),
    "whatever their order": (["CDN-Cache-Control: no-store", "ACME-Cache-Control: max-age=60", CC + "private"], True),
    "the second where there is no first": (["CDN-Cache-Control: max-age=60", CC + "no-store"], True),
    "the second where the first is empty": (["ACME-Cache-Control:", "CDN-Cache-Control: max-age=60"], True),
    "the second where the first cannot be read": (["ACME-Cache-Control: =", "CDN-Cache-Control: max-age=60"], True),
    "Cache-Control where there is none": ([CC + "max-age=60"], True),
}


@pytest.mark.parametrize(("lines", "reused"), TARGETED.values(), ids=TARGETED)
def test_targeted_fields_count_in_the_configured_order(site: Site, lines: list[str], reused: bool) -> None:
    site.answer(ok(b"one", *lines), ok(b"two", *lines))
    site.get()
    assert (site.get().body == b"one") is reused


def test_the_field_of_surrogate_keys_is_taken_out(site: Site) -> None:
    site.answer(ok(b"x", FRESH, "xkey: a b", "Surrogate-Key: stays"))
    for _ in range(2):
        reply = site.get()
        assert (reply.field("xkey"), reply.field("surrogate-key")) == (None, "stays")


def test_an_object_over_the_limit_is_passed_on_and_not_stored(site: Site) -> None:
    site.answer(ok(b"x" * 200_000, FRESH))
    assert [len(site.get().body) for _ in range(2)] == [200_000] * 2
    assert site.count == 2
    chunk = b"%x\r\n%b\r\n" % (150_000, b"y" * 150_000)
    site.answer(ok(b"", FRESH, "Transfer-Encoding: chunked", length=False) + chunk + b"0\r\n\r\n")
    assert [len(site.get(to="/chunked").body) for _ in range(2)] == [150_000] * 2


def test_memory_is_bounded_and_what_is_asked_for_stays(site: Site) -> None:
    site.answer(lambda arrival: ok(arrival.target * 100, FRESH))
    with site.stand.connect() as client:
        for number in range(2000):
            client.ask(f"{site.path}/{number}")
            if number % 20 == 0:
                client.ask(f"{site.path}/hot")
    assert site.count <= 2005


PLUGIN = """
from twisted.plugin import IPlugin
from zope.interface import implementer
from twisted_wasmproxy.cache.stores.memory import MemoryStore
from twisted_wasmproxy.interfaces import ICacheStoreFactory


@implementer(IPlugin, ICacheStoreFactory)
class Factory:
    name = "mine"

    def make(self, configuration, reactor):
        if not isinstance(configuration, dict):
            raise ValueError("say how large it may be")
        return MemoryStore(configuration["bytes"], configuration["bytes"] // 2)


mine = Factory()
"""


def with_plugin(folder: Path, store: dict[str, Any]) -> Any:
    plugins = folder / "plugins" / "twisted" / "plugins"
    plugins.mkdir(parents=True)
    (plugins / "store_of_a_test.py").write_text(PLUGIN)
    environment = {**os.environ, "PYTHONPATH": str(folder / "plugins")}
    return serving(folder, {"store": store}, environment=environment)


def test_a_store_by_a_plugin(tmp_path: Path) -> None:
    with with_plugin(tmp_path, {"name": "mine", "configuration": {"bytes": 1_000_000}}) as stand:
        site = stand.site()
        site.answer(ok(b"x", FRESH))
        site.get()
        assert site.get().hit


@pytest.mark.parametrize(
    ("store", "text"),
    [({"name": "mine"}, "say how large it may be"), ({"name": "nobody"}, "(?s)nobody.*mine")],
    ids=["refuses", "not there"],
)
def test_a_store_by_a_plugin_that_cannot_be_had(tmp_path: Path, store: dict[str, Any], text: str) -> None:
    with pytest.raises(StartFailed, match=text), with_plugin(tmp_path, store):
        pass
