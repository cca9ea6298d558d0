"""A simulated network of directory nodes: grow it, kill part of it, ask any of it, and know the true answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from haif.base import limits
from haif.base.clock import Instant
from haif.base.ids import Digest, NetId, PeerId
from haif.base.machine import Address
from haif.dht.contact import node_id
from haif.dht.diversity import networks
from haif.dht.node import Node
from haif.dht.operations import Found, Gathered, Stored
from haif.identity.keys import Identity
from haif.protocol.records import Record, RecordKind, sign_record
from haif.testing.signatures import Ed25519, Signatures
from haif.testing.world import World

NET = NetId(b"a simulated network of our nodes")
PORT = 4000
OPERATION_SECONDS = 60.0  # virtual; far longer than any operation may take
_BOOTSTRAP_ADDRESSES = 3
EventT = TypeVar("EventT", Found, Stored, Gathered)


@dataclass(frozen=True, slots=True)
class Timed(Generic[EventT]):
    """What came out of an operation, and after how many virtual seconds."""

    event: EventT
    seconds: float


class Directory:
    """Nodes of one network in a world, each in a /24 of its own, that join through the oldest ones alive.

    Where there are several, each has its `name`, and says where its nodes live (`at`).
    """

    def __init__(
        self,
        world: World,
        *,
        signatures: Signatures | None = None,
        name: str = "",
        at: Callable[[int], Address] | None = None,
    ) -> None:
        self.world, self._name, self._at = world, name, at or address_of
        self.signatures = signatures or Ed25519()
        self.nodes: dict[Address, Node] = {}
        self.identities: dict[Address, Identity] = {}  # of the dead, too
        self.guests: dict[Address, PeerId] = {}  # peers that answer and are no nodes: hostile ones
        self.published: dict[PeerId, set[bytes]] = {}  # every record that its owner signed here

    def grow(self, count: int, *, apart_seconds: float = 0.2) -> list[Address]:
        """Add nodes one after the other, each joining through an older one; then let the network settle."""
        added = []
        for _ in range(count):
            added.append(self.add())
            self.world.run(seconds=apart_seconds)
        self.world.run(seconds=10)
        return added

    def add(
        self, *, joining: bool = True, address: Address | None = None, ephemeral: bool = False,
        identity: Identity | None = None,
    ) -> Address:  # fmt: skip
        """One more node, which begins to join or knows nobody yet."""
        number = len(self.identities)
        address = address or self._at(number)
        made = self.signatures.identity(self.world.entropy(f"{self._name}identity {number}")(32))
        identity = identity or made
        entropy = self.world.entropy(f"{self._name}node {number}")
        node = Node(
            identity,
            NET,
            entropy=entropy,
            wall=self.world.wall_at(address),
            now=self.world.now(),
            ephemeral=ephemeral,
            verify=self.signatures.verify,
        )
        self.world.add(address, node)
        oldest = [known for known, _ in zip(self.nodes, range(_BOOTSTRAP_ADDRESSES), strict=False)]
        if oldest and joining:
            self.world.do(address, lambda now: node.join(oldest, now))
        self.nodes[address], self.identities[address] = node, identity
        return address

    def kill(self, address: Address) -> None:
        """A node falls silent."""
        del self.nodes[address]
        self.world.kill(address)

    def find(self, at: Address, target: Digest) -> Found:
        """What a node finds."""
        return self.timed_find(at, target).event

    def publish(self, at: Address, record: bytes) -> Stored:
        """What becomes of a record that a node publishes."""
        return self._outcome(Stored, at, lambda now: self.nodes[at].publish(record, now)).event

    def gather(self, at: Address, topic: Digest) -> Gathered:
        """What a node reads at a topic."""
        return self.timed_gather(at, topic).event

    def timed_find(self, at: Address, target: Digest) -> Timed[Found]:
        """The same as `find`, and how long it took."""
        return self._outcome(Found, at, lambda now: self.nodes[at].find(target, now))

    def timed_gather(self, at: Address, topic: Digest) -> Timed[Gathered]:
        """The same as `gather`, and how long it took."""
        return self._outcome(Gathered, at, lambda now: self.nodes[at].gather(topic, now))

    def record(
        self, owner: Address, topic: Digest, *, sequence: int = 1, ttl_ms: int = 600_000, body: bytes | None = b"here",
        kind: RecordKind = RecordKind.OFFER,
    ) -> bytes:  # fmt: skip
        """A record signed by a node under its own clock; a tombstone if it has no body."""
        identity = self.identities[owner]
        record = sign_record(
            identity,
            NET,
            Record(
                kind=kind,
                topic=topic,
                owner=identity.peer,
                sequence=sequence,
                expires=self.world.wall_at(owner)() + ttl_ms,
                tombstone=body is None,
                body=body or b"",
            ),
        )
        self.published.setdefault(identity.peer, set()).add(record)
        return record

    def closest(self, target: Digest, count: int, *, excluding: Address) -> list[PeerId]:
        """The honest among the peers truly closest to a target, of which each /24 has at most one."""
        key = int.from_bytes(target, "big")
        living = {address: node.peer for address, node in self.nodes.items() if not node.ephemeral}
        living.pop(excluding, None)
        ranked = sorted([*living.items(), *self.guests.items()], key=lambda each: node_id(each[1]) ^ key)
        closest: dict[bytes, PeerId] = {}
        for address, peer in ranked:
            closest.setdefault(networks(address).narrow, peer)
            if len(closest) == count:
                break
        hostile = set(self.guests.values())
        return [peer for peer in closest.values() if peer not in hostile]

    def recall(self, readers: Sequence[Address], targets: Sequence[Digest]) -> float:
        """The share of the true k closest that lookups find, one reader for each target."""
        right = wanted = 0
        for reader, target in zip(readers, targets, strict=True):
            truth = set(self.closest(target, limits.DHT_K, excluding=reader))
            right += len(truth & {contact.peer for contact in self.find(reader, target).contacts})
            wanted += len(truth)
        return right / wanted

    def _outcome(self, kind: type[EventT], at: Address, begin: Callable[[Instant], int]) -> Timed[EventT]:
        began = self.world.now()
        number = self.world.do(at, begin)
        events = self.world.events_of(at)
        outcome: list[EventT] = []

        def arrived() -> bool:
            outcome.extend(event for event in events if isinstance(event, kind) and event.number == number)
            events.clear()
            return bool(outcome)

        ended = self.world.run(seconds=OPERATION_SECONDS, until=arrived)
        assert ended, f"an operation must end; seed {self.world.seed}"
        return Timed(outcome[0], self.world.now() - began)


def address_of(number: int) -> Address:
    """Where the node with this number lives: public addresses, each in a /24 and, up to 20,000, in a /16 of its own."""
    return f"{20 + number % 80}.{number // 80 % 250}.{number // 20_000}.1", PORT
