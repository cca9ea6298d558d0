"""Sockets that are being connected: in time, with failures as sentences, and none left open behind a failure."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

from haif.base.errors import ConnectionLost, Timeout


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
