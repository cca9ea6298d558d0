"""One HTTP request and its answer, over ASGI: headers in, body in, and either a whole answer or a stream out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from typing import Any

from haif.base import limits
from haif.gateway.admission import Headers, too_large
from haif.gateway.errors import Problem, Rejected
from haif.gateway.letters import Letter

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Coroutine[Any, Any, None]]

JSON = b"application/json"
EVENT_STREAM = b"text/event-stream; charset=utf-8"


class Disconnected(Exception):
    """The tenant hung up."""


class Exchange:
    """What handlers see of one request. `out` are headers that go with whatever answer it gets."""

    def __init__(self, scope: Message, receive: Receive, send: Send, request_id: str) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.client: tuple[str, int] | None = scope.get("client")
        self.headers: Headers = dict(scope["headers"])
        self.letter: Letter | None = scope.get("haif.letter")  # it is a dead letter that is run again
        self.gone: asyncio.Future[None] | None = scope.get("haif.gone")  # done when the tenant has hung up
        self.request_id = request_id
        self.out: list[tuple[bytes, bytes]] = [(b"x-request-id", request_id.encode())]
        self.model = "unknown"  # as metrics may name it
        self.endpoint = "other"  # the same
        self.status = 0  # of the answer, once it began
        self.streaming = False
        self.finished = False
        self.refusal: Callable[[Problem, str], bytes] = Problem.body  # how an error is said, and with which request id
        self.broken: Callable[[Problem], bytes] = Problem.event  # the same, where a stream has begun
        self._keep: Callable[[bytes], Awaitable[None]] | None = None
        self._kept: list[bytes] = []
        self.kind = JSON
        self._write: Callable[[bytes], bool] | None = scope.get("haif.write")  # says a piece of a stream at once
        self._receive = receive
        self._send = send
        self._starting = asyncio.Lock()

    async def body(self) -> bytes:
        """The whole body. Raises `Rejected` (too large, too slow) or `Disconnected`."""
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(limits.HTTP_BODY_SECONDS):
                more = True
                while more:
                    message = await self._receive()
                    if message["type"] == "http.disconnect":
                        raise Disconnected
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > limits.HTTP_BODY_BYTES_MAX:
                        raise too_large()
                    more = message.get("more_body", False)
        except TimeoutError:
            raise Rejected("the body did not arrive in time", code="request_body_timeout", status=408) from None
        return b"".join(parts)

    async def reply(self, body: bytes, *, status: int = 200, kind: bytes = JSON) -> None:
        """The whole answer at once."""
        self.kind = kind
        headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body)), *self.out]
        await self._start(status, headers)
        await self._end(body)

    async def refuse(self, problem: Problem) -> None:
        """An error: as the answer, or, when a stream has begun, as its last event."""
        if self.finished:
            return
        self._keep = None
        if self.streaming:
            await self._end(self.broken(problem))
            return
        self.out += problem.headers()
        if problem.status == 408:
            self.out.append((b"connection", b"close"))  # nobody knows when the rest of the body would come
        await self.reply(self.refusal(problem, self.request_id), status=problem.status)

    def keep(self, keep: Callable[[bytes], Awaitable[None]]) -> None:
        """Have the whole body handed to `keep` before its end is sent, unless it ends with an error."""
        self._keep = keep

    async def begin_stream(self) -> None:
        """From here on the answer is a stream of events; its status is 200 and cannot change."""
        async with self._starting:  # the first token and a keep-alive may both want to begin
            if not self.streaming:
                kind = [(b"content-type", EVENT_STREAM), (b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
                self.kind = EVENT_STREAM
                await self._start(200, [*kind, *self.out])
                self.streaming = True

    def event(self, data: bytes) -> Coroutine[Any, Any, None] | None:
        """Some events, or a comment; what it returns is awaited before the next, unless all is said."""
        if self._keep is not None:
            self._kept.append(data)
        if self._write is not None and self._write(data):
            return None
        return self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end_stream(self, data: bytes) -> None:
        """The last events."""
        await self._end(data)

    async def _start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.status = status
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def _end(self, data: bytes) -> None:
        self.finished = True
        if self._keep is not None:
            await self._keep(b"".join([*self._kept, data]))
        await self._send({"type": "http.response.body", "body": data, "more_body": False})
