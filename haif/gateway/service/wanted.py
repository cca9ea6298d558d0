"""Work that goes on only while somebody wants it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from haif.base.errors import Overloaded, Timeout
from haif.gateway.service.exchange import Disconnected, Exchange

T = TypeVar("T")

_BACKSTOP_SECONDS: Final = 1.0  # every step has the deadline itself; this ends what waits for one that does not read


async def while_wanted(
    work: Awaitable[T], exchange: Exchange, idle: Callable[[], Awaitable[None]], every: float,
    stopping: asyncio.Future[None], *, seconds: float, listener_matters: bool = True,
) -> T:  # fmt: skip
    """Do the work until it is done, the tenant hangs up, the gateway stops, or after so many `seconds`.

    It is done by the task that asks for it, which costs no other. `idle` is called `every` so many seconds in between.
    Not `listener_matters`: it goes on when the tenant hangs up. Raises `Disconnected`, `Overloaded`, `Timeout`, or what
    the work raises.
    """
    ending = _Ending(exchange, idle, every)
    gone = exchange.gone if listener_matters else None
    late = ending.loop.call_later(seconds + _BACKSTOP_SECONDS, ending.late, seconds)
    stopping.add_done_callback(ending.stopped)
    if gone is not None:
        gone.add_done_callback(ending.hung_up)
    try:
        return await work
    except asyncio.CancelledError:
        if ending.why is None or ending.task.uncancel():
            raise
        raise ending.why from None
    finally:
        late.cancel()
        stopping.remove_done_callback(ending.stopped)
        if gone is not None:
            gone.remove_done_callback(ending.hung_up)
        await ending.over()


class _Ending:
    """What cancels the task that works, and says why; and what is done while it waits."""

    def __init__(self, exchange: Exchange, idle: Callable[[], Awaitable[None]], every: float) -> None:
        self.loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None, "somebody is at work"
        self.task: asyncio.Task[Any] = task
        self.why: Exception | None = None
        self._name = exchange.request_id
        self._idle, self._every = idle, every
        self._timer = self.loop.call_later(every, self._tick)
        self._idling: asyncio.Task[None] | None = None

    def hung_up(self, _: asyncio.Future[None]) -> None:
        self._end(Disconnected())

    def stopped(self, _: asyncio.Future[None]) -> None:
        self._end(Overloaded("this gateway is shutting down; ask again, another may answer", retry_after=1.0))

    def late(self, seconds: float) -> None:
        self._end(Timeout(f"no whole answer within {seconds:.0f} seconds"))

    async def over(self) -> None:
        """Nothing of it goes on."""
        self._timer.cancel()
        if self._idling is not None:
            self._idling.cancel()
            await asyncio.gather(self._idling, return_exceptions=True)

    def _end(self, why: Exception) -> None:
        if self.why is None:
            self.why = why
            self.task.cancel()

    def _tick(self) -> None:
        self._timer = self.loop.call_later(self._every, self._tick)
        if self._idling is None or self._idling.done():
            self._idling = asyncio.create_task(self._do_idle(), name=f"waiting {self._name}")

    async def _do_idle(self) -> None:
        await self._idle()
