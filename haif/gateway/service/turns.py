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


async def patiently(
    ask: Callable[[], Awaitable[T]], again: Callable[[HaifError], bool], remaining: Callable[[], float]
) -> T:
    """What `ask` comes to, asked again while `again` takes what it raised for a matter of moments.

    For `limits.TAKEOVER_PATIENCE_SECONDS` at most and while there is time `remaining`; then that is raised.
    """
    ends = asyncio.get_running_loop().time() + limits.TAKEOVER_PATIENCE_SECONDS
    while True:
        try:
            return await ask()
        except HaifError as error:
            late = asyncio.get_running_loop().time() > ends or remaining() <= limits.TAKEOVER_AGAIN_SECONDS
            if late or not again(error):
                raise
        await asyncio.sleep(limits.TAKEOVER_AGAIN_SECONDS)


async def in_turn(peers: Sequence[PeerId], ask: Callable[[PeerId], Awaitable[T]], remaining: Callable[[], float]) -> T:
    """What the first of the peers says, or, when it is gone, the next who knows the job.

    An orchestrator that shares the store of one who is gone says `Elsewhere` until it has its jobs: then all are asked
    again, patiently. Raises what the first one raised where nobody else knows better, and at once any other answer to
    the question.
    """
    expected = False  # that one of them will have the job in a moment

    async def ask_each() -> T:
        nonlocal expected
        outcome: HaifError | None = None
        expected = False
        for peer in peers:
            try:
                return await ask(peer)
            except GONE as error:
                outcome = outcome or error
                expected = expected or isinstance(error, Elsewhere)
            except WrongState:  # it has a store of its own, and has never heard of the job
                if outcome is None:
                    raise
        assert outcome is not None, "somebody was asked"
        raise outcome

    return await patiently(ask_each, lambda error: expected and isinstance(error, GONE), remaining)
