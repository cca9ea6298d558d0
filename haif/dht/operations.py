"""What a node does for its owner: find, join, write (`writing`), read (`reading`).

Each is a lookup, and perhaps a second step, which may begin while the lookup goes on. An operation is told what
happened to its queries and asked what to send next; it knows neither time nor network.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto

from haif.base import limits
from haif.base.clock import Instant
from haif.base.errors import Dropped, Malformed
from haif.base.ids import Digest, PeerId
from haif.base.machine import Address
from haif.dht.candidates import Answer
from haif.dht.contact import Contact
from haif.dht.crossing import Carry, Elsewhere
from haif.dht.lookup import Ask, Lookup
from haif.dht.messages import Command, Reply
from haif.identity.signing import Verified
from haif.protocol.records import Record


@dataclass(frozen=True, slots=True)
class Found:
    """A lookup ended: the peers closest to its target that answered, nearest first."""

    number: int
    contacts: tuple[Contact, ...]
    queries: int


@dataclass(frozen=True, slots=True)
class Stored:
    """A publication ended: who keeps the record, which public codes the others gave, and where a place is waited for.

    `refused` counts those, too. `carried`: who carries it over to the other family's directory.
    """

    number: int
    by: tuple[PeerId, ...]
    refused: tuple[str, ...]
    waiting: tuple[PeerId, ...] = ()
    carried: tuple[PeerId, ...] = ()


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


Event = Found | Stored | Gathered | Changed | Carry | Elsewhere | Dropped


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
        self.began = Instant(0.0)  # noted by whoever runs it
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
        return self._is_over()

    def event(self) -> Event:
        """What came out."""
        contacts = tuple(answer.contact for answer in self.lookup.nearest())
        return Found(self.number, contacts, self.lookup.queries)

    def _is_over(self, *, waiting_for_the_late: bool = True) -> bool:
        spent = self._sent >= limits.LOOKUP_QUERIES_MAX
        waits = self._active or (waiting_for_the_late and self._slow)
        return self._looked and not waits and (spent or not self._queue)

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
    """Look up our own id, and ask for it at some addresses in any case: the bootstrap addresses, peers that were lost.

    Whoever answers there takes part in the lookup. A greeting is waited for until it is past its timeout; if nobody
    else answers, until it has failed.
    """

    def __init__(
        self,
        number: int,
        lookup: Lookup,
        purpose: Purpose,
        addresses: Iterable[Address],
        lost: Iterable[Contact] = (),
        *,
        enters: bool = True,
    ) -> None:
        super().__init__(number, lookup, purpose)
        self.enters = enters  # what was out of reach: buckets with room are looked up afterwards
        whom = [*((None, address) for address in addresses), *lost]
        self._greetings = [Ask(peer, address, Command.FIND, lookup.target) for peer, address in whom]

    def asks(self) -> list[Ask]:
        """The greetings, all at once, and the lookup; it does not end while a greeting may bring somebody closer."""
        greetings, self._greetings = self._greetings, []
        self._active.update(greetings)
        if self._active or (self._slow and not self.lookup.nearest()):
            return [*greetings, *self.lookup.asks()]
        return super().asks()

    def answered(self, ask: Ask, peer: PeerId, reply: Reply) -> None:
        """A query was answered; a greeting as well as any other. Raises `Malformed` for what the reply holds."""
        if self._is_greeting(ask):
            self._close(ask)
            self.enters |= ask.peer is not None
            self.lookup.volunteered(Contact(peer, ask.address), reply)
        else:
            super().answered(ask, peer, reply)

    def slow(self, ask: Ask) -> None:
        """A query is past its timeout and has been sent again."""
        if self._is_greeting(ask):
            self._active.discard(ask)
            self._slow.add(ask)
        else:
            super().slow(ask)

    def failed(self, ask: Ask) -> None:
        """A query will not be answered."""
        if self._is_greeting(ask):
            self._close(ask)
        else:
            super().failed(ask)

    @property
    def done(self) -> bool:
        """Whether the lookup ended."""
        return self._looked

    def _is_greeting(self, ask: Ask) -> bool:
        return ask in self._active or ask in self._slow
