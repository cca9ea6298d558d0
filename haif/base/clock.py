"""Time as a value: functions take the time they need as an argument and never ask for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NewType, Protocol

Instant = NewType("Instant", float)
"""Seconds of a monotonic clock. Only differences mean anything, and only within one process."""

WallTime = NewType("WallTime", int)
"""Milliseconds since the Unix epoch. Used where two machines must agree, within `limits.CLOCK_SKEW_MS`."""


class Clock(Protocol):
    """What the composition root hands to a service that needs the time."""

    def now(self) -> Instant: ...
    def wall(self) -> WallTime: ...


@dataclass(frozen=True, slots=True, order=True)
class Deadline:
    """The moment by which an answer is worth something. It travels with a request and only shrinks."""

    at: Instant

    @classmethod
    def after(cls, seconds: float, now: Instant) -> Deadline:
        """The deadline `seconds` from `now`."""
        return cls(Instant(now + seconds))

    def remaining(self, now: Instant) -> float:
        """Seconds left; never negative."""
        return max(0.0, self.at - now)

    def passed(self, now: Instant) -> bool:
        """Whether it is too late."""
        return now >= self.at

    def shrunk(self, seconds: float, now: Instant) -> Deadline:
        """The earlier of this deadline and `seconds` from `now`."""
        return min(self, Deadline.after(seconds, now))
