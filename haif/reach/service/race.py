"""Several ways to one end, tried one after the other with a head start each, the first to arrive wins: RFC 8305."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from haif.base.errors import HaifError, Misuse

T = TypeVar("T")


async def race(ways: Sequence[Callable[[], Awaitable[T]]], *, stagger: float, discard: Callable[[T], None]) -> T:
    """What the first way that succeeds comes to. The next one starts when one fails, or after `stagger` seconds.

    Ways still under way are cancelled; what they came to meanwhile is discarded. If all fail, raises what the last of
    them raised.
    """
    if not ways:
        raise Misuse("there is no way to try")
    running: set[asyncio.Task[T]] = set()
    waiting = list(ways)
    failed: HaifError | None = None
    try:
        while waiting or running:
            if waiting:
                running.add(asyncio.ensure_future(_run(waiting.pop(0))))
            done, running = await asyncio.wait(
                running, timeout=stagger if waiting else None, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                error = task.exception()
                if error is None:
                    running |= done - {task}
                    return task.result()
                if not isinstance(error, HaifError):
                    raise error
                failed = error
    finally:
        for task in running:
            task.cancel()
        for made in await asyncio.gather(*running, return_exceptions=True):
            if not isinstance(made, BaseException):
                discard(made)
    assert failed is not None, "what did not succeed failed"
    raise failed


async def _run(way: Callable[[], Awaitable[T]]) -> T:
    return await way()
