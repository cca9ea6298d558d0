"""How a query is answered: by us as a stranger's server, with nothing but the query, our table and our store.

1. the query parses; an unknown command is answered with ERROR
2. a PUT, and whatever would be answered with more than three times its length, needs a token; without: RETRY
3. the source has budget left for a signature, or a record to check; without: ERROR
4. the answer is made, measured against rule 2, and signed over this very query
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from haif.base import limits
from haif.base.clock import Instant, WallTime
from haif.base.errors import HaifError, Malformed, Overloaded, Unauthenticated, Unsupported
from haif.base.hashing import digest
from haif.base.ids import NetId
from haif.base.machine import Address
from haif.dht import messages
from haif.dht.budget import SigningBudget
from haif.dht.contact import pack_address, pack_contacts
from haif.dht.messages import Command, Datagram, ErrorCode, Kind, Query, Reply
from haif.dht.store import RecordStore
from haif.dht.table import RoutingTable
from haif.dht.tokens import TokenMint
from haif.identity.keys import Identity
from haif.protocol.records import open_record

_RECORD_OVERHEAD = 3  # msgpack head of a byte string


@dataclass(frozen=True, slots=True)
class Answered:
    """What to send back, and what was refused on the way."""

    data: bytes
    fault: HaifError | None = None


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
    ) -> None:
        self._identity, self._net, self._table, self._store = identity, net, table, store
        self._tokens = TokenMint(entropy, now)
        self._budget = SigningBudget(now)

    def answer(self, datagram: Datagram, query: Query, source: Address, now: Instant, wall: WallTime) -> Answered:
        """The datagram that answers this query."""
        if query.command not in Command._value2member_map_:
            return _error(datagram, ErrorCode.UNSUPPORTED, Unsupported(f"command {query.command} is unknown"))
        proven = self._tokens.recognises(query.token, source, query.sender, query.target, now)
        token = self._tokens.mint(source, query.sender, query.target, now)
        retry = messages.write(Kind.RETRY, datagram.tid, token)
        if query.command == Command.PUT and not proven:
            return Answered(retry, Unauthenticated("a record came without a token for its address"))
        if not self._budget.take(source, now):
            busy = Overloaded("this subnet has asked for too many signatures")
            return _error(datagram, ErrorCode.OVERLOADED, busy)
        reply, fault = self._reply(query, datagram, pack_address(source), token, now, wall)
        if not proven and messages.reply_bytes(reply) > limits.DHT_AMPLIFICATION_MAX * len(datagram.raw):
            return Answered(retry)
        return Answered(messages.sign_reply(self._identity, self._net, datagram, reply), fault)

    def _reply(
        self, query: Query, datagram: Datagram, observed: bytes, token: bytes, now: Instant, wall: WallTime
    ) -> tuple[Reply, HaifError | None]:
        bare = Reply(observed, token)
        match Command(query.command):
            case Command.PING:
                return bare, None
            case Command.FIND:
                return self._contacts(query, bare, now, wall), None
            case Command.GET:
                return self._records(query, bare, datagram.tid, wall), None
            case Command.PUT:
                fault = self._keep(query, wall)
                return Reply(observed, token, refused=fault.reason.value if fault else ""), fault

    def _contacts(self, query: Query, bare: Reply, now: Instant, wall: WallTime) -> Reply:
        since = Instant(now - limits.DHT_RELAY_SECONDS)
        around = int.from_bytes(query.argument or query.target, "big")
        near = self._table.closest(around, limits.DHT_K + 1, since=since)
        others = [contact for contact in near if contact.peer != query.sender][: limits.DHT_K]
        room = limits.DATAGRAM_BYTES_MAX - messages.reply_bytes(bare) - 16
        held = len(self._store.get(query.target, wall))
        return Reply(bare.observed, bare.token, contacts=pack_contacts(others, room), held=held)

    def _records(self, query: Query, bare: Reply, tid: bytes, wall: WallTime) -> Reply:
        """Records the reader has not, as many as fit, in an order drawn by the reader's tid: we cannot choose it."""
        width = messages.SHORT_BYTES
        have = {query.argument[at : at + width] for at in range(0, len(query.argument), width)}
        wanted = [
            record.evidence
            for record in self._store.get(query.target, wall)
            if messages.short(record.evidence) not in have
        ]
        wanted.sort(key=lambda data: digest("haif v1 dht order", tid, data))
        room = limits.DATAGRAM_BYTES_MAX - messages.reply_bytes(bare) - 16
        page: list[bytes] = []
        for data in wanted:
            if len(data) + _RECORD_OVERHEAD <= room:
                page.append(data)
                room -= len(data) + _RECORD_OVERHEAD
        return Reply(bare.observed, bare.token, records=tuple(page), more=len(page) < len(wanted))

    def _keep(self, query: Query, wall: WallTime) -> HaifError | None:
        try:
            record = open_record(query.argument, net=self._net, now=wall)
            if record.payload.topic != query.target:
                raise Malformed("a record of another topic than its token is for", record.signer)
            self._store.put(record, wall)
        except HaifError as fault:
            return fault
        return None


def _error(datagram: Datagram, code: ErrorCode, fault: HaifError) -> Answered:
    return Answered(messages.write(Kind.ERROR, datagram.tid, bytes((code,))), fault)
