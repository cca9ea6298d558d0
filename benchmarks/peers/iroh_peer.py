"""The wire's work done by iroh's Python binding: run by `benchmarks.peers` where it is; prints a line of JSON."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable

from iroh import BiStream, Connection, Endpoint, EndpointAddr, EndpointOptions, RelayMode, preset_minimal

CALLS, WINDOW, SIZE, ROUNDS = 3200, 64, 1024, 3
BULK_BYTES = 32 << 20
PIECE = 1 << 16
ALPN = b"haif/bench"


async def endpoint() -> Endpoint:
    """On loopback alone: no relays, no discovery."""
    return await Endpoint.bind(
        EndpointOptions(preset=preset_minimal(), bind_addr="127.0.0.1:0", alpns=[ALPN], relay_mode=RelayMode.disabled())
    )


async def serve(server: Endpoint) -> None:
    incoming = await server.accept_next()
    assert incoming is not None
    connection = await (await incoming.accept()).connect()
    tasks = set[asyncio.Task[None]]()
    while True:
        tasks.add(asyncio.ensure_future(answer(await connection.accept_bi())))
        tasks = {task for task in tasks if not task.done()}


async def answer(stream: BiStream) -> None:
    data, back = await stream.recv().read_to_end(SIZE), stream.send()
    if data == b"bulk":
        for _ in range(BULK_BYTES // PIECE):
            await back.write_all(bytes(PIECE))
    else:
        await back.write_all(data)
    await back.finish()


async def call(client: Connection, data: bytes) -> bytes:
    stream = await client.open_bi()
    there = stream.send()
    await there.write_all(data)
    await there.finish()
    answered: bytes = await stream.recv().read_to_end(SIZE)
    return answered


async def calls(client: Connection) -> None:
    async def caller() -> None:
        for _ in range(CALLS // WINDOW):
            assert len(await call(client, bytes(SIZE))) == SIZE

    async with asyncio.TaskGroup() as group:
        for _ in range(WINDOW):
            group.create_task(caller())


async def bulk(client: Connection) -> None:
    stream = await client.open_bi()
    await stream.send().write_all(b"bulk")
    await stream.send().finish()
    back, size = stream.recv(), 0
    while size < BULK_BYTES:
        size += len(await back.read(PIECE))


async def best(work: Callable[[], Awaitable[None]], amount: float) -> float:
    figure = 0.0
    for _ in range(ROUNDS):
        began = time.process_time()
        await work()
        figure = max(figure, amount / (time.process_time() - began))
    return figure


async def main() -> None:
    server, dialler = await endpoint(), await endpoint()
    serving = asyncio.ensure_future(serve(server))
    where = EndpointAddr(server.id(), None, server.bound_sockets())
    client = await dialler.connect(where, ALPN)
    figures = {
        "calls": await best(lambda: calls(client), CALLS),
        "bulk_mb": await best(lambda: bulk(client), BULK_BYTES / 1e6),
    }
    serving.cancel()
    await dialler.close()
    await server.close()
    print(json.dumps(figures))


if __name__ == "__main__":
    asyncio.run(main())
