"""The directory as its owner uses it: publish, withdraw, look up. One UDP socket, one task group, one machine."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from haif.base import limits
from haif.base.clock import Clock, Instant, WallTime
from haif.base.errors import (
    ConnectionLost,
    Dropped,
    HaifError,
    Misuse,
    Oversize,
    PeerFault,
    Reason,
    Timeout,
    from_reason,
)
from haif.base.ids import Digest, NetId
from haif.base.machine import Address
from haif.dht import messages
from haif.dht.contact import Contact, pack_contacts, unpack_contacts
from haif.dht.diversity import Scope, networks
from haif.dht.node import Node
from haif.dht.operations import Event, Found, Gathered, Stored
from haif.dht.sightings import Sighting
from haif.identity.keys import Identity
from haif.identity.signing import Verified
from haif.protocol.records import Record, RecordKind, sign_record
from haif.runtime import disk

_DRAIN_DATAGRAMS: Final = 64  # read per turn of the event loop, so that other tasks keep their turn
_RECEIVE_BYTES: Final = limits.DATAGRAM_BYTES_MAX + 1  # one more than allowed shows that a datagram is too long
_SOCKET_BYTES: Final = 1 << 20  # what the kernel keeps for us while we verify signatures
_CALLERS_MAX: Final = limits.DHT_OPERATIONS_MAX // 2  # the other half is for refreshing the table
_RETRY_SECONDS: Final = 5.0  # after a republication that failed
_GREETING_SECONDS: Final = 0.1  # before bootstrap addresses that refused us are greeted again
_CLOSED: Final = "the directory node was closed; open it again before asking it anything"

EventT = TypeVar("EventT", Found, Stored, Gathered)


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
    unsent: int
    dropped: Mapping[Reason, int]


@dataclass(frozen=True, slots=True)
class Survey:
    """What others see of us. `dialled_back`: of those `asked`, how many reached a port of ours they never heard of."""

    sightings: tuple[Sighting, ...]
    asked: int
    dialled_back: int


@dataclass(slots=True)
class _Announcement:
    """What we publish, how long each record lives, the latest expiry signed so far, and when to publish it again."""

    kind: RecordKind
    body: bytes
    ttl_ms: int
    expires: int
    due: Instant


class Dht:
    """A node of the directory on a UDP socket.

    Entering binds the socket and, given bootstrap addresses, joins: it raises `Timeout` naming them if none answers
    within `limits.DHT_JOIN_SECONDS`. Without any it is the first node. Leaving closes the socket; records stay where
    they are until they expire, unless withdrawn.

    The table takes only so many contacts of one network (`diversity`). A node bound to a loopback address does not
    count loopback contacts; `allow_private`, for meshes inside one site, exempts private addresses too.

    With a `contacts_file`, the contacts of a former life are asked where no bootstrap address is given or none answers,
    so that a restarted node needs none; without any, and if none of the contacts answers either, it is alone.

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
        contacts_file: Path | None = None,
        on_dropped: Callable[[Dropped], None],
        ephemeral: bool = False,
    ) -> None:
        self._identity, self._net, self._clock = identity, net, clock
        self._bootstrap, self._wanted = tuple(bootstrap), (host, port)
        self._on_dropped, self._allow_private = on_dropped, allow_private
        self._contacts_file = contacts_file
        self._entropy = entropy
        self._ephemeral = ephemeral
        self._published: dict[Digest, _Announcement] = {}
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._callers = asyncio.Semaphore(_CALLERS_MAX)
        self._changed = asyncio.Event()
        self._tasks = asyncio.TaskGroup()
        self._timer: asyncio.TimerHandle | None = None
        self._unsent = 0
        self._closed = False
        self._sequence = 0

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._socket = await self._bind(*self._wanted)
        self.address = self._socket.getsockname()[:2]
        self._node = Node(
            self._identity, self._net, entropy=self._entropy, wall=self._clock.wall, now=self._clock.now(),
            exempt=self._exempt(), ephemeral=self._ephemeral,
        )  # fmt: skip
        self._loop.add_reader(self._socket, self._readable)
        try:
            known = await asyncio.to_thread(self._read_contacts)
            if self._bootstrap or known:
                await self._join(known)
            await self._tasks.__aenter__()
        except BaseException:
            self._close()
            raise
        self._keepers = [
            self._tasks.create_task(self._republish_forever()),
            self._tasks.create_task(self._save_forever()),
        ]
        self._pump()
        return self

    async def __aexit__(self, *exception: object) -> None:
        for keeper in self._keepers:
            keeper.cancel()
        try:
            await self._tasks.__aexit__(None, None, None)  # the caller's own error goes on as it is
            await self._save_contacts()
        finally:
            self._close()

    async def publish(self, kind: RecordKind, topic: Digest, body: bytes, *, ttl_ms: int) -> None:
        """Announce `body` at a topic; it is stored at the k closest nodes when this returns.

        Republished every ttl/3 until withdrawn or closed. Publishing again replaces the body. Raises `Oversize` for a
        body or ttl over the limit, `Timeout` if other nodes are known and none answered, or what they refused with.
        """
        if len(body) > limits.RECORD_BODY_BYTES_MAX:
            raise Oversize(f"a record body of {len(body)} bytes is over the limit of {limits.RECORD_BODY_BYTES_MAX}")
        if not 0 < ttl_ms <= limits.RECORD_TTL_MS_MAX:
            raise Oversize(f"a record lives 1 to {limits.RECORD_TTL_MS_MAX} ms, not {ttl_ms}")
        known = self._published.get(topic)
        announcement = _Announcement(kind, body, ttl_ms, known.expires if known else 0, self._clock.now())
        self._published[topic] = announcement
        try:
            await self._announce(topic, announcement)
        finally:
            self._changed.set()

    async def withdraw(self, topic: Digest) -> None:
        """Put a tombstone over what we published; it lives as long as the last record it buries. Raises as `publish`.

        Raises `Misuse` for a topic at which nothing was published.
        """
        announcement = self._published.pop(topic, None)
        if announcement is None:
            raise Misuse("nothing was published at this topic, so there is nothing to withdraw")
        await self._store(topic, announcement, tombstone=True)

    async def lookup(self, topic: Digest) -> tuple[Verified[Record], ...]:
        """The newest record of each owner at a topic: live, without tombstones, each verified by us.

        Each call asks the network; what is needed often should be kept by the caller. Nodes sign at most
        `limits.DHT_SIGNATURES_PER_SECOND` answers a second for one subnet. Raises `ConnectionLost` once closed.
        """
        async with self._callers:
            gathered = await self._outcome(Gathered, self._node.gather(topic, self._clock.now()))
        now = self._clock.wall()
        return tuple(r for r in gathered.records if not r.payload.tombstone and r.payload.expires > now)

    async def find(self, target: Digest) -> tuple[Contact, ...]:
        """The peers closest to a point of the key space, nearest first: for diagnosis and measurement."""
        async with self._callers:
            return (await self._outcome(Found, self._node.find(target, self._clock.now()))).contacts

    async def survey(self) -> Survey:
        """Ask contacts of different networks where they see us, and to dial back to a second socket of ours.

        Takes at most `limits.SURVEY_SECONDS`. An answer counts if it comes from the asked contact's own address.
        """
        nonce = self._entropy(messages.NONCE_BYTES)
        back: set[Address] = set()
        with await self._bind(self.address[0], 0) as second:
            asked = {address for _, address in self._node.survey(second.getsockname()[1], nonce, self._clock.now())}
            done = asyncio.Event()

            def readable() -> None:
                data, source = _received(second)
                if source in asked and _is_dialback(data, nonce):
                    back.add(source)
                if len(back) == len(asked):
                    done.set()

            self._loop.add_reader(second, readable)
            self._pump()
            try:
                async with asyncio.timeout(limits.SURVEY_SECONDS if asked else 0):
                    await done.wait()
            except TimeoutError:
                pass  # those that did not get through, or did not want to
            finally:
                self._loop.remove_reader(second)
        return Survey(self.sightings(), len(asked), len(back))

    def sightings(self) -> tuple[Sighting, ...]:
        """What replies of late said of our address: one for each network they came from."""
        return self._node.sightings.recent(self._clock.now())

    def appear(self, *, ephemeral: bool) -> None:
        """From now on be a node that others may know and rely on; or one that is only here to ask."""
        self._node.appear(ephemeral=ephemeral)

    def statistics(self) -> DhtStatistics:
        """What is held now, and what was counted since the start."""
        counters = self._node.counters
        return DhtStatistics(
            contacts=len(self._node.table),
            records=len(self._node.store),
            published=len(self._published),
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
            unsent=self._unsent,
            dropped=dict(counters.dropped),
        )

    # --- publishing ---------------------------------------------------------------------------------------------------

    async def _announce(self, topic: Digest, announcement: _Announcement) -> None:
        announcement.due = Instant(self._clock.now() + announcement.ttl_ms / 3000)
        try:
            await self._store(topic, announcement, tombstone=False)
        except HaifError:
            announcement.due = min(announcement.due, Instant(self._clock.now() + _RETRY_SECONDS))
            raise

    async def _store(self, topic: Digest, announcement: _Announcement, *, tombstone: bool) -> None:
        wall = self._clock.wall()
        self._sequence = max(self._sequence + 1, wall)  # higher than any that a former start of ours gave
        if not tombstone:
            announcement.expires = max(announcement.expires, WallTime(wall + announcement.ttl_ms))
        record = Record(
            kind=announcement.kind,
            topic=topic,
            owner=self._identity.peer,
            sequence=self._sequence,
            expires=announcement.expires,
            tombstone=tombstone,
            body=b"" if tombstone else announcement.body,
        )
        async with self._callers:
            data = sign_record(self._identity, self._net, record)
            stored = await self._outcome(Stored, self._node.publish(data, self._clock.now()))
        if not stored.by and stored.refused:
            raise from_reason(stored.refused[0], "every node that should keep the record refused it")
        if not stored.by and len(self._node.table):
            raise Timeout("no node that should keep the record answered; it will be tried again", retry_after=1.0)

    async def _republish_forever(self) -> None:
        while True:
            self._changed.clear()
            now = self._clock.now()
            due = min((a.due for a in self._published.values()), default=None)
            with suppress(TimeoutError):
                async with asyncio.timeout(None if due is None else max(0.0, due - now)):
                    await self._changed.wait()
            for topic, announcement in list(self._published.items()):
                if announcement.due <= self._clock.now() and self._published.get(topic) is announcement:
                    await self._republish(topic, announcement)

    async def _republish(self, topic: Digest, announcement: _Announcement) -> None:
        try:
            await self._announce(topic, announcement)
        except HaifError as error:
            self._on_dropped(Dropped(error.reason, self._identity.peer, f"republishing: {error.message}"))

    # --- the machine's world ------------------------------------------------------------------------------------------

    async def _bind(self, host: str, port: int) -> socket.socket:
        family, _, _, _, address = (await self._loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM))[0]
        udp = socket.socket(family, socket.SOCK_DGRAM)
        try:
            udp.setblocking(False)
            udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SOCKET_BYTES)
            udp.bind(address)
        except BaseException:
            udp.close()
            raise
        return udp

    def _exempt(self) -> Scope:
        if self._allow_private:
            return Scope.PRIVATE
        return Scope.LOOPBACK if networks(self.address).scope is Scope.LOOPBACK else Scope.NOTHING

    # --- contacts for the next life -----------------------------------------------------------------------------------

    def _read_contacts(self) -> list[Contact]:
        """What was kept; a file that does not parse is reported and left alone, for it can only save us a bootstrap."""
        if self._contacts_file is None:
            return []
        try:
            with self._contacts_file.open("rb") as file:
                data = file.read(limits.DHT_CONTACTS_KEPT_BYTES_MAX + 1)
            return unpack_contacts(data, limits.DHT_CONTACTS_KEPT_MAX)
        except FileNotFoundError:
            return []
        except PeerFault as fault:
            self._on_dropped(Dropped(fault.reason, None, f"{self._contacts_file}: {fault.message}"))
            return []

    async def _save_contacts(self) -> None:
        contacts = self._node.contacts()
        if self._contacts_file is not None and contacts:
            data = pack_contacts(contacts, limits.DHT_CONTACTS_KEPT_BYTES_MAX)
            with suppress(OSError):  # a full disk is no reason to leave the network, or to fail while leaving it
                await asyncio.to_thread(disk.write_private, self._contacts_file, data)

    async def _save_forever(self) -> None:
        while True:
            await asyncio.sleep(limits.DHT_CONTACTS_SAVE_SECONDS)
            await self._save_contacts()

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
        found = await self._outcome(Found, self._node.join(others, self._clock.now(), known=known))
        return bool(found.contacts)

    async def _others(self, *, or_none: bool) -> list[Address]:
        """The bootstrap addresses that are not our own; none for names that nobody knows, if that is allowed."""
        try:
            addresses = [await self._resolve(address) for address in self._bootstrap]
        except OSError:
            if not or_none:
                raise
            return []
        return [address for address in addresses if address != self.address]

    async def _resolve(self, address: Address) -> Address:
        found = await self._loop.getaddrinfo(*address, family=self._socket.family, type=socket.SOCK_DGRAM)
        host, port = found[0][4][:2]
        return str(host), int(port)

    async def _outcome(self, kind: type[EventT], number: int) -> EventT:
        if self._closed:
            raise ConnectionLost(_CLOSED)
        future: asyncio.Future[Any] = self._loop.create_future()
        self._waiting[number] = future
        try:
            self._pump()
            result = await future
        finally:
            self._waiting.pop(number, None)
        assert isinstance(result, kind), "an operation ends in its own kind of event"
        return result

    def _readable(self) -> None:
        for _ in range(_DRAIN_DATAGRAMS):
            try:
                data, source = self._socket.recvfrom(_RECEIVE_BYTES)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                continue  # an ICMP error for something we sent: its query will time out
            self._node.receive(data, source[:2], self._clock.now())
        self._pump()

    def _wake(self) -> None:
        self._timer = None
        self._node.wake(self._clock.now())
        self._pump()

    def _pump(self) -> None:
        """Send, tell, and set the alarm."""
        now = self._clock.now()
        for data, address in self._node.outgoing(now):
            try:
                self._socket.sendto(data, address)
            except OSError:
                self._unsent += 1  # as if lost on the way
        while (event := self._node.next_event()) is not None:
            self._tell(event)
        if self._timer is not None:
            self._timer.cancel()
        if (wake_at := self._node.wake_at()) is not None:
            self._timer = self._loop.call_later(max(0.0, wake_at - now), self._wake)

    def _tell(self, event: Event) -> None:
        if isinstance(event, Dropped):
            self._on_dropped(event)
        elif (future := self._waiting.get(event.number)) is not None and not future.done():
            future.set_result(event)

    def _close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._socket)
        self._socket.close()
        self._closed = True
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(ConnectionLost(_CLOSED))


def _received(endpoint: socket.socket) -> tuple[bytes, Address]:
    """A datagram and where it came from; an empty one if there is none after all, or an error about one we sent."""
    try:
        data, source = endpoint.recvfrom(_RECEIVE_BYTES)
    except OSError:
        return b"", ("", 0)
    return data, source[:2]


def _is_dialback(data: bytes, nonce: bytes) -> bool:
    try:
        datagram = messages.read(data)
    except PeerFault:
        return False
    return datagram.kind is messages.Kind.DIALBACK and datagram.rest == nonce
