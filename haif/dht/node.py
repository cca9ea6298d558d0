"""A node of the directory as a machine: datagrams and time come in; datagrams, events and a wish to be woken come out.

It answers strangers (`answers`), asks for its owner (`operations`), and keeps its table true: whoever asks us something
and would fit is pinged before it is believed; idle buckets and our own neighbourhood are looked up from time to time;
a node that knows nobody greets its bootstrap addresses again. Nothing received can raise: what is refused becomes a
`Dropped`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from haif.base import limits
from haif.base.clock import Instant, WallTime
from haif.base.errors import (
    BadSignature,
    Dropped,
    Malformed,
    Overloaded,
    OverQuota,
    PeerFault,
    Reason,
    Refusal,
    Unauthenticated,
    WrongState,
)
from haif.base.ids import Digest, NetId, PeerId
from haif.base.machine import Address
from haif.dht import messages
from haif.dht.answers import Answerer
from haif.dht.contact import Contact, node_id
from haif.dht.counters import Counters
from haif.dht.diversity import Scope, networks
from haif.dht.lookup import Ask, Extent, Lookup
from haif.dht.messages import Command, Datagram, ErrorCode, Kind, Reply
from haif.dht.operations import Event, Find, Gather, Join, Publish
from haif.dht.penalties import Penalties
from haif.dht.requests import Open, Requests
from haif.dht.sightings import Sightings
from haif.dht.size import NetworkSize, region
from haif.dht.store import RecordStore
from haif.dht.table import RoutingTable
from haif.dht.upkeep import Upkeep
from haif.identity.keys import Identity
from haif.protocol.records import open_record

_BACKGROUND_MAX = limits.DHT_OPERATIONS_MAX // 4  # lookups of our own accord


class Node:
    """The machine. `wall` tells the time of day when a record's expiry is checked.

    `exempt` says whose networks are not counted where diversity is wanted; by default everybody's are.
    `ephemeral`: it is only here to ask.
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
    ) -> None:
        self.peer = identity.peer
        self._sender = None if ephemeral else identity.peer  # who does not say who asks enters nobody's table
        self.id = Digest(node_id(self.peer).to_bytes(Digest.size, "big"))
        self.table = RoutingTable(self.peer, exempt=exempt)
        self.size = NetworkSize()
        self._exempt = exempt
        self._samples: set[int] = set()  # lookups of targets that we drew ourselves
        self.store = RecordStore()
        self.sightings = Sightings()
        self.counters = Counters()
        self._net, self._entropy, self._wall = net, entropy, wall
        self._answerer = Answerer(identity, net, self.table, self.store, entropy, now)
        self._requests = Requests(entropy)
        self._operations: dict[int, Find] = {}
        self._background: set[int] = set()
        self._number = 0
        self._challenged: set[PeerId] = set()
        self._penalties = Penalties()
        self._heard = now  # when the last datagram came
        self._bootstrap: tuple[Address, ...] = ()
        self._known: tuple[Contact, ...] = ()
        self._outgoing: deque[tuple[bytes, Address]] = deque()
        self._events: deque[Event] = deque()
        self._upkeep = Upkeep(self.table, now)

    # --- what the owner may ask for: each returns the number its event will carry -------------------------------------

    def join(self, addresses: Sequence[Address], now: Instant, *, known: Sequence[Contact] = ()) -> int:
        """Enter the network through any of these addresses, or of the contacts known from a former life.

        Ends in `Found` (no contacts: nobody answered). Nobody is believed to be there before having answered.
        """
        self._bootstrap, self._known = tuple(addresses), tuple(known[: limits.DHT_CONTACTS_KEPT_MAX])
        self._upkeep.postpone(now)
        return self._begin(self._join(self._next_number(), now), now)

    def contacts(self) -> tuple[Contact, ...]:
        """The verified contacts to keep for another life, the closest to us first; those that fail are left out."""
        own = int.from_bytes(self.id, "big")
        return tuple(self.table.closest(own, limits.DHT_CONTACTS_KEPT_MAX, since=Instant(float("-inf"))))

    def find(self, target: Digest, now: Instant) -> int:
        """Find the peers closest to a target; ends in `Found`."""
        return self._begin(Find(self._next_number(), self._lookup(target, now)), now)

    def publish(self, record: bytes, now: Instant) -> int:
        """Have the k closest peers, and us, keep our record; ends in `Stored`.

        Raises what `open_record` and `RecordStore.put` raise, except that a full store of our own stops nothing.
        """
        opened = open_record(record, net=self._net, now=self._wall())
        with suppress(OverQuota):
            self.store.put(opened, self._wall())
        lookup = self._lookup(opened.payload.topic, now, thorough=True, broad=True)
        return self._begin(Publish(self._next_number(), lookup, record), now)

    def gather(self, topic: Digest, now: Instant) -> int:
        """Read the newest record of every owner at a topic; ends in `Gathered`."""
        lookup = self._lookup(topic, now, thorough=True)
        held = self.store.get(topic, self._wall())
        number = self._next_number()
        operation = Gather(number, lookup, held, net=self._net, wall=self._wall, report=self._on_bad_record)
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
            self._send(Ask(peer, address, Command.DIALBACK, self.id, argument), None, now)
        return chosen

    def appear(self, *, ephemeral: bool) -> None:
        """From now on say who asks, and so enter the tables of others; or, `ephemeral`, be here only to ask."""
        self._sender = None if ephemeral else self.peer

    def nodes_estimated(self, now: Instant) -> float:
        """How many nodes the network seems to have."""
        own = int.from_bytes(self.id, "big")
        return self.size.nodes([node_id(c.peer) ^ own for c in self.table.closest(own, limits.DHT_K)], now)

    def gauge(self, now: Instant) -> None:
        """Look up a random target in the background, to learn how dense the network is."""
        self._sample(Digest(self._entropy(Digest.size)), now)

    @property
    def busy(self) -> int:
        """Operations in progress, the background's included."""
        return len(self._operations)

    # --- the machine --------------------------------------------------------------------------------------------------

    def receive(self, data: bytes, source: Address, now: Instant) -> None:
        """A datagram arrived. Whatever is wrong with it is reported and counted, and changes nothing."""
        self._heard = now
        self.counters.datagrams_in += 1
        self.counters.bytes_in += len(data)
        try:
            datagram = messages.read(data)
            match datagram.kind:
                case Kind.QUERY:
                    self._on_query(datagram, source, now)
                case Kind.REPLY:
                    self._on_reply(datagram, source, now)
                case Kind.RETRY:
                    self._on_retry(datagram, source, now)
                case Kind.ERROR:
                    self._on_error(datagram, source, now)
                case Kind.DIALBACK:
                    raise WrongState("a dial back came to a port that waits for none")
        except (PeerFault, Refusal) as fault:
            peer = fault.peer if isinstance(fault, PeerFault) else None
            self._report(Dropped(fault.reason, peer, f"from {source[0]}:{source[1]}: {fault.message}"))

    def outgoing(self, now: Instant) -> Iterable[tuple[bytes, Address]]:  # noqa: ARG002 - the form of every Machine
        """What to send, each once."""
        while self._outgoing:
            data, address = self._outgoing.popleft()
            self.counters.datagrams_out += 1
            self.counters.bytes_out += len(data)
            yield data, address

    def next_event(self) -> Event | None:
        """The next thing the owner should know."""
        return self._events.popleft() if self._events else None

    def wake_at(self) -> Instant | None:
        """When `wake` wants to be called."""
        due, regular = self._requests.wake_at(), self._upkeep.wake_at()
        return regular if due is None else min(due, regular)

    def wake(self, now: Instant) -> None:
        """Time has passed: ask again, give up, look after the table."""
        for query in self._requests.due(now):
            self._timed_out(query, now)
        if self._upkeep.neighbourhood_due(now):
            self._look_around(now)
        if self._upkeep.inspection_due(now):
            self.store.forget_expired(self._wall())
            for prefix in self.table.idle(now):
                self._refresh(prefix, now)

    # --- what arrives -------------------------------------------------------------------------------------------------

    def _on_query(self, datagram: Datagram, source: Address, now: Instant) -> None:
        query = messages.read_query(datagram)
        answered = self._answerer.answer(datagram, query, source, now, self._wall())
        self._outgoing.append((answered.data, source))
        if answered.aside is not None:
            self._outgoing.append(answered.aside)
        self.counters.queries_answered += 1
        if answered.fault is not None:
            self._report(Dropped(answered.fault.reason, query.sender, answered.fault.message))
        if query.sender is not None:
            stranger = Contact(query.sender, source)
            if self.table.wants(stranger) and not self._penalties.bars(stranger, now):
                self._challenge(stranger, now)

    def _on_reply(self, datagram: Datagram, source: Address, now: Instant) -> None:
        query = self._asked(datagram, source)
        responder, reply = self._opened(datagram, query, now)
        if responder == self.peer:
            raise WrongState("our own reply came back", responder)
        self._requests.answered(query, now)
        self._challenged.discard(responder)
        self.counters.replies_accepted += 1
        contact = Contact(responder, query.ask.address)
        self.sightings.note(responder, query.ask.address, reply.observed, now)
        if not self._penalties.bars(contact, now) and (silent := self.table.heard(contact, now)) is not None:
            self._challenge(silent, now)
        if (operation := self._running(query)) is not None:
            try:
                operation.answered(query.ask, responder, reply)
            except PeerFault:
                self._penalise(responder, now)
                raise
            finally:
                self._advance(operation, now)

    def _opened(self, datagram: Datagram, query: Open, now: Instant) -> tuple[PeerId, Reply]:
        """Who answered, and what. A signature that does not verify is held against the peer at that address."""
        try:
            responder, reply = messages.open_reply(datagram, net=self._net, query=query.data)
            _check_responder(query, responder)
        except BadSignature:
            if query.ask.peer is not None:
                self._penalise(Contact(query.ask.peer, query.ask.address), now)
            raise
        return responder, reply

    def _penalise(self, culprit: PeerId | Contact, now: Instant) -> None:
        if self._penalties.fault(culprit, now):
            self.table.bar(culprit)

    def _on_bad_record(self, dropped: Dropped) -> None:
        """A holder passed on a record that does not hold. Clocks differ, so an expired one is nobody's fault."""
        self._report(dropped)
        if dropped.peer is not None and dropped.reason is not Reason.EXPIRED:
            self._penalise(dropped.peer, self._heard)

    def _on_retry(self, datagram: Datagram, source: Address, now: Instant) -> None:
        query = self._asked(datagram, source)
        if len(datagram.rest) != messages.TOKEN_BYTES:
            raise Malformed(f"a token has {messages.TOKEN_BYTES} bytes", query.ask.peer)
        if query.retried:
            raise WrongState("a second RETRY for one query", query.ask.peer)
        self._requests.closed(query)
        self._send(query.ask, query.operation, now, token=datagram.rest)

    def _on_error(self, datagram: Datagram, source: Address, now: Instant) -> None:
        query = self._asked(datagram, source)
        if len(datagram.rest) != 1 or datagram.rest[0] not in ErrorCode._value2member_map_:
            raise Malformed("an unknown error code", query.ask.peer)
        code = ErrorCode(datagram.rest[0])
        reason = Reason.OVERLOADED if code is ErrorCode.OVERLOADED else Reason.UNSUPPORTED
        self._report(Dropped(reason, query.ask.peer, f"{source[0]}:{source[1]} would not answer our query"))
        self._requests.closed(query)
        self._give_up(query, now)

    def _asked(self, datagram: Datagram, source: Address) -> Open:
        """The open query a datagram claims to answer, if it comes from where that query went."""
        query = self._requests.get(datagram.tid)
        if query is None:
            raise WrongState("an answer to no open query")
        if source != query.ask.address:
            raise Unauthenticated("an answer from another address than the one asked")
        return query

    # --- what we send -------------------------------------------------------------------------------------------------

    def _send(self, ask: Ask, operation: Find | None, now: Instant, token: bytes | None = None) -> None:
        tid = self._requests.fresh_tid()
        data = messages.write_query(tid, ask.command, ask.target, ask.argument, token or ask.token, self._sender)
        self._requests.opened(tid, ask, data, operation, now, retried=token is not None)
        self._outgoing.append((data, ask.address))

    def _timed_out(self, query: Open, now: Instant) -> None:
        operation = self._running(query)
        if not query.resent:
            self._requests.again(query)
            self.counters.queries_resent += 1
            self._outgoing.append((query.data, query.ask.address))
            if operation is not None:
                operation.slow(query.ask)
                self._advance(operation, now)
            return
        self._requests.closed(query)
        self.counters.queries_failed += 1
        if query.ask.peer is not None:
            self.table.failed(Contact(query.ask.peer, query.ask.address))
        self._give_up(query, now)

    def _give_up(self, query: Open, now: Instant) -> None:
        if query.ask.peer is not None:
            self._challenged.discard(query.ask.peer)
        if (operation := self._running(query)) is not None:
            operation.failed(query.ask)
            self._advance(operation, now)

    def _challenge(self, contact: Contact, now: Instant) -> None:
        """Ping a peer before believing that it is where it seems to be."""
        if contact.peer in self._challenged or len(self._challenged) >= limits.DHT_CHALLENGES_MAX:
            return
        self._challenged.add(contact.peer)
        self._send(Ask(contact.peer, contact.address, Command.PING, self.id), None, now)

    # --- operations ---------------------------------------------------------------------------------------------------

    def _next_number(self) -> int:
        if len(self._operations) >= limits.DHT_OPERATIONS_MAX:
            raise Overloaded(f"this node has {limits.DHT_OPERATIONS_MAX} lookups in progress; ask again in a moment")
        self._number += 1
        return self._number

    def _lookup(self, target: Digest, now: Instant, *, thorough: bool = False, broad: bool = False) -> Lookup:
        key = int.from_bytes(target, "big")
        self.table.touch(key, now)
        wide = region(self.nodes_estimated(now))
        dense = int(wide / (limits.DHT_REGION_FACTOR * limits.DHT_DENSITY_FACTOR))
        extent = Extent(wide, dense, thorough, broad, self._exempt)
        seeds = self.table.closest(key, limits.DHT_K)
        if broad:
            seeds += self.table.from_each_bucket(limits.DHT_SHELL_CONTACTS)
        return Lookup(target, seeds, self.peer, extent, barred=lambda c: self._penalties.bars(c, self._heard))

    def _begin(self, operation: Find, now: Instant) -> int:
        self._operations[operation.number] = operation
        self._advance(operation, now)
        return operation.number

    def _running(self, query: Open) -> Find | None:
        return self._operations.get(query.operation.number) if query.operation is not None else None

    def _advance(self, operation: Find, now: Instant) -> None:
        for ask in operation.asks():
            self._send(ask, operation, now)
        if not operation.done:
            return
        del self._operations[operation.number]
        if operation.number not in self._samples:
            self.counters.eclipses_suspected += operation.lookup.suspected
        else:
            self._samples.remove(operation.number)
            self.size.sampled(operation.lookup.distances(), now)
        if operation.number in self._background:
            self._background.remove(operation.number)
        else:
            self._events.append(operation.event())
        if isinstance(operation, Join):
            for prefix in self.table.unfilled():
                self._refresh(prefix, now)

    def _look_around(self, now: Instant) -> None:
        if (number := self._background_number()) is not None:
            alone = not len(self.table)
            self._begin(self._join(number, now) if alone else Find(number, self._lookup(self.id, now)), now)
        if len(self.table):
            self.gauge(now)

    def _join(self, number: int, now: Instant) -> Join:
        lookup = self._lookup(self.id, now, broad=True)
        for contact in self._known:
            lookup.add(contact)
        return Join(number, lookup, self._bootstrap)

    def _refresh(self, prefix: int, now: Instant) -> None:
        self._sample(self.table.target_in(prefix, self._entropy), now)

    def _sample(self, target: Digest, now: Instant) -> None:
        """Look up a target that nobody else could foresee: for the table, and for the size of the network."""
        if (number := self._background_number()) is not None:
            self._samples.add(number)
            self._begin(Find(number, self._lookup(target, now)), now)

    def _background_number(self) -> int | None:
        """A number for a lookup of our own accord, unless there is enough to do; its event is not told."""
        if len(self._background) >= _BACKGROUND_MAX or self.busy >= limits.DHT_OPERATIONS_MAX:
            return None
        number = self._next_number()
        self._background.add(number)
        return number

    def _report(self, dropped: Dropped) -> None:
        self.counters.dropped[dropped.reason] += 1
        if len(self._events) < limits.DHT_EVENTS_MAX:
            self._events.append(dropped)


def _check_responder(query: Open, responder: PeerId) -> None:
    if query.ask.peer not in {None, responder}:
        raise BadSignature("another peer than the one asked has answered", responder)
