"""Sybils: ids ground against one key, in as many networks as there are ids, against lookups of that key."""

from dataclasses import dataclass
from random import Random

import pytest

from haif.base import limits
from haif.dht import node as node_module
from haif.dht.contact import Contact
from haif.dht.lookup import Extent
from haif.testing.directory import Directory
from haif.testing.world import World
from tests.support.sybils import KEY, acquaint, add_sybils, contacts_of, gauge, ground, honest_holders

SEED = 5
QUERIES_MAX = 260  # FIND queries of one lookup


@dataclass(frozen=True)
class Result:
    found: float
    queries_max: int
    holders_min: int
    alarms: int


def attack(*, nodes: int, sybils: int, tried: int, first: str = "honest", owners: int = 3, readers: int = 4) -> Result:
    """Publish and read at the key. `first`: who came first to everybody's table."""
    town, random = Directory(World(seed=SEED)), Random(SEED)
    for _ in range(nodes):
        town.add(joining=False)
    identities = ground(sybils, tried) if sybils else ()
    enemies = add_sybils(town.world, identities, lambda n: (f"{200 + n % 20}.{n // 20}.7.1", 4000))
    honest = contacts_of(town)

    def order(_: object) -> list[Contact]:
        random.shuffle(honest)
        random.shuffle(enemies)
        everybody = [*honest, *enemies] if first == "honest" else [*enemies, *honest]
        if first == "nobody":
            random.shuffle(everybody)
        return everybody

    acquaint(town, order)
    chosen = random.sample(list(town.nodes), owners + readers)
    for address in chosen:
        gauge(town, address, lookups=limits.NETWORK_SAMPLES_MIN)
    wanted = {town.identities[owner].peer for owner in chosen[:owners]}
    holders = [honest_holders(town, town.publish(owner, town.record(owner, KEY)).by) for owner in chosen[:owners]]
    alarms, found, queries = 0, 0, 0
    for reader in chosen[owners:]:
        before = town.nodes[reader].counters.eclipses_suspected
        gathered = town.gather(reader, KEY)
        found += len(wanted & {record.signer for record in gathered.records})
        queries = max(queries, gathered.queries)
        alarms += town.nodes[reader].counters.eclipses_suspected - before
    return Result(found / (owners * readers), queries, min(holders), alarms)


def plain(*_: object) -> Extent:
    return Extent()


def test_plain_kademlia_finds_no_record_behind_twenty_ground_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_module, "Extent", plain)
    result = attack(nodes=300, sybils=20, tried=30_000)
    assert result.found <= 0.1, "only who passes by an owner on the way reads anything"
    assert result.holders_min == 0


@pytest.mark.parametrize("sybils", [20, 100])
@pytest.mark.parametrize("first", ["honest", "nobody", "sybils"])
def test_every_record_is_found_behind_ground_ids_in_as_many_networks(sybils: int, first: str) -> None:
    result = attack(nodes=300, sybils=sybils, tried=30_000, first=first)
    assert result.found >= 0.99, f"{result}, seed {SEED}"
    assert result.holders_min > 0, f"{result}, seed {SEED}"
    assert result.queries_max <= QUERIES_MAX, f"{result}, seed {SEED}"
    assert result.alarms == 4, f"every reader suspects it: {result}, seed {SEED}"


def test_without_an_attack_nobody_suspects_one() -> None:
    result = attack(nodes=300, sybils=0, tried=0)
    assert (result.found, result.alarms) == (1.0, 0)
    assert result.queries_max <= 80


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("sybils", [20, 100, 200])
@pytest.mark.parametrize("first", ["honest", "nobody", "sybils"])
def test_two_thousand_nodes_behind_ground_ids(sybils: int, first: str) -> None:
    result = attack(nodes=2000, sybils=sybils, tried=100_000, first=first, owners=3, readers=8)
    assert result.found >= 0.99, f"{result}, seed {SEED}"
    assert result.queries_max <= QUERIES_MAX, f"{result}, seed {SEED}"
