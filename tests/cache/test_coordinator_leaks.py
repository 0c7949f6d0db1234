"""Nothing is left of a transaction once it has ended: no object that waits for the collector, and no memory."""

from __future__ import annotations

import gc
import threading
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from tests.cache.coordinating import Running, proxied
from tests.e2e_cache.support import FRESH, STALE, Arrival, Site, ok, validating
from tests.support.reactor import call

ROUNDS = 300
OURS = ("twisted_wasmproxy.cache", "twisted_wasmproxy.transaction")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with proxied(tmp_path_factory.mktemp("proxy")) as running:
        yield running


def close(arrival: Arrival) -> bool:
    return False


def _prepare_nothing(site: Site) -> None:
    site.answer(ok(b"x", FRESH))


def _prepare_hit(site: Site) -> None:
    site.answer(ok(b"x" * 1000, FRESH))
    site.get()


def _prepare_stale(site: Site) -> None:
    site.answer(validating('"v"', b"x" * 1000, *STALE, also="Cache-Control: max-age=0"))
    site.get()


def _prepare_failing(site: Site) -> None:
    site.answer(ok(b"x", FRESH), close)
    site.get()


def _prepare_stand_in(site: Site) -> None:
    site.answer(ok(b"x", *STALE), ok(b"no", status="503 x"))
    site.get()


def _prepare_private(site: Site) -> None:
    site.answer(ok(b"x", "Cache-Control: private"))


def _prepare_part(site: Site) -> None:
    site.answer(ok(b"0123456789", FRESH, 'ETag: "v"', "Content-Range: bytes 0-9/100", status="206 x"), close)
    site.get("Range: bytes=0-9")


def _prepare_refused_part(site: Site) -> None:
    """What is stored turns out to be of no use with each request: two are made to the origin for one answer."""

    def other(arrival: Arrival) -> bytes:
        if arrival.field(b"if-range") is not None:
            lines = ("Cache-Control: no-store", 'ETag: "w"', "Content-Range: bytes 10-99/100")
            return ok(b"x" * 90, *lines, status="206 x")
        return ok(b"y" * 100, "Cache-Control: no-store")

    site.answer(ok(b"0123456789", FRESH, 'ETag: "v"', "Content-Range: bytes 0-9/100", status="206 x"), other)
    site.get("Range: bytes=0-9")


KINDS: dict[str, tuple[Callable[[Site], None], str, str, tuple[str, ...], int]] = {
    "miss": (_prepare_nothing, "GET", "/{}", (), 200),
    "hit": (_prepare_hit, "GET", "", (), 200),
    "hit of a range": (_prepare_hit, "GET", "", ("Range: bytes=1-2",), 206),
    "validated": (_prepare_stale, "GET", "", (), 200),
    "head": (_prepare_stale, "HEAD", "", (), 200),
    "failed": (_prepare_failing, "GET", "/{}", (), 502),
    "stand-in": (_prepare_stand_in, "GET", "", (), 200),
    "private": (_prepare_private, "GET", "", (), 200),
    "no-cache": (_prepare_hit, "GET", "", ("Cache-Control: no-cache",), 200),
    "only-if-cached": (_prepare_nothing, "GET", "/{}", ("Cache-Control: only-if-cached",), 504),
    "post": (_prepare_hit, "POST", "", (), 200),
    "purge": (_prepare_hit, "PURGE", "/{}", (), 404),
    "incomplete": (_prepare_part, "GET", "", (), 502),
    "refused part": (_prepare_refused_part, "GET", "", (), 200),
}


def garbage(running: Running, work: Callable[[int], None]) -> Counter[str]:
    """Return what of the cache and of transactions only the collector could free after `ROUNDS` times of `work`.

    Connections are left out: those of Twisted that are aborted refer to themselves.
    """

    def collect() -> Counter[str]:
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        gc.set_debug(0)
        found = Counter(type(thing).__qualname__ for thing in gc.garbage if type(thing).__module__.startswith(OURS))
        gc.garbage.clear()
        # What a kind of exchange leaves, each of them leaves; a few may come from how connections happened to end.
        return Counter({name: count for name, count in found.items() if count > ROUNDS // 10})

    for number in range(20):
        work(number)
    running.quiet()
    call(gc.collect)
    gc.disable()
    try:
        for number in range(ROUNDS):
            work(20 + number)
        running.quiet()
        return call(collect)
    finally:
        gc.enable()


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_waits_for_the_collector(running: Running, kind: str) -> None:
    prepare, method, to, lines, status = KINDS[kind]
    site = running.site()
    prepare(site)
    with running.connect() as client:

        def ask(number: int) -> None:
            client.say(site.path + to.format(number), *lines, method=method)
            assert client.reply(method).status == status

        assert not garbage(running, ask)


@pytest.mark.parametrize("ends", ["whole", "fails", "private", "first goes"])
def test_nothing_of_a_crowd_waits_for_the_collector(running: Running, ends: str) -> None:
    site = running.site()
    clients = [running.connect() for _ in range(4)]
    go = threading.Event()

    def answer(arrival: Arrival) -> bytes | bool:
        go.wait(10)
        if ends == "fails":
            return False
        return ok(b"x" * 10_000, "Cache-Control: private" if ends == "private" else FRESH)

    site.answer(answer)

    def ask(number: int) -> None:
        go.clear()
        before = site.count
        if ends == "first goes":
            clients[0] = running.connect()
        for client in clients:
            client.say(f"{site.path}/{number}")
        site.wait(before + 1)
        if ends == "first goes":
            clients[0].reset()
        go.set()
        for client in clients[ends == "first goes" :]:
            assert client.reply().status == (502 if ends == "fails" else 200)

    assert not garbage(running, ask)
    for client in clients:
        client.sock.close()
