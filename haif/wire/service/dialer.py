"""Dialling: Noise IK where the peer's key is known, XX otherwise, and a puzzle solved where one is asked for."""

from __future__ import annotations

import asyncio
import socket
from collections import OrderedDict
from collections.abc import Callable

from haif.base import limits
from haif.base.clock import Clock
from haif.base.errors import BadSignature, ConnectionLost, Expired, Overloaded, PeerFault, Timeout
from haif.base.ids import NetId, NoisePublicKey, PeerId
from haif.base.machine import Address
from haif.identity import certificate
from haif.wire.handshake import Dial
from haif.wire.puzzle import Puzzle, Search
from haif.wire.service.connection import Connection


class Dialer:
    """Makes connections whose handshake is done. It remembers the certificates of peers it met or was told of."""

    def __init__(self, make: Callable[[Dial], Connection], net: NetId, clock: Clock) -> None:
        self._make = make
        self._net = net
        self._clock = clock
        self._known: OrderedDict[PeerId, bytes] = OrderedDict()
        self._made_us = 0

    def learn(self, peer: PeerId, evidence: bytes) -> None:
        """A certificate somebody gave us; nothing, if it is out of date. Raises `Malformed` or `BadSignature`."""
        try:
            signer = certificate.read(evidence, net=self._net, now=self._clock.wall()).signer
        except Expired:
            return
        if signer != peer:
            raise BadSignature(f"the certificate is not {peer.short}…'s", peer)
        self.met(peer, evidence)

    def met(self, peer: PeerId, evidence: bytes) -> None:
        """A certificate a peer has shown us itself. The least recent is forgotten first."""
        self._known[peer] = evidence
        self._known.move_to_end(peer)
        if len(self._known) > limits.CERTIFICATES_REMEMBERED_MAX:
            self._known.popitem(last=False)

    async def dial(self, address: Address, peer: PeerId) -> Connection:
        """A connection to `peer` that is open. Raises what `Wire.connect` says."""
        key = self._key(peer)
        try:
            async with asyncio.timeout(limits.DIAL_SECONDS):
                if key is not None:
                    try:
                        return await self._through(address, peer, key)
                    except (
                        PeerFault,
                        ConnectionLost,
                    ):  # its key was rotated, or the clocks differ: begin as strangers do
                        self._known.pop(peer, None)
                return await self._through(address, peer, None)
        except TimeoutError:
            raise Timeout(f"no handshake with {text(address)} within {limits.DIAL_SECONDS:g} s") from None

    async def dial_over(self, sock: socket.socket, peer: PeerId) -> Connection:
        """A connection to `peer` over a socket that is connected. Raises what `Wire.connect_over` says.

        One socket carries one handshake: with a key that was rotated it fails, and the next one is a stranger's.
        """
        key = self._key(peer)
        connection = self._make(Dial(peer, key, self._time()))
        try:
            await asyncio.get_running_loop().create_connection(lambda: connection.path, sock=sock)
            await asyncio.shield(connection.opened)
        except OSError as error:
            sock.close()
            raise ConnectionLost(f"the socket is of no use: {error}") from None
        except (PeerFault, ConnectionLost):
            self._known.pop(peer, None)
            raise
        except asyncio.CancelledError:
            connection.abort()
            raise
        return connection

    async def _through(self, address: Address, peer: PeerId, key: NoisePublicKey | None) -> Connection:
        """One handshake, and the work asked for before it."""
        ticket = b""
        for _ in range(limits.PUZZLE_ROUNDS_MAX + 1):
            connection = await self._reach(address, Dial(peer, key, self._time(), ticket))
            try:
                await asyncio.shield(connection.opened)
            except Overloaded:
                if connection.machine.puzzle is None:
                    raise
                ticket = await _solve(connection.machine.puzzle)
            else:
                return connection
        raise Overloaded("the peer asked for work again and again", retry_after=limits.PUZZLE_SECONDS)

    async def _reach(self, address: Address, dial: Dial) -> Connection:
        try:
            async with asyncio.timeout(limits.HANDSHAKE_SECONDS):
                connection = self._make(dial)
                await asyncio.get_running_loop().create_connection(lambda: connection.path, *address)
        except TimeoutError:
            raise Timeout(f"{text(address)} does not accept connections") from None
        except OSError as error:
            raise ConnectionLost(f"nobody can be reached at {text(address)}: {error}") from None
        return connection

    def _key(self, peer: PeerId) -> NoisePublicKey | None:
        """The peer's static key, if we hold a certificate that is good now."""
        evidence = self._known.get(peer)
        if evidence is None:
            return None
        try:
            return certificate.read(evidence, net=self._net, now=self._clock.wall()).payload.noise_key
        except Expired:
            del self._known[peer]
            return None

    def _time(self) -> int:
        """Microseconds since the epoch; each time later than the last, so that no handshake is taken for a replay."""
        self._made_us = max(self._made_us + 1, self._clock.wall() * 1000)
        return self._made_us


async def _solve(puzzle: Puzzle) -> bytes:
    search = Search(puzzle)
    while (ticket := search.ticket()) is None:  # noqa: ASYNC110  # others go on while we work
        await asyncio.sleep(0)
    return ticket


def text(address: Address) -> str:
    """An address for people."""
    return f"{address[0]} port {address[1]}"
