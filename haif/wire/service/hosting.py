"""What a wire's connections tell it, and how they come: dialled, accepted on the port, or on a socket of our own.

One port takes three things: a session, a further path of one that is open, and at a relay the end of a circuit.
"""

from __future__ import annotations

import asyncio
import socket

from haif.base import limits
from haif.base.errors import BadSignature, ConnectionLost, Dropped, HaifError, Unsupported
from haif.wire.crowd import origin
from haif.wire.handshake import Dial
from haif.wire.path import Arrival
from haif.wire.service.connection import Connection
from haif.wire.service.dialer import Dialer
from haif.wire.service.dials import Dials
from haif.wire.service.live import Live, peer_of
from haif.wire.service.machines import Machines
from haif.wire.service.methods import Methods
from haif.wire.service.path import Path
from haif.wire.service.session import Session
from haif.wire.service.statistics import Tally


class Hosting:
    """The `Host` of all connections of a wire. Once it is `closing`, nothing new begins."""

    def __init__(self, machines: Machines, methods: Methods, live: Live, tally: Tally) -> None:
        self.clock = machines.clock
        self.methods = methods
        self.tally = tally
        self.incoming = memoryview(bytearray(limits.SOCKET_READ_BYTES))
        self.closing = False
        self._machines = machines
        self._live = live
        self.dialer = Dialer(self._dialled, machines.net, machines.clock)
        self.dials = Dials(self.dialer, live)

    # --- how they come ------------------------------------------------------------------------------------------------

    def accept(self) -> Path:
        """For somebody who dials our port."""
        return Connection(self, self._machines.answering).path

    async def accept_over(self, sock: socket.socket) -> Session:
        """What `Wire.accept_over` says."""
        connection = Connection(self, self._machines.answering_ours)
        try:
            if self.closing:
                raise ConnectionLost("this node is stopping and takes no new connections")
            await asyncio.get_running_loop().connect_accepted_socket(lambda: connection.path, sock)
        except OSError as error:
            sock.close()
            raise ConnectionLost(f"the socket is of no use: {error}") from None
        except HaifError:
            sock.close()
            raise
        try:
            return await asyncio.shield(connection.opened)
        except asyncio.CancelledError:
            if connection.session is None:
                connection.abort()
            raise

    def _dialled(self, dial: Dial) -> Connection:
        return Connection(self, lambda _source: self._machines.dialling(dial))

    # --- what they tell -----------------------------------------------------------------------------------------------

    def admit(self, connection: Connection, source: str) -> HaifError | None:
        """The handshake with somebody at this IP address begins; an error if there is no room for it."""
        return self._live.admit(connection, origin(source))

    def welcome(self, connection: Connection) -> HaifError | None:
        """The handshake is done; an error if the session may not stay."""
        error, machine = self._live.welcome(connection), connection.machine
        if error is None and machine.established is not None:
            self.tally.handshakes_done += 1
            self.dialer.met(machine.established.peer, machine.certificate)
        return error

    def arrived(self, connection: Connection, arrival: Arrival) -> Session:
        """A further path of an open session came; that session has it now. Raises why it may not."""
        owner = self._live.named(arrival.name)
        if owner is None or owner.session is None:
            raise BadSignature("a further path of a session that is not open here")
        owner.join(arrival, connection.path)
        self._release(connection)
        return owner.session

    def knocked(self, connection: Connection, token: bytes, early: bytes) -> None:
        """An end of a circuit came; the relay has its socket now. Raises why it may not."""
        if self.methods.circuits is None:
            raise Unsupported("this node is no relay")
        self.methods.circuits(token, early, connection.path.surrender)
        self._release(connection)

    def leaving(self, connection: Connection) -> None:
        """The peer takes no new calls: the next `connect` dials anew."""
        self._live.unpool(connection)

    def aged(self, connection: Connection) -> None:
        """The session is old: make a new one, which takes its place, then let this one come to its end."""
        if self.closing or connection.again is None or not self._live.is_pooled(connection):
            self._renewed(connection)
            return
        connection.again().add_done_callback(lambda done: self._renewed(connection, done))

    def gone(self, connection: Connection, error: HaifError) -> None:
        """The session is over; say so if somebody is to blame."""
        if self._live.forget(connection):
            self.tally.handshakes_failed += 1
        if not isinstance(error, ConnectionLost):
            self.tally.drop(Dropped(error.reason, peer_of(connection), error.message))

    def _renewed(self, connection: Connection, done: asyncio.Future[Session] | None = None) -> None:
        """A new session is there, or cannot be had: nobody begins anything on the old one any more."""
        self._live.unpool(connection)
        connection.retire()
        if done is not None and not done.cancelled() and done.exception() is None:
            self._live.share(done.result())

    def _release(self, connection: Connection) -> None:
        connection.release()
        self._live.release(connection)
