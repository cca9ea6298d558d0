"""A simulated network of directory nodes: grow it, kill part of it, ask any of it, and know the true answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from haif.base.clock import Instant
from haif.base.ids import Digest, NetId, PeerId
from haif.base.machine import Address
from haif.dht.contact import node_id
from haif.dht.node import Node
from haif.dht.operations import Found, Gathered, Stored
from haif.identity.keys import Identity
from haif.protocol.records import Record, RecordKind, sign_record
from haif.testing.world import World

NET = NetId(b"a simulated network of our nodes")
OPERATION_SECONDS = 60.0  # virtual; far longer than any operation may take
EventT = TypeVar("EventT", Found, Stored, Gathered)


class Directory:
    """Nodes of one network in a world, each on a public address in a /16 of its own, all joined through the first."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.nodes: dict[Address, Node] = {}
        self.identities: dict[Address, Identity] = {}

    def grow(self, count: int, *, apart_seconds: float = 0.2) -> list[Address]:
        """Add nodes one after the other, each joining through the first; then let the network settle."""
        added = []
        for _ in range(count):
            added.append(self.add())
            self.world.run(seconds=apart_seconds)
        self.world.run(seconds=10)
        return added

    def kill(self, address: Address) -> None:
        """A node falls silent."""
        del self.nodes[address]
        self.world.kill(address)

    def find(self, at: Address, target: Digest) -> Found:
        """What a node finds."""
        return self._outcome(Found, at, lambda now: self.nodes[at].find(target, now))

    def publish(self, at: Address, record: bytes) -> Stored:
        """What becomes of a record that a node publishes."""
        return self._outcome(Stored, at, lambda now: self.nodes[at].publish(record, now))

    def gather(self, at: Address, topic: Digest) -> Gathered:
        """What a node reads at a topic."""
        return self._outcome(Gathered, at, lambda now: self.nodes[at].gather(topic, now))

    def record(
        self, owner: Address, topic: Digest, *, sequence: int = 1, ttl_ms: int = 600_000, body: bytes | None = b"here"
    ) -> bytes:
        """A record signed by a node; a tombstone if it has no body."""
        identity = self.identities[owner]
        return sign_record(
            identity,
            NET,
            Record(
                kind=RecordKind.OFFER,
                topic=topic,
                owner=identity.peer,
                sequence=sequence,
                expires=self.world.wall() + ttl_ms,
                tombstone=body is None,
                body=body or b"",
            ),
        )

    def closest(self, target: Digest, count: int, *, excluding: Address) -> list[PeerId]:
        """The peers truly closest to a target among the living."""
        key = int.from_bytes(target, "big")
        peers = (node.peer for address, node in self.nodes.items() if address != excluding)
        return sorted(peers, key=lambda peer: node_id(peer) ^ key)[:count]

    def add(self, *, joining: bool = True) -> Address:
        """Add a node, which joins through the first or knows nobody yet."""
        number = len(self.identities)
        address = (f"{20 + number % 160}.{number // 160 % 250}.{number // 40_000}.1", 4000)
        identity = Identity(self.world.entropy(f"identity {number}")(32))
        entropy = self.world.entropy(f"node {number}")
        node = Node(identity, NET, entropy=entropy, wall=self.world.wall, now=self.world.now())
        self.world.add(address, node)
        if self.nodes and joining:
            first = next(iter(self.nodes))
            self.world.do(address, lambda now: node.join([first], now))
        self.nodes[address], self.identities[address] = node, identity
        return address

    def _outcome(self, kind: type[EventT], at: Address, begin: Callable[[Instant], int]) -> EventT:
        number = self.world.do(at, begin)
        events = self.world.events_of(at)
        outcome: list[EventT] = []

        def arrived() -> bool:
            outcome.extend(event for event in events if isinstance(event, kind) and event.number == number)
            events.clear()
            return bool(outcome)

        ended = self.world.run(seconds=OPERATION_SECONDS, until=arrived)
        assert ended, f"an operation must end; seed {self.world.seed}"
        return outcome[0]
