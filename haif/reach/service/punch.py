"""A port of ours for one meeting: it listens, and we dial from it, so that it does not matter whose SYN comes first.

Where both SYNs cross, TCP makes one connection of them (simultaneous open, RFC 9293 section 3.5); where one comes late,
it finds a listener or a port that has just asked for it. A mapping of the NAT belongs to the port, so a relay must be
dialled from it first, to learn the address outside. The port is its own, not the wire's: a connection that another one
still uses, or that the system remembers, cannot be in the way.
"""

from __future__ import annotations

import asyncio
import socket
from types import TracebackType
from typing import Self

from haif.base.errors import ConnectionLost, Timeout, Unavailable
from haif.base.machine import Address
from haif.runtime.net import dialling

_BACKLOG = 4  # only the other one is expected


class PunchPort:
    """Use as `with PunchPort(family, host) as port`; sockets it gave away live on. Raises `ConnectionLost`."""

    def __init__(self, family: socket.AddressFamily, host: str) -> None:
        self._family = family
        self._listener = self._opened(host, 0)
        self._host, self.port = self._listener.getsockname()[:2]
        self._listener.listen(_BACKLOG)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the port."""
        self._listener.close()

    async def dial(self, address: Address, seconds: float) -> socket.socket:
        """A connection from this port. Raises `ConnectionLost` or `Timeout`."""
        where = f"{address[0]} port {address[1]}"
        async with dialling(seconds, late=f"{where} did not answer", lost=f"{where} cannot be reached") as opened:
            dialled = opened.enter_context(self._opened(self._host, self.port))
            await asyncio.get_running_loop().sock_connect(dialled, address)
        return dialled

    async def meet(self, address: Address, seconds: float) -> socket.socket:
        """The connection with whoever is at `address`, dialled or accepted. Raises `Timeout`."""
        ways = [
            asyncio.create_task(self.dial(address, seconds)),
            asyncio.create_task(self._accept(address[0])),
        ]
        met: socket.socket | None = None
        try:
            async with asyncio.timeout(seconds):
                for way in asyncio.as_completed(ways):
                    try:
                        met = await way
                    except Unavailable:
                        continue  # refused: theirs may be on its way
                    return met
        except TimeoutError:
            pass
        finally:
            await _discard(ways, but=met)
        raise Timeout(f"nobody was met at {address[0]} port {address[1]} within {seconds:g} s")

    async def _accept(self, host: str) -> socket.socket:
        """A connection from this host; others are closed."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, (source, *_) = await loop.sock_accept(self._listener)
            except OSError as error:
                raise ConnectionLost(f"nobody can be let in: {error}") from None
            if source == host:
                return accepted
            accepted.close()

    def _opened(self, host: str, port: int) -> socket.socket:
        made = socket.socket(self._family, socket.SOCK_STREAM)
        try:
            made.setblocking(False)
            for option in (socket.SO_REUSEADDR, getattr(socket, "SO_REUSEPORT", socket.SO_REUSEADDR)):
                made.setsockopt(socket.SOL_SOCKET, option, 1)
            if self._family == socket.AF_INET6:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            made.bind((host, port))
        except OSError as error:
            made.close()
            raise ConnectionLost(f"no port can be opened at {host}: {error}") from None
        return made


async def _discard(ways: list[asyncio.Task[socket.socket]], *, but: socket.socket | None) -> None:
    """Stop what still runs, and close what came too late."""
    for way in ways:
        way.cancel()
    for made in await asyncio.gather(*ways, return_exceptions=True):
        if isinstance(made, socket.socket) and made is not but:
            made.close()
