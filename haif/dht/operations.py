"""What a node does for its owner: find, join, publish, gather. Each is a lookup, and then perhaps a second step.

An operation is told what happened to its queries and asked what to send next; it knows neither time nor network.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from haif.base import codec, limits
from haif.base.clock import WallTime
from haif.base.errors import Dropped, Malformed, PeerFault, Reason
from haif.base.ids import Digest, NetId, PeerId
from haif.base.machine import Address
from haif.dht.contact import Contact
from haif.dht.lookup import Answer, Ask, Lookup
from haif.dht.messages import SHORT_BYTES, Command, Put, Reply, short
from haif.dht.watch import Watch, rank
from haif.identity.keys import Verify
from haif.identity.signing import Verified
from haif.protocol.records import Record, contradict, open_record

_HAVE_MAX = 64  # records a query can name; a node holds no more of one topic


@dataclass(frozen=True, slots=True)
class Found:
    """A lookup ended: the peers closest to its target that answered, nearest first."""

    number: int
    contacts: tuple[Contact, ...]
    queries: int


@dataclass(frozen=True, slots=True)
class Stored:
    """A publication ended: who keeps the record, which public codes the others gave, and where a place is waited for.

    `refused` counts those, too.
    """

    number: int
    by: tuple[PeerId, ...]
    refused: tuple[str, ...]
    waiting: tuple[PeerId, ...] = ()


@dataclass(frozen=True, slots=True)
class Gathered:
    """A read ended: the newest record of each owner, tombstones included."""

    number: int
    records: tuple[Verified[Record], ...]
    queries: int


@dataclass(frozen=True, slots=True)
class Changed:
    """Something changed at a watched topic: `Node.live` says what is there now."""

    topic: Digest


Event = Found | Stored | Gathered | Changed | Dropped


class Purpose(Enum):
    """Why there is an operation."""

    OWNER = auto()  # its event is told
    UPKEEP = auto()  # of our own accord
    SAMPLE = auto()  # the same, at a target that nobody else could foresee: it shows the size of the network


class Find:
    """Find the k peers closest to a target. Base of the operations with a second step."""

    def __init__(self, number: int, lookup: Lookup, purpose: Purpose = Purpose.OWNER) -> None:
        self.number = number
        self.lookup = lookup
        self.purpose = purpose
        self._queue: deque[Ask] = deque()  # the second step's queries
        self._looked = False  # the lookup has ended
        self._active: set[Ask] = set()
        self._slow: set[Ask] = set()
        self._sent = 0  # in the second step: whoever exhausts the lookup does not stop the write

    def asks(self) -> list[Ask]:
        """What to send now."""
        asks: list[Ask] = []
        if not self._looked:
            asks = self.lookup.asks()
            if not asks and self.lookup.done:
                self._looked = True
                self._queue.extend(self._second_step(self.lookup.reached()))
        while self._queue and len(self._active) < limits.DHT_K and self._sent < limits.LOOKUP_QUERIES_MAX:
            ask = self._refreshed(self._queue.popleft())
            self._active.add(ask)
            self._sent += 1
            asks.append(ask)
        return asks

    def answered(self, ask: Ask, peer: PeerId, reply: Reply) -> None:
        """A query was answered under the asked peer's signature. Raises `Malformed` for what the reply holds."""
        if ask.command is Command.FIND:
            self.lookup.answered(Contact(peer, ask.address), reply)
        else:
            self._close(ask)
            self._second_answer(ask, peer, reply)

    def slow(self, ask: Ask) -> None:
        """A query is past its timeout and has been sent again."""
        if ask.command is Command.FIND and ask.peer is not None:
            self.lookup.slow(Contact(ask.peer, ask.address))
        elif ask in self._active:
            self._active.remove(ask)
            self._slow.add(ask)

    def failed(self, ask: Ask) -> None:
        """A query will not be answered."""
        if ask.command is Command.FIND and ask.peer is not None:
            self.lookup.failed(Contact(ask.peer, ask.address))
        else:
            self._close(ask)

    @property
    def done(self) -> bool:
        """Whether nothing is left to ask or to wait for. To be read after `asks`."""
        spent = self._sent >= limits.LOOKUP_QUERIES_MAX
        return self._looked and not self._active and not self._slow and (spent or not self._queue)

    def event(self) -> Event:
        """What came out."""
        contacts = tuple(answer.contact for answer in self.lookup.nearest())
        return Found(self.number, contacts, self.lookup.queries)

    def _close(self, ask: Ask) -> None:
        self._active.discard(ask)
        self._slow.discard(ask)

    def _second_step(self, _reached: list[Answer]) -> Iterable[Ask]:
        return ()

    def _refreshed(self, ask: Ask) -> Ask:
        """The query as it should be sent now, rather than when it was queued."""
        return ask

    def _second_answer(self, _ask: Ask, peer: PeerId, _reply: Reply) -> None:
        raise Malformed("an answer to nothing we asked", peer)


class Join(Find):
    """Greet the bootstrap addresses and look up our own id among whoever answers."""

    def __init__(self, number: int, lookup: Lookup, purpose: Purpose, addresses: Iterable[Address]) -> None:
        super().__init__(number, lookup, purpose)
        self._greetings = [Ask(None, address, Command.PING, lookup.target) for address in addresses]

    def asks(self) -> list[Ask]:
        """First the greetings, all at once; then the lookup, as soon as anybody answered."""
        greetings, self._greetings = self._greetings, []
        self._active.update(greetings)
        if greetings or ((self._active or self._slow) and not self.lookup.nearest()):
            return [*greetings, *self.lookup.asks()]
        return super().asks()

    @property
    def done(self) -> bool:
        """Whether the lookup ended; a greeting still on its way is not waited for once somebody answered."""
        return self._looked

    def _second_answer(self, ask: Ask, peer: PeerId, _reply: Reply) -> None:
        self.lookup.add(Contact(peer, ask.address))


Ticket = Callable[[PeerId], bytes]
"""What to show to a node that told us to wait for a place; empty for the others."""


class Publish(Find):
    """Have the closest set keep a record. A write never stops early."""

    def __init__(
        self,
        number: int,
        lookup: Lookup,
        record: bytes,
        ticket: Ticket,
        *,
        replaces: int | None = None,
        comes_back: bool = True,
        purpose: Purpose = Purpose.OWNER,
    ) -> None:
        super().__init__(number, lookup, purpose)
        self.record = record
        self.by: list[PeerId] = []
        self.told: list[tuple[Contact, bytes, int]] = []  # to wait so many ms with this ticket
        self.asked: list[PeerId] = []
        self._ticket, self._replaces, self._comes_back = ticket, replaces, comes_back
        self._refused: list[str] = []

    def event(self) -> Event:
        """Who keeps it."""
        waiting = tuple(contact.peer for contact, _, _ in self.told)
        return Stored(self.number, tuple(self.by), tuple(self._refused), waiting)

    def _second_step(self, reached: list[Answer]) -> Iterable[Ask]:
        for answer in reached:
            yield self._put(answer.contact, answer.token)

    def _put(self, contact: Contact, token: bytes | None) -> Ask:
        self.asked.append(contact.peer)
        argument = codec.encode(Put(self.record, self._ticket(contact.peer), self._replaces))
        return Ask(contact.peer, contact.address, Command.PUT, self.lookup.target, argument, token)

    def _second_answer(self, ask: Ask, peer: PeerId, reply: Reply) -> None:
        if not reply.refused:
            self.by.append(peer)
            return
        self._refused.append(reply.refused)
        if self._comes_back and reply.refused == Reason.MUST_WAIT and reply.ticket:
            self.told.append((Contact(peer, ask.address), reply.ticket, reply.wait_ms))


class Return(Publish):
    """Come back, with the tickets they gave us, to those who told us to. The lookup is an empty one."""

    def __init__(self, number: int, lookup: Lookup, record: bytes, ticket: Ticket, to: Iterable[Contact]) -> None:
        super().__init__(number, lookup, record, ticket, purpose=Purpose.UPKEEP)
        self._to = tuple(to)

    def _second_step(self, _reached: list[Answer]) -> Iterable[Ask]:
        return [self._put(contact, None) for contact in self._to]


class Gather(Find):
    """Read the records of a topic from all of the closest set that hold any; believe only the owners' signatures.

    Whoever says that it holds some is asked for them at once. With an `owner`, only that one's record is wanted, and
    `limits.DHT_BETA` nodes that have given the same newest one are enough: what they say is signed, by the owner.
    """

    def __init__(
        self,
        number: int,
        lookup: Lookup,
        own: Iterable[Verified[Record]],
        *,
        owner: PeerId | None = None,
        net: NetId,
        wall: Callable[[], WallTime],
        report: Callable[[Dropped], None],
        verify: Verify,
        purpose: Purpose = Purpose.OWNER,
    ) -> None:
        super().__init__(number, lookup, purpose)
        self._net, self._wall, self._report, self._verify = net, wall, report, verify
        self._owner = owner
        self._givers: set[PeerId] = set()  # who gave the newest of the owner wanted
        self._gets: set[PeerId] = set()  # who was asked
        self._newest: dict[PeerId, Verified[Record]] = {}
        self._have: dict[bytes, None] = {}  # short names, in the order they came
        for record in own:
            self._have[short(record.evidence)] = None
            self._take(record)

    def event(self) -> Event:
        """The newest record of each owner."""
        return Gathered(self.number, tuple(self._newest.values()), self.lookup.queries + self._sent)

    @property
    def done(self) -> bool:
        """Whether enough was read. To be read after `asks`."""
        return len(self._givers) >= limits.DHT_BETA or super().done

    def answered(self, ask: Ask, peer: PeerId, reply: Reply) -> None:
        """A query was answered; whoever holds records is asked for them."""
        super().answered(ask, peer, reply)
        if ask.command is Command.FIND and reply.held > 0 and len(self._gets) < limits.DHT_K:
            self._gets.add(peer)
            self._queue.append(Ask(peer, ask.address, Command.GET, self.lookup.target, b"", reply.token))

    def _second_step(self, reached: list[Answer]) -> Iterable[Ask]:
        for answer in reached:
            if answer.held > 0 and answer.contact.peer not in self._gets:
                peer, address = answer.contact
                yield Ask(peer, address, Command.GET, self.lookup.target, b"", answer.token)

    def _refreshed(self, ask: Ask) -> Ask:
        return Ask(ask.peer, ask.address, ask.command, ask.target, self._list(), ask.token)

    def _list(self) -> bytes:
        """What need not be sent; the record that several are to give is not in it."""
        wanted = self._newest.get(self._owner) if self._owner is not None else None
        named = [name for name in self._have if wanted is None or name != short(wanted.evidence)]
        have = b"".join(named[-_HAVE_MAX:])
        assert len(have) <= _HAVE_MAX * SHORT_BYTES, "the list of records fits its query"
        return have

    def _second_answer(self, ask: Ask, peer: PeerId, reply: Reply) -> None:
        fresh = sum([self._consider(data, peer) for data in reply.records])
        if reply.more and fresh:
            self._queue.append(ask)  # each page must bring something new, so this ends

    def _consider(self, data: bytes, holder: PeerId) -> bool:
        name = short(data)
        if name in self._have:
            self._given(name, holder)
            return False
        try:
            record = open_record(data, net=self._net, now=self._wall(), verify=self._verify)
            if record.payload.topic != self.lookup.target:
                raise Malformed("a record of another topic than the one asked for")
        except PeerFault as fault:
            self._report(Dropped(fault.reason, holder, f"in an answer to GET: {fault.message}"))
            return False
        self._have[name] = None
        self._take(record)
        self._given(name, holder)
        return True

    def _given(self, name: bytes, holder: PeerId) -> None:
        newest = self._newest.get(self._owner) if self._owner is not None else None
        if newest is not None and name == short(newest.evidence):
            self._givers.add(holder)

    def _take(self, record: Verified[Record]) -> None:
        held = self._newest.get(record.signer)
        if held is not None and contradict(held.payload, record.payload):
            self._report(Dropped(Reason.EQUIVOCATED, record.signer, "it signed two records with one sequence"))
        if held is None or rank(record) > rank(held):
            self._newest[record.signer] = record
            if record.signer == self._owner:
                self._givers.clear()


class Observe(Gather):
    """Read a watched topic, and have some of its holders promise to tell us what changes."""

    def __init__(self, *arguments: Any, watch: Watch, **named: Any) -> None:
        super().__init__(*arguments, **named, purpose=Purpose.UPKEEP)
        self.watch = watch
        self.promised: dict[Contact, bytes] = {}

    @property
    def records(self) -> Iterable[Verified[Record]]:
        """What was found."""
        return self._newest.values()

    def _second_step(self, reached: list[Answer]) -> Iterable[Ask]:
        chosen = set(self.watch.choose([answer.contact for answer in self.lookup.nearest()]))
        for answer in reached:
            if answer.contact in chosen:
                yield self._watch(answer.contact, answer.token)
        yield from (
            ask for ask in super()._second_step(reached) if ask.peer not in {contact.peer for contact in chosen}
        )

    def _watch(self, contact: Contact, token: bytes | None) -> Ask:
        return Ask(contact.peer, contact.address, Command.WATCH, self.lookup.target, b"", token)

    def _refreshed(self, ask: Ask) -> Ask:
        if ask.command is not Command.WATCH:
            return super()._refreshed(ask)
        return Ask(ask.peer, ask.address, ask.command, ask.target, self.watch.handle + self._list(), ask.token)

    def _second_answer(self, ask: Ask, peer: PeerId, reply: Reply) -> None:
        super()._second_answer(ask, peer, reply)
        if ask.command is Command.WATCH and not reply.refused:
            self.promised[Contact(peer, ask.address)] = reply.token


class Renew(Observe):
    """Have those who tell us promise it again, and read what they hold. The lookup is an empty one."""

    def _second_step(self, _reached: list[Answer]) -> Iterable[Ask]:
        return [self._watch(contact, token) for contact, token in self.watch.holders.items()]
