"""What comes over the wire on its way into the cache: broken off, without a length, interim, by HTTP/1.0."""

from __future__ import annotations

import pytest

from tests.e2e_cache.support import FRESH, STALE, Arrival, Site, date, ok

BODY = b"0123456789" * 10
CHUNKED = "Transfer-Encoding: chunked"


def cut(response: bytes, missing: int = 1):
    """Return an answer that is broken off."""

    def send(arrival: Arrival) -> bool:
        arrival.send(response[:-missing])
        return False

    return send


def reset(response: bytes):
    """Return an answer after which the connection is reset."""

    def send(arrival: Arrival) -> None:
        arrival.send(response)
        arrival.reset()

    return send


def closing(*lines: str, version: str = "1.1", body: bytes = BODY) -> bytes:
    """Return a response that only the close of the connection ends."""
    return f"HTTP/{version} 200 OK\r\n".encode() + b"".join(f"{x}\r\n".encode() for x in lines) + b"\r\n" + body


def chunked(*lines: str, chunks: tuple[bytes, ...] = (BODY, BODY), end: bytes = b"0\r\n\r\n") -> bytes:
    head = ok(b"", *lines, CHUNKED, length=False)
    return head + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + end


BROKEN = {
    "a byte less than Content-Length": cut(ok(BODY, FRESH)),
    "half": cut(ok(BODY, FRESH), 50),
    "no content at all": cut(ok(BODY, FRESH), len(BODY)),
    "no last chunk": cut(chunked(FRESH), 5),
    "no end of the last chunk": cut(chunked(FRESH), 2),
    "in a chunk": cut(chunked(FRESH), 20),
    "a bad chunk size": cut(chunked(FRESH, end=b"xyz\r\n\r\n"), 1),
    "a reset in place of the close": reset(closing(FRESH)),
    "a reset within Content-Length": reset(ok(BODY, FRESH)[:-1]),
    "a byte less, with a validator": cut(ok(BODY, FRESH, 'ETag: W/"v"')),
}


@pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN)
def test_what_is_broken_off_is_never_stored_and_the_client_can_tell(site: Site, answer: object) -> None:
    site.answer(answer, ok(b"whole", FRESH))  # type: ignore[arg-type]
    reply = site.get()
    assert not reply.complete or reply.status in (502, 504)
    assert site.get().body == b"whole"
    assert site.count == 2


def test_what_is_broken_off_may_be_kept_as_a_part_only(site: Site) -> None:
    """With a strong validator and a length, what came may answer ranges; it must never be taken for the whole."""
    site.answer(cut(ok(BODY, FRESH, 'ETag: "v"'), 50), ok(b"whole", FRESH, 'ETag: "w"'))
    assert not site.get().complete
    assert site.get().body == b"whole"


def test_a_length_that_is_exceeded_does_not_spoil_the_entry(site: Site) -> None:
    site.answer(lambda arrival: arrival.send(ok(BODY, FRESH) + b"more") or False)
    assert site.get().body in (BODY, b"")
    assert site.get().body == BODY


def test_a_response_that_an_orderly_close_ends_is_complete(site: Site) -> None:
    """RFC 9112 section 8: unless the connection says that there was an error."""
    site.answer(cut(closing(FRESH) + b"x"))
    assert [site.get().body, site.get().body, site.count] == [BODY, BODY, 1]


def test_http_1_0_origins(site: Site) -> None:
    site.answer(lambda arrival: arrival.send(b"HTTP/1.0 200 OK\r\n" + ok(BODY, FRESH).partition(b"\r\n")[2]) or False)
    assert [site.get().body, site.get().body] == [BODY, BODY]
    assert site.count == 1


def test_http_1_0_origins_with_expires_only(site: Site) -> None:
    head = f"HTTP/1.0 200 OK\r\nExpires: {date(3600)}\r\nContent-Length: 2\r\n\r\nhi"
    site.answer(lambda arrival: arrival.send(head.encode()) or False)
    assert [site.get().body, site.get().body, site.count] == [b"hi", b"hi", 1]


def test_http_1_0_clients(site: Site) -> None:
    site.answer(chunked(FRESH))
    first = site.get("Host: proxy.test", version="1.0")
    second = site.get("Host: proxy.test", version="1.0")
    third = site.get()
    assert [first.body, second.body, third.body] == [BODY * 2] * 3
    assert "transfer-encoding" not in {name.lower() for name, _ in first.lines + second.lines}
    assert site.count == 1


def test_http_1_0_clients_get_ranges_and_304_from_the_cache(site: Site) -> None:
    site.answer(ok(BODY, FRESH, 'ETag: "v"'))
    site.get()
    assert site.get("Host: proxy.test", 'If-None-Match: "v"', version="1.0").status == 304
    reply = site.get("Host: proxy.test", "Range: bytes=0-4", version="1.0")
    assert (reply.status, reply.body) in ((206, BODY[:5]), (200, BODY))
    assert site.count == 1


def interim(*heads: bytes, final: bytes = b"") -> bytes:
    return b"".join(heads) + (final or ok(b"final", FRESH))


HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nX-My-Header: test\r\n\r\n"
PROCESSING = b"HTTP/1.1 102 Processing\r\n\r\n"


@pytest.mark.parametrize("heads", [[HINTS], [PROCESSING], [HINTS, PROCESSING, HINTS]], ids=["103", "102", "several"])
def test_interim_responses_are_passed_on_and_not_stored(site: Site, heads: list[bytes]) -> None:
    site.answer(interim(*heads))
    first, second = site.get(), site.get()
    assert [status for status, _ in first.interim] == [int(head.split()[1]) for head in heads]
    if heads[0] is HINTS:
        assert dict(first.interim[0][1])["Link"] == "</a.css>; rel=preload"
    assert (first.body, second.body) == (b"final", b"final")
    assert second.hit
    assert second.interim == []
    for reply in (first, second):
        assert reply.field("link") is None
        assert reply.field("x-my-header") is None


def test_interim_responses_to_a_validation_do_not_freshen(site: Site) -> None:
    fresh = ok(b"", FRESH, 'ETag: "v"', status="304 Not Modified", length=False)
    hints = b"HTTP/1.1 103 Early Hints\r\nCache-Control: no-store\r\nX-A: 1\r\n\r\n"
    site.answer(ok(b"body", *STALE, 'ETag: "v"'), interim(hints, final=fresh))
    site.get()
    assert site.get().body == b"body"
    reply = site.get()
    assert reply.hit
    assert reply.field("x-a") is None


def test_upgrades_are_not_stored(site: Site) -> None:
    site.answer(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", ok(b"plain", FRESH))
    with site.stand.connect() as client:
        client.say(site.path, "Upgrade: x", "Connection: upgrade")
        assert client.read_head()[0] in (101, 502)
    assert site.get().body == b"plain"


def test_expect_continue_and_a_hit(site: Site) -> None:
    site.answer(ok(b"x", FRESH))
    site.get()
    with site.stand.connect() as client:
        assert client.ask(site.path, "Expect: 100-continue").body == b"x"
        assert client.ask(site.path).body == b"x"


def test_a_request_body_of_a_hit_does_not_become_the_next_request(site: Site) -> None:
    site.answer(ok(b"x", FRESH))
    site.get()
    with site.stand.connect() as client:
        client.say(site.path, body=b"GET /evil HTTP/1.1\r\nHost: x\r\n\r\n")
        client.say(site.path)
        assert [client.reply().status, client.reply().status] == [200, 200]
    assert all(asked.target == site.path for asked in site.seen)


def test_content_encoding_is_not_touched(site: Site) -> None:
    body = b"\x1f\x8b" + bytes(range(256))
    site.answer(ok(body, FRESH, "Content-Encoding: gzip", "Vary: accept-encoding"))
    for _ in range(2):
        reply = site.get("Accept-Encoding: gzip")
        assert (reply.body, reply.field("content-encoding")) == (body, "gzip")


def test_the_reason_and_the_status_are_stored(site: Site) -> None:
    site.answer(ok(b"x", FRESH, status="299 Peculiar"))
    for _ in range(2):
        with site.stand.connect() as client:
            client.say(site.path)
            assert client.read_until(b"\r\n") == b"HTTP/1.1 299 Peculiar\r\n"
