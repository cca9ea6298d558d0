"""What a relay costs: bytes and circuits per CPU-second of its process, beside a plain TCP proxy; latency; moves.

    python -m benchmarks.relay

Relay and proxy are processes of their own whose CPU time is read; both ends are in this one. The proxy is the least a
Python program can do to pass bytes on (asyncio, two protocols that write to each other, back-pressure): what the relay
adds is metering. Best of several rounds that take turns, since other processes only make a round slower.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from haif.base import codec, limits
from haif.base.ids import NetId, Nonce, PeerId
from haif.base.machine import Address
from haif.identity.keys import Identity, NoiseKey
from haif.protocol import methods
from haif.protocol.relay import Connect, Connected, Incoming, Noted, RelayAt, Reserve
from haif.relay.circuits import Allowance
from haif.relay.service import Relay, connect_through
from haif.runtime.clock import SystemClock, entropy
from haif.wire.opening import CIRCUIT, preamble
from haif.wire.service import Call, Session, Wire

ROUNDS = 3
BULK_BYTES = 128 << 20
SMALL_BYTES = 16 << 20
SMALL = 1400
CIRCUITS = 100
PINGS = 500
MOVES = 40
NET = NetId(bytes(32))
CLOCK = SystemClock()
RELAY = Identity(b"r" * 32)


def wire(identity: Identity, port: int | None) -> Wire:
    return Wire(
        identity=identity, noise_key=NoiseKey(entropy(32)), net=NET, clock=CLOCK,
        entropy=entropy, on_dropped=lambda _: None, port=port,
    )  # fmt: skip


# --- the other process ------------------------------------------------------------------------------------------------


class Half(asyncio.Protocol):
    """One side of the plain proxy."""

    def __init__(self, target: Address | None) -> None:
        self.target = target
        self.other: Half
        self.early = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        if self.target is not None:
            transport.pause_reading()  # type: ignore[attr-defined]
            self.task = asyncio.ensure_future(self.dial(self.target))

    async def dial(self, target: Address) -> None:
        self.other = Half(None)
        self.other.other = self
        await asyncio.get_running_loop().create_connection(lambda: self.other, *target)
        self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        self.other.transport.write(data)

    def pause_writing(self) -> None:
        self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        with suppress(AttributeError):
            self.other.transport.close()


async def serve(kind: str, target: Address) -> None:
    """Be the relay or the proxy; for each line on standard input, tell the CPU time so far."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    if kind == "proxy":
        server = await loop.create_server(lambda: Half(target), "127.0.0.1", 0)
        await tell(server.sockets[0].getsockname(), reader)
        return
    for name in ("RELAY_CONNECTS_PER_SECOND", "RELAY_CONNECTS_BURST", "RELAY_CIRCUITS_PER_CALLER_MAX"):
        setattr(limits, name, 1e9)
    limits.RELAY_CIRCUITS_PER_CALLEE_MAX = 10**9  # type: ignore[misc]
    async with (
        wire(RELAY, 0) as own,
        Relay(
            identity=RELAY, net=NET, wire=own, clock=CLOCK, entropy=entropy, on_dropped=lambda _: None,
            allowance=Allowance(bytes_per_second=1 << 50, circuit_bytes=1 << 60), leave_seconds=0,
        ),
    ):  # fmt: skip
        await tell(own.address, reader)


async def tell(address: Address, reader: asyncio.StreamReader) -> None:
    print(json.dumps(address[:2]), flush=True)
    while await reader.readline():
        print(time.process_time(), flush=True)


@dataclass
class Child:
    """A relay or proxy that runs beside us."""

    process: asyncio.subprocess.Process
    address: Address

    async def cpu(self) -> float:
        """CPU seconds it has used."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(b"\n")
        return float(await self.process.stdout.readline())


@asynccontextmanager
async def child(kind: str, target: Address) -> AsyncIterator[Child]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.relay", "--serve", kind, *map(str, target),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    host, port = json.loads(await process.stdout.readline())
    try:
        yield Child(process, (host, port))
    finally:
        process.stdin.close()
        await process.wait()


# --- both ends --------------------------------------------------------------------------------------------------------


async def dial(address: Address, first: bytes = b"") -> socket.socket:
    sock = socket.socket()
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, address)
    if first:
        await loop.sock_sendall(sock, first)
    return sock


async def pump(source: socket.socket, sink: socket.socket, total: int, size: int) -> None:
    """Bytes in at one end, out at the other."""
    loop, piece, room = asyncio.get_running_loop(), bytes(size), bytearray(1 << 18)

    async def send() -> None:
        for _ in range(total // size):
            await loop.sock_sendall(source, piece)

    sending = asyncio.create_task(send())
    left = total // size * size
    while left:
        left -= await loop.sock_recv_into(sink, room)
    await sending


class Ends:
    """A caller and a callee at a relay, who meet on bare sockets."""

    def __init__(self, relay: RelayAt, caller: Wire, callee: Wire, peer: PeerId) -> None:
        self.relay, self.caller, self.callee, self.peer = relay, caller, callee, peer
        self.tokens: asyncio.Queue[Nonce] = asyncio.Queue()
        self.answering = False

    async def open(self) -> None:
        self.callee.serve(methods.RELAY_INCOMING.name, self.incoming)
        to_relay = await self.callee.connect(self.relay.address, self.relay.peer, timeout=5)
        await to_relay.call(methods.RELAY_RESERVE.name, codec.encode(Reserve()), timeout=5)
        self.asking = await self.caller.connect(self.relay.address, self.relay.peer, timeout=5)

    async def incoming(self, call: Call) -> bytes:
        token = codec.decode(Incoming, call.argument).token
        if self.answering:
            sock = await dial(self.relay.address, preamble(NET, pattern=CIRCUIT) + token)
            self.task = asyncio.create_task(self.callee.accept_over(sock))
        else:
            self.tokens.put_nowait(token)
        return codec.encode(Noted())

    async def circuit(self) -> tuple[socket.socket, socket.socket]:
        """Two sockets that the relay has joined."""
        reply = await self.asking.call(methods.RELAY_CONNECT.name, codec.encode(Connect(self.peer)), timeout=5)
        first = preamble(NET, pattern=CIRCUIT)
        mine = await dial(self.relay.address, first + codec.decode(Connected, reply).token)
        theirs = await dial(self.relay.address, first + await self.tokens.get())
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(mine, b"?")  # who says much before the other has come is dropped
        await loop.sock_recv(theirs, 1)
        return mine, theirs


async def proxied(proxy: Child, listener: socket.socket) -> tuple[socket.socket, socket.socket]:
    """Two sockets that the proxy has joined."""
    loop = asyncio.get_running_loop()
    accepting = asyncio.create_task(loop.sock_accept(listener))
    mine = await dial(proxy.address)
    theirs, _ = await accepting
    theirs.setblocking(False)
    return mine, theirs


async def megabytes(
    through: Child, pair: Callable[[], Awaitable[tuple[socket.socket, socket.socket]]], total: int, size: int
) -> float:
    """MB per CPU-second of the process in the middle."""
    one, other = await pair()
    with one, other:
        await pump(one, other, 1 << 20, 1 << 16)
        before = await through.cpu()
        await pump(one, other, total, size)
        return total / 1e6 / (await through.cpu() - before)


async def ping(session: Session) -> float:
    """The median of a 1 KiB call, in microseconds."""
    argument, took = bytes(1024), []
    for _ in range(PINGS):
        began = time.perf_counter()
        await session.call("echo", argument, timeout=30)
        took.append(time.perf_counter() - began)
    return 1e6 * statistics.median(took)


async def echo(call: Call) -> bytes:
    return call.argument


async def bulk(session: Session) -> float:
    """MB per CPU-second of both ends together, for what they encrypt and decrypt."""
    argument, before = bytes(1 << 20), time.process_time()
    for _ in range(16):
        await asyncio.gather(*(session.call("echo", argument, timeout=60) for _ in range(4)))
    return 2 * 64 * (1 << 20) / 1e6 / (time.process_time() - before)


# --- the table --------------------------------------------------------------------------------------------------------


async def measure() -> None:
    callee_key = Identity(entropy(32))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        sink: Address = listener.getsockname()
        async with (
            wire(Identity(entropy(32)), None) as caller,
            wire(callee_key, 0) as callee,
            child("relay", sink) as relay,
            child("proxy", sink) as proxy,
        ):
            callee.serve("echo", echo)
            ends = Ends(RelayAt(RELAY.peer, *relay.address), caller, callee, callee_key.peer)
            await ends.open()
            print(f"load {os.getloadavg()[0]:.1f}; {ROUNDS} rounds, the best of each\n")
            print(f"{'MB per CPU-second of the process between':44}{'relay':>12}{'proxy':>12}{'ratio':>8}")
            for name, total, size in (
                ("64 KiB writes", BULK_BYTES, 1 << 16), (f"{SMALL} byte writes", SMALL_BYTES, SMALL),
            ):  # fmt: skip
                ours, theirs = [], []
                for _ in range(ROUNDS):
                    ours.append(await megabytes(relay, ends.circuit, total, size))
                    theirs.append(await megabytes(proxy, lambda: proxied(proxy, listener), total, size))
                print(f"{name:44}{max(ours):12,.0f}{max(theirs):12,.0f}{max(ours) / max(theirs):8.2f}", flush=True)
            await circuits(relay, ends)
            await sessions(ends, callee, callee_key.peer)


async def circuits(relay: Child, ends: Ends) -> None:
    best = 0.0
    for _ in range(ROUNDS):
        before = await relay.cpu()
        for _ in range(CIRCUITS):
            one, other = await ends.circuit()
            one.close()
            other.close()
        best = max(best, CIRCUITS / (await relay.cpu() - before))
    print(f"\n{'circuits per CPU-second of the relay':44}{best:12,.0f}   asked for, called, two connections, joined")


async def sessions(ends: Ends, callee: Wire, peer: PeerId) -> None:
    ends.answering = True
    async with wire(Identity(entropy(32)), None) as straight, wire(Identity(entropy(32)), None) as led:
        direct = await straight.connect(callee.address, peer, timeout=5)
        relayed = await connect_through(led, ends.relay, peer, timeout=5)
        rows = [
            (await ping(direct), await ping(relayed), await bulk(direct), await bulk(relayed)) for _ in range(ROUNDS)
        ]
        a, b = min(row[0] for row in rows), min(row[1] for row in rows)
        print(f"\n{'1 KiB call, median':44}{'direct':>12}{'relayed':>12}{'added':>10}")
        print(f"{'us':44}{a:12,.0f}{b:12,.0f}{b - a:10,.0f}")
        c, d = max(row[2] for row in rows), max(row[3] for row in rows)
        print(f"{'MB per CPU-second of both ends':44}{c:12,.0f}{d:12,.0f}{d / c:9.0%}", flush=True)
        best = 0.0
        for _ in range(ROUNDS):
            before = time.process_time()
            for _ in range(MOVES // ROUNDS):
                await relayed.move(await dial(callee.address))
            best = max(best, MOVES // ROUNDS / (time.process_time() - before))
    print(f"\n{'moves to another path, per CPU-second':44}{best:12,.0f}   both ends, TCP connect included")
    print("a move takes 1 round trip to connect and 2 more until both directions have left; calls go on meanwhile")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", nargs=3, metavar=("KIND", "HOST", "PORT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve(options.serve[0], (options.serve[1], int(options.serve[2]))))
    else:
        asyncio.run(measure())
