"""A real control server on a loopback port or Unix socket, over a real memory store."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from tests.cache.support import head
from tests.support.reactor import call, run, started_reactor
from twisted_wasmproxy.admin import AdminServer
from twisted_wasmproxy.cache.entry import Selection
from twisted_wasmproxy.cache.policy import Freshness, freshness
from twisted_wasmproxy.cache.stores.memory import MemoryResponse, MemoryStore
from twisted_wasmproxy.config.model import AdminConfig, CacheConfig, CacheRules
from twisted_wasmproxy.interfaces import IStoredResponse


class StoredInMemory:
    """`CacheControl` over a memory store; made and used in the reactor's thread."""

    def __init__(self) -> None:
        self.store = MemoryStore(1 << 20, 1 << 20)
        self.store.start()

    def put(
        self,
        url: bytes,
        fields: Iterable[tuple[bytes, bytes]] = ((b"Cache-Control", b"max-age=60"),),
        body: bytes = b"content",
        *,
        start: int = 0,
        length: int | None = None,
        age: float = 0.0,
        **changes: Any,
    ) -> None:
        """Store a response that came `age` seconds ago."""
        then = time.time() - age
        found = head(url, fields, request_time=then, response_time=then, **changes)
        writer = self.store.create(found, len(body), None, start)
        assert writer is not None
        writer.write(body)
        writer.commit(found.replaced(length=len(body) if length is None else length))

    def purge(self, selection: Selection, soft: bool) -> int:
        return self.store.purge(selection, soft)

    def entries(self, selection: Selection, limit: int) -> Sequence[MemoryResponse]:
        return self.store.entries(selection, limit)

    def stats(self) -> Mapping[str, object]:
        return {"hits": 7, "hit_ratio": 0.875, "memory": dict(self.store.stats())}

    def freshness_of(self, stored: IStoredResponse) -> Freshness:
        return freshness(stored.head, CacheRules(), CacheConfig())


class Admin:
    """A server at work, and calls to it."""

    def __init__(self, server: AdminServer, cache: Any) -> None:
        self.server = server
        self.cache = cache
        address = server.port.getHost() if server.port is not None else None
        self.port: int = getattr(address, "port", 0)
        self.url = f"http://127.0.0.1:{self.port}"

    def put(self, *args: Any, **changes: Any) -> None:
        call(lambda: self.cache.put(*args, **changes))

    def raw(
        self, method: str, target: str, body: bytes | None = None, fields: Mapping[str, str] | None = None
    ) -> tuple[http.client.HTTPResponse, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, target, body, dict(fields or {}))
            response = connection.getresponse()
            return response, response.read()
        finally:
            connection.close()

    def get(self, target: str) -> tuple[int, Any]:
        response, body = self.raw("GET", target)
        return response.status, json.loads(body)

    def post(self, target: str, value: object) -> tuple[int, Any]:
        response, body = self.raw("POST", target, json.dumps(value).encode(), {"Content-Type": "application/json"})
        return response.status, json.loads(body)

    def purge(self, **members: object) -> tuple[int, Any]:
        return self.post("/cache/purge", members)


@contextmanager
def serving(cache: Any = None, endpoint: str = "tcp:0:interface=127.0.0.1") -> Iterator[Admin]:
    """Serve calls about `cache` (a memory store where it is not given) until the block ends."""
    if cache is None:
        cache = call(StoredInMemory)
    server = AdminServer(AdminConfig(endpoint), started_reactor())
    call(server.use, cache)
    run(server.open)
    try:
        yield Admin(server, cache)
    finally:
        run(server.close)
