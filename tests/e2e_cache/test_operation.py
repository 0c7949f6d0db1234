"""The cache through reloads, in a forward proxy, over TLS upstreams, and with several rules for one upstream."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.support import pem_files, scripted_origin
from tests.e2e.test_operation import reload
from tests.e2e_cache.support import FRESH, Stand, ok, open_to, serving
from tests.support.proxy import fetch, free_port


def changed(stand: Stand, **sections: Any) -> dict[str, Any]:
    config = yaml.safe_load(stand.proxy.config.read_text())
    del config["listeners"]
    return {**config, **sections}


@pytest.mark.parametrize("store", [{"memory": "8MiB"}, {"memory": 0, "disk": {"path": "store", "size": "16MiB"}}])
def test_a_reload_keeps_what_is_stored(tmp_path: Path, store: dict[str, Any]) -> None:
    with serving(tmp_path, store) as stand:
        site = stand.site()
        site.answer(ok(b"one", FRESH), ok(b"two", FRESH))
        site.get()
        reload(stand.proxy)
        assert site.get().body == b"one"
        reload(stand.proxy, changed(stand, headers={"via": None}))
        assert site.get().hit


def test_a_reload_that_changes_sizes_keeps_the_folder_open_and_says_so(tmp_path: Path) -> None:
    with serving(tmp_path, {"memory": "8MiB", "disk": {"path": "store", "size": "16MiB"}}) as stand:
        site = stand.site()
        site.answer(ok(b"one", FRESH))
        site.get()
        larger = {"memory": "16MiB", "disk": {"path": "store", "size": "32MiB"}, "max_ttl": 50}
        reload(stand.proxy, changed(stand, cache=larger))
        reply = site.get()
        assert (reply.body, reply.hit, site.count) == (b"one", True, 1)
        assert reply.cache["ttl"] <= 50
        assert "stay as they are until the next start" in stand.proxy.log


def test_a_reload_changes_the_rules_for_what_is_stored(tmp_path: Path) -> None:
    with serving(tmp_path) as stand:
        site = stand.site()
        site.answer(ok(b"one", FRESH, "Age: 100"), ok(b"two", FRESH))
        site.get()
        reload(stand.proxy, changed(stand, cache={"memory": "16MiB", "max_ttl": 50}))
        assert site.get().body == b"two"


def test_a_reload_may_turn_the_cache_off_and_on(tmp_path: Path) -> None:
    with serving(tmp_path) as stand:
        site = stand.site()
        site.answer(ok(b"x", FRESH))
        site.get()
        without = changed(stand)
        section = without.pop("cache")
        reload(stand.proxy, without)
        assert site.get().cache == {}
        site.get()
        assert site.count == 3
        reload(stand.proxy, {**without, "cache": section})
        site.get()
        assert site.get().hit


def test_a_reload_in_the_middle_of_a_fetch_spoils_nothing(tmp_path: Path) -> None:
    go = threading.Event()

    def slow(arrival: Any) -> None:
        response = ok(b"x" * 100_000, FRESH)
        arrival.send(response[:50_000])
        go.wait(10)
        arrival.send(response[50_000:])

    with serving(tmp_path) as stand:
        site = stand.site()
        site.answer(slow)
        with stand.connect() as client:
            client.say(site.path)
            client.read_head()
            reload(stand.proxy)
            go.set()
            assert client.read(100_000) == b"x" * 100_000
        assert site.get().body == b"x" * 100_000


def test_without_a_cache_section_nothing_is_cached(tmp_path: Path) -> None:
    with serving(tmp_path) as stand:
        config = changed(stand)
        del config["cache"]
        reload(stand.proxy, config)
        site = stand.site()
        site.answer(ok(b"one", FRESH), ok(b"two", FRESH))
        assert [site.get().body, site.get().body] == [b"one", b"two"]
        assert site.get().all("cache-status") == []
        assert site.get("Cache-Control: only-if-cached").status == 200


# Forward


def forward(port: int) -> dict[str, Any]:
    return {
        "listeners": [
            {
                "endpoint": f"tcp:{port}:interface=127.0.0.1",
                "mode": "forward",
                "access": {"allow_destinations": ["127.0.0.1"]},
            }
        ],
        "port": port,
        "remap": [],
    }


def test_a_forward_proxy_caches_by_the_url(tmp_path: Path) -> None:
    with serving(tmp_path, **forward(free_port())) as stand:
        site = stand.site()
        site.answer(ok(b"one", FRESH), ok(b"two", FRESH))
        origin = f"127.0.0.1:{stand.origin.port}"
        with stand.connect() as client:
            for number in range(2):
                reply = client.ask(f"http://{origin}{site.path}", f"Host: {origin}")
                assert (reply.body, reply.hit) == (b"one", number > 0)
            assert client.ask(f"HTTP://{origin}{site.path}", f"Host: {origin}").hit
            assert client.ask(f"http://{origin}{site.path}?q", f"Host: {origin}").body == b"two"
        assert site.count == 2


def test_host_does_not_name_another_s_entries_in_a_forward_proxy(tmp_path: Path) -> None:
    """The URL says whom to ask; a Host that says something else must not lead to, or fill, the entries of that."""
    with scripted_origin() as other, serving(tmp_path, **forward(free_port())) as stand:
        other.script = lambda arrival: arrival.send(ok(b"evil", FRESH))
        site = stand.site()
        site.answer(ok(b"good", FRESH))
        good, evil = f"127.0.0.1:{stand.origin.port}", f"127.0.0.1:{other.port}"
        with stand.connect() as client:
            assert client.ask(f"http://{evil}{site.path}", f"Host: {good}").body in (b"evil", b"")
        with stand.connect() as client:
            assert client.ask(f"http://{good}{site.path}", f"Host: {good}").body == b"good"
            assert client.ask(f"http://{evil}{site.path}", f"Host: {evil}").body == b"evil"


def test_tunnels_are_not_cached(tmp_path: Path) -> None:
    port = free_port()
    options = forward(port)
    with serving(tmp_path, **options) as stand:
        config = yaml.safe_load(stand.proxy.config.read_text())
        config["listeners"][0]["access"]["connect_ports"] = [stand.origin.port]
        stand.proxy.config.write_text(yaml.safe_dump(config))
        reload(stand.proxy)
        site = stand.site()
        site.answer(ok(b"one", FRESH), ok(b"two", FRESH))
        for body in (b"one", b"two"):
            with open_to(port) as client:
                authority = f"127.0.0.1:{stand.origin.port}"
                client.say(authority, f"Host: {authority}", method="CONNECT")
                assert client.read_head()[0] == 200
                assert client.ask(site.path).body == body


# TLS


def test_what_a_tls_origin_says_is_cached_and_an_incomplete_close_is_not(tmp_path: Path) -> None:
    """RFC 9112 section 9.8: without close_notify a body that the close ends is not complete."""
    _, _, root, context = pem_files(tmp_path, "localhost", "127.0.0.1")
    with scripted_origin(context=context) as secure, serving(tmp_path) as stand:
        answers = [ok(b"whole", FRESH)]

        def script(arrival: Any) -> bool | None:
            if arrival.target == b"/whole":
                arrival.send(answers[0])
                return None
            arrival.send(b"HTTP/1.1 200 OK\r\n" + FRESH.encode() + b"\r\n\r\npart")
            return False  # the socket is closed without close_notify

        secure.script = script
        server = f"https://127.0.0.1:{secure.port}"
        upstream = {"servers": [server], "tls": {"ca_file": str(root)}, "retries": 0}
        config = changed(stand, upstreams={"origin": upstream})
        reload(stand.proxy, config)
        with stand.connect() as client:
            assert [client.ask("/whole").hit, client.ask("/whole").hit] == [False, True]
        seen = len(secure.seen)
        for _ in range(2):
            with stand.connect() as client:
                client.ask("/part")
        assert len(secure.seen) == seen + 2


@pytest.mark.parametrize("store", [{"memory": "8MiB"}, {"memory": 0, "disk": {"path": "store", "size": "16MiB"}}])
def test_a_stop_does_not_wait_for_what_nobody_waits_for(tmp_path: Path, store: dict[str, Any]) -> None:
    def endless(arrival: Any) -> None:
        arrival.send(ok(b"x" * 100_000, FRESH)[:50_000])
        arrival.read_head()  # until the proxy goes away

    with serving(tmp_path, store, timeouts={"drain": "20s"}) as stand:
        site = stand.site()
        site.answer(endless)
        client = stand.connect()
        client.say(site.path)
        client.read_head()
        client.reset()
        begun = time.monotonic()
        assert stand.proxy.stop() in (0, -signal.SIGTERM)
        assert time.monotonic() - begun < 10


def test_a_stop_lets_those_finish_who_share_a_fetch(tmp_path: Path) -> None:
    go = threading.Event()

    def slow(arrival: Any) -> None:
        response = ok(b"x" * 100_000, FRESH)
        arrival.send(response[:50_000])
        go.wait(10)
        arrival.send(response[50_000:])

    with serving(tmp_path) as stand:
        site = stand.site()
        site.answer(slow)
        clients = [stand.connect() for _ in range(3)]
        for client in clients:
            client.say(site.path)
        for client in clients:
            client.read_head()
        stand.proxy.process.terminate()
        go.set()
        for client in clients:
            assert client.read(100_000) == b"x" * 100_000
        assert stand.proxy.process.wait(15) in (0, -signal.SIGTERM)
        assert site.count == 1


def test_the_control_api_tells_freshness_by_the_rule_after_a_restart_too(tmp_path: Path) -> None:
    admin = free_port()
    sections = {
        "admin": {"endpoint": f"tcp:{admin}:interface=127.0.0.1"},
        "remap": [{"upstream": "origin", "cache": {"default_ttl": "60s"}}],
    }
    with serving(tmp_path, {"memory": "8MiB", "disk": {"path": "store", "size": "16MiB"}}, **sections) as stand:
        site = stand.site()
        site.answer(ok(b"x", 'ETag: "1"'))
        site.get()
        stand.restart()
        stand.site().get()  # is answered when the store is open
        listed = fetch(admin, "/cache/entries").json()["entries"]
        (entry,) = [entry for entry in listed if entry["url"].endswith(site.path)]
        assert entry["state"] == "fresh"
        assert 50 < entry["ttl"] <= 60
