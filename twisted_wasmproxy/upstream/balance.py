"""Choosing one of several servers: weighted round robin, least connections, consistent hashing. No I/O, no clock."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from hashlib import blake2b
from typing import Protocol, TypeVar

__all__ = ["Balancer", "Candidate", "ConsistentHash", "LeastConnections", "RoundRobin", "make_balancer"]


class Candidate(Protocol):
    """What a choice depends on."""

    @property
    def name(self) -> str:
        """`host:port`, the same from one start to the next."""

    @property
    def weight(self) -> int:
        """Share of the load, 1 or more."""

    @property
    def active(self) -> int:
        """Requests in flight."""


C = TypeVar("C", bound=Candidate)


class Balancer(Protocol[C]):
    """Chooses a server for a request."""

    def pick(self, key: bytes, candidates: Sequence[C]) -> C:
        """Return one of `candidates`, which is not empty and holds some or all of the cluster's servers.

        `key` is what the request is hashed on; only `ConsistentHash` looks at it.
        """


class RoundRobin(Balancer[C]):
    """Smooth weighted round robin: weights 5, 1, 1 give A A B A C A A, not A A A A A B C.

    Every candidate earns its weight in each round, the richest is chosen and pays what all earned together.
    """

    __slots__ = ("_credit",)

    def __init__(self, servers: Sequence[C]) -> None:
        self._credit: dict[str, int] = {server.name: 0 for server in servers}

    def pick(self, key: bytes, candidates: Sequence[C]) -> C:
        credit = self._credit
        total = 0
        best = candidates[0]
        best_credit: int | None = None
        for server in candidates:
            weight = server.weight
            total += weight
            earned = credit[server.name] = credit[server.name] + weight
            if best_credit is None or earned > best_credit:
                best, best_credit = server, earned
        credit[best.name] -= total
        return best


class LeastConnections(Balancer[C]):
    """The server with the fewest requests in flight for its weight; round robin among equals."""

    __slots__ = ("_round_robin",)

    def __init__(self, servers: Sequence[C]) -> None:
        self._round_robin = RoundRobin(servers)

    def pick(self, key: bytes, candidates: Sequence[C]) -> C:
        least = candidates[0]
        equals = [least]
        for server in candidates[1:]:
            # active / weight, compared without dividing
            mine, other = server.active * least.weight, least.active * server.weight
            if mine < other:
                least = server
                equals = [server]
            elif mine == other:
                equals.append(server)
        return least if len(equals) == 1 else self._round_robin.pick(key, equals)


class ConsistentHash(Balancer[C]):
    """A ring of points (ketama): a key belongs to the server whose point follows its hash.

    A server that is lost, rests or is added moves only the keys it holds or takes. The place of a point depends on the
    server's name alone, so every worker and every restart makes the same choice.
    """

    POINTS = 160
    """Points of a server of average weight: the shares of equal servers then differ by less than a tenth or so."""

    __slots__ = ("_owners", "_points")

    def __init__(self, servers: Sequence[C]) -> None:
        average = sum(server.weight for server in servers) / len(servers)
        ring = sorted(
            (_hash(b"%s/%d" % (server.name.encode(), number)), index)
            for index, server in enumerate(servers)
            for number in range(max(1, round(self.POINTS * server.weight / average)))
        )
        self._points = [point for point, _ in ring]
        self._owners = [servers[index] for _, index in ring]

    def pick(self, key: bytes, candidates: Sequence[C]) -> C:
        owners = self._owners
        start = bisect_right(self._points, _hash(key))
        for index in range(start - len(owners), start):  # negative indices wrap round the end of the ring
            owner = owners[index]
            if owner in candidates:
                return owner
        raise AssertionError("a candidate that is not on the ring")


def _hash(data: bytes) -> int:
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "big")


def make_balancer(balance: str, servers: Sequence[C]) -> Balancer[C]:
    """Return the balancer of that name, as in `UpstreamConfig.balance`."""
    if balance == "least_connections":
        return LeastConnections(servers)
    if balance == "consistent_hash":
        return ConsistentHash(servers)
    return RoundRobin(servers)
