"""The peer from twisted.web: a Site with one ReverseProxyResource. Arguments: own port, origin's port."""

import sys

from twisted.internet import endpoints, reactor
from twisted.web.proxy import ReverseProxyResource
from twisted.web.server import Site

port, origin = int(sys.argv[1]), int(sys.argv[2])
site = Site(ReverseProxyResource("127.0.0.1", origin, b""))
endpoints.serverFromString(reactor, f"tcp:{port}:interface=127.0.0.1:backlog=8192").listen(site)
reactor.run()
