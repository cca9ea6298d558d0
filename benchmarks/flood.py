"""What honest peers feel of a flood of bogus first messages: `python -m benchmarks.flood`.

Latency is the CPU time of the one thread that runs both ends, from call to answer, so that other programs on the
machine do not show in it. In the simulation bogus messages come between the turns of the event loop, as many for each
call as 50,000 a second would be; calls with and without them alternate. On sockets another process sends them: there
nearly all of what is felt is the kernel's and asyncio's accepting, sending and closing, 150 µs of CPU a connection, of
which the session takes 12 and the gate 2. What a host must bear beyond that is for its firewall to thin out.

Last, connections that say nothing and stay, from another /24: how many honest strangers get a session meanwhile.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from statistics import quantiles

from benchmarks.wire import CLOCK, NET, credentials, echo, wire
from haif.base.errors import BadSignature, HaifError
from haif.base.ids import PeerId
from haif.identity.keys import Identity
from haif.identity.replay import HandshakeTimes
from haif.runtime.clock import entropy
from haif.wire.gate import Gate
from haif.wire.handshake import Door, Handshake
from haif.wire.noise import Pattern
from haif.wire.opening import First, mac_key, preamble, write_first
from haif.wire.service import Session
from haif.wire.session import SessionMachine

CALLS = 3000
PER_SECOND = 50_000
REAL = (200, 1000, 3000)  # bogus connections a second that are tried on sockets
REAL_SECONDS = 3.0
SILENT = (50, 200, 800)  # silent connections a second
SILENT_FROM = ("127.66.0.1", 0)


async def latency(session: Session, disturb: Callable[[], None] | None = None) -> float:
    """Microseconds of CPU from call to answer."""
    began = time.thread_time_ns()
    if disturb is not None:
        disturb()
    await session.call("echo", bytes(1024), timeout=60)
    return (time.thread_time_ns() - began) / 1000


async def paced(session: Session) -> float:
    """A call after a moment in which others have their turn."""
    await asyncio.sleep(0.0002)
    return await latency(session)


def at_the_gate() -> Callable[[], None]:
    """A bogus first message as the gate sees it."""
    gate = Gate(NET, credentials().peer, entropy(32), CLOCK.now())
    first = First(preamble(NET, pattern=Pattern.IK), bytes(16), b"", bytes(400))

    def judge() -> None:
        with suppress(BadSignature):
            gate.judge(first, "192.0.2.1", CLOCK.now())

    return judge


def at_a_session() -> Callable[[], None]:
    """The same with all that belongs to a connection but the socket."""
    own, now = credentials(), CLOCK.now()
    door = Door(Gate(NET, own.peer, entropy(32), now), HandshakeTimes(CLOCK.wall()), "192.0.2.1")
    bogus = bogus_first(PeerId(bytes(32)))

    def refuse() -> None:
        machine = SessionMachine(Handshake(own, door, entropy=entropy, wall=CLOCK.wall()), now)
        machine.receive(bogus, now)
        machine.outgoing(now)

    return refuse


def bogus_first(peer: PeerId) -> bytes:
    """First bytes for somebody else."""
    return write_first(mac_key(NET, peer), preamble(NET), b"", bytes(32))


async def simulated(session: Session, bogus: Callable[[], None], per_call: int) -> tuple[list[float], list[float]]:
    """Latencies without and with so many bogus messages a call, the calls alternating."""
    loop, quiet, flooded = asyncio.get_running_loop(), list[float](), list[float]()

    def disturb() -> None:
        for _ in range(per_call):
            loop.call_soon(bogus)

    for _ in range(CALLS):
        quiet.append(await latency(session))
        flooded.append(await latency(session, disturb))
    return quiet, flooded


async def real(session: Session, port: int, per_second: int) -> tuple[list[float], list[float], float]:
    """Latencies before and during a flood from another process, and how many a second it managed."""
    quiet = [await paced(session) for _ in range(CALLS)]
    enemy = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.flood", str(port), str(per_second), stdout=asyncio.subprocess.PIPE
    )
    assert enemy.stdout is not None
    await enemy.stdout.readline()
    flooded, ended = list[float](), asyncio.ensure_future(enemy.stdout.readline())
    while not ended.done():
        flooded.append(await paced(session))
    await enemy.wait()
    return quiet, flooded, float(await ended)


def flood(port: int, per_second: int) -> None:
    """The other process: bogus connections at this rate for `REAL_SECONDS`; prints how many a second there were."""
    bogus, done, began = bogus_first(PeerId(bytes(32))), 0, time.monotonic()
    print("begins", flush=True)
    while (elapsed := time.monotonic() - began) < REAL_SECONDS:
        if done >= elapsed * per_second:
            time.sleep(0.0005)
            continue
        done += 1
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)) as sock:
            sock.sendall(bogus)
            sock.recv(4096)
    print(done / REAL_SECONDS, flush=True)


async def crowded(port: int, peer: PeerId, per_second: int) -> tuple[int, int, float]:
    """How many honest strangers dialled during a flood of silence, how many got a session, and the flood's rate."""
    enemy = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.flood", str(port), str(per_second), "silent", stdout=asyncio.subprocess.PIPE
    )
    assert enemy.stdout is not None
    await enemy.stdout.readline()
    dialled, served, ended = 0, 0, asyncio.ensure_future(enemy.stdout.readline())
    while not ended.done():
        dialled += 1
        with suppress(HaifError):
            async with wire(Identity(entropy(32)), None) as stranger:
                session = await stranger.connect(("127.0.0.1", port), peer, timeout=3)
                await session.call("echo", b"", timeout=3)
                served += 1
        await asyncio.sleep(0.02)
    await enemy.wait()
    return dialled, served, float(await ended)


def silence(port: int, per_second: int) -> None:
    """The other process: connections that say nothing at this rate for `REAL_SECONDS`, kept as long as they may be."""
    done, began, held = 0, time.monotonic(), deque[socket.socket](maxlen=900)
    print("begins", flush=True)
    while (elapsed := time.monotonic() - began) < REAL_SECONDS:
        if done >= elapsed * per_second:
            time.sleep(0.0005)
            continue
        done += 1
        with suppress(OSError):
            held.append(socket.create_connection(("127.0.0.1", port), 5, SILENT_FROM))
    print(done / REAL_SECONDS, flush=True)


def line(name: str, quiet: list[float], flooded: list[float]) -> str:
    """p50 and p99 without and with the flood, in microseconds of CPU, and by how much p99 moved."""
    before, after = quantiles(quiet, n=100), quantiles(flooded, n=100)
    moved = 100 * (after[98] / before[98] - 1)
    return f"{name:46}{before[49]:8.0f}{before[98]:8.0f}{after[49]:10.0f}{after[98]:8.0f}{moved:+8.0f} %"


@asynccontextmanager
async def listening() -> AsyncIterator[tuple[Session, int]]:
    """An honest session, and where its listener listens."""
    identity = Identity(entropy(32))
    async with wire(identity, 0) as server, wire(Identity(entropy(32)), None) as client:
        server.serve("echo", echo)
        session = await client.connect(server.address, identity.peer, timeout=3)
        for _ in range(500):
            await latency(session)
        yield session, server.address[1]


async def main() -> None:
    async with listening() as (session, port):
        normal = sorted([await latency(session) for _ in range(CALLS)])[CALLS // 2]
        per_call = round(PER_SECOND * normal / 1e6)
        print(
            f"{'µs of CPU a call, 1 KiB, one at a time':46}{'p50':>8}{'p99':>8}{'p50':>10}{'p99':>8}{'p99 moved':>10}"
        )
        for name, bogus in (("at the gate", at_the_gate()), ("whole sessions without socket", at_a_session())):
            quiet, flooded = await simulated(session, bogus, per_call)
            print(line(f"{PER_SECOND:,} bogus/s simulated, {name}", quiet, flooded), flush=True)
        for per_second in REAL:
            quiet, flooded, managed = await real(session, port, per_second)
            print(line(f"{managed:,.0f} bogus connections/s, another process", quiet, flooded), flush=True)
        for per_second in SILENT:
            dialled, served, managed = await crowded(port, session.peer, per_second)
            print(
                f"{managed:,.0f} silent connections/s of one network: {served} of {dialled} strangers served",
                flush=True,
            )


if __name__ == "__main__":
    if len(sys.argv) > 2:
        (silence if "silent" in sys.argv else flood)(int(sys.argv[1]), int(sys.argv[2]))
    else:
        asyncio.run(main())
