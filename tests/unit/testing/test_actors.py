"""Each hostile actor does its crime, under the real codecs, and an honest node believes none of it."""

import pytest

from haif.base.clock import Instant
from haif.base.errors import Reason
from haif.base.ids import Digest
from haif.base.machine import Address
from haif.dht.contact import Contact, node_id
from haif.identity.keys import Identity
from haif.testing.actors import Actor, Eclipser, Equivocator, Flooder, Liar, Replayer, SlowWalker, ground
from haif.testing.directory import NET, Directory
from haif.testing.world import World

LAIR: Address = ("110.0.0.1", 4000)
TOPIC = Digest(b"t" * 31 + b"\1")  # of offers
SEED = 11


def town(count: int = 8) -> Directory:
    directory = Directory(World(seed=SEED))
    directory.grow(count)
    return directory


def settle(directory: Directory, actor: Actor, address: Address = LAIR) -> Actor:
    directory.world.add(address, actor)
    directory.world.do(address, lambda now: actor.greet(directory.nodes, now))
    directory.world.run(seconds=5)
    assert all(actor.peer in node.table for node in directory.nodes.values()), "whoever answers pings is known"
    return actor


def made(directory: Directory, name: str = "mallory") -> tuple[Identity, object]:
    entropy = directory.world.entropy(name)
    return Identity(entropy(32)), entropy


def dropped(directory: Directory) -> set[Reason]:
    return {reason for node in directory.nodes.values() for reason in node.counters.dropped}


def test_a_liars_peers_enter_no_table_and_the_truth_is_found_all_the_same() -> None:
    directory = town()
    identity, entropy = made(directory)
    liar = settle(directory, Liar(identity, NET, entropy))
    at = next(iter(directory.nodes))
    found = {contact.peer for contact in directory.find(at, TOPIC).contacts}
    real = {node.peer for node in directory.nodes.values()} | {liar.peer}
    assert liar.answered > 0
    assert found == real - {directory.nodes[at].peer}
    assert all(len(node.table) <= len(real) - 1 for node in directory.nodes.values())


def test_nothing_a_replayer_repeats_is_believed() -> None:
    directory = town()
    identity, entropy = made(directory)
    replayer = settle(directory, Replayer(identity, NET, entropy))
    owner, reader, *_ = directory.nodes
    directory.publish(owner, directory.record(owner, TOPIC))
    directory.publish(owner, directory.record(owner, TOPIC, sequence=2))
    assert [record.payload.sequence for record in directory.gather(reader, TOPIC).records] == [2]
    assert replayer.replayed > 10
    assert dropped(directory) & {Reason.BAD_SIGNATURE, Reason.UNAUTHENTICATED, Reason.WRONG_STATE}
    directory.world.run(seconds=30)
    assert [record.payload.sequence for record in directory.gather(reader, TOPIC).records] == [2]


def test_an_eclipser_names_only_its_accomplices_and_keeps_nothing() -> None:
    directory = town()
    identity, entropy = made(directory)
    gang = [Contact(Identity(bytes([n]) * 32).peer, (f"111.{n}.0.1", 4000)) for n in range(1, 31)]
    settle(directory, Eclipser(identity, NET, entropy, gang))
    owner, reader, *_ = directory.nodes
    stored = directory.publish(owner, directory.record(owner, TOPIC))
    assert identity.peer in stored.by, "it promises to keep the record"
    assert len(directory.gather(reader, TOPIC).records) == 1, "and in a small network others keep it too"


def test_of_an_equivocators_two_records_every_reader_ends_with_one_and_it_is_signed() -> None:
    directory = town()
    identity, entropy = made(directory)
    directory.identities[LAIR] = identity
    records = directory.record(LAIR, TOPIC, body=b"white"), directory.record(LAIR, TOPIC, body=b"black")
    settle(directory, Equivocator(identity, NET, entropy, records))
    for reader in directory.nodes:
        (record,) = directory.gather(reader, TOPIC).records
        assert record.evidence in records


def test_a_slow_walker_is_waited_for_once_it_is_known_and_delays_a_lookup_by_no_more_than_its_own_time() -> None:
    directory = town()
    address = next(iter(directory.nodes))
    node = directory.nodes[address]
    directory.world.kill(address)
    directory.world.add(address, SlowWalker(node, seconds=0.3))
    reader = list(directory.nodes)[3]
    directory.find(reader, node.id)  # it was quicker before, and is given up
    timed = directory.timed_find(reader, node.id)
    assert node.peer in {contact.peer for contact in timed.event.contacts}
    assert 0.3 <= timed.seconds <= 1.0


def test_a_flood_of_noise_fills_no_table_and_no_store() -> None:
    directory = town()
    identity, entropy = made(directory)
    flooder = Flooder(identity, NET, entropy, list(directory.nodes), 200.0)
    directory.world.add(LAIR, flooder)
    directory.world.run(seconds=20)
    assert flooder.sent > 3000
    real = {node.peer for node in directory.nodes.values()} | {identity.peer}  # the flooder answers pings
    for node in directory.nodes.values():
        assert {contact.peer for contact in node.table.closest(0, 100)} <= real
    assert all(len(node.store) == 0 for node in directory.nodes.values())
    assert {Reason.MALFORMED, Reason.OVERSIZE} <= dropped(directory)
    flooder.stop()
    directory.world.run(seconds=10)
    assert len(directory.find(next(iter(directory.nodes)), TOPIC).contacts) >= len(directory.nodes) - 1


def test_ground_identities_are_closer_than_told() -> None:
    within = 1 << (256 - 6)
    found = ground(TOPIC, 5, World(seed=1).entropy("grinder"), within=within)
    assert len({identity.peer for identity in found}) == 5
    assert all(node_id(identity.peer) ^ int.from_bytes(TOPIC, "big") < within for identity in found)
    with pytest.raises(AssertionError, match="tries"):
        ground(TOPIC, 5, World(seed=1).entropy("grinder"), within=1, tries_max=10)


def test_an_actor_never_wakes_unless_it_says_so() -> None:
    directory = town(2)
    identity, entropy = made(directory)
    actor = Actor(identity, NET, entropy)
    assert actor.wake_at() is None
    actor.wake(Instant(0.0))
    assert list(actor.outgoing(Instant(0.0))) == []
