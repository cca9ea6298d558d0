"""The records we keep for others: newest sequence wins, tombstones stay until they expire, room is given away fairly.

1. Whoever has a place keeps it: a newer record takes the older one's. Nobody is ever pushed out.
2. A new place in the first half, of the store and of its topic, is given away at once; in the second half its taker
   must have waited (`tickets`): long if the topic is common here, or places are held from addresses like its own.
3. A sequence once seen here rules out all lower ones until every record seen under it would have expired: neither
   tombstone nor shorter-lived successor lets an older record come back.
4. Two records of one sequence are their owner's contradiction: both are kept, and handed out as its evidence.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from haif.base import limits
from haif.base.clock import WallTime
from haif.base.errors import Conflict, Equivocated, MustWait, OverQuota, Replayed
from haif.base.ids import Digest, PeerId
from haif.base.machine import Address
from haif.dht.similarity import Crowd
from haif.dht.tickets import occupancy, waiting_seconds
from haif.identity.signing import Verified
from haif.protocol.records import Record, contradict, says_the_same

_STALE_ENTRIES_MAX = 1024  # entries of replaced records in the expiry queue before it is rebuilt


@dataclass(slots=True)
class _Place:
    """A record, until when its sequence counts, where it came from (None: not counted), and what contradicts it."""

    record: Verified[Record]
    until: int
    origin: Address | None
    contradiction: Verified[Record] | None = None

    @property
    def size(self) -> int:
        """Bytes held for it."""
        other = len(self.contradiction.evidence) if self.contradiction else 0
        return len(self.record.evidence) + other + limits.RECORD_OVERHEAD_BYTES


class _Topic:
    """The places at one topic, and the addresses they are held from."""

    def __init__(self) -> None:
        self.places: dict[PeerId, _Place] = {}
        self.crowd = Crowd()


class RecordStore:
    """Verified records, one place per topic and owner: at most `limits.RECORDS_STORED_MAX` of them."""

    def __init__(self) -> None:
        self._topics: dict[Digest, _Topic] = {}
        self._crowd = Crowd()
        self._per_signer: Counter[PeerId] = Counter()
        self._count = 0
        self._bytes = 0
        self._expiry: list[tuple[int, Digest, PeerId]] = []

    def put(
        self,
        record: Verified[Record],
        now: WallTime,
        *,
        origin: Address | None = None,
        waited_seconds: float = 0.0,
        replaces: int | None = None,
    ) -> bool:
        """Keep a record; whether anything changed by it. The same bytes again are welcome.

        `origin` is whose network it counts for; `replaces` the sequence its owner wants it to follow (0: none).
        Raises `Replayed` for an older sequence, `Equivocated` for another record under the same sequence, `Conflict`
        if it would replace another than `replaces`, `OverQuota` when the signer's quota or the store is used up, and
        `MustWait`, with what is still to wait, for whoever has not waited long enough.
        """
        self.forget_expired(now)
        held = self._find(record)
        if held is not None and held.record.evidence == record.evidence:
            return False
        self._check_order(held, record, now, replaces)
        if held is None:
            self._admit(record.payload, origin, waited_seconds)
        self._keep(held, record, origin)
        return True

    def get(self, topic: Digest, now: WallTime) -> tuple[Verified[Record], ...]:
        """Every record of a topic, tombstones included: a reader must learn that something is gone.

        Where an owner contradicts itself, both records.
        """
        self.forget_expired(now)
        if topic not in self._topics:
            return ()
        places = self._topics[topic].places.values()
        records = (record for place in places for record in (place.record, place.contradiction))
        return tuple(record for record in records if record is not None and _is_live(record, now))

    def waiting_seconds(self, topic: Digest, origin: Address | None) -> float:
        """How long whoever wants a new place must have waited, as things are now."""
        here = self._topics.get(topic) or _Topic()
        in_topic = len(here.places)
        occupied = max(
            occupancy(self._count, limits.RECORDS_STORED_MAX),
            occupancy(self._bytes, limits.RECORDS_STORED_BYTES_MAX),
        )
        share = in_topic / max(1, self._count)
        at_the_topic = occupancy(in_topic, limits.RECORDS_PER_TOPIC_MAX)
        return max(
            _wait(occupied, share, self._crowd, origin),
            _wait(at_the_topic, 0.0, here.crowd, origin),  # where there are no other topics to be compared with
        )

    def forget_expired(self, now: WallTime) -> None:
        """Drop what nobody's record could be held against any more, so that a tombstone outlives what it buries."""
        due = now - limits.CLOCK_SKEW_MS
        while self._expiry and self._expiry[0][0] <= due:
            until, topic, owner = heappop(self._expiry)
            held = self._topics[topic].places.get(owner) if topic in self._topics else None
            if held is not None and held.until == until:
                self._remove(topic, owner)

    @property
    def bytes(self) -> int:
        """What the records take, with what the store takes for each."""
        return self._bytes

    def __len__(self) -> int:
        return self._count

    # --- what may come in ---------------------------------------------------------------------------------------------

    def _check_order(self, held: _Place | None, record: Verified[Record], now: WallTime, replaces: int | None) -> None:
        live = held is not None and _is_live(held.record, now) and not held.record.payload.tombstone
        present = held.record.payload.sequence if held is not None and live else 0
        if replaces is not None and replaces != present:
            raise Conflict(f"the record held has the sequence {present}, not {replaces}")
        if held is None:
            return
        new, old = record.payload, held.record.payload
        if new.sequence < old.sequence or (new.expires < old.expires and says_the_same(new, old)):
            raise Replayed("a newer record of that owner is held", record.signer)
        if contradict(new, old):
            if held.contradiction is None:
                self._bytes -= held.size
                held.contradiction = record
                self._bytes += held.size
            raise Equivocated("its owner signed two records with one sequence; both are kept", record.signer)

    def _admit(self, record: Record, origin: Address | None, waited_seconds: float) -> None:
        if self._per_signer[record.owner] >= limits.RECORDS_PER_SIGNER_MAX:
            raise OverQuota(f"this node keeps at most {limits.RECORDS_PER_SIGNER_MAX} records of one signer")
        if self._count >= limits.RECORDS_STORED_MAX:
            raise OverQuota(f"this node keeps at most {limits.RECORDS_STORED_MAX} records")
        if self._bytes >= limits.RECORDS_STORED_BYTES_MAX:
            raise OverQuota(f"this node keeps at most {limits.RECORDS_STORED_BYTES_MAX} bytes of records")
        here = self._topics.get(record.topic)
        if here is not None and len(here.places) >= limits.RECORDS_PER_TOPIC_MAX:
            raise OverQuota(f"this node keeps at most {limits.RECORDS_PER_TOPIC_MAX} records of one topic")
        wait = self.waiting_seconds(record.topic, origin) - waited_seconds
        if wait > 0:
            raise MustWait("this node fills up; there is a place for whoever waits for it", retry_after=wait)

    # --- the books ----------------------------------------------------------------------------------------------------

    def _find(self, record: Verified[Record]) -> _Place | None:
        topic = self._topics.get(record.payload.topic)
        return topic.places.get(record.payload.owner) if topic else None

    def _keep(self, held: _Place | None, record: Verified[Record], origin: Address | None) -> None:
        payload = record.payload
        until = max(payload.expires, held.until if held else 0)
        if held is not None:
            self._remove(payload.topic, payload.owner)
        place = _Place(record, until, origin)
        topic = self._topics.setdefault(payload.topic, _Topic())
        topic.places[payload.owner] = place
        self._per_signer[payload.owner] += 1
        self._count += 1
        self._bytes += place.size
        if origin is not None:
            topic.crowd.add(origin)
            self._crowd.add(origin)
        heappush(self._expiry, (until, payload.topic, payload.owner))
        self._bound_queue()

    def _remove(self, name: Digest, owner: PeerId) -> None:
        topic = self._topics[name]
        place = topic.places.pop(owner)
        if place.origin is not None:
            topic.crowd.remove(place.origin)
            self._crowd.remove(place.origin)
        if not topic.places:
            del self._topics[name]
        self._bytes -= place.size
        self._count -= 1
        self._per_signer[owner] -= 1
        if not self._per_signer[owner]:
            del self._per_signer[owner]

    def _bound_queue(self) -> None:
        if len(self._expiry) > 2 * len(self) + _STALE_ENTRIES_MAX:
            self._expiry = [
                (place.until, name, owner)
                for name, topic in self._topics.items()
                for owner, place in topic.places.items()
            ]
            heapify(self._expiry)


def _wait(occupied: float, share: float, crowd: Crowd, origin: Address | None) -> float:
    if occupied < 0:
        return 0.0
    similarity = 0.0 if origin is None else crowd.similarity(origin)
    return waiting_seconds(occupied=occupied, share=share, similarity=similarity)


def _is_live(record: Verified[Record], now: WallTime) -> bool:
    return record.payload.expires > now - limits.CLOCK_SKEW_MS
