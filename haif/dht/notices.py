"""Who wants to be told when something is stored here: registrations that lapse, and how often each may be told.

A registration needs a round-trip token, so notices go only where somebody asked for them from; it lapses by itself.
A notice is one datagram for one record that was accepted. Each watcher has a token bucket: a flood of changes ends
here, and its watcher reads what it missed. So nobody can be made to receive more than `limits.NOTICES_PER_SECOND`
datagrams from here, whoever stores what.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from haif.base import limits
from haif.base.clock import Instant
from haif.base.ids import Digest
from haif.base.machine import Address
from haif.dht.contact import subnet
from haif.policy.bucket import Bucket


@dataclass(slots=True)
class _Registration:
    handle: bytes
    lapses: Instant
    bucket: Bucket


class Watchers:
    """Registrations, bounded in all, per topic, and per topic and subnet."""

    def __init__(self) -> None:
        self._topics: dict[Digest, dict[Address, _Registration]] = {}
        self._count = 0

    def register(self, topic: Digest, handle: bytes, watcher: Address, now: Instant) -> bool:
        """Tell this address of changes from now on, for `limits.WATCH_REGISTRATION_SECONDS`; False where none fits."""
        here = self._topics.get(topic, {})
        known = here.get(watcher)
        if known is None:
            self._forget_lapsed(topic, now)
            here = self._topics.get(topic, {})
            if not self._has_room(here, watcher, now):
                return False
            self._count += 1
        bucket = known.bucket if known else _full(now)
        lapses = Instant(now + limits.WATCH_REGISTRATION_SECONDS)
        self._topics.setdefault(topic, {})[watcher] = _Registration(handle, lapses, bucket)
        return True

    def tell(self, topic: Digest, now: Instant) -> list[tuple[bytes, Address]]:
        """Whom to tell of a change now: the handle each chose, and where it is."""
        told: list[tuple[bytes, Address]] = []
        for watcher, registration in self._topics.get(topic, {}).items():
            if registration.lapses > now:
                registration.bucket, answer = registration.bucket.take(1, now)
                if answer.allowed:
                    told.append((registration.handle, watcher))
        return told

    def forget_lapsed(self, now: Instant) -> None:
        """Drop what has lapsed."""
        for topic in list(self._topics):
            self._forget_lapsed(topic, now)

    def __len__(self) -> int:
        return self._count

    def _has_room(self, here: dict[Address, _Registration], watcher: Address, now: Instant) -> bool:
        if self._count >= limits.WATCHERS_MAX:
            self.forget_lapsed(now)
        mine = Counter(subnet(other) for other in here)[subnet(watcher)]
        return (
            self._count < limits.WATCHERS_MAX
            and len(here) < limits.WATCHERS_PER_TOPIC_MAX
            and mine < limits.WATCHERS_PER_TOPIC_AND_SUBNET_MAX
        )

    def _forget_lapsed(self, topic: Digest, now: Instant) -> None:
        here = self._topics.get(topic, {})
        for watcher in [watcher for watcher, registration in here.items() if registration.lapses <= now]:
            del here[watcher]
            self._count -= 1
        if not here:
            self._topics.pop(topic, None)


def _full(now: Instant) -> Bucket:
    return Bucket.full(capacity=limits.NOTICES_BURST, rate=limits.NOTICES_PER_SECOND, now=now)
