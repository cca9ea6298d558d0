"""A circuit breaker as a value: it opens where too much fails, and lets one try through now and then to see.

    closed      failures in a row, or a share of enough calls within a window, open it
    open        for a time that doubles with each opening in a row; then it is half open
    half open   one probe in `probe_seconds`; a success closes it, a failure opens it again

Nygard 2007, "Release It!"; the numbers are like those of Envoy's outlier detection.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from haif.base.clock import Instant


class Position(StrEnum):
    """What a breaker lets through: everything, nothing, a probe."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """When a breaker opens and for how long. Times in seconds."""

    in_a_row: int
    window_seconds: float
    calls_min: int  # within a window, before its share of failures says anything
    share: float
    open_seconds: float
    open_seconds_max: float
    probe_seconds: float


@dataclass(frozen=True, slots=True)
class Breaker:
    """One breaker. A new one is closed and knows nothing."""

    rules: Rules
    begun: Instant  # when the window began
    row: int = 0
    good: int = 0
    bad: int = 0
    openings: int = 0  # in a row
    until: Instant | None = None  # open, or half open after it
    probed: Instant | None = None  # when the last probe left

    def position(self, now: Instant) -> Position:
        """Where it stands."""
        if self.until is None:
            return Position.CLOSED
        return Position.OPEN if now < self.until else Position.HALF_OPEN

    def allows(self, now: Instant) -> bool:
        """Whether a call may be made."""
        position = self.position(now)
        if position is not Position.HALF_OPEN:
            return position is Position.CLOSED
        return self.probed is None or now - self.probed >= self.rules.probe_seconds

    def tried(self, now: Instant) -> Breaker:
        """A call was made."""
        return replace(self, probed=now) if self.position(now) is Position.HALF_OPEN else self

    def succeeded(self, now: Instant) -> Breaker:
        """A call went well. One that was made before it opened closes nothing."""
        position = self.position(now)
        if position is Position.OPEN:
            return self
        if position is Position.HALF_OPEN:
            return Breaker(self.rules, now, openings=self.openings)
        fresh = self._in_window(now)
        return replace(fresh, row=0, good=fresh.good + 1)

    def failed(self, now: Instant) -> Breaker:
        """A call failed."""
        position = self.position(now)
        if position is Position.OPEN:
            return self
        counted = self._in_window(now)
        counted = replace(counted, row=counted.row + 1, bad=counted.bad + 1)
        too_much = position is Position.HALF_OPEN or _is_too_much(self.rules, counted.row, counted.good, counted.bad)
        return self._opened(now) if too_much else counted

    def _opened(self, now: Instant) -> Breaker:
        seconds = min(self.rules.open_seconds * 2.0 ** min(self.openings, 32), self.rules.open_seconds_max)
        return Breaker(self.rules, now, openings=self.openings + 1, until=Instant(now + seconds))

    def _in_window(self, now: Instant) -> Breaker:
        """The same, with the window that is now. A whole window without a failure ends the row of openings."""
        if now - self.begun < self.rules.window_seconds:
            return self
        return Breaker(self.rules, now, row=self.row, openings=self.openings if self.bad else 0)


def _is_too_much(rules: Rules, row: int, good: int, bad: int) -> bool:
    calls = good + bad
    return row >= rules.in_a_row or (calls >= rules.calls_min and bad >= rules.share * calls)
