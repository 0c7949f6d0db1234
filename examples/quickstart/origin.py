"""A web server to put the proxy in front of: it answers with the request as it came; ends with its standard input."""

from __future__ import annotations

import sys

from twisted.internet import endpoints, reactor, stdio
from twisted.internet.protocol import Protocol
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import Site


class Echo(Resource):
    isLeaf = True

    def render(self, request: Request) -> bytes:
        request.setHeader(b"content-type", b"text/plain; charset=utf-8")
        lines = [b"The origin was asked for:", b"", b"    %b %b" % (request.method, request.uri)]
        for name, values in sorted(request.requestHeaders.getAllRawHeaders()):
            lines += [b"    %b: %b" % (name.lower(), value) for value in values]
        body = request.content.read()
        if body:
            lines += [b"", b"and got %d bytes:" % len(body), b"", body]
        return b"\n".join([*lines, b""])


class Leash(Protocol):
    """Whoever started this holds the other end of standard input."""

    def connectionLost(self, reason: object = None) -> None:
        if reactor.running:
            reactor.stop()


if __name__ == "__main__":
    port = int(sys.argv[1])
    endpoints.serverFromString(reactor, f"tcp:{port}:interface=127.0.0.1").listen(Site(Echo())).addErrback(
        lambda failure: (print(failure.getErrorMessage(), file=sys.stderr), reactor.stop())
    )
    stdio.StandardIO(Leash())
    reactor.run()
