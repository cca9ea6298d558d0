"""Whether something grows: the Theil-Sen slope (Sen 1968), median of all pairwise slopes, unmoved by single peaks."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median


def growth(samples: Sequence[tuple[float, float]]) -> float:
    """By how much (time, value) grows from the first time to the last; 0 for fewer than two samples."""
    slopes = [(b - a) / (t - s) for at, (s, a) in enumerate(samples) for t, b in samples[at + 1 :]]
    return median(slopes) * (samples[-1][0] - samples[0][0]) if slopes else 0.0
