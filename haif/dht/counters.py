"""What a node counts, for telemetry and for tests."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from haif.base.errors import Reason


@dataclass(slots=True)
class Counters:
    """What a node counted since it began."""

    datagrams_in: int = 0
    datagrams_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    queries_answered: int = 0
    replies_accepted: int = 0
    queries_resent: int = 0
    queries_failed: int = 0
    puts_waited: int = 0  # records of ours that a node took after we came back with its ticket
    eclipses_suspected: int = 0  # lookups that found a neighbourhood far denser than it should be
    dropped: Counter[Reason] = field(default_factory=Counter)
