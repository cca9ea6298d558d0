"""WebSockets beside HTTP (`gateway.socket` has their language): each request on one is a request to the application.

So a key is looked at again for every request, quotas and budgets hold, and an error is the one that HTTP would give.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

from haif.base import limits
from haif.base.errors import Forbidden, HaifError, InvalidRequest, Overloaded
from haif.gateway.admission import key_of
from haif.gateway.errors import Problem, Rejected, TooManyAtOnce, problem_of
from haif.gateway.service.exchange import Message, Receive, Send
from haif.gateway.service.live import LiveDirectory
from haif.gateway.socket import PATH, SUBPROTOCOL, Asked, Teller, headers_of, parse
from haif.wire.crowd import origin

Application = Callable[[Message, Receive, Send], Any]
_WRONG_KIND = 1003  # of RFC 6455, section 7.4.1: data of a kind that is not understood
_TOO_BIG = 1009


class BoundedSocket(WebSocketsSansIOProtocol):
    """uvicorn's protocol with a limit on the pieces of a message; it tells who counts connections when it is lost."""

    on_lost: Callable[[], None]

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        super().connection_lost(exc)
        self.on_lost()

    def handle_cont(self, event: Frame) -> None:
        """Take a piece. A message in a million pieces of a byte would cost sixty times its size."""
        if len(self.frames) >= limits.WEBSOCKET_PIECES_MAX:
            self.conn.fail(_TOO_BIG, "too many pieces")
            self.handle_parser_exception()
            return
        super().handle_cont(event)


class Sockets:
    """Answers connections to `PATH`. Pages of other origins than these are not let in: CORS does not hold here."""

    def __init__(self, app: Application, tenants: LiveDirectory, origins: Collection[str]) -> None:
        self._app = app
        self._tenants = tenants
        self._origins = origins
        self._open: Counter[str] = Counter()  # by address; bounded as connections are

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Refuse a connection, in words that HTTP clients read too, or serve it until it ends."""
        await receive()  # websocket.connect
        came_from = origin(scope["client"][0])
        try:
            await self._check(scope, dict(scope["headers"]))
            if not came_from.here and self._open[came_from.address] >= limits.WEBSOCKETS_PER_ADDRESS_MAX:
                raise TooManyAtOnce(
                    f"{came_from.address} has {self._open[came_from.address]} WebSockets open: the limit is "
                    f"{limits.WEBSOCKETS_PER_ADDRESS_MAX}. Close one first, or ask several things over one.",
                    retry_after=limits.CONCURRENCY_RETRY_SECONDS,
                )
        except HaifError as error:
            await _refuse(send, problem_of(error))
            return
        self._open[came_from.address] += 1
        talks = _Talks(self._app, scope, send)
        try:
            await send({"type": "websocket.accept", "subprotocol": SUBPROTOCOL})
            while (message := await receive())["type"] != "websocket.disconnect":
                if (text := message.get("text")) is None:
                    await send({"type": "websocket.close", "code": _WRONG_KIND, "reason": "messages are JSON text"})
                    break
                await talks.hear(text)
        finally:
            await talks.close()
            self._open[came_from.address] -= 1
            if not self._open[came_from.address]:
                del self._open[came_from.address]

    async def _check(self, scope: Message, headers: dict[bytes, bytes]) -> None:
        if scope["path"] != PATH:
            raise Rejected(f"there is no WebSocket at {scope['path'][:200]}", code="not_found", status=404)
        if SUBPROTOCOL not in scope["subprotocols"]:
            raise InvalidRequest(f"offer the sub-protocol {SUBPROTOCOL}", param="Sec-WebSocket-Protocol")
        page = headers.get(b"origin")
        if page is not None and page.decode("latin-1") not in self._origins:
            raise Forbidden("web pages of this origin may not call this gateway")
        await self._tenants.grant_of(key_of(headers))


class _Talks:
    """What is asked over one connection and not answered yet."""

    def __init__(self, app: Application, scope: Message, send: Send) -> None:
        self._app = app
        self._scope = scope
        self._send = send
        self._open: dict[str, asyncio.Future[None]] = {}  # by id, what is done when nobody wants the answer any more
        self._tasks: set[asyncio.Task[None]] = set()

    async def hear(self, text: str) -> None:
        """A message came."""
        name = None
        try:
            asked = parse(text)
            name = asked.id
            if asked.cancel:
                self._hang_up(asked.id)
            else:
                self._begin(asked)
        except HaifError as error:
            await self._tell(Teller(name), problem_of(error))

    def _begin(self, asked: Asked) -> None:
        if asked.id in self._open:
            raise Rejected(f"{asked.id!r} is being answered: take another id", code="invalid_value", param="id")
        if len(self._open) >= limits.WEBSOCKET_REQUESTS_MAX:
            raise Overloaded(f"{len(self._open)} requests of this connection are being answered", retry_after=1.0)
        gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._open[asked.id] = gone
        task = asyncio.create_task(self._answer(asked, gone), name=f"socket {asked.id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _hang_up(self, name: str) -> None:
        if name in self._open and not self._open[name].done():
            self._open[name].set_result(None)

    async def _answer(self, asked: Asked, gone: asyncio.Future[None]) -> None:
        teller, body = Teller(asked.id), bytes(asked.body)

        async def receive() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                told = teller.head(message["status"], message["headers"])
            else:
                told = teller.part(message["body"], more=message.get("more_body", False))
            for each in told:
                if teller.whole:
                    self._open.pop(asked.id, None)  # before the client can know that its id is free
                await self._say(each)

        scope = {
            "type": "http", "method": "POST", "path": asked.path, "client": self._scope["client"], "haif.gone": gone,
            "headers": headers_of(asked, self._scope["headers"]),
        }  # fmt: skip
        await self._app(scope, receive, send)
        if not teller.whole:
            self._open.pop(asked.id, None)
            await self._say(teller.done())

    async def _tell(self, teller: Teller, problem: Problem) -> None:
        for _ in teller.head(problem.status, problem.headers()):
            pass
        for each in teller.part(problem.body(""), more=False):
            await self._say(each)

    async def _say(self, message: bytes) -> None:
        with suppress(OSError):  # it has ended: `receive` says so, and every answer with it
            await self._send({"type": "websocket.send", "text": message.decode()})

    async def close(self) -> None:
        """Nobody listens any more: every answer ends as if its tenant had hung up."""
        for name in list(self._open):
            self._hang_up(name)
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _refuse(send: Send, problem: Problem) -> None:
    headers = [(b"content-type", b"application/json"), *problem.headers()]
    await send({"type": "websocket.http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": problem.body("")})
