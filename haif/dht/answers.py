"""How a query is answered: by us as a stranger's server, with nothing but the query, our table and our store.

1. the query parses; an unknown command is answered with ERROR
2. PUT, WATCH, CARRY, DIALBACK and whatever would be answered with more than three times its length need a token; else
   RETRY
3. there is budget left for a signature, or a record to check; without: ERROR, or RETRY where the address is unproven,
   because for those who prove theirs there may be some
4. the answer is made, measured against rule 2, and signed over this very query
5. who watches the topic of a record that was stored is sent a NOTICE each, as far as the budgets go
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

from msgspec import structs

from haif.base import limits
from haif.base.clock import Instant, WallTime
from haif.base.errors import HaifError, Malformed, MustWait, Overloaded, Reason, Unauthenticated, Unsupported
from haif.base.hashing import digest
from haif.base.ids import NetId
from haif.base.machine import Address
from haif.dht import messages
from haif.dht.budget import SigningBudget
from haif.dht.contact import pack_address, pack_contacts
from haif.dht.crossing import Carry, Freight
from haif.dht.diversity import Scope, networks
from haif.dht.messages import Command, Datagram, ErrorCode, Kind, Put, Query, Reply
from haif.dht.notices import Watchers
from haif.dht.store import RecordStore
from haif.dht.table import RoutingTable
from haif.dht.tickets import Claim, TicketOffice, Wait
from haif.dht.tokens import TokenMint
from haif.identity.keys import Identity, Verify
from haif.identity.signing import Verified
from haif.protocol.records import Record, open_record

_RECORD_OVERHEAD = 3  # msgpack head of a byte string
_COMMANDS = frozenset(Command)
_FOR_THE_PROVEN = frozenset({Command.PUT, Command.WATCH, Command.CARRY, Command.DIALBACK})


class Answered(NamedTuple):
    """What to send back, what was refused on the way, and what was stored. `aside` goes to another port of theirs.

    `carry` is what was taken to be carried over.
    """

    data: bytes
    fault: HaifError | None = None
    stored: Verified[Record] | None = None
    aside: tuple[bytes, Address] | None = None
    carry: Carry | None = None


class _Asked(NamedTuple):
    """A query, and what its answers have in common."""

    query: Query
    source: Address
    tid: bytes
    now: Instant
    wall: WallTime
    bare: Reply


class Answerer:
    """The side of a node that answers."""

    def __init__(
        self,
        identity: Identity,
        net: NetId,
        table: RoutingTable,
        store: RecordStore,
        entropy: Callable[[int], bytes],
        now: Instant,
        exempt: Scope,
        verify: Verify,
    ) -> None:
        self._identity, self._net, self._table, self._store = identity, net, table, store
        self._verify = verify
        self._tokens = TokenMint(entropy, now)
        self._budget = SigningBudget(now)
        self._exempt = exempt
        self.tickets = TicketOffice(entropy)
        self.watchers = Watchers(exempt)
        self.elsewhere = b""  # where we stand in the other family's directory, packed; empty: we do not
        self._freight = Freight(now, exempt)

    def answer(self, datagram: Datagram, query: Query, source: Address, now: Instant, wall: WallTime) -> Answered:
        """The datagram that answers this query."""
        if query.command not in _COMMANDS:
            return _error(datagram, ErrorCode.UNSUPPORTED, Unsupported(f"command {query.command} is unknown"))
        proven = self._tokens.recognises(query.token, source, query.sender, query.target, now)
        token = self._tokens.mint(source, query.sender, query.target, now)
        if query.command in _FOR_THE_PROVEN and not proven:
            unproven = Unauthenticated("a record or a watch came without a token for its address")
            return _retry(datagram, token, None if query.command == Command.DIALBACK else unproven)
        if not self._budget.take(source, now, proven=proven):
            busy = Overloaded("too many signatures are asked for, from this subnet or in all")
            return _error(datagram, ErrorCode.OVERLOADED, busy) if proven else _retry(datagram, token, busy)
        aside = None
        if query.command == Command.DIALBACK:
            port, nonce = messages.read_dialback(query)
            aside = messages.write(Kind.DIALBACK, datagram.tid, nonce), (source[0], port)
        asked = _Asked(
            query, source, datagram.tid, now, wall, Reply(pack_address(source), token, elsewhere=self.elsewhere)
        )
        fault: HaifError | None = None
        stored, carry = None, None
        if query.command == Command.PUT:
            reply, fault, stored = self._keep(asked)
        elif query.command == Command.CARRY:
            reply, fault, carry = self._carry(asked)
        else:
            reply = self._reply(asked)
        if not proven and messages.reply_bytes(reply) > limits.DHT_AMPLIFICATION_MAX * len(datagram.raw):
            return _retry(datagram, token)
        return Answered(messages.sign_reply(self._identity, self._net, datagram, reply), fault, stored, aside, carry)

    def notices(self, record: Verified[Record], now: Instant) -> Iterator[tuple[bytes, Address]]:
        """What to send to whom now that a record was stored."""
        topic = record.payload.topic
        for handle, watcher in self.watchers.tell(topic, now):
            if self._budget.take(watcher, now, proven=True):
                yield messages.sign_notice(self._identity, self._net, handle, topic, record.evidence), watcher

    def _reply(self, asked: _Asked) -> Reply:
        match asked.query.command:
            case Command.FIND:
                return self._contacts(asked)
            case Command.GET:
                return self._records(asked, asked.query.argument)
            case Command.WATCH:
                return self._watched(asked)
            case _:
                return asked.bare

    def _contacts(self, asked: _Asked) -> Reply:
        query, bare = asked.query, asked.bare
        since = Instant(asked.now - limits.DHT_RELAY_SECONDS)
        count = limits.DHT_K + (query.sender is not None and query.sender in self._table)
        near = self._table.closest(int.from_bytes(query.argument or query.target, "big"), count, since=since)
        others = [contact for contact in near if contact.peer != query.sender][: limits.DHT_K]
        room = messages.BYTES_MAX - messages.reply_bytes(bare) - 16
        held = len(self._store.get(query.target, asked.wall))
        return structs.replace(bare, contacts=pack_contacts(others, room), held=held)

    def _records(self, asked: _Asked, known: bytes) -> Reply:
        """Records the reader has not, as many as fit, in an order drawn by the reader's tid: we cannot choose it."""
        width, bare = messages.SHORT_BYTES, asked.bare
        have = {known[at : at + width] for at in range(0, len(known), width)}
        wanted = [
            record.evidence
            for record in self._store.get(asked.query.target, asked.wall)
            if messages.short(record.evidence) not in have
        ]
        wanted.sort(key=lambda data: digest("haif v1 dht order", asked.tid, data))
        room = messages.BYTES_MAX - messages.reply_bytes(bare) - 16
        page: list[bytes] = []
        for data in wanted:
            if len(data) + _RECORD_OVERHEAD <= room:
                page.append(data)
                room -= len(data) + _RECORD_OVERHEAD
        return structs.replace(bare, records=tuple(page), more=len(page) < len(wanted))

    def _watched(self, asked: _Asked) -> Reply:
        """The same, and a promise; `refused` where we can make no more of them."""
        query = asked.query
        handle, known = query.argument[: messages.HANDLE_BYTES], query.argument[messages.HANDLE_BYTES :]
        promised = self.watchers.register(query.target, handle, asked.source, asked.now)
        reply = self._records(asked, known)
        return reply if promised else structs.replace(reply, refused=Reason.OVER_QUOTA.value)

    def _keep(self, asked: _Asked) -> tuple[Reply, HaifError | None, Verified[Record] | None]:
        """Store what was put. Whoever must wait gets a ticket that says since when it does."""
        bare = asked.bare
        try:
            put, record = self._opened(asked)
        except HaifError as fault:
            return structs.replace(bare, refused=fault.reason.value), fault, None
        claim = Claim(record.payload.topic, record.signer, asked.source)
        wait = self.tickets.read(put.ticket, claim, asked.now) if put.ticket else None
        try:
            changed = self._store_after(wait, record, asked, put.replaces)
        except MustWait as fault:
            return self._told(fault, claim, wait, asked), fault, None
        except HaifError as fault:
            return structs.replace(bare, refused=fault.reason.value), fault, None
        return bare, None, record if changed else None

    def _carry(self, asked: _Asked) -> tuple[Reply, HaifError | None, Carry | None]:
        """Take what is to be carried over to the other family's directory."""
        try:
            put, _ = self._opened(asked)
            if not self.elsewhere:
                raise Unsupported("this node stands in one directory and carries nothing over")
            fresh = self._freight.take(put.record, asked.source, asked.now)
        except HaifError as fault:
            return structs.replace(asked.bare, refused=fault.reason.value), fault, None
        return asked.bare, None, Carry(put.record, put.replaces) if fresh else None

    def _opened(self, asked: _Asked) -> tuple[Put, Verified[Record]]:
        """A record that was sent to be kept or carried. Raises what `open_record` does, and `Malformed`."""
        put = messages.read_put(asked.query)
        record = open_record(put.record, net=self._net, now=asked.wall, verify=self._verify)
        if record.payload.topic != asked.query.target:
            raise Malformed("a record of another topic than its token is for", record.signer)
        return put, record

    def _store_after(self, wait: Wait | None, record: Verified[Record], asked: _Asked, replaces: int | None) -> bool:
        early = wait is not None and asked.now < wait.due
        counted = networks(asked.source).scope < self._exempt
        return self._store.put(
            record,
            asked.wall,
            origin=asked.source if counted else None,
            waited_seconds=asked.now - wait.since if wait and not early else 0.0,
            replaces=replaces,
        )

    def _told(self, fault: MustWait, claim: Claim, wait: Wait | None, asked: _Asked) -> Reply:
        """When to come back: those who came before their time, when they were told to."""
        now = asked.now
        if wait is not None and now < wait.due:
            promised = wait
        else:
            seconds = min(fault.retry_after or 0.0, limits.TICKET_WAIT_SECONDS_MAX)
            promised = Wait(wait.since if wait else now, Instant(now + seconds))
        return structs.replace(
            asked.bare,
            refused=fault.reason.value,
            ticket=self.tickets.issue(claim, promised),
            wait_ms=max(0, min(math.ceil((promised.due - now) * 1000), messages.WAIT_MS_MAX)),
        )


def _retry(datagram: Datagram, token: bytes, fault: HaifError | None = None) -> Answered:
    return Answered(messages.write(Kind.RETRY, datagram.tid, token), fault)


def _error(datagram: Datagram, code: ErrorCode, fault: HaifError) -> Answered:
    return Answered(messages.write(Kind.ERROR, datagram.tid, bytes((code,))), fault)
