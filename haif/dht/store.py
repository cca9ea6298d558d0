"""The records we keep for others: newest sequence wins, tombstones stay until they expire, everything has a quota."""

from __future__ import annotations

from collections import Counter
from heapq import heapify, heappop, heappush

from haif.base import limits
from haif.base.clock import WallTime
from haif.base.errors import OverQuota, Replayed, WrongState
from haif.base.ids import Digest, PeerId
from haif.identity.signing import Verified
from haif.protocol.records import Record

_STALE_ENTRIES_MAX = 1024  # entries of replaced records in the expiry queue before it is rebuilt


class RecordStore:
    """At most `limits.RECORDS_STORED_MAX` verified records, one per topic and owner."""

    def __init__(self) -> None:
        self._topics: dict[Digest, dict[PeerId, Verified[Record]]] = {}
        self._per_signer: Counter[PeerId] = Counter()
        self._count = 0
        self._expiry: list[tuple[int, Digest, PeerId]] = []

    def put(self, record: Verified[Record], now: WallTime) -> None:
        """Keep a record; the same bytes again are welcome.

        Raises `Replayed` for an older sequence, `WrongState` for other bytes under the same sequence (its owner
        contradicts itself) and `OverQuota` when signer, topic or store are full.
        """
        self.forget_expired(now)
        payload = record.payload
        topic = self._topics.get(payload.topic, {})
        held = topic.get(payload.owner)
        if held is None:
            self._check_quota(payload, len(topic))
            self._per_signer[payload.owner] += 1
            self._count += 1
        elif held.evidence == record.evidence:
            return
        elif payload.sequence < held.payload.sequence:
            raise Replayed("a newer record of that owner is held", payload.owner)
        elif payload.sequence == held.payload.sequence:
            raise WrongState("the owner signed two records with one sequence", payload.owner)
        self._topics.setdefault(payload.topic, topic)[payload.owner] = record
        heappush(self._expiry, (payload.expires, payload.topic, payload.owner))
        self._bound_queue()

    def get(self, topic: Digest, now: WallTime) -> tuple[Verified[Record], ...]:
        """Every record of a topic, tombstones included: a reader must learn that something is gone."""
        self.forget_expired(now)
        return tuple(self._topics.get(topic, {}).values())

    def forget_expired(self, now: WallTime) -> None:
        """Drop what `open_record` would refuse by now, so that a tombstone outlives what it buries."""
        due = now - limits.CLOCK_SKEW_MS
        while self._expiry and self._expiry[0][0] <= due:
            expires, topic, owner = heappop(self._expiry)
            held = self._topics.get(topic, {}).get(owner)
            if held is not None and held.payload.expires == expires:
                self._remove(topic, owner)

    def __len__(self) -> int:
        return self._count

    def _check_quota(self, record: Record, in_topic: int) -> None:
        if self._per_signer[record.owner] >= limits.RECORDS_PER_SIGNER_MAX:
            raise OverQuota(f"this node keeps at most {limits.RECORDS_PER_SIGNER_MAX} records of one signer")
        if in_topic >= limits.RECORDS_PER_TOPIC_MAX:
            raise OverQuota(f"this node keeps at most {limits.RECORDS_PER_TOPIC_MAX} records of one topic")
        if len(self) >= limits.RECORDS_STORED_MAX:
            raise OverQuota(f"this node keeps at most {limits.RECORDS_STORED_MAX} records")

    def _remove(self, topic: Digest, owner: PeerId) -> None:
        del self._topics[topic][owner]
        if not self._topics[topic]:
            del self._topics[topic]
        self._count -= 1
        self._per_signer[owner] -= 1
        if not self._per_signer[owner]:
            del self._per_signer[owner]

    def _bound_queue(self) -> None:
        if len(self._expiry) > 2 * len(self) + _STALE_ENTRIES_MAX:
            self._expiry = [
                (record.payload.expires, topic, owner)
                for topic, owners in self._topics.items()
                for owner, record in owners.items()
            ]
            heapify(self._expiry)
