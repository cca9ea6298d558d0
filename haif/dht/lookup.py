"""The iterative lookup: ask the closest peers known for closer ones, until all of the k closest have answered.

Candidates are kept per peer *and* address, so that a false address given for a true peer fails alone. Nothing a peer
says about others ends the lookup: only answers do, and answers are signed. The number of candidates is bounded by
`limits.LOOKUP_QUERIES_MAX` replies of k contacts each.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum, auto

from haif.base import limits
from haif.base.ids import Digest, PeerId
from haif.base.machine import Address
from haif.dht.contact import Contact, node_id, unpack_contacts
from haif.dht.messages import Command, Reply


@dataclass(frozen=True, slots=True)
class Ask:
    """A query an operation wants sent. `peer` None: whoever listens there (a bootstrap address)."""

    peer: PeerId | None
    address: Address
    command: Command
    target: Digest
    argument: bytes = b""
    token: bytes | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a peer said: where it is, the token it gave us, how many records it holds for the target."""

    contact: Contact
    token: bytes
    held: int


class _State(Enum):
    NEW = auto()
    ASKED = auto()
    SLOW = auto()  # asked, past its timeout: it may still answer but holds no slot
    ANSWERED = auto()
    FAILED = auto()


class Lookup:
    """The state of one lookup. It is told what happened and asked what to do next."""

    def __init__(self, target: Digest, seeds: Iterable[Contact], own: PeerId) -> None:
        self.target = target
        self.queries = 0
        self._key = int.from_bytes(target, "big")
        self._own = own
        self._order: list[tuple[int, Contact]] = []
        self._states: dict[Contact, _State] = {}
        self._answers: dict[PeerId, Answer] = {}
        self._in_flight = 0
        self._waiting = 0  # in flight or slow
        for contact in seeds:
            self.add(contact)

    def add(self, contact: Contact) -> None:
        """Consider a contact."""
        if contact.peer != self._own and contact not in self._states:
            self._states[contact] = _State.NEW
            insort(self._order, (node_id(contact.peer) ^ self._key, contact))

    def asks(self) -> list[Ask]:
        """What to send now: to the closest not yet asked, at most `limits.DHT_ALPHA` in flight."""
        asks: list[Ask] = []
        for contact in self._nearest():
            if self._in_flight >= limits.DHT_ALPHA or self.queries >= limits.LOOKUP_QUERIES_MAX:
                break
            if self._states[contact] is _State.NEW and contact.peer not in self._answers:
                self._states[contact] = _State.ASKED
                self._in_flight += 1
                self._waiting += 1
                self.queries += 1
                asks.append(Ask(contact.peer, contact.address, Command.FIND, self.target))
        return asks

    def answered(self, contact: Contact, reply: Reply) -> None:
        """A peer answered. Raises `Malformed` if its contacts do not parse; then it counts as failed."""
        try:
            heard = unpack_contacts(reply.contacts)
        finally:
            self._settle(contact, _State.FAILED)
        self._states[contact] = _State.ANSWERED
        self._answers[contact.peer] = Answer(contact, reply.token, reply.held)
        for other in heard:
            self.add(other)

    def slow(self, contact: Contact) -> None:
        """A peer is past its timeout: its slot is free."""
        if self._states[contact] is _State.ASKED:
            self._states[contact] = _State.SLOW
            self._in_flight -= 1

    def failed(self, contact: Contact) -> None:
        """A peer will not answer."""
        self._settle(contact, _State.FAILED)

    @property
    def done(self) -> bool:
        """Whether all of the k closest have answered, or the queries are spent and nothing is on its way."""
        if self.queries >= limits.LOOKUP_QUERIES_MAX and not self._waiting:
            return True
        return all(contact.peer in self._answers for contact in self._nearest())

    def nearest(self) -> list[Answer]:
        """The k closest that answered, nearest first."""
        answers = sorted(self._answers.values(), key=lambda answer: node_id(answer.contact.peer) ^ self._key)
        return answers[: limits.DHT_K]

    def _settle(self, contact: Contact, state: _State) -> None:
        if self._states[contact] is _State.ASKED:
            self._in_flight -= 1
        self._waiting -= 1
        self._states[contact] = state

    def _nearest(self) -> Iterator[Contact]:
        """The k closest that have not failed, each peer once when it has answered."""
        seen: set[PeerId] = set()
        count = 0
        for _, contact in self._order:
            if self._states[contact] is _State.FAILED or contact.peer in seen:
                continue
            if contact.peer in self._answers:
                seen.add(contact.peer)
            yield contact
            count += 1
            if count == limits.DHT_K:
                return
