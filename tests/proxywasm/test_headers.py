"""Header maps as a guest sees them (conformance cases H)."""

from __future__ import annotations

from tests.proxywasm.guest import OUT_BYTES, Guest
from twisted_wasmproxy.http.headers import Headers
from twisted_wasmproxy.http.messages import Request
from twisted_wasmproxy.interfaces import Action


def test_H04_add_appends(bench):
    guest = Guest()
    add = guest.call("proxy_add_header_map_value", 0, b"x-a", b"2")
    get = guest.call("proxy_get_header_map_value", 0, b"X-A", OUT_BYTES)
    guest.on("proxy_on_request_headers", add, get)
    request = Request(b"GET", b"http", b"h", b"/", Headers([(b"X-A", b"1")]))
    loaded, stream = bench.stream(guest, request)
    assert stream.request_head() is Action.CONTINUE
    assert add.status(loaded.vm) == 0
    assert list(request.headers) == [(b"X-A", b"1"), (b"x-a", b"2")]
    assert (get.status(loaded.vm), get.value(loaded.vm)) == (0, b"1")
    assert guest.trace(loaded.vm) == [("proxy_on_request_headers", 2, 5, 1)]
