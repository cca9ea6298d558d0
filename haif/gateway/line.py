"""Who of those who ask for one model is asked for next, and who is told at once when to come back.

1. come     there is a free slot: go. There is none: wait in line (`policy.fair`), or be refused where the answer would
            come too late: with the wait that is expected, as the jobs of late took
2. called   a slot is free, or another worker came: whose turn it is
3. done     the job ended; what it used fewer tokens than it was charged for is its tenant's again

Slots are those of the live workers, as orchestrators tell them, our part of them where there are other gateways, and
more by as many as end within `limits.LINE_GAP_SECONDS`: a worker is to have its next request when it is done with one.
While nobody knows of any slots nothing waits here: the orchestrator says why.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from math import ceil
from typing import Final

from haif.base import limits
from haif.base.clock import Instant
from haif.base.errors import Overloaded
from haif.policy.fair import Line, Place


class Service(IntEnum):
    """The classes of service. Their value is their rank."""

    INTERACTIVE = 0
    BATCH = 1

    @property
    def word(self) -> str:
        """As operators write it."""
        return self.name.lower()


SERVICES: Final = {each.word: each for each in Service}
SHARES: Final = (limits.INTERACTIVE_SHARE, 1)


@dataclass(eq=False, slots=True)
class Wish(Place):
    """One job that wants a slot, until its answer is worth nothing any more."""

    until: Instant
    begun: Instant | None = None  # when it was called


class ModelLine:
    """The slots of one model, and the line for them."""

    def __init__(self) -> None:
        self.running = 0
        self._slots = 0
        self._line = Line(SHARES, places_max=limits.LINE_PLACES_MAX, credit=limits.LINE_CREDIT_TOKENS)
        self._ended = 0
        self._seconds = 0.0  # of a job, in the mean of late

    def __len__(self) -> int:
        return len(self._line)

    def resize(self, slots: int) -> None:
        """So many slots there are now; 0: nobody knows."""
        self._slots = slots

    @property
    def has_room(self) -> bool:
        """Whether one more may go."""
        gap = limits.LINE_GAP_SECONDS / self._seconds if self._seconds else 1.0
        return not self._slots or self.running < self._slots + min(ceil(self._slots * gap), limits.WORKER_QUEUE_MAX)

    def come(self, wish: Wish, now: Instant) -> Wish | None:
        """Join the line; returns who gave way. Raises `Overloaded` with the expected wait where it is too long."""
        wait = self.wait(wish)
        if wait and now + limits.LINE_DOUBT * wait + self._seconds >= wish.until:
            raise _too_late(wait, wish.until - now)
        out = self._line.join(wish)
        assert out is None or isinstance(out, Wish)
        return out

    def called(self, now: Instant) -> Iterator[Wish]:
        """Those who may go now, in their order: each is running from here on, until it is `done`."""
        while self._line and self.has_room:
            wish = self._line.call()
            assert isinstance(wish, Wish)
            wish.begun = now
            self.running += 1
            yield wish

    def leave(self, wish: Wish) -> None:
        """It waits no longer, and was not called."""
        self._line.leave(wish)

    def done(self, wish: Wish, used: int | None, now: Instant) -> None:
        """Its job ended, with so many tokens; None: with an error, which says nothing about how long jobs take."""
        self.running -= 1
        self._line.settle(wish, used or 0)
        if used is not None and wish.begun is not None:
            self._ended += 1
            self._seconds += (now - wish.begun - self._seconds) / min(self._ended, limits.PACE_JOBS)

    def wait(self, wish: Wish) -> float:
        """Seconds until one that comes now is called, as far as can be told."""
        if self.has_room and not self._line:
            return 0.0
        return (self._line.ahead(wish) + 1) * self._seconds / max(1, self._slots)


def gave_way(wait: float) -> Overloaded:
    """What somebody is told who was in line and is not any more."""
    return Overloaded(
        "so many of this tenant's requests wait for this model that the last of them gave way to others'",
        retry_after=min(max(wait, 1.0), limits.WAIT_SECONDS_MAX),
    )


def _too_late(wait: float, patience: float) -> Overloaded:
    return Overloaded(
        f"a slot for this model is free for this tenant in about {wait:.0f} s, and the answer is wanted within "
        f"{patience:.0f} s",
        retry_after=min(wait, limits.WAIT_SECONDS_MAX),
    )
