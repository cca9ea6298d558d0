"""A topic that is watched: what is there, what has changed, and when to look again.

Holders of the topic tell us at once what they store there (`notices`). That is quick and costs next to nothing, but
datagrams get lost and holders lie, so the whole of the closest set is read too: soon after a read that brought what no
holder had told us, ever more rarely while reads bring nothing new.

Whoever listens compares what it was told with what is there now (`changes`): nothing queues up for a slow listener.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from haif.base import limits
from haif.base.clock import Instant, WallTime
from haif.base.hashing import digest
from haif.base.ids import Digest, PeerId
from haif.base.machine import Address
from haif.dht.contact import Contact
from haif.identity.signing import Verified
from haif.protocol.records import Record

Live = Mapping[PeerId, Verified[Record]]
"""The newest record of each owner that has announced something and not withdrawn it."""


def newest(records: Iterable[Verified[Record]]) -> dict[PeerId, Verified[Record]]:
    """The newest record of each owner among these, tombstones included."""
    found: dict[PeerId, Verified[Record]] = {}
    for record in records:
        if record.signer not in found or rank(record) > rank(found[record.signer]):
            found[record.signer] = record
    return found


class What(Enum):
    """What became of an owner's announcement."""

    ADDED = "added"
    RENEWED = "renewed"  # with another body; the same body again is no change
    GONE = "gone"  # withdrawn or expired


@dataclass(frozen=True, slots=True)
class Change:
    """A change at a topic. `record` is the newest that was there; of what is gone, the last."""

    what: What
    record: Verified[Record]


def changes(told: Live, live: Live) -> list[Change]:
    """What to tell somebody who was told the one, now that the other is so."""
    gone = [Change(What.GONE, record) for owner, record in told.items() if owner not in live]
    added = [Change(What.ADDED, record) for owner, record in live.items() if owner not in told]
    renewed = [
        Change(What.RENEWED, record)
        for owner, record in live.items()
        if owner in told and told[owner].payload.body != record.payload.body
    ]
    return gone + added + renewed


class Watch:
    """One topic, for everybody here who watches it."""

    def __init__(self, topic: Digest, handle: bytes, now: Instant) -> None:
        self.topic, self.handle = topic, handle
        self.holders: dict[Contact, bytes] = {}  # who has promised to tell us, and the token it wants to see
        self.pace = Pace(now)
        self.was_read = False
        self._newest: dict[PeerId, Verified[Record]] = {}
        self._gone_at: int | None = None  # when the next live record expires, or less

    def choose(self, nearest: Sequence[Contact]) -> list[Contact]:
        """Which holders to ask for notices: some of the nearest, whom nobody else can foresee."""
        near = nearest[: limits.WATCH_HOLDERS_AMONG]
        return sorted(near, key=lambda c: digest("haif v1 dht holders", self.handle, c.peer))[: limits.WATCH_HOLDERS]

    def holder_at(self, address: Address) -> PeerId | None:
        """Who has promised to tell us, and lives there."""
        return next((contact.peer for contact in self.holders if contact.address == address), None)

    def consider(self, record: Verified[Record], wall: WallTime) -> bool:
        """Take in a record of this topic; whether it is news."""
        held = self._newest.get(record.signer)
        if record.payload.expires <= wall or (held is not None and rank(record) <= rank(held)):
            return False
        if held is None and len(self._newest) >= limits.WATCH_RECORDS_MAX and not self._make_room(wall):
            return False
        self._newest[record.signer] = record
        self._gone_at = min(self._gone_at or record.payload.expires, record.payload.expires)
        return True

    def live(self, wall: WallTime) -> dict[PeerId, Verified[Record]]:
        """What is there now."""
        return {owner: record for owner, record in self.held(wall).items() if not record.payload.tombstone}

    def held(self, wall: WallTime) -> dict[PeerId, Verified[Record]]:
        """The newest word of each owner, that it withdrew what it said included."""
        return {owner: record for owner, record in self._newest.items() if record.payload.expires > wall}

    def expired(self, wall: WallTime) -> bool:
        """Whether something has expired since this was last asked."""
        if self._gone_at is None or self._gone_at > wall:
            return False
        self._forget(wall)
        return True

    @property
    def gone_at(self) -> int | None:
        """When something may expire."""
        return self._gone_at

    def _make_room(self, wall: WallTime) -> bool:
        self._forget(wall)
        return len(self._newest) < limits.WATCH_RECORDS_MAX

    def _forget(self, wall: WallTime) -> None:
        self._newest = {owner: record for owner, record in self._newest.items() if record.payload.expires > wall}
        self._gone_at = min((record.payload.expires for record in self._newest.values()), default=None)


class Pace:
    """When to read a topic, and when to renew what its holders promised. Never in step with anybody else."""

    def __init__(self, now: Instant) -> None:
        self.read_at: Instant = now
        self.renew_at: Instant = Instant(float("inf"))  # with the first read
        self._began: Instant = Instant(float("-inf"))
        self._seconds = limits.WATCH_READ_SECONDS_MIN

    def reading(self, now: Instant) -> None:
        """A read begins; until it ends none is due."""
        self._began = now
        self.read_at = self.renew_at = Instant(float("inf"))

    def read(self, now: Instant, chance: float, *, missed: bool, notified: bool) -> None:
        """A read ended. `missed`: it brought what nobody had told us; `notified`: somebody promised to tell us more."""
        longest = limits.WATCH_READ_SECONDS_MAX if notified else limits.WATCH_READ_SECONDS_ALONE
        self._seconds = limits.WATCH_READ_SECONDS_MIN if missed else min(2 * self._seconds, longest)
        self.read_at = _about(now, self._seconds, chance)
        self.renewed(now, chance)

    def renewing(self) -> None:
        """A renewal begins."""
        self.renew_at = Instant(float("inf"))

    def renewed(self, now: Instant, chance: float) -> None:
        """A renewal ended."""
        self.renew_at = _about(now, limits.WATCH_RENEW_SECONDS, chance)

    def hurry(self, now: Instant) -> None:
        """Somebody has reason to believe that we miss something: read now, if the last read is not quite fresh."""
        soon = max(now, self._began + limits.WATCH_HURRY_SECONDS)
        if self.read_at != float("inf"):
            self.read_at = Instant(min(self.read_at, soon))


def _about(now: Instant, seconds: float, chance: float) -> Instant:
    """So many seconds from now, give or take a fifth; `chance` is 0 to 1."""
    return Instant(now + seconds * (0.8 + 0.4 * chance))


def rank(record: Verified[Record]) -> tuple[int, int, bytes]:
    """Of two records of one owner the higher holds. The bytes decide when an owner contradicts itself."""
    return record.payload.sequence, record.payload.expires, record.evidence
