"""How much an engine computed, in all and lately."""

from __future__ import annotations

from collections import deque

from haif.base import limits
from haif.base.clock import Instant


class Meter:
    """Totals since the engine was entered, and rates over the last `limits.ENGINE_RATE_SECONDS`."""

    def __init__(self) -> None:
        self._steps: deque[tuple[Instant, int, int]] = deque(maxlen=limits.ENGINE_RATE_STEPS_MAX)
        self.steps = 0
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.completion_tokens = 0
        self.preemptions = 0

    def add(self, now: Instant, sampled: int, batch_tokens: int) -> None:
        """One step."""
        self.steps += 1
        self.completion_tokens += sampled
        self._steps.append((now, sampled, batch_tokens))

    def rates(self, now: Instant) -> tuple[float, float]:
        """Sampled tokens per second, and mean tokens per batch."""
        recent = [step for step in self._steps if now - step[0] <= limits.ENGINE_RATE_SECONDS]
        if not recent:
            return 0.0, 0.0
        span = max(now - recent[0][0], 1e-3)
        return sum(step[1] for step in recent) / span, sum(step[2] for step in recent) / len(recent)
