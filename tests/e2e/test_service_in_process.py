"""`ProxyService` in a reactor that runs already: in tests of one's own, or beside other services."""

from __future__ import annotations

from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred

from tests.support.origin import running_origin
from tests.support.proxy import fetch, free_port
from tests.support.reactor import run
from twisted_wasmproxy.config import load
from twisted_wasmproxy.service import ProxyService

HEADERS_WASM = Path(__file__).parents[2] / "examples" / "c_headers" / "headers.wasm"


def test_modules_are_compiled_while_the_reactor_goes_on(tmp_path: Path) -> None:
    port = free_port()
    with running_origin() as origin:
        config = tmp_path / "proxy.yaml"
        config.write_text(
            f"""
listeners: [{{endpoint: "tcp:{port}:interface=127.0.0.1"}}]
upstreams: {{origin: {{servers: ["http://127.0.0.1:{origin.port}"]}}}}
remap: [{{upstream: origin}}]
code_cache: {tmp_path / "code"}
wasm:
  - configuration: "response add x-filtered: yes"
    vm_config: {{runtime: wasmtime, code: {{local: {{filename: {HEADERS_WASM}}}}}}}
"""
        )
        service = ProxyService(load(config), reactor)
        order: list[str] = []

        def start() -> Deferred[None]:
            prepared = service.prepare()
            assert not prepared.called, "the module was compiled in the reactor's thread"
            reactor.callLater(0, order.append, "something else")
            return prepared.addCallback(lambda _: order.append("prepared")).addCallback(
                lambda _: service.startService()
            )

        run(start, 60)
        try:
            assert order == ["something else", "prepared"]
            assert fetch(port, "/").header("x-filtered") == "yes"
        finally:
            run(service.stopService, 30)
