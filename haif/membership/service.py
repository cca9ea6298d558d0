"""A member of a network that has a root: it hears of revocations, acts on them at once, and passes them on.

1. look    every `limits.NETWORK_LOOK_SECONDS`: what changed on disk (an owner's command, another role of this machine)
2. tell    each session once, and again after news: which lists we have; either side hands over what the other lacks
3. act     a new list is kept, sessions of whom it names end, and the directory bars them; all before anything else
           happens. Sessions whose certificate has expired end at the next look
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final, Self

from haif.base import codec, limits
from haif.base.clock import Clock
from haif.base.errors import ConnectionLost, Dropped, HaifError, Misuse, Oversize, PeerFault, Refusal, Unsupported
from haif.base.ids import Digest, PeerId
from haif.identity.admission import Book
from haif.identity.service import Networks
from haif.protocol.methods import REVOCATIONS
from haif.protocol.networks import Edition, Lists
from haif.wire.service import Call, Session, Wire

_TELLING_MAX: Final = 64  # peers told at the same time
_SETTLED_NS: Final = 1_000_000_000  # within this, two writes to a folder may bear the same time


class Membership:
    """Inside `async with`, the book is kept up to date, and so is everybody this peer has a session with.

    `on_revoked` hears whom the lists in force name, whenever that changes. Entering reads what is on disk.
    """

    def __init__(
        self,
        *,
        book: Book,
        peer: PeerId,
        networks: Networks,
        wire: Wire,
        clock: Clock,
        on_dropped: Callable[[Dropped], None],
        on_revoked: Callable[[frozenset[PeerId]], None],
    ) -> None:
        self._book, self._peer, self._networks = book, peer, networks
        self._wire, self._clock = wire, clock
        self._on_dropped, self._on_revoked = on_dropped, on_revoked
        self._stamp = 0
        self._told: set[Digest] = set()  # sessions, by their scope; of live ones only
        self._news = asyncio.Event()
        self._telling = asyncio.Semaphore(_TELLING_MAX)
        self._tasks = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        self._read_disk()
        self._on_revoked(self._book.revoked())
        self._wire.serve(REVOCATIONS.name, self._hear, REVOCATIONS.terms)
        await self._tasks.__aenter__()
        self._looking = self._tasks.create_task(self._look())
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._looking.cancel()
        await self._tasks.__aexit__(None, None, None)

    # --- 1. look ------------------------------------------------------------------------------------------------------

    async def _look(self) -> None:
        async with asyncio.TaskGroup() as telling:
            while True:
                self._news.clear()
                try:
                    self._read_disk()
                except (Misuse, OSError) as error:  # somebody is at work in the folder; the next look sees it whole
                    self._on_dropped(Dropped(Misuse.reason, self._peer, str(error)))
                self._wire.review()
                for session in self._untold():
                    telling.create_task(self._tell(session))
                with suppress(TimeoutError):
                    async with asyncio.timeout(limits.NETWORK_LOOK_SECONDS):
                        await self._news.wait()

    def _read_disk(self) -> None:
        """Take in what changed in the network's folder since the last look."""
        network = self._book.network
        stamp = self._networks.stamp(network)
        if stamp == self._stamp:
            return
        self._book.own = self._networks.admission(network, self._peer)
        self._take(self._networks.lists(network), self._peer)
        self._keep(self._book.newer({}))  # where somebody put back an old one
        settled = self._clock.wall() * 1_000_000 - stamp > _SETTLED_NS  # a later write has a later time
        self._stamp = stamp if settled else 0

    # --- 2. tell ------------------------------------------------------------------------------------------------------

    def _untold(self) -> list[Session]:
        sessions = self._wire.sessions()
        self._told &= {session.scope for session in sessions}
        untold = [session for session in sessions if session.scope not in self._told]
        self._told |= {session.scope for session in untold}
        return untold

    async def _tell(self, session: Session) -> None:
        """Say which lists we have, take what we lack, give what they lack."""
        try:
            async with self._telling:
                said = await self._exchange(session, [])
                self._take(said.lists, session.peer)
                lacking = self._book.newer({edition.issuer: edition.sequence for edition in said.have})
                if lacking:
                    await self._exchange(session, lacking)
        except (Unsupported, ConnectionLost):
            return  # a visitor, who will be gone in a moment; or gone already
        except HaifError as error:
            self._told.discard(session.scope)
            self._on_dropped(Dropped(error.reason, session.peer, f"{REVOCATIONS.name}: {error.message}"))

    async def _exchange(self, session: Session, lists: list[bytes]) -> Lists:
        argument = codec.encode(Lists(self._have(), lists))
        reply = await session.call(REVOCATIONS.name, argument, timeout=limits.CONTROL_CALL_SECONDS)
        return _bounded(codec.decode(Lists, reply), session.peer)

    async def _hear(self, call: Call) -> bytes:
        said = _bounded(codec.decode(Lists, call.argument), call.peer)
        self._take(said.lists, call.peer)
        lacking = self._book.newer({edition.issuer: edition.sequence for edition in said.have})
        return codec.encode(Lists(self._have(), lacking))

    def _have(self) -> list[Edition]:
        return [Edition(found.signer, found.payload.sequence) for found in self._book.lists()]

    # --- 3. act -------------------------------------------------------------------------------------------------------

    def _take(self, lists: Iterable[bytes], source: PeerId) -> None:
        """Learn; if anything was new, act on it now. A list that does not hold is dropped, whoever passed it on."""
        now, news = self._clock.wall(), False
        for evidence in lists:
            try:
                new = self._book.learn(evidence, now)
            except (PeerFault, Refusal) as error:
                self._on_dropped(Dropped(error.reason, source, error.message))
                continue
            if new:
                news = True
                self._keep([evidence])
        if news:
            self._wire.review()
            self._on_revoked(self._book.revoked())
            self._told.clear()
            self._news.set()

    def _keep(self, lists: Iterable[bytes]) -> None:
        with suppress(OSError):  # a full disk: it stays in memory, and peers have it too
            for evidence in lists:
                self._networks.keep_list(self._book.network, evidence, self._clock.wall())


def _bounded(lists: Lists, peer: PeerId) -> Lists:
    if max(len(lists.have), len(lists.lists)) > limits.NETWORK_LISTS_MAX:
        raise Oversize(f"a network has at most {limits.NETWORK_LISTS_MAX} lists of revocations", peer)
    return lists
