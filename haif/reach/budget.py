"""How often we dial an address somebody showed us: little for each peer, little for all, whoever asks.

A peer and a relay that lie together can name an address that is not the peer's. These bounds are what such a third
party can be sent by us: a few packets a minute.
"""

from __future__ import annotations

from collections import OrderedDict

from haif.base import limits
from haif.base.clock import Instant
from haif.base.errors import OverQuota
from haif.base.ids import PeerId
from haif.policy.bucket import Bucket


class PunchBudget:
    """Buckets of dials by peer, and one for all. A meeting costs `limits.PUNCH_TRIES_MAX`."""

    def __init__(self, now: Instant) -> None:
        self._all = _bucket(limits.PUNCHES_PER_MINUTE_MAX, now)
        self._peers: OrderedDict[PeerId, Bucket] = OrderedDict()

    def take(self, peer: PeerId, now: Instant) -> None:
        """Take one meeting. Raises `OverQuota`, and takes nothing then."""
        own = self._peers.get(peer) or _bucket(limits.PUNCHES_PER_PEER_AND_MINUTE_MAX, now)
        own, answer = own.take(limits.PUNCH_TRIES_MAX, now)
        if answer.allowed:
            self._all, answer = self._all.take(limits.PUNCH_TRIES_MAX, now)
        if not answer.allowed:
            raise OverQuota(
                f"{peer.short}… and we tried often enough to meet directly for now", retry_after=answer.retry_after
            )
        self._peers[peer] = own
        self._peers.move_to_end(peer)
        if len(self._peers) > limits.PUNCH_PEERS_MAX:
            self._peers.popitem(last=False)


def _bucket(per_minute: int, now: Instant) -> Bucket:
    return Bucket.full(capacity=per_minute, rate=per_minute / 60, now=now)
