"""The directory as its owner uses it: publish, withdraw, look up. One UDP socket, one task group, one machine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from haif.base import limits
from haif.base.clock import Clock
from haif.base.errors import Dropped, Reason, Timeout, from_reason
from haif.base.ids import Digest, NetId, NetKey, PeerId
from haif.base.machine import Address
from haif.dht import messages
from haif.dht.contact import Contact
from haif.dht.counters import LookupEnded
from haif.dht.diversity import Scope, networks
from haif.dht.envelope import Envelope
from haif.dht.node import Node
from haif.dht.operations import Found, Gathered, Stored
from haif.dht.service.announcements import Announcements
from haif.dht.service.contacts import ContactsFile
from haif.dht.service.endpoint import Endpoint, bind
from haif.dht.service.lan import Lan
from haif.dht.service.survey import Survey, dialled_back
from haif.dht.service.watching import Watching
from haif.dht.sightings import Sighting
from haif.dht.watch import Change
from haif.identity.keys import Identity
from haif.identity.signing import Verified
from haif.protocol.records import Record, RecordKind, sign_record

_CALLERS_MAX: Final = limits.DHT_OPERATIONS_MAX // 2  # the other half is for refreshing the table
_GREETING_SECONDS: Final = 0.1  # before bootstrap addresses that refused us are greeted again


@dataclass(frozen=True, slots=True)
class DhtStatistics:
    """A snapshot. Datagrams and bytes count since the start."""

    contacts: int
    records: int
    published: int
    operations: int
    datagrams_in: int
    datagrams_out: int
    bytes_in: int
    bytes_out: int
    queries_answered: int
    replies_accepted: int
    queries_resent: int
    queries_failed: int
    eclipses_suspected: int
    nodes_estimated: float
    store_bytes: int
    tickets_given: int
    tickets_redeemed: int
    tickets_void: int
    tickets_held: int
    puts_waited: int
    watched: int
    watchers: int
    notices_heard: int
    records_missed: int
    unsent: int
    dropped: Mapping[Reason, int]


class Dht:
    """A node of the directory on a UDP socket.

    Entering binds the socket and, given bootstrap addresses, joins: it raises `Timeout` naming them if none answers
    within `limits.DHT_JOIN_SECONDS`. Without any it is the first node. Leaving closes the socket; records stay where
    they are until they expire, unless withdrawn.

    The table takes only so many contacts of one network (`diversity`). A node bound to a loopback address does not
    count loopback contacts; `allow_private`, for meshes inside one site, exempts private addresses too.

    With a `contacts_file`, the contacts of a former life are asked where no bootstrap address is given or none answers,
    so that a restarted node needs none; without any, and if none of the contacts answers either, it is alone.

    `key`: in a closed network, what all datagrams are sealed with; who lacks it is not heard.

    With `lan`, nodes of the same network that are heard by multicast on the interface of `host` are pinged, and so
    known; and, unless it is ephemeral, it says where it is. That takes an IPv4 address.

    An `ephemeral` node asks without saying who it is: nobody takes it into a table, and nobody waits for it when it
    is gone.
    """

    address: Address

    def __init__(
        self,
        *,
        identity: Identity,
        net: NetId,
        clock: Clock,
        entropy: Callable[[int], bytes],
        bootstrap: Sequence[Address],
        host: str = "127.0.0.1",
        port: int = 0,
        allow_private: bool = False,
        lan: bool = False,
        contacts_file: Path | None = None,
        on_dropped: Callable[[Dropped], None],
        ephemeral: bool = False,
        key: NetKey | None = None,
    ) -> None:
        self._identity, self._net, self._clock = identity, net, clock
        self._bootstrap, self._wanted = tuple(bootstrap), (host, port)
        self._on_dropped, self._allow_private = on_dropped, allow_private
        self._entropy, self._ephemeral, self._wants_lan = entropy, ephemeral, lan
        self._envelope = None if key is None else Envelope(key)
        self._excluded: frozenset[PeerId] = frozenset()
        self._contacts_file = ContactsFile(contacts_file, on_dropped)
        self._announcements = Announcements(identity.peer, clock, self._store, on_dropped)
        self._callers = asyncio.Semaphore(_CALLERS_MAX)
        self._tasks = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        udp = await bind(*self._wanted)
        self.address = udp.getsockname()[:2]
        self._node = Node(
            self._identity, self._net, entropy=self._entropy, wall=self._clock.wall, now=self._clock.now(),
            exempt=self._exempt(), ephemeral=self._ephemeral,
        )  # fmt: skip
        self._watching = Watching(self._node, self._clock, self._pump)
        self._endpoint = Endpoint(
            udp, self._node, self._clock, self._on_dropped, self._watching.changed, self._envelope
        )
        try:
            known = await self._contacts_file.read()
            if self._bootstrap or known:
                await self._join(known)
            await self._tasks.__aenter__()
        except BaseException:
            self._endpoint.close()
            raise
        self._keepers = [
            self._tasks.create_task(self._announcements.republish_forever()),
            self._tasks.create_task(self._save_forever()),
        ]
        self._lan = self._nearby() if self._wants_lan else None
        if self._lan is not None and self._lan.open():
            saying = self._lan.say_forever(
                is_silent=lambda: self._node.ephemeral, is_alone=lambda: not len(self._node.table)
            )
            self._keepers.append(self._tasks.create_task(saying))
        self._endpoint.pump()
        return self

    async def __aexit__(self, *exception: object) -> None:
        for keeper in self._keepers:
            keeper.cancel()
        try:
            await self._tasks.__aexit__(None, None, None)  # the caller's own error goes on as it is
            await self._contacts_file.write(self._node.contacts())
        finally:
            if self._lan is not None:
                self._lan.close()
            self._watching.close()
            self._endpoint.close()

    async def publish(self, kind: RecordKind, topic: Digest, body: bytes, *, ttl_ms: int) -> None:
        """Announce `body` at a topic; it is stored at the k closest nodes when this returns.

        At a node that fills up it waits for its place, and is brought there when its time has come (`tickets`).
        Republished every ttl/3 until withdrawn or closed. Publishing again replaces the body. Raises `Oversize` for a
        body or ttl over the limit, `Timeout` if other nodes are known and none answered, or what they refused with.
        """
        await self._announcements.publish(kind, topic, body, ttl_ms=ttl_ms)

    async def withdraw(self, topic: Digest) -> None:
        """Put a tombstone over what we published; it lives as long as the last record it buries. Raises as `publish`.

        Where that fails it is tried again, by itself and by whoever calls again, until the record has expired. Raises
        `Misuse` for a topic at which nothing is published.
        """
        await self._announcements.withdraw(topic)

    async def put(self, record: bytes, *, replaces: int | None = None) -> Stored:
        """Have the closest nodes keep a signed record of anybody's, once; what became of it.

        With `replaces`, only where the owner's record of this sequence is held (0: none). Raises what `open_record`
        does, and what our own store refuses.
        """
        async with self._callers:
            number = self._node.publish(record, self._clock.now(), replaces=replaces)
            return await self._endpoint.outcome(Stored, number)

    def watch(self, topic: Digest) -> AsyncGenerator[Change]:
        """What is announced at a topic, and from then on each change: added, renewed with another body, gone.

        All who watch a topic share what it costs, which is next to nothing while nothing changes: nodes that keep the
        topic tell us at once, and all of them are read now and then. Whoever is slow to listen is told less: what has
        changed back meanwhile is not mentioned. Close the iterator (`contextlib.aclosing`) to stop. Raises
        `Overloaded` for more than `limits.WATCHES_MAX` topics, `ConnectionLost` once closed.
        """
        return self._watching.watch(topic)

    def hurry(self, topic: Digest) -> None:
        """There is reason to believe that something is announced at a watched topic that we were not told of: read."""
        self._node.attention.hurry(topic, self._clock.now())
        self._endpoint.pump()

    async def lookup(self, topic: Digest) -> tuple[Verified[Record], ...]:
        """The newest record of each owner at a topic: live, without tombstones, each verified by us.

        Everybody of the closest set is heard who answers in time, or, where the topic is of one owner (a presence, a
        mutable value), three that agree (`reading`). Each call asks the network; what is needed often should be kept by
        the caller. Nodes sign at most `limits.DHT_SIGNATURES_PER_SECOND` answers a second for one subnet. Raises
        `ConnectionLost` once closed.
        """
        async with self._callers:
            gathered = await self._endpoint.outcome(Gathered, self._node.gather(topic, self._clock.now()))
        now = self._clock.wall()
        return tuple(
            r
            for r in gathered.records
            if not r.payload.tombstone and r.payload.expires > now and r.signer not in self._excluded
        )

    def exclude(self, peers: frozenset[PeerId]) -> None:
        """These peers, and no others, are kept out of the table, and their records are not passed to our owner."""
        self._excluded = peers
        self._node.exclude(peers)
        self._watching.changed_everywhere()

    async def find(self, target: Digest) -> tuple[Contact, ...]:
        """The peers closest to a point of the key space, nearest first: for diagnosis and measurement."""
        async with self._callers:
            return (await self._endpoint.outcome(Found, self._node.find(target, self._clock.now()))).contacts

    async def survey(self) -> Survey:
        """Ask contacts of different networks where they see us, and to dial back to a second socket of ours.

        Takes at most `limits.SURVEY_SECONDS`. An answer counts if it comes from the asked contact's own address.
        """
        nonce = self._entropy(messages.NONCE_BYTES)
        with await bind(self.address[0], 0) as second:
            asked = {address for _, address in self._node.survey(second.getsockname()[1], nonce, self._clock.now())}
            self._endpoint.pump()
            back = await dialled_back(second, asked, nonce, self._envelope)
        return Survey(self.sightings(), len(asked), back)

    def sightings(self) -> tuple[Sighting, ...]:
        """What replies of late said of our address: one for each network they came from."""
        return self._node.sightings.recent(self._clock.now())

    def appear(self, *, ephemeral: bool) -> None:
        """From now on be a node that others may know and rely on; or one that is only here to ask."""
        self._node.appear(ephemeral=ephemeral)

    def lookups_ended(self) -> list[LookupEnded]:
        """The lookups that ended since this was last asked, as far as `limits.DHT_EVENTS_MAX` of them go."""
        waiting = self._node.counters.lookups
        return [waiting.popleft() for _ in range(len(waiting))]

    def statistics(self) -> DhtStatistics:
        """What is held now, and what was counted since the start."""
        counters = self._node.counters
        return DhtStatistics(
            contacts=len(self._node.table),
            records=len(self._node.store),
            published=len(self._announcements),
            operations=self._node.busy,
            datagrams_in=counters.datagrams_in,
            datagrams_out=counters.datagrams_out,
            bytes_in=counters.bytes_in,
            bytes_out=counters.bytes_out,
            queries_answered=counters.queries_answered,
            replies_accepted=counters.replies_accepted,
            queries_resent=counters.queries_resent,
            queries_failed=counters.queries_failed,
            eclipses_suspected=counters.eclipses_suspected,
            nodes_estimated=self._node.nodes_estimated(self._clock.now()),
            store_bytes=self._node.store.bytes,
            tickets_given=self._node.answerer.tickets.given,
            tickets_redeemed=self._node.answerer.tickets.redeemed,
            tickets_void=self._node.answerer.tickets.void,
            tickets_held=self._node.waiting,
            puts_waited=counters.puts_waited,
            watched=len(self._node.attention),
            watchers=len(self._node.answerer.watchers),
            notices_heard=self._node.attention.notices,
            records_missed=self._node.attention.missed,
            unsent=self._endpoint.unsent,
            dropped=dict(counters.dropped),
        )

    async def _store(self, record: Record) -> None:
        stored = await self.put(sign_record(self._identity, self._net, record))
        if not stored.by and not stored.waiting and stored.refused:
            raise from_reason(stored.refused[0], "every node that should keep the record refused it")
        if not stored.by and not stored.waiting and len(self._node.table):
            raise Timeout("no node that should keep the record answered; it will be tried again", retry_after=1.0)

    def _nearby(self) -> Lan:
        return Lan(
            self._identity, self._net, self._clock, self._entropy, at=self.address, envelope=self._envelope,
            found=self._meet, on_dropped=self._on_dropped,
        )  # fmt: skip

    def _meet(self, contact: Contact) -> None:
        self._node.meet(contact, self._clock.now())
        self._endpoint.pump()

    def _pump(self) -> None:
        self._endpoint.pump()

    async def _save_forever(self) -> None:
        while True:
            await asyncio.sleep(limits.DHT_CONTACTS_SAVE_SECONDS)
            await self._contacts_file.write(self._node.contacts())

    def _exempt(self) -> Scope:
        if self._allow_private:
            return Scope.PRIVATE
        return Scope.LOOPBACK if networks(self.address).scope is Scope.LOOPBACK else Scope.NOTHING

    # --- joining ------------------------------------------------------------------------------------------------------

    async def _join(self, known: Sequence[Contact]) -> None:
        try:
            async with asyncio.timeout(limits.DHT_JOIN_SECONDS):
                others = await self._others(or_none=bool(known))
                if others and await self._joined(others):
                    return
                while True:
                    if await self._joined(others, known) or not others:
                        return
                    await asyncio.sleep(_GREETING_SECONDS)
        except (TimeoutError, OSError):
            if not self._bootstrap:
                return  # we are alone; who was known is asked again from time to time
            names = ", ".join(f"{host}:{port}" for host, port in self._bootstrap)
            raise Timeout(
                f"no bootstrap address answered ({names}); check that a node runs there and that UDP reaches it",
                retry_after=limits.DHT_JOIN_SECONDS,
            ) from None

    async def _joined(self, others: Sequence[Address], known: Sequence[Contact] = ()) -> bool:
        found = await self._endpoint.outcome(Found, self._node.join(others, self._clock.now(), known=known))
        return bool(found.contacts)

    async def _others(self, *, or_none: bool) -> list[Address]:
        """The bootstrap addresses that are not our own; none for names that nobody knows, if that is allowed."""
        try:
            addresses = [await self._endpoint.resolve(address) for address in self._bootstrap]
        except OSError:
            if not or_none:
                raise
            return []
        return [address for address in addresses if address != self.address]
