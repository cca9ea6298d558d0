"""How others see us, asked anew: a survey at the start, every twenty minutes, and when our address changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from haif.base import limits
from haif.base.clock import Clock
from haif.dht.service import Dht
from haif.reach.classify import Verdict, classify
from haif.reach.standing import Standing

_GLANCE_SECONDS: Final = 30.0  # how often the replies that come anyway are looked at for another address of ours


async def judge(dht: Dht) -> Verdict:
    """One survey and what it means. Takes `limits.SURVEY_SECONDS` at most."""
    survey = await dht.survey()
    return classify(survey.sightings, asked=survey.asked, dialled_back=survey.dialled_back)


class Outlook:
    """Use as `async with Outlook(...)`. `on_standing` hears of the standing after every survey; `standing` is the last.

    A survey under way is waited for by nobody: leaving stops it.
    """

    def __init__(self, *, dht: Dht, clock: Clock, on_standing: Callable[[Standing], None]) -> None:
        self.standing = Standing()
        self._dht, self._clock, self._on_standing = dht, clock, on_standing

    async def __aenter__(self) -> Self:
        self._looking = asyncio.create_task(self._look_forever(), name="reach: outlook")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._looking.cancel()
        with suppress(asyncio.CancelledError):
            await self._looking

    async def _look_forever(self) -> None:
        while True:
            verdict = await judge(self._dht)
            self.standing = self.standing.heard(verdict, self._clock.now())
            self._on_standing(self.standing)
            due = self._clock.now() + limits.SURVEY_EVERY_SECONDS
            while self._clock.now() < due and not self._moved(verdict):  # noqa: ASYNC110 - replies tell nobody
                await asyncio.sleep(_GLANCE_SECONDS)

    def _moved(self, verdict: Verdict) -> bool:
        """Whether what others say of us now differs from what was concluded."""
        now = classify(self._dht.sightings())
        return bool(now.host) and (now.host, now.address) != (verdict.host, verdict.address)
