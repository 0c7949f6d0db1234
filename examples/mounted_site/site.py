"""The proxy mounted beside other resources of a twisted.web Site.

    twistd -n --python examples/mounted_site/site.py      (or: twistd -ny ...)

`/status` is answered by this process, everything else by the proxy of proxy.yaml.
"""

from pathlib import Path

from twisted.application.internet import StreamServerEndpointService
from twisted.application.service import Application
from twisted.internet import reactor
from twisted.internet.endpoints import serverFromString
from twisted.web.resource import Resource
from twisted.web.server import Site

from twisted_wasmproxy.config import load
from twisted_wasmproxy.resource import WasmProxyResource
from twisted_wasmproxy.service import ProxyService


class Status(Resource):
    isLeaf = True

    def render_GET(self, request):
        request.setHeader(b"content-type", b"text/plain")
        return b"all is well\n"


class Root(Resource):
    """Own children first; what they do not have is the proxy's."""

    def __init__(self, proxy: WasmProxyResource) -> None:
        super().__init__()
        self.proxy = proxy

    def getChild(self, path, request):
        return self.proxy


application = Application("site")
proxy = ProxyService(load(Path(__file__).with_name("proxy.yaml")))
proxy.setServiceParent(application)

root = Root(WasmProxyResource(proxy))
root.putChild(b"status", Status())
endpoint = serverFromString(reactor, "tcp:8080:interface=127.0.0.1")
StreamServerEndpointService(endpoint, Site(root)).setServiceParent(application)
