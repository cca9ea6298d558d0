"""How others see us, asked anew: a survey at the start, every twenty minutes, and when our address changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from haif.base import limits
from haif.base.clock import Clock
from haif.base.errors import HaifError
from haif.dht.diversity import networks
from haif.dht.service import Dht, Side
from haif.dht.sightings import Sighting
from haif.protocol.relay import RelayAt
from haif.reach.classify import UNKNOWN, Verdict, classify
from haif.reach.service.meeting import Meetings, port_towards
from haif.reach.standing import Standing

_GLANCE_SECONDS: Final = 30.0  # how often the replies that come anyway are looked at for another address of ours


async def judge(dht: Dht | Side) -> Verdict:
    """One survey and what it means. Takes `limits.SURVEY_SECONDS` at most."""
    survey = await dht.survey()
    return classify(survey.sightings, asked=survey.asked, dialled_back=survey.dialled_back)


async def judge_wire(meetings: Meetings, observers: Sequence[RelayAt]) -> Verdict:
    """How peers see connections from one port of ours: each of these, relays or not, is dialled and asked.

    TCP may be mapped otherwise than UDP. Never OPEN: nobody dials back. Observers that cannot be reached have no voice.
    """
    seen: list[Sighting] = []
    six = [observer for observer in observers if ":" in observer.address[0]]
    for family in (six, [observer for observer in observers if observer not in six]):
        if not family:
            continue
        with port_towards(family[0]) as port:
            words = await asyncio.gather(
                *(meetings.seen_from(port, each) for each in family[: limits.SURVEY_CONTACTS]), return_exceptions=True
            )
        for observer, word in zip(family, words, strict=False):
            if not isinstance(word, BaseException):
                seen.append(Sighting(observer.peer, networks(observer.address).wide, word))
            elif not isinstance(word, HaifError):
                raise word
    return classify(seen)


class Outlook:
    """How the peers of one family see us. Use as `async with Outlook(...)`.

    `on_standing` hears of the standing after every survey; `standing` is the last.

    A survey under way is waited for by nobody: leaving stops it.
    """

    def __init__(self, *, side: Side, clock: Clock, on_standing: Callable[[Standing], None]) -> None:
        self.standing = Standing()
        self._side, self._clock, self._on_standing = side, clock, on_standing

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
            try:
                verdict = await judge(self._side)
            except OSError:  # no second socket to be had: that says nothing about us
                verdict = UNKNOWN
            self.standing = self.standing.heard(verdict, self._clock.now())
            self._on_standing(self.standing)
            due = self._clock.now() + limits.SURVEY_EVERY_SECONDS
            while self._clock.now() < due and not self._moved(verdict):  # noqa: ASYNC110 - replies tell nobody
                await asyncio.sleep(_GLANCE_SECONDS)

    def _moved(self, verdict: Verdict) -> bool:
        """Whether what others say of us now differs from what was concluded."""
        now = classify(self._side.sightings())
        return bool(now.host) and (now.host, now.address) != (verdict.host, verdict.address)
