"""Everybody one would not invite, on real sockets: `python -m benchmarks.hostile JSON`, run by the soak.

JSON: `targets` (host, wire port, peer in hex, directory port), `per_second` (how often each kind of them strikes).
They run until standard input ends, which it does with whoever started them.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from random import Random

from benchmarks.wire import CLOCK, NET, credentials, wire
from haif.base.errors import HaifError
from haif.base.ids import Digest, PeerId
from haif.dht import messages as dht
from haif.identity.keys import Identity
from haif.runtime.clock import entropy
from haif.wire.handshake import Dial, Handshake
from haif.wire.opening import LENGTH, mac_key, preamble, write_first
from haif.wire.session import SessionMachine
from tests.fuzz.doors import OpenSession
from tests.fuzz.mutate import mutated

RNG = Random(1)
RUNNING_MAX = 200  # acts of one kind under way at once
SLOW_AT_ONCE = 32  # slow connections to one listener: twice what it holds in a soak
SQUAT_SECONDS = 30.0
ELSEWHERE = ("127.66.0.1", 0)  # the network of those who take room: another /24 than that of honest nodes


@dataclass(frozen=True)
class Target:
    host: str
    port: int
    peer: PeerId
    directory: int


async def talk(target: Target, data: bytes) -> bytes:
    """Say something, hear the first answer, hang up."""
    reader, writer = await asyncio.open_connection(target.host, target.port)
    try:
        writer.write(data)
        async with asyncio.timeout(5):
            return await reader.read(4096)
    finally:
        writer.transport.abort()


async def scanner(target: Target) -> None:
    """Knows not whom it dials."""
    await talk(target, RNG.choice((b"GET / HTTP/1.1\r\n\r\n", preamble(NET) + RNG.randbytes(300), RNG.randbytes(50))))


async def knowing(target: Target) -> None:
    """Knows whom it dials, and makes the listener compute for nothing."""
    message = RNG.randbytes(RNG.randrange(32, 200))
    await talk(target, write_first(mac_key(NET, target.peer), preamble(NET), b"", message))


async def slow(target: Target) -> None:
    """Many connections, on each a byte now and then, to hold them."""
    async with asyncio.TaskGroup() as group:
        for _ in range(SLOW_AT_ONCE):
            group.create_task(drip(target))


async def drip(target: Target) -> None:
    """One of them."""
    with suppress(OSError):
        reader, writer = await asyncio.open_connection(target.host, target.port, local_addr=ELSEWHERE)
        try:
            for byte in preamble(NET):
                if writer.transport.is_closing():
                    break
                writer.write(bytes((byte,)))
                await asyncio.sleep(1.0)
            await reader.read()
        finally:
            writer.transport.abort()


async def squatter(target: Target) -> None:
    """A session under a key of its own that wants nothing, and stays."""
    sock = await asyncio.to_thread(socket.create_connection, (target.host, target.port), 5, ELSEWHERE)
    async with wire(Identity(entropy(32)), None) as own:
        session = await own.connect_over(sock, target.peer, timeout=5)
        with suppress(TimeoutError):
            async with asyncio.timeout(SQUAT_SECONDS):
                await session.wait_over()


async def babbler(target: Target) -> None:
    """Shakes hands in order and then sends frames of its own making."""
    reader, writer = await asyncio.open_connection(target.host, target.port)
    try:
        machine = SessionMachine(
            Handshake(credentials(), Dial(target.peer, None), entropy=entropy, wall=CLOCK.wall()), CLOCK.now()
        )
        while machine.established is None and machine.closed is None:
            writer.write(machine.outgoing(CLOCK.now()))
            async with asyncio.timeout(5):
                machine.receive(await reader.read(4096) or b"\xff\xff\0\0", CLOCK.now())
        if machine.closed is not None:  # asked to solve a puzzle first, or no room
            return
        writer.write(machine.outgoing(CLOCK.now()))
        door = OpenSession()
        for _ in range(20):
            sealed = machine._channel.sealer.seal(door.make(RNG))  # noqa: SLF001  # an honest machine has no way to say this
            if writer.transport.is_closing():
                break
            writer.write(LENGTH.pack(len(sealed)) + sealed)
            await writer.drain()
        await asyncio.sleep(0.2)
    finally:
        writer.transport.abort()


async def hog(target: Target) -> None:
    """A stranger in good standing who asks for much, reads nothing and is gone."""
    async with wire(Identity(entropy(32)), None) as own:
        session = await own.connect((target.host, target.port), target.peer, timeout=5)
        async with session.stream("bulk", b"", timeout=10) as pieces:
            await anext(pieces)
            await asyncio.sleep(1.0)


async def caller(target: Target) -> None:
    """A stranger in good standing who calls, gives up half of its calls, and leaves."""
    async with wire(Identity(entropy(32)), None) as own:
        session = await own.connect((target.host, target.port), target.peer, timeout=5)
        for _ in range(10):
            call = asyncio.ensure_future(session.call("echo", RNG.randbytes(2000), timeout=5))
            await asyncio.sleep(0)
            if RNG.random() < 0.5:
                call.cancel()
            with suppress(HaifError, asyncio.CancelledError):
                await call


async def datagrams(target: Target, sender: socket.socket) -> None:
    """Questions of nobodies, answers to nothing, and what was a datagram once."""
    for _ in range(20):
        sender_id = RNG.choice((None, Identity(entropy(32)).peer))
        command, target_id = RNG.choice(list(dht.Command)), Digest(RNG.randbytes(32))
        query = dht.write_query(RNG.randbytes(8), command, target_id, RNG.randbytes(8), None, sender_id)
        data = RNG.choice((query, mutated(query, RNG), dht.write(dht.Kind.REPLY, RNG.randbytes(8), RNG.randbytes(200))))
        with suppress(OSError):
            sender.sendto(data[:1300], (target.host, target.directory))


async def strike(kind: Callable[[Target], Awaitable[None]], targets: list[Target], per_second: float) -> None:
    """Again and again, several at once, whatever comes of it."""
    running = set[asyncio.Task[None]]()

    async def once() -> None:
        with suppress(OSError, TimeoutError, HaifError, StopAsyncIteration, asyncio.IncompleteReadError):
            await kind(RNG.choice(targets))

    while True:
        if len(running) < RUNNING_MAX:
            task = asyncio.ensure_future(once())
            running.add(task)
            task.add_done_callback(running.discard)
        await asyncio.sleep(RNG.expovariate(per_second))


async def main(targets: list[Target], per_second: float) -> None:
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.setblocking(False)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    kinds = (scanner, knowing, slow, squatter, babbler, hog, caller, lambda target: datagrams(target, sender))
    strikes = [asyncio.ensure_future(strike(kind, targets, per_second)) for kind in kinds]
    await asyncio.wait([asyncio.ensure_future(reader.read()), *strikes], return_when=asyncio.FIRST_COMPLETED)


if __name__ == "__main__":
    told = json.loads(sys.argv[1])
    everybody = [Target(host, port, PeerId.parse(peer), directory) for host, port, peer, directory in told["targets"]]
    asyncio.run(main(everybody, told["per_second"]))
