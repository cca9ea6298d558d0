"""Drives one `SessionMachine` over a socket, and is what applications hold of it.

Everything that happens in one turn of the event loop leaves in one write. Handlers run as tasks of the connection; when
their call is cancelled, late, or the session gone, so are they.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from types import TracebackType
from typing import Any, Protocol, Self, cast

from haif.base.clock import Clock, Deadline, Instant
from haif.base.errors import ConnectionLost, HaifError, Misuse, Unsupported
from haif.base.ids import Digest, PeerId
from haif.wire.events import (
    Answered,
    Called,
    Closed,
    Ended,
    Established,
    Event,
    Failed,
    GoingAway,
    Received,
    Stopped,
)  # fmt: skip
from haif.wire.service.api import Call, Handler, StreamHandler
from haif.wire.session import SessionMachine

_log = logging.getLogger(__name__)


class Host(Protocol):
    """What a connection needs of the wire it belongs to."""

    clock: Clock
    handlers: dict[str, Handler]
    stream_handlers: dict[str, StreamHandler]
    bytes_in: int
    bytes_out: int

    def admit(self, connection: Connection) -> bool:
        """Whether there is room for one more handshake."""

    def welcome(self, connection: Connection) -> HaifError | None:
        """The handshake is done; an error if the session may not stay."""

    def leaving(self, connection: Connection) -> None:
        """The peer takes no new calls."""

    def gone(self, connection: Connection, error: HaifError) -> None:
        """The session is over."""

    def misbehaved(self, peer: PeerId, detail: str) -> None:
        """A handler of ours failed in a way it should not."""


class Connection(asyncio.Protocol):
    """The asyncio side of a session. `opened` is done when the handshake is, `over` when the socket is gone."""

    def __init__(self, host: Host, make: Callable[[], SessionMachine]) -> None:
        self._host = host
        self._make = make
        self._loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[Session] = self._loop.create_future()
        self.over: asyncio.Future[None] = self._loop.create_future()
        self.machine: SessionMachine
        self.session: Session | None = None
        self.running: dict[int, asyncio.Task[None]] = {}
        self._stopping: set[asyncio.Task[None]] = set()
        self._calls: dict[int, asyncio.Future[bytes]] = {}
        self._streams: dict[int, Stream] = {}
        self._rooms: dict[int, asyncio.Future[None]] = {}
        self._transport: asyncio.Transport
        self._paused = False
        self._scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = Instant(0)
        self._on: dict[type[Event], Callable[[Any], None]] = {
            Established: self._on_established, Called: self._on_called, Stopped: self._on_stopped,
            Answered: self._on_answered, Received: self._on_received, Ended: self._on_ended,
            Failed: self._on_failed, GoingAway: self._on_going_away, Closed: self._on_closed,
        }  # fmt: skip

    # --- asyncio calls these ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the handshake, if there is room for it."""
        self._transport = cast("asyncio.Transport", transport)
        _send_at_once(self._transport)
        self.machine = self._make()
        if self._host.admit(self):
            self.schedule()
        else:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Hand bytes to the machine and act on what it says."""
        self._host.bytes_in += len(data)
        self.machine.receive(data, self._host.clock.now())
        self._dispatch()
        self.schedule()

    def pause_writing(self) -> None:
        """The socket takes no more for now; the machine keeps what waits, within its credit."""
        self._paused = True

    def resume_writing(self) -> None:
        """The socket takes more."""
        self._paused = False
        self.schedule()

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        why = f"the connection broke: {exc}" if exc else "the peer closed the connection"
        if self.machine.established is None:
            why += " during the handshake; it may be of another network, or not know us"
        self.close(ConnectionLost(why))
        if not self.over.done():
            self.over.set_result(None)

    # --- driving the machine ------------------------------------------------------------------------------------------

    def schedule(self) -> None:
        """Have everything that is ready leave at the end of this turn of the loop."""
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write what may leave now, let waiting streams go on, and set the timer."""
        self._scheduled = False
        machine, now = self.machine, self._host.clock.now()
        while not self._paused and (data := machine.outgoing(now)):
            self._host.bytes_out += len(data)
            self._transport.write(data)
        if self._rooms:
            self._let_go_on()
        wake_at = machine.wake_at()
        if wake_at is not None and (self._timer is None or wake_at < self._timer_at):
            self._set_timer(wake_at, now)

    def close(self, error: HaifError) -> None:
        """End the session, without waiting for anything."""
        self.machine.close(error)
        self._dispatch()

    def abort(self) -> None:
        """Let go of the socket at once, whatever was still to be written."""
        self._transport.abort()

    def _dispatch(self) -> None:
        on, next_event = self._on, self.machine.next_event
        while (event := next_event()) is not None:
            on[type(event)](event)

    def _set_timer(self, at: Instant, now: Instant) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._loop.call_later(max(0.0, at - now), self._wake)

    def _wake(self) -> None:
        self._timer = None
        self.machine.wake(self._host.clock.now())
        self._dispatch()
        self.flush()

    def _let_go_on(self) -> None:
        for stream in [stream for stream in self._rooms if self.machine.rpc.writable(stream)]:
            room = self._rooms.pop(stream)
            if not room.done():
                room.set_result(None)

    # --- events -------------------------------------------------------------------------------------------------------

    def _on_established(self, event: Established) -> None:
        error = self._host.welcome(self)
        if error is not None:
            self.machine.close(error)
            return
        self.session = Session(self, event.peer, event.scope)
        self.opened.set_result(self.session)

    def _on_called(self, event: Called) -> None:
        assert self.session is not None
        call = Call(
            event.method, event.argument, self.session.peer, self.session.scope, event.deadline, event.metadata
        )  # fmt: skip
        if event.streaming and event.method in self._host.stream_handlers:
            work = self._stream(event.stream, self._host.stream_handlers[event.method], call)
        elif not event.streaming and event.method in self._host.handlers:
            work = self._answer(event.stream, self._host.handlers[event.method], call)
        else:
            kind = "stream" if event.streaming else "call"
            self.machine.rpc.fail(event.stream, Unsupported(f"no {kind} named {event.method!r} is served here"))
            return
        self.running[event.stream] = self._loop.create_task(work)

    def _on_stopped(self, event: Stopped) -> None:
        task = self.running.pop(event.stream, None)
        if task is not None and task.cancel():
            self._stopping.add(task)
            task.add_done_callback(self._stopping.discard)

    def _on_answered(self, event: Answered) -> None:
        future = self._calls.pop(event.stream)
        if not future.done():
            future.set_result(event.result)

    def _on_received(self, event: Received) -> None:
        self._streams[event.stream].feed(event.message)

    def _on_ended(self, event: Ended) -> None:
        self._streams.pop(event.stream).end(StopAsyncIteration())

    def _on_failed(self, event: Failed) -> None:
        future = self._calls.pop(event.stream, None)
        if future is None:
            self._streams.pop(event.stream).end(event.error)
        elif not future.done():
            future.set_exception(event.error)

    def _on_going_away(self, _event: GoingAway) -> None:
        self._host.leaving(self)

    def _on_closed(self, event: Closed) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self.opened.done():
            self.opened.set_exception(event.error)
            self.opened.exception()  # who dialled awaits it; nobody awaits it where we were dialled
        self._transport.close() if isinstance(event.error, ConnectionLost) else self._transport.abort()
        self._host.gone(self, event.error)

    # --- handlers -----------------------------------------------------------------------------------------------------

    async def _answer(self, stream: int, handler: Handler, call: Call) -> None:
        await self._handle(stream, call, self._reply(stream, handler, call))

    async def _reply(self, stream: int, handler: Handler, call: Call) -> None:
        self.machine.rpc.reply(stream, await handler(call))

    async def _stream(self, stream: int, handler: StreamHandler, call: Call) -> None:
        await self._handle(stream, call, self._send_all(stream, handler(call)))

    async def _send_all(self, stream: int, messages: AsyncIterator[bytes]) -> None:
        rpc = self.machine.rpc
        try:
            async for message in messages:
                rpc.send(stream, message)
                if not rpc.writable(stream):
                    await self._room(stream)
                elif not self._scheduled:
                    self.schedule()
            rpc.finish(stream)
        finally:
            close = getattr(messages, "aclose", None)
            if close is not None:
                await close()

    async def _room(self, stream: int) -> None:
        self.schedule()
        room = self._rooms[stream] = self._loop.create_future()
        try:
            await room
        finally:
            self._rooms.pop(stream, None)

    async def _handle(self, stream: int, call: Call, work: Coroutine[Any, Any, None]) -> None:
        """The top of a handler's task: whatever it raises becomes the answer."""
        try:
            await work
        except HaifError as error:
            if isinstance(error, Misuse):
                self._report(call, error)
            self.machine.rpc.fail(stream, error)
        except asyncio.CancelledError:
            self.machine.rpc.fail(stream, ConnectionLost("the call was stopped by the peer that served it"))
            raise
        except Exception as error:  # noqa: BLE001  # the top of a supervised task: reported, and told without details
            self._report(call, error)
            self.machine.rpc.fail(stream, Misuse("a handler failed"))
        finally:
            self.running.pop(stream, None)
            self.schedule()

    def _report(self, call: Call, error: Exception) -> None:
        _log.error("the handler of %s failed; this is a bug to report", call.method, exc_info=error)
        self._host.misbehaved(call.peer, f"{call.method}: {type(error).__name__}")

    # --- what sessions use --------------------------------------------------------------------------------------------

    def begin(
        self, method: str, argument: bytes, timeout: float, metadata: Mapping[str, str] | None, *, streaming: bool
    ) -> int:
        """Begin a call; its stream id."""
        machine = self.machine
        if machine.closed is not None:
            raise ConnectionLost(f"the session is over ({machine.closed}); connect again")
        now = self._host.clock.now()
        stream = machine.rpc.call(
            method, argument, Deadline.after(timeout, now), now, metadata=metadata, streaming=streaming
        )
        if not self._scheduled:
            self.schedule()
        return stream

    def expect(self, stream: int) -> asyncio.Future[bytes]:
        """The answer to come."""
        future = self._calls[stream] = self._loop.create_future()
        return future

    def follow(self, stream: int, follower: Stream) -> None:
        """Feed `follower` with what comes on `stream`."""
        self._streams[stream] = follower

    def give_up(self, stream: int) -> None:
        """Nobody wants this call's answer any more."""
        self._calls.pop(stream, None)
        self._streams.pop(stream, None)
        self.machine.rpc.cancel(stream, self._host.clock.now())
        self.schedule()

    def consumed(self, stream: int, message: bytes) -> None:
        """A stream's message was taken."""
        rpc = self.machine.rpc
        rpc.consumed(stream, message)
        if rpc.out.size and not self._scheduled:
            self.schedule()


class Session:
    """An open, authenticated channel to `peer`. `scope` names the channel: the handshake's hash."""

    __slots__ = ("_connection", "peer", "scope")

    def __init__(self, connection: Connection, peer: PeerId, scope: Digest) -> None:
        self._connection = connection
        self.peer = peer
        self.scope = scope

    @property
    def usable(self) -> bool:
        """Whether a new call could be made on it now."""
        machine = self._connection.machine
        return machine.closed is None and not machine.rpc.going_away

    async def call(
        self,
        method: str,
        argument: bytes,
        *,
        timeout: float,  # noqa: ASYNC109  # it travels to the peer, and the session enforces it on both sides
        metadata: Mapping[str, str] | None = None,
    ) -> bytes:
        """The peer's answer within `timeout` seconds. Cancelling this cancels the handler there.

        Raises what the peer answered with (`from_reason`), `Timeout`, `ConnectionLost` or `Overloaded`.
        """
        connection = self._connection
        stream = connection.begin(method, argument, timeout, metadata, streaming=False)
        try:
            return await connection.expect(stream)
        except asyncio.CancelledError:
            connection.give_up(stream)
            raise

    def stream(
        self, method: str, argument: bytes, *, timeout: float, metadata: Mapping[str, str] | None = None
    ) -> Stream:
        """The peer's messages, as an async context manager over an async iterator; `timeout` is for the whole stream.

        Leaving early cancels the handler there. The iteration ends well or raises what the peer ended it with,
        `Timeout` or `ConnectionLost`; messages that came before are delivered first.
        """
        return Stream(self._connection, method, argument, timeout, metadata)


class Stream:
    """A stream of messages from a peer. Credit goes back as they are taken, so a slow reader slows the sender."""

    def __init__(
        self, connection: Connection, method: str, argument: bytes, timeout: float, metadata: Mapping[str, str] | None
    ) -> None:
        self._connection = connection
        self._request = (method, argument, timeout, metadata)
        self._id = 0
        self._messages: deque[bytes] = deque()
        self._end: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None

    async def __aenter__(self) -> Self:
        if self._id:
            raise Misuse("a stream is entered once")
        self._id = self._connection.begin(*self._request, streaming=True)
        self._connection.follow(self._id, self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._end is None:
            self._end = StopAsyncIteration()
            self._connection.give_up(self._id)
        while self._messages:
            self._connection.consumed(self._id, self._messages.popleft())

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        while not self._messages:
            if self._end is not None:
                raise self._end
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        message = self._messages.popleft()
        self._connection.consumed(self._id, message)
        return message

    def feed(self, message: bytes) -> None:
        """A message came."""
        self._messages.append(message)
        self._rouse()

    def end(self, end: Exception) -> None:
        """Nothing comes after what was fed; `end` is raised then."""
        self._end = end
        self._rouse()

    def _rouse(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


def _send_at_once(transport: asyncio.Transport) -> None:
    """No waiting for more (Nagle): we gather writes ourselves, per turn of the loop."""
    endpoint = transport.get_extra_info("socket")
    if endpoint is not None:
        endpoint.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
