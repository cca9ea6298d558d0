"""The wire's work done by py-libp2p (Noise, yamux, TCP): run by `benchmarks.peers` where it is; a line of JSON."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Awaitable, Callable

import trio
from libp2p import new_host
from libp2p.custom_types import TProtocol
from libp2p.network.stream.net_stream import INetStream
from libp2p.peer.peerinfo import info_from_p2p_addr
from multiaddr import Multiaddr

CALLS, WINDOW, SIZE, ROUNDS = 3200, 64, 1024, 3
BULK_BYTES = 8 << 20
PIECE = 1 << 16
ECHO, BULK = TProtocol("/haif/echo"), TProtocol("/haif/bulk")


async def echo(stream: INetStream) -> None:
    while data := await exactly(stream, SIZE):
        await stream.write(data)


async def pour(stream: INetStream) -> None:
    while await exactly(stream, 1):
        for _ in range(BULK_BYTES // PIECE):
            await stream.write(bytes(PIECE))


async def exactly(stream: INetStream, size: int) -> bytes:
    """So many bytes, or fewer where the stream ends."""
    data = b""
    while len(data) < size:
        try:
            piece = await stream.read(size - len(data))
        except Exception:  # noqa: BLE001 - it ends streams with errors of many kinds
            return b""
        if not piece:
            return b""
        data += piece
    return data


async def calls(streams: list[INetStream]) -> None:
    async def caller(stream: INetStream) -> None:
        for _ in range(CALLS // WINDOW):
            await stream.write(bytes(SIZE))
            assert len(await exactly(stream, SIZE)) == SIZE

    async with trio.open_nursery() as nursery:
        for stream in streams:
            nursery.start_soon(caller, stream)


async def bulk(stream: INetStream) -> None:
    await stream.write(b"b")
    left = BULK_BYTES
    while left > 0:
        left -= len(await stream.read(min(left, PIECE)))


async def best(work: Callable[[], Awaitable[None]], amount: float) -> float:
    figure = 0.0
    for _ in range(ROUNDS):
        began = time.process_time()
        await work()
        figure = max(figure, amount / (time.process_time() - began))
    return figure


async def main() -> None:
    logging.disable(logging.CRITICAL)
    here = Multiaddr("/ip4/127.0.0.1/tcp/0")
    server, dialler = new_host(), new_host()
    async with server.run(listen_addrs=[here]), dialler.run(listen_addrs=[here]):
        server.set_stream_handler(ECHO, echo)
        server.set_stream_handler(BULK, pour)
        at = info_from_p2p_addr(server.get_addrs()[0])
        await dialler.connect(at)
        streams = [await dialler.new_stream(at.peer_id, [ECHO]) for _ in range(WINDOW)]
        figures = {"calls": await best(lambda: calls(streams), CALLS)}
        poured = await dialler.new_stream(at.peer_id, [BULK])
        figures["bulk_mb"] = await best(lambda: bulk(poured), BULK_BYTES / 1e6)
        print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    trio.run(main)
