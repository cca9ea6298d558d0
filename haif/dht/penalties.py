"""Who has broken the protocol too often to be spoken to.

What a peer says under its signature is held against the peer. A reply whose signature does not verify is held only
against the peer *at that address*: else whoever gives a false address for a true peer could have it barred.
"""

from __future__ import annotations

from collections import OrderedDict

from haif.base import limits
from haif.base.clock import Instant
from haif.base.ids import PeerId
from haif.dht.contact import Contact


class Penalties:
    """Counts faults; at `limits.DHT_FAULTS_MAX` within the hour the culprit is barred for `DHT_PENALTY_SECONDS`.

    At most `limits.DHT_PENALTIES_MAX` culprits are remembered; the least recent is forgotten first.
    """

    def __init__(self) -> None:
        self._faults: OrderedDict[PeerId | Contact, tuple[int, Instant]] = OrderedDict()
        self.excluded: frozenset[PeerId] = frozenset()  # by the network's owner

    def fault(self, culprit: PeerId | Contact, now: Instant) -> bool:
        """Note a fault. Whether the culprit is barred now."""
        count, at = self._faults.pop(culprit, (0, now))
        count = 1 if now - at >= limits.DHT_PENALTY_SECONDS else count + 1
        self._faults[culprit] = count, now
        if len(self._faults) > limits.DHT_PENALTIES_MAX:
            self._faults.popitem(last=False)
        return count >= limits.DHT_FAULTS_MAX

    def bars(self, contact: Contact, now: Instant) -> bool:
        """Whether a contact is to be left alone."""
        if contact.peer in self.excluded:
            return True
        return bool(self._faults) and (self._is_barred(contact.peer, now) or self._is_barred(contact, now))

    def _is_barred(self, culprit: PeerId | Contact, now: Instant) -> bool:
        count, at = self._faults.get(culprit, (0, now))
        return count >= limits.DHT_FAULTS_MAX and now - at < limits.DHT_PENALTY_SECONDS

    def __len__(self) -> int:
        return len(self._faults)
