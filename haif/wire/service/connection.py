"""Drives one `SessionMachine` over a socket, or over the next one it moves to.

Everything that happens in one turn of the event loop leaves in one write. What a connection is made of:
`service.moving` has its sockets, `service.calling` the calls it makes, `service.serving` those it serves. Handlers are
tasks of the connection: when the session is gone, so are they.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable
from typing import Any

from haif.base.clock import Instant
from haif.base.errors import ConnectionLost, HaifError, Unsupported
from haif.base.machine import Address
from haif.wire.events import Aged, Arrived, Closed, Established, Event, GoingAway, Knocked
from haif.wire.path import Arrival
from haif.wire.service.calling import Calling
from haif.wire.service.host import Host
from haif.wire.service.moving import Moving
from haif.wire.service.path import Path
from haif.wire.service.serving import Serving
from haif.wire.service.session import Session
from haif.wire.session import SessionMachine


class Connection:
    """The asyncio side of a session. `opened` is done when the handshake is, `over` when its last socket is gone."""

    def __init__(self, host: Host[Connection], make: Callable[[str], SessionMachine]) -> None:
        """`make` is given the IP address of the other side."""
        self._host = host
        self._tally = host.tally
        self._make = make
        self._loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[Session] = self._loop.create_future()
        self.over: asyncio.Future[None] = self._loop.create_future()
        self.machine: SessionMachine
        self.session: Session | None = None
        self.again: Callable[[], asyncio.Future[Session]] | None = None  # makes what takes its place when it is old
        self._serving: Serving | None = None  # once established
        self._moving = Moving(self, host.tally)
        self._polite = False
        self._retiring = False
        self.scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = Instant(0)
        self._on: dict[type[Event], Callable[[Any], None]] = {
            Established: self._on_established, Arrived: self._on_arrived, Knocked: self._on_knocked,
            GoingAway: self._on_going_away, Aged: self._on_aged, Closed: self._on_closed,
        }  # fmt: skip
        self._on |= self._moving.events()

    # --- its paths call these -----------------------------------------------------------------------------------------

    def begin_on(self, source: str) -> None:
        """The first path is there, from this IP address: begin the handshake, if there is room for it."""
        self.machine = self._make(source)
        refusal = self._host.admit(self, source)
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
        self._tally.bytes_in += len(data)
        self.machine.receive(data, self._host.clock.now(), path.number)
        self.act()
        if len(self._moving.paths) > 1:
            self._moving.hold_back()
        self.schedule()

    def lost(self, path: Path, exc: Exception | None) -> None:
        """A path's socket is gone."""
        self._moving.paths.pop(path.number, None)
        why = f"the connection broke: {exc}" if exc else "the peer closed the connection"
        if self.machine.established is None:
            why += " during the handshake; it may be of another network, or not know us"
        self.machine.lost(path.number, ConnectionLost(why))
        self.act()
        if not self._moving.paths and not self.over.done():
            self.over.set_result(None)

    # --- driving the machine ------------------------------------------------------------------------------------------

    def schedule(self) -> None:
        """Have everything that is ready leave at the end of this turn of the loop."""
        if not self.scheduled:
            self.scheduled = True
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write what may leave now, let waiting streams go on, and set the timer."""
        self.scheduled = False
        if not self._moving.paths:
            return
        machine, moving, now = self.machine, self._moving, self._host.clock.now()
        while not moving.path.paused and (data := machine.outgoing(now)):
            moving.write(data)
            if len(moving.paths) > 1:
                moving.turn()
        if self._serving is not None and self._serving.rooms:
            self._serving.let_go_on()
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
        self.act()

    def abort(self) -> None:
        """Let go of every socket at once, whatever was still to be written."""
        self._moving.abort()

    def act(self) -> None:
        """Do what follows from what the machine says happened."""
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
        self.act()
        self.flush()

    # --- events -------------------------------------------------------------------------------------------------------

    def _on_established(self, event: Established) -> None:
        error = self._host.welcome(self)
        if error is not None:
            self.machine.close(error)
            return
        host, machine = self._host, self.machine
        calling = Calling(machine, host.clock, self)
        self.session = Session(self, calling, event.peer, event.scope, event.roles)
        self._serving = Serving(self.session, machine.rpc, host.methods, clock=host.clock, tally=host.tally, pace=self)
        self._on |= calling.events() | self._serving.events()
        self.opened.set_result(self.session)

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
        self._moving.close(event.error, last, polite=self._polite)
        self._host.gone(self, event.error)

    # --- what others ask of it ----------------------------------------------------------------------------------------

    @property
    def path(self) -> Path:
        """The one we write on."""
        return self._moving.path

    @property
    def remote(self) -> Address:
        """Where the other end of the path we write on is."""
        return self.path.remote

    @property
    def usable(self) -> bool:
        """Whether a new call could be made now."""
        rpc = self.machine.rpc
        return self.machine.closed is None and not rpc.going_away and not self._retiring

    @property
    def running(self) -> Iterable[asyncio.Task[None]]:
        """The handlers at work."""
        return () if self._serving is None else self._serving.running.values()

    def now(self) -> Instant:
        """The time."""
        return self._host.clock.now()

    async def wait_over(self) -> None:
        """Until the last socket is gone."""
        await asyncio.shield(self.over)

    async def move(self, sock: socket.socket) -> None:
        """What `Session.move` says."""
        await self._moving.move(sock)

    def join(self, arrival: Arrival, path: Path) -> None:
        """Take another connection's path for our next one, if it may be. Raises what `SessionMachine.joined` does."""
        self._moving.join(arrival, path)

    def release(self) -> None:
        """Another connection has taken our only path: there never was a session here."""
        self._moving.paths.clear()
        if self._timer is not None:
            self._timer.cancel()
        self.over.set_result(None)
