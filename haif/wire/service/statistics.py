"""What a wire counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from haif.base.errors import Dropped, Reason


@dataclass(frozen=True, slots=True)
class WireStatistics:
    """A snapshot. Calls are those open now; bytes, handshakes, moves to another path and drops are since the start."""

    sessions: int
    half_open: int
    calls_made: int
    calls_served: int
    bytes_in: int
    bytes_out: int
    handshakes_done: int
    handshakes_failed: int
    moved: int
    dropped: Mapping[Reason, int]


class Tally:
    """Counts since the start. `on_dropped` hears of every refusal that is counted."""

    __slots__ = ("_on_dropped", "bytes_in", "bytes_out", "dropped", "handshakes_done", "handshakes_failed", "moved")

    def __init__(self, on_dropped: Callable[[Dropped], None]) -> None:
        self.bytes_in = 0
        self.bytes_out = 0
        self.handshakes_done = 0
        self.handshakes_failed = 0
        self.moved = 0
        self.dropped = Counter[Reason]()
        self._on_dropped = on_dropped

    def drop(self, event: Dropped) -> None:
        """A session or a call was refused, or a handler of ours failed."""
        self.dropped[event.reason] += 1
        self._on_dropped(event)
