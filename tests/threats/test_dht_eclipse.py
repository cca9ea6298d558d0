"""Sybils: ids ground into the region around one key, in as many networks as there are ids, against its records."""

import pytest

from haif.dht import node as node_module
from haif.dht.bucket import Bucket
from haif.dht.lookup import Extent
from haif.dht.table import RoutingTable
from haif.testing.siege import Age, Result, Siege, Sybils

SEED = 5
QUERIES_MAX = 260  # of one read, GETs included
AT_THE_KEY = 0.01  # regions


def attack(*, nodes: int = 300, owners: int = 3, readers: int = 4, **sybils: object) -> Result:
    return Siege(nodes=nodes, sybils=Sybils(**sybils), seed=SEED).read(owners=owners, readers=readers)  # type: ignore[arg-type]


def nothing(*_: object) -> None:
    """In place of what a plain table does not do."""


def plain(*_: object) -> Extent:
    return Extent()


def test_plain_kademlia_finds_no_record_behind_twenty_ground_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_module, "Extent", plain)
    monkeypatch.setattr(RoutingTable, "widen", nothing)
    monkeypatch.setattr(Bucket, "outdrawn", nothing)
    result = attack(count=20, regions=AT_THE_KEY)
    assert result.holders == 0
    assert result.found < 0.1  # a reader may be what the record's owner believed to be close


@pytest.mark.parametrize("count", [20, 100])
@pytest.mark.parametrize("age", Age)
def test_every_record_is_found_behind_ground_ids_in_as_many_networks(count: int, age: Age) -> None:
    result = attack(count=count, age=age, regions=AT_THE_KEY)
    assert result.found >= 0.99, f"{result}, seed {SEED}"
    assert result.holders > 0, f"{result}, seed {SEED}"
    assert result.queries_max <= QUERIES_MAX, f"{result}, seed {SEED}"
    assert result.suspected == 4, f"every reader suspects it: {result}, seed {SEED}"


@pytest.mark.parametrize("regions", [1, 4])
def test_two_hundred_sybils_all_over_the_region_and_older_than_every_honest_node_hide_nothing(regions: int) -> None:
    result = attack(nodes=300, count=200, regions=regions)
    assert result.found >= 0.99, f"{result}, seed {SEED}"
    assert result.queries_max <= QUERIES_MAX, f"{result}, seed {SEED}"


@pytest.mark.parametrize("claims", [0, 9], ids=["and claim nothing", "and claim records"])
def test_sybils_who_name_whom_they_invented_cost_a_bounded_number_of_queries(claims: int) -> None:
    result = attack(nodes=300, count=200, claims=claims, invents=10 if claims else 20)
    assert result.found >= 0.99, f"{result}, seed {SEED}"
    assert result.queries_max <= QUERIES_MAX, f"{result}, seed {SEED}"


def test_to_claim_records_costs_a_reader_hardly_more_than_to_be_silent_about_them() -> None:
    silent, claiming = (attack(nodes=300, count=200, claims=claims) for claims in (0, 9))
    assert claiming.found >= 0.99, f"{claiming}, seed {SEED}"
    assert claiming.queries <= 1.25 * silent.queries, f"{claiming} against {silent}, seed {SEED}"


def test_sybils_who_know_a_reader_and_do_not_answer_it_hide_nothing() -> None:
    siege = Siege(nodes=300, sybils=Sybils(count=200), seed=SEED)
    for sybil in siege.sybils:
        sybil.is_mute = True
    result = siege.read(owners=3, readers=4)
    assert result.found >= 0.99, f"{result}, seed {SEED}"


def test_honest_nodes_that_join_one_after_the_other_among_older_sybils_find_every_record() -> None:
    result = Siege(nodes=150, sybils=Sybils(count=100), seed=SEED, grown=True).read(owners=3, readers=6)
    assert result.found >= 0.99, f"{result}, seed {SEED}"


def test_without_an_attack_nobody_suspects_one() -> None:
    result = attack(count=0)
    assert (result.found, result.suspected) == (1.0, 0)
    assert result.queries_max <= 100


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("count", [20, 100, 200])
@pytest.mark.parametrize("regions", [AT_THE_KEY, 1.0])
def test_two_thousand_nodes_behind_ground_ids(count: int, regions: float) -> None:
    result = attack(nodes=2000, count=count, regions=regions, readers=8)
    assert result.found >= 0.99, f"{result}, seed {SEED}"
    assert result.queries_max <= QUERIES_MAX, f"{result}, seed {SEED}"
