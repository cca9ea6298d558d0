"""What a node has others keep: its owner's records, those it carries over for others, and the places they wait for."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from haif.base import limits
from haif.base.clock import Instant, WallTime
from haif.base.errors import Conflict, MustWait, OverQuota
from haif.base.ids import Digest, NetId, PeerId
from haif.dht.agenda import Agenda
from haif.dht.counters import Counters
from haif.dht.crossing import Carriers, Carry
from haif.dht.lookup import Lookup
from haif.dht.operations import Find, Purpose
from haif.dht.store import RecordStore
from haif.dht.table import RoutingTable
from haif.dht.waiting import Told, WaitingRoom
from haif.dht.writing import Publish, Return
from haif.identity.keys import Verify
from haif.identity.signing import Verified
from haif.protocol.records import Record, open_record


class Publishing:
    """Begins the writes of a node, and comes back for the places where they were told to wait.

    `look` makes a lookup for a write, `begin` runs an operation, `stored` is told of what our own store took.
    """

    def __init__(
        self,
        own: PeerId,
        net: NetId,
        wall: Callable[[], WallTime],
        verify: Verify,
        agenda: Agenda,
        table: RoutingTable,
        store: RecordStore,
        carriers: Carriers,
        counters: Counters,
        *,
        look: Callable[[Digest, Instant], Lookup],
        begin: Callable[[Find, Instant], int],
        stored: Callable[[Verified[Record], Instant], None],
    ) -> None:
        self._own, self._net, self._wall, self._verify = own, net, wall, verify
        self._agenda, self._table, self._store = agenda, table, store
        self._carriers, self._counters = carriers, counters
        self._look, self._begin, self._stored = look, begin, stored
        self._waiting = WaitingRoom()

    def publish(self, record: bytes, now: Instant, *, replaces: int | None, carry: bool) -> int:
        """As `Node.publish`."""
        opened = self._opened(record)
        topic, number = opened.payload.topic, self._agenda.number()
        place = topic, opened.signer
        self._keep(opened, now, replaces)
        if opened.payload.tombstone:
            self._waiting.forget(place)
        self._waiting.replace(place, record)
        publication = Publish(
            number, self._look(topic, now), record, opened.signer, lambda peer: self._waiting.ticket(place, peer),
            replaces=replaces, comes_back=not opened.payload.tombstone,
            carriers=self._carriers.choose if carry else lambda _: [],
        )  # fmt: skip
        return self._begin(publication, now)

    def carry_over(self, carry: Carry, now: Instant) -> None:
        """Publish a record that somebody of the other family asked us to bring here, once. Raises as `publish`."""
        opened = self._opened(carry.record)
        number = self._agenda.number()
        if len(self._table) < limits.DHT_K:  # then we are among the k closest ourselves
            self._keep(opened, now, carry.replaces)
        publication = Publish(
            number, self._look(opened.payload.topic, now), carry.record, opened.signer, lambda _: b"",
            replaces=carry.replaces, comes_back=False, purpose=Purpose.UPKEEP,
        )  # fmt: skip
        self._counters.carried += 1
        self._begin(publication, now)

    def ended(self, publication: Publish, now: Instant) -> None:
        """A write ended: note where it was told to wait."""
        place = publication.lookup.target, publication.owner
        told = {
            contact.peer: Told(contact, ticket, Instant(now + ms / 1000)) for contact, ticket, ms in publication.told
        }
        self._counters.carried_for_us += len(publication.carried)
        if isinstance(publication, Return):
            self._counters.puts_waited += len(publication.by)
            for peer in publication.asked:
                self._waiting.came_back(place, peer, told.get(peer))
        else:
            for peer in publication.asked:
                self._waiting.take(place, peer)
            self._waiting.wait(place, publication.record, told.values())

    def wake_at(self) -> Instant | None:
        """When it is time to come back somewhere."""
        return self._waiting.wake_at()

    def come_back(self, now: Instant) -> None:
        """Come back wherever it is time to."""
        while not self._agenda.is_busy and (due := self._waiting.due(now)) is not None:
            (topic, owner), record, told = due
            ticket = {one.contact.peer: one.ticket for one in told}
            nobody = Lookup(topic, (), self._own)
            to = [one.contact for one in told]
            self._begin(Return(self._agenda.number(), nobody, record, owner, ticket.__getitem__, to), now)

    def __len__(self) -> int:
        """How many places are waited for."""
        return len(self._waiting)

    def _opened(self, record: bytes) -> Verified[Record]:
        return open_record(record, net=self._net, now=self._wall(), verify=self._verify)

    def _keep(self, record: Verified[Record], now: Instant, replaces: int | None) -> None:
        """Keep it ourselves, where there is room: the others decide. Raises `Replayed` or `Equivocated`."""
        with suppress(OverQuota, MustWait, Conflict):
            if self._store.put(record, self._wall(), replaces=replaces):
                self._stored(record, now)
