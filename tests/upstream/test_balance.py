"""How load is shared, and what moves when a server goes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from twisted_wasmproxy.upstream.balance import ConsistentHash, LeastConnections, RoundRobin


@dataclass(eq=False)
class Server:
    name: str
    weight: int = 1
    active: int = 0


def servers(*weights: int) -> list[Server]:
    return [Server(f"http://192.0.2.{number}:80", weight) for number, weight in enumerate(weights, 1)]


weights = st.lists(st.integers(1, 20), min_size=1, max_size=8)


def test_round_robin_is_smooth():
    a, b, c = all_of_them = servers(5, 1, 1)
    balancer = RoundRobin(all_of_them)
    assert [balancer.pick(b"", all_of_them) for _ in range(7)] == [a, a, b, a, c, a, a]


@given(weights)
def test_round_robin_gives_each_its_weight_in_every_cycle(shares: list[int]):
    candidates = servers(*shares)
    balancer = RoundRobin(candidates)
    for _ in range(2):
        picked = Counter(balancer.pick(b"", candidates).name for _ in range(sum(shares)))
        assert picked == {server.name: server.weight for server in candidates}


@given(weights.filter(lambda shares: len(shares) > 1), st.data())
def test_round_robin_shares_among_those_left(shares: list[int], data: st.DataObject):
    candidates = servers(*shares)
    left = data.draw(st.lists(st.sampled_from(candidates), min_size=1, unique=True))
    balancer = RoundRobin(candidates)
    for _ in range(3):
        balancer.pick(b"", candidates)
    picked = Counter(balancer.pick(b"", left).name for _ in range(10 * sum(server.weight for server in left)))
    for server in left:
        assert abs(picked[server.name] - 10 * server.weight) <= sum(shares)


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 50)), min_size=1, max_size=8))
def test_least_connections_takes_the_least_loaded_for_its_weight(loads: list[tuple[int, int]]):
    candidates = [Server(str(number), weight, active) for number, (weight, active) in enumerate(loads)]
    picked = LeastConnections(candidates).pick(b"", candidates)
    assert picked.active / picked.weight == min(server.active / server.weight for server in candidates)


def test_least_connections_takes_turns_among_equals():
    candidates = servers(1, 1, 1)
    balancer = LeastConnections(candidates)
    assert Counter(balancer.pick(b"", candidates).name for _ in range(9)) == {s.name: 3 for s in candidates}


KEYS = [b"/path/%d" % number for number in range(4000)]


def test_consistent_hash_spreads_by_weight():
    candidates = servers(1, 1, 1, 2)
    balancer = ConsistentHash(candidates)
    picked = Counter(balancer.pick(key, candidates).name for key in KEYS)
    for server in candidates:
        share = picked[server.name] / len(KEYS)
        assert abs(share - server.weight / 5) < 0.25 * server.weight / 5


@given(st.integers(2, 10), st.data())
def test_a_server_that_rests_moves_only_its_own_keys(count: int, data: st.DataObject):
    candidates = servers(*[1] * count)
    gone = data.draw(st.sampled_from(candidates))
    left = [server for server in candidates if server is not gone]
    balancer = ConsistentHash(candidates)
    for key in KEYS[:300]:
        before = balancer.pick(key, candidates)
        if before is not gone:
            assert balancer.pick(key, left) is before
        else:
            assert balancer.pick(key, left) in left


@given(st.integers(2, 10), st.randoms())
def test_the_choice_depends_on_names_alone_and_an_added_server_only_takes(count: int, random):
    fewer = servers(*[1] * count)
    more = [*servers(*[1] * count), Server("http://192.0.2.200:80")]
    random.shuffle(more)
    old, new = ConsistentHash(fewer), ConsistentHash(more)
    for key in KEYS[:300]:
        picked = new.pick(key, more).name
        assert picked in (old.pick(key, fewer).name, "http://192.0.2.200:80")
