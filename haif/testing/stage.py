"""Where a scenario plays: a grown network, records published in it, sampled readers, and what they saw in figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any

from haif.base import codec, limits
from haif.base.clock import Instant
from haif.base.errors import HaifError
from haif.base.ids import Digest, PeerId
from haif.base.machine import Address
from haif.dht import messages
from haif.dht.contact import Contact, unpack_contacts
from haif.dht.messages import Kind
from haif.dht.operations import Found, Gathered, Stored
from haif.identity.keys import SIGNATURE_BYTES
from haif.protocol.records import RecordKind, presence_topic, topic_at
from haif.testing.directory import NET, OPERATION_SECONDS, Directory
from haif.testing.signatures import Signatures
from haif.testing.world import World

Tell = Callable[[str], None]
"""Told in a few words what is going on."""

_JOIN_SECONDS = 10.0  # virtual; after it a newcomer publishes, and after it again others rely on that
_TOLD_EVERY = 25  # nodes


@dataclass(slots=True)
class Figures:
    """What was measured. Seconds are simulated."""

    readings: int = 0
    found: int = 0
    read_seconds: list[float] = field(default_factory=list)
    lookup_seconds: list[float] = field(default_factory=list)
    queries: list[int] = field(default_factory=list)  # of each lookup
    hops: list[int] = field(default_factory=list)  # 1: the closest peer was in the asker's own table
    right: int = 0
    wanted: int = 0

    @property
    def found_share(self) -> float:
        """Of all readings, the share that gave the live record."""
        return self.found / self.readings if self.readings else 1.0

    @property
    def recall(self) -> float:
        """Of the true k closest, the share that lookups found."""
        return self.right / self.wanted if self.wanted else 1.0


class Stage:
    """A network of `nodes` joined nodes with a few records in it."""

    def __init__(
        self,
        *,
        seed: int,
        nodes: int,
        tell: Tell = lambda _: None,
        signatures: Signatures | None = None,
    ) -> None:
        self.directory = Directory(World(seed=seed), signatures=signatures)
        self.world = self.directory.world
        self.random = Random(f"{seed}/stage")  # noqa: S311 - replayed, never secret
        self.figures = Figures()
        self.read: list[bytes] = []
        self.complaints: list[str] = []  # what a story itself found to be wrong
        self.owners: dict[Digest, Address] = {}  # topic, and who published there
        self._sequences: dict[Digest, int] = {}
        self._live: dict[Digest, bytes] = {}  # the newest record of each topic
        self.crooked: set[Address] = set()  # nodes that are no longer honest, and do not read
        self._nodes, self._kind, self.tell = nodes, RecordKind.OFFER, tell

    def grow(self) -> None:
        """Let all nodes join, one after the other."""
        for number in range(self._nodes):
            self.directory.add()
            self.world.run(seconds=0.2)
            if number % _TOLD_EVERY == 0:
                self.tell(f"{number} of {self._nodes} nodes have joined")
        self.world.run(seconds=20)

    def publish(
        self, count: int, *, ttl_ms: int = limits.RECORD_TTL_MS_MAX, kind: RecordKind = RecordKind.OFFER
    ) -> None:
        """Random owners publish a record each, of one kind from now on, at topics of their own."""
        self._kind = kind
        for owner in self.random.choices(list(self.directory.nodes), k=count):
            self.owners[self._place(owner)] = owner
        self.renew(ttl_ms=ttl_ms)

    def renew(self, *, ttl_ms: int = limits.RECORD_TTL_MS_MAX) -> None:
        """Every owner that lives publishes again, all at once, under the next sequence; ends when all have done so."""
        living = [(topic, owner) for topic, owner in self.owners.items() if owner in self.directory.nodes]
        self._all([(owner, partial(self._announce, topic, owner, ttl_ms)) for topic, owner in living])

    def succeed(self, topic: Digest, newcomer: Address) -> None:
        """An owner is gone and its topic with it; a newcomer publishes at one of its own as soon as it has joined."""
        del self.owners[topic]
        fresh = self._place(newcomer)

        def live() -> None:
            if newcomer in self.directory.nodes:
                self.owners[fresh] = newcomer

        def joined() -> None:
            if newcomer in self.directory.nodes:
                self.world.do(newcomer, partial(self._announce, fresh, newcomer, limits.RECORD_TTL_MS_MAX))
                self.world.later(_JOIN_SECONDS, live)

        self.world.later(_JOIN_SECONDS, joined)

    def topic(self) -> Digest:
        """A random point of the key space."""
        return Digest(self.random.randbytes(Digest.size))

    def some(self, share: float, *, sparing: Sequence[Address] = ()) -> list[Address]:
        """A share of the nodes, drawn at random."""
        free = [address for address in self.directory.nodes if address not in sparing]
        return self.random.sample(free, min(len(free), round(share * len(self.directory.nodes))))

    def read_records(self, readings: int) -> None:
        """Readers drawn at random read records drawn at random, all beginning at once; what they see is counted."""
        self.tell(f"{readings} readings at {self.world.now():.0f} s")
        jobs = [(self._reader(), self.random.choice(list(self.owners))) for _ in range(readings)]
        ended = self._all([(reader, partial(self.directory.nodes[reader].gather, topic)) for reader, topic in jobs])
        for (reader, topic), outcome in zip(jobs, ended, strict=True):
            if reader not in self.directory.nodes:
                continue  # died over it
            self.figures.readings += 1
            if outcome is None:
                continue
            event, seconds = outcome
            assert isinstance(event, Gathered), "reading ends in Gathered"
            evidence = [record.evidence for record in event.records]
            self.read += evidence
            self.figures.found += self._live[topic] in evidence
            self.figures.read_seconds.append(seconds)

    def look_up(self, lookups: int) -> None:
        """Readers drawn at random look for points drawn at random, all beginning at once."""
        self.tell(f"{lookups} lookups at {self.world.now():.0f} s")
        jobs = [(self._reader(), self.topic()) for _ in range(lookups)]
        depths = Depths()
        for reader, target in jobs:
            depths.begin(
                reader, self.directory.nodes[reader].table.closest(int.from_bytes(target, "big"), limits.DHT_K)
            )
        self.world.taps.append(depths.heard)
        ended = self._all([(reader, partial(self.directory.nodes[reader].find, target)) for reader, target in jobs])
        self.world.taps.remove(depths.heard)
        for (reader, target), outcome in zip(jobs, ended, strict=True):
            if reader not in self.directory.nodes:
                continue  # died over it
            truth = set(self.directory.closest(target, limits.DHT_K, excluding=reader))
            self.figures.wanted += len(truth)
            if outcome is None:
                continue
            event, seconds = outcome
            assert isinstance(event, Found), "a lookup ends in Found"
            self.figures.right += len(truth & {contact.peer for contact in event.contacts})
            self.figures.lookup_seconds.append(seconds)
            self.figures.queries.append(event.queries)
            if event.contacts:
                self.figures.hops.append(depths.of(reader, event.contacts[0].peer))

    # --- below --------------------------------------------------------------------------------------------------------

    def _reader(self) -> Address:
        return self.random.choice([address for address in self.directory.nodes if address not in self.crooked])

    def _place(self, owner: Address) -> Digest:
        """Where an owner publishes; a presence has its own place."""
        if self._kind is RecordKind.PRESENCE:
            return presence_topic(NET, self.directory.identities[owner].peer)
        return topic_at(self._kind, self.topic())

    def _announce(self, topic: Digest, owner: Address, ttl_ms: int, now: Instant) -> int:
        self._sequences[topic] = sequence = self._sequences.get(topic, 0) + 1
        self._live[topic] = record = self.directory.record(
            owner, topic, sequence=sequence, ttl_ms=ttl_ms, kind=self._kind
        )
        return self.directory.nodes[owner].publish(record, now)

    def _all(self, begins: Sequence[tuple[Address, Callable[[Instant], int]]]) -> list[tuple[Any, float] | None]:
        """Begin operations at once and wait for all; None for one that did not end in time."""
        ended: dict[tuple[Address, int], tuple[Any, float]] = {}
        open_at: Counter[Address] = Counter()
        began = self.world.now()

        def heard(at: Instant, whose: Address, event: Any) -> None:
            if isinstance(event, Found | Gathered | Stored):
                ended[whose, event.number] = event, at - began
                open_at[whose] -= 1
                if not open_at[whose]:
                    del open_at[whose]

        self.world.ears.append(heard)
        wanted = []
        for address, begin in begins:
            open_at[address] += 1
            wanted.append((address, self.world.do(address, begin)))
        nodes = self.directory.nodes.keys()
        self.world.run(seconds=OPERATION_SECONDS, until=lambda: open_at.keys().isdisjoint(nodes))
        self.world.ears.remove(heard)
        return [ended.get(each) for each in wanted]


class Depths:
    """How many answers stood between askers and each peer they learned of: 1 is what their own tables held."""

    def __init__(self) -> None:
        self._known: dict[Address, dict[PeerId, int]] = {}

    def begin(self, asker: Address, seeds: Sequence[Contact]) -> None:
        """Someone begins to look, with these from its own table."""
        self._known.setdefault(asker, {}).update((contact.peer, 1) for contact in seeds)

    def heard(self, _at: Instant, _source: Address, destination: Address, data: bytes) -> None:
        """Look into a datagram as it is delivered."""
        known = self._known.get(destination)
        if known is None:
            return
        try:
            datagram = messages.read(data)
            if datagram.kind is not Kind.REPLY:
                return
            body = datagram.rest[SIGNATURE_BYTES:]
            peer = PeerId(body[: PeerId.size])
            reply = codec.decode(messages.Reply, body[PeerId.size :], size_max=limits.DATAGRAM_BYTES_MAX)
            depth = known.setdefault(peer, 1) + 1
            for contact in unpack_contacts(reply.contacts):
                known.setdefault(contact.peer, depth)
        except (HaifError, ValueError):
            return  # hostile

    def of(self, asker: Address, peer: PeerId) -> int:
        """The hop at which this peer could first be asked."""
        return self._known[asker].get(peer, 1)
