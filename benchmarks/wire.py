"""How much the wire carries per CPU-second, both ends counted: calls, streams, bulk, handshakes; and what peers carry.

    python -m benchmarks.wire [--uvloop] [--no-peers]

Best of several rounds, since other processes only make a round slower. Latencies are medians of pairs taken in turn: a
call, and 1 KiB echoed by a bare asyncio socket pair. `benchmarks.flood` has what a flood adds to them.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from statistics import median

from noise.connection import Keypair, NoiseConnection

from benchmarks import peers
from haif.base.errors import BadSignature
from haif.base.ids import NetId, PeerId
from haif.base.machine import Address
from haif.identity.certificate import certify
from haif.identity.keys import Identity, NoiseKey
from haif.identity.replay import HandshakeTimes
from haif.runtime.clock import SystemClock, entropy
from haif.wire.gate import Gate
from haif.wire.handshake import Credentials, Dial, Door, Handshake
from haif.wire.noise import PROTOCOLS, Pattern
from haif.wire.opening import First, preamble
from haif.wire.service import Call, Session, Wire
from haif.wire.session import SessionMachine

ROUNDS = 5
CALLS = 10_000
MESSAGES = 100_000
HANDSHAKES = 200
BULK = 64
BULK_MESSAGE, BULK_BYTES = 64 << 10, 128 << 20
SLOW = 64
LATENCIES = 3000
WINDOW = 64
BOGUS = 100_000
NET = NetId(bytes(32))
CLOCK = SystemClock()


def wire(identity: Identity, port: int | None, key: NoiseKey | None = None) -> Wire:
    return Wire(
        identity=identity, noise_key=key or NoiseKey(entropy(32)), net=NET, clock=CLOCK,
        entropy=entropy, on_dropped=lambda _: None, port=port,
    )  # fmt: skip


async def shake(*, known: bool) -> None:
    """Handshakes between two machines that met before, each behind a fresh gate, so that no budget is felt."""
    dialler, listener = credentials(), credentials()
    remote = listener.noise_key.public if known else None
    times = HandshakeTimes(CLOCK.wall())
    for number in range(HANDSHAKES):
        wall, now = CLOCK.wall(), CLOCK.now()
        door = Door(Gate(NET, listener.peer, bytes(32), now), times, "127.0.0.1")
        dial = Dial(listener.peer, remote, wall * 1000 + number)
        one = SessionMachine(Handshake(dialler, dial, entropy=entropy, wall=wall), now)
        two = SessionMachine(Handshake(listener, door, entropy=entropy, wall=wall), now)
        while one.established is None or two.established is None:
            two.receive(one.outgoing(now), now)
            one.receive(two.outgoing(now), now)


async def shake_bare() -> None:
    """Noise IK by the library alone: no certificates, no gate, no session, no check of anything."""
    ours, theirs = NoiseKey(entropy(32)), NoiseKey(entropy(32))
    for _ in range(HANDSHAKES):
        one, two = bare(ours, theirs.public, initiator=True), bare(theirs, None, initiator=False)
        two.read_message(bytes(one.write_message(bytes(300))))
        one.read_message(bytes(two.write_message(bytes(300))))


def bare(key: NoiseKey, remote: bytes | None, *, initiator: bool) -> NoiseConnection:
    connection = NoiseConnection.from_name(PROTOCOLS[Pattern.IK])
    connection.set_as_initiator() if initiator else connection.set_as_responder()
    connection.set_prologue(bytes(80))
    connection.set_keypair_from_private_bytes(Keypair.STATIC, key.key.private_bytes_raw())
    if remote is not None:
        connection.set_keypair_from_public_bytes(Keypair.REMOTE_STATIC, remote)
    connection.start_handshake()
    return connection


async def bogus() -> None:
    """What the gate does with a first message of somebody who does not know whom it dials."""
    gate, opening = Gate(NET, credentials().peer, entropy(32), CLOCK.now()), preamble(NET, pattern=Pattern.IK)
    first, now = First(opening, bytes(16), b"", bytes(400)), CLOCK.now()
    for _ in range(BOGUS):
        try:
            gate.judge(first, "192.0.2.1", now)
        except BadSignature:
            continue
        raise AssertionError("a stranger came in")


def credentials() -> Credentials:
    identity, key = Identity(entropy(32)), NoiseKey(entropy(32))
    return Credentials(NET, identity.peer, key, certify(identity, NET, key.public, CLOCK.wall()))


async def echo(call: Call) -> bytes:
    return call.argument


async def tokens(_call: Call) -> AsyncIterator[bytes]:
    message = b"t" * 40
    for _ in range(MESSAGES):
        yield message


async def pour(call: Call) -> AsyncIterator[bytes]:
    message = bytes(BULK_MESSAGE)
    for _ in range(int(call.argument) // BULK_MESSAGE):
        yield message


async def bulk(session: Session) -> None:
    async with session.stream("pour", str(BULK_BYTES).encode(), timeout=60) as messages:
        async for _ in messages:
            pass


async def beside_slow_streams(session: Session) -> tuple[float, float]:
    """What one stream carries per CPU-second alone, and beside 64 whose readers never take anything; in turn."""

    async def fast() -> float:
        cpu = time.process_time()
        await stream(session)
        return MESSAGES / (time.process_time() - cpu)

    alone = beside = 0.0
    for _ in range(ROUNDS):
        alone = max(alone, await fast())
        async with AsyncExitStack() as slow:
            for _ in range(SLOW):
                await slow.enter_async_context(session.stream("tokens", b"", timeout=60))
            await fast()  # while they fill the room they have
            beside = max(beside, await fast())
    return alone, beside


async def latencies(session: Session) -> tuple[float, float]:
    """Microseconds, median: a call of 1 KiB, and as much echoed by a bare socket pair; taken in turn."""
    server = await asyncio.start_server(_echo_bare, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    one, other, data = list[float](), list[float](), b"a" * 1024
    for _ in range(LATENCIES):
        began = time.perf_counter()
        await session.call("echo", data, timeout=60)
        middle = time.perf_counter()
        writer.write(data)
        await reader.readexactly(len(data))
        one.append(middle - began)
        other.append(time.perf_counter() - middle)
    writer.close()
    server.close()
    return median(one) * 1e6, median(other) * 1e6


async def _echo_bare(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(asyncio.IncompleteReadError):
        while True:
            writer.write(await reader.readexactly(1024))
    writer.close()


async def calls(session: Session, window: int, size: int, count: int) -> None:
    argument = b"a" * size

    async def caller() -> None:
        for _ in range(count // window):
            await session.call("echo", argument, timeout=60)

    async with asyncio.TaskGroup() as group:
        for _ in range(window):
            group.create_task(caller())


async def stream(session: Session) -> None:
    async with session.stream("tokens", b"", timeout=60) as messages:
        async for _ in messages:
            pass


async def best(work: Callable[[], Awaitable[None]], count: int) -> tuple[float, float]:
    """Per CPU-second and per second of the clock, in the best round."""
    per_cpu, per_wall = 0.0, 0.0
    for _ in range(ROUNDS):
        cpu, wall = time.process_time(), time.perf_counter()
        await work()
        per_cpu = max(per_cpu, count / (time.process_time() - cpu))
        per_wall = max(per_wall, count / (time.perf_counter() - wall))
    return per_cpu, per_wall


@dataclass
class Meeting:
    """Wires that never met, ready to dial one listener: what a handshake over TCP costs, and nothing else."""

    address: Address
    peer: PeerId
    certificate: bytes | None

    async def run(self) -> None:
        async with AsyncExitStack() as stack:
            wires = [await stack.enter_async_context(wire(Identity(entropy(32)), None)) for _ in range(HANDSHAKES)]
            self.began = time.process_time()
            for other in wires:
                await other.connect(self.address, self.peer, timeout=3, certificate=self.certificate)
            self.cpu = time.process_time() - self.began

    async def best(self) -> float:
        """Handshakes per CPU-second."""
        figure = 0.0
        for _ in range(ROUNDS):
            await self.run()
            figure = max(figure, HANDSHAKES / self.cpu)
        return figure


async def main(*, with_peers: bool = True) -> None:
    identity, server_key = Identity(entropy(32)), NoiseKey(entropy(32))
    async with wire(identity, 0, server_key) as server, wire(Identity(entropy(32)), None) as client:
        server.serve("echo", echo)
        server.serve_stream("tokens", tokens)
        server.serve_stream("pour", pour)
        session = await client.connect(server.address, identity.peer, timeout=3)
        certificate = certify(identity, NET, server_key.public, CLOCK.wall())
        rows = [
            ("1 KiB call and answer, 64 at a time", CALLS, lambda: calls(session, WINDOW, 1024, CALLS)),
            ("1 KiB call and answer, one at a time", CALLS // 5, lambda: calls(session, 1, 1024, CALLS // 5)),
            ("1 MiB call and answer, 4 at a time (calls)", BULK, lambda: calls(session, 4, 1 << 20, BULK)),
            ("streamed 40-byte messages, 1 stream", MESSAGES, lambda: stream(session)),
            ("bulk, 1 stream of 64 KiB messages (MB)", BULK_BYTES / 1e6, lambda: bulk(session)),
            ("Noise XX, both ends, no socket", HANDSHAKES, lambda: shake(known=False)),
            ("Noise IK, both ends, no socket", HANDSHAKES, lambda: shake(known=True)),
            ("Noise IK, noiseprotocol alone, no checks", HANDSHAKES, shake_bare),
            ("bogus first message refused by the gate", BOGUS, bogus),
        ]
        print(f"{'':44}{'per CPU-s':>12}{'per s':>12}")
        for name, count, work in rows:
            per_cpu, per_wall = await best(work, count)
            print(f"{name:44}{per_cpu:12,.0f}{per_wall:12,.0f}", flush=True)
        for name, known in (("XX, strangers", None), ("IK, certificate known", certificate)):
            meeting = Meeting(server.address, identity.peer, known)
            print(f"{f'TCP connect and Noise {name}':44}{await meeting.best():12,.0f}", flush=True)
        alone, beside = await beside_slow_streams(session)
        print(f"{f'1 stream beside {SLOW} that nobody reads':44}{beside:12,.0f}{100 * beside / alone:10.0f} % of alone")
        call, echoed = await latencies(session)
        print(
            f"a call of 1 KiB: p50 {call:.0f} µs; a bare echo {echoed:.0f} µs; added {call - echoed:.0f} µs", flush=True
        )
    if with_peers:
        print_peers()


def print_peers() -> None:
    """The same work by others, in this run."""
    for name, figures in (
        ("aioquic, a stream a call", peers.aioquic()),
        ("iroh's Python binding, a stream a call", peers.iroh()),
        ("py-libp2p, echoes on 64 open streams", peers.libp2p()),
        ("secret-stream on TCP (Node.js), bare echoes", peers.secret_stream()),
        ("hyperdht, its stream on UDX (Node.js), echoes", peers.hyperdht()),
    ):
        if isinstance(figures, str):
            print(f"{name}: {figures}")
        else:
            print(f"{name:44}{figures['calls']:12,.0f}{figures['bulk_mb']:12,.0f} MB of bulk per CPU-s", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--uvloop", action="store_true", help="use uvloop instead of asyncio's own loop")
    parser.add_argument("--no-peers", action="store_true", help="leave out what others make of the same work")
    options = parser.parse_args()
    if options.uvloop:
        import uvloop

        uvloop.run(main(with_peers=not options.no_peers))
    else:
        asyncio.run(main(with_peers=not options.no_peers))
