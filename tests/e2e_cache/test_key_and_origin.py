"""What is in the cache key is what the origin is told: scheme, host, port and path."""

from __future__ import annotations

import itertools
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.support import Arrival, pem_files, plugin_environment
from tests.e2e_cache.support import Conversation, Stand, ok, open_to, serving
from tests.support.proxy import free_port

FRESH = "Cache-Control: max-age=1000"


def tell(arrival: Arrival) -> bytes:
    """Answer, for a cache to keep, what was asked for, as an origin sees it."""
    fields = dict(arrival.lines)
    parts = [
        fields.get(b"x-forwarded-proto", b"-"),
        fields[b"host"],
        fields.get(b"x-forwarded-host", b"-"),
        arrival.target,
    ]
    return ok(b" ".join(parts), FRESH)


def secure(port: int) -> Conversation:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return Conversation(context.wrap_socket(socket.create_connection(("127.0.0.1", port), 10)))


def told(client: Conversation, target: str, *lines: str) -> tuple[str, str]:
    """Return what the origin was told (for this request or the one that was stored), and the URL in the cache key."""
    reply = client.ask(target, *lines)
    assert reply.status == 200, reply.body
    return reply.body.decode(), str(reply.cache["key"]).partition(" ")[0]


def consistent(client: Conversation, path: str, target: str, *lines: str) -> str:
    """Ask; check that key and origin have the same URL; return it."""
    said, key = told(client, target, *lines)
    scheme, host, forwarded_host, origin_target = said.split(" ")
    assert host == forwarded_host
    assert key == f"{scheme}://{host}{origin_target}"
    assert origin_target == path
    return key


def test_a_target_cannot_choose_the_scheme_of_a_listener(tmp_path: Path) -> None:
    """A redirect to https that answers http must not reach those who ask by https already."""
    key, chain, _, _ = pem_files(tmp_path, "v.example")
    plain, tls = free_port(), free_port()
    listeners = [
        {"endpoint": f"tcp:{plain}:interface=127.0.0.1"},
        {"endpoint": f"ssl:{tls}:interface=127.0.0.1:privateKey={key.name}:certKey={chain.name}"},
    ]
    with serving(tmp_path, listeners=listeners, port=plain) as stand:
        site = stand.site()
        site.answer(tell)
        with open_to(plain) as http, secure(tls) as https:
            for scheme in ("https", "HTTPS", "http"):
                url = consistent(http, site.path, f"{scheme}://v.example{site.path}", "Host: v.example")
                assert url == f"http://v.example{site.path}"
            assert site.count == 1
            for target in (site.path, f"http://v.example{site.path}", f"https://v.example:443{site.path}"):
                url = consistent(https, site.path, target, "Host: v.example")
                assert url == f"https://v.example{site.path}"
            assert site.count == 2


def test_the_scheme_may_be_a_trusted_proxy_s_word(tmp_path: Path) -> None:
    trusting, strict = free_port(), free_port()
    listeners = [
        {"endpoint": f"tcp:{trusting}:interface=127.0.0.1", "trusted_proxies": ["10.0.0.0/8", "127.0.0.1"]},
        {"endpoint": f"tcp:{strict}:interface=127.0.0.1", "trusted_proxies": ["10.0.0.0/8", "unix:"]},
        {"endpoint": "unix:proxy.sock", "trusted_proxies": ["unix:"]},
    ]
    with serving(tmp_path, listeners=listeners, port=trusting) as stand:
        site = stand.site()
        site.answer(tell)
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(tmp_path / "proxy.sock"))
        with open_to(trusting) as trusted, open_to(strict) as stranger, Conversation(sock) as unix:
            for client, said, scheme in (
                (trusted, "https", "https"),
                (trusted, "HTTPS", "https"),
                (trusted, "http, https", "https"),
                (trusted, "https,http", "http"),
                (trusted, "gopher", "http"),
                (trusted, "", "http"),
                (stranger, "https", "http"),
                (unix, "https", "https"),
            ):
                for target in (site.path, f"https://v.example{site.path}"):
                    url = consistent(client, site.path, target, "Host: v.example", f"X-Forwarded-Proto: {said}")
                    assert url == f"{scheme}://v.example{site.path}", said
            assert consistent(trusted, site.path, site.path, "Host: v.example").startswith("http:")
            # Which port goes without saying depends on that word.
            lines = ("Host: v.example:443", "X-Forwarded-Proto: https")
            assert consistent(trusted, site.path, site.path, *lines) == f"https://v.example{site.path}"
            lines = ("Host: v.example:80", "X-Forwarded-Proto: https")
            assert consistent(trusted, site.path, site.path, *lines) == f"https://v.example:80{site.path}"


SAME = ["v.example", "V.EXAMPLE", "v.example:80", "v.example:", "v.example:080", "V.example:00080"]
DIFFERENT = [
    *("v.example.", "v.example:443", "v.example:8080", "www.v.example", "v%2eexample", "xn--v-1ga.example"),
    *("[::1]", "[::1]:81", "[::2]", "127.0.0.1", "v_example"),
]


def test_spellings_of_a_host_share_a_key_and_the_origin_sees_one_of_them(tmp_path: Path) -> None:
    with serving(tmp_path) as stand:
        site = stand.site()
        site.answer(tell)
        with stand.connect() as client:
            for host in SAME:
                for target, line in (
                    (site.path, f"Host: {host}"),
                    (f"http://{host}{site.path}", "Host: other.example:81"),
                ):
                    url = consistent(client, site.path, target, line)
                    assert url == f"http://v.example{site.path}"
            assert site.count == 1
            for host in DIFFERENT:
                assert consistent(client, site.path, site.path, f"Host: {host}") == f"http://{host}{site.path}"
            assert site.count == 1 + len(DIFFERENT)


def test_paths_are_in_the_key_as_the_origin_sees_them(tmp_path: Path) -> None:
    with serving(tmp_path) as stand:
        site = stand.site()
        site.answer(tell)
        tails = [
            *("", "?", "?a", "?a&", "/", "//", "/.", "/./", "/%2e", "/%2E", "/;x", "/;", "/\\", "/%5c", "/a/../b"),
        ]
        with stand.connect() as client:
            urls = {consistent(client, site.path + tail, site.path + tail, "Host: v.example") for tail in tails}
            assert len(urls) == site.count == len(tails)
            for tail in tails:
                target = f"http://v.example{site.path}{tail}"
                assert consistent(client, site.path + tail, target, "Host: other.example") in urls
            assert site.count == len(tails)


@pytest.fixture(scope="module")
def rewriting(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("rewriting")
    filters = [{"native": "uri"}]
    with serving(folder, filters=filters, environment=plugin_environment(folder)) as stand:
        yield stand


PARTS: list[tuple[str, list[tuple[str, str]]]] = [
    ("X-Set-Scheme", [("https", "https"), ("HTTPS", "https"), ("http", "http")]),
    ("X-Set-Authority", [("W.Example:80", "w.example"), ("w.example:081", "w.example:81"), ("[::1]:80", "[::1]")]),
]


def test_what_a_filter_makes_of_the_uri_is_in_the_key_and_goes_to_the_origin(rewriting: Stand) -> None:
    site = rewriting.site()
    site.answer(tell)
    with rewriting.connect() as client:
        for name, values in PARTS:
            for given, meant in values:
                url = consistent(client, site.path, site.path, "Host: v.example", f"{name}: {given}")
                assert meant in url.replace("/", " ").replace(":  ", " ").split(" "), url
        said, key = told(client, site.path, "Host: v.example", f"X-Set-Path: {site.path}?q#fragment")
        assert said.endswith(f"{site.path}?q")
        assert key == f"http://v.example{site.path}?q"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(
            ("Authority", value)
            for value in ("evil@v.example", "a,b", "a b", "a/b", "a?b", "a#b", ":80", "a:99999", "[::1")
        ),
        *(("Path", value) for value in ("x", "http://v.example/", "**")),
    ],
)
def test_a_uri_that_is_none_goes_nowhere(rewriting: Stand, name: str, value: str) -> None:
    site = rewriting.site()
    site.answer(tell)
    reply = site.get("Host: v.example", f"X-Set-{name}: {value}")
    assert reply.status == 500
    assert not site.seen


def test_a_rule_on_a_forward_listener_tells_the_scheme_that_the_client_named(tmp_path: Path) -> None:
    port = free_port()
    listeners = [{"endpoint": f"tcp:{port}:interface=127.0.0.1", "mode": "forward"}]
    with serving(tmp_path, listeners=listeners, port=port) as stand:
        site = stand.site()
        site.answer(tell)
        with stand.connect() as client:
            for scheme, host in itertools.product(("http", "https"), ("v.example", "V.example")):
                default = {"http": 80, "https": 443}[scheme]
                for authority in (host, f"{host}:{default}"):
                    url = consistent(client, site.path, f"{scheme}://{authority}{site.path}", "Host: other.example")
                    assert url == f"{scheme}://v.example{site.path}"
        assert site.count == 2
