"""Malformed fields, from origins and clients in bulk: the safe reading, and never an error of ours."""

from __future__ import annotations

import random

import pytest

from tests.e2e_cache.support import FRESH, Arrival, Conversation, Site, ok

ODD = [
    *(
        "",
        " ",
        ",",
        ",,,",
        ";",
        "=",
        '"',
        '""',
        '"unterminated',
        "\\",
        'a="b\\',
        "*",
        "**",
        "-1",
        "+1",
        "1.5",
        "1e9",
        "0x10",
    ),
    *(
        "9" * 400,
        "NaN",
        "inf",
        "\xff\xfe",
        "\xe9",
        "()",
        "(a b",
        "?1",
        ":YWJj:",
        "@123",
        "a;b=c;d",
        "x" * 4000,
        ", " * 500,
    ),
    *("bytes=", "bytes=0-", "bytes 0-1/2", "bytes */*", "W/", 'W/"', 'w/"a"', "Mon", "Mon, 99 Foo 9999 99:99:99 GMT"),
    *("Thu, 01 Jan 1970 00:00:00 GMT", "Fri, 31 Dec 9999 23:59:59 GMT", "Sun Nov  6 08:49:37 1994", "0"),
    *(
        "max-age",
        "max-age=",
        'max-age="',
        "max-age=;",
        "private=",
        'no-cache="',
        'no-cache=""',
        "no-cache=a",
        "s-maxage=,",
    ),
]

ORIGIN_FIELDS = [
    *("Cache-Control", "CDN-Cache-Control", "Expires", "Date", "Age", "Vary", "ETag", "Last-Modified", "Content-Range"),
    *(
        "Cache-Status",
        "Set-Cookie",
        "Location",
        "Content-Location",
        "Pragma",
        "Surrogate-Key",
        "Content-Type",
        "Warning",
    ),
]
CLIENT_FIELDS = [
    *("Cache-Control", "Pragma", "Range", "If-Range", "If-None-Match", "If-Modified-Since", "If-Match"),
    *("If-Unmodified-Since", "Accept-Encoding", "Accept-Language", "Accept", "Cookie", "Authorization", "Cache-Status"),
]


def sound(client: Conversation, *requests: tuple[str, ...]) -> None:
    for target, *lines in requests:
        reply = client.ask(target, *lines)
        assert reply.status in (200, 206, 304, 412, 416, 504), (reply.status, lines)
        assert reply.complete


@pytest.mark.parametrize("name", ORIGIN_FIELDS)
def test_odd_fields_of_the_origin(site: Site, name: str) -> None:
    def answer(arrival: Arrival) -> bytes:
        value = ODD[int(arrival.target.rpartition(b"/")[2])]
        if b"fresh" in arrival.target:
            return ok(b"body", FRESH, f"{name}: {value}")
        return ok(b"body", f"{name}: {value}")

    site.answer(answer)
    for number in range(len(ODD)):
        with site.stand.connect() as client:
            for kind in ("fresh", "bare"):
                url = f"{site.path}/{kind}/{number}"
                sound(client, (url,), (url,), (url, "Range: bytes=1-2"), (url, 'If-None-Match: "x"'))


@pytest.mark.parametrize("name", ORIGIN_FIELDS)
def test_odd_fields_of_a_206_and_a_304(site: Site, name: str) -> None:
    def answer(arrival: Arrival) -> bytes:
        odd = f"{name}: {ODD[int(arrival.target.rpartition(b'/')[2])]}"
        if arrival.field(b"if-none-match"):
            return ok(b"", odd, status="304 Not Modified", length=False)
        if arrival.field(b"range"):
            return ok(b"od", FRESH, "Content-Range: bytes 1-2/4", odd, status="206 Partial Content")
        return ok(b"body", "Cache-Control: max-age=10", "Age: 20", 'ETag: "v"')

    site.answer(answer)
    for number in range(len(ODD)):
        with site.stand.connect() as client:
            url = f"{site.path}/{number}"
            sound(client, (url, "Range: bytes=1-2"), (url,), (url,), (url, "Range: bytes=1-2"))


@pytest.mark.parametrize("name", CLIENT_FIELDS)
def test_odd_fields_of_the_client(site: Site, name: str) -> None:
    site.answer(ok(b"body", FRESH, 'ETag: "v"', "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT"))
    site.get()
    for value in ODD:
        with site.stand.connect() as client:
            odd = f"{name}: {value}"
            sound(client, (site.path, odd), (site.path, odd, odd), (site.path, odd, "Range: bytes=0-1"))
            reply = client.ask(site.path)
            assert (reply.status, reply.body) == (200, b"body")


def test_what_dice_make_of_the_fields(site: Site) -> None:
    """Pieces of valid syntax in any order."""
    dice = random.Random(9111)
    pieces = [
        *(
            "max-age",
            "s-maxage",
            "=",
            "=",
            ",",
            ",",
            " ",
            '"',
            "no-cache",
            "private",
            "no-store",
            "0",
            "60",
            "-",
            "/",
            "*",
        ),
        *(
            "bytes",
            "bytes=",
            "0-1",
            "5-",
            "-5",
            'W/"a"',
            '"a"',
            "GMT",
            "Sun, 06 Nov 1994 08:49:37 GMT",
            ";",
            "(",
            ")",
            "\\",
        ),
    ]

    def value() -> str:
        return "".join(dice.choice(pieces) for _ in range(dice.randrange(1, 9))).strip()

    def answer(arrival: Arrival) -> bytes:
        lines = [f"{name}: {value()}" for name in dice.sample(ORIGIN_FIELDS, 4)]
        return ok(b"0123456789", FRESH, *lines)

    site.answer(answer)
    with site.stand.connect() as client:
        for number in range(400):
            lines = [f"{name}: {value()}" for name in dice.sample(CLIENT_FIELDS, 3)]
            sound(client, (f"{site.path}/{number // 4}", *lines))


def test_odd_members_of_cache_status_do_not_hide_ours(site: Site) -> None:
    site.answer(ok(b"x", FRESH, 'Cache-Status: "unterminated, x;;'))
    site.get()
    assert any("wasmproxy" in value for value in site.get().all("cache-status"))


def test_odd_targets_have_entries_of_their_own(site: Site) -> None:
    site.answer(lambda arrival: ok(arrival.target, FRESH))
    targets = ["/%41", "/A", "/%2e%2e/x", "/a//b", "/a/b", "/?", "/", "/%", "/%00", "/;a=b", "/\xe9", "/%C3%A9"]
    with site.stand.connect() as client:
        for _ in range(2):
            for target in targets:
                reply = client.ask(site.path + target)
                if reply.status == 400:  # refused before the cache sees it; the connection is gone
                    client = site.stand.connect()
                    continue
                assert reply.body == (site.path + target).encode("latin-1")
