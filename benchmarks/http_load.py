"""Load on an HTTP API over kept connections: whole answers as fast as they come or at a rate, and many open streams.

At a rate, an answer's time counts from when its request was due, so that a slow server cannot hide by being asked less.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import cast

from benchmarks.stub_answers import MODEL, TOKEN

REQUEST_BYTES = 1024
_TOKEN = TOKEN.encode()


@dataclass(frozen=True)
class Target:
    """Where to ask, as whom."""

    host: str
    port: int
    key: str

    def request(self, *, milliseconds: int = 0, tokens: int = 0) -> bytes:
        """A chat request of 1 KB: for a stream of so many tokens, or for a whole answer."""
        prompt = f"ms={milliseconds} tokens={tokens} " if tokens else "whole "
        asked = {
            "model": MODEL, "messages": [{"role": "user", "content": prompt}], "seed": 1, "temperature": 0.5,
            "max_tokens": max(tokens, 256), "stream": bool(tokens),
        }  # fmt: skip
        asked["messages"] = [{"role": "user", "content": prompt + "x" * (REQUEST_BYTES - len(json.dumps(asked)))}]
        body = json.dumps(asked).encode()
        return (
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
            b"authorization: Bearer %s\r\ncontent-length: %d\r\n\r\n%s" % (self.key.encode(), len(body), body)
        )


class Connection(asyncio.Protocol):
    """One kept connection with one request at a time on it; `tokens` of streams are counted as they come."""

    def __init__(self) -> None:
        self.tokens = 0
        self._held = b""
        self._due = -1  # bytes of the answer that are still to come; -1 before its head
        self._chunked = False
        self._done: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(RuntimeError(f"the gateway closed the connection: {exc}"))

    def ask(self, request: bytes) -> asyncio.Future[None]:
        """Done when the whole answer has come. Raises `RuntimeError` for any but 200."""
        self._done = asyncio.get_running_loop().create_future()
        self._due, self._held = -1, b""
        self.transport.write(request)
        return self._done

    def close(self) -> None:
        """Hang up, whatever is still to come."""
        if self._done is not None:
            self._done.cancel()
        self.transport.abort()

    def check(self) -> None:
        """Return unless what was asked has failed. Raises `RuntimeError`."""
        if self._done is not None and self._done.done():
            self._done.result()

    def data_received(self, data: bytes) -> None:
        if self._due < 0:
            data = self._held + data
            head, end, rest = data.partition(b"\r\n\r\n")
            if not end:
                self._held = data
                return
            data = self._begin(head, rest)
        if self._chunked:
            self.tokens += data.count(_TOKEN)
            self._held = (self._held + data)[-5:]
            over = self._held.endswith(b"0\r\n\r\n")
        else:
            self._due -= len(data)
            over = self._due <= 0
        if over and self._done is not None and not self._done.done():
            self._done.set_result(None)

    def _begin(self, head: bytes, rest: bytes) -> bytes:
        lines = head.lower().split(b"\r\n")
        if b" 200 " not in lines[0] + b" " and self._done is not None:
            self._done.set_exception(RuntimeError((head + b"\n" + rest[:500]).decode(errors="replace")))
        lengths = [line for line in lines if line.startswith(b"content-length:")]
        self._chunked, self._held = not lengths, b""
        self._due = int(lengths[0].partition(b":")[2]) if lengths else 0
        return rest


@asynccontextmanager
async def connections(target: Target, count: int) -> AsyncIterator[list[Connection]]:
    """So many, opened a few at a time."""
    loop = asyncio.get_running_loop()
    opened: list[Connection] = []
    try:
        while len(opened) < count:
            few = min(64, count - len(opened))
            made = (loop.create_connection(Connection, target.host, target.port) for _ in range(few))
            opened += [connection for _, connection in await asyncio.gather(*made)]
        yield opened
    finally:
        for each in opened:
            each.close()


async def as_fast_as_they_come(opened: Sequence[Connection], request: bytes, seconds: float) -> int:
    """How many whole answers came while every connection asked again at once."""
    until, answers = time.monotonic() + seconds, 0

    async def ask(connection: Connection) -> None:
        nonlocal answers
        while time.monotonic() < until:
            await connection.ask(request)
            answers += 1

    await asyncio.gather(*map(ask, opened))
    return answers


async def at_a_rate(opened: Sequence[Connection], request: bytes, rate: float, seconds: float) -> list[float]:
    """Seconds from when each request was due to the end of its answer, ascending."""
    free, waiting, took = deque(opened), deque[float](), list[float]()
    begun = time.monotonic()

    async def ask(connection: Connection, due: float) -> None:
        await connection.ask(request)
        took.append(time.monotonic() - due)
        free.append(connection)

    tasks: list[asyncio.Task[None]] = []
    for number in range(int(rate * seconds)):
        due = begun + number / rate
        pause = due - time.monotonic()
        if pause > 0:
            await asyncio.sleep(pause)
        waiting.append(due)
        while waiting and free:
            tasks.append(asyncio.create_task(ask(free.popleft(), waiting.popleft())))
    await asyncio.gather(*tasks)
    return sorted(took)
