"""A session by whichever way is open: direct before relayed, one dial for all who ask, and later a direct way."""

import asyncio
import socket

import pytest

from haif.base import limits
from haif.base.errors import ConnectionLost, HaifError, Timeout
from haif.base.machine import Address
from haif.protocol.reach import Place
from haif.protocol.relay import RelayAt
from haif.reach.service.reach import DIRECT, FAILED, MOVED, RELAYED
from tests.support.reach_peers import Peer, peers
from tests.unit.wire.test_service import Held, echo


def closed_port() -> Address:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        address: Address = gone.getsockname()
    return address


def relayed_place(other: Peer, third: Peer, *addresses: Address) -> Place:
    return Place(addresses, (RelayAt(third.identity.peer, *third.wire.address),))


async def test_a_peer_that_can_be_dialled_is_dialled_directly_and_its_relay_is_left_alone() -> None:
    async with peers(3) as (asker, other, third):
        asker.others[other.identity.peer] = other
        place = relayed_place(other, third, other.wire.address)
        session = await asker.reach.connect(other.identity.peer, place, timeout=10)
        assert (DIRECT, {DIRECT: 1}) == (asker.reach.path(session), asker.reach.statistics())
        assert session is await asker.reach.connect(other.identity.peer, Place(()), timeout=10)


async def test_a_peer_that_nobody_can_dial_is_met_through_its_relay_and_then_directly() -> None:
    async with peers(3) as (asker, other, third):
        asker.others[other.identity.peer] = other
        place = relayed_place(other, third, closed_port())
        session = await asker.reach.connect(other.identity.peer, place, timeout=10)
        assert RELAYED == asker.reach.path(session)
        await asker.reach.settled(session)
        assert (DIRECT, {RELAYED: 1, MOVED: 1}) == (asker.reach.path(session), asker.reach.statistics())
        assert session.usable


async def test_a_session_that_cannot_move_stays_with_its_relay() -> None:
    async with peers(3) as (asker, other, third):
        asker.others[other.identity.peer] = other
        session = await asker.reach.connect(other.identity.peer, relayed_place(other, third), timeout=10)
        other.relays.clear()
        await asker.reach.settled(session)
        assert (RELAYED, {RELAYED: 1, FAILED: 1}) == (asker.reach.path(session), asker.reach.statistics())
        assert session.usable


async def test_somebody_else_at_a_peers_address_does_not_keep_us_from_its_relay() -> None:
    async with peers(4) as (asker, other, third, impostor):
        asker.others[other.identity.peer] = other
        place = relayed_place(other, third, impostor.wire.address)
        session = await asker.reach.connect(other.identity.peer, place, timeout=10)
        assert (other.identity.peer, RELAYED) == (session.peer, asker.reach.path(session))


async def test_a_peer_without_a_way_is_a_lost_connection_and_a_way_that_hangs_a_timeout() -> None:
    async with peers(2) as (asker, other):
        for place in (Place(()), Place((("192.168.77.1", 80), ("example.org", 80))), Place((closed_port(),))):
            with pytest.raises(ConnectionLost):
                await asker.reach.connect(other.identity.peer, place, timeout=10)
        with socket.create_server(("127.0.0.1", 0), backlog=1) as silent, pytest.raises(Timeout):
            await asker.reach.connect(other.identity.peer, Place((silent.getsockname(),)), timeout=0.05)


async def test_all_who_want_a_peer_at_once_share_one_dial() -> None:
    async with peers(2) as (asker, other):
        place = Place((other.wire.address,))
        sessions = await asyncio.gather(
            *(asker.reach.connect(other.identity.peer, place, timeout=10) for _ in range(20))
        )
        assert 1 == len({session.scope for session in sessions}) == other.wire.statistics().handshakes_done


async def test_leaving_stops_dials_and_moves_under_way() -> None:
    async with peers(2) as (asker, other):
        with socket.create_server(("127.0.0.1", 0), backlog=1) as silent:
            place = Place((silent.getsockname(),))
            waiting = asyncio.create_task(asker.reach.connect(other.identity.peer, place, timeout=60))
            while not asker.reach._dials:
                await asyncio.sleep(0)
            await asker.reach.__aexit__(None, None, None)
            with pytest.raises((HaifError, asyncio.CancelledError)):
                await waiting


@pytest.mark.parametrize("direct", [True, False], ids=["raced", "relayed"])
async def test_an_old_session_is_replaced_by_the_same_ways_while_its_calls_go_on(direct: bool) -> None:
    async with peers(3) as (asker, other, third):
        asker.others[other.identity.peer] = other
        held = Held()
        other.wire.serve("held", held)
        other.wire.serve("echo", echo)
        place = relayed_place(other, third, *([other.wire.address] if direct else []))
        old = await asker.reach.connect(other.identity.peer, place, timeout=10)
        await asker.reach.settled(old)
        call = asyncio.create_task(old.call("held", b"", timeout=60))
        await held.begun.wait()
        asker.wire._host.aged(asker.wire._live._scoped[old.scope])
        assert old is await asker.reach.connect(other.identity.peer, place, timeout=10)
        [renewal] = asker.reach._dials.values()
        new = await renewal
        assert new is not old
        for _ in range(2 * limits.SESSIONS_PER_PEER_MAX):
            assert new is await asker.reach.connect(other.identity.peer, place, timeout=10)
        assert not old.usable
        assert b"new" == await new.call("echo", b"new", timeout=5)
        held.go_on.set()
        assert b"done" == await call
        await old.wait_over()


async def test_an_old_session_is_renewed_at_the_place_that_was_asked_for_last() -> None:
    async with peers(2) as (asker, other):
        old = await asker.reach.connect(other.identity.peer, Place((other.wire.address,)), timeout=10)
        moved = Place((other.wire.address, closed_port()))
        assert old is await asker.reach.connect(other.identity.peer, moved, timeout=10)
        asker.wire._host.aged(asker.wire._live._scoped[old.scope])
        assert [(other.identity.peer, moved)] == [*asker.reach._dials]
        await asyncio.wait(asker.reach._dials.values())


async def test_a_session_that_is_old_when_reach_was_left_only_ends() -> None:
    async with peers(2) as (asker, other):
        old = await asker.reach.connect(other.identity.peer, Place((other.wire.address,)), timeout=10)
        await asker.reach.__aexit__(None, None, None)
        asker.wire._host.aged(asker.wire._live._scoped[old.scope])
        await old.wait_over()
        assert 0 == asker.wire.statistics().sessions
