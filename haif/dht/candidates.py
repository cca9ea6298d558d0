"""Who may be close to a target: what a lookup knows of each, and the closest set among them.

Candidates are kept per peer *and* address, so that a false address given for a true peer fails alone. Their number is
bounded by `limits.LOOKUP_QUERIES_MAX` replies of k contacts each. The closest set is put together anew only when
somebody closer than its farthest was named, or one of it is late, late no more, or gone.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple

from haif.base import limits
from haif.base.ids import PeerId
from haif.dht.contact import Contact
from haif.dht.diversity import Scope, networks

Wants = Callable[[Contact], bool]


class Answer(NamedTuple):
    """What a peer said: where it is, the token it gave us, how many records it holds for the target."""

    contact: Contact
    token: bytes
    held: int


class State(Enum):
    """What became of a candidate."""

    NEW = auto()
    ASKED = auto()
    SLOW = auto()  # asked, past its timeout: it may still answer but holds no slot
    ANSWERED = auto()
    FAILED = auto()


@dataclass(slots=True, eq=False)
class Candidate:
    """A contact that was named. `network`: the narrow one, empty where networks do not count."""

    contact: Contact
    distance: int
    network: bytes
    hops: int  # how many queries in a row have led to it
    state: State = State.NEW


class Candidates:
    """All of one lookup. `region`: the distance within which everybody counts; `exempt`: whose networks do not."""

    def __init__(self, region: int, exempt: Scope) -> None:
        self.known: dict[Contact, Candidate] = {}
        self.answers: dict[PeerId, Answer] = {}
        self._region, self._exempt = region, exempt
        self._order: list[tuple[int, Contact, Candidate]] = []
        self._peers: set[PeerId] = set()
        self._twins: set[PeerId] = set()  # named at several addresses
        self._closest: list[Candidate] | None = None
        self._edge = 0  # the distance from which on nobody was looked at for that

    def add(self, contact: Contact, distance: int, hops: int) -> None:
        """Somebody new was named."""
        narrow, _, scope = networks(contact.address)
        candidate = Candidate(contact, distance, narrow if scope < self._exempt else b"", hops)
        self.known[contact] = candidate
        insort(self._order, (distance, contact, candidate))
        if contact.peer in self._peers:
            self._twins.add(contact.peer)
        self._peers.add(contact.peer)
        if distance < self._edge:
            self._closest = None

    def answered(self, candidate: Candidate, answer: Answer) -> None:
        """A candidate has answered, perhaps late."""
        if candidate.state is not State.ASKED or answer.contact.peer in self._twins:
            self._closest = None
        candidate.state = State.ANSWERED
        self.answers[answer.contact.peer] = answer

    def fell(self, candidate: Candidate, state: State) -> None:
        """A candidate is late, or has failed: it takes nobody's place any more."""
        candidate.state = state
        self._closest = None

    def closest(self, wants: Wants | None = None) -> list[Candidate]:
        """The closest set: those who have not failed, nearest first. With `wants`, only those inside who are wanted."""
        if wants is not None:
            return self._chosen(self._region, wants=wants)[0]
        if self._closest is None:
            self._closest, self._edge = self._chosen(self._region)
        return self._closest

    def heard(self, region: int) -> list[Candidate]:
        """Those who have answered, of the closest set as it would be with this region; each peer once."""
        return self._chosen(region, answered_only=True)[0]

    def _chosen(
        self, region: int, *, wants: Wants | None = None, answered_only: bool = False
    ) -> tuple[list[Candidate], int]:
        """The k closest, one of each network, and those inside, two of each; and the distance where that ended."""
        chosen: list[Candidate] = []
        taken: dict[bytes, int] = {}
        twins, count = self._twins, 0
        for distance, contact, candidate in self._order:
            inside = distance < region
            if not inside and (count >= limits.DHT_K or wants is not None):
                return chosen, distance
            state = candidate.state
            if state is State.FAILED or (answered_only and state is not State.ANSWERED):
                continue
            if twins and contact.peer in twins and self._is_elsewhere(contact):
                continue
            if inside and wants is not None and not wants(contact):
                continue
            network = candidate.network
            of_network = taken.get(network, 0) if network else 0
            if of_network and of_network >= (limits.DHT_PER_NARROW_NETWORK_AND_REGION_MAX if inside else 1):
                continue
            if state is not State.SLOW:  # one past its timeout takes nobody's place
                taken[network] = of_network + 1
                count += of_network == 0
            chosen.append(candidate)
        return chosen, 1 << 256

    def _is_elsewhere(self, contact: Contact) -> bool:
        """Whether the peer answered at another address: then this one was a lie, and takes nobody's place."""
        answer = self.answers.get(contact.peer)
        return answer is not None and answer.contact != contact
