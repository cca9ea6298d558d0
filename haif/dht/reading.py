"""Reading from the directory: whoever holds records of the topic is asked for them while the lookup still goes on.

A read ends when everybody of the closest set has been heard who answers in time; whoever does not is passed over as
soon as k others have answered, because each record is kept by more than k nodes; so is a holder that is late with its
records once k, and four for each that is late, have given all of theirs. It ends earlier only where the topic
can have but one record: an immutable value is settled by the first node that gives it, what has one owner (a presence,
a mutable value) by the third (`limits.DHT_BETA`) that gives the same newest record. Only what is signed by that owner
counts, so whoever gives false records, others' records or none delays nothing and ends nothing; three holders together
can at most pass off an older record for the newest, until it expires. A topic of many owners has no such end: else
three nodes could agree to be silent about the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf
from typing import Any

from haif.base import limits
from haif.base.clock import WallTime
from haif.base.errors import Dropped, Malformed, PeerFault, Reason
from haif.base.ids import NetId, PeerId
from haif.dht.candidates import Answer
from haif.dht.contact import Contact
from haif.dht.lookup import Ask, Lookup
from haif.dht.messages import SHORT_BYTES, Command, Reply, short
from haif.dht.operations import Event, Find, Gathered, Purpose
from haif.dht.watch import Watch, rank
from haif.identity.keys import Verify
from haif.identity.signing import Verified
from haif.protocol.records import RULES, Record, RecordKind, contradict, open_record

_EARLY_MAX = 2 * limits.DHT_K  # asked for records before the lookup has ended; a topic should have 25 holders
_HEARD_PER_LATE = 4  # holders that have given all they have, for each that is passed over
_HAVE_MAX = 64  # records a query can name; a node holds no more of one topic


class Gather(Find):
    """Read the newest record of every owner at a topic."""

    _hurries = True  # asks for records before the lookup has ended, and stops when enough was read

    def __init__(
        self,
        number: int,
        lookup: Lookup,
        own: Iterable[Verified[Record]],
        *,
        net: NetId,
        wall: Callable[[], WallTime],
        report: Callable[[Dropped], None],
        verify: Verify,
        purpose: Purpose = Purpose.OWNER,
    ) -> None:
        super().__init__(number, lookup, purpose)
        self._net, self._wall, self._report, self._verify = net, wall, report, verify
        self._asked: set[PeerId] = set()  # for records, before the lookup ended
        self._straight: set[Ask] = set()  # of the lookup's queries, those for records instead of contacts
        self._read: set[PeerId] = set()  # who has given all of its records
        self._newest: dict[PeerId, Verified[Record]] = {}
        self._have: dict[bytes, None] = {}  # short names, in the order they came
        self._sole = b""  # the short name of the newest record, where the topic can have but one
        self._quorum = inf  # how many must have given it
        self._givers: set[PeerId] = set()  # who has
        for record in own:
            self._have[short(record.evidence)] = None
            self._take(record)

    def event(self) -> Event:
        """The newest record of each owner."""
        return Gathered(self.number, tuple(self._newest.values()), self.lookup.queries + self._sent)

    @property
    def done(self) -> bool:
        """Whether enough was read. To be read after `asks`."""
        if len(self._givers) >= self._quorum:
            return True
        few_late = limits.DHT_K <= len(self._read) >= _HEARD_PER_LATE * len(self._slow)
        return self._is_over(waiting_for_the_late=not (self._hurries and few_late))

    def asks(self) -> list[Ask]:
        """What to send now; in a crowd, those inside are asked for their records straight away."""
        return [self._straightened(ask) for ask in super().asks()]

    def _straightened(self, ask: Ask) -> Ask:
        """So it costs nothing more to claim to hold records, and who does hold them is read a round trip earlier."""
        if ask.command is not Command.FIND or ask.peer is None:
            return ask
        contact = Contact(ask.peer, ask.address)
        if self.lookup.believes(contact):
            return ask
        straight = self._refreshed(self._get(contact, None))
        self._straight.add(straight)
        self._asked.add(ask.peer)
        return straight

    def slow(self, ask: Ask) -> None:
        """A query is past its timeout and has been sent again."""
        super().slow(self._of_lookup(ask))

    def failed(self, ask: Ask) -> None:
        """A query will not be answered."""
        super().failed(self._of_lookup(ask))
        self._straight.discard(ask)

    def _of_lookup(self, ask: Ask) -> Ask:
        """The query as the lookup knows it, if it is one of its own."""
        return ask._replace(command=Command.FIND) if ask in self._straight else ask

    def answered(self, ask: Ask, peer: PeerId, reply: Reply) -> None:
        """A query was answered; whoever holds records is asked for them at once."""
        if ask in self._straight:
            self._straight.discard(ask)
            self.lookup.answered(Contact(peer, ask.address), reply)
            self._second_answer(ask._replace(token=reply.token), peer, reply)
            return
        super().answered(ask, peer, reply)
        if ask.command is Command.FIND and reply.held > 0 and self._hurries and len(self._asked) < _EARLY_MAX:
            self._asked.add(peer)
            self._queue.append(self._get(Contact(peer, ask.address), reply.token))

    def _second_step(self, reached: list[Answer]) -> Iterable[Ask]:
        for answer in reached:
            if answer.held > 0 and answer.contact.peer not in self._asked:
                yield self._get(answer.contact, answer.token)

    def _get(self, contact: Contact, token: bytes | None) -> Ask:
        return Ask(contact.peer, contact.address, Command.GET, self.lookup.target, b"", token)

    def _refreshed(self, ask: Ask) -> Ask:
        return Ask(ask.peer, ask.address, ask.command, ask.target, self._list(), ask.token)

    def _list(self) -> bytes:
        """What need not be sent to us; the record that several are to give is not in it."""
        have = b"".join([name for name in self._have if name != self._sole][-_HAVE_MAX:])
        assert len(have) <= _HAVE_MAX * SHORT_BYTES, "the list of records fits its query"
        return have

    def _second_answer(self, ask: Ask, peer: PeerId, reply: Reply) -> None:
        fresh = sum([self._consider(data, peer) for data in reply.records])
        if reply.more and fresh:
            self._queue.append(ask)  # each page must bring something new, so this ends
        else:
            self._read.add(peer)

    def _consider(self, data: bytes, holder: PeerId) -> bool:
        name = short(data)
        if fresh := name not in self._have:
            try:
                record = open_record(data, net=self._net, now=self._wall(), verify=self._verify)
                if record.payload.topic != self.lookup.target:
                    raise Malformed("a record of another topic than the one asked for")
            except PeerFault as fault:
                self._report(Dropped(fault.reason, holder, f"in an answer to GET: {fault.message}"))
                return False
            self._have[name] = None
            self._take(record)
        if name == self._sole:
            self._givers.add(holder)
        return fresh

    def _take(self, record: Verified[Record]) -> None:
        held = self._newest.get(record.signer)
        if held is not None and contradict(held.payload, record.payload):
            self._report(Dropped(Reason.EQUIVOCATED, record.signer, "it signed two records with one sequence"))
        if held is None or rank(record) > rank(held):
            self._newest[record.signer] = record
            if (
                self._hurries and RULES[RecordKind(record.payload.kind)].place is not None
            ):  # then no other record can be here
                self._sole = short(record.evidence)
                self._quorum = 1 if record.payload.kind == RecordKind.IMMUTABLE else limits.DHT_BETA
                self._givers.clear()


class Observe(Gather):
    """Read a watched topic, and have some of its holders promise to tell us what changes."""

    _hurries = False

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
