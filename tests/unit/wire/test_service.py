"""The wire over real sockets."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable, Generator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from haif.base import limits
from haif.base.clock import WallTime
from haif.base.errors import (
    BadSignature,
    ConnectionLost,
    Dropped,
    Forbidden,
    HaifError,
    Misuse,
    Overloaded,
    Oversize,
    Reason,
    Timeout,
    Unsupported,
    WrongState,
)  # fmt: skip
from haif.base.ids import NetId, NoisePublicKey, PeerId
from haif.base.traffic import Terms, Traffic
from haif.identity.keys import Identity, NoiseKey
from haif.runtime.clock import SystemClock, entropy
from haif.wire.opening import read_control
from haif.wire.service import Call, Session, Taking, Wire

NET = NetId(b"n" * 32)
SERVER = Identity(b"s" * 32)
CLIENT = Identity(b"c" * 32)


class Drops(list[Dropped]):
    """What was dropped, and a way to wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self.came = asyncio.Event()

    def __call__(self, event: Dropped) -> None:
        self.append(event)
        self.came.set()


def wire(
    identity: Identity, *, port: int | None = 0, net: NetId = NET, drops: Drops | None = None, beside: str = ""
) -> Wire:
    return Wire(
        identity=identity, noise_key=NoiseKey(entropy(32)), net=net, clock=SystemClock(), entropy=entropy,
        on_dropped=drops if drops is not None else Drops(), port=port, beside=beside,
    )  # fmt: skip


@pytest.fixture
async def drops() -> Drops:
    return Drops()


@pytest.fixture
async def server(drops: Drops) -> AsyncIterator[Wire]:
    async with wire(SERVER, drops=drops) as server:
        server.serve("echo", echo)
        server.serve_stream("count", count)
        yield server


@pytest.fixture
async def client() -> AsyncIterator[Wire]:
    async with wire(CLIENT, port=None) as client:
        yield client


async def test_a_wire_of_both_families_is_reached_at_one_port_by_either(client: Wire) -> None:
    async with wire(SERVER, beside="::1") as both:
        both.serve("echo", echo)
        (four, six) = both.addresses
        assert (("127.0.0.1", "::1"), four[1]) == ((four[0], six[0]), six[1])
        for address in (four, six):
            session = await client.connect(address, SERVER.peer, timeout=3, anew=True)
            assert b"hello" == await session.call("echo", b"hello", timeout=3)
        with pytest.raises(OSError, match="in use"):
            async with wire(CLIENT, port=six[1], beside="::1"):
                pass


@pytest.fixture
async def session(server: Wire, client: Wire) -> Session:
    return await client.connect(server.address, SERVER.peer, timeout=3)


async def echo(call: Call) -> bytes:
    return call.argument


async def count(call: Call) -> AsyncIterator[bytes]:
    for number in range(int(call.argument)):
        yield b"%d" % number


class Held:
    """A handler that tells when it has begun and was stopped, and otherwise never ends."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.stopped = asyncio.Event()
        self.go_on = asyncio.Event()

    async def __call__(self, _call: Call) -> bytes:
        self.begun.set()
        try:
            await self.go_on.wait()
        finally:
            self.stopped.set()
        return b"done"

    async def stream(self, _call: Call) -> AsyncIterator[bytes]:
        try:
            yield b"first"
            self.begun.set()
            await self.go_on.wait()
            yield b"last"
        finally:
            self.stopped.set()


async def test_a_call_is_answered(session: Session) -> None:
    assert await session.call("echo", b"hello", timeout=5) == b"hello"


async def test_a_megabyte_goes_there_and_back(session: Session) -> None:
    argument = bytes(range(256)) * 4096
    assert await session.call("echo", argument, timeout=10) == argument


async def test_a_handler_learns_who_calls_on_which_channel_with_what_metadata(server: Wire, session: Session) -> None:
    calls: list[Call] = []

    async def look(call: Call) -> bytes:
        calls.append(call)
        return b""

    server.serve("look", look)
    metadata = {"traceparent": "00-1-2-01", "correlation": "job.1"}
    await session.call("look", b"x", timeout=5, metadata=metadata)
    [call] = calls
    assert (call.method, call.argument, call.peer, call.scope) == ("look", b"x", CLIENT.peer, session.scope)
    assert call.metadata == metadata
    assert 0 < call.deadline.remaining(SystemClock().now()) <= 5.001


async def test_many_calls_at_once_are_each_answered_with_their_own_answer(session: Session) -> None:
    answers = await asyncio.gather(*(session.call("echo", b"%d" % n, timeout=10) for n in range(200)))
    assert answers == [b"%d" % n for n in range(200)]


async def test_a_stream_delivers_everything_in_order(session: Session) -> None:
    async with session.stream("count", b"20000", timeout=20) as messages:
        assert [int(message) async for message in messages] == list(range(20_000))


async def test_a_stream_is_poured_in_order_whether_what_takes_it_is_quick_or_takes_its_time(session: Session) -> None:
    taken: list[int] = []

    async def slowly(number: int) -> None:
        await asyncio.sleep(0)
        taken.append(number)

    def take(message: bytes) -> Taking | None:
        number = int(message)
        if number % 3 == 0:
            return slowly(number)
        taken.append(number)
        return None

    async with session.stream("count", b"5000", timeout=20) as messages:
        await messages.pour(take)
    assert taken == [*range(5000)]


async def test_what_a_stream_is_poured_into_raises_where_it_is_poured(server: Wire, session: Session) -> None:
    held = Held()
    server.serve_stream("held", held.stream)

    def refuse(message: bytes) -> None:
        raise Misuse(message.decode())

    with pytest.raises(Misuse, match="first"):
        async with session.stream("held", b"", timeout=60) as messages:
            await messages.pour(refuse)
    await held.stopped.wait()


async def test_pouring_ends_as_the_stream_does_or_with_whoever_pours(server: Wire, session: Session) -> None:
    held, closed = Held(), asyncio.Event()
    server.serve_stream("held", held.stream)

    class Never:
        def __await__(self) -> Generator[Any, None, None]:
            return asyncio.Event().wait().__await__()

        def close(self) -> None:
            closed.set()

    async def pour(take: Callable[[bytes], Taking | None]) -> None:
        async with session.stream("held", b"", timeout=60) as messages:
            await messages.pour(take)

    def end_it(_: bytes) -> Taking:
        pouring.cancel()
        return Never()

    pouring = asyncio.create_task(pour(end_it))
    with pytest.raises(asyncio.CancelledError):
        await pouring
    await held.stopped.wait()
    assert closed.is_set()
    with pytest.raises(Timeout):
        async with session.stream("held", b"", timeout=0.05) as messages:
            await messages.pour(lambda _: None)


async def test_a_slow_reader_slows_the_sender_down(server: Wire, session: Session) -> None:
    sent = 0
    full = asyncio.Event()

    async def firehose(_call: Call) -> AsyncIterator[bytes]:
        nonlocal sent
        for sent in range(10_000):  # noqa: B007
            yield bytes(1000)
            full.set()

    server.serve_stream("firehose", firehose)
    async with session.stream("firehose", b"", timeout=20) as messages:
        await full.wait()
        for _ in range(20):
            await session.call("echo", b"", timeout=5)  # so that everything that could come has come
        assert sent <= limits.STREAM_CREDIT_BYTES // 1000 + 2
        received = 0
        async for message in messages:
            assert len(message) == 1000
            received += 1
    assert received == 10_000


@pytest.mark.parametrize("error", [Forbidden("not you"), Overloaded("full", retry_after=2.0), Timeout("late")])
async def test_an_error_of_the_handler_is_raised_at_the_caller(
    server: Wire, session: Session, error: HaifError
) -> None:
    async def fail(_call: Call) -> bytes:
        raise error

    async def fail_later(_call: Call) -> AsyncIterator[bytes]:
        yield b"one"
        raise error

    server.serve("fail", fail)
    server.serve_stream("fail_later", fail_later)
    with pytest.raises(type(error), match=str(error)) as caught:
        await session.call("fail", b"", timeout=5)
    assert getattr(caught.value, "retry_after", None) == getattr(error, "retry_after", None)
    async with session.stream("fail_later", b"", timeout=5) as messages:
        assert await anext(messages) == b"one"
        with pytest.raises(type(error)):
            await anext(messages)


async def test_a_bug_in_a_handler_is_reported_here_and_told_without_details(
    server: Wire, session: Session, drops: Drops, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(_call: Call) -> bytes:
        raise ZeroDivisionError("secret detail")

    server.serve("broken", broken)
    with caplog.at_level(logging.CRITICAL, "haif.wire"), pytest.raises(Misuse) as caught:
        await session.call("broken", b"", timeout=5)
    assert "secret" not in str(caught.value)
    assert [(event.reason, event.peer) for event in drops] == [(Reason.MISUSE, CLIENT.peer)]
    assert await session.call("echo", b"still here", timeout=5) == b"still here"


async def test_a_method_that_is_not_served_is_unsupported(session: Session) -> None:
    with pytest.raises(Unsupported, match="count"):
        await session.call("count", b"", timeout=5)
    with pytest.raises(Unsupported, match="echo"):
        async with session.stream("echo", b"", timeout=5) as messages:
            await anext(messages)


async def test_a_method_is_served_once(server: Wire) -> None:
    with pytest.raises(Misuse):
        server.serve("count", echo)
    with pytest.raises(Misuse):
        server.serve_stream("echo", count)


async def test_a_method_is_served_on_its_terms(server: Wire, session: Session) -> None:
    async def remaining(call: Call) -> bytes:
        return b"%f" % call.deadline.remaining(server.clock.now())

    server.serve("short", remaining, Terms(Traffic.BULK, argument_bytes_max=4, seconds_max=2.0))
    assert float(await session.call("short", b"1234", timeout=60)) <= 2.0
    with pytest.raises(Oversize, match="short takes at most 4 bytes"):
        await session.call("short", b"12345", timeout=60)
    held = Held()
    server.serve("held", held, Terms(Traffic.CONTROL, seconds_max=0.05))
    with pytest.raises(Timeout):
        await session.call("held", b"", timeout=60)
    await held.stopped.wait()


async def test_bulk_goes_there_and_back_beside_tokens(server: Wire, session: Session) -> None:
    async def blob(call: Call) -> AsyncIterator[bytes]:
        for _ in range(20):
            yield call.argument

    server.serve_stream("blob", blob, Terms(Traffic.BULK))
    argument = bytes(range(256)) * 1024

    async def fetch() -> list[bytes]:
        async with session.stream("blob", argument, timeout=20, traffic=Traffic.BULK) as messages:
            return [message async for message in messages]

    async with asyncio.TaskGroup() as group:
        fetched = group.create_task(fetch())
        async with session.stream("count", b"5000", timeout=20) as messages:
            assert [int(message) async for message in messages] == list(range(5000))
    assert fetched.result() == [argument] * 20


async def test_cancelling_the_caller_cancels_the_handler(server: Wire, session: Session) -> None:
    held = Held()
    server.serve("held", held)
    call = asyncio.create_task(session.call("held", b"", timeout=60))
    await held.begun.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await held.stopped.wait()


async def test_leaving_a_stream_early_cancels_its_handler(server: Wire, session: Session) -> None:
    held = Held()
    server.serve_stream("held", held.stream)
    async with session.stream("held", b"", timeout=60) as messages:
        assert await anext(messages) == b"first"
    await held.stopped.wait()
    assert await session.call("echo", b"", timeout=5) == b""


async def test_a_late_handler_is_stopped_and_its_caller_told(server: Wire, session: Session) -> None:
    held = Held()
    server.serve("held", held)
    with pytest.raises(Timeout):
        await session.call("held", b"", timeout=0.05)
    await held.stopped.wait()


async def test_a_connection_that_breaks_ends_calls_and_streams_with_connection_lost(server: Wire, client: Wire) -> None:
    session = await client.connect(server.address, SERVER.peer, timeout=3)
    held, streamed = Held(), Held()
    server.serve("held", held)
    server.serve_stream("streamed", streamed.stream)
    call = asyncio.create_task(session.call("held", b"", timeout=60))
    await held.begun.wait()
    async with session.stream("streamed", b"", timeout=60) as messages:
        assert await anext(messages) == b"first"
        [connection] = server._live.open
        connection.abort()
        with pytest.raises(ConnectionLost):
            await anext(messages)
    with pytest.raises(ConnectionLost) as caught:
        await call
    assert caught.value.reason is Reason.CONNECTION_LOST
    await held.stopped.wait()
    await streamed.stopped.wait()
    with pytest.raises(ConnectionLost):
        await session.call("echo", b"", timeout=5)


async def test_one_session_per_peer_is_dialled_once_and_again_when_lost(server: Wire, client: Wire) -> None:
    first, second = await asyncio.gather(*(client.connect(server.address, SERVER.peer, timeout=3) for _ in range(2)))
    assert first is second
    assert client.statistics().handshakes_done == 1
    [connection] = client._live.open
    connection.abort()
    await connection.over
    again = await client.connect(server.address, SERVER.peer, timeout=3)
    assert again is not first
    assert again.scope != first.scope
    assert await again.call("echo", b"back", timeout=5) == b"back"


async def test_whoever_answers_must_be_whom_we_dialled(server: Wire, client: Wire) -> None:
    stranger = Identity(b"x" * 32).peer
    with pytest.raises(BadSignature, match=r"the peer says: .* does not answer to the key that was dialled"):
        await client.connect(server.address, stranger, timeout=3)
    assert client.statistics().handshakes_failed == 1
    assert client.statistics().dropped == {Reason.BAD_SIGNATURE: 1}


async def test_another_network_is_refused_and_counted(server: Wire, drops: Drops) -> None:
    async with wire(CLIENT, port=None, net=NetId(b"x" * 32)) as foreigner:
        with pytest.raises(WrongState, match="another network"):
            await foreigner.connect(server.address, SERVER.peer, timeout=3)
    await drops.came.wait()
    assert [event.reason for event in drops] == [Reason.WRONG_STATE]


async def test_nobody_listening_is_a_lost_connection_that_names_the_address(client: Wire) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = taken.getsockname()
        with pytest.raises(ConnectionLost, match=str(address[1])):
            await client.connect(address, SERVER.peer, timeout=3)


async def test_somebody_who_accepts_and_says_nothing_is_a_timeout(client: Wire) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(Timeout):
        await client.connect(silent.getsockname(), SERVER.peer, timeout=0.05)


async def again(client: Wire, server: Wire) -> Session:
    """A new session where there was one."""
    [connection] = client._live.open
    connection.abort()
    await connection.over
    return await client.connect(server.address, SERVER.peer, timeout=3)


async def test_a_peer_met_before_is_dialled_with_its_certificate(server: Wire, client: Wire, session: Session) -> None:
    assert client._host.dialer._key(SERVER.peer) == shown(server)
    second = await again(client, server)
    assert await second.call("echo", b"again", timeout=5) == b"again"
    assert len(server._machines.times) == 1


async def test_a_peer_whose_certificate_is_given_is_dialled_with_it_at_first_contact(
    server: Wire, client: Wire
) -> None:
    evidence = server._machines.certificate(server.clock.wall())
    session = await client.connect(server.address, SERVER.peer, timeout=3, certificate=evidence)
    assert await session.call("echo", b"first", timeout=5) == b"first"
    assert len(server._machines.times) == 1


async def test_a_certificate_of_somebody_else_is_refused_before_anybody_is_dialled(server: Wire, client: Wire) -> None:
    evidence = client._machines.certificate(client.clock.wall())
    with pytest.raises(BadSignature):
        await client.connect(server.address, SERVER.peer, timeout=3, certificate=evidence)
    assert client.statistics().handshakes_failed == 0


def shown(wire: Wire) -> NoisePublicKey:
    """The static key it shows now."""
    return wire._machines.statics.at(wire.clock.wall())[0].key.public


async def test_a_peer_whose_key_is_gone_is_dialled_again_as_a_stranger(
    server: Wire, client: Wire, session: Session
) -> None:
    server._machines.statics._kept = ()
    second = await again(client, server)
    assert await second.call("echo", b"rotated", timeout=5) == b"rotated"
    assert (client.statistics().handshakes_failed, client.statistics().handshakes_done) == (1, 2)
    assert client._host.dialer._key(SERVER.peer) == shown(server)


async def test_a_running_node_rotates_its_key_and_answers_to_the_old_one_while_that_may_be_known(
    server: Wire, client: Wire, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, first = server.clock.wall(), server.certificate
    monkeypatch.setattr(SystemClock, "wall", lambda _: WallTime(began + limits.CERTIFICATE_TTL_MS // 2 + 1))
    assert server.certificate != first
    assert client._host.dialer._key(SERVER.peer) != shown(server)
    second = await again(client, server)
    assert await second.call("echo", b"by the old key", timeout=5) == b"by the old key"
    assert len(server._machines.times) == 1
    third = await client.connect(server.address, SERVER.peer, timeout=3, certificate=server.certificate, anew=True)
    assert await third.call("echo", b"by the new key", timeout=5) == b"by the new key"
    assert (client.statistics().handshakes_failed, client.statistics().handshakes_done) == (0, 3)


async def test_an_old_session_is_replaced_before_it_is_retired(server: Wire, client: Wire, session: Session) -> None:
    held = Held()
    server.serve("held", held)
    call = asyncio.create_task(session.call("held", b"", timeout=60))
    await held.begun.wait()
    [old] = client._live.open
    client._host.aged(old)
    [renewal] = client._dials.under_way.values()
    assert session.usable
    new = await renewal
    assert new.scope != session.scope
    assert await client.connect(server.address, SERVER.peer, timeout=3) is new
    assert not session.usable
    held.go_on.set()
    assert await call == b"done"
    await old.over
    assert client.statistics().sessions == 1
    assert await new.call("echo", b"new", timeout=5) == b"new"


async def test_an_old_session_that_cannot_be_replaced_is_let_go_all_the_same(
    server: Wire, client: Wire, session: Session
) -> None:
    [old] = client._live.open
    server._servers[0].close()
    client._host.aged(old)
    [renewal] = client._dials.under_way.values()
    await asyncio.wait([renewal])
    await old.over
    assert SERVER.peer not in client._live.pool
    client._host.aged(old)


async def test_an_expired_certificate_is_not_used(server: Wire, client: Wire, session: Session) -> None:
    late = WallTime(client.clock.wall() + limits.CERTIFICATE_TTL_MS)
    client._host.dialer._clock = Mock(wall=lambda: late)
    assert client._host.dialer._key(SERVER.peer) is None
    assert SERVER.peer not in client._host.dialer._known


async def test_certificates_are_remembered_within_a_bound(client: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CERTIFICATES_REMEMBERED_MAX", 2)
    for number in range(5):
        client._host.dialer.met(PeerId(bytes([number]) * 32), b"")
    assert len(client._host.dialer._known) == 2


async def test_over_budget_a_dialler_solves_the_puzzle_and_comes_in(
    server: Wire, client: Wire, drops: Drops, monkeypatch: pytest.MonkeyPatch
) -> None:
    server._machines.gate._total, _ = server._machines.gate._total.take(limits.GATE_TOTAL_BURST, server.clock.now())
    monkeypatch.setattr(server._machines.gate, "_within", lambda *_: False)
    monkeypatch.setattr(server._machines.gate, "price", lambda _: 10)
    session = await client.connect(server.address, SERVER.peer, timeout=5)
    assert await session.call("echo", b"paid", timeout=5) == b"paid"
    assert [event.reason for event in drops] == [Reason.OVERLOADED]


async def test_a_listener_that_asks_for_work_for_ever_is_given_up(
    server: Wire, client: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    prices = iter(range(0, 100, 4))
    monkeypatch.setattr(limits, "PUZZLE_ROUNDS_MAX", 1)
    monkeypatch.setattr(server._machines.gate, "_within", lambda *_: False)
    monkeypatch.setattr(server._machines.gate, "price", lambda _: next(prices))
    with pytest.raises(Overloaded, match="again and again"):
        await client.connect(server.address, SERVER.peer, timeout=5)


async def test_whoever_makes_room_for_others_is_told_so_and_when_to_come_back(
    server: Wire, drops: Drops, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "HANDSHAKES_HALF_OPEN_MAX", 1)
    with socket.create_connection(server.address) as first, socket.create_connection(server.address):
        await drops.came.wait()
        said = read_control(first.recv(4096), 0)
    assert isinstance(said, Overloaded)
    assert said.retry_after == limits.HANDSHAKE_SECONDS
    assert [event.reason for event in drops] == [Reason.OVERLOADED]


@pytest.mark.parametrize("known", [False, True], ids=["XX", "IK"])
@pytest.mark.parametrize("limit", ["SESSIONS_MAX", "SESSIONS_PER_PEER_MAX"])
async def test_whoever_dials_beyond_the_limit_is_told_so_and_when_to_come_back(
    limit: str, known: bool, server: Wire, session: Session, drops: Drops, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, limit, 1)
    async with wire(CLIENT, port=None) as other:
        with pytest.raises(Overloaded, match="the peer says") as caught:
            await other.connect(
                server.address, SERVER.peer, timeout=3, certificate=server.certificate if known else b""
            )
        assert caught.value.retry_after == limits.SESSION_SILENCE_SECONDS
        assert (other.statistics().handshakes_done, other.statistics().handshakes_failed) == (0, 1)
    assert [event.reason for event in drops] == [Reason.OVERLOADED]
    assert await session.call("echo", b"first come", timeout=5) == b"first come"


async def test_small_writes_are_not_held_back_on_either_side(server: Wire, client: Wire, session: Session) -> None:
    for side in (server, client):
        [connection] = side._live.open
        endpoint = connection.path._transport.get_extra_info("socket")
        assert endpoint.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_draining_lets_running_calls_finish_and_takes_no_new_ones(server: Wire, session: Session) -> None:
    held = Held()
    server.serve("held", held)
    call = asyncio.create_task(session.call("held", b"", timeout=60))
    await held.begun.wait()
    drain = asyncio.create_task(server.drain(60))
    with pytest.raises(ConnectionLost):
        await session.call("echo", b"", timeout=5)
    assert not session.usable
    held.go_on.set()
    assert await call == b"done"
    await drain


async def test_leaving_the_block_tells_everybody_and_leaves_nothing_behind() -> None:
    held = Held()
    before = asyncio.all_tasks()
    async with wire(CLIENT, port=None) as client:
        async with wire(SERVER) as server:
            server.serve("held", held)
            session = await client.connect(server.address, SERVER.peer, timeout=3)
            call = asyncio.create_task(session.call("held", b"", timeout=60))
            await held.begun.wait()
            await server.drain(0)
            await server._close()
        with pytest.raises(ConnectionLost):
            await call
        assert held.stopped.is_set()
        assert server.statistics().sessions == 0
    assert asyncio.all_tasks() == before


def descriptors() -> int:
    return len([*Path("/proc/self/fd").iterdir()])


@pytest.mark.parametrize("turns", range(0, 24, 3))
async def test_a_wire_that_is_left_in_the_middle_of_dialling_leaves_nothing_behind(server: Wire, turns: int) -> None:
    before, opened = asyncio.all_tasks(), descriptors()
    async with wire(CLIENT, port=None) as client:
        dial = asyncio.create_task(client.connect(server.address, SERVER.peer, timeout=3))
        for _ in range(turns):
            await asyncio.sleep(0)
    await asyncio.wait([dial])
    assert dial.exception() is None or isinstance(dial.exception(), HaifError)
    assert client.statistics().sessions == client.statistics().half_open == 0
    while server.statistics().sessions or server.statistics().half_open or descriptors() > opened:
        await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("turns", range(0, 24, 3))
async def test_whoever_gives_up_dialling_leaves_a_session_or_nothing(server: Wire, client: Wire, turns: int) -> None:
    """The dial goes on for others who may wait; it ends by itself."""
    dial = asyncio.create_task(client.connect(server.address, SERVER.peer, timeout=3))
    for _ in range(turns):
        await asyncio.sleep(0)
    dial.cancel()
    await asyncio.wait([dial])
    session = await client.connect(server.address, SERVER.peer, timeout=3)
    assert await session.call("echo", b"there", timeout=3) == b"there"
    assert (client.statistics().sessions, client.statistics().half_open) == (1, 0)


async def test_a_wire_that_only_dials_has_no_address(client: Wire) -> None:
    with pytest.raises(Misuse):
        _ = client.address


async def test_statistics_count_what_happened(server: Wire, client: Wire, session: Session) -> None:
    await session.call("echo", bytes(1000), timeout=5)
    there, here = server.statistics(), client.statistics()
    assert (there.sessions, there.half_open, there.handshakes_done, there.handshakes_failed) == (1, 0, 1, 0)
    assert here.bytes_out == there.bytes_in > 1000
    assert there.bytes_out == here.bytes_in > 1000
    assert (here.calls_made, there.calls_served) == (0, 0)


async def test_both_sides_of_a_session_may_call() -> None:
    """A session that was dialled serves calls from the side that was dialled, too."""
    async with wire(SERVER) as one, wire(CLIENT) as other:
        one.serve("echo", echo)
        other.serve("echo", echo)
        there = await one.connect(other.address, CLIENT.peer, timeout=3)
        back = await other.connect(one.address, SERVER.peer, timeout=3)
        assert await asyncio.gather(there.call("echo", b"1", timeout=5), back.call("echo", b"2", timeout=5)) == [
            b"1",
            b"2",
        ]


def test_it_runs_on_uvloop_too() -> None:
    uvloop = pytest.importorskip("uvloop")

    async def main() -> bytes:
        async with wire(SERVER) as server, wire(CLIENT, port=None) as client:
            server.serve("echo", echo)
            session = await client.connect(server.address, SERVER.peer, timeout=3)
            return await session.call("echo", b"hello", timeout=5)

    assert uvloop.run(main()) == b"hello"


async def test_a_socket_that_takes_no_more_holds_the_sender_and_loses_nothing(server: Wire, session: Session) -> None:
    async with session.stream("count", b"50000", timeout=20) as messages:
        assert await anext(messages) == b"0"
        [connection] = server._live.open
        connection.path.pause_writing()
        for _ in range(5):
            connection.schedule()
            await asyncio.sleep(0)
        assert connection.machine.rpc.out.size <= limits.OUTGOING_BYTES_HIGH + limits.STREAM_CREDIT_BYTES
        connection.path.resume_writing()
        assert [int(message) async for message in messages] == list(range(1, 50_000))


async def test_a_peer_that_takes_nothing_cannot_keep_a_node_from_stopping() -> None:
    async with wire(CLIENT, port=None) as client:
        async with wire(SERVER) as server:
            await client.connect(server.address, SERVER.peer, timeout=3)
            [deaf], [ours] = client._live.open, server._live.open
            deaf.path._transport.pause_reading()
            ours.path._transport.write(bytes(32 << 20))
            assert ours.path._transport.get_write_buffer_size() > 0
        assert ours.over.done() or ours.path._transport.is_closing()
        assert server.statistics().sessions == 0
