"""A retry budget as a value: retries may be a share of what is asked for, and a few a second besides.

Retries help while a little fails. When everything fails they multiply the load and keep it down; a budget bounds the
amplification, whatever the number of attempts of one job ("The Site Reliability Workbook", ch. 22; Finagle's budgets).
"""

from __future__ import annotations

from dataclasses import dataclass

from haif.base.clock import Instant


@dataclass(frozen=True, slots=True)
class RetryBudget:
    """`level` retries are left at `updated`; `share` more for each request, `rate` more a second, `most` in all."""

    share: float
    rate: float
    most: float
    level: float
    updated: Instant

    @classmethod
    def full(cls, *, share: float, rate: float, most: float, now: Instant) -> RetryBudget:
        """A budget nobody has used."""
        return cls(share, rate, most, most, now)

    def has_one(self, now: Instant) -> bool:
        """Whether a retry is left."""
        return self._level(now) >= 1.0

    def asked(self, now: Instant) -> RetryBudget:
        """A request came."""
        return self._with(self._level(now) + self.share, now)

    def retried(self, now: Instant) -> RetryBudget:
        """A retry was made."""
        return self._with(self._level(now) - 1.0, now)

    def _with(self, level: float, now: Instant) -> RetryBudget:
        level = max(0.0, min(self.most, level))
        return RetryBudget(self.share, self.rate, self.most, level, max(now, self.updated))

    def _level(self, now: Instant) -> float:
        return min(self.most, self.level + max(0.0, now - self.updated) * self.rate)
