"""How many replies we sign for whom: a token bucket per subnet, and one for everybody.

Of each bucket a part is kept for those who proved their address with a token: who only claims one, and may have forged
it, gets what is above that part. So no flood of forged addresses uses up what the holders of tokens live on, neither
for all nor in the name of their own subnet.
"""

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

    def take(self, now: Instant, per_second: float, burst: float, kept: float) -> bool:
        self.level = min(burst, self.level + (now - self.at) * per_second)
        self.at = now
        if self.level < 1 + kept:
            return False
        self.level -= 1
        return True


class SigningBudget:
    """Says whether one more signature may be spent on a source. Memory is bounded by `limits.DHT_SUBNETS_MAX`."""

    def __init__(self, now: Instant) -> None:
        self._everybody = _Bucket(limits.DHT_SIGNATURES_TOTAL_PER_SECOND, now)
        self._subnets: OrderedDict[bytes, _Bucket] = OrderedDict()

    def take(self, source: Address, now: Instant, *, proven: bool) -> bool:
        """Spend one signature on this source, or refuse; `proven` if a token showed that it is there."""
        key = subnet(source)
        bucket = self._subnets.get(key)
        if bucket is None:
            bucket = self._subnets[key] = _Bucket(limits.DHT_SIGNATURES_BURST, now)
            if len(self._subnets) > limits.DHT_SUBNETS_MAX:
                self._subnets.popitem(last=False)
        else:
            self._subnets.move_to_end(key)
        kept = 0.0 if proven else limits.DHT_SIGNATURES_KEPT
        burst, total = limits.DHT_SIGNATURES_BURST, limits.DHT_SIGNATURES_TOTAL_PER_SECOND
        if not bucket.take(now, limits.DHT_SIGNATURES_PER_SECOND, burst, kept * burst):
            return False
        return self._everybody.take(now, total, total, kept * total)

    def __len__(self) -> int:
        return len(self._subnets)
