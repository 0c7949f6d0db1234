"""Filters in Python that tests put into `twisted/plugins` of a proxy (see `support.plugin_folder`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.plugin import IPlugin
from zope.interface import implementer

from twisted_wasmproxy.interfaces import Action, IFilter, IFilterFactory


@implementer(IFilter)
class PassingFilter:
    """Looks at every part of both bodies and lets each go on at once."""

    hook = None

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def request_headers(self, end_stream: bool) -> Action:
        return Action.CONTINUE

    def request_body(self, size: int, end_stream: bool) -> Action:
        assert len(self.stream.request_body) == size
        return Action.CONTINUE

    def request_trailers(self) -> Action:
        return Action.CONTINUE

    def response_headers(self, end_stream: bool) -> Action:
        return Action.CONTINUE

    def response_body(self, size: int, end_stream: bool) -> Action:
        assert len(self.stream.response_body) == size
        return Action.CONTINUE

    def response_trailers(self) -> Action:
        return Action.CONTINUE

    def closed(self) -> None:
        pass


class UpperFilter(PassingFilter):
    """Turns both bodies, held until they are complete, into capitals."""

    def request_body(self, size: int, end_stream: bool) -> Action:
        if not end_stream:
            return Action.PAUSE
        body = self.stream.request_body
        body.replace(0, size, body.read(0, size).upper() + b"!")
        return Action.CONTINUE

    def response_body(self, size: int, end_stream: bool) -> Action:
        if not end_stream:
            return Action.PAUSE
        body = self.stream.response_body
        body.replace(0, size, body.read(0, size).upper() + b"!")
        return Action.CONTINUE


class FailingFilter(PassingFilter):
    def request_headers(self, end_stream: bool) -> Action:
        raise RuntimeError("this filter always fails")


@implementer(IPlugin, IFilterFactory)
class Factory:
    def __init__(self, name: str, make: Callable[[Any], Any]) -> None:
        self.name = name
        self.make = make

    def configured(self, configuration: object) -> Factory:
        return self

    def create(self, stream: Any) -> Any:
        return self.make(stream)


passing = Factory("passing", PassingFilter)
upper = Factory("upper", UpperFilter)
failing = Factory("failing", FailingFilter)


class LengthFilter(PassingFilter):
    """Declares another length than the answer has, where the path asks for it."""

    def response_headers(self, end_stream: bool) -> Action:
        path = self.stream.request.path
        if path.endswith(b"/longer"):
            self.stream.response.headers.set(b"content-length", b"9")
        elif path.endswith(b"/shorter"):
            self.stream.response.headers.set(b"content-length", b"7")
        return Action.CONTINUE


def _length(stream: Any) -> Any:
    made = LengthFilter(stream)
    made.response_body = None  # type: ignore[method-assign]  # as the interface has it: a callback that is not there
    return made


length = Factory("length", _length)


class URIFilter(PassingFilter):
    """Sets the parts of the URI that `X-Set-Scheme`, `-Authority` and `-Path` of the request name."""

    request_body = response_body = None  # type: ignore[assignment]

    def request_headers(self, end_stream: bool) -> Action:
        request = self.stream.request
        for part in ("scheme", "authority", "path"):
            value = request.headers.get(b"x-set-" + part.encode())
            if value is not None:
                setattr(request, part, value)
        return Action.CONTINUE


uri = Factory("uri", URIFilter)


class TrailersFilter(PassingFilter):
    """Adds trailers both ways, some of which may be none."""

    def request_trailers(self) -> Action:
        self.stream.request_trailers.add(b"Authorization", b"filter")
        self.stream.request_trailers.add(b"X-Filter", b"1")
        return Action.CONTINUE

    def response_trailers(self) -> Action:
        self.stream.response_trailers.add(b"Set-Cookie", b"filter")
        self.stream.response_trailers.add(b"X-Filter", b"1")
        return Action.CONTINUE


trailers = Factory("trailers", TrailersFilter)
