"""A node of the directory as a machine: datagrams and time come in; datagrams, events and a wish to be woken come out.

It answers strangers (`answers`), asks (`asking`) for its owner's operations (`operations`), keeps watched topics known
(`attention`), publishes and comes back where its records wait for a place (`publishing`), and keeps its table true:
whoever asks us something and would fit is pinged before it is believed; idle buckets and our own neighbourhood are
looked up from time to time; a node that knows nobody greets its bootstrap addresses again. Nothing received can raise:
what is refused becomes a `Dropped`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from haif.base import limits
from haif.base.clock import Instant, WallTime
from haif.base.errors import Dropped, HaifError, PeerFault, Reason, Refusal, WrongState
from haif.base.ids import Digest, NetId, PeerId
from haif.base.machine import Address
from haif.dht import crowd, messages
from haif.dht.agenda import Agenda
from haif.dht.answers import Answerer
from haif.dht.asking import Asker
from haif.dht.attention import Attention
from haif.dht.candidates import Answer
from haif.dht.contact import Contact, node_id, pack_address
from haif.dht.counters import Counters, LookupEnded
from haif.dht.crossing import Carriers, Carry, Elsewhere
from haif.dht.diversity import Scope, networks
from haif.dht.lookup import Ask, Extent, Lookup, Pace
from haif.dht.messages import Command, Datagram, Kind
from haif.dht.operations import Changed, Event, Find, Join, Purpose
from haif.dht.publishing import Publishing
from haif.dht.reading import Gather, Observe, Renew
from haif.dht.sightings import Sightings
from haif.dht.size import NetworkSize, region
from haif.dht.store import RecordStore
from haif.dht.table import NEAR_MAX, RoutingTable
from haif.dht.upkeep import Upkeep
from haif.dht.watch import Watch
from haif.dht.writing import Publish
from haif.identity import keys
from haif.identity.keys import Identity, Verify
from haif.identity.signing import Verified
from haif.protocol.records import Record


class Node:
    """The machine. `wall` tells the time of day when a record's expiry is checked.

    `exempt` says whose networks are not counted where diversity is wanted; by default everybody's are.
    `ephemeral`: it is only here to ask. `verify` checks signatures; only simulations have another than Ed25519's.
    """

    def __init__(
        self,
        identity: Identity,
        net: NetId,
        *,
        entropy: Callable[[int], bytes],
        wall: Callable[[], WallTime],
        now: Instant,
        exempt: Scope = Scope.NOTHING,
        ephemeral: bool = False,
        verify: Verify = keys.verify,
    ) -> None:
        self.peer, self.ephemeral = identity.peer, ephemeral
        self.id = Digest(node_id(self.peer).to_bytes(Digest.size, "big"))
        self.table = RoutingTable(self.peer, exempt=exempt, salt=entropy(crowd.SALT_BYTES))
        self.size = NetworkSize(exempt=exempt)
        self._around = 0, list[Contact](), 1.0  # after so many changes of the table, who is near, and what that shows
        self.store = RecordStore()
        self.sightings = Sightings()
        self.counters = Counters()
        self._exempt = exempt
        self._net, self._entropy, self._wall, self._verify = net, entropy, wall, verify
        self._events: deque[Event] = deque()
        self._agenda = Agenda()
        self._upkeep = Upkeep(self.table, now)
        self._answerer = Answerer(identity, net, self.table, self.store, entropy, now, exempt, verify)
        self._excluded: frozenset[PeerId] = frozenset()  # by the network's owner
        self._carriers, self._is_of_both = Carriers(entropy, self._on_carrier), False
        self._asker = Asker(
            self.peer, net, self._agenda, self.table, self.counters, self._upkeep, entropy,
            ephemeral=ephemeral, sightings=self.sightings, carriers=self._carriers, verify=verify,
            advance=self._advance, report=self._report,
        )  # fmt: skip
        self._heard = now  # when the last datagram came
        self._was_alone = False  # when somebody was said to be there
        self._bootstrap: tuple[Address, ...] = ()
        self.attention = Attention(net, entropy, wall, verify=verify, begin=self._observe, changed=self._on_change)
        self._publishing = Publishing(
            self.peer, net, wall, verify, self._agenda, self.table, self.store, self._carriers, self.counters,
            look=partial(self._lookup, thorough=True, broad=True), begin=self._begin, stored=self._stored,
        )  # fmt: skip

    # --- what the owner may ask for: each returns the number its event will carry -------------------------------------

    def join(self, addresses: Sequence[Address], now: Instant, *, known: Sequence[Contact] = ()) -> int:
        """Enter the network through any of these addresses, or of the contacts known from a former life.

        Ends in `Found` (no contacts: nobody answered). Nobody is believed to be there before having answered.
        """
        self._bootstrap = tuple(addresses)
        self._asker.lost.add(known[: limits.DHT_CONTACTS_KEPT_MAX][::-1], now)
        self._upkeep.postpone(now)
        return self._begin(self._join(Purpose.OWNER, now), now)

    def meet(self, contact: Contact, now: Instant) -> None:
        """Somebody is said to be there: ping it, if it could be of use; if we knew nobody, join through who answers."""
        if self._asker.bars(contact, now) or not self.table.wants(contact):
            return
        self._was_alone = self._was_alone or not len(self.table)
        self._asker.challenge(contact, now)

    def contacts(self) -> tuple[Contact, ...]:
        """The verified contacts to keep for another life, the closest to us first; those that fail are left out."""
        own = int.from_bytes(self.id, "big")
        return tuple(self.table.closest(own, limits.DHT_CONTACTS_KEPT_MAX, since=Instant(float("-inf"))))

    def find(self, target: Digest, now: Instant) -> int:
        """Find the peers closest to a target; ends in `Found`."""
        return self._begin(Find(self._agenda.number(), self._lookup(target, now)), now)

    def publish(self, record: bytes, now: Instant, *, replaces: int | None = None, carry: bool = True) -> int:
        """Have the k closest peers, and us, keep our record; ends in `Stored`.

        Unless we stand in the other family's directory ourselves, others are to `carry` it over (`crossing`).

        Where there is no place yet, we come back for it by ourselves. With `replaces`, it is kept only where the
        record of this sequence is held (0: none). Raises what `open_record` raises, and `Replayed` or `Equivocated` if
        we know better ourselves.
        """
        return self._publishing.publish(record, now, replaces=replaces, carry=carry)

    def gather(self, topic: Digest, now: Instant) -> int:
        """Read the newest record of every owner at a topic (`reading`); ends in `Gathered`."""
        lookup = self._lookup(topic, now, thorough=True, pace=Pace.PROMPT)
        held = self.store.get(topic, self._wall())
        number = self._agenda.number()
        operation = Gather(
            number, lookup, held, net=self._net, wall=self._wall, report=self._on_bad_record, verify=self._verify,
        )  # fmt: skip
        return self._begin(operation, now)

    def survey(self, port: int, nonce: bytes, now: Instant) -> tuple[Contact, ...]:
        """Ask contacts of different networks to send `nonce` to this port at the address they see us at.

        Their replies are sightings, whether or not the nonce gets through. Who was asked is returned.
        """
        asked: dict[bytes, Contact] = {}
        for contact in self.table.closest(int.from_bytes(self._entropy(32), "big"), limits.DHT_CONTACTS_KEPT_MAX):
            asked.setdefault(networks(contact.address).wide, contact)
        chosen = tuple(asked.values())[: limits.SURVEY_CONTACTS]
        argument = messages.write_dialback(port, nonce)
        for peer, address in chosen:
            self._asker.send(Ask(peer, address, Command.DIALBACK, self.id, argument), None, now)
        return chosen

    def appear(self, *, ephemeral: bool) -> None:
        """From now on say who asks, and so enter the tables of others; or, `ephemeral`, be here only to ask."""
        self.ephemeral = ephemeral
        self._asker.appear(ephemeral=ephemeral)

    def stand(self, elsewhere: Address | None) -> None:
        """We have a node in the other family's directory, too. Say where, and carry over; None: it only asks there."""
        self._is_of_both = True
        self._answerer.elsewhere = b"" if elsewhere is None else pack_address(elsewhere)

    def crossed(self, came: Carry | Elsewhere, now: Instant) -> None:
        """Our other node, in the other family's directory, was asked to bring us this."""
        if isinstance(came, Elsewhere):
            if len(self.table) < limits.DHT_K:
                self.meet(came.contact, now)
            return
        try:
            self._publishing.carry_over(came, now)
        except HaifError as error:
            self._report(Dropped(error.reason, detail=f"a record to be carried over: {error.message}"))

    def watch(self, topic: Digest, now: Instant) -> None:
        """Keep a topic known; each change is told as a `Changed`. Raises `Overloaded` for too many."""
        self.attention.watch(topic, now)

    def live(self, topic: Digest) -> Mapping[PeerId, Verified[Record]]:
        """What is there now at a watched topic, of owners who were not excluded."""
        return {owner: record for owner, record in self.held(topic).items() if not record.payload.tombstone}

    def held(self, topic: Digest) -> Mapping[PeerId, Verified[Record]]:
        """The same, with what was withdrawn."""
        held = self.attention.held(topic)
        return {owner: record for owner, record in held.items() if owner not in self._excluded}

    @property
    def answerer(self) -> Answerer:
        """The side that answers strangers, for its statistics."""
        return self._answerer

    @property
    def waiting(self) -> int:
        """How many places our records wait for."""
        return len(self._publishing)

    def exclude(self, peers: frozenset[PeerId]) -> None:
        """Have nothing to do with these peers, and with no others for such a reason."""
        self._excluded = peers
        self._asker.exclude(peers)

    def nodes_estimated(self, now: Instant) -> float:
        """How many nodes the network seems to have."""
        return self.size.nodes(self._shown_around(), now)

    def gauge(self, now: Instant) -> None:
        """Look up a random target in the background, to learn how dense the network is."""
        self._sample(Digest(self._entropy(Digest.size)), now)

    @property
    def busy(self) -> int:
        """Operations in progress, those of our own accord included."""
        return len(self._agenda)

    # --- the machine --------------------------------------------------------------------------------------------------

    def receive(self, data: bytes, source: Address, now: Instant) -> None:
        """A datagram arrived. Whatever is wrong with it is reported and counted, and changes nothing."""
        self._heard = now
        self.counters.datagrams_in += 1
        self.counters.bytes_in += len(data)
        try:
            datagram = messages.read(data)
            if datagram.kind is Kind.QUERY:
                self._on_query(datagram, source, now)
            elif datagram.kind is Kind.DIALBACK:
                raise WrongState("a dial back came to a port that waits for none")
            elif datagram.kind is Kind.NOTICE:
                self.attention.noticed(datagram, source)
            else:
                self._asker.received(datagram, source, now)
        except (PeerFault, Refusal) as fault:
            peer = fault.peer if isinstance(fault, PeerFault) else None
            self._report(Dropped(fault.reason, peer, f"from {source[0]}:{source[1]}: {fault.message}"))

        if self._was_alone and len(self.table):
            self._was_alone = False
            self._begin(self._join(Purpose.UPKEEP, now), now)

    def outgoing(self, now: Instant) -> Iterable[tuple[bytes, Address]]:  # noqa: ARG002 - the form of every Machine
        """What to send, each once."""
        queue = self._asker.outgoing
        while queue:
            data, address = queue.popleft()
            self.counters.datagrams_out += 1
            self.counters.bytes_out += len(data)
            yield data, address

    def next_event(self) -> Event | None:
        """The next thing the owner should know."""
        return self._events.popleft() if self._events else None

    def wake_at(self) -> Instant | None:
        """When `wake` wants to be called."""
        wish = self._upkeep.wake_at()
        for at in (self._asker.wake_at(), self.attention.wake_at(), self._publishing.wake_at()):
            if at is not None and at < wish:
                wish = at
        return wish

    def wake(self, now: Instant) -> None:
        """Time has passed: ask again, give up, look after the table."""
        self._asker.wake(now)
        self.attention.wake(now)
        self._publishing.come_back(now)
        if self._upkeep.neighbourhood_due(now):
            self._look_around(now)
        if self._upkeep.inspection_due(now):
            self.store.forget_expired(self._wall())
            self._answerer.watchers.forget_lapsed(now)
            for prefix in self.table.idle(now, self._upkeep.bucket_seconds):
                self._refresh(prefix, now, gauging=self.size.needs_samples(now))
            if self.size.is_doubtful(self._shown_around(), now):
                self.gauge(now)

    def _on_query(self, datagram: Datagram, source: Address, now: Instant) -> None:
        query = messages.read_query(datagram)
        answered = self._answerer.answer(datagram, query, source, now, self._wall())
        self._asker.outgoing.append((answered.data, source))
        if answered.aside is not None:
            self._asker.outgoing.append(answered.aside)
        self.counters.queries_answered += 1
        if answered.fault is not None:
            self._report(Dropped(answered.fault.reason, query.sender, answered.fault.message))
        if answered.stored is not None:
            self._stored(answered.stored, now)
        if answered.carry is not None:
            self._events.append(answered.carry)
        if query.sender is not None:
            stranger = Contact(query.sender, source)
            if self.table.invites(stranger) and not self._asker.bars(stranger, now):
                self._asker.challenge(stranger, now)

    def _stored(self, record: Verified[Record], now: Instant) -> None:
        self._asker.outgoing.extend(self._answerer.notices(record, now))
        self.attention.stored(record)

    def _on_carrier(self, contact: Contact) -> None:
        """Somebody stands in the other family's directory: of use to us if we do."""
        if self._is_of_both and len(self._events) < limits.DHT_EVENTS_MAX:
            self._events.append(Elsewhere(contact))

    def _on_change(self, topic: Digest) -> None:
        self._events.append(Changed(topic))

    def _on_bad_record(self, dropped: Dropped) -> None:
        """A holder passed on a record that does not hold. Clocks differ, so an expired one is nobody's fault."""
        self._report(dropped)
        if dropped.peer is not None and dropped.reason not in {Reason.EXPIRED, Reason.EQUIVOCATED}:
            self._asker.penalise(dropped.peer, self._heard)

    def _report(self, dropped: Dropped) -> None:
        self.counters.dropped[dropped.reason] += 1
        if len(self._events) < limits.DHT_EVENTS_MAX:
            self._events.append(dropped)

    def _shown_around(self) -> float:
        """What our own neighbourhood shows of the network's size; worked out when the neighbourhood has changed."""
        changes, neighbours, shown = self._around
        if changes != self.table.changes:
            own = int.from_bytes(self.id, "big")
            near = self.table.closest(own, 2 * limits.DHT_K)
            if near != neighbours:
                shown = self.size.around([(node_id(contact.peer) ^ own, contact) for contact in near])
            self._around = self.table.changes, near, shown
        return shown

    # --- operations ---------------------------------------------------------------------------------------------------

    def _lookup(
        self,
        target: Digest,
        now: Instant,
        *,
        thorough: bool = False,
        broad: bool = False,
        pace: Pace = Pace.STEADY,
        enough: int = limits.LOOKUP_QUERIES_MAX,
    ) -> Lookup:
        key = int.from_bytes(target, "big")
        self.table.touch(key, now)
        wide = region(self.nodes_estimated(now))
        self.table.widen(min(limits.DHT_FENCE_REGIONS * wide, NEAR_MAX))
        extent = Extent(wide, thorough, broad, self._exempt)
        seeds = self.table.closest(key, limits.DHT_K)
        if thorough or broad:
            seeds += self.table.from_each_bucket(limits.DHT_SHELL_CONTACTS)
        barred = partial(self._asker.spares if pace is Pace.PATIENT else self._asker.bars, now=now)
        salt = self._entropy(crowd.SALT_BYTES) if thorough else b""
        return Lookup(target, seeds, self.peer, extent, barred=barred, salt=salt, pace=pace, enough=enough)

    def _begin(self, operation: Find, now: Instant) -> int:
        operation.began = now
        self._agenda.add(operation)
        self._advance(operation, now)
        return operation.number

    def _advance(self, operation: Find, now: Instant) -> None:
        for ask in operation.asks():
            self._asker.send(ask, operation, now)
        if not operation.done:
            return
        self._agenda.remove(operation)
        if operation.purpose is Purpose.OWNER:
            self._events.append(operation.event())
        if operation.purpose is Purpose.SAMPLE:
            self.size.sampled(operation.lookup.found(), now)
        else:
            self.counters.eclipses_suspected += operation.lookup.suspected
        if operation.lookup.queries:
            self.counters.lookups.append(LookupEnded(operation.lookup.hops, now - operation.began))
        if isinstance(operation, Publish):
            self._publishing.ended(operation, now)
        if isinstance(operation, Observe):
            self.attention.ended(operation, now)
        if isinstance(operation, Join) and operation.enters:
            self._meet_siblings(operation.lookup.nearest(), now)
            for number, prefix in enumerate(self.table.unfilled()):
                self._refresh(prefix, now, gauging=number == 0)

    # --- watched topics -----------------------------------------------------------------------------------------------

    def _observe(self, watch: Watch, renewal: bool, now: Instant) -> bool:
        if self._agenda.is_busy:
            return False
        kind, lookup = (
            (Renew, Lookup(watch.topic, (), self.peer))
            if renewal
            else (Observe, self._lookup(watch.topic, now, thorough=True))
        )
        held = self.store.get(watch.topic, self._wall())
        self._begin(
            kind(
                self._agenda.number(), lookup, held, watch=watch,
                net=self._net, wall=self._wall, report=self._on_bad_record, verify=self._verify,
            ),
            now,
        )  # fmt: skip
        return True

    # --- of our own accord --------------------------------------------------------------------------------------------

    def _look_around(self, now: Instant) -> None:
        if not self._agenda.is_busy:
            self._begin(self._join(Purpose.UPKEEP, now), now)
        if len(self.table) and self.size.needs_samples(now):
            self.gauge(now)

    def _join(self, purpose: Purpose, now: Instant) -> Join:
        """Look up our own id. Who knows nobody asks everybody it ever knew; who does, a few whom it has lost."""
        enters, lost = purpose is Purpose.OWNER or not len(self.table), self._asker.lost
        number, lookup = self._agenda.number(), self._lookup(self.id, now, pace=Pace.STEADY if enters else Pace.PATIENT)
        for contact in lost.everybody(now) if enters else ():
            lookup.add(contact)
        greeted = [] if enters else lost.some(now, self._entropy)
        return Join(number, lookup, purpose, self._bootstrap, greeted, enters=enters)

    def _meet_siblings(self, met: Iterable[Answer], now: Instant) -> None:
        """Let everybody in our own region know that we are here, and learn who else is; those we have met, know it."""
        if not self._agenda.is_busy:
            lookup = self._lookup(self.id, now, thorough=True, broad=True)
            lookup.recall(met)
            self._begin(Find(self._agenda.number(), lookup, Purpose.UPKEEP), now)

    def _refresh(self, prefix: int, now: Instant, *, gauging: bool) -> None:
        """Hear some of a bucket: as many as fill its elder half; with `gauging`, all around a point in it."""
        target = self.table.target_in(prefix, self._entropy)
        if gauging:
            self._sample(target, now)
        elif not self._agenda.is_busy:
            enough = max(limits.DHT_GUIDES, limits.DHT_K // 2 - self.table.count(prefix))
            lookup = self._lookup(target, now, pace=Pace.PATIENT, enough=enough)
            self._begin(Find(self._agenda.number(), lookup, Purpose.UPKEEP), now)

    def _sample(self, target: Digest, now: Instant) -> None:
        """Look up a target that nobody else could foresee: for the table, and for the size of the network."""
        if not self._agenda.is_busy:
            self._begin(Find(self._agenda.number(), self._lookup(target, now, pace=Pace.PATIENT), Purpose.SAMPLE), now)
