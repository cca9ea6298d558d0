"""A token bucket as a value: it fills at a steady rate, and whoever takes from it learns when to come back.

The level is only brought up to date when something is asked of the bucket (the lazy form of Turner's leaky bucket as a
meter, 1986): no timer, no state besides two numbers. A refused take costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from haif.base.clock import Instant


@dataclass(frozen=True, slots=True)
class Answer:
    """What the bucket says. `retry_after`: seconds until the same take would succeed; `full_in`: until it is full."""

    allowed: bool
    remaining: int
    retry_after: float
    full_in: float


@dataclass(frozen=True, slots=True)
class Bucket:
    """`capacity` at most, filling at `rate` per second; it held `level` at `updated`."""

    capacity: float
    rate: float
    level: float
    updated: Instant

    @classmethod
    def full(cls, *, capacity: float, rate: float, now: Instant) -> Bucket:
        """A bucket nobody has taken from. Both numbers must be above zero."""
        if capacity <= 0 or rate <= 0:
            raise ValueError("a bucket needs a capacity and a rate above zero")
        return cls(capacity, rate, capacity, now)

    def take(self, n: float, now: Instant) -> tuple[Bucket, Answer]:
        """Take `n` if they are there. More than the capacity is never there: `retry_after` is then infinite."""
        level = self._level(now)
        allowed = n <= level
        missing = 0.0 if allowed else n - level
        if allowed:
            level -= n
        wait = missing / self.rate if n <= self.capacity else float("inf")
        after = Bucket(self.capacity, self.rate, level, max(now, self.updated))
        return after, Answer(allowed, max(0, int(level)), wait, (self.capacity - level) / self.rate)

    def given(self, n: float, now: Instant) -> Bucket:
        """The same bucket with so much more in it, as far as it fits. Below zero is a debt: it fills up from there."""
        return Bucket(self.capacity, self.rate, min(self.capacity, self._level(now) + n), max(now, self.updated))

    def resized(self, *, capacity: float, rate: float, now: Instant) -> Bucket:
        """The same bucket with other bounds: what is in it stays, as far as it fits."""
        return Bucket(capacity, rate, min(capacity, self._level(now)), max(now, self.updated))

    def _level(self, now: Instant) -> float:
        """Time never runs backwards here: an older `now` changes nothing."""
        return min(self.capacity, self.level + max(0.0, now - self.updated) * self.rate)
