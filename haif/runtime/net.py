"""Sockets that are being connected: in time, with failures as sentences, and none left open behind a failure.

And what the routing table says of us.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from typing import Final

from haif.base.errors import ConnectionLost, Timeout
from haif.base.machine import Address

ANYWHERE: Final[Address] = ("192.88.99.1", 9)
"""An address outside every local network (RFC 7526: once an anycast, now nobody's). Nothing is ever sent there."""

ANYWHERE_6: Final[Address] = ("2000::1", 9)
"""The same of IPv6: the first of all global addresses (RFC 4291)."""


@asynccontextmanager
async def dialling(seconds: float, *, late: str, lost: str) -> AsyncIterator[ExitStack]:
    """Connect something inside the block. What is entered into the stack stays open only if the block succeeds.

    Raises `Timeout` saying `late` after `seconds`, and `ConnectionLost` saying `lost` and the system's own reason.
    """
    with ExitStack() as opened:
        try:
            async with asyncio.timeout(seconds):
                yield opened
        except TimeoutError:
            raise Timeout(late) from None
        except OSError as error:
            raise ConnectionLost(f"{lost}: {error}") from None
        opened.pop_all()


def own_address(towards: Address) -> str:
    """The address of this machine from which it would reach this literal one; empty if there is no way."""
    family = socket.AF_INET6 if ":" in towards[0] else socket.AF_INET
    with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(towards)  # sends nothing: it only asks the routing table
        return str(probe.getsockname()[0])
    return ""
