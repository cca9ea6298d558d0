"""Work that goes on only while somebody wants it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from haif.base.errors import Overloaded
from haif.gateway.service.exchange import Exchange

T = TypeVar("T")


async def while_wanted(
    work: Coroutine[Any, Any, T], exchange: Exchange, idle: Callable[[], Awaitable[None]], seconds: float,
    stopping: asyncio.Future[None], *, listener_matters: bool = True,
) -> T:  # fmt: skip
    """Do the work until it is done, the tenant hangs up, or the gateway stops. Nothing of it is left running.

    `idle` is called every so many seconds in between. Not `listener_matters`: it goes on when the tenant hangs up.
    Raises `Disconnected`, `Overloaded`, or what the work raises.
    """
    working = asyncio.create_task(work, name=f"answer {exchange.request_id}")
    watching = asyncio.create_task(exchange.watch(idle, seconds))
    try:
        ends: list[asyncio.Future[Any]] = [working, watching, stopping]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if watching.done() and not listener_matters:
            ends.remove(watching)
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            if listener_matters and watching.done():
                watching.result()
            raise Overloaded("this gateway is shutting down; ask again, another may answer", retry_after=1.0)
        return working.result()
    finally:
        working.cancel()
        watching.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)
