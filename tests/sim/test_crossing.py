"""A directory over IPv4 and one over IPv6, and a few nodes of both: who has one family meets who has the other."""

from ipaddress import ip_address
from random import Random

import pytest

from haif.base import limits
from haif.base.clock import Instant
from haif.base.ids import Digest
from haif.base.machine import Address
from haif.protocol.records import RecordKind, topic_at
from haif.testing.directory import Directory
from haif.testing.families import Families
from haif.testing.net import Conditions
from haif.testing.world import World

SEED = 32
EACH = 60  # nodes of one family, where a record has 25 holders: most holders of one family never hear of the other
LOSSY = Conditions(loss=0.05, duplication=0.02, reordering=0.05)


@pytest.fixture(scope="module")
def town() -> Families:
    town = Families(World(seed=SEED, conditions=LOSSY))
    for number in range(EACH):
        town.four.add()
        town.six.add()
        if number % 15 == 14:
            town.add_both()
        town.world.run(seconds=0.4)
    town.world.run(seconds=20)
    return town


def topic(seed: int | str) -> Digest:
    return topic_at(RecordKind.OFFER, Digest(Random(seed).randbytes(32)))


def alone(town: Families, directory: Directory) -> list[Address]:
    """Those of one family."""
    both = {address for node in town.both for address in (node.four, node.six)}
    return [address for address in directory.nodes if address not in both]


@pytest.mark.parametrize("writes", ["four", "six"])
def test_who_has_one_family_reads_what_is_published_in_the_other(town: Families, writes: str) -> None:
    here, there = (town.four, town.six) if writes == "four" else (town.six, town.four)
    crossed: list[tuple[Address, Address]] = []

    def tap(_: Instant, source: Address, destination: Address, data: bytes) -> None:
        if ip_address(source[0]).version != ip_address(destination[0]).version:
            crossed.append((source, destination))

    town.world.taps.append(tap)
    random = Random(writes)
    for number in range(5):
        owner, place = random.choice(alone(town, here)), topic(f"{writes} {number}")
        stored = here.publish(owner, here.record(owner, place))
        assert 1 <= len(stored.carried) <= limits.DHT_CARRIERS, f"seed {SEED}"
        town.world.run(seconds=5)
        for reader in random.sample(alone(town, there), 10):
            found = [record.signer for record in there.gather(reader, place).records]
            assert [here.identities[owner].peer] == found, f"seed {SEED}"
    town.world.taps.remove(tap)
    assert [] == crossed, "no datagram goes from one family to the other"


def test_what_is_withdrawn_in_one_is_gone_in_the_other(town: Families) -> None:
    owner, reader, place = alone(town, town.six)[7], alone(town, town.four)[9], topic(99)
    for sequence, body in ((1, b"here"), (2, None)):
        town.six.publish(owner, town.six.record(owner, place, sequence=sequence, body=body))
        town.world.run(seconds=5)
    assert [True] == [record.payload.tombstone for record in town.four.gather(reader, place).records]


def test_a_node_of_both_that_was_given_addresses_of_one_family_finds_its_way_into_the_other(town: Families) -> None:
    lost = town.add_both(joining_six=False)
    town.world.run(seconds=20)
    reader = town.six.nodes[lost.six]
    assert len(reader.table) >= limits.DHT_K // 2, f"seed {SEED}"
    owner, place = alone(town, town.six)[3], topic(123)
    town.six.publish(owner, town.six.record(owner, place))
    assert [town.six.identities[owner].peer] == [record.signer for record in town.six.gather(lost.six, place).records]


def test_without_a_node_of_both_the_two_do_not_meet_and_nobody_is_asked_to_carry() -> None:
    town = Families(World(seed=SEED))
    town.four.grow(5)
    town.six.grow(5)
    owner, reader = next(iter(town.four.nodes)), next(iter(town.six.nodes))
    stored = town.four.publish(owner, town.four.record(owner, topic(1)))
    assert ((), 4) == (stored.carried, len(stored.by))
    town.world.run(seconds=5)
    assert () == town.six.gather(reader, topic(1)).records


def test_a_carrier_that_dies_is_replaced_by_others(town: Families) -> None:
    owner, place = alone(town, town.four)[11], topic(321)
    while len(town.both) > 2:
        town.kill(town.both[0])
    stored = town.four.publish(owner, town.four.record(owner, place))
    town.world.run(seconds=5)
    living = {town.four.identities[node.four].peer for node in town.both}
    assert set(stored.carried) <= living, "nobody carries who is dead"
    town.four.publish(owner, town.four.record(owner, place, sequence=2))
    town.world.run(seconds=5)
    found = town.six.gather(alone(town, town.six)[5], place).records
    assert [2] == [record.payload.sequence for record in found], f"seed {SEED}"
