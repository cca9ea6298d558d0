"""Hostile peers: they speak the real protocol with keys of their own, lie within it, and run as machines of a `World`.

Each answers pings like anybody, so that it enters the tables of those it greets; what it says beyond that is its crime.
What they may not do is forge another's signature: that nobody believes an unsigned word is what the checkers look at.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from heapq import heappop, heappush, nsmallest
from random import Random
from typing import Any, Final

from haif.base import limits
from haif.base.clock import Instant
from haif.base.errors import HaifError
from haif.base.ids import Digest, NetId, PeerId
from haif.base.machine import Address
from haif.dht import messages
from haif.dht.contact import Contact, node_id, pack_address, pack_contacts
from haif.dht.messages import Command, Datagram, Kind, Query, Reply
from haif.dht.node import Node
from haif.identity.keys import Identity

_CONTACT_BYTES_MAX: Final = 900  # k contacts at IPv4 addresses take 780
_HEARD_MAX: Final = 256  # datagrams a replayer remembers
_REPLAYS_PER_DATAGRAM: Final = 2


class Actor:
    """A peer that answers every query under its own signature: here, honestly and with nothing to say."""

    def __init__(self, identity: Identity, net: NetId, entropy: Callable[[int], bytes]) -> None:
        self.identity, self.net, self.entropy = identity, net, entropy
        self.answered = 0
        self._sending: deque[tuple[bytes, Address]] = deque()

    @property
    def peer(self) -> PeerId:
        """Who it is."""
        return self.identity.peer

    def greet(self, addresses: Iterable[Address], _now: Instant) -> None:
        """Ask others something, so that they ping back and take us into their tables."""
        target = Digest(node_id(self.peer).to_bytes(Digest.size, "big"))
        for address in addresses:
            tid = self.entropy(messages.TID_BYTES)
            self.send(messages.write_query(tid, Command.PING, target, b"", None, self.peer), address)

    def send(self, data: bytes, destination: Address) -> None:
        """Have a datagram leave."""
        self._sending.append((data, destination))

    def reply(self, query: Query, source: Address, now: Instant) -> Reply:  # noqa: ARG002 - others look at all of it
        """What it says to a query."""
        return Reply(pack_address(source), bytes(messages.TOKEN_BYTES))

    # --- the machine --------------------------------------------------------------------------------------------------

    def receive(self, data: bytes, source: Address, now: Instant) -> None:
        """A datagram arrived; what is no query is ignored."""
        try:
            datagram = messages.read(data)
            if datagram.kind is Kind.QUERY:
                self.on_query(datagram, messages.read_query(datagram), source, now)
        except HaifError:
            return  # hostile peers meet each other, too

    def on_query(self, datagram: Datagram, query: Query, source: Address, now: Instant) -> None:
        """Answer a query."""
        self.answered += 1
        self.send(messages.sign_reply(self.identity, self.net, datagram, self.reply(query, source, now)), source)

    def outgoing(self, now: Instant) -> Iterable[tuple[bytes, Address]]:  # noqa: ARG002 - the form of every Machine
        """What to send, each once."""
        while self._sending:
            yield self._sending.popleft()

    def next_event(self) -> None:
        """Nothing to tell anybody."""

    def wake_at(self) -> Instant | None:
        """Never, unless it says so."""
        return None

    def wake(self, now: Instant) -> None:
        """Time has passed."""


class Liar(Actor):
    """Names twenty peers that do not exist, at addresses where nobody or a victim listens, for whatever it is asked."""

    def reply(self, query: Query, source: Address, now: Instant) -> Reply:
        """Contacts of nobody, close to what is looked for; and records it has not."""
        honest = super().reply(query, source, now)
        if query.command != Command.FIND:
            return honest
        invented = [
            Contact(PeerId(self.entropy(PeerId.size)), (f"{20 + a % 80}.{b}.{c}.7", 4000))
            for a, b, c in (self.entropy(3) for _ in range(limits.DHT_K))
        ]
        return Reply(honest.observed, honest.token, contacts=pack_contacts(invented, _CONTACT_BYTES_MAX), held=3)


class Replayer(Actor):
    """Sends every datagram it has heard a second time, to others and with others' tids, hoping to be believed."""

    def __init__(self, identity: Identity, net: NetId, entropy: Callable[[int], bytes]) -> None:
        super().__init__(identity, net, entropy)
        self._heard: deque[bytes] = deque(maxlen=_HEARD_MAX)
        self.replayed = 0

    def receive(self, data: bytes, source: Address, now: Instant) -> None:
        """Answer, remember, and replay something old: as it was, and as the answer to this query."""
        super().receive(data, source, now)
        for old in list(self._heard)[:_REPLAYS_PER_DATAGRAM]:
            self.send(old, source)
            if len(data) > messages.HEADER_BYTES and old[1] == Kind.REPLY:
                self.send(old[:2] + data[2 : messages.HEADER_BYTES] + old[messages.HEADER_BYTES :], source)
            self.replayed += 1
        self._heard.rotate(-_REPLAYS_PER_DATAGRAM)
        self._heard.append(data)
        if len(data) > 1 and data[1] == Kind.QUERY:
            self.greet([source], now)  # so that there are replies to replay


class Eclipser(Actor):
    """Stands close to a target, names only its accomplices there, takes every record and gives none back."""

    def __init__(
        self, identity: Identity, net: NetId, entropy: Callable[[int], bytes], accomplices: Sequence[Contact] = ()
    ) -> None:
        super().__init__(identity, net, entropy)
        self.accomplices = accomplices

    def reply(self, query: Query, source: Address, now: Instant) -> Reply:
        """The accomplices closest to what is looked for."""
        honest = super().reply(query, source, now)
        if query.command != Command.FIND:
            return honest
        key = int.from_bytes(query.target, "big")
        gang = sorted(self.accomplices, key=lambda contact: node_id(contact.peer) ^ key)[: limits.DHT_K]
        return Reply(honest.observed, honest.token, contacts=pack_contacts(gang, _CONTACT_BYTES_MAX))


class Sybil(Actor):
    """One of a gang: names only its fellows closest to the point asked for, keeps no record, and may say it has some.

    Of the contacts it names, `invents` are invented anew each time, `within` this distance of the target.
    """

    def __init__(
        self,
        identity: Identity,
        net: NetId,
        entropy: Callable[[int], bytes],
        gang: Sequence[Contact],
        *,
        claims: int = 0,
        invents: int = 0,
        within: int = 0,
    ) -> None:
        super().__init__(identity, net, entropy)
        self.gang, self.claims, self.invents, self.within = gang, claims, invents, within
        self.is_mute = False

    def on_query(self, datagram: Datagram, query: Query, source: Address, now: Instant) -> None:
        """Answer, unless mute."""
        if not self.is_mute:
            super().on_query(datagram, query, source, now)

    def reply(self, query: Query, source: Address, now: Instant) -> Reply:
        """The fellows around the point, and some who do not exist."""
        honest = super().reply(query, source, now)
        if query.command != Command.FIND:
            return honest
        point = int.from_bytes(query.argument or query.target, "big")
        near = nsmallest(limits.DHT_K, self.gang, key=lambda contact: node_id(contact.peer) ^ point)
        named = [self._invented(int.from_bytes(query.target, "big")) for _ in range(self.invents)] + near
        contacts = pack_contacts(named[: limits.DHT_K], _CONTACT_BYTES_MAX)
        return Reply(honest.observed, honest.token, contacts=contacts, held=self.claims)

    def _invented(self, target: int) -> Contact:
        while True:
            peer = PeerId(self.entropy(PeerId.size))
            if node_id(peer) ^ target < self.within:
                a, b, c = self.entropy(3)
                return Contact(peer, (f"{120 + a % 80}.{b}.{c}.7", 4000))


class Equivocator(Actor):
    """An owner that signed two records with one sequence and shows every reader another one."""

    def __init__(
        self, identity: Identity, net: NetId, entropy: Callable[[int], bytes], records: tuple[bytes, bytes]
    ) -> None:
        super().__init__(identity, net, entropy)
        self.records = records

    def reply(self, query: Query, source: Address, now: Instant) -> Reply:
        """One record or the other, in turn."""
        honest = super().reply(query, source, now)
        if query.command == Command.GET:
            return Reply(honest.observed, honest.token, records=(self.records[self.answered % 2],))
        return Reply(honest.observed, honest.token, held=1)


class SlowWalker:
    """An honest node that says everything late, just within the time that others wait for it."""

    def __init__(self, node: Node, *, seconds: float) -> None:
        self.node, self.seconds = node, seconds
        self._waiting: list[tuple[Instant, int, bytes, Address]] = []
        self._order = 0

    def receive(self, data: bytes, source: Address, now: Instant) -> None:
        """A datagram arrived."""
        self.node.receive(data, source, now)

    def outgoing(self, now: Instant) -> Iterable[tuple[bytes, Address]]:
        """What was held back long enough."""
        for data, destination in self.node.outgoing(now):
            self._order += 1
            heappush(self._waiting, (Instant(now + self.seconds), self._order, data, destination))
        while self._waiting and self._waiting[0][0] <= now:
            _, _, data, destination = heappop(self._waiting)
            yield data, destination

    def next_event(self) -> Any:
        """What the node tells."""
        return self.node.next_event()

    def wake_at(self) -> Instant | None:
        """When the node wants to be woken, or something may leave."""
        wish = self.node.wake_at()
        due = self._waiting[0][0] if self._waiting else None
        return min((at for at in (wish, due) if at is not None), default=None)

    def wake(self, now: Instant) -> None:
        """Time has passed."""
        self.node.wake(now)


class Flooder(Actor):
    """Sends its victims so many datagrams a second: noise, cut-off queries, and queries in the name of new peers."""

    def __init__(
        self, identity: Identity, net: NetId, entropy: Callable[[int], bytes], victims: Sequence[Address], rate: float
    ) -> None:
        super().__init__(identity, net, entropy)
        self.victims, self.rate = victims, rate
        self.sent = 0
        self._random = Random(entropy(8))  # noqa: S311 - replayed, never secret
        self._next: Instant | None = Instant(0.0)

    def wake_at(self) -> Instant | None:
        """When the next datagram is due."""
        return self._next

    def stop(self) -> None:
        """No more."""
        self._next = None

    def wake(self, now: Instant) -> None:
        """Send one datagram."""
        victim = self.victims[self.sent % len(self.victims)]
        self.send(self._datagram(), victim)
        self.sent += 1
        self._next = Instant(now + 1 / self.rate)

    def _datagram(self) -> bytes:
        target, tid = Digest(self.entropy(Digest.size)), self.entropy(messages.TID_BYTES)
        query = messages.write_query(tid, Command.FIND, target, b"", None, PeerId(self.entropy(PeerId.size)))
        put = messages.write_query(tid, Command.PUT, target, self.entropy(200), bytes(messages.TOKEN_BYTES), self.peer)
        match self._random.randrange(4):
            case 0:
                return self.entropy(self._random.randrange(1, limits.DATAGRAM_BYTES_MAX + 100))
            case 1:
                return query[: self._random.randrange(len(query))]
            case 2:
                return put
        return query


def ground(
    target: Digest,
    count: int,
    entropy: Callable[[int], bytes],
    *,
    within: int,
    tries_max: int = 4_000_000,
    identity: Callable[[bytes], Identity] = Identity,
) -> list[Identity]:
    """Identities whose ids are closer to a target than `within`: made by trying, as an attacker does."""
    key = int.from_bytes(target, "big")
    found: list[Identity] = []
    for _ in range(tries_max):
        tried = identity(entropy(32))
        if node_id(tried.peer) ^ key < within:
            found.append(tried)
            if len(found) == count:
                return found
    raise AssertionError(f"{tries_max} tries made only {len(found)} of {count} identities")
