"""Whom to ask about a job: the orchestrator that placed it, and when that is gone, whoever took its jobs over."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

from haif.base import limits
from haif.base.errors import ConnectionLost, Elsewhere, HaifError, Timeout, WrongState
from haif.base.ids import PeerId

T = TypeVar("T")

GONE: Final = (ConnectionLost, Timeout, Elsewhere)
"""What says nothing about the job, and that another orchestrator may have it."""


async def in_turn(peers: Sequence[PeerId], ask: Callable[[PeerId], Awaitable[T]], remaining: Callable[[], float]) -> T:
    """What the first of the peers says, or, when it is gone, the next who knows the job.

    An orchestrator that shares the store of one who is gone says `Elsewhere` until it has its jobs: then all are asked
    again, for `limits.TAKEOVER_PATIENCE_SECONDS` at most and while there is time `remaining`. Raises what the first
    one raised where nobody else knows better, and at once any other answer to the question.
    """
    ends = asyncio.get_running_loop().time() + limits.TAKEOVER_PATIENCE_SECONDS
    while True:
        outcome: HaifError | None = None
        wait = False
        for peer in peers:
            try:
                return await ask(peer)
            except GONE as error:
                outcome = outcome or error
                wait = wait or isinstance(error, Elsewhere)
            except WrongState:  # it has a store of its own, and has never heard of the job
                if outcome is None:
                    raise
        assert outcome is not None, "somebody was asked"
        if not wait or asyncio.get_running_loop().time() > ends or remaining() <= limits.TAKEOVER_AGAIN_SECONDS:
            raise outcome
        await asyncio.sleep(limits.TAKEOVER_AGAIN_SECONDS)
