"""Two hundred directory nodes under virtual time, with worse than life on the network between them."""

from random import Random

import pytest

from haif.base import limits
from haif.base.ids import Digest
from haif.protocol.records import RecordKind, presence_topic, topic_at
from haif.testing.directory import NET, Directory
from haif.testing.net import Conditions, partition
from haif.testing.signatures import KeyedHashes
from haif.testing.world import World

SEED = 20
NODES = 200
PERFECT = Conditions()
LOSSY = Conditions(loss=0.05, duplication=0.02, reordering=0.05)


@pytest.fixture(scope="module")
def city() -> Directory:
    directory = Directory(World(seed=SEED))
    directory.grow(NODES)
    return directory


def test_two_hundred_nodes_that_know_one_address_find_the_closest_peers(city: Directory) -> None:
    city.world.conditions = PERFECT
    random = Random(1)
    found = wanted = queries = 0
    for _ in range(25):
        at, target = random.choice(list(city.nodes)), Digest(random.randbytes(32))
        truth = set(city.closest(target, limits.DHT_K, excluding=at))
        result = city.find(at, target)
        found += len(truth & {contact.peer for contact in result.contacts})
        wanted += len(truth)
        queries += result.queries
    assert found / wanted >= 0.99, f"recall {found / wanted}, seed {SEED}"
    assert queries / 25 <= 40, f"{queries / 25} queries a lookup, seed {SEED}"


def test_with_a_twentieth_of_all_datagrams_lost_everybody_finds_every_record(city: Directory) -> None:
    city.world.conditions = LOSSY
    random = Random(2)
    topic = topic_at(RecordKind.OFFER, Digest(random.randbytes(32)))
    owners = random.sample(list(city.nodes), 3)
    for owner in owners:
        assert len(city.publish(owner, city.record(owner, topic)).by) >= 15
    wanted = {city.identities[owner].peer for owner in owners}
    for reader in random.sample(list(city.nodes), 25):
        assert {record.signer for record in city.gather(reader, topic).records} == wanted, f"seed {SEED}"


def recall(city: Directory, target: Digest, random: Random, *, lookups: int) -> float:
    found = wanted = 0
    for reader in random.sample(list(city.nodes), lookups):
        truth = set(city.closest(target, limits.DHT_K, excluding=reader))
        found += len(truth & {contact.peer for contact in city.find(reader, target).contacts})
        wanted += len(truth)
    return found / wanted


def test_a_record_and_the_lookups_survive_the_death_of_a_fifth_of_the_nodes(city: Directory) -> None:
    city.world.conditions = PERFECT
    random = Random(3)
    topic = topic_at(RecordKind.OFFER, Digest(random.randbytes(32)))
    owner = random.choice(list(city.nodes))
    city.publish(owner, city.record(owner, topic))
    for address in random.sample(list(city.nodes), NODES // 5):
        city.kill(address)
    for reader in random.sample(list(city.nodes), 15):
        assert [record.signer for record in city.gather(reader, topic).records] == [city.identities[owner].peer]
    assert recall(city, topic, random, lookups=15) >= 0.9, f"seed {SEED}"  # answers still name the dead
    city.world.run(seconds=limits.DHT_SELF_LOOKUP_SECONDS + 10)
    assert recall(city, topic, random, lookups=15) >= 0.99, f"seed {SEED}"


def village(seed: int) -> str:
    directory = Directory(World(seed=seed, conditions=LOSSY))
    addresses = directory.grow(20)
    topic = Digest(bytes(31) + b"\1")
    directory.publish(addresses[3], directory.record(addresses[3], topic))
    directory.gather(addresses[9], topic)
    directory.world.run(seconds=700)  # past a refresh of the tables
    return directory.world.trace()


def test_the_same_seed_gives_the_same_datagrams_to_the_last_byte() -> None:
    assert village(7) == village(7)
    assert village(8) != village(7)


def test_a_node_cut_off_before_it_knew_anybody_comes_back_through_its_bootstrap_address() -> None:
    directory = Directory(World(seed=4, conditions=Conditions(loss=1.0)))
    first, second = directory.grow(2)
    assert len(directory.nodes[second].table) == 0
    directory.world.conditions = PERFECT
    directory.world.run(seconds=2 * limits.DHT_SELF_LOOKUP_SECONDS)
    assert directory.nodes[first].peer in directory.nodes[second].table
    assert directory.nodes[second].peer in directory.nodes[first].table


def test_after_a_blackout_everybody_knows_everybody_again() -> None:
    directory = Directory(World(seed=5))
    addresses = directory.grow(10)
    directory.world.conditions = Conditions(loss=1.0)
    directory.world.run(seconds=2 * limits.DHT_SELF_LOOKUP_SECONDS)
    assert all(len(node.table) == 0 for node in directory.nodes.values())
    directory.world.conditions = PERFECT
    directory.world.run(seconds=limits.DHT_SELF_LOOKUP_SECONDS)
    target = directory.nodes[addresses[7]].id
    found = {contact.peer for contact in directory.find(addresses[2], target).contacts}
    assert found == set(directory.closest(target, limits.DHT_K, excluding=addresses[2]))


def test_two_halves_that_forgot_each_other_over_hours_apart_find_each_others_records_once_the_network_heals() -> None:
    directory = Directory(World(seed=6), signatures=KeyedHashes())
    addresses, world = directory.grow(30), directory.world
    sides = addresses[:15], addresses[15:]
    world.strike(partition(sides[1], begins=world.now(), ends=world.now() + 6 * 3600))
    world.run(seconds=6 * 3600)
    peers = [{directory.nodes[address].peer for address in side} for side in sides]
    for side, others in zip(sides, reversed(peers), strict=True):
        assert not any(peer in directory.nodes[address].table for address in side for peer in others)
    world.run(seconds=limits.DHT_SELF_LOOKUP_SECONDS_MAX + 60)
    topic = Digest(b"h" * 31 + b"\1")
    for side in sides:
        directory.publish(side[3], directory.record(side[3], topic))
    wanted = {directory.nodes[side[3]].peer for side in sides}
    for reader in addresses:
        assert {record.signer for record in directory.gather(reader, topic).records} == wanted


def test_a_presence_is_read_from_three_that_agree_while_an_offer_is_asked_of_everybody(city: Directory) -> None:
    city.world.conditions = PERFECT
    owner, reader = list(city.nodes)[5], list(city.nodes)[150]
    place = presence_topic(NET, city.identities[owner].peer)
    offers = Digest(b"o" * 31 + b"\1")
    presence, offer = city.record(owner, place, kind=RecordKind.PRESENCE), city.record(owner, offers)
    for record in (presence, offer):
        city.publish(owner, record)
    quick, whole = city.timed_gather(reader, place), city.timed_gather(reader, offers)
    assert [record.evidence for record in quick.event.records] == [presence]
    assert [record.evidence for record in whole.event.records] == [offer]
    assert quick.seconds < whole.seconds
