"""The dials of a wire: all who want one peer at one address wait for the same one, and share what comes of it."""

from __future__ import annotations

import asyncio
import socket
from functools import partial

from haif.base import limits
from haif.base.errors import ConnectionLost, Timeout
from haif.base.ids import PeerId
from haif.base.machine import Address
from haif.wire.service.dialer import Dialer, text
from haif.wire.service.live import Live
from haif.wire.service.session import Session


class Dials:
    """Those under way, by whom they are for and where."""

    def __init__(self, dialer: Dialer, live: Live) -> None:
        self.under_way: dict[tuple[Address, PeerId], asyncio.Task[Session]] = {}
        self._dialer = dialer
        self._live = live

    async def wait(self, address: Address, peer: PeerId, seconds: float) -> Session:
        """A new session with `peer`, at most so many seconds from now. Raises what `Wire.connect` says."""
        dial = self.begin(address, peer)
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.shield(dial)
        except TimeoutError:
            raise Timeout(f"no session with {peer.short}… at {text(address)} within {seconds:g} s") from None
        except asyncio.CancelledError:
            waiter = asyncio.current_task()
            if waiter is None or waiter.cancelling():
                raise
            raise ConnectionLost("this node stopped before the session was made") from None  # it is the dial that was

    async def over(self, sock: socket.socket, peer: PeerId, seconds: float, *, shared: bool) -> Session:
        """A new session with `peer` over a socket that is connected. Raises what `Wire.connect_over` says."""
        try:
            async with asyncio.timeout(min(seconds, limits.DIAL_SECONDS)):
                connection = await self._dialer.dial_over(sock, peer)
        except TimeoutError:
            raise Timeout(f"no session with {peer.short}… over the given socket within {seconds:g} s") from None
        assert connection.session is not None
        if shared:
            self._live.share(connection.session)
        return connection.session

    def begin(self, address: Address, peer: PeerId) -> asyncio.Task[Session]:
        """The dial that all who want this peer there wait for."""
        dial = self.under_way.get((address, peer))
        if dial is None:
            dial = self.under_way[address, peer] = asyncio.get_running_loop().create_task(self._dial(address, peer))
            dial.add_done_callback(lambda done: self._dialled(address, peer, done))
        return dial

    def cancel(self) -> None:
        """Give all of them up."""
        for dial in [*self.under_way.values()]:
            dial.cancel()

    async def _dial(self, address: Address, peer: PeerId) -> Session:
        connection = await self._dialer.dial(address, peer)
        session = await asyncio.shield(connection.opened)
        connection.again = partial(self.begin, address, peer)
        self._live.pool[peer] = connection
        return session

    def _dialled(self, address: Address, peer: PeerId, dial: asyncio.Task[Session]) -> None:
        self.under_way.pop((address, peer), None)
        if not dial.cancelled():
            dial.exception()  # those who waited have it; if all of them left, nobody minds
