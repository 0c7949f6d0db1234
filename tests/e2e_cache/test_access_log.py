"""What the access log says of the cache: Traffic Server's result codes."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from tests.e2e_cache.support import FRESH, STALE, Stand, ok, serving
from tests.e2e_cache.support import validating as validates


def codes(folder: Path, count: int) -> list[str]:
    """Return the results in the order of the log, once there are so many; it is written behind the answers."""
    deadline = time.monotonic() + 10
    while len(lines := (folder / "access.log").read_text().splitlines()) < count:
        assert time.monotonic() < deadline, lines
        time.sleep(0.02)
    return lines


def logged(folder: Path) -> Stand:
    return serving(folder, access_log={"path": "access.log", "format": "%<crc>/%<pssc>"})


def test_each_way_of_an_answer_has_its_code(tmp_path: Path) -> None:
    with logged(tmp_path) as stand:
        fresh, changing, kept = stand.site(), stand.site(), stand.site()
        fresh.answer(ok(b"a", FRESH, 'ETag: "a"'))
        fresh.get()
        fresh.get()
        fresh.get('If-None-Match: "a"')
        fresh.get("Cache-Control: no-cache")
        kept.answer(validates('"k"', b"k", *STALE))
        kept.get()
        kept.get()
        changing.answer(ok(b"1", *STALE, 'ETag: "1"'), ok(b"2", *STALE, 'ETag: "2"'), ok(b"", status="503 x"))
        changing.get()
        changing.get()
        assert changing.get().body == b"2"
        assert codes(tmp_path, 9) == [
            *("TCP_MISS/200", "TCP_HIT/200", "TCP_IMS_HIT/304", "TCP_CLIENT_REFRESH/200"),
            *("TCP_MISS/200", "TCP_REFRESH_HIT/200"),
            *("TCP_MISS/200", "TCP_REFRESH_MISS/200", "TCP_REF_FAIL_HIT/200"),
        ]


def test_who_waited_for_the_request_of_another_is_told_apart(tmp_path: Path) -> None:
    with logged(tmp_path) as stand:
        site = stand.site()
        gate = threading.Event()

        def slow(arrival: object) -> bytes:
            assert gate.wait(10)
            return ok(b"one", FRESH)

        site.answer(slow)
        first, second = stand.connect(), stand.connect()
        first.say(site.path)
        site.wait(1)
        second.say(site.path)
        gate.set()
        assert first.reply().body == second.reply().body == b"one"
        found = codes(tmp_path, 2)
        assert sorted(found) in (["TCP_CF_HIT/200", "TCP_MISS/200"], ["TCP_HIT/200", "TCP_MISS/200"])
