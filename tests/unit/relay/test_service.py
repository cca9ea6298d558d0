"""The relay over real sockets: two peers that meet through it, and whoever would abuse it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import psutil
import pytest

from haif.base import codec, limits
from haif.base.errors import (
    BadSignature,
    ConnectionLost,
    Dropped,
    Expired,
    Forbidden,
    HaifError,
    Misuse,
    Overloaded,
    OverQuota,
    Reason,
    Timeout,
)  # fmt: skip
from haif.base.ids import NetId, Nonce, PeerId
from haif.base.machine import Address
from haif.identity.keys import Identity, NoiseKey
from haif.policy.bucket import Bucket
from haif.protocol import methods
from haif.protocol.relay import Connect, Connected, Incoming, Leaving, RelayAt, Reserve, Reserved, read_voucher
from haif.relay.circuits import Allowance
from haif.relay.service import Places, Relay, connect_through
from haif.relay.service.splice import Leg
from haif.runtime.clock import SystemClock, entropy
from haif.wire.gate import Shares
from haif.wire.opening import CIRCUIT, PREAMBLE, preamble
from haif.wire.service import Call, Session, Wire

NET = NetId(b"n" * 32)
RELAY, WORKER, GATEWAY = (Identity(letter * 32) for letter in (b"r", b"w", b"g"))
CLOCK = SystemClock()


class Drops(list[Dropped]):
    """What was dropped, and a way to wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self.came = asyncio.Event()

    def __call__(self, event: Dropped) -> None:
        self.append(event)
        self.came.set()

    async def next(self) -> Dropped:
        await self.came.wait()
        self.came.clear()
        return self[-1]


def wire(identity: Identity, *, port: int | None = 0, drops: Drops | None = None, net: NetId = NET) -> Wire:
    return Wire(
        identity=identity, noise_key=NoiseKey(entropy(32)), net=net, clock=CLOCK, entropy=entropy,
        on_dropped=drops if drops is not None else Drops(), port=port,
    )  # fmt: skip


class House:
    """A relay, a worker that can only be met through it, and a gateway."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self.drops, self.at_worker = Drops(), Drops()
        self.changes: list[tuple[RelayAt, ...]] = []

    async def open(self, allowance: Allowance | None = None, *, leave_seconds: float = 0.5) -> House:
        enter = self._stack.enter_async_context
        self.relay_wire = await enter(wire(RELAY))
        self.relay = await enter(
            Relay(
                identity=RELAY, net=NET, wire=self.relay_wire, clock=CLOCK, entropy=entropy, on_dropped=self.drops,
                allowance=allowance or Allowance(), leave_seconds=leave_seconds,
            )
        )  # fmt: skip
        self.at = RelayAt(RELAY.peer, *self.relay_wire.address)
        self.worker = await enter(wire(WORKER, port=None))
        self.worker.serve("echo", echo)
        self.worker.serve_stream("count", count)
        self.places = await enter(self.keep(self.worker, WORKER, self.at))
        self.gateway = await enter(wire(GATEWAY, port=None))
        return self

    def keep(self, wire: Wire, identity: Identity, *relays: RelayAt) -> Places:
        return Places(
            relays, peer=identity.peer, net=NET, wire=wire, clock=CLOCK, on_change=self.changes.append,
            on_dropped=self.at_worker,
        )  # fmt: skip

    async def meet(self, timeout: float = 5) -> Session:  # noqa: ASYNC109
        return await connect_through(self.gateway, self.at, WORKER.peer, timeout=timeout)

    async def ask(self, peer: PeerId = WORKER.peer) -> bytes:
        """A token for the gateway, and nothing done with it."""
        session = await self.gateway.connect(self.at.address, RELAY.peer, timeout=3)
        reply = await session.call(methods.RELAY_CONNECT.name, codec.encode(Connect(peer)), timeout=3)
        return codec.decode(Connected, reply).token

    async def quiet(self) -> None:
        """Until no circuit is left."""
        while self.relay.statistics().circuits:
            await asyncio.sleep(0)


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
async def house(stack: AsyncExitStack) -> House:
    return await House(stack).open()


async def echo(call: Call) -> bytes:
    return call.argument


async def count(call: Call) -> AsyncIterator[bytes]:
    for number in range(int(call.argument)):
        yield b"%d" % number


async def shown(address: Address, token: bytes, more: bytes = b"") -> socket.socket:
    """A connection to the relay that has shown these bytes as its token."""
    sock = socket.socket()
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, address)
    await loop.sock_sendall(sock, preamble(NET, pattern=CIRCUIT) + token + more)
    return sock


async def ended(sock: socket.socket) -> bytes:
    """What came on it until it was closed."""
    loop, heard = asyncio.get_running_loop(), b""
    with sock:
        while True:
            try:
                data = await loop.sock_recv(sock, 65536)
            except ConnectionResetError:
                return heard
            if not data:
                return heard
            heard += data


# --- meeting ----------------------------------------------------------------------------------------------------------


async def test_two_peers_that_dial_nobody_but_the_relay_meet(house: House) -> None:
    session = await house.meet()
    assert session.peer == WORKER.peer
    assert session.remote == house.at.address
    assert await session.call("echo", b"through", timeout=5) == b"through"
    there = house.worker.session(session.scope)
    assert there is not None
    assert there.peer == GATEWAY.peer
    assert house.places.at(there.remote) == house.at
    assert house.places.at(("127.0.0.1", 1)) is None
    assert await house.gateway.connect(("127.0.0.1", 1), WORKER.peer, timeout=1) is session
    at = house.relay.statistics()
    assert (at.places, at.circuits, at.circuits_joined, at.circuits_failed) == (1, 1, 1, 0)
    assert at.bytes_relayed > 500


async def test_a_megabyte_and_a_long_stream_pass_whole_and_in_order(house: House) -> None:
    session = await house.meet()
    argument = bytes(range(256)) * 4096
    assert await session.call("echo", argument, timeout=20) == argument
    async with session.stream("count", b"20000", timeout=20) as messages:
        assert [int(message) async for message in messages] == list(range(20_000))


async def test_a_known_certificate_saves_a_round_trip_through_the_relay_too(house: House) -> None:
    evidence = house.worker._machines.certificate(CLOCK.wall())
    session = await connect_through(house.gateway, house.at, WORKER.peer, timeout=5, certificate=evidence)
    assert await session.call("echo", b"IK", timeout=5) == b"IK"
    assert len(house.worker._machines.times) == 1


async def test_the_relay_sees_ciphertext_only(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[bytes] = []
    carry = Leg._carry

    def listen(leg: Leg, data: bytes) -> None:
        heard.append(data)
        carry(leg, data)

    monkeypatch.setattr(Leg, "_carry", listen)
    session = await house.meet()
    secret = b"the tenant's prompt, which is nobody's business"
    assert await session.call("echo", secret * 20, timeout=5) == secret * 20
    text = b"".join(heard)
    assert len(text) > 40 * len(secret)
    assert secret not in text
    assert b"echo" not in text


async def test_a_relay_that_changes_a_bit_ends_the_session(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    session = await house.meet()
    carry = Leg._carry
    monkeypatch.setattr(Leg, "_carry", lambda leg, data: carry(leg, data[:-1] + bytes([data[-1] ^ 1])))
    with pytest.raises(ConnectionLost):
        await session.call("echo", b"altered", timeout=5)


async def test_a_relayed_session_moves_to_a_direct_path_and_the_circuit_ends(house: House) -> None:
    session = await house.meet()
    one, other = pair()
    answering = asyncio.create_task(house.worker.accept_over(other))
    async with session.stream("count", b"20000", timeout=20) as messages:
        assert await anext(messages) == b"0"
        await session.move(one)
        assert (await answering).scope == session.scope
        assert [int(message) async for message in messages] == list(range(1, 20_000))
    await house.quiet()
    assert await session.call("echo", b"direct", timeout=5) == b"direct"
    assert session.remote != house.at.address


def pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        other, _ = listener.accept()
    return one, other


async def test_a_circuit_ends_with_the_session_in_it(house: House) -> None:
    session = await house.meet()
    [connection] = [c for c in house.gateway._live.open if c.session is session]
    connection.abort()
    await house.quiet()
    assert house.relay._legs == {}
    again = await house.meet()
    assert await again.call("echo", b"again", timeout=5) == b"again"


async def test_a_hundred_circuits_later_nothing_is_left_of_them(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RELAY_CONNECTS_PER_SECOND", 1e6)
    house.relay._board._connects = Shares(1e6, 1e6)
    house.places._held[RELAY.peer].budget = Bucket.full(capacity=1e6, rate=1e6, now=CLOCK.now())
    await house.meet()
    await settle(house)
    before = psutil.Process().num_fds()
    for number in range(100):
        session = await house.meet()
        if number % 3:
            assert await session.call("echo", b"hello", timeout=5) == b"hello"
        [connection] = [c for c in house.gateway._live.open if c.session is session]
        connection.abort()
        await house.quiet()
    await settle(house)
    assert psutil.Process().num_fds() <= before
    assert (house.relay._legs, house.relay._calls, house.relay._board.circuits) == ({}, set(), ())
    assert [wire.statistics().half_open for wire in (house.gateway, house.worker, house.relay_wire)] == [0, 0, 0]
    assert house.places._answering == set()


async def settle(house: House) -> None:
    """Until only the sessions with the relay are left: that of the worker, and that of the gateway."""
    for connection in [c for c in house.gateway._live.open if c.session and c.session.peer == WORKER.peer]:
        connection.abort()
    await house.quiet()
    while house.worker.statistics().sessions > 1 or house.relay._calls or house.places._answering:
        await asyncio.sleep(0)


def test_it_works_on_uvloop_too() -> None:
    uvloop = pytest.importorskip("uvloop")

    async def main() -> bytes:
        async with AsyncExitStack() as stack:
            house = await House(stack).open()
            session = await house.meet()
            async with session.stream("count", b"5000", timeout=20) as messages:
                assert len([message async for message in messages]) == 5000
            return await session.call("echo", bytes(1 << 20), timeout=10)

    assert uvloop.run(main()) == bytes(1 << 20)


# --- places -----------------------------------------------------------------------------------------------------------


async def test_a_place_comes_with_a_signed_word_for_what_passes_and_where_the_peer_is_seen(house: House) -> None:
    [voucher] = house.places.vouchers
    assert (voucher.signer, voucher.payload.peer, voucher.payload.net) == (RELAY.peer, WORKER.peer, NET)
    assert voucher.payload.host == "127.0.0.1"
    assert voucher.payload.port > 0
    assert abs(voucher.payload.expires - CLOCK.wall() - 1000 * limits.RELAY_RESERVATION_SECONDS) < 60_000
    assert voucher.payload.circuit_bytes == limits.RELAY_CIRCUIT_BYTES
    options = {"net": NET, "relay": RELAY.peer, "peer": WORKER.peer, "now": CLOCK.wall()}
    assert read_voucher(voucher.evidence, **options) == voucher
    for wrong, error in (
        ({"relay": WORKER.peer}, BadSignature),
        ({"peer": GATEWAY.peer}, BadSignature),
        ({"net": NetId(b"x" * 32)}, BadSignature),
        ({"now": voucher.payload.expires + limits.CLOCK_SKEW_MS}, Expired),
    ):
        with pytest.raises(error):
            read_voucher(voucher.evidence, **(options | wrong))


async def test_the_relays_that_hold_are_told_when_they_change(house: House) -> None:
    assert house.changes == [(house.at,)]
    assert house.places.relays == (house.at,)
    [connection] = house.worker._live.open
    connection.abort()
    await connection.over
    while house.relay.statistics().places != 1 or not house.worker._live.open:
        await asyncio.sleep(0)
    session = await house.meet()
    assert await session.call("echo", b"after a reconnect", timeout=5) == b"after a reconnect"


async def test_a_relay_that_cannot_be_reached_is_asked_again(
    stack: AsyncExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "RELAY_RETRY_SECONDS", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = taken.getsockname()
    house = House(stack)
    worker = await stack.enter_async_context(wire(WORKER, port=None))
    places = await stack.enter_async_context(house.keep(worker, WORKER, RelayAt(RELAY.peer, *address)))
    assert places.relays == ()
    await house.at_worker.next()
    assert await house.at_worker.next() == house.at_worker[0]
    assert house.at_worker[0].reason is Reason.CONNECTION_LOST
    assert house.changes == []


async def test_at_most_three_relays_and_none_twice(house: House) -> None:
    with pytest.raises(Misuse):
        house.keep(house.gateway, GATEWAY, *(RelayAt(PeerId(bytes([n]) * 32), "h", 1) for n in range(4)))
    with pytest.raises(Misuse):
        house.keep(house.gateway, GATEWAY, house.at, house.at)


async def test_a_peer_that_left_has_no_place_any_more(house: House) -> None:
    await house.places.__aexit__(None, None, None)
    [connection] = house.worker._live.open
    connection.abort()
    while house.relay_wire.session_with(WORKER.peer) is not None:
        await asyncio.sleep(0)
    with pytest.raises(ConnectionLost, match="holds no place"):
        await house.meet()
    assert house.relay.statistics().places == 0


# --- no open proxy ----------------------------------------------------------------------------------------------------


async def test_only_who_holds_a_place_can_be_met(house: House) -> None:
    with pytest.raises(ConnectionLost, match="holds no place"):
        await connect_through(house.gateway, house.at, PeerId(b"x" * 32), timeout=3)
    with pytest.raises(ConnectionLost, match="holds no place"):
        await connect_through(house.gateway, house.at, GATEWAY.peer, timeout=3)
    assert house.relay.statistics().circuits == 0


async def test_a_peer_of_another_network_gets_nothing(house: House) -> None:
    async with wire(GATEWAY, port=None, net=NetId(b"x" * 32)) as foreigner:
        with pytest.raises(HaifError) as caught:
            await connect_through(foreigner, house.at, WORKER.peer, timeout=3)
    assert caught.value.reason is Reason.WRONG_STATE


async def test_a_node_that_is_no_relay_takes_no_circuits(house: House) -> None:
    drops = Drops()
    async with wire(Identity(b"o" * 32), drops=drops) as other:
        assert await ended(await shown(other.address, bytes(16))) == b""
        await drops.came.wait()
    assert [event.reason for event in drops] == [Reason.UNSUPPORTED]
    with pytest.raises(Misuse):
        house.relay_wire.serve_circuits(lambda *_: None)


# --- tokens -----------------------------------------------------------------------------------------------------------


async def test_a_guessed_token_gets_a_closed_connection_and_not_a_word(stack: AsyncExitStack) -> None:
    house = House(stack)
    drops = Drops()
    house.relay_wire = await stack.enter_async_context(wire(RELAY, drops=drops))
    await stack.enter_async_context(
        Relay(identity=RELAY, net=NET, wire=house.relay_wire, clock=CLOCK, entropy=entropy, on_dropped=house.drops)
    )
    for guess in (bytes(16), entropy(16)):
        assert await ended(await shown(house.relay_wire.address, guess)) == b""
    assert [event.reason for event in drops] == [Reason.UNAUTHENTICATED] * 2


async def test_a_stolen_token_leads_to_a_peer_that_does_not_know_the_thief(house: House) -> None:
    """The thief is spliced to the worker and shown nothing: whoever talks there must finish a handshake."""
    token = await house.ask()
    thief = await shown(house.at.address, token, b"HAIF\x01\x01\x00\x00nnnn" + bytes(100))
    assert b"HAIF" not in await ended(thief)
    await house.quiet()
    own = await shown(house.at.address, token)
    assert await ended(own) == b""
    session = await house.meet()
    assert await session.call("echo", b"next", timeout=5) == b"next"


async def test_a_relay_that_joins_us_with_somebody_else_is_found_out(house: House) -> None:
    """It answers in the worker's name with a node of its own, and has no key to prove it."""
    eve = await house._stack.enter_async_context(wire(Identity(b"e" * 32), port=None))
    eve_places = await house._stack.enter_async_context(house.keep(eve, Identity(b"e" * 32), house.at))
    assert eve_places.relays == (house.at,)
    with_eve = house.relay_wire.session_with(Identity(b"e" * 32).peer)
    lie = house.relay._wire.session_with

    def swap(peer: PeerId) -> Session | None:
        return with_eve if peer == WORKER.peer else lie(peer)

    house.relay._wire.session_with = swap  # type: ignore[method-assign]
    with pytest.raises(BadSignature):
        await house.meet()
    house.relay._wire.session_with = lie  # type: ignore[method-assign]
    assert eve.statistics().sessions == 1


# --- who says nothing, too much or too often --------------------------------------------------------------------------


async def test_an_end_that_never_comes_is_not_waited_for_long(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RELAY_PAIRING_SECONDS", 0.05)
    monkeypatch.setattr(limits, "RELAY_TICK_SECONDS", 0.01)
    house.relay._ticking.cancel()
    house.relay._ticking = asyncio.create_task(house.relay._tick())
    await house.ask()
    dropped = await house.drops.next()
    assert (dropped.reason, dropped.peer) == (Reason.TIMEOUT, GATEWAY.peer)
    assert house.relay.statistics().circuits == 0
    assert house.relay.statistics().circuits_failed == 1


async def test_a_slow_loris_holds_a_place_in_the_queue_of_handshakes_and_only_for_seconds(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "HANDSHAKE_SECONDS", 0.1)
    sock = socket.socket()
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, house.at.address)
    await loop.sock_sendall(sock, preamble(NET, pattern=CIRCUIT) + bytes(15))
    assert await ended(sock) == b""
    assert house.relay_wire.statistics().half_open == 0


async def test_who_says_too_much_before_the_other_has_come_is_dropped(house: House) -> None:
    house.places._held.clear()  # the worker answers no circuit any more
    token = await house.ask()
    heard = await ended(await shown(house.at.address, token, bytes(limits.RELAY_EARLY_BYTES_MAX + 1)))
    assert heard == b""


async def test_a_refusal_of_the_called_peer_ends_the_circuit(house: House) -> None:
    house.places._held.clear()
    waiting = await shown(house.at.address, await house.ask())
    assert await ended(waiting) == b""
    assert (await house.drops.next()).reason is Reason.FORBIDDEN
    assert house.relay.statistics().circuits == 0


async def test_quotas_reach_whoever_asks(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RELAY_CIRCUITS_PER_CALLER_MAX", 1)
    await house.meet()
    with pytest.raises(OverQuota):
        await house.meet()
    monkeypatch.setattr(limits, "RELAY_RESERVATIONS_MAX", 1)
    session = await house.gateway.connect(house.at.address, RELAY.peer, timeout=3)
    with pytest.raises(Overloaded):
        await session.call(methods.RELAY_RESERVE.name, codec.encode(Reserve()), timeout=3)


async def test_a_circuit_that_carried_all_it_may_is_cut(stack: AsyncExitStack) -> None:
    house = await House(stack).open(Allowance(circuit_bytes=100_000))
    session = await house.meet()
    with pytest.raises(ConnectionLost):
        await session.call("echo", bytes(200_000), timeout=5)
    assert (await house.drops.next()).reason is Reason.OVER_QUOTA
    assert await (await house.meet()).call("echo", b"a new one", timeout=5) == b"a new one"


async def test_a_circuit_over_its_rate_is_slowed_and_loses_nothing(stack: AsyncExitStack) -> None:
    house = await House(stack).open(Allowance(bytes_per_second=1 << 20))
    session = await house.meet()
    argument = bytes(range(256)) * 4096
    before = CLOCK.now()
    for _ in range(2):  # 4 MiB in all: 2 at once, and 2 seconds for the rest, less one read
        assert await session.call("echo", argument, timeout=30) == argument
    assert CLOCK.now() - before > 1.0


async def test_an_end_that_reads_nothing_holds_the_other_and_not_the_relays_memory(house: House) -> None:
    house.places._held.clear()
    session = await house.gateway.connect(house.at.address, RELAY.peer, timeout=3)
    assert session is not None
    house.relay._call = no_call  # type: ignore[method-assign, assignment]
    token = await house.ask()
    [circuit] = house.relay._board.circuits
    talks, deaf = await shown(house.at.address, token), await shown(house.at.address, circuit.tokens[1])
    loop = asyncio.get_running_loop()
    flood = loop.create_task(loop.sock_sendall(talks, bytes(256 << 20)))
    passed = -1
    while passed != house.relay.statistics().bytes_relayed or passed == 0:  # until nothing moves any more
        passed = house.relay.statistics().bytes_relayed
        for _ in range(200):
            await asyncio.sleep(0)
    assert not flood.done()
    legs = [leg for leg in house.relay._legs[circuit] if leg is not None]
    assert sum(leg._transport.get_write_buffer_size() for leg in legs) <= limits.RELAY_BUFFER_BYTES + (256 << 10)
    flood.cancel()
    talks.close()
    deaf.close()
    await house.quiet()


async def test_an_end_that_never_reads_is_let_go_when_the_other_has_left(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "RELAY_LINGER_SECONDS", 0.05)
    monkeypatch.setattr(limits, "RELAY_BUFFER_BYTES", 1 << 30)  # so that all of it waits to be read by the deaf end
    house.relay._call = no_call  # type: ignore[method-assign, assignment]
    token = await house.ask()
    [circuit] = house.relay._board.circuits
    talks, deaf = await shown(house.at.address, token), await shown(house.at.address, circuit.tokens[1])
    loop = asyncio.get_running_loop()
    while None in (legs := house.relay._legs[circuit]):
        await asyncio.sleep(0)
    unread = legs[1]._transport
    await loop.sock_sendall(talks, bytes(32 << 20))
    talks.close()
    await house.quiet()
    assert unread.get_write_buffer_size() > 0
    while unread.get_write_buffer_size():
        await asyncio.sleep(0)
    deaf.close()


async def no_call(*_: object) -> None:
    """The relay does not call: the test plays both ends."""


# --- the peer that is met is not led about either ---------------------------------------------------------------------


async def test_only_a_relay_that_holds_a_place_may_call(house: House) -> None:
    """And it can only make us dial itself, at the address we knew."""
    async with wire(Identity(b"f" * 32)) as false:
        met = await house.worker.connect(false.address, Identity(b"f" * 32).peer, timeout=3)
        back = false.session(met.scope)
        assert back is not None
        with pytest.raises(Forbidden):
            await back.call(methods.RELAY_INCOMING.name, codec.encode(Incoming(a_token())), timeout=3)
        await back.call(methods.RELAY_LEAVING.name, codec.encode(Leaving(1)), timeout=3)
    assert house.places.relays == (house.at,)


def a_token() -> Nonce:
    return Nonce(entropy(16))


async def test_a_relay_that_calls_without_end_is_told_to_stop(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RELAY_INCOMING_MAX", 1)
    monkeypatch.setattr(house.worker, "accept_over", never)
    back = house.relay_wire.session_with(WORKER.peer)
    assert back is not None
    await back.call(methods.RELAY_INCOMING.name, codec.encode(Incoming(a_token())), timeout=3)
    with pytest.raises(Overloaded):
        await back.call(methods.RELAY_INCOMING.name, codec.encode(Incoming(a_token())), timeout=3)


async def test_a_relay_that_calls_too_often_is_told_to_stop(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    back = house.relay_wire.session_with(WORKER.peer)
    assert back is not None
    house.places._held[RELAY.peer].budget = Bucket.full(capacity=2, rate=0.001, now=CLOCK.now())
    for _ in range(2):
        await back.call(methods.RELAY_INCOMING.name, codec.encode(Incoming(a_token())), timeout=3)
    with pytest.raises(Overloaded) as caught:
        await back.call(methods.RELAY_INCOMING.name, codec.encode(Incoming(a_token())), timeout=3)
    assert caught.value.retry_after > 500


async def never(sock: socket.socket) -> Session:
    with sock:
        await asyncio.Event().wait()
        raise AssertionError


# --- leaving ----------------------------------------------------------------------------------------------------------


async def test_a_relay_that_leaves_says_so_and_gives_its_circuits_time(house: House) -> None:
    session = await house.meet()
    leaving = asyncio.create_task(house.relay.__aexit__(None, None, None))
    while house.places.relays:
        await asyncio.sleep(0)
    assert house.changes[-1] == ()
    with pytest.raises(Overloaded, match="leaving"):
        await house.meet()
    assert await session.call("echo", b"meanwhile", timeout=5) == b"meanwhile"
    one, other = pair()
    answering = asyncio.create_task(house.worker.accept_over(other))
    await session.move(one)
    await answering
    await leaving
    assert await session.call("echo", b"afterwards", timeout=5) == b"afterwards"


async def test_a_circuit_that_stays_is_cut_when_the_time_is_over(stack: AsyncExitStack) -> None:
    house = await House(stack).open(leave_seconds=0.05)
    session = await house.meet()
    await house.relay.__aexit__(None, None, None)
    assert house.relay.statistics().circuits == 0
    with pytest.raises((ConnectionLost, Timeout)):
        await session.call("echo", b"too late", timeout=5)


async def test_nothing_is_left_behind() -> None:
    before = asyncio.all_tasks()
    async with AsyncExitStack() as stack:
        house = await House(stack).open()
        await house.meet()
    assert asyncio.all_tasks() == before


# --- bytes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "golden"),
    [
        (Reserve(), "90"),
        (Reserved(b"v"), "91c40176"),
        (Connect(WORKER.peer), "91c420" + WORKER.peer.hex()),
        (Incoming(Nonce(b"t" * 16)), "91c410" + "74" * 16),
        (Connected(Nonce(b"t" * 16)), "91c410" + "74" * 16),
        (Leaving(10), "910a"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_messages_have_their_golden_bytes(message: codec.Message, golden: str) -> None:
    assert codec.encode(message).hex() == golden
    assert codec.decode(type(message), bytes.fromhex(golden)) == message


def test_what_a_circuit_begins_with_has_its_golden_bytes() -> None:
    assert preamble(NET, pattern=CIRCUIT) == b"HAIF\x01\x01\x03\x00nnnn"
    assert PREAMBLE.size + 16 == 28


NOISE: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "a number": lambda: b"\x01",
    "too long": lambda: bytes(limits.RELAY_ARGUMENT_BYTES_MAX + 1),
    "a field too many": lambda: b"\x92\xc4\x20" + bytes(32) + b"\x01",
    "a short id": lambda: b"\x91\xc4\x1f" + bytes(31),
}


@pytest.mark.parametrize("method", [methods.RELAY_RESERVE, methods.RELAY_CONNECT], ids=lambda method: method.name)
@pytest.mark.parametrize("what", NOISE)
async def test_a_malformed_request_is_refused(house: House, method: methods.Method, what: str) -> None:
    session = await house.gateway.connect(house.at.address, RELAY.peer, timeout=3)
    with pytest.raises(HaifError) as caught:
        await session.call(method.name, NOISE[what](), timeout=3)
    assert caught.value.reason in {Reason.MALFORMED, Reason.OVERSIZE}
    assert house.relay.statistics().circuits == 0
