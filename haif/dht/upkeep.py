"""When a node looks after its table: its own neighbourhood every five minutes, a bucket idle for ten."""

from __future__ import annotations

from haif.base import limits
from haif.base.clock import Instant
from haif.dht.table import RoutingTable

_INSPECTION_SECONDS = 60.0  # idle buckets are looked for this often


class Upkeep:
    """A timetable: told the time, it says what is due. A node without contacts is due again much sooner."""

    def __init__(self, table: RoutingTable, now: Instant) -> None:
        self._table = table
        self._inspection_at = Instant(now + _INSPECTION_SECONDS)
        self.postpone(now)

    def postpone(self, now: Instant) -> None:
        """The neighbourhood is being looked up now."""
        self._neighbourhood_at = Instant(now + limits.DHT_SELF_LOOKUP_SECONDS)

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
        """Whether to look for idle buckets and expired records; if so, the next time is set."""
        if now < self._inspection_at:
            return False
        self._inspection_at = Instant(now + _INSPECTION_SECONDS)
        return True
