"""Writing to the directory: the record to each of the closest set, to the nearest while the others are looked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from haif.base import codec
from haif.base.errors import Reason
from haif.base.ids import PeerId
from haif.dht.candidates import Answer
from haif.dht.contact import Contact
from haif.dht.lookup import Ask, Lookup
from haif.dht.messages import Command, Put, Reply
from haif.dht.operations import Event, Find, Purpose, Stored

Carriers = Callable[[Iterable[Contact]], list[Contact]]
"""Of those who were met and others, whom to ask to carry a record over; nobody, for what is not to be carried."""

Ticket = Callable[[PeerId], bytes]
"""What to show to a node that told us to wait for a place; empty for the others."""


class Publish(Find):
    """Have the closest set keep a record. A write begins early and never stops early."""

    def __init__(
        self,
        number: int,
        lookup: Lookup,
        record: bytes,
        owner: PeerId,
        ticket: Ticket,
        *,
        replaces: int | None = None,
        comes_back: bool = True,
        carriers: Carriers = lambda _: [],
        purpose: Purpose = Purpose.OWNER,
    ) -> None:
        super().__init__(number, lookup, purpose)
        self.record, self.owner = record, owner
        self.by: list[PeerId] = []
        self.told: list[tuple[Contact, bytes, int]] = []  # to wait so many ms with this ticket
        self.asked: dict[PeerId, None] = {}
        self.carried: list[PeerId] = []  # who carries it over
        self._ticket, self._replaces, self._comes_back = ticket, replaces, comes_back
        self._carriers = carriers
        self._refused: list[str] = []

    def event(self) -> Event:
        """Who keeps it."""
        waiting = tuple(contact.peer for contact, _, _ in self.told)
        return Stored(self.number, tuple(self.by), tuple(self._refused), waiting, tuple(self.carried))

    def answered(self, ask: Ask, peer: PeerId, reply: Reply) -> None:
        """A query was answered; whoever will surely keep the record need not wait for it until all have been found."""
        super().answered(ask, peer, reply)
        if ask.command is Command.FIND:
            self._queue.extend(self._puts(self.lookup.settled()))

    def _second_step(self, reached: list[Answer]) -> Iterable[Ask]:
        tokens = {answer.contact: answer.token for answer in reached}
        carriers = self._carriers(tokens)
        return [*self._puts(reached), *(self._carry(contact, tokens.get(contact)) for contact in carriers)]

    def _carry(self, contact: Contact, token: bytes | None) -> Ask:
        argument = codec.encode(Put(self.record, replaces=self._replaces))
        return Ask(contact.peer, contact.address, Command.CARRY, self.lookup.target, argument, token)

    def _puts(self, answers: list[Answer]) -> list[Ask]:
        return [self._put(answer.contact, answer.token) for answer in answers if answer.contact.peer not in self.asked]

    def _put(self, contact: Contact, token: bytes | None) -> Ask:
        self.asked[contact.peer] = None
        argument = codec.encode(Put(self.record, self._ticket(contact.peer), self._replaces))
        return Ask(contact.peer, contact.address, Command.PUT, self.lookup.target, argument, token)

    def _second_answer(self, ask: Ask, peer: PeerId, reply: Reply) -> None:
        if ask.command is Command.CARRY:
            self.carried += [] if reply.refused else [peer]
            return
        if not reply.refused:
            self.by.append(peer)
            return
        self._refused.append(reply.refused)
        if self._comes_back and reply.refused == Reason.MUST_WAIT and reply.ticket:
            self.told.append((Contact(peer, ask.address), reply.ticket, reply.wait_ms))


class Return(Publish):
    """Come back, with the tickets they gave us, to those who told us to. The lookup is an empty one."""

    def __init__(
        self, number: int, lookup: Lookup, record: bytes, owner: PeerId, ticket: Ticket, to: Iterable[Contact]
    ) -> None:
        super().__init__(number, lookup, record, owner, ticket, purpose=Purpose.UPKEEP)
        self._to = tuple(to)

    def _second_step(self, _reached: list[Answer]) -> Iterable[Ask]:
        return [self._put(contact, None) for contact in self._to]
