"""The calls a connection serves: handlers run as its tasks, and stop when their call is cancelled, late or lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from haif.base.clock import Clock
from haif.base.errors import ConnectionLost, Dropped, Forbidden, HaifError, Misuse, Oversize, Reason, Unsupported
from haif.base.traffic import Terms
from haif.wire.events import Called, Event, Stopped
from haif.wire.rpc import Rpc
from haif.wire.service.api import CALL, Call, Handler, StreamHandler
from haif.wire.service.host import Pace
from haif.wire.service.methods import Methods
from haif.wire.service.session import Session
from haif.wire.service.statistics import Tally

_log = logging.getLogger(__name__)


class Serving:
    """Answers the peer of one session with `methods`. `running` holds the tasks by their stream."""

    def __init__(self, session: Session, rpc: Rpc, methods: Methods, *, clock: Clock, tally: Tally, pace: Pace) -> None:
        self.running: dict[int, asyncio.Task[None]] = {}
        self.rooms: dict[int, asyncio.Future[None]] = {}  # streams that wait until the peer takes more
        self._stopping: set[asyncio.Task[None]] = set()
        self._session = session
        self._rpc = rpc
        self._methods = methods
        self._clock = clock
        self._tally = tally
        self._pace = pace
        self._loop = asyncio.get_running_loop()

    def events(self) -> dict[type[Event], Callable[[Any], None]]:
        """What to tell us of."""
        return {Called: self._on_called, Stopped: self._on_stopped}

    def let_go_on(self) -> None:
        """Wake the streams that may send again."""
        for stream in [stream for stream in self.rooms if self._rpc.writable(stream)]:
            room = self.rooms.pop(stream)
            if not room.done():
                room.set_result(None)

    # --- events -------------------------------------------------------------------------------------------------------

    def _on_called(self, event: Called) -> None:
        work: Coroutine[Any, Any, None]
        try:
            if event.streaming:
                streamer, terms = self._methods.streams[event.method]
                work = self._stream(event.stream, streamer, self._call(event, terms))
            else:
                handler, terms = self._methods.calls[event.method]
                work = self._answer(event.stream, handler, self._call(event, terms))
        except KeyError:
            kind = "stream" if event.streaming else "call"
            self._rpc.fail(event.stream, Unsupported(f"no {kind} named {event.method!r} is served here"))
        except (Oversize, Forbidden) as error:
            self._tally.drop(Dropped(error.reason, self._session.peer, error.message))
            self._rpc.fail(event.stream, error)
        else:
            self.running[event.stream] = self._loop.create_task(work)

    def _call(self, event: Called, terms: Terms) -> Call:
        """What the handler is given. Raises `Oversize` (the argument) or `Forbidden` (the peer's roles)."""
        session, deadline = self._session, event.deadline
        if terms is not CALL:
            if terms.callers and session.roles is not None and terms.callers.isdisjoint(session.roles):
                raise Forbidden(
                    f"{event.method} is for {', '.join(sorted(terms.callers))}; you were admitted as "
                    f"{', '.join(sorted(session.roles))}"
                )
            if len(event.argument) > terms.argument_bytes_max:
                raise Oversize(f"{event.method} takes at most {terms.argument_bytes_max} bytes", session.peer)
            deadline = deadline.shrunk(terms.seconds_max, self._clock.now())
            self._rpc.accept(event.stream, terms.traffic, deadline)
        return Call(event.method, event.argument, session.peer, session.scope, deadline, event.metadata)

    def _on_stopped(self, event: Stopped) -> None:
        task = self.running.pop(event.stream, None)
        if task is not None and task.cancel():
            self._stopping.add(task)
            task.add_done_callback(self._stopping.discard)

    # --- handlers -----------------------------------------------------------------------------------------------------

    async def _answer(self, stream: int, handler: Handler, call: Call) -> None:
        await self._handle(stream, call, self._reply(stream, handler, call))

    async def _reply(self, stream: int, handler: Handler, call: Call) -> None:
        self._rpc.reply(stream, await handler(call))

    async def _stream(self, stream: int, handler: StreamHandler, call: Call) -> None:
        await self._handle(stream, call, self._send_all(stream, handler(call)))

    async def _send_all(self, stream: int, messages: AsyncIterator[bytes]) -> None:
        rpc, pace = self._rpc, self._pace
        try:
            async for message in messages:
                rpc.send(stream, message)
                if not pace.scheduled:
                    pace.schedule()
                if not rpc.writable(stream):
                    await self._room(stream)
            rpc.finish(stream)
        finally:
            close = getattr(messages, "aclose", None)
            if close is not None:
                await close()

    async def _room(self, stream: int) -> None:
        room = self.rooms[stream] = self._loop.create_future()
        try:
            await room
        finally:
            self.rooms.pop(stream, None)

    async def _handle(self, stream: int, call: Call, work: Coroutine[Any, Any, None]) -> None:
        """The top of a handler's task: whatever it raises becomes the answer."""
        try:
            await work
        except HaifError as error:
            if isinstance(error, Misuse):
                self._report(call, error)
            self._rpc.fail(stream, error)
        except asyncio.CancelledError:
            self._rpc.fail(stream, ConnectionLost("the call was stopped by the peer that served it"))
            raise
        except Exception as error:  # noqa: BLE001  # the top of a supervised task: reported, and told without details
            self._report(call, error)
            self._rpc.fail(stream, Misuse("a handler failed"))
        finally:
            self.running.pop(stream, None)
            if not self._pace.scheduled:
                self._pace.schedule()

    def _report(self, call: Call, error: Exception) -> None:
        _log.error("the handler of %s failed; this is a bug to report", call.method, exc_info=error)
        self._tally.drop(Dropped(Reason.MISUSE, call.peer, f"{call.method}: {type(error).__name__}"))
