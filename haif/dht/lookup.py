"""The iterative lookup: ask the closest peers known for closer ones, until all of the closest set have answered.

The closest set is the k closest, one of each narrow network; in a thorough lookup, also everybody inside the region in
which more than k nodes should be (at most two of each narrow network), or a sample of them where there is a `crowd`,
and `witnesses` around it. Whoever grinds ids next to a key fills the k closest, not the region; whoever fills the
region (as in arXiv 2505.01139) does not fill its surroundings, where everybody inside is known.

Candidates are kept per peer *and* address, so that a false address given for a true peer fails alone. Nothing a peer
says about others ends the lookup: only answers do, and answers are signed. The number of candidates is bounded by
`limits.LOOKUP_QUERIES_MAX` replies of k contacts each.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from itertools import islice

from haif.base import limits
from haif.base.ids import Digest, PeerId
from haif.base.machine import Address
from haif.dht.contact import Contact, node_id, unpack_contacts
from haif.dht.crowd import Crowd
from haif.dht.diversity import Scope, networks
from haif.dht.messages import Command, Reply
from haif.dht.witnesses import Witnesses

_CROWDED_MAX = 1 << 254  # a region wider than this has no surroundings where witnesses could stand


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


class _State(Enum):
    NEW = auto()
    ASKED = auto()
    SLOW = auto()  # asked, past its timeout: it may still answer but holds no slot
    ANSWERED = auto()
    FAILED = auto()


class Lookup:
    """The state of one lookup. It is told what happened and asked what to do next."""

    def __init__(
        self,
        target: Digest,
        seeds: Iterable[Contact],
        own: PeerId,
        extent: Extent = Extent(),
        *,
        barred: Callable[[Contact], bool] = lambda _: False,
        salt: bytes = b"",
        prompt: bool = False,
    ) -> None:
        self.target = target
        self.queries = 0
        self.suspected = False  # an eclipse
        self._extent = extent
        self._key = int.from_bytes(target, "big")
        self._own, self._barred, self._prompt = own, barred, prompt
        self._crowd = Crowd(salt, everybody=extent.broad, possible=extent.thorough and extent.region <= _CROWDED_MAX)
        self._witnesses = Witnesses()
        self._region = extent.region if extent.thorough else 0
        self._watchful = extent.thorough or extent.broad  # whether it matters who has named whom
        self._verdict: bool | None = None  # whether the closest set has answered; None: to be looked at again
        self._order: list[tuple[int, Contact, bytes]] = []  # distance, who, narrow network (empty: exempt)
        self._states: dict[Contact, _State] = {}
        self._hops: dict[Contact, int] = {}
        self._answers: dict[PeerId, Answer] = {}
        self._in_flight = 0
        self._waiting = 0  # in flight or slow
        for contact in seeds:
            self.add(contact)

    def add(self, contact: Contact, namer: Contact | None = None) -> None:
        """Consider a contact, named by somebody who answered or by our own table."""
        is_known = contact in self._states
        if (is_known and not self._watchful) or contact.peer == self._own or self._barred(contact):
            return
        distance = self._distance(contact)
        if self._watchful and not self._named(contact, namer, distance):
            return
        if not is_known:
            self._states[contact] = _State.NEW
            self._hops[contact] = 1 if namer is None else self._hops[namer] + 1
            narrow, _, scope = networks(contact.address)
            counted = narrow if scope < self._extent.exempt else b""
            insort(self._order, (distance, contact, counted))
            self._verdict = None

    def _named(self, contact: Contact, namer: Contact | None, distance: int) -> bool:
        """Note who has named whom. Whether the name may be believed."""
        by = self._distance(namer) if namer is not None else distance
        inside, by_insider = distance < self._region, namer is not None and by < self._region
        inwards = by.bit_length() > distance.bit_length()
        if not self._crowd.named(contact, namer, inside=inside, by_insider=by_insider, inwards=inwards):
            return False
        if not inside and contact not in self._states:
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
        if self._in_flight >= window:
            return asks
        for contact in self._wanted():
            if self._in_flight >= window or self.queries >= limits.LOOKUP_QUERIES_MAX:
                break
            if self._states[contact] is _State.NEW and contact.peer not in self._answers:
                self._states[contact] = _State.ASKED
                if self._watchful:
                    self._crowd.asked(contact)
                    self._witnesses.met(contact, self._crowd.lot(contact))
                self._in_flight += 1
                self._waiting += 1
                self.queries += 1
                asks.append(Ask(contact.peer, contact.address, Command.FIND, self.target, self._around(contact)))
        return asks

    def answered(self, contact: Contact, reply: Reply) -> None:
        """A peer answered. Raises `Malformed` if its contacts do not parse; then it counts as failed."""
        try:
            heard = unpack_contacts(reply.contacts)
        finally:
            self._settle(contact, _State.FAILED)
        self._states[contact] = _State.ANSWERED
        self._answers[contact.peer] = Answer(contact, reply.token, reply.held)
        self._verdict = None
        if self._watchful:
            self._crowd.answered(contact)
            self._witnesses.answered(contact)
        for other in heard:
            self.add(other, contact)

    def volunteered(self, contact: Contact, reply: Reply) -> None:
        """A peer answered that was asked by somebody else. Raises as `answered`."""
        self.add(contact)
        if self._states.get(contact) is _State.NEW:
            self._states[contact] = _State.SLOW  # it holds no slot
            self._waiting += 1
            self.answered(contact, reply)

    def slow(self, contact: Contact) -> None:
        """A peer is past its timeout: its slot is free."""
        if self._states[contact] is _State.ASKED:
            self._states[contact] = _State.SLOW
            self._verdict = None
            if self._watchful:
                self._crowd.silent(contact)
            self._in_flight -= 1

    def failed(self, contact: Contact) -> None:
        """A peer will not answer."""
        self._settle(contact, _State.FAILED)
        if self._watchful:
            self._crowd.silent(contact)
            self._witnesses.failed(contact)

    @property
    def done(self) -> bool:
        """Whether the closest set has answered, or the queries are spent and nothing is on its way."""
        return self._complete or (self.queries >= limits.LOOKUP_QUERIES_MAX and not self._waiting)

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
        nearest = next(self._closest_set(answered_only=True, region=0), None)
        return 0 if nearest is None else self._hops[nearest]

    def settled(self) -> list[Answer]:
        """Who is as good as sure to be among `reached`: of the nearest k/2, those with hardly a nearer one unheard."""
        found, unheard = [], 0
        for contact in islice(self._closest_set(), limits.DHT_K // 2):
            answer = self._answers.get(contact.peer)
            if answer is not None:
                found.append(answer)
            elif (unheard := unheard + 1) > limits.DHT_UNHEARD_MAX:
                break
        return found

    @property
    def _window(self) -> int:
        return limits.DHT_ALPHA if len(self._answers) < limits.DHT_GUIDES else limits.DHT_K

    @property
    def _complete(self) -> bool:
        if self._verdict is None:
            self._verdict = self._judge()
        return self._verdict

    def _judge(self) -> bool:
        answered = 0
        late = False
        for contact in self._wanted():
            if contact.peer in self._answers:
                answered += 1
            elif self._states[contact] is _State.SLOW:
                late = True
            else:
                return False
        return not late or (self._prompt and answered >= limits.DHT_K)

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

    def _wanted(self) -> Iterator[Contact]:
        """Who must have answered: the closest set, and witnesses around the region; in a crowd, these first."""
        if not self._crowd.is_there:
            yield from self._closest_set()
        if self._watchful:
            for contact in self._witnesses.drawn(self._witnesses_at, self._crowd.doubt):
                answer = self._answers.get(contact.peer)
                if answer is None or answer.contact == contact:
                    yield contact
        if self._crowd.is_there:
            yield from self._closest_set()

    def _witnesses_at(self, distance: int) -> int:
        """How many witnesses to ask at this distance and up to twice that."""
        if distance < self._fence:
            return self._crowd.witnesses
        everywhere = self._extent.broad or self._crowd.is_there
        return limits.DHT_SHELL_CONTACTS if everywhere or distance < 4 * self._fence else 0

    def _answered(self, region: int) -> list[Answer]:
        chosen = {contact.peer: None for contact in self._closest_set(answered_only=True, region=region)}
        return [self._answers[peer] for peer in chosen]

    def _settle(self, contact: Contact, state: _State) -> None:
        if self._states[contact] is _State.ASKED:
            self._in_flight -= 1
        self._waiting -= 1
        self._states[contact] = state
        self._verdict = None

    def _closest_set(self, *, answered_only: bool = False, region: int | None = None) -> Iterator[Contact]:
        """Those who have not failed, nearest first, each peer once when it has answered."""
        region = self._region if region is None else region
        answers, states = self._answers, self._states
        taken: dict[bytes, int] = {}
        crowd = self._crowd
        count = 0
        for distance, contact, narrow in self._order:
            inside = distance < region
            if not inside and (count >= limits.DHT_K or (crowd.is_there and not answered_only)):
                return
            answer = answers.get(contact.peer)
            if answer is None:
                if answered_only or states[contact] is _State.FAILED:
                    continue
            elif answer.contact != contact:
                continue  # it answered elsewhere: this address was a lie, and takes nobody's place
            if inside and not answered_only and not crowd.wants(contact):
                continue
            of_network = taken.get(narrow, 0) if narrow else 0
            if of_network >= (limits.DHT_PER_NARROW_NETWORK_AND_REGION_MAX if inside else 1):
                continue
            if answer is not None or states[contact] is not _State.SLOW:  # one past its timeout takes nobody's place
                taken[narrow] = of_network + 1
                count += of_network == 0
            yield contact
