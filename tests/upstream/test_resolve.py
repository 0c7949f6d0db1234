"""What is remembered of names is bounded."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from tests.support.reactor import run, started_reactor
from tests.upstream.support import names
from twisted_wasmproxy.upstream.resolve import Resolver


def looked_up(resolver: Resolver, host: str) -> list[str]:
    def look() -> Deferred[list[str]]:
        found: Deferred[list[str]] = Deferred()
        resolver.lookup(host, found.callback)
        return found

    return run(look)


def test_of_very_many_addresses_the_first_are_taken() -> None:
    addresses = [f"10.0.{i // 250}.{i % 250}" for i in range(4000)]
    with names({"many.test": addresses}):
        assert looked_up(Resolver(started_reactor()), "many.test") == addresses[:64]
