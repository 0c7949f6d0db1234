"""Which stored responses a `Selection` means: one answer for all stores."""

from __future__ import annotations

from twisted_wasmproxy.cache.entry import Selection, StoredHead
from twisted_wasmproxy.cache.keys import split_url, url_host

__all__ = ["host_name", "matches"]

_DEFAULT_PORTS = {b"http": b"80", b"https": b"443"}


def matches(selection: Selection, head: StoredHead) -> bool:
    """Say whether a stored response is selected: all that the selection names must hold."""
    return (
        (selection.url is None or selection.url == head.url)
        and (selection.prefix is None or head.url.startswith(selection.prefix))
        and (selection.host is None or _is_on(selection.host, head.url))
        and (selection.surrogate_key is None or selection.surrogate_key in head.surrogate_keys)
    )


def host_name(host: bytes) -> bytes:
    """Return `host[:port]` without the port; the brackets of an IPv6 address stay."""
    return _split_port(host)[0]


def _split_port(host: bytes) -> tuple[bytes, bytes]:
    name, mark, port = host.rpartition(b":")
    if not mark or (port and not port.isdigit()):  # no colon, or one within [::1]
        return host, b""
    return name, port


def _is_on(wanted: bytes, url: bytes) -> bool:
    name, port = _split_port(wanted)
    host, host_port = _split_port(url_host(url))
    return name == host and (not port or port == (host_port or _DEFAULT_PORTS.get(split_url(url)[0])))
