"""Requests and answers that a gateway keeps for a while, for the validators it was told to trust with them.

In memory only, bounded in bytes and time, oldest first out; what is gone cannot be audited any more.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

from haif.base import limits
from haif.base.clock import Instant
from haif.base.ids import Digest
from haif.protocol.audits import Payload

_TOKEN_BYTES = 5  # in msgpack, at most


@dataclass(slots=True)
class Payloads:
    """What was kept, by the digest of its receipt."""

    bytes_max: int = limits.PAYLOADS_BYTES_MAX
    seconds: float = limits.PAYLOAD_SECONDS
    _kept: OrderedDict[Digest, tuple[Instant, Payload]] = field(default_factory=OrderedDict)
    _bytes: int = 0

    def keep(self, payload: Payload, now: Instant) -> None:
        """Keep it, and forget what is too old or too much."""
        self._kept[payload.receipt] = now, payload
        self._bytes += size_of(payload)
        self.forget(now)

    def forget(self, now: Instant) -> None:
        """Forget what is too old or too much."""
        while self._kept:
            at, oldest = next(iter(self._kept.values()))
            if now - at < self.seconds and self._bytes <= self.bytes_max:
                return
            self._kept.popitem(last=False)
            self._bytes -= size_of(oldest)

    def those(self, receipts: Iterable[Digest]) -> list[Payload]:
        """What is kept of these."""
        return [self._kept[receipt][1] for receipt in receipts if receipt in self._kept]

    def __len__(self) -> int:
        """How many are kept."""
        return len(self._kept)


def size_of(payload: Payload) -> int:
    """Bytes, at most, that it takes in a message."""
    return len(payload.request) + _TOKEN_BYTES * len(payload.tokens) + 2 * Digest.size
