"""Vectors as they travel, are signed and are given: little-endian IEEE 754 singles, one after the other."""

from __future__ import annotations

import numpy as np

FLOAT_BYTES = 4
UNIT_TOLERANCE = 1e-3  # how far a length of 1 may be off: rounding 8,192 singles takes some 1e-6


def is_sound(vector: bytes, *, unit: bool) -> bool:
    """Whether these are finite numbers only and, with `unit`, a vector of length 1."""
    numbers = np.frombuffer(vector, "<f4").astype(np.float64)
    if not np.isfinite(numbers).all():
        return False
    return not unit or abs(float(np.sqrt(np.square(numbers).sum())) - 1) < UNIT_TOLERANCE


def numbers_of(vector: bytes) -> list[float]:
    """The numbers in a vector."""
    return [float(number) for number in np.frombuffer(vector, "<f4").tolist()]
