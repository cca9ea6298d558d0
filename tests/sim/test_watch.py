"""Sixty nodes under virtual time: what is announced is known within a second, what is withdrawn within five."""

from functools import partial
from random import Random

import pytest

from haif.base import limits
from haif.base.clock import Instant
from haif.base.ids import Digest
from haif.base.machine import Address
from haif.dht import messages
from haif.dht.messages import Command, Kind
from haif.dht.operations import Changed
from haif.protocol.records import RecordKind, topic_at
from haif.testing.directory import Directory
from haif.testing.net import Conditions
from haif.testing.signatures import KeyedHashes
from haif.testing.world import World

SEED = 6
NODES = 60


class City:
    """A directory, and when its watchers knew."""

    def __init__(self, conditions: Conditions) -> None:
        self.directory = Directory(World(seed=SEED), signatures=KeyedHashes())
        self.world = self.directory.world
        self.addresses = self.directory.grow(NODES)
        self.world.conditions = conditions
        self.random = Random(SEED)
        self.topic = topic_at(RecordKind.OFFER, Digest(self.random.randbytes(32)))
        self.watchers = self.addresses[10:15]
        self.knew: dict[Address, Instant] = {}
        self.asked = 0
        self.world.ears.append(self._hear)
        self.world.taps.append(self._count)
        for address in self.watchers:
            self.world.do(address, partial(self.directory.nodes[address].watch, self.topic))
        self.world.run(seconds=20)

    def says(self, owner: Address, sequence: int, body: bytes | None) -> list[float]:
        """Seconds until each watcher knew what an owner said."""
        began = self.world.now()
        self.knew.clear()
        record = self.directory.record(owner, self.topic, sequence=sequence, body=body)
        self.world.do(owner, lambda now: self.directory.nodes[owner].publish(record, now))
        self.world.run(seconds=20)
        assert set(self.knew) >= set(self.watchers), f"everybody must learn of it; seed {SEED}"
        return [self.knew[address] - began for address in self.watchers]

    def live(self, at: Address) -> dict[Address, bytes]:
        by_peer = {node.peer: address for address, node in self.directory.nodes.items()}
        return {
            by_peer[owner]: record.payload.body for owner, record in self.directory.nodes[at].live(self.topic).items()
        }

    def _hear(self, now: Instant, address: Address, event: object) -> None:
        if isinstance(event, Changed):
            self.knew.setdefault(address, now)

    def _count(self, _now: Instant, source: Address, _to: Address, data: bytes) -> None:
        if data[1] == Kind.QUERY and source in self.watchers:
            query = messages.read_query(messages.read(data))
            self.asked += query.target == self.topic and query.command != Command.PING


@pytest.mark.parametrize(
    ("conditions", "announced", "withdrawn"),
    [(Conditions(), 1.0, 1.0), (Conditions(loss=0.05, duplication=0.02, reordering=0.05), 2.0, 5.0)],
    ids=["calm", "lossy"],
)
def test_every_watcher_knows_soon_what_an_owner_says(
    conditions: Conditions, announced: float, withdrawn: float
) -> None:
    city = City(conditions)
    owners = city.addresses[30:35]
    for owner in owners:
        assert max(city.says(owner, 1, b"one")) <= announced, f"seed {SEED}"
        assert max(city.says(owner, 2, b"two")) <= announced, f"seed {SEED}"
    assert [city.live(address) for address in city.watchers] == [dict.fromkeys(owners, b"two")] * 5
    for owner in owners:
        assert max(city.says(owner, 3, None)) <= withdrawn, f"seed {SEED}"
    assert [city.live(address) for address in city.watchers] == [{}] * 5


def test_watching_costs_little_while_nothing_changes() -> None:
    city = City(Conditions())
    city.says(city.addresses[30], 1, b"one")
    city.world.run(seconds=120)
    before = city.asked
    city.world.run(seconds=240)
    assert (city.asked - before) / (240 * len(city.watchers)) < 1.0, "queries a second"


def test_without_a_single_notice_everything_is_known_all_the_same() -> None:
    city = City(Conditions())
    for address in city.watchers:
        city.directory.nodes[address].attention.noticed = lambda *_: None  # type: ignore[method-assign]
    owner = city.addresses[30]
    record = city.directory.record(owner, city.topic)
    city.directory.publish(owner, record)
    city.world.run(seconds=1.2 * limits.WATCH_READ_SECONDS_MAX)
    assert [city.live(address) for address in city.watchers] == [{owner: b"here"}] * 5


def test_when_half_of_the_holders_die_the_watchers_find_others() -> None:
    city = City(Conditions())
    owner = city.addresses[30]
    city.says(owner, 1, b"one")
    near = city.directory.closest(city.topic, 10, excluding=owner)
    for address in [address for address, node in city.directory.nodes.items() if node.peer in near]:
        if address not in (*city.watchers, owner):
            city.directory.kill(address)
    city.world.run(seconds=120)
    assert max(city.says(owner, 2, b"two")) <= 2.0, f"seed {SEED}"
