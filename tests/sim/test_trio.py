"""Fifty nodes as fifty tasks under trio's MockClock: what the heap simulator plays holds under a scheduler, too."""

from collections.abc import Awaitable, Callable
from functools import partial
from random import Random
from typing import Any

import trio

from haif.base.clock import Instant
from haif.base.ids import Digest
from haif.base.machine import Address
from haif.dht.node import Node
from haif.dht.operations import Found, Gathered, Stored
from haif.protocol.records import RecordKind, topic_at
from haif.testing.directory import NET, Directory, address_of
from haif.testing.net import Conditions, partition
from haif.testing.scenarios import LOSSY
from haif.testing.signatures import KeyedHashes
from haif.testing.trio_driver import TrioNet, network, run
from haif.testing.world import World

SEED = 31
NODES = 50
MINUTE = 60.0


class Town:
    """Nodes that joined through one another, each in a task of its own. `books` signs and knows nothing of trio."""

    def __init__(self, net: TrioNet) -> None:
        self.net, self.random = net, Random(SEED)
        self.books = Directory(World(seed=SEED), signatures=KeyedHashes())
        self.nodes: dict[Address, Node] = {}
        self._told: dict[tuple[Address, int], Any] = {}

    async def grow(self) -> None:
        for number in range(NODES):
            address, entropy = address_of(number), self.books.world.entropy(f"node {number}")
            identity = self.books.identities[address] = self.books.signatures.identity(entropy(32))
            node = self.nodes[address] = Node(
                identity, NET, entropy=entropy, wall=self.books.world.wall, now=Instant(trio.current_time()),
                verify=self.books.signatures.verify,
            )  # fmt: skip
            self.net.add(address, node)
            if number:
                doors = [address_of(0), address_of(number // 2)]
                self.net.do(address, partial(node.join, doors))
            await trio.sleep(0.3)
        await trio.sleep(10)

    async def outcome(self, kind: type, at: Address, begin: Callable[[Instant], int]) -> Any:
        """What becomes of an operation."""
        number = self.net.do(at, begin)
        with trio.fail_after(MINUTE):
            while (at, number) not in self._told:
                event = await self.net.event_of(at)
                if isinstance(event, Found | Stored | Gathered):
                    self._told[at, event.number] = event
        event = self._told[at, number]
        assert isinstance(event, kind)
        return event

    async def publish(self) -> tuple[Digest, bytes]:
        """Somebody publishes a record."""
        owner, point = self.random.choice(list(self.nodes)), Digest(self.random.randbytes(32))
        topic = topic_at(RecordKind.OFFER, point)
        record = self.books.record(owner, topic)
        await self.outcome(Stored, owner, lambda now: self.nodes[owner].publish(record, now))
        return topic, record

    async def read(self, readers: list[Address], topic: Digest) -> list[list[bytes]]:
        """What so many read, one after the other."""
        gathered = [
            await self.outcome(Gathered, at, lambda now, at=at: self.nodes[at].gather(topic, now)) for at in readers
        ]
        return [[record.evidence for record in each.records] for each in gathered]

    def some(self, count: int) -> list[Address]:
        return self.random.sample(list(self.nodes), count)

    def kill(self, addresses: list[Address]) -> None:
        for address in addresses:
            self.net.kill(address)
            del self.nodes[address]


def play(story: Callable[[Town], Awaitable[None]], conditions: Conditions) -> list[Any]:
    async def main() -> list[Any]:
        async with network(seed=SEED, conditions=conditions) as net:
            town = Town(net)
            await town.grow()
            await story(town)
            return net.sent

    sent: list[Any] = run(main, seed=SEED)
    return sent


async def lossy(town: Town) -> None:
    topic, record = await town.publish()
    assert await town.read(town.some(10), topic) == [[record]] * 10


async def mass_death(town: Town) -> None:
    topic, record = await town.publish()
    town.kill(town.some(NODES // 2))
    assert await town.read(town.some(10), topic) == [[record]] * 10


async def split(town: Town) -> None:
    now = trio.current_time()
    town.net.strike(partition(town.some(NODES // 3), begins=now, ends=now + 2 * MINUTE))
    topic, record = await town.publish()
    await trio.sleep(now + 2 * MINUTE - trio.current_time())
    assert await town.read(town.some(10), topic) == [[record]] * 10


def test_fifty_tasks_find_every_record_with_a_twentieth_of_all_datagrams_lost_and_a_seed_replays_it() -> None:
    assert play(lossy, LOSSY) == play(lossy, LOSSY)


def test_half_of_fifty_tasks_are_cancelled_and_the_others_find_every_record() -> None:
    play(mass_death, Conditions())


def test_a_network_of_fifty_tasks_that_was_split_finds_what_either_side_published() -> None:
    play(split, Conditions())
