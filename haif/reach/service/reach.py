"""A session with a peer by whichever way is open.

1. direct   the peer's addresses, each with a quarter second's start before the next (RFC 8305)
2. relayed  through a relay of the peer's: at once where no address is worth dialling, else as the last of that race
3. direct   meanwhile both meet from ports the relay has seen (`meeting`), and the session moves there with its streams
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any, Final, Protocol, Self

from haif.base import limits
from haif.base.clock import Clock
from haif.base.errors import ConnectionLost, Dropped, HaifError, Overloaded, PeerFault, Timeout, Unavailable
from haif.base.ids import Digest, NetId, PeerId
from haif.base.machine import Address
from haif.identity.keys import Identity
from haif.protocol.offers import Presence
from haif.protocol.reach import Place
from haif.protocol.relay import RelayAt
from haif.reach.candidates import is_somebodys, order
from haif.reach.place import Facts
from haif.reach.service.meeting import Meetings
from haif.reach.service.race import race
from haif.runtime.net import dialling, own_address
from haif.wire.service import Session, Wire

DIRECT: Final = "direct"
RELAYED: Final = "relayed"
MOVED: Final = "moved"
FAILED: Final = "failed"


class Carrier(Protocol):
    """What dials a peer through a relay."""

    async def __call__(self, relay: RelayAt, peer: PeerId, certificate: bytes) -> Session:
        """A session with the peer, carried by the relay. Raises as `Wire.connect`."""


class Reach:
    """Use as `async with Reach(...) as reach`. `site`: dial private addresses wherever they are (`allow_private`).

    `carry` dials through relays, `relay_at` knows ours by their addresses. Without either there are no relayed
    sessions. Sessions that are old are renewed by all ways, at the place that was asked for last. Leaving stops what is
    being dialled or moved; sessions are the wire's.
    """

    def __init__(
        self,
        *,
        identity: Identity,
        net: NetId,
        wire: Wire,
        clock: Clock,
        on_dropped: Callable[[Dropped], None],
        site: bool = False,
        carry: Carrier | None = None,
        relay_at: Callable[[Address], RelayAt | None] = lambda _: None,
    ) -> None:
        self._wire, self._carry, self._site, self._on_dropped = wire, carry, site, on_dropped
        self._facts = Facts(())  # what it listens at is put in when it is asked for
        self._relayed: dict[Digest, RelayAt] = {}  # open sessions that run through a relay
        self._dials: dict[tuple[PeerId, Place], asyncio.Task[Session]] = {}
        self._moves: dict[Digest, asyncio.Task[None]] = {}
        self._counts = Counter[str]()
        self._left = False
        self.meetings = Meetings(
            identity=identity, net=net, wire=wire, clock=clock, relay_at=relay_at, on_dropped=on_dropped
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left = True
        self.meetings.close()
        under_way = [*self._dials.values(), *self._moves.values()]
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)

    def place(self) -> Place:
        """Where we are reached, as far as we know now. Raises `Misuse` if the wire does not listen."""
        return replace(self._facts, listening=self._wire.addresses).place()

    def presence(self, role: str) -> Presence:
        """What to say of ourselves in the directory: as what we are there, and where, with our key's certificate."""
        return Presence(role, self.place(), self._wire.certificate)

    def learn(self, **facts: Any) -> None:
        """Something of our `Facts` is known now, or has changed."""
        self._facts = replace(self._facts, **facts)

    async def connect(
        self,
        peer: PeerId,
        place: Place,
        *,
        timeout: float,  # noqa: ASYNC109
        certificate: bytes = b"",
    ) -> Session:
        """The session with `peer`: the live one if there is one, else a new one by the first way that opens.

        `certificate` as for `Wire.connect`; empty counts as none. Several callers share one dial. Raises what the last
        way failed with, `ConnectionLost` where there is none, or `Timeout` after `timeout` seconds.
        """
        known = self._wire.pooled(peer)
        if known is not None:
            self._wire.renew_by(known, partial(self._begin, peer, place, certificate))  # the newest place counts
            return known
        try:
            async with asyncio.timeout(timeout):
                return await asyncio.shield(self._begin(peer, place, certificate))
        except TimeoutError:
            raise Timeout(f"no session with {peer.short}… within {timeout:g} s, by any way it announced") from None

    def path(self, session: Session) -> str:
        """`DIRECT` or `RELAYED`: how a session's bytes travel now."""
        return RELAYED if session.scope in self._relayed else DIRECT

    async def settled(self, session: Session) -> None:
        """Until nothing is being tried any more to move this session to a direct way."""
        move = self._moves.get(session.scope)
        if move is not None:
            await asyncio.wait({move})

    def statistics(self) -> Mapping[str, int]:
        """Since the start: sessions dialled `DIRECT` or `RELAYED`; of those, `MOVED` to a direct way or `FAILED` to."""
        return dict(self._counts)

    # --- ways ---------------------------------------------------------------------------------------------------------

    def _begin(self, peer: PeerId, place: Place, certificate: bytes) -> asyncio.Task[Session]:
        """The dial that all share who want this peer at this place. When its session is old, another one follows."""
        dial = self._dials.get((peer, place))
        if dial is None:
            dialling = self._dial(peer, place, certificate)
            dial = self._dials[peer, place] = asyncio.create_task(dialling, name="reach: dial")
            dial.add_done_callback(partial(self._dialled, peer, place))
        return dial

    async def _dial(self, peer: PeerId, place: Place, certificate: bytes) -> Session:
        if self._left:
            raise ConnectionLost("this node is stopping and dials nobody")
        addresses = order(place.addresses, [own_towards(address) for address in place.addresses], site=self._site)
        relays = place.relays[: limits.RELAYS_MAX] if self._carry is not None else ()
        ways: list[Callable[[], Awaitable[Session]]] = [
            partial(self._directly, peer, each, certificate) for each in addresses
        ]
        ways += [partial(self._through, relay, peer, certificate) for relay in relays]
        if len(addresses) == 1 and not relays:  # nothing to race with
            [address] = addresses
            dial = partial(self._wire.connect, address, peer, timeout=limits.DIAL_SECONDS, certificate=certificate)
            ways = [partial(dial, anew=True)]
        if not ways:
            raise ConnectionLost(f"{peer.short}… announced no address that can be dialled from here, and no relay")
        session = await race(ways, stagger=limits.STAGGER_SECONDS, discard=Session.close)
        self._wire.renew_by(session, partial(self._begin, peer, place, certificate))
        self._counts[self.path(session)] += 1
        relay = self._relayed.get(session.scope)
        if relay is not None and len(self._moves) < limits.PUNCH_PORTS_MAX:
            move = asyncio.create_task(self._move(session, relay), name="reach: move")
            self._moves[session.scope] = move
            move.add_done_callback(lambda _: self._moves.pop(session.scope, None))
        return session

    async def _directly(self, peer: PeerId, address: Address, certificate: bytes) -> Session:
        dialled = await _tcp(address)
        try:
            return await self._wire.connect_over(
                dialled, peer, timeout=limits.HANDSHAKE_SECONDS, certificate=certificate
            )
        except (PeerFault, Overloaded, ConnectionLost):  # its key was rotated, or it asks for work: the wire can more
            return await self._wire.connect(address, peer, timeout=limits.DIAL_SECONDS, anew=True)

    async def _through(self, relay: RelayAt, peer: PeerId, certificate: bytes) -> Session:
        assert self._carry is not None, "ways through relays are tried where something carries"
        session = await self._carry(relay, peer, certificate)
        for scope in [scope for scope in self._relayed if self._wire.session(scope) is None]:
            del self._relayed[scope]
        self._relayed[session.scope] = relay
        return session

    async def _move(self, session: Session, relay: RelayAt) -> None:
        """Move a relayed session to a direct way, if there is one; it goes on as it is otherwise."""
        try:
            moved = await self.meetings.upgrade(session, relay)
        except Unavailable:
            moved = False
        except HaifError as error:
            moved = False
            self._on_dropped(Dropped(error.reason, session.peer, f"meeting directly: {error.message}"))
        if moved:
            self._relayed.pop(session.scope, None)
        self._counts[MOVED if moved else FAILED] += 1

    def _dialled(self, peer: PeerId, place: Place, dial: asyncio.Task[Session]) -> None:
        self._dials.pop((peer, place), None)
        if not dial.cancelled():
            dial.exception()  # those who waited have it; if all of them left, nobody minds


async def _tcp(address: Address) -> socket.socket:
    """A connected socket. Raises `Timeout` or `ConnectionLost`."""
    where = f"{address[0]} port {address[1]}"
    late, lost = f"{where} does not accept connections", f"nobody can be reached at {where}"
    async with dialling(limits.HANDSHAKE_SECONDS, late=late, lost=lost) as opened:
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        dialled = opened.enter_context(socket.socket(family, socket.SOCK_STREAM))
        dialled.setblocking(False)
        await asyncio.get_running_loop().sock_connect(dialled, address)
    return dialled


def own_addresses(towards: Iterable[Address]) -> tuple[str, ...]:
    """The addresses of this machine from which these are reached, each once."""
    return tuple(dict.fromkeys(own for address in towards if (own := own_towards(address))))


def own_towards(address: Address) -> str:
    """The address of ours from which we would reach this one; empty if there is no way, or it is no literal address."""
    return own_address(address) if is_somebodys(address) else ""
