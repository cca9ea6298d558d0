"""How we ask: each query leaves once, and again after its timeout; only what answers it, from where it went, counts.

1. an answer belongs to an open query, and comes from the address that query went to
2. RETRY: the query is sent once more, with the token; ERROR: it has failed
3. REPLY: its signature holds, over this very query, by the peer that was asked
4. who answered enters the table; what it said goes to the operation that asked

A peer whose signatures or statements do not hold is barred after a few; so is a stranger that does not answer a ping.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from haif.base import limits
from haif.base.clock import Instant
from haif.base.errors import BadSignature, Dropped, Malformed, PeerFault, Reason, Unauthenticated, WrongState
from haif.base.ids import Digest, NetId, PeerId
from haif.base.machine import Address
from haif.dht import messages
from haif.dht.agenda import Agenda
from haif.dht.contact import Contact, node_id
from haif.dht.counters import Counters
from haif.dht.crossing import Carriers
from haif.dht.lookup import Ask
from haif.dht.lost import Lost, Silence
from haif.dht.messages import Command, Datagram, ErrorCode, Kind, Reply
from haif.dht.operations import Find
from haif.dht.penalties import Penalties
from haif.dht.requests import Open, Requests
from haif.dht.sightings import Sightings
from haif.dht.table import RoutingTable
from haif.dht.upkeep import Upkeep
from haif.identity.keys import Verify


class Asker:
    """The side of a node that asks. `advance` is told of each operation that something happened to."""

    def __init__(
        self,
        own: PeerId,
        net: NetId,
        agenda: Agenda,
        table: RoutingTable,
        counters: Counters,
        upkeep: Upkeep,
        entropy: Callable[[int], bytes],
        *,
        ephemeral: bool,
        sightings: Sightings,
        carriers: Carriers,
        verify: Verify,
        advance: Callable[[Find, Instant], None],
        report: Callable[[Dropped], None],
    ) -> None:
        self._own, self._net = own, net
        self._agenda, self._table, self._counters, self._upkeep = agenda, table, counters, upkeep
        self._id = Digest(node_id(own).to_bytes(Digest.size, "big"))
        self.appear(ephemeral=ephemeral)
        self._sightings, self._carriers = sightings, carriers
        self._verify, self._advance, self._report = verify, advance, report
        self._requests = Requests(entropy)
        self._penalties = Penalties()
        self.bars = self._penalties.bars  # whether a contact is to be left alone
        self._silence = Silence()
        self._challenged: set[PeerId] = set()
        self._heard = Instant(float("-inf"))  # when somebody last answered
        self.lost = Lost()
        self.outgoing: deque[tuple[bytes, Address]] = deque()

    def spares(self, contact: Contact, now: Instant) -> bool:
        """Whether not to ask a contact where nobody waits for the answer: it is barred, or has just not answered."""
        return self.bars(contact, now) or self._silence.holds(contact, now)

    def appear(self, *, ephemeral: bool) -> None:
        """From now on say who asks; or, `ephemeral`, do not: then we enter nobody's table."""
        self._sender = None if ephemeral else self._own

    def send(self, ask: Ask, operation: Find | None, now: Instant, token: bytes | None = None) -> None:
        """Ask. With a `token`, for the second time."""
        tid = self._requests.fresh_tid()
        data = messages.write_query(tid, ask.command, ask.target, ask.argument, token or ask.token, self._sender)
        self._requests.opened(tid, ask, data, operation, now, retried=token is not None)
        self.outgoing.append((data, ask.address))

    def challenge(self, contact: Contact, now: Instant) -> None:
        """Ping a peer before believing that it is where it seems to be."""
        if contact.peer in self._challenged or len(self._challenged) >= limits.DHT_CHALLENGES_MAX:
            return
        self._challenged.add(contact.peer)
        self.send(Ask(contact.peer, contact.address, Command.PING, self._id), None, now)

    def exclude(self, peers: frozenset[PeerId]) -> None:
        """Leave these peers alone, and no others for such a reason."""
        self._penalties.excluded = peers
        for peer in peers:
            self._table.bar(peer)

    def penalise(self, culprit: PeerId | Contact, now: Instant) -> None:
        """Hold a fault against a peer, or against a peer at one address only."""
        if self._penalties.fault(culprit, now):
            self._table.bar(culprit)

    def received(self, datagram: Datagram, source: Address, now: Instant) -> None:
        """An answer of any kind came. Raises a `PeerFault` or `Refusal` for what it does wrong."""
        query = self._asked(datagram, source)
        match datagram.kind:
            case Kind.REPLY:
                self._on_reply(datagram, query, now)
            case Kind.RETRY:
                self._on_retry(datagram, query, now)
            case _:
                self._on_error(datagram, query, now)

    def wake_at(self) -> Instant | None:
        """When the next query is past its timeout."""
        return self._requests.wake_at()

    def wake(self, now: Instant) -> None:
        """Ask again whoever is past its timeout, and give up whoever has had two."""
        for query in self._requests.due(now):
            self._timed_out(query, now)

    def _running(self, query: Open) -> Find | None:
        return query.operation if query.operation is not None and query.operation in self._agenda else None

    # --- what comes back ----------------------------------------------------------------------------------------------

    def _asked(self, datagram: Datagram, source: Address) -> Open:
        """The open query a datagram claims to answer, if it comes from where that query went."""
        query = self._requests.get(datagram.tid)
        if query is None:
            raise WrongState("an answer to no open query")
        if source != query.ask.address:
            raise Unauthenticated("an answer from another address than the one asked")
        return query

    def _on_reply(self, datagram: Datagram, query: Open, now: Instant) -> None:
        responder, reply = self._opened(datagram, query, now)
        if responder == self._own:
            raise WrongState("our own reply came back", responder)
        self._requests.answered(query, now)
        self._upkeep.answered()
        self.lost.found(responder)
        self._challenged.discard(responder)
        self._heard = now
        self._counters.replies_accepted += 1
        contact = Contact(responder, query.ask.address)
        self._silence.forget(contact)
        self._sightings.note(responder, query.ask.address, reply.observed, now)
        self._carriers.heard(contact, reply.elsewhere)
        if not self.bars(contact, now) and (silent := self._table.heard(contact, now)) is not None:
            self.challenge(silent, now)
        if (operation := self._running(query)) is not None:
            try:
                operation.answered(query.ask, responder, reply)
            except PeerFault:
                self.penalise(responder, now)
                raise
            finally:
                self._advance(operation, now)

    def _opened(self, datagram: Datagram, query: Open, now: Instant) -> tuple[PeerId, Reply]:
        """Who answered, and what. A signature that does not verify is held against the peer at that address."""
        try:
            responder, reply = messages.open_reply(datagram, net=self._net, query=query.data, verify=self._verify)
            _check_responder(query, responder)
        except BadSignature:
            if query.ask.peer is not None:
                self.penalise(Contact(query.ask.peer, query.ask.address), now)
            raise
        return responder, reply

    def _on_retry(self, datagram: Datagram, query: Open, now: Instant) -> None:
        if len(datagram.rest) != messages.TOKEN_BYTES:
            raise Malformed(f"a token has {messages.TOKEN_BYTES} bytes", query.ask.peer)
        if query.retried:
            raise WrongState("a second RETRY for one query", query.ask.peer)
        self._requests.closed(query)
        self.send(query.ask, query.operation, now, token=datagram.rest)

    def _on_error(self, datagram: Datagram, query: Open, now: Instant) -> None:
        if len(datagram.rest) != 1 or datagram.rest[0] not in ErrorCode._value2member_map_:
            raise Malformed("an unknown error code", query.ask.peer)
        code = ErrorCode(datagram.rest[0])
        reason = Reason.OVERLOADED if code is ErrorCode.OVERLOADED else Reason.UNSUPPORTED
        host, port = query.ask.address
        self._report(Dropped(reason, query.ask.peer, f"{host}:{port} would not answer our query"))
        self._requests.closed(query)
        self._give_up(query, now)

    def _timed_out(self, query: Open, now: Instant) -> None:
        if not query.resent:
            self._requests.again(query)
            self._counters.queries_resent += 1
            self.outgoing.append((query.data, query.ask.address))
            if (operation := self._running(query)) is not None:
                operation.slow(query.ask)
                self._advance(operation, now)
            return
        self._requests.failed(query)
        self._counters.queries_failed += 1
        if query.ask.peer is not None:
            contact = Contact(query.ask.peer, query.ask.address)
            if self._heard > query.sent:  # it was not our own connection
                self._silence.add(contact, now)
            self._carriers.failed(contact)
            if contact not in self.lost:  # else it is no news
                self._upkeep.unanswered()
            if self._table.failed(contact):
                self.lost.add([contact], now)
        self._give_up(query, now)

    def _give_up(self, query: Open, now: Instant) -> None:
        if query.ask.peer is not None:
            self._challenged.discard(query.ask.peer)
        if (operation := self._running(query)) is not None:
            operation.failed(query.ask)
            self._advance(operation, now)


def _check_responder(query: Open, responder: PeerId) -> None:
    if query.ask.peer not in {None, responder}:
        raise BadSignature("another peer than the one asked has answered", responder)
