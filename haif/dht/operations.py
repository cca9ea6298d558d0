"""What a node does for its owner: find, join, publish, gather. Each is a lookup, and then perhaps a second step.

An operation is told what happened to its queries and asked what to send next; it knows neither time nor network.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum, auto

from haif.base import limits
from haif.base.clock import WallTime
from haif.base.errors import Dropped, Malformed, PeerFault
from haif.base.ids import NetId, PeerId
from haif.base.machine import Address
from haif.dht.contact import Contact
from haif.dht.lookup import Answer, Ask, Lookup
from haif.dht.messages import SHORT_BYTES, Command, Reply, short
from haif.identity.signing import Verified
from haif.protocol.records import Record, open_record

_HAVE_MAX = 64  # records a query can name; a node holds no more of one topic


@dataclass(frozen=True, slots=True)
class Found:
    """A lookup ended: the peers closest to its target that answered, nearest first."""

    number: int
    contacts: tuple[Contact, ...]
    queries: int


@dataclass(frozen=True, slots=True)
class Stored:
    """A publication ended: who keeps the record, and which public codes the others gave."""

    number: int
    by: tuple[PeerId, ...]
    refused: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Gathered:
    """A read ended: the newest record of each owner, tombstones included."""

    number: int
    records: tuple[Verified[Record], ...]
    queries: int


Event = Found | Stored | Gathered | Dropped


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
        self._queue: deque[Ask] | None = None  # the second step's queries, once it has begun
        self._active: set[Ask] = set()
        self._slow: set[Ask] = set()
        self._sent = 0  # in the second step: whoever exhausts the lookup does not stop the write

    def asks(self) -> list[Ask]:
        """What to send now."""
        if self._queue is None:
            asks = self.lookup.asks()
            if asks or not self.lookup.done:
                return asks
            self._queue = deque(self._second_step(self.lookup.reached()))
        asks = []
        while self._queue and len(self._active) < limits.DHT_ALPHA and self._sent < limits.LOOKUP_QUERIES_MAX:
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
        return self._queue is not None and not self._active and not self._slow and (spent or not self._queue)

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
        return self._queue is not None

    def _second_answer(self, ask: Ask, peer: PeerId, _reply: Reply) -> None:
        self.lookup.add(Contact(peer, ask.address))


class Publish(Find):
    """Have the closest set keep a record. A write never stops early."""

    def __init__(self, number: int, lookup: Lookup, record: bytes) -> None:
        super().__init__(number, lookup)
        self._record = record
        self._by: list[PeerId] = []
        self._refused: list[str] = []

    def event(self) -> Event:
        """Who keeps it."""
        return Stored(self.number, tuple(self._by), tuple(self._refused))

    def _second_step(self, reached: list[Answer]) -> Iterable[Ask]:
        for answer in reached:
            peer, address = answer.contact
            yield Ask(peer, address, Command.PUT, self.lookup.target, self._record, answer.token)

    def _second_answer(self, _ask: Ask, peer: PeerId, reply: Reply) -> None:
        if reply.refused:
            self._refused.append(reply.refused)
        else:
            self._by.append(peer)


class Gather(Find):
    """Read every record of a topic from all of the closest set that hold any; believe only the owners' signatures."""

    def __init__(
        self,
        number: int,
        lookup: Lookup,
        own: Iterable[Verified[Record]],
        *,
        net: NetId,
        wall: Callable[[], WallTime],
        report: Callable[[Dropped], None],
    ) -> None:
        super().__init__(number, lookup)
        self._net, self._wall, self._report = net, wall, report
        self._newest: dict[PeerId, Verified[Record]] = {}
        self._have: dict[bytes, None] = {}  # short names, in the order they came
        for record in own:
            self._have[short(record.evidence)] = None
            self._take(record)

    def event(self) -> Event:
        """The newest record of each owner."""
        return Gathered(self.number, tuple(self._newest.values()), self.lookup.queries + self._sent)

    def _second_step(self, reached: list[Answer]) -> Iterable[Ask]:
        for answer in reached:
            if answer.held > 0:
                peer, address = answer.contact
                yield Ask(peer, address, Command.GET, self.lookup.target, b"", answer.token)

    def _refreshed(self, ask: Ask) -> Ask:
        have = b"".join(list(self._have)[-_HAVE_MAX:])
        assert len(have) <= _HAVE_MAX * SHORT_BYTES, "the list of records fits its query"
        return Ask(ask.peer, ask.address, ask.command, ask.target, have, ask.token)

    def _second_answer(self, ask: Ask, peer: PeerId, reply: Reply) -> None:
        fresh = sum([self._consider(data, peer) for data in reply.records])
        if reply.more and fresh and self._queue is not None:
            self._queue.append(ask)  # each page must bring something new, so this ends

    def _consider(self, data: bytes, holder: PeerId) -> bool:
        name = short(data)
        if name in self._have:
            return False
        try:
            record = open_record(data, net=self._net, now=self._wall())
            if record.payload.topic != self.lookup.target:
                raise Malformed("a record of another topic than the one asked for")
        except PeerFault as fault:
            self._report(Dropped(fault.reason, holder, f"in an answer to GET: {fault.message}"))
            return False
        self._have[name] = None
        self._take(record)
        return True

    def _take(self, record: Verified[Record]) -> None:
        held = self._newest.get(record.signer)
        if held is None or _rank(record) > _rank(held):
            self._newest[record.signer] = record


def _rank(record: Verified[Record]) -> tuple[int, bytes]:
    return record.payload.sequence, record.evidence  # the bytes decide when an owner contradicts itself
