"""When a node looks after its table: as seldom as its contacts' lives allow.

Each lookup finds out who is gone; so the share of our queries that nobody answers tells how fast the network changes,
and the period follows: the longest while few fail, much shorter when many do (self-tuning, as in Castro,
Costa and Rowstron 2004). A node that knows fewer than k peers looks around as often as it may: that costs little, and
it needs the others most. How the periods were chosen: docs/decisions/0015-upkeep.md.
"""

from __future__ import annotations

from haif.base import limits
from haif.base.clock import Instant
from haif.dht.table import RoutingTable

_INSPECTION_SECONDS = 60.0  # idle buckets are looked for this often
_QUERIES_WEIGHED = 64  # about so many of the last queries decide
_STEEPNESS = 3  # half of all contacts gone at once is an emergency, a little more churn is not


class Upkeep:
    """A timetable: told the time, it says what is due. A node without contacts is due again much sooner."""

    def __init__(self, table: RoutingTable, now: Instant) -> None:
        self._table = table
        self._failing = 0.0  # share of queries, the latest weighing most
        self._period = limits.DHT_SELF_LOOKUP_SECONDS
        self._inspection_at = Instant(now + _INSPECTION_SECONDS)
        self.postpone(now)

    @property
    def bucket_seconds(self) -> float:
        """How long a bucket may be idle."""
        return limits.DHT_BUCKET_REFRESH_PERIODS * self._period

    def answered(self) -> None:
        """A query of ours was answered."""
        self._failing -= self._failing / _QUERIES_WEIGHED

    def unanswered(self) -> None:
        """A query of ours failed."""
        self._failing += (1 - self._failing) / _QUERIES_WEIGHED

    def postpone(self, now: Instant) -> None:
        """The neighbourhood is being looked up now."""
        self._looked = now
        self._neighbourhood_at = Instant(now + self._period)

    def wake_at(self) -> Instant:
        """When something will be due."""
        return min(self._neighbourhood_at, self._inspection_at)

    def neighbourhood_due(self, now: Instant) -> bool:
        """Whether to look up our own id; if so, the next time is set."""
        if now < self._neighbourhood_at:
            return False
        self.postpone(now)
        if not len(self._table):
            self._neighbourhood_at = Instant(now + limits.DHT_ALONE_RETRY_SECONDS)
        return True

    def inspection_due(self, now: Instant) -> bool:
        """Whether to look for idle buckets and expired records; if so, the next time is set, and the period anew."""
        if now < self._inspection_at:
            return False
        self._inspection_at = Instant(now + _INSPECTION_SECONDS)
        self._period = self._suitable()
        at = Instant(self._looked + self._period)
        self._neighbourhood_at = at if len(self._table) else min(at, self._neighbourhood_at)
        return True

    def _suitable(self) -> float:
        if len(self._table) < limits.DHT_K:
            return limits.DHT_SELF_LOOKUP_SECONDS
        calm = limits.DHT_FAILING_SHARE / max(self._failing, limits.DHT_FAILING_SHARE)
        return max(limits.DHT_SELF_LOOKUP_SECONDS, calm**_STEEPNESS * limits.DHT_SELF_LOOKUP_SECONDS_MAX)
