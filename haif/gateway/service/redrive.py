"""Dead letters run again: as the requests they were, through the same door, for tenants that come back for answers."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable

from haif.base import limits
from haif.base.errors import Dropped, HaifError, Reason
from haif.gateway.letters import Letter, Payload, Standing, open_payload
from haif.gateway.once import HEADER
from haif.gateway.service.exchange import JSON, Message, Receive, Send
from haif.gateway.service.letters import Letters
from haif.telemetry import names
from haif.telemetry.service import Telemetry

_log = logging.getLogger(__name__)
App = Callable[[Message, Receive, Send], Awaitable[None]]


class Redriver:
    """Looks for letters to run, and tells how many lie there, until it is cancelled."""

    def __init__(self, app: App, letters: Letters, secret: bytes, telemetry: Telemetry) -> None:
        self._app = app
        self._letters = letters
        self._secret = secret
        self._telemetry = telemetry
        self._running: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Once a second. A failure is reported, and what was not done is done later."""
        try:
            await self._letters.begin()
            while True:
                try:
                    await self._look()
                except (HaifError, sqlite3.Error) as error:
                    _log.warning("the dead letters could not be read: %s", error)
                    self._telemetry.dropped(Dropped(getattr(error, "reason", Reason.MISUSE), detail="letters"))
                await asyncio.sleep(limits.LETTERS_LOOK_SECONDS)
        finally:
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)

    async def _look(self) -> None:
        for letter in await self._letters.take(limits.LETTERS_AT_ONCE_MAX - len(self._running)):
            task = asyncio.create_task(self._redrive(letter), name=f"letter {letter.job}")
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        depth = await self._letters.depth()
        self._telemetry.gauge(names.DLQ_LETTERS, depth.letters)
        self._telemetry.gauge(names.DLQ_OLDEST_SECONDS, depth.oldest_seconds)

    async def _redrive(self, letter: Letter) -> None:
        """Ask as the tenant did. The gateway's own door checks key, quota, policy and what was answered before."""
        assert letter.payload is not None, "only what is there is taken"
        status = 0
        try:
            status = await self._ask(letter, open_payload(self._secret, letter.job, letter.payload))
        except HaifError as error:
            self._telemetry.dropped(Dropped(error.reason, detail="letters"))
        answered = status == 200
        self._telemetry.count(names.DLQ_REDRIVEN, outcome="answered" if answered else "failed")
        await self._letters.ended(letter.job, Standing.ANSWERED if answered else Standing.DEAD)

    async def _ask(self, letter: Letter, payload: Payload) -> int:
        told: list[int] = []
        came = False

        async def receive() -> Message:
            nonlocal came
            if came:
                await asyncio.Event().wait()  # nobody hangs up
            came = True
            return {"type": "http.request", "body": payload.body, "more_body": False}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                told.append(message["status"])

        scope = {
            "type": "http", "method": "POST", "path": payload.path, "client": None, "haif.letter": letter,
            "headers": [(b"content-type", JSON), (HEADER, payload.key)],
        }  # fmt: skip
        await self._app(scope, receive, send)
        return told[0] if told else 0
