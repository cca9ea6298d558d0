"""The real clock and the real source of randomness; everything else is handed one or the other."""

from __future__ import annotations

import os
import time

from haif.base.clock import Instant, WallTime


class SystemClock:
    """`base.clock.Clock` over this machine's clocks."""

    def now(self) -> Instant:
        """Seconds of the monotonic clock."""
        return Instant(time.monotonic())

    def wall(self) -> WallTime:
        """Milliseconds since the epoch."""
        return WallTime(time.time_ns() // 1_000_000)


def entropy(count: int) -> bytes:
    """Return `count` bytes from the operating system's generator."""
    return os.urandom(count)
