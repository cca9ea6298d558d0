"""A network worse than life: it loses, delays, doubles and reorders datagrams, and all of it follows from a seed."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What happens to a datagram. Probabilities from 0 to 1, times in seconds."""

    delay_min: float = 0.005
    delay_max: float = 0.085
    loss: float = 0.0
    duplication: float = 0.0
    reordering: float = 0.0  # datagrams held back by up to `held_back_max`, so that later ones overtake them
    held_back_max: float = 0.2

    def deliveries(self, random: Random) -> list[float]:
        """After how many seconds each copy arrives; empty when the datagram is lost."""
        if random.random() < self.loss:
            return []
        copies = 2 if random.random() < self.duplication else 1
        return [self._delay(random) for _ in range(copies)]

    def _delay(self, random: Random) -> float:
        delay = random.uniform(self.delay_min, self.delay_max)
        if random.random() < self.reordering:
            delay += random.uniform(0, self.held_back_max)
        return delay
