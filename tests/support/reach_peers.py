"""Peers on loopback whose sessions may run through somebody who only passes bytes on."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from haif.base.errors import ConnectionLost, Dropped
from haif.base.ids import NetId, PeerId
from haif.identity.keys import Identity, NoiseKey
from haif.protocol.relay import RelayAt
from haif.reach.service import Reach
from haif.runtime.clock import SystemClock, entropy
from haif.wire.service import Session, Wire

NET = NetId(b"n" * 32)


class Peer:
    """A wire with its `reach`. Sessions from any address are taken to run through the relays it holds, if any."""

    def __init__(self, identity: Identity, wire: Wire, dropped: list[Dropped]) -> None:
        self.identity, self.wire, self.dropped = identity, wire, dropped
        self.relays: list[RelayAt] = []
        self.others: dict[PeerId, Peer] = {}  # whom its relays can call
        self.ways = AsyncExitStack()
        self.reach = Reach(
            identity=identity, net=NET, wire=wire, clock=SystemClock(), on_dropped=dropped.append, carry=self._carry,
            relay_at=lambda _: self.relays[0] if self.relays else None,
        )  # fmt: skip
        self.meetings = self.reach.meetings

    async def _carry(self, relay: RelayAt, peer: PeerId, _certificate: bytes) -> Session:
        if peer not in self.others:
            raise ConnectionLost("the relay does not know that peer")
        self.others[peer].relays[:] = [relay]
        return (await self.ways.enter_async_context(relayed(self, self.others[peer]))).session


def reach_of(identity: Identity, wire: Wire, net: NetId = NET) -> Reach:
    """What dials peers for a role, where no relay is."""
    return Reach(identity=identity, net=net, wire=wire, clock=SystemClock(), on_dropped=lambda _: None)


@asynccontextmanager
async def peers(count: int) -> AsyncIterator[list[Peer]]:
    async with AsyncExitStack() as stack:
        made: list[Peer] = []
        for _ in range(count):
            identity, dropped = Identity(entropy(32)), list[Dropped]()
            wire = Wire(
                identity=identity, noise_key=NoiseKey(entropy(32)), net=NET, clock=SystemClock(), entropy=entropy,
                on_dropped=dropped.append,
            )  # fmt: skip
            made.append(Peer(identity, await stack.enter_async_context(wire), dropped))
            await stack.enter_async_context(made[-1].reach)
            await stack.enter_async_context(made[-1].ways)
        yield made


@dataclass
class Way:
    """A session between two peers through somebody who only passes bytes on, as a relay does."""

    session: Session
    asked: Session
    cut: Callable[[], None]


@asynccontextmanager
async def relayed(asker: Peer, other: Peer) -> AsyncIterator[Way]:
    loop = asyncio.get_running_loop()
    here, relay_here = socket.socketpair()
    there, relay_there = socket.socketpair()
    ends = [await asyncio.open_connection(sock=each) for each in (relay_here, relay_there)]

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)
        writer.close()

    carrying = [
        loop.create_task(pass_on(ends[0][0], ends[1][1])), loop.create_task(pass_on(ends[1][0], ends[0][1]))
    ]  # fmt: skip
    accepting = loop.create_task(other.wire.accept_over(there))
    session = await asker.wire.connect_over(here, other.identity.peer, timeout=3)

    def cut() -> None:
        for _, writer in ends:
            writer.transport.abort()

    try:
        yield Way(session, await accepting, cut)
    finally:
        cut()
        await asyncio.gather(*carrying, return_exceptions=True)
