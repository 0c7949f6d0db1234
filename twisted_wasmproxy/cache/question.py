"""What an origin is asked on behalf of the cache: validators or a range of ours stand in for the client's own."""

from __future__ import annotations

from collections.abc import Mapping

from twisted_wasmproxy.cache import combining, policy, ranges
from twisted_wasmproxy.http.headers import Headers
from twisted_wasmproxy.http.messages import Request
from twisted_wasmproxy.interfaces import IStoredResponse

__all__ = ["as_get", "asks_for_less", "question", "without"]

_CONDITIONS = frozenset({b"if-none-match", b"if-modified-since", b"if-range", b"range"})


def asks_for_less(headers: Headers) -> bool:
    """Say whether the client has conditions or a range of its own."""
    for line in headers.lines:  # noqa: SIM110  # a generator would cost several times as much
        if line[0] in _CONDITIONS:
            return True
    return False


def question(
    request: Request,
    stale: IStoredResponse | None,
    gap: ranges.Part | None,
    variants: Mapping[bytes, IStoredResponse],
    whole: bool,
) -> Request:
    """Return the request to send, which is `request` itself if the cache has nothing to add.

    `stale` is to be validated (RFC 9111 section 4.3.1), or the part `gap` of it is missing (section 3.4); or the entity
    tags of `variants`, which were selected by other requests, are named (section 4.1). `whole`: the client's own
    conditions and range are left out in any case, since others want the answer, too.
    """
    ours: list[tuple[bytes, bytes]] = []
    if request.method == b"GET":
        if stale is not None:
            ours = policy.validators(stale.head) if gap is None else _range(stale, gap)
        elif variants:
            ours = [(b"If-None-Match", b", ".join(variants))]
    if not ours and not (whole and asks_for_less(request.headers)):
        return request
    headers = Headers()
    headers.lines = [line for line in request.headers.lines if line[0] not in _CONDITIONS]
    for name, value in ours:
        headers.add(name, value)
    return _like(request, b"GET", headers)


def _range(stored: IStoredResponse, gap: ranges.Part) -> list[tuple[bytes, bytes]]:
    start, stop = gap
    last = b"" if stop == stored.head.length else b"%d" % (stop - 1)
    asked = [(b"Range", b"bytes=%d-%b" % (start, last))]
    validator = combining.strong_validator(stored.head.headers)
    if validator is not None:
        asked.append((b"If-Range", validator))
    return asked


def without(request: Request, names: frozenset[bytes]) -> Request:
    """Return a GET or HEAD request without fields of these lower-case names; any other request as it is."""
    lines = request.headers.lines
    if not names or request.method not in (b"GET", b"HEAD") or names.isdisjoint([line[0] for line in lines]):
        return request
    headers = Headers()
    headers.lines = [line for line in lines if line[0] not in names]
    left = _like(request, request.method, headers)
    left.upgrade = request.upgrade
    return left


def as_get(request: Request) -> Request:
    """Return the GET for what a request is about."""
    return request if request.method == b"GET" else _like(request, b"GET", request.headers)


def _like(request: Request, method: bytes, headers: Headers) -> Request:
    scheme, authority, path = request.scheme, request.authority, request.path
    return Request(method, scheme, authority, path, headers, request.version, target=request.target)
