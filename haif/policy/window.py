"""A sliding window by key: at most so many in any stretch of so many seconds, to the very one.

A bucket of the same numbers lets twice as many through around a minute's edge; where a limit is published as a count
per minute, the count is to hold for every minute. Costs a time for each event that still counts.
"""

from __future__ import annotations

from collections import deque

from haif.base.clock import Instant
from haif.policy.bucket import Answer


class Windows:
    """`most` events of one key in any `seconds`, of at most `keys_max` keys: the least recent is forgotten first."""

    def __init__(self, *, most: int, seconds: float, keys_max: int) -> None:
        self.most = most
        self._seconds = seconds
        self._keys_max = keys_max
        self._events: dict[str, deque[Instant]] = {}  # the most recent last

    def take(self, key: str, now: Instant) -> Answer:
        """One more event, if it may be. What is refused does not count."""
        events = self._events.pop(key, None)
        if events is None:
            events = deque()
            if len(self._events) >= self._keys_max:
                del self._events[next(iter(self._events))]
        self._events[key] = events
        while events and events[0] <= now - self._seconds:
            events.popleft()
        if len(events) >= self.most:
            return Answer(False, 0, events[0] + self._seconds - now, events[-1] + self._seconds - now)
        events.append(now)
        return Answer(True, self.most - len(events), 0.0, self._seconds)

    def __len__(self) -> int:
        return len(self._events)
