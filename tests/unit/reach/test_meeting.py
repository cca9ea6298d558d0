"""Two peers whose session runs through a third meet directly, and only where that third has signed that they are."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haif.base import codec, limits
from haif.base.clock import WallTime
from haif.base.errors import (
    BadSignature,
    Expired,
    Forbidden,
    HaifError,
    Malformed,
    OverQuota,
    PeerFault,
    WrongState,
)
from haif.base.ids import NetId, PeerId
from haif.base.machine import Address
from haif.identity.keys import Identity
from haif.identity.signing import Domain, seal
from haif.protocol import methods
from haif.protocol.reach import Look, Meet, Seen, Sighting, Sync, check_sighting
from haif.protocol.relay import RelayAt
from haif.reach.budget import PunchBudget
from haif.reach.service.punch import PunchPort
from haif.runtime.clock import SystemClock
from haif.wire.service import Call, Session
from tests.support.reach_peers import NET, Peer, Way, peers, relayed

WALL = WallTime(1_800_000_000_000)


@asynccontextmanager
async def triangle() -> AsyncIterator[tuple[Peer, Peer, RelayAt, Way]]:
    async with peers(3) as (asker, other, third), relayed(asker, other) as way:
        relay = RelayAt(third.identity.peer, *third.wire.address)
        other.relays.append(relay)
        yield asker, other, relay, way


async def refusal(session: Session, method: methods.Method, argument: codec.Message) -> HaifError:
    with pytest.raises(HaifError) as caught:
        await session.call(method.name, codec.encode(argument), timeout=3)
    return caught.value


async def test_a_relayed_session_moves_to_a_direct_connection_with_its_streams_and_lives_on_without_the_relay() -> None:
    async with triangle() as (asker, other, relay, way):
        go_on = asyncio.Event()

        async def count(_: Call) -> AsyncIterator[bytes]:
            for number in range(100):
                yield b"%d" % number
                if number == 10:
                    await go_on.wait()

        other.wire.serve_stream("count", count)
        async with way.session.stream("count", b"", timeout=10) as numbers:
            got = [await anext(numbers) for _ in range(10)]
            assert await asker.meetings.upgrade(way.session, relay)
            way.cut()
            go_on.set()
            got += [number async for number in numbers]
        assert [b"%d" % number for number in range(100)] == got
        assert "127.0.0.1" == way.session.remote[0]


async def test_a_connection_that_is_there_before_the_peer_has_heard_of_it_is_not_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The peer's port listens all the time, and its process may be slow to hear that it is to look for us."""
    connected, meet = asyncio.Event(), PunchPort.meet

    async def meet_and_tell(port: PunchPort, address: Address, seconds: float) -> socket.socket:
        met = await meet(port, address, seconds)
        connected.set()
        return met

    async with triangle() as (asker, other, relay, way):
        hear, terms = other.wire._methods.calls[methods.SYNC.name]

        async def hear_late(call: Call) -> bytes:
            if codec.decode(Sync, call.argument).attempt:
                await connected.wait()
                for _ in range(500):  # long enough for word that nobody needs to hear it any more
                    await asyncio.sleep(0)
            return await hear(call)

        other.wire._methods.calls[methods.SYNC.name] = hear_late, terms
        monkeypatch.setattr(PunchPort, "meet", meet_and_tell)
        assert await asker.meetings.upgrade(way.session, relay)
        assert way.session.usable


async def test_somebody_else_who_comes_to_the_port_first_costs_one_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    liar = socket.create_server(("127.0.0.1", 0))
    meet, tries, lying = PunchPort.meet, list[PunchPort](), list[socket.socket]()

    async def meet_liar_first(port: PunchPort, address: Address, seconds: float) -> socket.socket:
        tries.append(port)
        if len(tries) > 2:  # the second of the other side
            return await meet(port, address, seconds)
        dialled = socket.create_connection(liar.getsockname())
        dialled.setblocking(False)
        lying.append(liar.accept()[0])
        lying[-1].sendall(b"not what the session's path begins with" * 4)
        return dialled

    monkeypatch.setattr(PunchPort, "meet", meet_liar_first)
    with liar:
        async with triangle() as (asker, _, relay, way):
            assert await asker.meetings.upgrade(way.session, relay)
            assert way.session.usable
    for each in lying:
        each.close()
    assert len(tries) == 4


async def test_a_sighting_is_signed_and_says_where_a_port_was_seen() -> None:
    async with triangle() as (asker, _, relay, _):
        with PunchPort(socket.AF_INET, "127.0.0.1") as port:
            assert ("127.0.0.1", port.port) == await asker.meetings.seen_from(port, relay)


async def test_a_session_through_no_relay_of_ours_is_no_reason_to_dial_anybody() -> None:
    async with triangle() as (asker, other, relay, way):
        other.relays.clear()
        with pytest.raises(WrongState):
            await asker.meetings.upgrade(way.session, relay)
        assert way.session.usable


def sighting(observer: Identity, peer: PeerId, address: Address, *, net: NetId = NET, at: int = 0) -> bytes:
    at = at or SystemClock().wall()
    return seal(observer, Domain.SIGHTING, Sighting(net, peer, *address, at))


async def test_an_address_that_the_relay_has_not_signed_for_this_very_peer_is_never_dialled() -> None:
    async with triangle() as (asker, other, _, way), peers(1) as (third,):
        with socket.create_server(("127.0.0.1", 0)) as victim:
            address = victim.getsockname()
            other.relays[0] = RelayAt(third.identity.peer, *third.wire.address)
            mine = asker.identity.peer
            for forged in (
                b"", b"\xd2" + bytes(64),
                sighting(asker.identity, mine, address),
                sighting(third.identity, third.identity.peer, address),
                sighting(third.identity, mine, address, net=NetId(bytes(32))),
                sighting(third.identity, mine, address, at=1),
            ):  # fmt: skip
                error = await refusal(way.session, methods.MEET, Meet(forged))
                assert isinstance(error, Malformed | BadSignature | Expired)
                assert isinstance(await refusal(way.session, methods.SYNC, Sync(1)), WrongState)
            victim.setblocking(False)
            with pytest.raises(BlockingIOError):
                victim.accept()


async def test_a_relay_cannot_point_inwards_to_an_address_it_cannot_have_seen() -> None:
    async with triangle() as (asker, other, _, way), peers(1) as (third,):
        other.relays[0] = RelayAt(third.identity.peer, "11.1.0.2", 4000)
        for inside in (("127.0.0.1", 22), ("192.168.1.1", 80), ("0.0.0.0", 80), ("224.0.0.1", 80), ("::1", 80)):
            evidence = sighting(third.identity, asker.identity.peer, inside)
            assert isinstance(await refusal(way.session, methods.MEET, Meet(evidence)), Forbidden)


async def test_attempts_are_counted_and_a_meeting_must_be_agreed_on_first() -> None:
    async with triangle() as (asker, _, relay, way):
        assert isinstance(await refusal(way.session, methods.SYNC, Sync(0)), WrongState)
        nobody = sighting_of_a_closed_port(asker, relay)
        async with nobody as evidence:
            await way.session.call(methods.MEET.name, codec.encode(Meet(evidence)), timeout=3)
            for attempt in (2, limits.PUNCH_TRIES_MAX + 1, -1):
                assert isinstance(await refusal(way.session, methods.SYNC, Sync(attempt)), WrongState)


@asynccontextmanager
async def sighting_of_a_closed_port(asker: Peer, relay: RelayAt) -> AsyncIterator[bytes]:
    with PunchPort(socket.AF_INET, "127.0.0.1") as port:
        looking, evidence = await asker.meetings._look_from(port, relay)
    yield evidence
    looking.close()


async def test_a_peer_is_met_a_bounded_number_of_times_a_minute() -> None:
    async with triangle() as (asker, _, relay, way):
        meetings = limits.PUNCHES_PER_PEER_AND_MINUTE_MAX // limits.PUNCH_TRIES_MAX
        for _ in range(meetings):
            assert await asker.meetings.upgrade(way.session, relay)
        with pytest.raises(OverQuota):
            await asker.meetings.upgrade(way.session, relay)


def test_all_peers_together_are_met_a_bounded_number_of_times_a_minute() -> None:
    clock = SystemClock()
    now = clock.now()
    budget = PunchBudget(now)
    for number in range(limits.PUNCHES_PER_MINUTE_MAX // limits.PUNCH_TRIES_MAX):
        budget.take(PeerId(bytes([number]) * 32), now)
    with pytest.raises(OverQuota):
        budget.take(PeerId(bytes(32)), now)


# --- the messages' bytes ----------------------------------------------------------------------------------------------

ANNA = Identity(b"a" * 32)


def test_the_messages_have_these_bytes() -> None:
    assert b"\x90" == codec.encode(Look())
    assert b"\x91\xc4\x01s" == codec.encode(Seen(b"s"))
    assert b"\x91\xc4\x01c" == codec.encode(Meet(b"c"))
    assert b"\x91\x03" == codec.encode(Sync(3))


def test_a_sighting_has_these_bytes_and_serves_only_for_what_it_says() -> None:
    evidence = seal(ANNA, Domain.SIGHTING, Sighting(NET, ANNA.peer, "11.1.0.2", 4000, WALL))
    assert GOLDEN == evidence.hex()
    right = {"net": NET, "observer": ANNA.peer, "peer": ANNA.peer, "now": WALL}
    assert ("11.1.0.2", 4000) == check_sighting(evidence, **right)
    for wrong, error in (
        ({"net": NetId(bytes(32))}, BadSignature), ({"peer": PeerId(bytes(32))}, BadSignature),
        ({"observer": PeerId(bytes(32))}, BadSignature), ({"now": WALL + limits.CLOCK_SKEW_MS + 1}, Expired),
    ):  # fmt: skip
        with pytest.raises(error):
            check_sighting(evidence, **(right | wrong))


GOLDEN = (
    "d284584aa301270378216170706c69636174696f6e2f686169662d7369676874696e672d76312b63626f72045820af06a3e3"
    "291714e4f356c19c9b15cd1951ec6e6662aa77be07547f289383341da0585fa50158206e6e6e6e6e6e6e6e6e6e6e6e6e6e6e"
    "6e6e6e6e6e6e6e6e6e6e6e6e6e6e6e6e6e025820af06a3e3291714e4f356c19c9b15cd1951ec6e6662aa77be07547f289383"
    "341d036831312e312e302e3204190fa0051b000001a3185c5000584014de57671eb51b74c30d36a91330e58bd52cd2a18f89"
    "f6ff1dfcd03459a9783e9980d4d2a24e187e55e0dcce8560f0bdd617f9df2bf92c6bc16b083a2081e804"
)


@given(st.binary(max_size=400), st.integers(0, 399), st.integers(0, 255))
def test_no_bytes_are_a_sighting_but_those_that_were_signed(junk: bytes, at: int, value: int) -> None:
    whole = bytes.fromhex(GOLDEN)
    changed = whole[: at % len(whole)] + bytes([value]) + whole[at % len(whole) + 1 :]
    for data in (junk, changed):
        if data != whole:
            with pytest.raises(PeerFault):
                check_sighting(data, net=NET, observer=ANNA.peer, peer=ANNA.peer, now=WALL)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_peers_fault(data: bytes) -> None:
    for kind in (Look, Seen, Meet, Sync):
        with suppress(PeerFault):
            codec.decode(kind, data)
