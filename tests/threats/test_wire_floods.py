"""Somebody who fills a listener from one network, on real sockets: others come in all the same.

Threats W-1 (connections) and W-2 (sessions) of docs/threats.md. The flooder's networks are /24s of 127.0.0.0/8.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from haif.base import limits
from haif.base.errors import ConnectionLost, Overloaded, Reason
from haif.base.ids import Digest, PeerId
from haif.base.machine import Address
from haif.base.roles import Role
from haif.identity.keys import Identity, NoiseKey
from haif.runtime.clock import SystemClock, entropy
from haif.wire.crowd import origin
from haif.wire.events import Established
from haif.wire.handshake import Dial, Handshake
from haif.wire.service import Session, Wire
from haif.wire.service.live import Live
from haif.wire.session import SessionMachine
from tests.support.wire_pair import credentials
from tests.unit.wire.test_service import CLIENT, SERVER, Drops, Held, echo, wire

FLOODER = "127.66.0.1"
CLOCK = SystemClock()


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
async def drops() -> Drops:
    return Drops()


@pytest.fixture
async def server(stack: AsyncExitStack, drops: Drops) -> Wire:
    server = await stack.enter_async_context(wire(SERVER, drops=drops))
    server.serve("echo", echo)
    return server


@pytest.fixture
async def friend(stack: AsyncExitStack) -> Wire:
    return await stack.enter_async_context(wire(CLIENT))


def dialled(address: Address, source: str = FLOODER) -> socket.socket:
    """A socket connected from an address of the flooder's choice."""
    return socket.create_connection(address, source_address=(source, 0))


async def silent(server: Wire, stack: AsyncExitStack, source: str = FLOODER) -> socket.socket:
    """A connection that says nothing, and that the listener has taken."""
    refused = server.statistics().dropped.get(Reason.OVERLOADED, 0)
    before = server.statistics().half_open
    sock = stack.enter_context(dialled(server.address, source))
    while server.statistics().half_open == before and server.statistics().dropped.get(Reason.OVERLOADED, 0) == refused:
        await asyncio.sleep(0)
    return sock


async def session_from(source: str, server: Wire, stack: AsyncExitStack) -> Session:
    """A session under a key of its own."""
    own = await stack.enter_async_context(wire(Identity(entropy(32)), port=None))
    return await own.connect_over(dialled(server.address, source), SERVER.peer, timeout=5)


async def alive(session: Session) -> bool:
    """Whether the other side serves it."""
    try:
        return await session.call("echo", b"there", timeout=5) == b"there"
    except ConnectionLost:
        return False


# --- W-1: connections that say nothing --------------------------------------------------------------------------------


async def test_w_1_connections_of_one_network_that_say_nothing_keep_nobody_out(
    server: Wire, friend: Wire, stack: AsyncExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "HANDSHAKES_HALF_OPEN_MAX", 8)
    neighbour = await silent(server, stack, "127.67.0.1")
    flood = [await silent(server, stack) for _ in range(12)]
    assert server.statistics().half_open == limits.HANDSHAKES_HALF_OPEN_MAX
    session = await friend.connect(server.address, SERVER.peer, timeout=3)
    assert await alive(session)
    assert b"too many handshakes" in flood[0].recv(4096)
    for sock in (neighbour, flood[-1]):
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            sock.recv(1)


async def test_w_1_a_listener_that_is_flooded_dials_all_the_same(
    server: Wire, friend: Wire, stack: AsyncExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "HANDSHAKES_HALF_OPEN_MAX", 2)
    friend.serve("echo", echo)
    for _ in range(3):
        await silent(server, stack)
    assert await alive(await server.connect(friend.address, CLIENT.peer, timeout=3))


async def test_w_1_whom_the_gate_let_in_is_not_pushed_out_by_those_who_say_nothing(
    server: Wire, stack: AsyncExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even where they come from as many networks as there are places, and it from the same as others."""
    monkeypatch.setattr(limits, "HANDSHAKES_HALF_OPEN_MAX", 4)
    loop, own = asyncio.get_running_loop(), credentials(CLIENT, NoiseKey(entropy(32)), wall=CLOCK.wall())
    machine = SessionMachine(Handshake(own, Dial(SERVER.peer), entropy=entropy, wall=CLOCK.wall()), CLOCK.now())
    sock = stack.enter_context(dialled(server.address, "127.0.0.1"))
    sock.setblocking(False)
    await loop.sock_sendall(sock, machine.outgoing(CLOCK.now()))
    machine.receive(await loop.sock_recv(sock, 4096), CLOCK.now())
    for number in range(8):
        await silent(server, stack, f"127.0.{number % 5}.1")
    await loop.sock_sendall(sock, machine.outgoing(CLOCK.now()))
    while not server.statistics().sessions:
        await asyncio.sleep(0)


async def test_w_1_our_own_dials_have_a_bound_of_their_own(
    server: Wire, friend: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "DIALS_UNDER_WAY_MAX", 0)
    with pytest.raises(Overloaded, match="this node dials") as caught:
        await server.connect(friend.address, CLIENT.peer, timeout=3)
    assert caught.value.retry_after == limits.HANDSHAKE_SECONDS


# --- W-2: sessions under keys that cost nothing -----------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SESSIONS_MAX", 4)
    monkeypatch.setattr(limits, "SESSIONS_SUBNET_SHARE", 1)


@pytest.mark.usefixtures("small")
async def test_w_2_sessions_of_one_network_make_room_for_others_the_newest_idle_one_first(
    server: Wire, friend: Wire, stack: AsyncExitStack
) -> None:
    server.serve("held", Held())
    flood = [await session_from(FLOODER, server, stack) for _ in range(4)]
    busy = asyncio.create_task(flood[-1].call("held", b"", timeout=60))
    assert await alive(flood[-1])
    session = await friend.connect(server.address, SERVER.peer, timeout=3)
    assert await alive(session)
    await flood[2].wait_over()
    assert [await alive(each) for each in flood] == [True, True, False, True]
    assert not busy.done()
    busy.cancel()


@pytest.mark.usefixtures("small")
async def test_w_2_the_crowd_itself_is_turned_away_and_pushes_nobody_out(
    server: Wire, stack: AsyncExitStack, drops: Drops
) -> None:
    inside = [await session_from(source, server, stack) for source in ("127.0.0.1", FLOODER, FLOODER, FLOODER)]
    with pytest.raises(Overloaded):
        await session_from(FLOODER, server, stack)
    assert [True] * 4 == [await alive(each) for each in inside]
    assert [Reason.OVERLOADED] == [each.reason for each in drops]


@pytest.mark.usefixtures("small")
async def test_w_2_a_listener_full_of_strangers_dials_all_the_same(
    server: Wire, friend: Wire, stack: AsyncExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    friend.serve("echo", echo)
    flood = [await session_from(FLOODER, server, stack) for _ in range(4)]
    assert await alive(await server.connect(friend.address, CLIENT.peer, timeout=3))
    assert [True] * 4 == [await alive(each) for each in flood]
    monkeypatch.setattr(limits, "SESSIONS_DIALLED_MAX", 1)
    other = await stack.enter_async_context(wire(Identity(b"o" * 32)))
    with pytest.raises(Overloaded, match="this node has dialled"):
        await server.connect(other.address, Identity(b"o" * 32).peer, timeout=3)


def test_w_2_members_of_a_closed_network_do_not_push_one_another_out() -> None:
    live = Live()
    live._guests = {object(): origin(FLOODER) for _ in range(limits.SESSIONS_MAX)}
    member = Established(PeerId(bytes(32)), Digest(bytes(32)), 1, frozenset({Role.WORKER}))
    assert not live._make_room(origin("192.0.2.1"), member)
