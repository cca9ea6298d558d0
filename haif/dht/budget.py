"""How many replies we sign for whom: a token bucket per subnet, and one for everybody."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from haif.base import limits
from haif.base.clock import Instant
from haif.base.machine import Address
from haif.dht.contact import subnet


@dataclass(slots=True)
class _Bucket:
    level: float
    at: Instant

    def take(self, now: Instant, per_second: float, burst: float) -> bool:
        self.level = min(burst, self.level + (now - self.at) * per_second)
        self.at = now
        if self.level < 1:
            return False
        self.level -= 1
        return True


class SigningBudget:
    """Says whether one more signature may be spent on a source. Memory is bounded by `limits.DHT_SUBNETS_MAX`."""

    def __init__(self, now: Instant) -> None:
        self._everybody = _Bucket(limits.DHT_SIGNATURES_TOTAL_PER_SECOND, now)
        self._subnets: OrderedDict[bytes, _Bucket] = OrderedDict()

    def take(self, source: Address, now: Instant) -> bool:
        """Spend one signature on this source, or refuse."""
        key = subnet(source)
        bucket = self._subnets.get(key)
        if bucket is None:
            bucket = self._subnets[key] = _Bucket(limits.DHT_SIGNATURES_BURST, now)
            if len(self._subnets) > limits.DHT_SUBNETS_MAX:
                self._subnets.popitem(last=False)
        else:
            self._subnets.move_to_end(key)
        if not bucket.take(now, limits.DHT_SIGNATURES_PER_SECOND, limits.DHT_SIGNATURES_BURST):
            return False
        total = limits.DHT_SIGNATURES_TOTAL_PER_SECOND
        return self._everybody.take(now, total, total)

    def __len__(self) -> int:
        return len(self._subnets)
