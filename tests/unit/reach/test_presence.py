"""One piece says for every role that it is there, and where."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import pytest

from haif.base import limits
from haif.base.errors import Dropped, Reason, Timeout
from haif.dht.service import Dht
from haif.protocol.offers import whereabouts
from haif.protocol.reach import Place
from haif.protocol.records import presence_topic
from haif.protocol.relay import RelayAt
from haif.reach.service import Announced
from haif.runtime.clock import SystemClock, entropy
from tests.support.reach_peers import NET, Peer, peers


@dataclass
class Scene:
    """A peer that is announced, and somebody else's node of the directory."""

    peer: Peer
    announced: Announced
    directory: Dht
    asker: Dht

    async def place(self) -> Place:
        found = await self.asker.lookup(presence_topic(NET, self.peer.identity.peer))
        return whereabouts(found, self.peer.identity.peer)[0]


@asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    async with peers(2) as (peer, other), AsyncExitStack() as stack:
        nodes: list[Dht] = []
        for each in (peer, other):
            node = Dht(
                identity=each.identity, net=NET, clock=SystemClock(), entropy=entropy,
                bootstrap=[node.address for node in nodes], on_dropped=each.dropped.append,
            )  # fmt: skip
            nodes.append(await stack.enter_async_context(node))
        announced = Announced(
            "lamp", peer=peer.identity.peer, net=NET, dht=nodes[0], reach=peer.reach, on_dropped=peer.dropped.append
        )
        yield Scene(peer, announced, *nodes)


async def test_a_peer_is_found_by_its_id_alone_while_it_is_there() -> None:
    async with scene() as at:
        topic = presence_topic(NET, at.peer.identity.peer)
        async with at.announced:
            place, certificate = whereabouts(await at.asker.lookup(topic), at.peer.identity.peer)
            assert Place((at.peer.wire.address,)) == place
            assert at.peer.wire.certificate == certificate
            assert "lamp" == at.peer.reach.presence("lamp").role
        assert () == await at.asker.lookup(topic)


async def test_what_is_announced_follows_where_the_peer_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PRESENCE_LOOK_SECONDS", 0.01)
    async with scene() as at, at.announced, asyncio.timeout(20):
        relay = RelayAt(at.peer.identity.peer, "10.1.2.3", 4000)
        at.peer.reach.learn(relays=(relay,))
        while (relay,) != (await at.place()).relays:
            pass


async def test_a_presence_that_nobody_keeps_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(*_: object, **__: object) -> None:
        raise Timeout("nobody answers")

    async with scene() as at:
        monkeypatch.setattr(at.directory, "publish", fails)
        async with at.announced:
            assert [Reason.TIMEOUT] == [each.reason for each in presences(at.peer.dropped)]


async def test_a_peer_that_is_stopped_while_it_is_announced_takes_its_presence_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with scene() as at:
        said, publish = asyncio.Event(), at.directory.publish

        async def publishes(*arguments: object, **named: object) -> None:
            await publish(*arguments, **named)  # type: ignore[arg-type]
            said.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(at.directory, "publish", publishes)
        entering = asyncio.create_task(at.announced.__aenter__())
        await said.wait()
        entering.cancel()
        await asyncio.wait([entering])
        assert entering.cancelled()
        assert () == await at.asker.lookup(presence_topic(NET, at.peer.identity.peer))


def presences(dropped: list[Dropped]) -> list[Dropped]:
    return [each for each in dropped if each.detail.startswith("presence")]
