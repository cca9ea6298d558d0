"""That a peer is there, as what, and where it is reached: its presence in the directory, the same for every role."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from haif.base import codec, limits
from haif.base.errors import Dropped, HaifError, Reason
from haif.base.ids import NetId, PeerId
from haif.dht.service import Dht
from haif.protocol.offers import Presence
from haif.protocol.records import RecordKind, presence_topic
from haif.reach.service.reach import Reach

_FAREWELL_SECONDS: Final = 0.5  # taking it back may not hold up leaving: the record expires by itself


class Announced:
    """Inside `async with`, whoever knows this peer's id finds it in the directory as `role`, where it is reached now.

    To be entered when the role answers: from then on it is dialled. Entering waits until the nearest nodes keep the
    presence, and where none would, goes on; it is tried again. Leaving takes it back.
    """

    def __init__(
        self, role: str, *, peer: PeerId, net: NetId, dht: Dht, reach: Reach, on_dropped: Callable[[Dropped], None]
    ) -> None:
        self._role, self._dht, self._reach, self._on_dropped = role, dht, reach, on_dropped
        self._topic = presence_topic(net, peer)
        self._said: Presence | None = None

    async def __aenter__(self) -> Self:
        try:
            await self._say()
        except BaseException:  # nobody leaves what was never entered
            await self._take_back()
            raise
        self._keeping = asyncio.create_task(self._keep_saying(), name="reach: presence")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._keeping.cancel()
        with suppress(asyncio.CancelledError):
            await self._keeping
        await self._take_back()

    async def _keep_saying(self) -> None:
        """Another address, another relay, a renewed certificate."""
        while True:
            await asyncio.sleep(limits.PRESENCE_LOOK_SECONDS)
            await self._say()

    async def _say(self) -> None:
        presence = self._reach.presence(self._role)
        if presence == self._said:
            return
        self._said = presence
        try:
            await self._dht.publish(
                RecordKind.PRESENCE, self._topic, codec.encode(presence), ttl_ms=limits.RECORD_TTL_MS_MAX
            )
        except HaifError as error:  # the directory goes on trying
            self._on_dropped(Dropped(error.reason, detail=f"presence: {error.message}"))

    async def _take_back(self) -> None:
        try:
            async with asyncio.timeout(_FAREWELL_SECONDS):
                await self._dht.withdraw(self._topic)
        except (HaifError, TimeoutError) as failed:
            reason = getattr(failed, "reason", Reason.TIMEOUT)
            self._on_dropped(Dropped(reason, detail="withdrawing the presence: nobody could be told"))
