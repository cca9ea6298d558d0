"""The sockets under one session, and how it moves from one to the next while calls go on (`wire.path`)."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, Protocol

from haif.base import limits
from haif.base.clock import Instant
from haif.base.errors import ConnectionLost, HaifError
from haif.wire.events import Event, Moved, Stayed
from haif.wire.path import Arrival
from haif.wire.service.path import Above, Path
from haif.wire.service.statistics import Tally
from haif.wire.session import SessionMachine


class Driver(Above, Protocol):
    """The connection that has these sockets."""

    machine: SessionMachine

    def now(self) -> Instant:
        """The time."""

    def act(self) -> None:
        """Do what follows from what the machine says happened."""


class Moving:
    """The paths of one connection by their number. `path` is the one it writes on."""

    def __init__(self, driver: Driver, tally: Tally) -> None:
        self.path = Path(driver, 0)
        self.paths = {0: self.path}
        self.moves: dict[int, asyncio.Future[None]] = {}
        self._driver = driver
        self._tally = tally
        self._loop = asyncio.get_running_loop()

    def events(self) -> dict[type[Event], Callable[[Any], None]]:
        """What to tell us of."""
        return {Moved: self._on_moved, Stayed: self._on_stayed}

    def write(self, data: bytes) -> None:
        """Send on the path we write on."""
        self._tally.bytes_out += len(data)
        self.path.write(data)

    def turn(self) -> None:
        """What comes next leaves on the path the machine writes on now."""
        machine = self._driver.machine
        if machine.closed is None and machine.established and self.path.number != machine.paths.writing:
            self.path = self.paths[machine.paths.writing]
            self._driver.act()

    def hold_back(self) -> None:
        """Read a new path only once the old one was left: what comes early waits where it is."""
        machine = self._driver.machine
        if machine.closed is not None or machine.established is None:
            return
        reading, new = machine.paths.reading, machine.paths.new
        for path in self.paths.values():
            if path.number > reading and (new is None or not new.ours or new.ready):
                path.hold()
            else:
                path.go_on()

    # --- moves --------------------------------------------------------------------------------------------------------

    async def move(self, sock: socket.socket) -> None:
        """What `Session.move` says."""
        driver = self._driver
        try:
            number, opening = driver.machine.move(driver.now())
        except HaifError:
            sock.close()
            raise
        moved = self.moves[number] = self._loop.create_future()
        path = self.paths[number] = Path(driver, number)
        try:
            await self._begin(path, sock, opening)
            await moved
        finally:
            self.moves.pop(number, None)
            if not moved.done() or moved.cancelled():
                driver.machine.stay(number, ConnectionLost("the move was given up"))
                driver.act()

    async def _begin(self, path: Path, sock: socket.socket, opening: bytes) -> None:
        try:
            await self._loop.create_connection(lambda: path, sock=sock)
            self._write(path, opening)
            self._driver.schedule()
        except OSError as error:
            sock.close()
            self._driver.lost(path, error)

    def join(self, arrival: Arrival, path: Path) -> None:
        """Take another connection's path for our next one, if it may be. Raises what `SessionMachine.joined` does."""
        driver = self._driver
        number, answer = driver.machine.joined(arrival, driver.now())
        driver.act()
        self.paths[number] = path
        path.belong(driver, number)
        self._write(path, answer)
        path.hold()
        driver.schedule()

    # --- the end ------------------------------------------------------------------------------------------------------

    def close(self, error: HaifError, last: bytes, *, polite: bool) -> None:
        """The session is over: let go of every path, and of the one we write on only after it took the `last` bytes.

        Not waiting is for those that did not take what came before, unless we are to be `polite`.
        """
        if last:
            self.write(last)
            polite = self.path.waiting == 0
        for path in [*self.paths.values()]:
            path.close() if polite and path is self.path else path.abort()  # a silent peer never takes the rest
        for move in self.moves.values():
            _settle(move, error)
        self.moves.clear()

    def abort(self) -> None:
        """Let go of every socket at once, whatever was still to be written."""
        for path in [*self.paths.values()]:
            path.abort()

    # --- events -------------------------------------------------------------------------------------------------------

    def _on_moved(self, event: Moved) -> None:
        for number in [number for number in self.paths if number != event.path]:
            old = self.paths.pop(number)
            old.close()
            self._loop.call_later(limits.PATH_FINISH_SECONDS, old.abort)  # should the peer never take the rest
        self.hold_back()
        self._tally.moved += 1
        _settle(self.moves.get(event.path), None)

    def _on_stayed(self, event: Stayed) -> None:
        path = self.paths.pop(event.path, None)
        if path is not None:
            path.abort()
        _settle(self.moves.get(event.path), event.error)

    def _write(self, path: Path, data: bytes) -> None:
        self._tally.bytes_out += len(data)
        path.write(data)


def _settle(move: asyncio.Future[None] | None, error: HaifError | None) -> None:
    """Tell who waits for a move how it went."""
    if move is None or move.done():
        return
    if error is None:
        move.set_result(None)
    else:
        move.set_exception(error)
