"""Takes connections one by one: counted by where they come from, encrypted if that is wanted, and let go if they stall.

1. accept      beyond the places of its address, its network or the house: closed at once, before any work
2. handshake   TLS, within `limits.TLS_HANDSHAKE_SECONDS`, under the newest certificate there is
3. serve       its protocol has it; whoever takes nothing of what it asked for is cut by the kernel (TCP_USER_TIMEOUT,
               RFC 5482, which counts a window that stays shut too)
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from haif.base import limits
from haif.gateway.crowd import Crowd
from haif.gateway.service.tls import Tls
from haif.wire.crowd import Origin, origin

_log = logging.getLogger(__name__)
MakeProtocol = Callable[[Callable[[], None]], Any]


class Doorkeeper:
    """Serves `listener`, until cancelled. `make` gives a protocol that calls what it is given once it is lost."""

    def __init__(self, listener: socket.socket, make: MakeProtocol, tls: Tls | None) -> None:
        self._listener = listener
        self._make = make
        self._tls = tls
        self.crowd = Crowd()
        self._greeting: set[asyncio.Task[None]] = set()  # bounded as the crowd is

    async def run(self) -> None:
        """Take connections. Those whose handshake has not ended end with it."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                try:
                    connection, address = await loop.sock_accept(self._listener)
                except OSError as error:
                    _log.warning("a connection could not be taken: %s", error)
                    await asyncio.sleep(limits.HTTP_ACCEPT_AGAIN_SECONDS)
                    continue
                came_from = origin(address[0])
                if not self.crowd.enter(came_from):
                    connection.close()
                    continue
                task = loop.create_task(self._greet(connection, came_from))
                self._greeting.add(task)
                task.add_done_callback(self._greeting.discard)
        finally:
            for task in self._greeting:
                task.cancel()
            await asyncio.gather(*self._greeting, return_exceptions=True)

    async def _greet(self, connection: socket.socket, came_from: Origin) -> None:
        leave = partial(self.crowd.leave, came_from)
        protocol = self._make(leave)
        encrypted: dict[str, Any] = {}
        if self._tls is not None:
            encrypted = {"ssl": self._tls.context, "ssl_handshake_timeout": limits.TLS_HANDSHAKE_SECONDS}
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            unread = int(limits.HTTP_UNREAD_SECONDS * 1000)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, unread)
            await asyncio.get_running_loop().connect_accepted_socket(lambda: protocol, connection, **encrypted)
        except OSError:  # it hung up, was too slow, or would not speak as it must
            pass
        finally:
            if protocol.transport is None:  # it never got as far as to be lost
                leave()
                with suppress(OSError):
                    connection.close()
