"""What a node counts, for telemetry and for tests."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import NamedTuple

from haif.base import limits
from haif.base.errors import Reason


class LookupEnded(NamedTuple):
    """A lookup, with what followed it: how many queries in a row led to the closest peer, and how long all took."""

    hops: int
    seconds: float


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
    carried: int = 0  # records of others that we published in our family's directory
    carried_for_us: int = 0  # records of ours that somebody took to the other family's
    eclipses_suspected: int = 0  # lookups that found a neighbourhood far denser than it should be
    lookups: deque[LookupEnded] = field(default_factory=lambda: deque(maxlen=limits.DHT_EVENTS_MAX))  # not yet read
    dropped: Counter[Reason] = field(default_factory=Counter)
