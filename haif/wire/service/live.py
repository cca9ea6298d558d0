"""The connections of a wire: half open, open by peer, by scope and by the name of their paths, and pooled for reuse.

Those we dialled and those who came are counted apart: strangers never take the room of what we want ourselves. Where
strangers fill theirs, whoever says nothing gives way first, from where most came from (`wire.crowd`).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from itertools import chain

from haif.base import limits
from haif.base.clock import WallTime
from haif.base.errors import ConnectionLost, HaifError, Overloaded
from haif.base.ids import Digest, PeerId
from haif.identity.admission import Book
from haif.wire.crowd import Origin, thickest, yielding
from haif.wire.events import Established
from haif.wire.service.connection import Connection
from haif.wire.service.session import Session


class Live:
    """Who is connected. A pooled connection is the one that those who want its peer share."""

    def __init__(self) -> None:
        self.waiting: dict[Connection, Origin] = {}  # half open, of those who came, the oldest first
        self.dialling: set[Connection] = set()  # half open, of ours
        self.open: set[Connection] = set()
        self.pool: dict[PeerId, Connection] = {}
        self._guests: dict[Connection, Origin] = {}  # of those open, who came, the oldest first
        self._per_peer = Counter[PeerId]()  # of those open
        self._scoped: dict[Digest, Connection] = {}
        self._named: dict[bytes, Connection] = {}  # by the name of their paths

    # --- coming and going ---------------------------------------------------------------------------------------------

    def admit(self, connection: Connection, source: Origin) -> HaifError | None:
        """The handshake begins; an error if there is no room for it."""
        if connection.machine.initiator:
            if len(self.dialling) >= limits.DIALS_UNDER_WAY_MAX:
                return Overloaded("this node dials too many peers at once", retry_after=limits.HANDSHAKE_SECONDS)
            self.dialling.add(connection)
            return None
        if len(self.waiting) >= limits.HANDSHAKES_HALF_OPEN_MAX:
            silent = {each: its for each, its in self.waiting.items() if not each.machine.let_in}
            thickest(silent or self.waiting)[0].close(
                Overloaded("too many handshakes are under way", retry_after=limits.HANDSHAKE_SECONDS)
            )
        self.waiting[connection] = source
        return None

    def welcome(self, connection: Connection) -> HaifError | None:
        """The handshake is done; an error if the session may not stay."""
        established, source = connection.machine.established, self.waiting.get(connection)
        assert established is not None
        if self._per_peer[established.peer] >= limits.SESSIONS_PER_PEER_MAX:
            return Overloaded("you have too many sessions open here", retry_after=limits.SESSION_SILENCE_SECONDS)
        if source is None and len(self.open) - len(self._guests) >= limits.SESSIONS_DIALLED_MAX:
            return Overloaded("this node has dialled too many sessions that are open")
        if source is not None:
            if len(self._guests) >= limits.SESSIONS_MAX and not self._make_room(source, established):
                return Overloaded("too many sessions are open here", retry_after=limits.SESSION_SILENCE_SECONDS)
            self._guests[connection] = source
        self.release(connection)
        self.open.add(connection)
        self._named[connection.machine.paths.name] = self._scoped[established.scope] = connection
        self._per_peer[established.peer] += 1
        return None

    def _make_room(self, newcomer: Origin, established: Established) -> bool:
        """End somebody's session for a newcomer, if somebody's is to; whether one was.

        Who came last gives way, before the others if it has nothing under way. Members of a closed network have keys
        that somebody gave them, and do not push one another out.
        """
        crowd = yielding(self._guests, newcomer, limits.SESSIONS_SUBNET_SHARE) if established.roles is None else []
        if crowd:
            quiet = [each for each in crowd if each.machine.rpc.quiet()]
            (quiet or crowd)[-1].close(Overloaded("too many sessions are open here from your network"))
        return bool(crowd)

    def release(self, connection: Connection) -> None:
        """It is half open no more."""
        self.waiting.pop(connection, None)
        self.dialling.discard(connection)

    def share(self, session: Session) -> None:
        """Those who want its peer share this one from here on, unless they share another that can be called on."""
        connection = self._scoped.get(session.scope)
        if connection is not None and self.pooled(session.peer) is None:
            self.pool[session.peer] = connection

    def is_pooled(self, connection: Connection) -> bool:
        """Whether those who want its peer share this one."""
        peer = peer_of(connection)
        return peer is not None and self.pool.get(peer) is connection

    def unpool(self, connection: Connection) -> None:
        """Nobody is to begin anything on this one any more."""
        peer = peer_of(connection)
        if peer is not None and self.is_pooled(connection):
            del self.pool[peer]

    def forget(self, connection: Connection) -> bool:
        """It is over; whether its handshake was not."""
        self.unpool(connection)
        half_open = connection in self.waiting or connection in self.dialling
        self.release(connection)
        established = connection.machine.established
        if established is not None and connection in self.open:
            self.open.remove(connection)
            self._guests.pop(connection, None)
            self._named.pop(connection.machine.paths.name, None)
            self._scoped.pop(established.scope, None)
            self._per_peer[established.peer] -= 1
            if not self._per_peer[established.peer]:
                del self._per_peer[established.peer]
        return half_open

    def renew_by(self, session: Session, again: Callable[[], asyncio.Future[Session]]) -> None:
        """When this session is old, so is the next one made."""
        connection = self._scoped.get(session.scope)
        if connection is not None:
            connection.again = again

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
        connections = [*self.open, *self.waiting, *self.dialling]
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
