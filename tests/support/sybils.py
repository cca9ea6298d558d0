"""A town of directory nodes whose tables are as after a long life, and Sybils ground against one key."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from heapq import nsmallest
from random import Random

from haif.base import limits
from haif.base.clock import Instant
from haif.base.ids import Digest, PeerId
from haif.base.machine import Address
from haif.dht import messages
from haif.dht.contact import Contact, node_id, pack_address, pack_contacts
from haif.dht.messages import Command, Kind, Reply
from haif.dht.table import ID_BITS
from haif.identity.keys import Identity
from haif.testing.directory import NET, Directory
from haif.testing.world import World

KEY = Digest(Random("the key under attack").randbytes(32))
_TOKEN = b"t" * messages.TOKEN_BYTES


@lru_cache(maxsize=4)
def ground(count: int, tried: int, key: Digest = KEY) -> tuple[Identity, ...]:
    """The identities closest to a key among so many tried."""
    random, target = Random(f"grinding {tried}"), int.from_bytes(key, "big")
    seeds = (random.randbytes(32) for _ in range(tried))
    found = nsmallest(count, ((node_id(Identity(seed).peer) ^ target, seed) for seed in seeds))
    return tuple(Identity(seed) for _, seed in found)


class Sybil:
    """Answers every question under its own name, names only its fellows, and keeps no record it takes."""

    def __init__(self, identity: Identity, fellows: Callable[[int], Sequence[Contact]], *, claims: int = 0) -> None:
        self.identity, self._fellows, self._claims = identity, fellows, claims
        self.asked = 0
        self._outgoing: deque[tuple[bytes, Address]] = deque()

    def receive(self, data: bytes, source: Address, now: Instant) -> None:
        datagram = messages.read(data)
        if datagram.kind is not Kind.QUERY:
            return
        self.asked += 1
        query = messages.read_query(datagram)
        reply = Reply(pack_address(source), _TOKEN)
        if query.command == Command.FIND:
            near = self._fellows(int.from_bytes(query.target, "big"))
            reply = Reply(reply.observed, _TOKEN, contacts=pack_contacts(near, 900), held=self._claims)
        self._outgoing.append((messages.sign_reply(self.identity, NET, datagram, reply), source))

    def outgoing(self, now: Instant) -> Iterable[tuple[bytes, Address]]:
        while self._outgoing:
            yield self._outgoing.popleft()

    def next_event(self) -> None:
        return None

    def wake_at(self) -> None:
        return None

    def wake(self, now: Instant) -> None:
        raise AssertionError("nobody asked for it")


def contacts_of(town: Directory) -> list[Contact]:
    return [Contact(node.peer, address) for address, node in town.nodes.items()]


def add_sybils(
    world: World, identities: Sequence[Identity], address: Callable[[int], Address], *, claims: int = 0
) -> list[Contact]:
    """Put Sybils on the network that know one another."""
    known = [Contact(identity.peer, address(number)) for number, identity in enumerate(identities)]

    def fellows(target: int) -> Sequence[Contact]:
        return nsmallest(limits.DHT_K, known, key=lambda contact: node_id(contact.peer) ^ target)

    for identity, contact in zip(identities, known, strict=True):
        world.add(contact.address, Sybil(identity, fellows, claims=claims))
    return known


def acquaint(town: Directory, order: Callable[[Address], Iterable[Contact]]) -> None:
    """Let each node have heard of everybody, in this order: whoever comes first holds the places in its buckets."""
    honest = {node.peer for node in town.nodes.values()}
    for address, node in town.nodes.items():
        now, own = town.world.now(), int.from_bytes(node.id, "big")
        room = dict.fromkeys(range(ID_BITS + 1), 3 * limits.DHT_K)  # hearing more changes nothing that matters here
        for contact in order(address):
            prefix = ID_BITS - (own ^ node_id(contact.peer)).bit_length()
            if room[prefix] > 0 or contact.peer not in honest:
                room[prefix] -= contact.peer in honest
                node.table.heard(contact, now)


def gauge(town: Directory, at: Address, *, lookups: int) -> None:
    """Let a node have made lookups of its own, as its upkeep does in the course of time."""
    node = town.nodes[at]
    for _ in range(lookups):
        town.world.do(at, node.gauge)
        town.world.run(seconds=30, until=lambda: not node.busy)


def honest_holders(town: Directory, holders: Iterable[PeerId]) -> int:
    return len({node.peer for node in town.nodes.values()} & set(holders))
