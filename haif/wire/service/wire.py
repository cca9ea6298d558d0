"""A peer's wire: it listens, dials, keeps one live session per peer, and closes in good order."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from haif.base import limits
from haif.base.clock import Clock, WallTime
from haif.base.errors import (
    BadSignature,
    ConnectionLost,
    Dropped,
    HaifError,
    Misuse,
    Overloaded,
    Reason,
    Timeout,
    Unsupported,
)
from haif.base.ids import Digest, NetId, PeerId
from haif.base.machine import Address
from haif.base.traffic import Terms
from haif.identity.admission import Book
from haif.identity.certificate import certify
from haif.identity.keys import Identity, NoiseKey
from haif.identity.replay import HandshakeTimes
from haif.wire.gate import Gate
from haif.wire.handshake import Credentials, Dial, Door, Handshake
from haif.wire.path import Arrival
from haif.wire.service.api import CALL, STREAM, Handler, StreamHandler
from haif.wire.service.connection import Connection
from haif.wire.service.dialer import Dialer, text
from haif.wire.service.path import Path
from haif.wire.service.session import Session
from haif.wire.session import SessionMachine

Circuits = Callable[[bytes, bytes, Callable[[], asyncio.Transport]], None]
"""Takes the token an end of a circuit showed, what came behind it, and a function that hands over its socket.

A `HaifError` it raises before it called that function closes the connection without a word.
"""


@dataclass(frozen=True, slots=True)
class WireStatistics:
    """A snapshot. Calls are those open now; bytes, handshakes, moves to another path and drops are since the start."""

    sessions: int
    half_open: int
    calls_made: int
    calls_served: int
    bytes_in: int
    bytes_out: int
    handshakes_done: int
    handshakes_failed: int
    moved: int
    dropped: Mapping[Reason, int]


class Wire:
    """Use as `async with Wire(...) as wire`. `port=0` listens on a free port, `port=None` only dials.

    Leaving the block drains for at most `limits.DRAIN_SECONDS`, then closes everything. `on_dropped` hears of every
    session ended, or never begun, because of a refusal. `book` says who may take part in the network, and as what;
    without one, everybody.
    """

    def __init__(
        self,
        *,
        identity: Identity,
        noise_key: NoiseKey,
        net: NetId,
        clock: Clock,
        entropy: Callable[[int], bytes],
        on_dropped: Callable[[Dropped], None],
        host: str = "127.0.0.1",
        port: int | None = 0,
        book: Book | None = None,
    ) -> None:
        assert book is None or book.net == net, "a book is of one network"
        self.clock = clock
        self.net = net
        self.handlers: dict[str, tuple[Handler, Terms]] = {}
        self.stream_handlers: dict[str, tuple[StreamHandler, Terms]] = {}
        self.incoming = memoryview(bytearray(limits.SOCKET_READ_BYTES))
        self.bytes_in = 0
        self.bytes_out = 0
        self.moved = 0
        self._identity = identity
        self._noise_key = noise_key
        self._book = book
        self._entropy = entropy
        self._on_dropped = on_dropped
        self._bind = (host, port)
        self._server: asyncio.Server | None = None
        self._address: Address | None = None
        self._connections: set[Connection] = set()
        self._per_peer = Counter[PeerId]()  # of those
        self._half_open: set[Connection] = set()
        self._pool: dict[PeerId, Connection] = {}
        self._scoped: dict[Digest, Connection] = {}
        self._circuits: Circuits | None = None
        self._named: dict[bytes, Connection] = {}  # open sessions by the name of their paths
        self._dials: dict[tuple[Address, PeerId], asyncio.Task[Session]] = {}
        self._certified: tuple[WallTime, bytes] | None = None
        self._gate = Gate(net, identity.peer, entropy(32), clock.now())
        self._times = HandshakeTimes(clock.wall())
        self._dialer = Dialer(self._connection, net, clock)
        self._handshakes = Counter[str]()
        self._dropped = Counter[Reason]()
        self._closing = False

    # --- for those who use it -----------------------------------------------------------------------------------------

    @property
    def address(self) -> Address:
        """Where it listens. Raises `Misuse` if it does not."""
        if self._address is None:
            raise Misuse("this wire does not listen: it was not entered yet, or only dials")
        return self._address

    def serve(self, method: str, handler: Handler, terms: Terms = CALL) -> None:
        """Answer calls of `method` with `handler`, on these terms. Raises `Misuse` if it is served already."""
        self._check_free(method)
        self.handlers[method] = handler, terms

    def serve_stream(self, method: str, handler: StreamHandler, terms: Terms = STREAM) -> None:
        """Answer calls of `method` with a stream, on these terms. Raises `Misuse` if it is served already."""
        self._check_free(method)
        self.stream_handlers[method] = handler, terms

    def serve_circuits(self, handler: Circuits) -> None:
        """Be a relay: connections that show a circuit's token are `handler`'s. Raises `Misuse` if there is one."""
        if self._circuits is not None:
            raise Misuse("circuits are served already")
        self._circuits = handler

    async def connect(
        self,
        address: Address,
        peer: PeerId,
        *,
        timeout: float,  # noqa: ASYNC109
        certificate: bytes = b"",
    ) -> Session:
        """The session with `peer`: the live one if there is one, else a new one through `address`.

        `certificate` is the peer's, where the caller has it: a handshake with it takes one round trip less, as one
        does with a peer met before; an expired one is of no use, and no harm. Several callers share one dial. Raises
        `BadSignature` if somebody else answers there or the certificate is not the peer's, what the peer refused us
        with (`Overloaded`, `Forbidden`, …), `Unauthenticated` or `Forbidden` if the network does not admit it,
        `ConnectionLost`, or `Timeout` after `timeout` seconds or `limits.DIAL_SECONDS`, whichever is less.
        """
        pooled = self.pooled(peer)
        if pooled is not None:
            return pooled
        if self._closing:
            raise ConnectionLost("this node is stopping and makes no new connections")
        if certificate:
            self._dialer.learn(peer, certificate)
        dial = self._dialling(address, peer)
        try:
            async with asyncio.timeout(timeout):
                return await asyncio.shield(dial)
        except TimeoutError:
            raise Timeout(f"no session with {peer.short}… at {text(address)} within {timeout:g} s") from None
        except asyncio.CancelledError:
            waiter = asyncio.current_task()
            if waiter is None or waiter.cancelling():
                raise
            raise ConnectionLost("this node stopped before the session was made") from None  # it is the dial that was

    def pooled(self, peer: PeerId) -> Session | None:
        """The live session that `connect` would give, if there is one."""
        pooled = self._pool.get(peer)
        usable = pooled is not None and pooled.session is not None and pooled.session.usable
        return pooled.session if pooled is not None and usable else None

    async def connect_over(
        self,
        sock: socket.socket,
        peer: PeerId,
        *,
        timeout: float,  # noqa: ASYNC109
        certificate: bytes = b"",
        shared: bool = True,
    ) -> Session:
        """A new session with `peer` over `sock`, a connected TCP socket that is ours from here, whatever happens.

        `connect` gives this session too while it lives, unless there is another or it is not to be `shared`. Raises
        what `connect` does, and `Overloaded` where the peer asks for work, for which one socket is not enough.
        """
        try:
            if self._closing:
                raise ConnectionLost("this node is stopping and makes no new connections")
            if certificate:
                self._dialer.learn(peer, certificate)
        except HaifError:
            sock.close()
            raise
        try:
            async with asyncio.timeout(min(timeout, limits.DIAL_SECONDS)):
                connection = await self._dialer.dial_over(sock, peer)
        except TimeoutError:
            raise Timeout(f"no session with {peer.short}… over the given socket within {timeout:g} s") from None
        assert connection.session is not None
        if shared:
            self._pool.setdefault(peer, connection)
        return connection.session

    async def accept_over(self, sock: socket.socket) -> Session:
        """Answer on `sock`, a connected TCP socket that is ours from here, as if somebody had dialled us there.

        The gate's budgets of single addresses do not count for it: who made the socket knows how many it makes.
        The session that comes of it: a new one, or one that has moved there or is about to. Raises what the other side
        did wrong, `Overloaded`, `ConnectionLost`, or `Timeout` after `limits.HANDSHAKE_SECONDS`.
        """
        connection = Connection(self, lambda _: self._answering(_OURS))
        try:
            if self._closing:
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

    def session_with(self, peer: PeerId) -> Session | None:
        """An open session with this peer that takes calls, whoever dialled it; the newest of several."""
        found = [c.session for c in self._scoped.values() if _peer(c) == peer and c.session and c.session.usable]
        return found[-1] if found else None

    @property
    def peers(self) -> frozenset[PeerId]:
        """Those with whom a session is open."""
        return frozenset(c.session.peer for c in self._connections if c.session is not None)

    def session(self, scope: Digest) -> Session | None:
        """The open session of this name, whoever dialled it."""
        connection = self._scoped.get(scope)
        return None if connection is None else connection.session

    async def drain(self, seconds: float) -> None:
        """Stop listening, tell every peer to make no new calls, and wait `seconds` for the running ones."""
        self._closing = True
        if self._server is not None:
            self._server.close()
        for connection in [*self._connections]:
            connection.machine.rpc.drain()
            connection.schedule()
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while (running := self._running()) and loop.time() < until:
            await asyncio.wait(running, timeout=until - loop.time(), return_when=asyncio.ALL_COMPLETED)

    @property
    def certificate(self) -> bytes:
        """The certificate of our static key, for others to dial us with."""
        return self._certificate(self.clock.wall())

    def sessions(self) -> tuple[Session, ...]:
        """The sessions that are open, whoever dialled."""
        return tuple(c.session for c in self._connections if c.session is not None and c.session.usable)

    def review(self) -> None:
        """End every session whose peer the network does not admit any more: revoked, or its time is over."""
        wall = self.clock.wall()
        for connection in [*self._connections]:
            peer = _peer(connection)
            if peer is not None and self._book is not None:
                try:
                    self._book.judge(peer, connection.machine.admission, wall)
                except HaifError as error:
                    connection.close(error)

    def statistics(self) -> WireStatistics:
        """How it stands now."""
        return WireStatistics(
            sessions=len(self._connections),
            half_open=len(self._half_open),
            calls_made=sum(connection.machine.rpc.calls_made for connection in self._connections),
            calls_served=sum(connection.machine.rpc.calls_served for connection in self._connections),
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
            handshakes_done=self._handshakes["done"],
            handshakes_failed=self._handshakes["failed"],
            moved=self.moved,
            dropped=dict(self._dropped),
        )

    async def __aenter__(self) -> Self:
        host, port = self._bind
        if port is not None:
            loop = asyncio.get_running_loop()
            self._server = await loop.create_server(self._accept, host, port)
            name = self._server.sockets[0].getsockname()
            self._address = (name[0], name[1])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.drain(limits.DRAIN_SECONDS)
        finally:
            await self._close()

    # --- what connections tell ----------------------------------------------------------------------------------------

    def admit(self, connection: Connection) -> HaifError | None:
        """The handshake begins; an error if there is no room for it."""
        if len(self._half_open) >= limits.HANDSHAKES_HALF_OPEN_MAX:
            return Overloaded("too many handshakes are under way", retry_after=limits.HANDSHAKE_SECONDS)
        self._half_open.add(connection)
        return None

    def welcome(self, connection: Connection) -> HaifError | None:
        """The handshake is done; an error if the session may not stay."""
        established = connection.machine.established
        assert established is not None
        if len(self._connections) >= limits.SESSIONS_MAX:
            return Overloaded("too many sessions are open here")
        if self._per_peer[established.peer] >= limits.SESSIONS_PER_PEER_MAX:
            return Overloaded(f"{established.peer.short}… has too many sessions open here")
        self._half_open.discard(connection)
        self._connections.add(connection)
        self._named[connection.machine.paths.name] = self._scoped[established.scope] = connection
        self._per_peer[established.peer] += 1
        self._handshakes["done"] += 1
        self._dialer.met(established.peer, connection.machine.certificate)
        return None

    def arrived(self, connection: Connection, arrival: Arrival) -> Session:
        """A further path of an open session came; that session has it now. Raises why it may not."""
        owner = self._named.get(arrival.name)
        if owner is None or owner.session is None:
            raise BadSignature("a further path of a session that is not open here")
        owner.join(arrival, connection.path)
        connection.release()
        self._half_open.discard(connection)
        return owner.session

    def knocked(self, connection: Connection, token: bytes, early: bytes) -> None:
        """An end of a circuit came; the relay has its socket now. Raises why it may not."""
        if self._circuits is None:
            raise Unsupported("this node is no relay")
        self._circuits(token, early, connection.path.surrender)
        connection.release()
        self._half_open.discard(connection)

    def leaving(self, connection: Connection) -> None:
        """The peer takes no new calls: the next `connect` dials anew."""
        self._unpool(connection)

    def aged(self, connection: Connection) -> None:
        """The session is old: make a new one, which takes its place, then let this one come to its end."""
        peer = _peer(connection)
        if self._closing or peer is None or connection.address is None or self._pool.get(peer) is not connection:
            connection.retire()
            return
        self._dialling(connection.address, peer).add_done_callback(lambda _: self._renewed(connection))

    def _renewed(self, connection: Connection) -> None:
        """A new session is there, or cannot be had: nobody begins anything on the old one any more."""
        self._unpool(connection)
        connection.retire()

    def gone(self, connection: Connection, error: HaifError) -> None:
        """The session is over; say so if somebody is to blame."""
        self._unpool(connection)
        if connection in self._half_open:
            self._handshakes["failed"] += 1
        self._half_open.discard(connection)
        self._forget(connection)
        if not isinstance(error, ConnectionLost):
            self._drop(Dropped(error.reason, _peer(connection), error.message))

    def _forget(self, connection: Connection) -> None:
        peer = _peer(connection)
        if peer is None or connection not in self._connections:
            return
        self._connections.remove(connection)
        self._named.pop(connection.machine.paths.name, None)
        if connection.machine.established is not None:
            self._scoped.pop(connection.machine.established.scope, None)
        self._per_peer[peer] -= 1
        if not self._per_peer[peer]:
            del self._per_peer[peer]

    def misbehaved(self, peer: PeerId, detail: str) -> None:
        """A handler of ours failed in a way it should not."""
        self._drop(Dropped(Reason.MISUSE, peer, detail))

    def refused(self, peer: PeerId, error: HaifError) -> None:
        """A call was refused before it came to a handler."""
        self._drop(Dropped(error.reason, peer, error.message))

    # --- helpers ------------------------------------------------------------------------------------------------------

    def _check_free(self, method: str) -> None:
        if method in self.handlers or method in self.stream_handlers:
            raise Misuse(f"the method {method!r} is served already")

    def _accept(self) -> Path:
        return Connection(self, self._answering).path

    def _connection(self, dial: Dial) -> Connection:
        return Connection(self, lambda _source: self._machine(dial))

    def _answering(self, source: str) -> SessionMachine:
        """The machine of somebody who dialled us."""
        return self._machine(Door(self._gate, self._times, source))

    def _machine(self, way: Dial | Door) -> SessionMachine:
        wall = self.clock.wall()
        credentials = Credentials(self.net, self._identity.peer, self._noise_key, self._certificate(wall), self._book)
        return SessionMachine(Handshake(credentials, way, entropy=self._entropy, wall=wall), self.clock.now())

    def _certificate(self, wall: WallTime) -> bytes:
        """Our certificate, renewed when half its time is over."""
        if self._certified is None or wall - self._certified[0] > limits.CERTIFICATE_TTL_MS // 2:
            self._certified = (wall, certify(self._identity, self.net, self._noise_key.public, wall))
        return self._certified[1]

    def _dialling(self, address: Address, peer: PeerId) -> asyncio.Task[Session]:
        """The dial that all who want this peer there wait for."""
        dial = self._dials.get((address, peer))
        if dial is None:
            dial = self._dials[address, peer] = asyncio.get_running_loop().create_task(self._dial(address, peer))
            dial.add_done_callback(lambda done: self._dialled(address, peer, done))
        return dial

    async def _dial(self, address: Address, peer: PeerId) -> Session:
        connection = await self._dialer.dial(address, peer)
        session = await asyncio.shield(connection.opened)
        connection.address = address
        self._pool[peer] = connection
        return session

    def _dialled(self, address: Address, peer: PeerId, dial: asyncio.Task[Session]) -> None:
        self._dials.pop((address, peer), None)
        if not dial.cancelled():
            dial.exception()  # those who waited have it; if all of them left, nobody minds

    def _unpool(self, connection: Connection) -> None:
        peer = _peer(connection)
        if peer is not None and self._pool.get(peer) is connection:
            del self._pool[peer]

    def _drop(self, event: Dropped) -> None:
        self._dropped[event.reason] += 1
        self._on_dropped(event)

    def _running(self) -> list[asyncio.Task[None]]:
        return [task for connection in self._connections for task in connection.running.values()]

    async def _close(self) -> None:
        for dial in [*self._dials.values()]:
            dial.cancel()
        connections = [*self._connections, *self._half_open]
        stopped = self._running()
        for connection in connections:
            connection.leave(ConnectionLost("this node is stopping"))
        waiting = [connection.over for connection in connections]
        if waiting or stopped:
            await asyncio.wait([*waiting, *stopped], timeout=limits.DRAIN_SECONDS / 2)
        for connection in connections:
            connection.abort()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()


_OURS: Final = "127.0.0.1"  # as the gate sees sockets of our own making: like this very machine's


def _peer(connection: Connection) -> PeerId | None:
    established = connection.machine.established
    return established.peer if established is not None else None
