"""The directory as its owner uses it: publish, withdraw, look up. A socket for each family, one task group.

Over IPv4 and IPv6 there is a directory each (`crossing`); a node that stands in both writes to both and reads both.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Callable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Final, Self

from haif.base import limits
from haif.base.clock import Clock
from haif.base.errors import Dropped, Misuse, Timeout, from_reason
from haif.base.ids import Digest, NetId, NetKey, PeerId
from haif.base.machine import Address
from haif.dht.contact import Contact, node_id
from haif.dht.counters import LookupEnded
from haif.dht.envelope import Envelope
from haif.dht.operations import Changed, Found, Gathered, Stored
from haif.dht.service.announcements import Announcements
from haif.dht.service.contacts import ContactsFile
from haif.dht.service.endpoint import News, bind
from haif.dht.service.side import Side
from haif.dht.service.statistics import DhtStatistics, gathered
from haif.dht.service.survey import Survey
from haif.dht.service.watching import Watching
from haif.dht.watch import Change, newest
from haif.identity.keys import Identity
from haif.identity.signing import Verified
from haif.protocol.records import Record, RecordKind, sign_record

_CALLERS_MAX: Final = limits.DHT_OPERATIONS_MAX // 2  # the other half is for refreshing the table
_BESIDE_TRIES: Final = 8  # free ports that are tried until one is free in both families


class Dht:
    """A node of the directory on a UDP socket, or on two: `beside` is an address of the other family than `host`'s.

    Entering binds the sockets, to one port, and, given bootstrap addresses, joins: it raises `Timeout` naming them if
    none answers within `limits.DHT_JOIN_SECONDS`. Without any it is the first node. Leaving closes the sockets; records
    stay where they are until they expire, unless withdrawn.

    A node of one family finds what those of the other publish, and they find what it does, as long as some node of both
    is there to carry records over; a node of both that was given an address of one family finds its way into the other.

    The table takes only so many contacts of one network (`diversity`). A node bound to a loopback address does not
    count loopback contacts; `allow_private`, for meshes inside one site, exempts private addresses too.

    With a `contacts_file`, the contacts of a former life are asked where no bootstrap address is given or none answers,
    so that a restarted node needs none; without any, and if none of the contacts answers either, it is alone.

    `key`: in a closed network, what all datagrams are sealed with; who lacks it is not heard.

    With `lan`, nodes of the same network that are heard by multicast in the local network are pinged, and so known;
    and, unless it is ephemeral, it says where it is.

    An `ephemeral` node asks without saying who it is: nobody takes it into a table, and nobody waits for it when it
    is gone.
    """

    address: Address
    sides: tuple[Side, ...] = ()
    """One for each family, `host`'s first; none until entered."""

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
        beside: str = "",
        allow_private: bool = False,
        lan: bool = False,
        contacts_file: Path | None = None,
        on_dropped: Callable[[Dropped], None],
        ephemeral: bool = False,
        key: NetKey | None = None,
    ) -> None:
        self._identity, self._net, self._clock = identity, net, clock
        self._bootstrap, self._wanted, self._beside = tuple(bootstrap), (host, port), beside
        self._on_dropped, self._allow_private = on_dropped, allow_private
        self._entropy, self._ephemeral, self._wants_lan = entropy, ephemeral, lan
        self._envelope = None if key is None else Envelope(key)
        self._excluded: frozenset[PeerId] = frozenset()
        self._contacts_file = ContactsFile(contacts_file, on_dropped)
        self._announcements = Announcements(identity.peer, clock, self._store, on_dropped)
        self._callers = asyncio.Semaphore(_CALLERS_MAX)
        self._tasks = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        sockets = await _bound(*self._wanted, self._beside)
        self.sides = tuple(
            Side(
                udp, self._identity, self._net, self._clock, self._entropy, allow_private=self._allow_private,
                ephemeral=self._ephemeral, envelope=self._envelope, on_dropped=self._on_dropped, on_news=self._on_news,
            )
            for udp in sockets
        )  # fmt: skip
        self.address = self.sides[0].address
        self._watching = Watching([side.node for side in self.sides], self._clock, self._pump)
        self._stand()
        try:
            await self._join(await self._contacts_file.read())
            await self._tasks.__aenter__()
        except BaseException:
            self._close()
            raise
        works = [self._announcements.republish_forever(), self._save_forever()]
        if len(self.sides) > 1:
            works.append(self._stand_forever())
        if self._wants_lan:
            works += [side.say_nearby() for side in self.sides if side.look_nearby()]
        self._keepers = [self._tasks.create_task(work) for work in works]
        self._pump()
        return self

    async def __aexit__(self, *exception: object) -> None:
        for keeper in self._keepers:
            keeper.cancel()
        try:
            await self._tasks.__aexit__(None, None, None)  # the caller's own error goes on as it is
            await self._contacts_file.write(self._contacts())
        finally:
            self._watching.close()
            self._close()

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
        carry = sum(not side.is_alone for side in self.sides) < 2  # else it is published in both by ourselves
        async with self._callers:
            now = self._clock.now()
            first, *others = await asyncio.gather(
                *(
                    side.endpoint.outcome(Stored, side.node.publish(record, now, replaces=replaces, carry=carry))
                    for side in self.sides
                )
            )
        for other in others:
            first = Stored(
                first.number, _joined(first.by, other.by), (*first.refused, *other.refused),
                _joined(first.waiting, other.waiting), _joined(first.carried, other.carried),
            )  # fmt: skip
        return first

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
        for side in self.sides:
            side.node.attention.hurry(topic, self._clock.now())
        self._pump()

    async def lookup(self, topic: Digest) -> tuple[Verified[Record], ...]:
        """The newest record of each owner at a topic: live, without tombstones, each verified by us.

        Everybody of the closest set is heard who answers in time, or, where the topic is of one owner (a presence, a
        mutable value), three that agree (`reading`). Each call asks the network; what is needed often should be kept by
        the caller. Nodes sign at most `limits.DHT_SIGNATURES_PER_SECOND` answers a second for one subnet. Raises
        `ConnectionLost` once closed.
        """
        async with self._callers:
            found = await asyncio.gather(
                *(side.endpoint.outcome(Gathered, side.node.gather(topic, self._clock.now())) for side in self.sides)
            )
        now = self._clock.wall()
        return tuple(
            r
            for r in newest(record for each in found for record in each.records).values()
            if not r.payload.tombstone and r.payload.expires > now and r.signer not in self._excluded
        )

    def exclude(self, peers: frozenset[PeerId]) -> None:
        """These peers, and no others, are kept out of the table, and their records are not passed to our owner."""
        self._excluded = peers
        for side in self.sides:
            side.node.exclude(peers)
        self._watching.changed_everywhere()

    async def find(self, target: Digest) -> tuple[Contact, ...]:
        """The peers closest to a point of the key space, nearest first: for diagnosis and measurement.

        Who stands in both directories is named once, at its address of `host`'s family.
        """
        async with self._callers:
            found = await asyncio.gather(
                *(side.endpoint.outcome(Found, side.node.find(target, self._clock.now())) for side in self.sides)
            )
        of: dict[PeerId, Contact] = {}
        for contact in [contact for each in found for contact in each.contacts]:
            of.setdefault(contact.peer, contact)
        key = int.from_bytes(target, "big")
        return tuple(sorted(of.values(), key=lambda contact: node_id(contact.peer) ^ key))

    async def survey(self) -> Survey:
        """Ask contacts of different networks where they see us, and to dial back to a second socket of ours.

        Takes at most `limits.SURVEY_SECONDS`. An answer counts if it comes from the asked contact's own address. This
        is how `host`'s family sees us; each of `sides` can be asked by itself.
        """
        return await self.sides[0].survey()

    def lookups_ended(self) -> list[LookupEnded]:
        """The lookups that ended since this was last asked, as far as `limits.DHT_EVENTS_MAX` of them go."""
        waiting = [side.node.counters.lookups for side in self.sides]
        return [each.popleft() for each in waiting for _ in range(len(each))]

    def statistics(self) -> DhtStatistics:
        """What is held now, and what was counted since the start."""
        return gathered(self.sides, len(self._announcements), self._clock.now())

    async def _store(self, record: Record) -> None:
        stored = await self.put(sign_record(self._identity, self._net, record))
        if not stored.by and not stored.waiting and stored.refused:
            raise from_reason(stored.refused[0], "every node that should keep the record refused it")
        if not stored.by and not stored.waiting and not all(side.is_alone for side in self.sides):
            raise Timeout("no node that should keep the record answered; it will be tried again", retry_after=1.0)

    def _pump(self) -> None:
        for side in self.sides:
            side.endpoint.pump()

    def _close(self) -> None:
        for side in self.sides:
            side.close()

    def _contacts(self) -> list[Contact]:
        """Those to keep, of each family as many."""
        of_each = zip_longest(*(side.node.contacts() for side in self.sides))
        return [contact for each in of_each for contact in each if contact][: limits.DHT_CONTACTS_KEPT_MAX]

    async def _save_forever(self) -> None:
        while True:
            await asyncio.sleep(limits.DHT_CONTACTS_SAVE_SECONDS)
            await self._contacts_file.write(self._contacts())

    # --- both families ------------------------------------------------------------------------------------------------

    def _on_news(self, side: Side, news: News) -> None:
        """A watched topic has changed; or what one directory says concerns our node in the other."""
        if isinstance(news, Changed):
            self._watching.changed(news.topic)
            return
        for other in self.sides:
            if other is not side:
                other.node.crossed(news, self._clock.now())
                other.endpoint.pump()

    def _stand(self) -> None:
        """Say in each directory where we stand in the other."""
        if len(self.sides) > 1:
            one, other = self.sides
            one.node.stand(other.whereabouts())
            other.node.stand(one.whereabouts())

    async def _stand_forever(self) -> None:
        while True:
            self._stand()
            await asyncio.sleep(limits.DHT_ELSEWHERE_SECONDS)

    async def _join(self, known: Sequence[Contact]) -> None:
        joined = await asyncio.gather(
            *(
                side.join(self._bootstrap, [contact for contact in known if side.takes(contact.address)])
                for side in self.sides
            )
        )
        if any(joined) or not self._bootstrap:
            return  # if we are alone, who was known is asked again from time to time
        names = ", ".join(f"{host}:{port}" for host, port in self._bootstrap)
        raise Timeout(
            f"no bootstrap address answered ({names}); check that a node runs there and that UDP reaches it",
            retry_after=limits.DHT_JOIN_SECONDS,
        )


async def _bound(host: str, port: int, beside: str) -> list[socket.socket]:
    """The socket at `host`, and one `beside` it at the same port. Raises `OSError`, or `Misuse` for a family twice."""
    for remaining in reversed(range(_BESIDE_TRIES)):
        first = await bind(host, port)
        if not beside:
            return [first]
        if (":" in beside) == (first.family == socket.AF_INET6):
            first.close()
            raise Misuse(f"{host} and {beside} are of one family: one must be IPv4, the other IPv6")
        try:
            return [first, await bind(beside, first.getsockname()[1])]
        except OSError:
            first.close()
            if port or not remaining:
                raise
    raise AssertionError("the last try returns or raises")


def _joined(some: tuple[PeerId, ...], others: tuple[PeerId, ...]) -> tuple[PeerId, ...]:
    return tuple(dict.fromkeys([*some, *others]))
