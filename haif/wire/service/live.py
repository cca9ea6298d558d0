"""The connections of a wire: half open, open by peer, by scope and by the name of their paths, and pooled for reuse."""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import chain

from haif.base import limits
from haif.base.clock import WallTime
from haif.base.errors import ConnectionLost, HaifError, Overloaded
from haif.base.ids import Digest, PeerId
from haif.identity.admission import Book
from haif.wire.service.connection import Connection
from haif.wire.service.session import Session


class Live:
    """Who is connected. A pooled connection is the one that those who want its peer share."""

    def __init__(self) -> None:
        self.half_open: set[Connection] = set()
        self.open: set[Connection] = set()
        self.pool: dict[PeerId, Connection] = {}
        self._per_peer = Counter[PeerId]()  # of those open
        self._scoped: dict[Digest, Connection] = {}
        self._named: dict[bytes, Connection] = {}  # by the name of their paths

    # --- coming and going ---------------------------------------------------------------------------------------------

    def admit(self, connection: Connection) -> HaifError | None:
        """The handshake begins; an error if there is no room for it."""
        if len(self.half_open) >= limits.HANDSHAKES_HALF_OPEN_MAX:
            return Overloaded("too many handshakes are under way", retry_after=limits.HANDSHAKE_SECONDS)
        self.half_open.add(connection)
        return None

    def welcome(self, connection: Connection) -> HaifError | None:
        """The handshake is done; an error if the session may not stay."""
        established = connection.machine.established
        assert established is not None
        if len(self.open) >= limits.SESSIONS_MAX:
            return Overloaded("too many sessions are open here")
        if self._per_peer[established.peer] >= limits.SESSIONS_PER_PEER_MAX:
            return Overloaded(f"{established.peer.short}… has too many sessions open here")
        self.half_open.discard(connection)
        self.open.add(connection)
        self._named[connection.machine.paths.name] = self._scoped[established.scope] = connection
        self._per_peer[established.peer] += 1
        return None

    def unpool(self, connection: Connection) -> None:
        """Nobody is to begin anything on this one any more."""
        peer = peer_of(connection)
        if peer is not None and self.pool.get(peer) is connection:
            del self.pool[peer]

    def forget(self, connection: Connection) -> bool:
        """It is over; whether its handshake was not."""
        self.unpool(connection)
        half_open = connection in self.half_open
        self.half_open.discard(connection)
        established = connection.machine.established
        if established is not None and connection in self.open:
            self.open.remove(connection)
            self._named.pop(connection.machine.paths.name, None)
            self._scoped.pop(established.scope, None)
            self._per_peer[established.peer] -= 1
            if not self._per_peer[established.peer]:
                del self._per_peer[established.peer]
        return half_open

    # --- finding ------------------------------------------------------------------------------------------------------

    def pooled(self, peer: PeerId) -> Session | None:
        """The session that those share who want this peer, if one can be called on."""
        pooled = self.pool.get(peer)
        usable = pooled is not None and pooled.session is not None and pooled.session.usable
        return pooled.session if pooled is not None and usable else None

    def named(self, name: bytes) -> Connection | None:
        """The open one whose paths have this name."""
        return self._named.get(name)

    def scoped(self, scope: Digest) -> Session | None:
        """The open session of this name."""
        connection = self._scoped.get(scope)
        return None if connection is None else connection.session

    def newest(self, peer: PeerId) -> Session | None:
        """The newest session with this peer that can be called on."""
        found = [c.session for c in self._scoped.values() if peer_of(c) == peer and c.session and c.session.usable]
        return found[-1] if found else None

    def sessions(self) -> tuple[Session, ...]:
        """Those that are open."""
        return tuple(c.session for c in self.open if c.session is not None)

    # --- ending -------------------------------------------------------------------------------------------------------

    def review(self, book: Book, wall: WallTime) -> None:
        """End every session whose peer the network does not admit any more."""
        for connection in [*self.open]:
            peer = peer_of(connection)
            if peer is not None:
                try:
                    book.judge(peer, connection.machine.admission, wall)
                except HaifError as error:
                    connection.close(error)

    async def drain(self, seconds: float) -> None:
        """Tell every peer to make no new calls, and wait `seconds` for the running ones."""
        for connection in [*self.open]:
            connection.machine.rpc.drain()
            connection.schedule()
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while (running := self._running()) and loop.time() < until:
            await asyncio.wait(running, timeout=until - loop.time(), return_when=asyncio.ALL_COMPLETED)

    async def close(self) -> None:
        """End every connection, politely for a while."""
        connections = [*self.open, *self.half_open]
        stopped = self._running()
        for connection in connections:
            connection.leave(ConnectionLost("this node is stopping"))
        waiting = [connection.over for connection in connections]
        if waiting or stopped:
            await asyncio.wait([*waiting, *stopped], timeout=limits.DRAIN_SECONDS / 2)
        for connection in connections:
            connection.abort()

    def _running(self) -> list[asyncio.Task[None]]:
        return [*chain.from_iterable(connection.running for connection in self.open)]


def peer_of(connection: Connection) -> PeerId | None:
    """Whom the handshake has shown to be there, if it is done."""
    established = connection.machine.established
    return established.peer if established is not None else None
