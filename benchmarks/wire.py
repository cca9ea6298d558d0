"""How much the wire carries per CPU-second, both ends counted: calls of 1 KiB, streamed 40-byte messages, handshakes.

    python -m benchmarks.wire [--uvloop]

Best of several rounds, since other processes only make a round slower.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from haif.base.errors import BadSignature
from haif.base.ids import NetId
from haif.identity.certificate import certify
from haif.identity.keys import Identity, NoiseKey
from haif.identity.replay import HandshakeTimes
from haif.runtime.clock import SystemClock, entropy
from haif.wire.gate import Gate
from haif.wire.handshake import Credentials, Dial, Door, Handshake
from haif.wire.noise import Pattern
from haif.wire.opening import First, preamble
from haif.wire.service import Call, Session, Wire
from haif.wire.session import SessionMachine

ROUNDS = 5
CALLS = 10_000
MESSAGES = 100_000
HANDSHAKES = 200
BULK = 64
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


async def main() -> None:
    identity, server_key = Identity(entropy(32)), NoiseKey(entropy(32))
    async with wire(identity, 0, server_key) as server, wire(Identity(entropy(32)), None) as client:
        server.serve("echo", echo)
        server.serve_stream("tokens", tokens)
        session = await client.connect(server.address, identity.peer, timeout=3)

        async def handshakes() -> None:
            for _ in range(HANDSHAKES):
                async with wire(Identity(entropy(32)), None) as other:
                    await other.connect(server.address, identity.peer, timeout=3)

        async def again() -> None:
            for _ in range(HANDSHAKES):
                async with wire(Identity(entropy(32)), None) as other:
                    await other.connect(server.address, identity.peer, timeout=3, certificate=certificate)

        certificate = certify(identity, NET, server_key.public, CLOCK.wall())
        rows = [
            ("1 KiB call and answer, 64 at a time", CALLS, lambda: calls(session, WINDOW, 1024, CALLS)),
            ("1 KiB call and answer, one at a time", CALLS // 5, lambda: calls(session, 1, 1024, CALLS // 5)),
            ("1 MiB call and answer, 4 at a time (calls)", BULK, lambda: calls(session, 4, 1 << 20, BULK)),
            ("streamed 40-byte messages, 1 stream", MESSAGES, lambda: stream(session)),
            ("TCP connect, Noise XX, close", HANDSHAKES, handshakes),
            ("TCP connect, Noise IK, close", HANDSHAKES, again),
            ("Noise XX, both ends, no socket", HANDSHAKES, lambda: shake(known=False)),
            ("Noise IK, both ends, no socket", HANDSHAKES, lambda: shake(known=True)),
            ("bogus first message refused by the gate", BOGUS, bogus),
        ]
        print(f"{'':44}{'per CPU-s':>12}{'per s':>12}")
        for name, count, work in rows:
            per_cpu, per_wall = await best(work, count)
            print(f"{name:44}{per_cpu:12,.0f}{per_wall:12,.0f}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--uvloop", action="store_true", help="use uvloop instead of asyncio's own loop")
    if parser.parse_args().uvloop:
        import uvloop

        uvloop.run(main())
    else:
        asyncio.run(main())
