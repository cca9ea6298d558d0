"""What we publish: signed, stored at the closest nodes, and published again until it is withdrawn.

What was withdrawn while no node could be told is withdrawn again and again, until one was or the record has expired.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from haif.base import limits
from haif.base.clock import Clock, Instant, WallTime
from haif.base.errors import Dropped, HaifError, Misuse, Oversize
from haif.base.ids import Digest, PeerId
from haif.protocol.records import Record, RecordKind

_RETRY_SECONDS: Final = 5.0  # after a publication or a withdrawal that failed

Store = Callable[[Record], Awaitable[None]]
"""Signs a record and has the closest nodes keep it; raises if none does."""


@dataclass(slots=True)
class _Announcement:
    """What we publish, how long each record lives, the latest expiry signed so far, and when to publish it again."""

    kind: RecordKind
    body: bytes
    ttl_ms: int
    expires: int
    due: Instant
    withdrawn: bool = False  # its tombstone is still to be brought to somebody


class Announcements:
    """Our announcements, one per topic."""

    def __init__(self, owner: PeerId, clock: Clock, store: Store, on_dropped: Callable[[Dropped], None]) -> None:
        self._owner, self._clock, self._store, self._on_dropped = owner, clock, store, on_dropped
        self._published: dict[Digest, _Announcement] = {}
        self._changed = asyncio.Event()
        self._sequence = 0

    async def publish(self, kind: RecordKind, topic: Digest, body: bytes, *, ttl_ms: int) -> None:
        """As `Dht.publish`."""
        if len(body) > limits.RECORD_BODY_BYTES_MAX:
            raise Oversize(f"a record body of {len(body)} bytes is over the limit of {limits.RECORD_BODY_BYTES_MAX}")
        if not 0 < ttl_ms <= limits.RECORD_TTL_MS_MAX:
            raise Oversize(f"a record lives 1 to {limits.RECORD_TTL_MS_MAX} ms, not {ttl_ms}")
        known = self._published.get(topic)
        announcement = _Announcement(kind, body, ttl_ms, known.expires if known else 0, self._clock.now())
        self._published[topic] = announcement
        try:
            await self._announce(topic, announcement)
        finally:
            self._changed.set()

    async def withdraw(self, topic: Digest) -> None:
        """As `Dht.withdraw`."""
        announcement = self._published.get(topic)
        if announcement is None:
            raise Misuse("nothing was published at this topic, so there is nothing to withdraw")
        announcement.withdrawn = True
        try:
            await self._announce(topic, announcement)
        finally:
            self._changed.set()

    async def republish_forever(self) -> None:
        """Publish each again after a third of its life, and withdraw what could not be, until cancelled."""
        while True:
            self._changed.clear()
            now = self._clock.now()
            due = min((a.due for a in self._published.values()), default=None)
            with suppress(TimeoutError):
                async with asyncio.timeout(None if due is None else max(0.0, due - now)):
                    await self._changed.wait()
            for topic, announcement in list(self._published.items()):
                if announcement.due <= self._clock.now() and self._published.get(topic) is announcement:
                    await self._republish(topic, announcement)

    def __len__(self) -> int:
        return sum(not announcement.withdrawn for announcement in self._published.values())

    async def _republish(self, topic: Digest, announcement: _Announcement) -> None:
        try:
            await self._announce(topic, announcement)
        except HaifError as error:
            what = "withdrawing" if announcement.withdrawn else "republishing"
            self._on_dropped(Dropped(error.reason, self._owner, f"{what}: {error.message}"))

    async def _announce(self, topic: Digest, announcement: _Announcement) -> None:
        """Have the nodes keep what we say now: the record, or that it is gone."""
        withdrawn = announcement.withdrawn
        announcement.due = Instant(self._clock.now() + announcement.ttl_ms / 3000)
        try:
            if not withdrawn or announcement.expires > self._clock.wall():
                await self._store(self._record(topic, announcement))
        except (HaifError, asyncio.CancelledError):
            announcement.due = min(announcement.due, Instant(self._clock.now() + _RETRY_SECONDS))
            raise
        if withdrawn and self._published.get(topic) is announcement:
            del self._published[topic]

    def _record(self, topic: Digest, announcement: _Announcement) -> Record:
        wall, tombstone = self._clock.wall(), announcement.withdrawn
        self._sequence = max(self._sequence + 1, wall)  # higher than any that a former start of ours gave
        if not tombstone:
            announcement.expires = max(announcement.expires, WallTime(wall + announcement.ttl_ms))
        return Record(
            kind=announcement.kind,
            topic=topic,
            owner=self._owner,
            sequence=self._sequence,
            expires=announcement.expires,
            tombstone=tombstone,
            body=b"" if tombstone else announcement.body,
        )
