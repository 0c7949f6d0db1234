"""`Api`: a table of JSON calls as a twisted.web resource, with what keeps web pages from making them.

A browser on this machine reaches loopback, so a page from anywhere can send requests here. What it must not do is
read or change anything: a POST has to be `application/json`, which no page may send to another site without asking
first (and nothing here says yes); and Host has to be an address or `localhost`, so that a name which an attacker
points to 127.0.0.1 (DNS rebinding) does not make a page of his this site's own. Without a token, what says that it is
from a web page, or has come through a proxy on the machine, is refused outright.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any
from urllib.parse import parse_qsl

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from twisted_wasmproxy import __version__
from twisted_wasmproxy.http.bearer import CHALLENGE, bears, came_through_a_proxy
from twisted_wasmproxy.logs import Logger

__all__ = ["Api", "ApiError", "ApiRequest", "Call", "Members"]

BODY_LIMIT = 64 * 1024
"""Bytes of a request body; beyond: 413."""

_HOST = re.compile(rb"(\[[^\]]*\]|[^:\[\]]*)(?::[0-9]*)?")

_log = Logger()

Members = Mapping[str, object]
"""What a caller says: the members of the JSON object of a POST, the (text) parameters of a GET's query."""
Call = Callable[[Members], "Mapping[str, object] | Deferred[Mapping[str, object]]"]
"""Answers a call by a JSON object; raises, or fails with, ApiError."""


class ApiError(Exception):
    """An answer that is not the one asked for."""

    def __init__(self, status: int, text: str, fields: Mapping[str, str] | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.fields = fields or {}


class ApiRequest(Request):
    """A request of which no more than `BODY_LIMIT` bytes are kept."""

    too_large = False

    def gotLength(self, length: int | None) -> None:
        self.content = BytesIO()

    def handleContentChunk(self, data: bytes) -> None:
        assert self.content is not None
        if self.too_large or self.content.tell() + len(data) > BODY_LIMIT:
            self.too_large = True
        else:
            self.content.write(data)


class Api(Resource):
    """Calls by path and method. HEAD is served where GET is."""

    isLeaf = True

    def __init__(self, calls: Mapping[str, Mapping[str, Call]], token: str | None = None) -> None:
        Resource.__init__(self)
        self._calls = calls
        self._token = token

    def require(self, token: str | None) -> None:
        """Ask callers for another token from now on; None: for none."""
        self._token = token

    def render(self, request: ApiRequest) -> int:
        gone: list[Failure] = []
        request.notifyFinish().addErrback(gone.append)

        def answered(result: Mapping[str, object]) -> None:
            if not gone:
                _answer(request, 200, result)

        def failed(failure: Failure) -> None:
            if gone:
                return
            if isinstance(failure.value, ApiError):
                _answer(request, failure.value.status, {"error": str(failure.value)}, failure.value.fields)
            else:
                _log.failure("a call of the control API failed", failure)
                _answer(request, 500, {"error": "this call failed; the log says why"})

        maybeDeferred(self._call, request).addCallbacks(answered).addErrback(failed)
        return NOT_DONE_YET

    def _call(self, request: ApiRequest) -> Any:
        _check_host(request)
        _check_caller(request, self._token)
        path = request.path.decode("latin-1")
        calls = self._calls.get(path)
        if calls is None:
            raise ApiError(404, f"there is no {path}; there are {', '.join(sorted(self._calls))}")
        method = request.method.decode("latin-1")
        call = calls.get("GET" if method == "HEAD" else method)
        if call is None:
            allowed = ", ".join([*calls, *(["HEAD"] if "GET" in calls else [])])
            raise ApiError(405, f"{path} is for {allowed}", {"Allow": allowed})
        if method == "POST":
            return call(_body(request))
        return call(_parameters(request))


def _check_host(request: ApiRequest) -> None:
    # As bytes: asked for as text, what is not UTF-8 would raise.
    fields = request.requestHeaders.getRawHeaders(b"Host") or []
    match = _HOST.fullmatch(fields[0]) if len(fields) == 1 else None
    host = match[1].decode("latin-1").strip("[]").lower().removesuffix(".") if match else ""
    if host == "localhost" or host.endswith(".localhost"):
        return
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise ApiError(421, "Host must be an IP address or localhost, so that web pages cannot call this") from None


def _check_caller(request: ApiRequest, token: str | None) -> None:
    fields = request.requestHeaders
    if token is not None:
        if not bears(fields.getRawHeaders(b"authorization", []), token):
            name, value = CHALLENGE
            raise ApiError(401, "this needs the token of the control API", {name.decode(): value.decode()})
    elif came_through_a_proxy(name.lower() for name, _ in fields.getAllRawHeaders()):
        raise ApiError(403, "this came through a proxy, so nobody knows from whom: only with a token")
    elif fields.hasHeader(b"origin") or fields.getRawHeaders(b"sec-fetch-site", [b"none"]) != [b"none"]:
        raise ApiError(403, "this came from a web page: only with a token")


def _parameters(request: ApiRequest) -> dict[str, str]:
    query = _query(request)
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict")
    except ValueError:
        raise ApiError(400, "the query is not UTF-8") from None
    parameters = dict(pairs)
    if len(parameters) < len(pairs):
        raise ApiError(400, "a parameter is there more than once")
    return parameters


def _query(request: ApiRequest) -> str:
    return request.uri.partition(b"?")[2].decode("latin-1")


def _body(request: ApiRequest) -> dict[str, object]:
    kind = (request.getHeader(b"Content-Type") or b"").partition(b";")[0].strip().lower()
    if kind != b"application/json":
        raise ApiError(415, "the body must be application/json, and Content-Type say so")
    if _query(request):
        raise ApiError(400, "what is asked goes into the body, not into the query")
    if request.too_large:
        raise ApiError(413, f"the body is longer than {BODY_LIMIT} bytes")
    assert request.content is not None
    try:
        value = json.loads(request.content.read(), object_pairs_hook=_object)
    except ApiError:
        raise
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"the body is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ApiError(400, "the body must be a JSON object")
    return value


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ApiError(400, "a member is there more than once")
    return value


def _answer(
    request: Request, status: int, value: Mapping[str, object], fields: Mapping[str, str] | None = None
) -> None:
    body = json.dumps(value).encode() + b"\n"
    request.setResponseCode(status)
    for name, text in (
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(body))),
        ("Cache-Control", "no-store"),
        ("X-Content-Type-Options", "nosniff"),
        ("Server", f"twisted-wasmproxy/{__version__}"),
        *(fields or {}).items(),
    ):
        request.setHeader(name, text)
    request.write(body)
    request.finish()
