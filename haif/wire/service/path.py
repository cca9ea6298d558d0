"""One socket under a session: bytes in, bytes out, and whether it takes more."""

from __future__ import annotations

import asyncio
import socket
from typing import Protocol, cast

from haif.base import limits
from haif.base.machine import Address


class Above(Protocol):
    """The connection a path belongs to."""

    @property
    def incoming(self) -> memoryview:
        """Where to put what came: one place for all paths, since each is emptied at once."""

    def begin_on(self, source: str) -> None:
        """The first path is there, from this IP address."""

    def received(self, path: Path, data: bytes) -> None:
        """Bytes came."""

    def schedule(self) -> None:
        """The socket takes more."""

    def lost(self, path: Path, exc: Exception | None) -> None:
        """The socket is gone."""


class Path(asyncio.BufferedProtocol):
    """Path `number` of a connection. asyncio calls the methods of `asyncio.BufferedProtocol`; nobody else does."""

    def __init__(self, above: Above, number: int) -> None:
        self.number = number
        self.paused = False
        self._above = above
        self._held = False
        self._unwanted = False  # our side has let go of it
        self._begun = False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is there."""
        self._transport = cast("asyncio.Transport", transport)
        _send_at_once(self._transport)
        if self._unwanted:
            self.abort()
            return
        self._begun = True
        if self.number == 0:
            self._above.begin_on(self.remote[0])

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  # asyncio asks like this
        """Where to put what came."""
        return self._above.incoming

    def buffer_updated(self, nbytes: int) -> None:
        """So many bytes came."""
        self._above.received(self, bytes(self._above.incoming[:nbytes]))

    def pause_writing(self) -> None:
        """The socket takes no more for now; the machine keeps what waits, within its credit."""
        self.paused = True

    def resume_writing(self) -> None:
        """The socket takes more."""
        self.paused = False
        self._above.schedule()

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        if self._begun:
            self._above.lost(self, exc)

    # --- what its connection does -------------------------------------------------------------------------------------

    def belong(self, above: Above, number: int) -> None:
        """From now on be path `number` of another connection."""
        self._above, self.number = above, number

    def surrender(self) -> asyncio.Transport:
        """The socket is somebody else's from here; its connection hears of it no more."""
        assert self._transport is not None
        self._begun = False
        return self._transport

    def write(self, data: bytes) -> None:
        """Send, or keep until the socket takes it."""
        if self._transport is not None:
            self._transport.write(data)

    @property
    def waiting(self) -> int:
        """Bytes written that the socket has not taken yet."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    @property
    def remote(self) -> Address:
        """Where the other end of the socket is; this machine where the socket does not say, being gone already."""
        name = None if self._transport is None else self._transport.get_extra_info("peername")
        return (str(name[0]), int(name[1])) if name else ("127.0.0.1", 0)

    def hold(self) -> None:
        """Read no more for now."""
        if not self._held and self._transport is not None and not self._transport.is_closing():
            self._held = True
            self._transport.pause_reading()

    def go_on(self) -> None:
        """Read again."""
        if self._held and self._transport is not None and not self._transport.is_closing():
            self._held = False
            self._transport.resume_reading()

    def close(self) -> None:
        """Let go once everything was written."""
        self._unwanted = True
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Let go at once."""
        self._unwanted = True
        if self._transport is not None:
            self._transport.abort()


def _send_at_once(transport: asyncio.Transport) -> None:
    """No waiting for more (Nagle): we gather writes ourselves, per turn of the loop. And no deep queue below us."""
    endpoint = transport.get_extra_info("socket")
    if endpoint is not None and endpoint.family != socket.AF_UNIX:
        endpoint.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        unsent = getattr(socket, "TCP_NOTSENT_LOWAT", None)
        if unsent is not None:
            endpoint.setsockopt(socket.IPPROTO_TCP, unsent, limits.SOCKET_UNSENT_BYTES)
