"""A peer's wire: it listens, dials, keeps one live session per peer, and closes in good order.

Beneath it: `service.live` keeps the connections, `service.hosting` hears of them, `service.dials` makes new ones,
`service.machines` says who we are in their handshakes, `service.methods` what is served.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from haif.base import limits
from haif.base.clock import Clock
from haif.base.errors import ConnectionLost, Dropped, HaifError, Misuse
from haif.base.ids import Digest, NetId, PeerId
from haif.base.machine import Address
from haif.base.traffic import Terms
from haif.identity.admission import Book
from haif.identity.keys import Identity, NoiseKey
from haif.wire.service.api import CALL, STREAM, Handler, StreamHandler
from haif.wire.service.hosting import Hosting
from haif.wire.service.live import Live
from haif.wire.service.machines import Machines
from haif.wire.service.methods import Circuits, Methods
from haif.wire.service.session import Session
from haif.wire.service.statistics import Tally, WireStatistics

_BESIDE_TRIES: Final = 8  # free ports that are tried until one is free in both families


class Wire:
    """Use as `async with Wire(...) as wire`. `port=0` listens on a free port, `port=None` only dials.

    `beside` is a second address to listen at, of the other family than `host`'s, at the same port.

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
        beside: str = "",
        book: Book | None = None,
    ) -> None:
        assert book is None or book.net == net, "a book is of one network"
        self.clock = clock
        self.net = net
        self._book = book
        self._machines = Machines(
            identity=identity, noise_key=noise_key, net=net, clock=clock, entropy=entropy, book=book
        )
        self._methods = Methods()
        self._live = Live()
        self._tally = Tally(on_dropped)
        self._host = Hosting(self._machines, self._methods, self._live, self._tally)
        self._dials = self._host.dials
        self._hosts, self._port = (host, beside) if beside else (host,), port
        self._servers: list[asyncio.Server] = []
        self._addresses: tuple[Address, ...] = ()

    @property
    def address(self) -> Address:
        """Where it listens, or where first. Raises `Misuse` if it does not."""
        return self.addresses[0]

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Where it listens: one address, or one of each family. Raises `Misuse` if it does not."""
        if not self._addresses:
            raise Misuse("this wire does not listen: it was not entered yet, or only dials")
        return self._addresses

    def serve(self, method: str, handler: Handler, terms: Terms = CALL) -> None:
        """Answer calls of `method` with `handler`, on these terms. Raises `Misuse` if it is served already."""
        self._methods.serve(method, handler, terms)

    def serve_stream(self, method: str, handler: StreamHandler, terms: Terms = STREAM) -> None:
        """Answer calls of `method` with a stream, on these terms. Raises `Misuse` if it is served already."""
        self._methods.serve_stream(method, handler, terms)

    def serve_circuits(self, handler: Circuits) -> None:
        """Be a relay: connections that show a circuit's token are `handler`'s. Raises `Misuse` if there is one."""
        self._methods.serve_circuits(handler)

    async def connect(
        self,
        address: Address,
        peer: PeerId,
        *,
        timeout: float,  # noqa: ASYNC109
        certificate: bytes = b"",
        anew: bool = False,
    ) -> Session:
        """The session with `peer`: the live one unless it is to be made `anew`, else one through `address`.

        `certificate` is the peer's, where the caller has it: a handshake with it takes one round trip less, as one
        does with a peer met before; an expired one is of no use, and no harm. Several callers share one dial. Raises
        `BadSignature` if somebody else answers there or the certificate is not the peer's, what the peer refused us
        with (`Overloaded`, `Forbidden`, …), `Unauthenticated` or `Forbidden` if the network does not admit it,
        `ConnectionLost`, or `Timeout` after `timeout` seconds or `limits.DIAL_SECONDS`, whichever is less.
        """
        pooled = self.pooled(peer)
        if pooled is not None and not anew:
            return pooled
        self._prepare(peer, certificate)
        return await self._dials.wait(address, peer, timeout)

    def pooled(self, peer: PeerId) -> Session | None:
        """The live session that `connect` would give, if there is one."""
        return self._live.pooled(peer)

    def renew_by(self, session: Session, again: Callable[[], asyncio.Future[Session]]) -> None:
        """When `session`, which we dialled, is old, `again` makes the next one, and the old one ends with its calls.

        Until then what was dialled by its address is renewed there, and what was dialled over a socket is not.
        """
        self._live.renew_by(session, again)

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
            self._prepare(peer, certificate)
        except HaifError:
            sock.close()
            raise
        return await self._dials.over(sock, peer, timeout, shared=shared)

    async def accept_over(self, sock: socket.socket) -> Session:
        """Answer on `sock`, a connected TCP socket that is ours from here, as if somebody had dialled us there.

        The gate's budgets of single addresses do not count for it: who made the socket knows how many it makes.
        The session that comes of it: a new one, or one that has moved there or is about to. Raises what the other side
        did wrong, `Overloaded`, `ConnectionLost`, or `Timeout` after `limits.HANDSHAKE_SECONDS`.
        """
        return await self._host.accept_over(sock)

    def session_with(self, peer: PeerId) -> Session | None:
        """An open session with this peer that takes calls, whoever dialled it; the newest of several."""
        return self._live.newest(peer)

    @property
    def peers(self) -> frozenset[PeerId]:
        """Those with whom a session is open."""
        return frozenset(session.peer for session in self._live.sessions())

    def session(self, scope: Digest) -> Session | None:
        """The open session of this name, whoever dialled it."""
        return self._live.scoped(scope)

    async def drain(self, seconds: float) -> None:
        """Stop listening, tell every peer to make no new calls, and wait `seconds` for the running ones."""
        self._host.closing = True
        for server in self._servers:
            server.close()
        await self._live.drain(seconds)

    @property
    def certificate(self) -> bytes:
        """The certificate of our static key, for others to dial us with."""
        return self._machines.certificate(self.clock.wall())

    def sessions(self) -> tuple[Session, ...]:
        """The sessions that are open, whoever dialled."""
        return tuple(session for session in self._live.sessions() if session.usable)

    def review(self) -> None:
        """End every session whose peer the network does not admit any more: revoked, or its time is over."""
        if self._book is not None:
            self._live.review(self._book, self.clock.wall())

    def statistics(self) -> WireStatistics:
        """How it stands now."""
        live, tally = self._live, self._tally
        return WireStatistics(
            sessions=len(live.open),
            half_open=len(live.waiting) + len(live.dialling),
            calls_made=sum(connection.machine.rpc.calls_made for connection in live.open),
            calls_served=sum(connection.machine.rpc.calls_served for connection in live.open),
            bytes_in=tally.bytes_in,
            bytes_out=tally.bytes_out,
            handshakes_done=tally.handshakes_done,
            handshakes_failed=tally.handshakes_failed,
            moved=tally.moved,
            dropped=dict(tally.dropped),
        )

    async def __aenter__(self) -> Self:
        if self._port is not None:
            await self._listen(self._port)
            names = [server.sockets[0].getsockname() for server in self._servers]
            self._addresses = tuple((name[0], name[1]) for name in names)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.drain(limits.DRAIN_SECONDS)
        finally:
            await self._close()

    def _prepare(self, peer: PeerId, certificate: bytes) -> None:
        """Before a new connection: there may be one, and the peer's certificate is known."""
        if self._host.closing:
            raise ConnectionLost("this node is stopping and makes no new connections")
        if certificate:
            self._host.dialer.learn(peer, certificate)

    async def _close(self) -> None:
        self._dials.cancel()
        await self._live.close()
        await self._deafen()

    async def _listen(self, port: int) -> None:
        """At one port in both families: of free ports, some are tried."""
        loop = asyncio.get_running_loop()
        for remaining in reversed(range(_BESIDE_TRIES)):
            at = port
            try:
                for host in self._hosts:
                    self._servers.append(await loop.create_server(self._host.accept, host, at))
                    at = self._servers[0].sockets[0].getsockname()[1]
            except OSError:
                await self._deafen()
                if port or not remaining or len(self._hosts) == 1:
                    raise
            else:
                return

    async def _deafen(self) -> None:
        for server in self._servers:
            server.close()
            await server.wait_closed()
        self._servers.clear()
