"""A key under siege: Sybils ground into the region around it, older than the honest nodes or not, owners and readers.

    siege = Siege(nodes=300, sybils=Sybils(count=200), seed=5)
    result = siege.read(owners=3, readers=8)

Tables are as after a long life: every node has heard of everybody, in the order of their age; or the network is grown
by real joins, Sybils first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from random import Random
from typing import Final

from haif.base import limits
from haif.base.ids import Digest
from haif.base.machine import Address
from haif.dht.contact import Contact, node_id
from haif.dht.size import region
from haif.dht.table import ID_BITS
from haif.identity.keys import Identity
from haif.protocol.records import RecordKind, topic_at
from haif.testing.actors import Sybil, ground
from haif.testing.directory import NET, PORT, Directory
from haif.testing.world import World

_POINT: Final = Digest(Random("the key under siege").randbytes(Digest.size))  # noqa: S311 - replayed, never secret
KEY: Final = topic_at(RecordKind.OFFER, _POINT)
_HEARD: Final = 60  # honest peers a node hears of for each bucket of k: more changes nothing
_HEARD_CONTESTED: Final = 200  # the same for a bucket in which there are Sybils; of these it hears in proportion


class Age(StrEnum):
    """Of the Sybils, by when they came to everybody's table."""

    OLDER = "older"
    SAME = "same"
    YOUNGER = "younger"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sybils:
    """So many, each in a /24 and a /16 of its own, spread over so many regions; 0.01 is a crowd right at the key.

    `claims`: how many records each says it holds. `invents`: of the contacts it names, how many do not exist.
    """

    count: int
    age: Age = Age.OLDER
    regions: float = 1.0
    claims: int = 0
    invents: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What the readers found of what the owners published. Queries and datagrams are of one read or one write."""

    found: float
    holders: int  # honest, of the owner that has the fewest
    honest: int  # nodes in the region
    queries: float
    queries_max: int
    datagrams: float  # sent and received by the reader meanwhile
    datagrams_max: int
    writing: int  # datagrams of the dearest write
    suspected: int  # reads in which an eclipse was
    nodes_estimated: float


@lru_cache(maxsize=16)
def _ground(count: int, within: int) -> tuple[Identity, ...]:
    random = Random(f"grinding {count} {within}")  # noqa: S311 - replayed, never secret
    return tuple(ground(KEY, count, random.randbytes, within=within))


class Siege:
    """A network and its Sybils. With `grown`, honest nodes really join, one after the other."""

    def __init__(self, *, nodes: int, sybils: Sybils, seed: int, grown: bool = False) -> None:
        self.town = Directory(World(seed=seed))
        self._random = Random(f"{seed}/siege")  # noqa: S311 - replayed, never secret
        self._region = region(nodes)
        self.sybils: list[Sybil] = []
        self._move_in(sybils)
        for _ in range(nodes):
            self.town.add(joining=grown)
            if grown:
                self._settle()
        if not grown:
            self._acquaint(sybils.age)

    def read(self, *, owners: int, readers: int) -> Result:
        """Owners publish at the key, then readers read there; who has lived long knows how large the network is."""
        town = self.town
        chosen = self._random.sample(list(town.nodes), owners + readers)
        for address in chosen:
            self._gauge(address)
        honest = {node.peer for node in town.nodes.values()}
        holders, writing = [], []
        for owner in chosen[:owners]:
            before = self._datagrams(owner)
            holders.append(len(honest.intersection(town.publish(owner, town.record(owner, KEY)).by)))
            writing.append(self._datagrams(owner) - before)
        wanted = {town.identities[owner].peer for owner in chosen[:owners]}
        found, queries, datagrams = [], [], []
        suspected = sum(town.nodes[reader].counters.eclipses_suspected for reader in chosen[owners:])
        for reader in chosen[owners:]:
            before = self._datagrams(reader)
            gathered = town.gather(reader, KEY)
            found.append(len(wanted & {record.signer for record in gathered.records}) / len(wanted))
            queries.append(gathered.queries)
            datagrams.append(self._datagrams(reader) - before)
        return Result(
            found=sum(found) / readers,
            holders=min(holders),
            honest=sum(node_id(peer) ^ int.from_bytes(KEY, "big") < self._region for peer in honest),
            queries=sum(queries) / readers,
            queries_max=max(queries),
            datagrams=sum(datagrams) / readers,
            datagrams_max=max(datagrams),
            writing=max(writing),
            suspected=sum(town.nodes[at].counters.eclipses_suspected for at in chosen[owners:]) - suspected,
            nodes_estimated=sum(town.nodes[at].nodes_estimated(town.world.now()) for at in chosen) / len(chosen),
        )

    # --- below --------------------------------------------------------------------------------------------------------

    def _move_in(self, sybils: Sybils) -> None:
        world = self.town.world
        identities = _ground(sybils.count, int(self._region * sybils.regions)) if sybils.count else ()
        gang = [Contact(identity.peer, _address(number)) for number, identity in enumerate(identities)]
        for identity, contact in zip(identities, gang, strict=True):
            entropy = world.entropy(f"sybil {contact.address[0]}")
            sybil = Sybil(
                identity, NET, entropy, gang, claims=sybils.claims, invents=sybils.invents, within=self._region
            )
            self.sybils.append(sybil)
            world.add(contact.address, sybil)

    def _settle(self) -> None:
        """A newcomer joins, and every Sybil greets it."""
        world, newest = self.town.world, list(self.town.nodes)[-1]
        world.run(seconds=0.2)
        for number, sybil in enumerate(self.sybils):
            world.do(_address(number), _greeting(sybil, newest))
        world.run(seconds=0.2)

    def _acquaint(self, age: Age) -> None:
        honest = [Contact(node.peer, address) for address, node in self.town.nodes.items()]
        gang = [Contact(sybil.peer, _address(number)) for number, sybil in enumerate(self.sybils)]
        for node in self.town.nodes.values():
            self._random.shuffle(honest)
            self._random.shuffle(gang)
            everybody = [*honest, *gang] if age is Age.YOUNGER else [*gang, *honest]
            if age is Age.SAME:
                self._random.shuffle(everybody)
            node.table.widen(limits.DHT_FENCE_REGIONS * self._region)
            own, now = int.from_bytes(node.id, "big"), self.town.world.now()
            for contact in _heard(own, everybody, {contact.peer for contact in gang}):
                node.table.heard(contact, now)

    def _gauge(self, at: Address) -> None:
        node = self.town.nodes[at]
        for _ in range(limits.NETWORK_SAMPLES_MIN):
            self.town.world.do(at, node.gauge)
            self.town.world.run(seconds=30, until=lambda: not node.busy)

    def _datagrams(self, at: Address) -> int:
        counters = self.town.nodes[at].counters
        return counters.datagrams_in + counters.datagrams_out


def _heard(own: int, everybody: Sequence[Contact], gang: set[bytes]) -> list[Contact]:
    """Of each bucket so many honest peers and Sybils as matter, in proportion."""
    prefixes = [ID_BITS - (own ^ node_id(contact.peer)).bit_length() for contact in everybody]
    kinds = [(prefix, contact.peer in gang) for prefix, contact in zip(prefixes, everybody, strict=True)]
    total, taken = Counter(kinds), Counter[tuple[int, bool]]()
    heard = []
    for contact, (prefix, hostile) in zip(everybody, kinds, strict=True):
        room = _HEARD_CONTESTED if total[prefix, True] else _HEARD
        share = min(1.0, room / max(total[prefix, False], 1))
        if taken[prefix, hostile] < share * total[prefix, hostile]:
            taken[prefix, hostile] += 1
            heard.append(contact)
    return heard


def _greeting(sybil: Sybil, whom: Address) -> Callable[..., None]:
    return lambda now: sybil.greet([whom], now)


def _address(number: int) -> Address:
    return f"{200 + number % 20}.{number // 20}.7.1", PORT
