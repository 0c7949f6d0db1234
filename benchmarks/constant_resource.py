"""The peer from twisted.web that has nothing to look up: a Site with a constant of 1 KiB. Argument: own port."""

import sys

from servers import BODY
from twisted.internet import endpoints, reactor
from twisted.web.server import Site
from twisted.web.static import Data

constant = Data(BODY, "text/plain")
constant.isLeaf = True
endpoint = endpoints.serverFromString(reactor, f"tcp:{sys.argv[1]}:interface=127.0.0.1:backlog=8192")
endpoint.listen(Site(constant))
reactor.run()
