"""The memory of a real proxy does not grow by the length of what it is asked for."""

from __future__ import annotations

from pathlib import Path

from tests.e2e_cache.support import FRESH, Conversation, Stand, ok, serving

MIB = 1024 * 1024


def resident(stand: Stand) -> int:
    """Return the bytes of memory that the proxy has."""
    status = Path(f"/proc/{stand.proxy.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


def ask_all(client: Conversation, path: str, numbers: range, *lines: str) -> None:
    for i in numbers:
        assert client.ask(f"{path}/{i}/" + "x" * 15_000, *lines).status == 200


def test_long_urls_of_what_is_not_stored(tmp_path: Path) -> None:
    with serving(tmp_path, {"memory": "4MiB"}) as stand:
        site = stand.site()
        site.answer(ok(b"x", "Cache-Control: no-store"))
        with stand.connect() as client:
            ask_all(client, site.path, range(300))
            before = resident(stand)
            ask_all(client, site.path, range(300, 3300))
            grown = resident(stand) - before
    assert grown < 12 * MIB  # the URLs have 43 MiB


def test_long_urls_of_what_is_stored_and_used(tmp_path: Path) -> None:
    with serving(tmp_path, {"memory": "4MiB"}) as stand:
        site = stand.site()
        site.answer(ok(b"x", FRESH, "Vary: Foo"))
        with stand.connect() as client:
            for foo in ("Foo: a", "Foo: b"):
                ask_all(client, site.path, range(400), foo)
            before = resident(stand)
            for i in range(400, 2000, 20):
                for foo in ("Foo: a", "Foo: a", "Foo: b"):
                    ask_all(client, site.path, range(i, i + 20), foo)
            grown = resident(stand) - before
    assert grown < 12 * MIB
