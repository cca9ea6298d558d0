"""Drives one `SessionMachine` over a socket, or over the next one it moves to, and is what applications hold of it.

Everything that happens in one turn of the event loop leaves in one write. Handlers run as tasks of the connection; when
their call is cancelled, late, or the session gone, so are they.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import Any

from haif.base import limits
from haif.base.clock import Deadline, Instant
from haif.base.errors import ConnectionLost, Forbidden, HaifError, Misuse, Oversize, Unsupported
from haif.base.machine import Address
from haif.base.traffic import Terms, Traffic
from haif.wire.events import (
    Aged,
    Answered,
    Arrived,
    Called,
    Closed,
    Ended,
    Established,
    Event,
    Failed,
    GoingAway,
    Knocked,
    Moved,
    Received,
    Stayed,
    Stopped,
)  # fmt: skip
from haif.wire.path import Arrival
from haif.wire.service.api import CALL, Call, Handler, StreamHandler
from haif.wire.service.host import Host
from haif.wire.service.path import Path
from haif.wire.service.session import Session, Stream
from haif.wire.session import SessionMachine

_log = logging.getLogger(__name__)


class Connection:
    """The asyncio side of a session. `opened` is done when the handshake is, `over` when its last socket is gone."""

    def __init__(self, host: Host[Connection], make: Callable[[str], SessionMachine]) -> None:
        """`make` is given the IP address of the other side."""
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
        self.path = Path(self, 0)  # which we write on
        self._paths = {0: self.path}
        self._moves: dict[int, asyncio.Future[None]] = {}
        self.address: Address | None = None  # where we dialled it
        self._polite = False
        self._retiring = False
        self._scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = Instant(0)
        self._on: dict[type[Event], Callable[[Any], None]] = {
            Established: self._on_established, Called: self._on_called, Stopped: self._on_stopped,
            Answered: self._on_answered, Received: self._on_received, Ended: self._on_ended,
            Failed: self._on_failed, GoingAway: self._on_going_away, Aged: self._on_aged, Closed: self._on_closed,
            Arrived: self._on_arrived, Knocked: self._on_knocked, Moved: self._on_moved, Stayed: self._on_stayed,
        }  # fmt: skip

    # --- its paths call these -----------------------------------------------------------------------------------------

    def begin_on(self, source: str) -> None:
        """The first path is there, from this IP address: begin the handshake, if there is room for it."""
        self.machine = self._make(source)
        refusal = self._host.admit(self)
        if refusal is None:
            self.schedule()
        else:
            self.close(refusal)

    @property
    def incoming(self) -> memoryview:
        """Where paths put what came: one place for all connections, since each is emptied at once."""
        return self._host.incoming

    def received(self, path: Path, data: bytes) -> None:
        """Hand bytes to the machine and act on what it says."""
        self._host.bytes_in += len(data)
        self.machine.receive(data, self._host.clock.now(), path.number)
        self._dispatch()
        if len(self._paths) > 1:
            self._hold_back()
        self.schedule()

    def lost(self, path: Path, exc: Exception | None) -> None:
        """A path's socket is gone."""
        self._paths.pop(path.number, None)
        why = f"the connection broke: {exc}" if exc else "the peer closed the connection"
        if self.machine.established is None:
            why += " during the handshake; it may be of another network, or not know us"
        self.machine.lost(path.number, ConnectionLost(why))
        self._dispatch()
        if not self._paths and not self.over.done():
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
        if not self._paths:
            return
        machine, now = self.machine, self._host.clock.now()
        while not self.path.paused and (data := machine.outgoing(now)):
            self._host.bytes_out += len(data)
            self.path.write(data)
            if machine.closed is None and machine.established and self.path.number != machine.paths.writing:
                self._turn()
        if self._rooms:
            self._let_go_on()
        wake_at = machine.wake_at()
        if wake_at is not None and (self._timer is None or wake_at < self._timer_at):
            self._set_timer(wake_at, now)
        if self._retiring and machine.rpc.quiet():
            self._retiring = False
            self.leave(ConnectionLost("another session has taken this one's place"))

    def retire(self) -> None:
        """Make and take no new calls; end when those under way are over."""
        self._retiring = True
        self.machine.rpc.drain()
        self.schedule()

    def leave(self, error: HaifError) -> None:
        """End the session after what is ready has been written."""
        self.flush()
        self._polite = True
        self.close(error)

    def close(self, error: HaifError) -> None:
        """End the session, without waiting for anything."""
        self.machine.close(error)
        self._dispatch()

    def abort(self) -> None:
        """Let go of every socket at once, whatever was still to be written."""
        for path in [*self._paths.values()]:
            path.abort()

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
        self.session = Session(self, event.peer, event.scope, event.roles)
        self.opened.set_result(self.session)

    def _on_called(self, event: Called) -> None:
        work: Coroutine[Any, Any, None]
        try:
            if event.streaming:
                streamer, terms = self._host.stream_handlers[event.method]
                work = self._stream(event.stream, streamer, self._call(event, terms))
            else:
                handler, terms = self._host.handlers[event.method]
                work = self._answer(event.stream, handler, self._call(event, terms))
        except KeyError:
            kind = "stream" if event.streaming else "call"
            self.machine.rpc.fail(event.stream, Unsupported(f"no {kind} named {event.method!r} is served here"))
        except (Oversize, Forbidden) as error:
            assert self.session is not None
            self._host.refused(self.session.peer, error)
            self.machine.rpc.fail(event.stream, error)
        else:
            self.running[event.stream] = self._loop.create_task(work)

    def _call(self, event: Called, terms: Terms) -> Call:
        """What the handler is given. Raises `Oversize` (the argument) or `Forbidden` (the peer's roles)."""
        session, deadline = self.session, event.deadline
        assert session is not None
        if terms is not CALL:
            if terms.callers and session.roles is not None and terms.callers.isdisjoint(session.roles):
                raise Forbidden(
                    f"{event.method} is for {', '.join(sorted(terms.callers))}; you were admitted as "
                    f"{', '.join(sorted(session.roles))}"
                )
            if len(event.argument) > terms.argument_bytes_max:
                raise Oversize(f"{event.method} takes at most {terms.argument_bytes_max} bytes", session.peer)
            deadline = deadline.shrunk(terms.seconds_max, self._host.clock.now())
            self.machine.rpc.accept(event.stream, terms.traffic, deadline)
        return Call(event.method, event.argument, session.peer, session.scope, deadline, event.metadata)

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

    def _on_aged(self, _event: Aged) -> None:
        self._host.aged(self)

    def _on_closed(self, event: Closed) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self.opened.done():
            self.opened.set_exception(event.error)
            self.opened.exception()  # who dialled awaits it; nobody awaits it where we were dialled
        last = self.machine.outgoing(self._host.clock.now())
        if last:
            self._host.bytes_out += len(last)
            self.path.write(last)
            self._polite = self.path.waiting == 0
        for path in [*self._paths.values()]:
            path.close() if self._polite and path is self.path else path.abort()  # a silent peer never takes the rest
        for move in self._moves.values():
            _settle(move, event.error)
        self._moves.clear()
        self._host.gone(self, event.error)

    # --- moving to another path ---------------------------------------------------------------------------------------

    async def move(self, sock: socket.socket) -> None:
        """What `Session.move` says."""
        try:
            number, opening = self.machine.move(self._host.clock.now())
        except HaifError:
            sock.close()
            raise
        moved = self._moves[number] = self._loop.create_future()
        path = self._paths[number] = Path(self, number)
        try:
            await self._begin_move(path, sock, opening)
            await moved
        finally:
            self._moves.pop(number, None)
            if not moved.done() or moved.cancelled():
                self.machine.stay(number, ConnectionLost("the move was given up"))
                self._dispatch()

    async def _begin_move(self, path: Path, sock: socket.socket, opening: bytes) -> None:
        try:
            await self._loop.create_connection(lambda: path, sock=sock)
            path.write(opening)
            self._host.bytes_out += len(opening)
            self.schedule()
        except OSError as error:
            sock.close()
            self.lost(path, error)

    def join(self, arrival: Arrival, path: Path) -> None:
        """Take another connection's path for our next one, if it may be. Raises what `SessionMachine.joined` does."""
        number, answer = self.machine.joined(arrival, self._host.clock.now())
        self._dispatch()
        self._paths[number] = path
        path.belong(self, number)
        path.write(answer)
        self._host.bytes_out += len(answer)
        path.hold()
        self.schedule()

    def release(self) -> None:
        """Another connection has taken our only path: there never was a session here."""
        self._paths.clear()
        if self._timer is not None:
            self._timer.cancel()
        self.over.set_result(None)

    def _on_arrived(self, event: Arrived) -> None:
        try:
            session = self._host.arrived(self, event.arrival)
        except HaifError as error:
            self.machine.close(error)
        else:
            self.opened.set_result(session)

    def _on_knocked(self, event: Knocked) -> None:
        try:
            self._host.knocked(self, event.token, event.early)
        except HaifError as error:
            self.machine.close(error)
        else:
            self.opened.set_exception(Unsupported("no session came on this connection, but an end of a circuit"))
            self.opened.exception()  # nobody may be waiting for it

    def _on_moved(self, event: Moved) -> None:
        for number in [number for number in self._paths if number != event.path]:
            old = self._paths.pop(number)
            old.close()
            self._loop.call_later(limits.PATH_FINISH_SECONDS, old.abort)  # should the peer never take the rest
        self._hold_back()
        self._host.moved += 1
        _settle(self._moves.get(event.path), None)

    def _on_stayed(self, event: Stayed) -> None:
        path = self._paths.pop(event.path, None)
        if path is not None:
            path.abort()
        _settle(self._moves.get(event.path), event.error)

    def _turn(self) -> None:
        """What comes next leaves on another path."""
        self.path = self._paths[self.machine.paths.writing]
        self._dispatch()

    def _hold_back(self) -> None:
        """Read a new path only once the old one was left: what comes early waits where it is."""
        if self.machine.closed is not None or self.machine.established is None:
            return
        reading, new = self.machine.paths.reading, self.machine.paths.new
        for path in self._paths.values():
            if path.number > reading and (new is None or not new.ours or new.ready):
                path.hold()
            else:
                path.go_on()

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

    async def wait_over(self) -> None:
        """Until the last socket is gone."""
        await asyncio.shield(self.over)

    @property
    def remote(self) -> Address:
        """Where the other end of the path we write on is."""
        return self.path.remote

    @property
    def usable(self) -> bool:
        """Whether a new call could be made now."""
        rpc = self.machine.rpc
        return self.machine.closed is None and not rpc.going_away and not self._retiring

    def begin(
        self,
        method: str,
        argument: bytes,
        timeout: float,
        metadata: Mapping[str, str] | None,
        traffic: Traffic,
        *,
        streaming: bool,
    ) -> int:
        """Begin a call; its stream id."""
        machine = self.machine
        if machine.closed is not None:
            raise ConnectionLost(f"the session is over ({machine.closed}); connect again")
        now = self._host.clock.now()
        stream = machine.rpc.call(
            method, argument, Deadline.after(timeout, now), now,
            metadata=metadata, streaming=streaming, traffic=traffic,
        )  # fmt: skip
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


def _settle(move: asyncio.Future[None] | None, error: HaifError | None) -> None:
    """Tell who waits for a move how it went."""
    if move is None or move.done():
        return
    if error is None:
        move.set_result(None)
    else:
        move.set_exception(error)
