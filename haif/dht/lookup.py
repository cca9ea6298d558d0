"""The iterative lookup: ask the closest peers known for closer ones, until all of the closest set have answered.

The closest set is the k closest, one of each narrow network; in a thorough lookup, also everybody inside the region in
which more than k nodes should be (at most two of each narrow network), or a sample of them where there is a `crowd`,
and `witnesses` around it. Whoever grinds ids next to a key fills the k closest, not the region; whoever fills the
region (as in arXiv 2505.01139) does not fill its surroundings, where everybody inside is known.

Nothing a peer says about others ends the lookup: only answers do, and answers are signed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple

from haif.base import limits
from haif.base.errors import Malformed
from haif.base.ids import Digest, PeerId
from haif.base.machine import Address
from haif.dht.candidates import Answer, Candidate, Candidates, State
from haif.dht.contact import Contact, node_id, unpack_contacts
from haif.dht.crowd import Crowd
from haif.dht.diversity import Scope
from haif.dht.messages import Command, Reply
from haif.dht.witnesses import Witnesses

_CROWDED_MAX = 1 << 254  # a region wider than this has no surroundings where witnesses could stand


class Ask(NamedTuple):
    """A query an operation wants sent. `peer` None: whoever listens there (a bootstrap address)."""

    peer: PeerId | None
    address: Address
    command: Command
    target: Digest
    argument: bytes = b""
    token: bytes | None = None


@dataclass(frozen=True, slots=True)
class Extent:
    """How far a lookup goes: `region` is a distance, 0 where the size of the network is not known.

    A `thorough` lookup asks everybody in the region, and witnesses around it; a `broad` one also asks
    `limits.DHT_SHELL_CONTACTS` at every doubling of the distance: a second way in for writes and joins.
    `exempt`: whose networks do not count.
    """

    region: int = 0
    thorough: bool = False
    broad: bool = False
    exempt: Scope = Scope.LOOPBACK


class Pace(Enum):
    """How much may be asked in vain for the sake of time."""

    PATIENT = auto()  # nobody waits: `limits.DHT_ALPHA_PATIENT` in flight
    STEADY = auto()
    PROMPT = auto()  # a reader waits: where many are silent, so many more at once as it takes to hear k


class Lookup:
    """The state of one lookup. It is told what happened and asked what to do next.

    It ends early once `enough` have answered: who only wants some contacts near the target needs not all of them.
    """

    def __init__(
        self,
        target: Digest,
        seeds: Iterable[Contact],
        own: PeerId,
        extent: Extent = Extent(),
        *,
        barred: Callable[[Contact], bool] = lambda _: False,
        salt: bytes = b"",
        pace: Pace = Pace.STEADY,
        enough: int = limits.LOOKUP_QUERIES_MAX,
    ) -> None:
        self.target = target
        self.queries = 0
        self.suspected = False  # an eclipse
        self._extent = extent
        self._key = int.from_bytes(target, "big")
        self._own, self._barred, self._pace, self._enough = own, barred, pace, enough
        self._crowd = Crowd(salt, everybody=extent.broad, possible=extent.thorough and extent.region <= _CROWDED_MAX)
        self._witnesses = Witnesses()
        self._region = extent.region if extent.thorough else 0
        self._watchful = extent.thorough or extent.broad  # whether it matters who has named whom
        self._verdict: bool | None = None  # whether the closest set has answered; None: to be looked at again
        self._candidates = Candidates(self._region, extent.exempt, hurries=pace is Pace.PROMPT)
        self._known, self._answers = self._candidates.known, self._candidates.answers
        self._spent: Iterable[Candidate] = ()  # a closest set with nobody left to ask
        self._in_flight = 0
        self._waiting = 0  # in flight or slow
        for contact in seeds:
            self.add(contact)

    def add(self, contact: Contact, namer: Candidate | None = None) -> None:
        """Consider a contact, named by somebody who answered or by our own table."""
        known = self._known.get(contact)
        if (known is not None and not self._watchful) or contact.peer == self._own or self._barred(contact):
            return
        distance = node_id(contact.peer) ^ self._key if known is None else known.distance
        if self._watchful and not self._named(contact, namer, distance):
            return
        if known is None:
            self._candidates.add(contact, distance, 1 if namer is None else namer.hops + 1)
            self._verdict = None

    def _named(self, contact: Contact, namer: Candidate | None, distance: int) -> bool:
        """Note who has named whom. Whether the name may be believed."""
        inside, region = distance < self._region, self._region
        if namer is None:
            believed = self._crowd.named(contact, None, inside=inside, by_insider=False, inwards=False)
        else:
            believed = self._crowd.named(
                contact, namer.contact, inside=inside, by_insider=namer.distance < region,
                inwards=namer.distance.bit_length() > distance.bit_length(),
            )  # fmt: skip
        if not believed:
            return False
        if not inside and contact not in self._known:
            self._witnesses.add(distance, contact, self._crowd.lot(contact))
        return True

    def asks(self) -> list[Ask]:
        """What to send now: to the closest not yet asked, at most `limits.DHT_ALPHA` in flight.

        Once `limits.DHT_GUIDES` have answered, the way is known, and up to k are in flight: the closest set at once.
        """
        self._crowd.measure()
        asks = self._asks()
        if not asks and self._complete:
            density = self._density()
            self._verdict = None  # a crowd changes who is to be heard
            self.suspected = self.suspected or density > limits.DHT_DENSITY_FACTOR
            if density > limits.DHT_CROWD_DENSITY and self._crowd.noticed():
                asks = self._asks()
        return asks

    def _asks(self) -> list[Ask]:
        asks: list[Ask] = []
        window = self._window
        if self._in_flight >= window or self._has_enough:
            return asks
        wanted = self._wanted()
        if wanted is self._spent:
            return asks  # all of them were asked before
        for candidate in wanted:
            if self._in_flight >= window or self.queries >= limits.LOOKUP_QUERIES_MAX:
                break
            contact = candidate.contact
            if candidate.state is State.NEW and contact.peer not in self._answers:
                candidate.state = State.ASKED
                self._note_asked(contact)
                self._in_flight += 1
                self._waiting += 1
                self.queries += 1
                asks.append(Ask(contact.peer, contact.address, Command.FIND, self.target, self._around(contact)))
        else:
            self._spent = wanted
        return asks

    def _note_asked(self, contact: Contact) -> None:
        if self._watchful:
            self._crowd.asked(contact)
            self._witnesses.met(contact, self._crowd.lot(contact))

    def believes(self, contact: Contact) -> bool:
        """Whether it matters whom this contact would name: in a crowd, nobody inside is believed about others."""
        return not (self._crowd.is_there and self._distance(contact) < self._region)

    def answered(self, contact: Contact, reply: Reply) -> None:
        """A peer answered. Raises `Malformed` if its contacts do not parse; then it counts as failed."""
        candidate = self._known[contact]
        try:
            heard = unpack_contacts(reply.contacts)
        except Malformed:
            self.failed(contact)
            raise
        self._settle(candidate)
        self._candidates.answered(candidate, Answer(contact, reply.token, reply.held))
        if self._watchful:
            self._crowd.answered(contact)
            self._witnesses.answered(contact)
        for other in heard:
            if self._watchful or other not in self._known:
                self.add(other, candidate)

    def volunteered(self, contact: Contact, reply: Reply) -> None:
        """A peer answered that was asked by somebody else. Raises as `answered`."""
        self.add(contact)
        candidate = self._known.get(contact)
        if candidate is not None and candidate.state is State.NEW:
            candidate.state = State.ASKED
            self._in_flight += 1
            self._waiting += 1
            self.answered(contact, reply)

    def recall(self, answers: Iterable[Answer]) -> None:
        """These have just answered another lookup of ours for this target: they need not be asked again."""
        for answer in answers:
            self.add(answer.contact)
            candidate = self._known.get(answer.contact)
            if candidate is not None and candidate.state is State.NEW:
                self._note_asked(answer.contact)
                self._candidates.answered(candidate, answer)
                self._verdict = None

    def slow(self, contact: Contact) -> None:
        """A peer is past its timeout: its slot is free."""
        candidate = self._known[contact]
        if candidate.state is State.ASKED:
            self._candidates.fell(candidate, State.SLOW)
            self._verdict = None
            if self._watchful:
                self._crowd.silent(contact)
            if self._pace is Pace.PROMPT:
                self._witnesses.slow(contact)
            self._in_flight -= 1

    def failed(self, contact: Contact) -> None:
        """A peer will not answer."""
        candidate = self._known[contact]
        self._settle(candidate)
        self._candidates.fell(candidate, State.FAILED)
        if self._watchful:
            self._crowd.silent(contact)
            self._witnesses.failed(contact)

    @property
    def done(self) -> bool:
        """Whether enough or the closest set have answered, or the queries are spent and nothing is on its way."""
        return self._has_enough or self._complete or (self.queries >= limits.LOOKUP_QUERIES_MAX and not self._waiting)

    def nearest(self) -> list[Answer]:
        """The k closest that answered, one of each narrow network, nearest first."""
        return self._answered(region=0)

    def reached(self) -> list[Answer]:
        """All of the closest set that answered, nearest first: who should keep a record, and who should be asked."""
        return self._answered(region=self._region)

    def found(self) -> list[tuple[int, Contact]]:
        """How far from the target the k closest are, and who they are, nearest first."""
        return [(self._distance(answer.contact), answer.contact) for answer in self.nearest()]

    @property
    def hops(self) -> int:
        """How many queries in a row have led to the closest who answered: 1 if it was in our table, 0 if nobody did."""
        nearest = self._candidates.heard(region=0)
        return nearest[0].hops if nearest else 0

    def settled(self) -> list[Answer]:
        """Who is as good as sure to be among `reached`: of the nearest k/2, those with hardly a nearer one unheard."""
        found, unheard = list[Answer](), 0
        for candidate in self._closest_set()[: limits.DHT_K // 2]:
            answer = self._answers.get(candidate.contact.peer)
            if answer is not None:
                found.append(answer)
            elif (unheard := unheard + 1) > limits.DHT_UNHEARD_MAX:
                break
        return found

    @property
    def _has_enough(self) -> bool:
        return len(self._answers) >= self._enough

    @property
    def _window(self) -> int:
        if self._pace is Pace.PATIENT:
            return limits.DHT_ALPHA_PATIENT
        return limits.DHT_ALPHA if len(self._answers) < limits.DHT_GUIDES else self._candidates.parallel

    @property
    def _complete(self) -> bool:
        if self._verdict is None:
            self._verdict = self._judge()
        return self._verdict

    def _judge(self) -> bool:
        answered = 0
        late = False
        for candidate in self._wanted():
            if candidate.contact.peer in self._answers:
                answered += 1
            elif candidate.state is State.SLOW:
                late = True
            else:
                return False
        return not late or (self._pace is Pace.PROMPT and answered >= limits.DHT_K)

    def _density(self) -> float:
        """How many times denser than expected the k closest are, those considered whom the sample left out."""
        found = self.found()
        if len(found) < limits.DHT_K or not self._extent.region:
            return 0.0
        farthest, _ = found[-1]
        return self._extent.region / (limits.DHT_REGION_FACTOR * max(farthest, 1) * self._crowd.share)

    def _distance(self, contact: Contact) -> int:
        return node_id(contact.peer) ^ self._key

    @property
    def _fence(self) -> int:
        return limits.DHT_FENCE_REGIONS * self._region

    def _around(self, contact: Contact) -> bytes:
        """Around which point one who stands close shall name contacts; empty: the target. Far away it is all one."""
        if not self._region or self._distance(contact) >= self._fence:
            return b""
        return (self._key ^ self._crowd.point(self._region)).to_bytes(Digest.size, "big")

    def _wanted(self) -> Iterable[Candidate]:
        """Who must have answered."""
        return self._with_witnesses() if self._watchful else self._closest_set()

    def _with_witnesses(self) -> Iterator[Candidate]:
        """The closest set, and once all of it was asked, witnesses around the region; in a crowd, these first."""
        if not self._crowd.is_there:
            yield from self._closest_set()
        for contact in self._witnesses.drawn(self._witnesses_at, self._crowd.doubt):
            answer = self._answers.get(contact.peer)
            if answer is None or answer.contact == contact:
                yield self._known[contact]
        if self._crowd.is_there:
            yield from self._closest_set()

    def _closest_set(self) -> list[Candidate]:
        return self._candidates.closest(self._crowd.wants if self._crowd.is_there else None)

    def _witnesses_at(self, distance: int) -> int:
        """How many witnesses to ask at this distance and up to twice that."""
        if distance < self._fence:
            return self._crowd.witnesses
        everywhere = self._extent.broad or self._crowd.is_there
        return limits.DHT_SHELL_CONTACTS if everywhere or distance < 4 * self._fence else 0

    def _answered(self, region: int) -> list[Answer]:
        return [self._answers[candidate.contact.peer] for candidate in self._candidates.heard(region)]

    def _settle(self, candidate: Candidate) -> None:
        if candidate.state is State.ASKED:
            self._in_flight -= 1
        self._waiting -= 1
        self._verdict = None
