"""Waiting for a worker's next word, but not for ever: a dead one is silent, and so is one that was stopped.

The clock runs only while something is waited for, not while the tenant reads. A word costs an assignment: the timer is
set anew only when it goes off.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from haif.base.errors import Timeout


class Patience:
    """Inside `async with`, more than `seconds` between `wait` and `heard` end the block with `Timeout`."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds  # may be changed while nothing is waited for
        self._loop = asyncio.get_running_loop()
        self._since: float | None = None
        self._timeout = asyncio.timeout(None)
        self._timer = self._loop.call_later(seconds, self._look)

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        try:
            await self._timeout.__aexit__(kind, error, trace)
        except TimeoutError:
            raise Timeout(f"the worker said nothing for {self.seconds:g} seconds") from None

    def wait(self) -> None:
        """From now on the next word is waited for, whether there was one before or not."""
        self._since = self._loop.time()

    def heard(self) -> None:
        """It came."""
        self._since = None

    def _look(self) -> None:
        now = self._loop.time()
        due = (now if self._since is None else self._since) + self.seconds
        if due <= now:
            self._timeout.reschedule(now)
        else:
            self._timer = self._loop.call_at(due, self._look)
