"""A native filter for tests: like the module of `script.c` it does what a request's header `x-NAME` tells it.

A script is a list of `event command argument...` joined by `|`; `later MILLISECONDS command...` does it from a timer.
"""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.logger import Logger
from twisted.plugin import IPlugin
from zope.interface import implementer

from twisted_wasmproxy.interfaces import Action, IFilter, IFilterFactory, IFilterStream

_log = Logger()


@implementer(IPlugin, IFilterFactory)
class Told:
    name = "told"

    def __init__(self, as_name: str = "n") -> None:
        self.as_name = as_name

    def configured(self, configuration: Any) -> Told:
        if configuration == "refuse":
            raise ValueError("refused as it was told")
        return Told(configuration or "n")

    def create(self, stream: IFilterStream) -> ToldFilter | None:
        script = stream.request.headers.get(b"x-" + self.as_name.encode())
        if script is None:
            return None
        if script == b"create trap":
            raise RuntimeError("trapped")
        tag = (stream.request.headers.get(b"x-tag") or b"-").decode()
        return ToldFilter(stream, script.decode(), f"{tag} {self.as_name}")


@implementer(IFilter)
class ToldFilter:
    def __init__(self, stream: IFilterStream, script: str, mark: str) -> None:
        self.stream = stream
        self.mark = mark
        self.parts = [part.strip().split(" ") for part in script.split("|")]

    def say(self, *words: object) -> None:
        _log.info("{text}", text=" ".join(map(str, (self.mark, *words))))

    def happen(self, event: str, *arguments: object) -> Action:
        self.say(event, *arguments)
        action = Action.CONTINUE
        for name, *command in self.parts:
            if name == event:
                action = self.run(command) or action
        return action

    def run(self, command: list[str]) -> Action | None:
        stream = self.stream
        word, *rest = command
        if word == "later":
            reactor.callLater(int(rest[0]) / 1000, self.run, rest[1:])
        elif word == "pause":
            return Action.PAUSE
        elif word == "pause_headers":
            return Action.PAUSE_HEADERS
        elif word == "discard":
            return Action.PAUSE_AND_DISCARD
        elif word == "resume_request":
            stream.resume_request()
        elif word == "resume_response":
            stream.resume_response()
        elif word == "reply":
            stream.send_local_response(int(rest[0]), [(b"x-from", b"native")], rest[1].encode(), b"native")
        elif word == "reset":
            stream.reset()
        elif word == "request_header":
            stream.request.headers.add(rest[0].encode(), rest[1].encode())
        elif word == "path":
            stream.request.path = rest[0].encode()
        elif word == "response_header":
            stream.response.headers.add(rest[0].encode(), rest[1].encode())
        elif word == "upper_request":
            body = stream.request_body
            body.replace(0, len(body), body.read(0, len(body)).upper())
        elif word == "upper_response":
            body = stream.response_body
            body.replace(0, len(body), body.read(0, len(body)).upper())
        elif word == "request_trailer":
            stream.add_trailers(True).add(rest[0].encode(), rest[1].encode())
        elif word == "response_trailer":
            stream.add_trailers(False).add(rest[0].encode(), rest[1].encode())
        elif word == "attribute":
            self.say("attribute", rest[0], stream.attribute(tuple(part.encode() for part in rest[0].split("."))))
        elif word == "trap":
            raise RuntimeError("trapped")
        return None

    def request_headers(self, end_stream: bool) -> Action:
        return self.happen("request_headers", int(end_stream))

    def request_body(self, size: int, end_stream: bool) -> Action:
        return self.happen("request_body", size, int(end_stream))

    def request_trailers(self) -> Action:
        return self.happen("request_trailers")

    def response_headers(self, end_stream: bool) -> Action:
        return self.happen("response_headers", int(end_stream))

    def response_body(self, size: int, end_stream: bool) -> Action:
        return self.happen("response_body", size, int(end_stream))

    def response_trailers(self) -> Action:
        return self.happen("response_trailers")

    def hook(self, hook: Any) -> None:
        self.happen("hook", hook.value)
        for name, *command in self.parts:
            if name == "hook" and command[0] == hook.value:
                self.run(command[1:])

    def closed(self) -> None:
        self.happen("closed")


told = Told()
