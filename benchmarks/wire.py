"""How much the wire carries per CPU-second, both ends counted: calls of 1 KiB, streamed 40-byte messages, handshakes.

    python -m benchmarks.wire [--uvloop]

Best of several rounds, since other processes only make a round slower.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from haif.base.ids import NetId
from haif.identity.keys import Identity, NoiseKey
from haif.runtime.clock import SystemClock, entropy
from haif.wire.service import Call, Session, Wire

ROUNDS = 5
CALLS = 10_000
MESSAGES = 100_000
HANDSHAKES = 200
BULK = 64
WINDOW = 64


def wire(identity: Identity, port: int | None) -> Wire:
    return Wire(
        identity=identity, noise_key=NoiseKey(entropy(32)), net=NetId(bytes(32)), clock=SystemClock(),
        entropy=entropy, on_dropped=print, port=port,
    )  # fmt: skip


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
    identity = Identity(entropy(32))
    async with wire(identity, 0) as server, wire(Identity(entropy(32)), None) as client:
        server.serve("echo", echo)
        server.serve_stream("tokens", tokens)
        session = await client.connect(server.address, identity.peer, timeout=3)

        async def handshakes() -> None:
            for _ in range(HANDSHAKES):
                async with wire(Identity(entropy(32)), None) as other:
                    await other.connect(server.address, identity.peer, timeout=3)

        rows = [
            ("1 KiB call and answer, 64 at a time", CALLS, lambda: calls(session, WINDOW, 1024, CALLS)),
            ("1 KiB call and answer, one at a time", CALLS // 5, lambda: calls(session, 1, 1024, CALLS // 5)),
            ("1 MiB call and answer, 4 at a time (calls)", BULK, lambda: calls(session, 4, 1 << 20, BULK)),
            ("streamed 40-byte messages, 1 stream", MESSAGES, lambda: stream(session)),
            ("TCP connect, Noise XX, close", HANDSHAKES, handshakes),
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
