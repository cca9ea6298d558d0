"""Sessions over sockets of the caller's making, and sessions that move, over real sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from haif.base import limits
from haif.base.clock import Instant
from haif.base.errors import (
    BadSignature,
    ConnectionLost,
    HaifError,
    Overloaded,
    PeerFault,
    Reason,
    Timeout,
)  # fmt: skip
from haif.base.traffic import Terms, Traffic
from haif.wire.opening import PREAMBLE, First
from haif.wire.path import ARRIVAL
from haif.wire.puzzle import Puzzle
from haif.wire.service import Call, Session, Wire
from haif.wire.service.path import Path
from tests.unit.wire.test_service import CLIENT, SERVER, Drops, Held, count, echo, wire


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
        client.serve_stream("count", count)
        yield client


@pytest.fixture
async def session(server: Wire, client: Wire) -> Session:
    return await client.connect(server.address, SERVER.peer, timeout=3)


async def dialled(wire: Wire) -> socket.socket:
    """A socket that is connected to where a wire listens."""
    sock = socket.socket()
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, wire.address)
    return sock


def joined() -> tuple[socket.socket, socket.socket]:
    """Two TCP sockets that are connected to each other, as after a simultaneous open."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        other, _ = listener.accept()
    return one, other


# --- over a socket that is there already ------------------------------------------------------------------------------


async def test_an_old_session_over_a_socket_gives_its_place_to_the_next_one(server: Wire, client: Wire) -> None:
    held = Held()
    server.serve("held", held)
    old = await client.connect_over(await dialled(server), SERVER.peer, timeout=3)
    call = asyncio.create_task(old.call("held", b"", timeout=60))
    await held.begun.wait()
    client._host.aged(client._live._scoped[old.scope])
    assert client.pooled(SERVER.peer) is None
    new = await client.connect_over(await dialled(server), SERVER.peer, timeout=3)
    assert client.pooled(SERVER.peer) is new
    held.go_on.set()
    assert await call == b"done"


async def test_a_session_is_made_over_two_ends_of_a_socket(server: Wire, client: Wire) -> None:
    one, other = joined()
    answering = asyncio.create_task(server.accept_over(other))
    there = await client.connect_over(one, SERVER.peer, timeout=3)
    back = await answering
    assert (there.peer, back.peer, there.scope) == (SERVER.peer, CLIENT.peer, back.scope)
    assert await there.call("echo", b"hello", timeout=5) == b"hello"
    assert await client.connect(("127.0.0.1", 1), SERVER.peer, timeout=3) is there
    assert server.session(there.scope) is back
    assert server.session(CLIENT.peer) is None


async def test_a_session_over_a_socket_of_ours_is_shorter_with_a_certificate(server: Wire, client: Wire) -> None:
    evidence = server._machines.certificate(server.clock.wall())
    sock = await dialled(server)
    session = await client.connect_over(sock, SERVER.peer, timeout=3, certificate=evidence)
    assert await session.call("echo", b"IK", timeout=5) == b"IK"
    assert len(server._machines.times) == 1


async def test_one_socket_carries_one_handshake_and_the_next_one_is_a_strangers(server: Wire, client: Wire) -> None:
    await client.connect_over(await dialled(server), SERVER.peer, timeout=3)
    server._machines.statics._kept = ()
    with pytest.raises(PeerFault):
        await client.connect_over(await dialled(server), SERVER.peer, timeout=3)
    session = await client.connect_over(await dialled(server), SERVER.peer, timeout=3)
    assert await session.call("echo", b"rotated", timeout=5) == b"rotated"


async def test_whoever_answers_on_the_socket_must_be_whom_we_dialled(server: Wire, client: Wire) -> None:
    with pytest.raises(BadSignature):
        await client.connect_over(await dialled(server), CLIENT.peer, timeout=3)
    with pytest.raises(BadSignature):
        await client.connect_over(
            await dialled(server), SERVER.peer, timeout=3, certificate=client._machines.certificate(client.clock.wall())
        )


async def test_a_socket_on_which_nobody_answers_is_a_timeout(client: Wire) -> None:
    one, other = joined()
    with other, pytest.raises(Timeout):
        await client.connect_over(one, SERVER.peer, timeout=0.05)
    while client.statistics().half_open:
        await asyncio.sleep(0)
    one, other = joined()
    with one:
        other.close()
        with pytest.raises(ConnectionLost):
            await client.connect_over(one, SERVER.peer, timeout=3)


async def test_work_that_one_socket_cannot_carry_is_overloaded(
    server: Wire, client: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server._machines.gate, "_within", lambda *_: False)
    with pytest.raises(Overloaded, match="bits of work"):
        await client.connect_over(await dialled(server), SERVER.peer, timeout=3)


async def test_those_who_come_through_one_relay_do_not_share_a_budget_of_one_address(
    server: Wire, client: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources: list[str] = []
    judge = server._machines.gate.judge

    def listen(first: First, source: str, now: Instant) -> Puzzle | None:
        sources.append(source)
        return judge(first, source, now)

    monkeypatch.setattr(server._machines.gate, "judge", listen)
    monkeypatch.setattr(Path, "remote", property(lambda _: ("192.0.2.1", 1)))
    one, other = joined()
    answering = asyncio.create_task(server.accept_over(other))
    await client.connect_over(one, SERVER.peer, timeout=3)
    await answering
    await client.connect_over(await dialled(server), SERVER.peer, timeout=3)
    assert sources == ["127.0.0.1", "192.0.2.1"]


async def test_a_node_that_stops_takes_no_sockets(server: Wire) -> None:
    one, other = joined()
    await server.drain(0)
    for refused in (server.connect_over(one, CLIENT.peer, timeout=3), server.accept_over(other)):
        with pytest.raises(ConnectionLost):
            await refused
    assert (one.fileno(), other.fileno()) == (-1, -1)


async def test_giving_up_on_a_socket_closes_it(server: Wire, client: Wire) -> None:
    one, other = joined()
    answering = asyncio.create_task(server.accept_over(other))
    dialling = asyncio.create_task(client.connect_over(one, SERVER.peer, timeout=3))
    await asyncio.sleep(0)
    for task in (answering, dialling):
        task.cancel()
    await asyncio.wait([answering, dialling])
    while server.statistics().half_open or client.statistics().half_open:
        await asyncio.sleep(0)


# --- moving -----------------------------------------------------------------------------------------------------------


async def test_numbered_messages_in_both_directions_survive_fifty_moves(server: Wire, client: Wire) -> None:
    """By turns dialled to the listener, and over two ends of one socket; by turns asked for by either side."""
    session = await client.connect(server.address, SERVER.peer, timeout=3)
    back = server.session(session.scope)
    assert back is not None
    server.serve_stream("blob", blob, Terms(Traffic.BULK))

    async def follow(on: Session, method: str, numbers: list[int]) -> None:
        async with on.stream(method, b"%d" % 10**9, timeout=300) as messages:
            async for message in messages:
                numbers.append(int(message[:20]))
                if len(numbers) % 10 == 0:
                    await asyncio.sleep(0)

    down, up, bulk = [list[int]() for _ in range(3)]
    followers = [
        asyncio.create_task(follow(session, "count", down)),
        asyncio.create_task(follow(back, "count", up)),
        asyncio.create_task(follow(session, "blob", bulk)),
    ]
    for move in range(50):
        reached = [len(numbers) for numbers in (down, up, bulk)]
        if move % 3 == 0:
            await session.move(await dialled(server))
        else:
            one, other = joined()
            mover, asked = (session, server) if move % 3 == 1 else (back, client)
            answering = asyncio.create_task(asked.accept_over(other))
            await mover.move(one)
            assert (await answering).scope == session.scope
        assert await session.call("echo", b"%d" % move, timeout=5) == b"%d" % move
        while any(len(numbers) == before for numbers, before in zip((down, up, bulk), reached, strict=True)):
            await asyncio.sleep(0)
    for follower in followers:
        follower.cancel()
    await asyncio.wait(followers)
    assert all(follower.cancelled() for follower in followers)
    for numbers in (down, up, bulk):
        assert numbers == list(range(len(numbers)))
    assert (client.statistics().sessions, server.statistics().sessions) == (1, 1)
    assert client.statistics().moved == server.statistics().moved == 50
    assert client.statistics().half_open == server.statistics().half_open == 0
    assert [len(connection._moving.paths) for side in (client, server) for connection in side._live.open] == [1, 1]


async def blob(call: Call) -> AsyncIterator[bytes]:
    for number in range(int(call.argument)):
        yield (b"%20d" % number) * 2000


async def test_the_old_socket_is_closed_and_nothing_is_left_behind(
    server: Wire, client: Wire, session: Session
) -> None:
    [connection] = client._live.open
    old = connection.path
    before = session.remote
    new = await dialled(server)
    local = new.getsockname()
    await session.move(new)
    assert old._transport.is_closing()
    assert session.remote == before
    [there] = server._live.open
    await session.call("echo", b"", timeout=5)
    assert there.session.remote == local
    old._transport.abort()
    assert await session.call("echo", b"on", timeout=5) == b"on"


async def test_an_old_socket_that_the_peer_never_reads_is_let_go(
    server: Wire, client: Wire, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    [here], [there] = client._live.open, server._live.open
    old = there.path._transport
    old.set_write_buffer_limits(high=1 << 30)  # so that the last word is written although nothing is read
    deaf = here.path._transport
    deaf.pause_reading()
    calls = [asyncio.create_task(session.call("echo", bytes(1 << 20), timeout=60)) for _ in range(12)]
    while there.path.waiting < 1 << 20:
        await asyncio.sleep(0)
    move = asyncio.create_task(session.move(await dialled(server)))
    while there.machine.paths.new is None:
        await asyncio.sleep(0)
    monkeypatch.setattr(limits, "PATH_FINISH_SECONDS", 0.05)
    while not server._tally.moved:
        await asyncio.sleep(0)
    assert old.get_write_buffer_size() > 0
    while old.get_write_buffer_size():
        await asyncio.sleep(0)
    deaf.resume_reading()
    await asyncio.wait([move, *calls])
    assert not session.usable


async def test_a_path_that_leads_to_somebody_else_leaves_the_session_where_it_is(
    server: Wire, client: Wire, session: Session
) -> None:
    held = Held()
    server.serve_stream("held", held.stream)
    async with session.stream("held", b"", timeout=60) as messages:
        assert await anext(messages) == b"first"
        async with wire(SERVER) as twin:  # of the same name, even
            with pytest.raises(ConnectionLost):
                await session.move(await dialled(twin))
            assert twin.statistics().dropped == {Reason.BAD_SIGNATURE: 1}
        held.go_on.set()
        assert await anext(messages) == b"last"


async def test_a_path_that_is_dead_leaves_the_session_where_it_is(session: Session) -> None:
    one, other = joined()
    with one:
        other.close()
        with pytest.raises(ConnectionLost):
            await session.move(one)
    assert await session.call("echo", b"still", timeout=5) == b"still"
    unconnected = socket.socket()
    with pytest.raises(HaifError):
        await session.move(unconnected)
    assert unconnected.fileno() == -1
    assert await session.call("echo", b"still", timeout=5) == b"still"


async def test_a_move_that_nobody_waits_for_any_more_is_given_up(session: Session, client: Wire) -> None:
    one, other = joined()
    with other:
        move = asyncio.create_task(session.move(one))
        opening = await asyncio.get_running_loop().run_in_executor(None, other.recv, 200)
        assert len(opening) == PREAMBLE.size + ARRIVAL.size
        again, dropped = joined()
        with dropped, pytest.raises(Overloaded):
            await session.move(again)
        move.cancel()
        await asyncio.wait([move])
        assert await asyncio.get_running_loop().run_in_executor(None, other.recv, 1) == b""
    [connection] = client._live.open
    assert connection.machine.paths.new is None
    assert await session.call("echo", b"still", timeout=5) == b"still"


async def test_a_move_that_is_given_up_at_once_leaves_nothing_behind(session: Session, client: Wire) -> None:
    [connection] = client._live.open
    for turns in range(1, 5):
        one, other = joined()
        with other:
            move = asyncio.create_task(session.move(one))
            for _ in range(turns):
                await asyncio.sleep(0)
            move.cancel()
            await asyncio.wait([move])
            while await asyncio.get_running_loop().run_in_executor(None, other.recv, 200):
                pass
        assert (connection.machine.paths.new, connection._moving.moves, len(connection._moving.paths)) == (None, {}, 1)
    assert await session.call("echo", b"still", timeout=5) == b"still"


async def test_a_session_that_ends_in_the_middle_of_a_move_says_so(session: Session, client: Wire) -> None:
    one, other = joined()
    with other:
        move = asyncio.create_task(session.move(one))
        await asyncio.get_running_loop().run_in_executor(None, other.recv, 200)
        [connection] = client._live.open
        connection.close(ConnectionLost("enough"))
        with pytest.raises(ConnectionLost, match="enough"):
            await move
        assert await asyncio.get_running_loop().run_in_executor(None, other.recv, 1) == b""


async def test_a_listener_tells_nobody_which_sessions_it_has(server: Wire, drops: Drops) -> None:
    """A path of no session and one with a wrong proof are closed alike, without a word."""
    loop = asyncio.get_running_loop()
    async with wire(CLIENT, port=None) as client:
        session = await client.connect(server.address, SERVER.peer, timeout=3)
        [connection] = client._live.open
        _, opening = connection.machine.move(client.clock.now())
        for forged in (opening[:12] + bytes(ARRIVAL.size), opening[:-16] + bytes(16)):
            sock = await dialled(server)
            with sock:
                await loop.sock_sendall(sock, forged)
                assert await loop.sock_recv(sock, 1) == b""
        assert await session.call("echo", b"", timeout=5) == b""
    assert [event.reason for event in drops] == [Reason.BAD_SIGNATURE, Reason.BAD_SIGNATURE]


async def test_a_new_path_is_not_read_before_the_old_one_was_left(server: Wire, session: Session, client: Wire) -> None:
    """What comes early waits in the system's buffers, however much the peer sends."""
    [connection] = client._live.open
    _, opening = connection.machine.move(client.clock.now())
    sock = await dialled(server)
    loop = asyncio.get_running_loop()
    with sock:
        await loop.sock_sendall(sock, opening)
        assert len(await loop.sock_recv(sock, 16)) == 16
        [there] = server._live.open
        flood = loop.create_task(loop.sock_sendall(sock, bytes(64 << 20)))
        for _ in range(50):
            await session.call("echo", b"", timeout=5)
        assert len(there.machine.paths.new.held) <= limits.PATH_HELD_BYTES_MAX
        assert not flood.done()
        flood.cancel()
    assert await session.call("echo", b"still", timeout=5) == b"still"


def test_it_moves_on_uvloop_too() -> None:
    uvloop = pytest.importorskip("uvloop")

    async def main() -> bytes:
        async with wire(SERVER) as server, wire(CLIENT, port=None) as client:
            server.serve("echo", echo)
            session = await client.connect(server.address, SERVER.peer, timeout=3)
            for _ in range(3):
                await session.move(await dialled(server))
            return await session.call("echo", b"hello", timeout=5)

    assert uvloop.run(main()) == b"hello"
